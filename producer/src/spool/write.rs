//! Adds entries: they are gathered in memory and written together.

use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::config::Fsync;
use super::entry::Entry;
use super::reader::{Reader, len};
use super::segment::{HEADER_BYTES, Segment};
use super::{Full, Kept, Spool};

/// Longest segment, in bytes.
const SEGMENT_BYTES: u64 = 16 << 20;

/// How much room for commits is kept between them, in bytes.
const BATCH_BYTES: usize = 4 << 20;

/// What the next commit writes.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: u64,
    /// How many of them the caller keeps, at the beginning.
    pub(super) in_memory: u64,
    in_memory_bytes: u64,
    /// When the first was appended.
    oldest_ms: u64,
}

impl Spool {
    /// Adds an entry to those that the next [`commit`](Self::commit) writes, and gives its
    /// sequence.
    pub(crate) fn append(
        &mut self,
        kept: Kept,
        maybe_delivered: bool,
        key: &[u8],
        value: &[u8],
    ) -> Result<u64, Full> {
        let overtakes = kept == Kept::InMemory && self.has_unread();
        debug_assert!(
            !overtakes,
            "an entry kept in memory overtakes what is unread"
        );
        let sequence = self.end();
        let written_at_ms = now_ms();
        let entry = Entry {
            sequence,
            written_at_ms,
            // It is read back though the caller has it: it may be sent twice.
            maybe_delivered: maybe_delivered || overtakes,
            key,
            value,
        };
        let before = self.batch.bytes.len();
        let fits = entry.write_to(&mut self.batch.bytes);
        let after = self.batch.bytes.len();
        // The header of a segment that may have to be begun.
        let added = len(after.saturating_add(HEADER_BYTES));
        if !fits || self.bytes.saturating_add(added) > self.max_bytes {
            self.batch.bytes.truncate(before);
            return Err(Full);
        }
        if self.batch.entries == 0 {
            self.batch.oldest_ms = written_at_ms;
        }
        self.batch.entries = self.batch.entries.saturating_add(1);
        if kept == Kept::InMemory && !overtakes {
            self.batch.in_memory = self.batch.entries;
            self.batch.in_memory_bytes = len(after);
        }
        Ok(sequence)
    }

    /// Writes what was appended, all or nothing: after an error none of it is in the spool, and
    /// its sequences are given again. With `sync` it, and all before it, is on the disk itself,
    /// whatever the policy says.
    pub(crate) fn commit(&mut self, sync: bool) -> io::Result<()> {
        let sync = sync || self.fsync == Fsync::Each;
        let written = self.write_batch(sync);
        if written.is_ok() {
            self.take_over_batch();
        } else {
            self.is_torn = true;
            if let Err(error) = self.cut_back() {
                tracing::warn!(%error, "a write to the spool failed and cannot be cut back yet");
            }
        }
        let mut bytes = std::mem::take(&mut self.batch).bytes;
        bytes.clear();
        bytes.shrink_to(BATCH_BYTES);
        self.batch.bytes = bytes;
        written
    }

    fn write_batch(&mut self, sync: bool) -> io::Result<()> {
        if !self.batch.bytes.is_empty() {
            self.cut_back()?;
            self.roll()?;
            let (Some(file), Some(segment)) = (&self.writing, self.segments.back()) else {
                return Err(io::Error::other("no segment is open"));
            };
            self.unsynced_since.get_or_insert_with(Instant::now);
            file.write_all_at(&self.batch.bytes, segment.bytes)?;
        }
        if sync { self.sync() } else { Ok(()) }
    }

    /// Takes back what a commit wrote that failed.
    fn cut_back(&mut self) -> io::Result<()> {
        if let (true, Some(file), Some(last)) = (self.is_torn, &self.writing, self.segments.back())
        {
            file.set_len(last.bytes)?;
        }
        self.is_torn = false;
        Ok(())
    }

    /// Begins a segment, if there is none to write to or the batch would make it too long.
    fn roll(&mut self) -> io::Result<()> {
        if let (Some(file), Some(last)) = (&self.writing, self.segments.back()) {
            let is_empty = last.bytes <= len(HEADER_BYTES);
            let longest = SEGMENT_BYTES.min(self.max_bytes / 8);
            let has_room = last.bytes.saturating_add(len(self.batch.bytes.len())) <= longest;
            // What is written to a deleted file is lost, and nothing says so.
            let is_deleted = file.metadata()?.nlink() == 0;
            if (is_empty || has_room) && !is_deleted {
                return Ok(());
            }
            if self.fsync != Fsync::Never {
                self.sync()?;
            }
        }
        self.writing = None;
        let file = self.folder.make_segment(self.committed)?;
        self.segments.push_back(Segment {
            first: self.committed,
            bytes: len(HEADER_BYTES),
            oldest_ms: None,
        });
        self.bytes = self.bytes.saturating_add(len(HEADER_BYTES));
        self.writing = Some(file);
        Ok(())
    }

    /// Counts the batch, which is written, as committed.
    fn take_over_batch(&mut self) {
        let reading = self.segments.len().saturating_sub(1);
        let Some(last) = self.segments.back_mut() else {
            return;
        };
        if self.batch.entries == 0 {
            return;
        }
        if self.unread == self.committed {
            self.reading = reading;
            self.reader = Reader::at(last.bytes.saturating_add(self.batch.in_memory_bytes));
            self.unread = self.committed.saturating_add(self.batch.in_memory);
            if self.batch.in_memory > 0 {
                self.given = self.unread;
            }
        }
        let length = len(self.batch.bytes.len());
        last.bytes = last.bytes.saturating_add(length);
        last.oldest_ms.get_or_insert(self.batch.oldest_ms);
        self.bytes = self.bytes.saturating_add(length);
        self.committed = self.end();
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced_since.is_some() {
            if let Some(file) = &self.writing {
                file.sync_data()?;
            }
            self.folder.sync_names()?;
            self.unsynced_since = None;
        }
        Ok(())
    }

    /// Syncs, if the policy says that it is time. If that fails, it is tried again after another
    /// interval.
    pub(crate) fn tick(&mut self) -> io::Result<()> {
        let (Fsync::Interval(interval), Some(since)) = (self.fsync, self.unsynced_since) else {
            return Ok(());
        };
        if since.elapsed() < interval {
            return Ok(());
        }
        let synced = self.sync();
        if synced.is_err() {
            self.unsynced_since = Some(Instant::now());
        }
        synced
    }
}

fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
