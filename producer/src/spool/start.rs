//! Takes up what an earlier process left.

use std::collections::VecDeque;
use std::io;

use super::Spool;
use super::config::{SpoolConfig, SpoolError};
use super::folder::Folder;
use super::reader::Reader;
use super::segment::{self, Segment};
use super::write::Batch;

impl Spool {
    /// Takes the folder for this process alone, and makes it if there is none. What an earlier
    /// process left is unread.
    pub(crate) fn open(config: &SpoolConfig) -> Result<Self, SpoolError> {
        let folder = Folder::take(&config.folder)?;
        let segments = folder.segments()?;
        Self::resume(config, folder, segments).map_err(|source| SpoolError::Unusable {
            folder: config.folder.clone(),
            source,
        })
    }

    fn resume(
        config: &SpoolConfig,
        folder: Folder,
        segments: VecDeque<Segment>,
    ) -> io::Result<Self> {
        let noted = folder.confirmed()?.unwrap_or(0);
        let mut spool = Self {
            folder,
            fsync: config.fsync,
            max_bytes: config.max_bytes,
            segments,
            bytes: 0,
            writing: None,
            is_torn: false,
            unsynced_since: None,
            batch: Batch::default(),
            committed: noted,
            inherited: 0,
            confirmed: noted,
            noted,
            reading: 0,
            reader: Reader::at(0),
            unread: 0,
            given: 0,
            corrupt: 0,
            corrupt_entries: 0,
        };
        spool.mend()?;
        spool.bytes = spool.segments.iter().map(|segment| segment.bytes).sum();
        spool.inherited = spool.committed;
        let first = spool.segments.front().map(|segment| segment.first);
        spool.unread = first.unwrap_or(spool.committed);
        spool.confirmed = noted.max(spool.unread);
        spool.release()?;
        spool.given = spool.unread;
        spool.find_oldest()?;
        if spool.has_unread() {
            tracing::info!(
                spool.entries = spool.entries(),
                spool.bytes = spool.bytes,
                "an earlier process left events in the spool"
            );
        }
        Ok(spool)
    }

    /// Cuts the last segment behind its last entry. One that has none goes: a crash came when it
    /// was begun. The one before it was whole then, or is found damaged when it is read.
    fn mend(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.back_mut() else {
            return Ok(());
        };
        let first = last.first;
        let tail = segment::tail(&self.folder, last)?;
        let length = tail.bytes.end.saturating_sub(tail.bytes.start);
        if length > 0 && tail.is_torn {
            tracing::warn!(
                spool.segment = first,
                spool.bytes = length,
                "a write to the spool was interrupted; what it began is cut off"
            );
        } else if length > 0 {
            self.folder.put_aside(first, &tail.bytes, None);
            self.corrupt = self.corrupt.saturating_add(1);
        }
        self.committed = self.committed.max(tail.next.unwrap_or(first));
        if tail.next.is_none() {
            self.folder.remove(first)?;
            self.segments.pop_back();
        } else if length > 0 {
            self.folder.cut(first, tail.bytes.start)?;
            last.bytes = tail.bytes.start;
        }
        Ok(())
    }

    /// Looks when the first entry was written.
    fn find_oldest(&mut self) -> io::Result<()> {
        let end = self.end_of(0);
        if let Some(segment) = self.segments.front_mut() {
            let read = Reader::at(0).read(&self.folder, segment, &(segment.first..end))?;
            segment.oldest_ms = read.entry.map(|entry| entry.written_at_ms);
        }
        Ok(())
    }
}
