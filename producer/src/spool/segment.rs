//! A segment: a file of entries. Its name is the sequence of its first entry, in 20 digits.
//!
//! | Bytes | Are |
//! |---|---|
//! | 8 | `AUDITSPL` |
//! | 4 | version of the format, little-endian: 1 |
//! | 4 | CRC-32C of the 12 bytes before, little-endian |
//! | … | [entries](super::entry) |
//!
//! Every version of the format begins like this, so that a version that is not known can be told
//! from a header that is damaged: the first is refused, behind the second entries are looked for.

use std::io;
use std::ops::Range;

use super::entry;
use super::folder::Folder;
use super::reader::Reader;

const MAGIC: [u8; 8] = *b"AUDITSPL";
const VERSION: u32 = 1;
const ENDING: &str = ".spool";

/// Bytes before the first entry.
pub(super) const HEADER_BYTES: usize = 16;

/// Sequences from here on are not believed: they were not given by counting.
pub(super) const MAX_SEQUENCE: u64 = u64::MAX / 2;

/// A segment in the folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// The sequence of its first entry.
    pub(super) first: u64,
    /// How many bytes of it are in use, the header included.
    pub(super) bytes: u64,
    /// When its first entry was written, in milliseconds since 1970, where that is known.
    pub(super) oldest_ms: Option<u64>,
}

/// What a file says of the format it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// It is the one written here.
    Ours,
    /// It is another version's.
    Other(u32),
    /// Nothing that can be relied on.
    Damaged,
}

/// The header of a new segment.
pub(super) fn header() -> Vec<u8> {
    header_of(VERSION)
}

fn header_of(version: u32) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(version.to_le_bytes());
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    header
}

/// Says whose header `bytes` begin with.
pub(super) fn read_header(bytes: &[u8]) -> Header {
    let version = bytes
        .strip_prefix(&MAGIC)
        .and_then(<[u8]>::first_chunk::<4>)
        .map(|version| u32::from_le_bytes(*version));
    match version {
        Some(version) if bytes.starts_with(&header_of(version)) => {
            if version == VERSION {
                Header::Ours
            } else {
                Header::Other(version)
            }
        }
        _ => Header::Damaged,
    }
}

/// The name of the segment that begins with this sequence.
pub(super) fn name(first: u64) -> String {
    format!("{first:020}{ENDING}")
}

/// The sequence in the name of a segment; `None` for the name of anything else.
pub(super) fn first_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(ENDING)?;
    let first = digits.parse().ok().filter(|first| *first < MAX_SEQUENCE)?;
    (name(first) == file_name).then_some(first)
}

/// How the last segment of an earlier process ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The sequence behind its last entry; `None` if it has no entry.
    pub(super) next: Option<u64>,
    /// The bytes behind its last entry.
    pub(super) bytes: Range<u64>,
    /// Whether those are only what a write that was interrupted leaves.
    pub(super) is_torn: bool,
}

/// Reads the last segment of an earlier process to its end.
pub(super) fn tail(folder: &Folder, segment: &Segment) -> io::Result<Tail> {
    let mut reader = Reader::at(0);
    let mut sequences = segment.first..MAX_SEQUENCE;
    let mut next = None;
    let bytes = loop {
        let read = reader.read(folder, segment, &sequences)?;
        let Some(entry) = read.entry else {
            break read.skipped;
        };
        sequences.start = entry.sequence.saturating_add(1);
        next = Some(sequences.start);
    };
    let head = folder.peek(segment.first, bytes.start, HEADER_BYTES)?;
    let is_torn = if bytes.start == 0 {
        header().starts_with(&head)
    } else {
        entry::is_torn(&head, bytes.end.saturating_sub(bytes.start))
    };
    Ok(Tail {
        next,
        bytes,
        is_torn,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_ours_or_anothers_or_damaged() {
        assert_eq!(read_header(&header()), Header::Ours);
        assert_eq!(header().len(), HEADER_BYTES);
        assert_eq!(read_header(&header_of(7)), Header::Other(7));
        for place in 0..HEADER_BYTES {
            let mut header = header();
            header[place] ^= 1;
            assert_eq!(read_header(&header), Header::Damaged, "{place}");
            header.truncate(place);
            assert_eq!(read_header(&header), Header::Damaged, "{place}");
        }
    }

    #[test]
    fn only_the_name_of_a_segment_is_one() {
        assert_eq!(first_of(&name(17)), Some(17));
        assert_eq!(name(17), "00000000000000000017.spool");
        for other in [
            "17.spool",
            "lock",
            "lost.json",
            "+0000000000000000017.spool",
            "00000000000000000017.spool.bak",
            "18446744073709551615.spool",
            "99999999999999999999.spool",
        ] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }
}
