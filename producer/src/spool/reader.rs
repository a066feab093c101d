//! Reads a segment from one place on, a window at a time: what it holds in memory does not depend
//! on what the file claims to be.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use super::entry::{self, Entry, Found};
use super::folder::Folder;
use super::segment::{self, HEADER_BYTES, Header, Segment};

/// How much is read at once. More than twice the longest entry, so that every window has news.
const WINDOW: usize = 4 << 20;

/// A place in a segment, and bytes read ahead from it.
pub(super) struct Reader {
    file: Option<File>,
    /// Where in the file `buffer` begins.
    base: u64,
    buffer: Vec<u8>,
    /// What of `buffer` was read.
    at: usize,
    /// Where bytes that are no entry began, if the last ones were such.
    broken_from: Option<u64>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Read {
    /// Where bytes are that are no entry, before `entry`.
    pub(super) skipped: Range<u64>,
    /// The next entry; `None` at the end.
    pub(super) entry: Option<Entry>,
}

impl Reader {
    /// A reader at this place of a file.
    pub(super) fn at(offset: u64) -> Self {
        Self {
            file: None,
            base: offset,
            buffer: Vec::new(),
            at: 0,
            broken_from: None,
        }
    }

    /// Reads the next entry of `segment` that has one of `sequences`. It is the same segment
    /// every time, though it may have grown. One that is shorter than it should be, or gone, ends
    /// early.
    pub(super) fn read(
        &mut self,
        folder: &Folder,
        segment: &Segment,
        sequences: &Range<u64>,
    ) -> io::Result<Read> {
        loop {
            let limit = self.fill(folder, segment)?;
            if self.offset() == 0 && segment::read_header(&self.buffer) == Header::Ours {
                self.at = HEADER_BYTES;
                continue;
            }
            let offset = self.offset();
            let ahead = self.buffer.get(self.at..).unwrap_or_default();
            let (entry, length) = match entry::scan(ahead, sequences, limit) {
                Found::Broken(length) => {
                    self.broken_from.get_or_insert(offset);
                    self.at = self.at.saturating_add(length);
                    continue;
                }
                Found::Entry(entry, length) => (Some(entry.to_owned()), length),
                Found::End => (None, 0),
            };
            self.at = self.at.saturating_add(length);
            if entry.is_none() {
                // There may be nothing to read for long.
                self.buffer = Vec::new();
                self.base = offset;
                self.at = 0;
            }
            let skipped = self.broken_from.take().unwrap_or(offset)..offset;
            return Ok(Read { skipped, entry });
        }
    }

    /// Where in the file the next byte to look at is.
    fn offset(&self) -> u64 {
        self.base.saturating_add(len(self.at))
    }

    /// Reads ahead if the next entry may not be wholly in the buffer. Gives how many of the bytes
    /// ahead can be judged: any, if the segment has no more.
    fn fill(&mut self, folder: &Folder, segment: &Segment) -> io::Result<usize> {
        let ahead = self.buffer.len().saturating_sub(self.at);
        if let Some(sure) = ahead.checked_sub(entry::MAX_BYTES).filter(|sure| *sure > 0) {
            return Ok(sure);
        }
        let from = self.base.saturating_add(len(self.buffer.len()));
        let left = segment.bytes.saturating_sub(from);
        if left == 0 {
            return Ok(usize::MAX);
        }
        self.base = self.offset();
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.file.is_none() {
            self.file = folder.open(segment.first)?;
        }
        let Some(mut file) = self.file.as_ref() else {
            return Ok(usize::MAX);
        };
        let wanted = left.min(len(WINDOW.saturating_sub(ahead)));
        file.seek(SeekFrom::Start(from))?;
        let read = file.take(wanted).read_to_end(&mut self.buffer)?;
        if wanted == left || len(read) < wanted {
            return Ok(usize::MAX);
        }
        Ok(self.buffer.len().saturating_sub(entry::MAX_BYTES))
    }
}

/// A length as a distance in a file.
pub(super) fn len(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
