//! The producer's disk buffer: entries in the order of publication, in a folder of its own.
//!
//! It promises that what was committed is read back in order and whole, by this process or by the
//! next one, whatever a crash or a disk left behind: a torn tail is cut, a region that cannot be
//! read is put aside, counted and reported, and its neighbours are not lost. It relies on a folder
//! that nobody else writes to, which is why it takes a lock. One thread uses it.
//!
//! # The folder
//!
//! | File | Is |
//! |---|---|
//! | `<sequence>.spool` | a [segment]: a header, then [entries](entry). It is named by the sequence of its first entry, and deleted when all of it is confirmed |
//! | `confirmed` | the sequence below which everything is confirmed, and its CRC-32C. Where it is behind, damaged or gone, more is sent again, flagged |
//! | `quarantine/` | bytes that could not be read, named by segment and place. Nobody deletes them |
//! | `lost.json` | events that had to be dropped and are not reported yet |
//! | `lock` | locked while a process has the spool |
//!
//! All other files are left alone.
//!
//! # Segments
//!
//! A commit is one write to one segment. The next segment begins when a commit would make one
//! longer than 16 MiB or an eighth of the limit; only a commit that is longer by itself makes a
//! longer one. A process never writes to a segment of an earlier one.
//!
//! # What a crash leaves
//!
//! Only the last segment can end in an entry that was not written wholly: its bytes run out.
//! Nothing was promised for it, so it is cut off at start. If what follows the last entry is
//! anything else, it is put aside first, and counted. Everywhere else, bytes that are no entry
//! have entries after them: they are put aside when they are reached, and the sequences around
//! them say how many entries they cost. So do segments that are gone or too short.

mod config;
mod entry;
mod folder;
mod reader;
mod segment;
mod start;
#[cfg(test)]
mod tests;
mod write;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::time::Instant;

pub use config::{Fsync, SpoolConfig, SpoolError};
pub(crate) use entry::Entry;

use folder::Folder;
use reader::Reader;
use segment::Segment;
use write::Batch;

/// Who has an entry until it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The caller has it in memory; only the next process reads it. Only while nothing is unread,
    /// or it would overtake that.
    InMemory,
    /// Only the disk has it: it is read back.
    OnDisk,
}

/// The spool has no room for the entry until others are confirmed, or the entry has more than a
/// mebibyte, which no event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The disk buffer. Dropped, it syncs nothing: `commit(true)` first.
pub(crate) struct Spool {
    folder: Folder,
    fsync: Fsync,
    max_bytes: u64,
    /// In order. Only the last may be written to.
    segments: VecDeque<Segment>,
    /// Of all segments.
    bytes: u64,
    /// The last segment, if this process made it.
    writing: Option<File>,
    /// Whether the last segment has more bytes than it should, after a write that failed.
    is_torn: bool,
    /// When the first write was that is not synced.
    unsynced_since: Option<Instant>,
    batch: Batch,
    /// The sequence behind the last one that was committed.
    committed: u64,
    /// Everything below is from an earlier process.
    inherited: u64,
    /// Everything below is confirmed, and in the file it is up to `noted`.
    confirmed: u64,
    noted: u64,
    /// The segment to read from, and how far it was read.
    reading: usize,
    reader: Reader,
    /// The next sequence to read: everything below was given to the caller, or is lost.
    unread: u64,
    /// The sequence behind the last one that the caller was given.
    given: u64,
    corrupt: u64,
    corrupt_entries: u64,
}

impl Spool {
    /// Reads the next entry back. What is no entry on the way there is put aside. `None`: all that
    /// was committed is read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        while self.unread < self.committed {
            let end = self.end_of(self.reading);
            let Some(segment) = self.segments.get_mut(self.reading) else {
                self.lose(self.unread, &(0..0), end);
                break;
            };
            let sequences = self.unread..end;
            let read = self.reader.read(&self.folder, segment, &sequences)?;
            let first = segment.first;
            if let Some(entry) = &read.entry {
                segment.oldest_ms.get_or_insert(entry.written_at_ms);
            }
            let until = read.entry.as_ref().map_or(end, |entry| entry.sequence);
            if !read.skipped.is_empty() || until > self.unread {
                self.lose(first, &read.skipped, until);
            }
            let Some(mut entry) = read.entry else {
                self.reading = self.reading.saturating_add(1);
                self.reader = Reader::at(0);
                continue;
            };
            self.unread = entry.sequence.saturating_add(1);
            if entry.sequence >= self.confirmed {
                self.given = self.unread;
                entry.maybe_delivered |= entry.sequence < self.inherited;
                return Ok(Some(entry));
            }
        }
        self.release()?;
        Ok(None)
    }

    /// Gives up everything unread that is below `until`: `bytes` of a segment that are no entry,
    /// or are gone.
    fn lose(&mut self, segment: u64, bytes: &Range<u64>, until: u64) {
        let are_all_before_confirmed = self.confirmed >= self.unread;
        let is_old = self.confirmed > self.unread && self.confirmed >= until;
        if !is_old {
            let entries = until.saturating_sub(self.unread.max(self.confirmed));
            self.folder.put_aside(segment, bytes, Some(entries));
            self.corrupt = self.corrupt.saturating_add(1);
            self.corrupt_entries = self.corrupt_entries.saturating_add(entries);
        }
        self.unread = until;
        if are_all_before_confirmed {
            self.confirmed = self.confirmed.max(until);
        }
    }

    /// Notes that everything below this sequence is confirmed, as far as it was given to the
    /// caller: the next process does not read it, and segments that hold nothing else go.
    pub(crate) fn confirm(&mut self, below: u64) -> io::Result<()> {
        // What was lost behind the last entry is not waited for.
        let below = if below >= self.given {
            self.unread
        } else {
            below
        };
        self.confirmed = self.confirmed.max(below);
        self.release()
    }

    fn release(&mut self) -> io::Result<()> {
        if self.noted < self.confirmed {
            self.folder.note_confirmed(self.confirmed)?;
            self.noted = self.confirmed;
        }
        while let Some(segment) = self.segments.front() {
            let end = self.end_of(0);
            if end > self.confirmed {
                break;
            }
            self.folder.remove(segment.first)?;
            self.bytes = self.bytes.saturating_sub(segment.bytes);
            self.segments.pop_front();
            if self.segments.is_empty() {
                self.writing = None;
                self.unsynced_since = None;
            }
            if self.reading == 0 {
                self.reader = Reader::at(0);
                self.unread = self.unread.max(end);
            }
            self.reading = self.reading.saturating_sub(1);
        }
        Ok(())
    }

    /// The sequence behind the last one of a segment.
    fn end_of(&self, segment: usize) -> u64 {
        let next = self.segments.get(segment.saturating_add(1));
        next.map_or(self.committed, |next| next.first)
    }

    /// The sequence of the next entry.
    pub(crate) fn end(&self) -> u64 {
        self.committed.saturating_add(self.batch.entries)
    }

    /// Whether there are entries to be read back, when they are committed.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread < self.committed || self.batch.entries > self.batch.in_memory
    }

    /// Bytes of segments on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries that are not confirmed, those included that are not committed yet.
    pub(crate) fn entries(&self) -> u64 {
        self.end().saturating_sub(self.confirmed)
    }

    /// Regions that could not be read, since the spool was opened.
    pub(crate) fn corrupt(&self) -> u64 {
        self.corrupt
    }

    /// Entries that were in them, as far as the sequences around them say.
    pub(crate) fn corrupt_entries(&self) -> u64 {
        self.corrupt_entries
    }

    /// When the first entry of the oldest segment was written, in milliseconds since 1970, where
    /// that is known: the oldest entry that is not confirmed is not older.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        self.segments.front()?.oldest_ms
    }
}
