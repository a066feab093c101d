//! An entry as bytes, and how one is found among bytes that may be anything.
//!
//! | Bytes | Are |
//! |---|---|
//! | 4 | the marker |
//! | 4 | length of the body; at most 1 MiB |
//! | 4 | CRC-32C of the length and the body |
//! | 8 | the body: sequence, one more than that of the entry before |
//! | 8 | when it was written, in milliseconds since 1970 |
//! | 1 | flags: 1 says that the event may be in Kafka already |
//! | 4 | length of the key |
//! | … | the key |
//! | … | the value, to the end of the body |
//!
//! Numbers are little-endian. Where a length cannot be trusted, the marker finds the next entry.
//! It has bytes that UTF-8 never has, so an event whose text imitates an entry is not taken for
//! one.

use std::ops::Range;

/// What an entry begins with.
pub(super) const MARKER: [u8; 4] = [0xFF, b'E', b'v', 0xFE];

/// Bytes before the body.
const HEAD: usize = 12;

/// Bytes of the body before the key.
const BODY_HEAD: usize = 21;

/// Longest body. An event is far shorter; a longer one is not believed.
const MAX_BODY: usize = 1 << 20;

/// Longest entry.
pub(super) const MAX_BYTES: usize = HEAD + MAX_BODY;

const MAYBE_DELIVERED: u8 = 1;

/// One event in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<B = Vec<u8>> {
    /// Its place in the order of publication. What was lost leaves gaps.
    pub(crate) sequence: u64,
    /// When it was appended, in milliseconds since 1970.
    pub(crate) written_at_ms: u64,
    /// Whether Kafka may have it already.
    pub(crate) maybe_delivered: bool,
    /// The record's key.
    pub(crate) key: B,
    /// The record's value.
    pub(crate) value: B,
}

/// What some bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// An entry, and how many bytes it takes.
    Entry(Entry<&'a [u8]>, usize),
    /// So many bytes, at least one, that are no entry.
    Broken(usize),
    /// Nothing: there are no bytes.
    End,
}

impl Entry<&[u8]> {
    /// Adds its bytes to `into`. False, and nothing is added, if it is longer than an entry may
    /// be.
    #[must_use]
    pub(super) fn write_to(&self, into: &mut Vec<u8>) -> bool {
        let body = BODY_HEAD
            .saturating_add(self.key.len())
            .saturating_add(self.value.len());
        let (Ok(length), Ok(key_length)) = (u32::try_from(body), u32::try_from(self.key.len()))
        else {
            return false;
        };
        if body > MAX_BODY {
            return false;
        }
        let flags = if self.maybe_delivered {
            MAYBE_DELIVERED
        } else {
            0
        };
        let length = length.to_le_bytes();
        let parts: [&[u8]; 6] = [
            &self.sequence.to_le_bytes(),
            &self.written_at_ms.to_le_bytes(),
            &[flags],
            &key_length.to_le_bytes(),
            self.key,
            self.value,
        ];
        let checksum = parts.iter().fold(crc32c::crc32c(&length), |sum, part| {
            crc32c::crc32c_append(sum, part)
        });
        into.extend(MARKER);
        into.extend(length);
        into.extend(checksum.to_le_bytes());
        for part in parts {
            into.extend_from_slice(part);
        }
        true
    }

    /// The same with bytes of its own.
    pub(super) fn to_owned(self) -> Entry {
        Entry {
            sequence: self.sequence,
            written_at_ms: self.written_at_ms,
            maybe_delivered: self.maybe_delivered,
            key: self.key.to_vec(),
            value: self.value.to_vec(),
        }
    }
}

/// Says what `bytes` begin with. Only an entry with one of `sequences` is one. Where there is
/// none, the next one is looked for in the first `limit` bytes: those that are followed by as
/// many as an entry can have, if there is more to come after `bytes`.
pub(super) fn scan<'a>(bytes: &'a [u8], sequences: &Range<u64>, limit: usize) -> Found<'a> {
    if bytes.is_empty() {
        return Found::End;
    }
    if let Some((entry, length)) = parse(bytes, sequences) {
        return Found::Entry(entry, length);
    }
    let limit = limit.clamp(1, bytes.len());
    let mut places = bytes.iter().enumerate().take(limit).skip(1);
    let next = places.find(|(at, byte)| {
        **byte == MARKER[0]
            && bytes
                .get(*at..)
                .is_some_and(|rest| parse(rest, sequences).is_some())
    });
    Found::Broken(next.map_or(limit, |(at, _)| at))
}

/// Whether something of `length` bytes that begins with `head` is the beginning of an entry whose
/// end was not written. `head` has all its bytes, or at least eight.
pub(super) fn is_torn(head: &[u8], length: u64) -> bool {
    let Some((marker, rest)) = head.split_first_chunk::<4>() else {
        return MARKER.starts_with(head);
    };
    if *marker != MARKER {
        return false;
    }
    let Some(body) = rest.first_chunk::<4>() else {
        return true;
    };
    let body = usize::try_from(u32::from_le_bytes(*body)).unwrap_or(usize::MAX);
    let whole = u64::try_from(HEAD.saturating_add(body)).unwrap_or(u64::MAX);
    body <= MAX_BODY && length < whole
}

/// The entry that `bytes` begin with, and how many of them it takes.
fn parse<'a>(bytes: &'a [u8], sequences: &Range<u64>) -> Option<(Entry<&'a [u8]>, usize)> {
    let rest = bytes.strip_prefix(&MARKER)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let body_length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if body_length > MAX_BODY {
        return None;
    }
    let body = rest.get(..body_length)?;

    let (sequence, fields) = body.split_first_chunk::<8>()?;
    let (written_at_ms, fields) = fields.split_first_chunk::<8>()?;
    let (flags, fields) = fields.split_first()?;
    let (key_length, fields) = fields.split_first_chunk::<4>()?;
    let key_length = usize::try_from(u32::from_le_bytes(*key_length)).ok()?;
    let (key, value) = fields.split_at_checked(key_length)?;
    let sequence = u64::from_le_bytes(*sequence);
    if !sequences.contains(&sequence) {
        return None;
    }
    // Last, for it is what takes time.
    let found = crc32c::crc32c_append(crc32c::crc32c(length), body);
    if found != u32::from_le_bytes(*checksum) {
        return None;
    }
    let entry = Entry {
        sequence,
        written_at_ms: u64::from_le_bytes(*written_at_ms),
        maybe_delivered: flags & MAYBE_DELIVERED != 0,
        key,
        value,
    };
    Some((entry, HEAD.saturating_add(body_length)))
}

#[cfg(test)]
mod tests;
