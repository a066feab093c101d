//! Blocks of ClickHouse's Native format: how rows are inserted.
//!
//! A block is a list of columns, each one run of bytes. Columns that lie in memory as they are sent
//! are borrowed, so a block costs little beside them. The `clickhouse` crate has blocks of its own,
//! but sends each text of 128 bytes and more as a chunk of HTTP by itself: measured with events of
//! 600 bytes, that was three quarters of what the consumer and nine tenths of what the server did.

use std::borrow::Cow;

use clickhouse::Client;
use clickhouse::error::Error;
use clickhouse::insert_formatted::{BufInsertFormatted, InsertFormatted};

/// How many bytes are sent at a time.
const CHUNK: usize = 256 * 1024;

/// The settings of every insert into our tables.
///
/// The first two keep a batch in one block, and so in one part: they are above the size of any. The
/// third leaves the indexes to the first merge. Until then a question reads the columns of the young
/// part, which are small. With them a part of a few events is 92 files, without 14 beside its
/// projections, and an insert at 100 events/s took eight times as long.
pub const SETTINGS: [(&str, &str); 3] = [
    ("min_insert_block_size_rows", "1048449"),
    ("min_insert_block_size_bytes", "268402944"),
    ("materialize_skip_indexes_on_insert", "0"),
];

/// Rows to insert, column by column.
#[derive(Debug)]
pub struct Block<'a> {
    rows: usize,
    columns: Vec<(Vec<u8>, Cow<'a, [u8]>)>,
}

impl<'a> Block<'a> {
    /// A block of so many rows, without columns yet.
    ///
    /// # Errors
    /// If there are no rows: an empty block says to the server that nothing follows.
    pub(crate) fn of(rows: usize) -> Result<Self, Error> {
        if rows == 0 {
            return Err(Error::Other("a block has at least one row".into()));
        }
        Ok(Self {
            rows,
            columns: Vec::new(),
        })
    }

    /// Adds a column: the values of all rows in their order, each as its type is written.
    pub(crate) fn column(&mut self, name: &str, kind: &str, values: Cow<'a, [u8]>) {
        let mut head = Vec::new();
        put_text(&mut head, name.as_bytes());
        put_text(&mut head, kind.as_bytes());
        self.columns.push((head, values));
    }

    /// Sends it by `insert`, which ends with it.
    ///
    /// # Errors
    /// If the server did not say that it is stored; it may be.
    pub async fn send(&self, insert: InsertFormatted) -> Result<(), Error> {
        let mut insert = insert.buffered_with_capacity(CHUNK);
        let mut head = Vec::new();
        put_length(&mut head, self.columns.len());
        put_length(&mut head, self.rows);
        for (names, values) in &self.columns {
            head.extend_from_slice(names);
            write(&mut insert, &head).await?;
            write(&mut insert, values).await?;
            head.clear();
        }
        insert.end().await
    }
}

async fn write(insert: &mut BufInsertFormatted, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let written = insert.write(bytes).await?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// An insert of one [`Block`] into `table`, with the settings of `client` and [`SETTINGS`].
pub fn insert(client: &Client, table: &str) -> InsertFormatted {
    SETTINGS.into_iter().fold(
        client.insert_formatted_with(format!("INSERT INTO {table} FORMAT Native")),
        |insert, (name, value)| insert.with_setting(name, value),
    )
}

/// Writes a text: its length, then its bytes.
#[inline]
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        // Most columns of most events are empty.
        Ok(0) => out.push(0),
        Ok(length @ ..0x80) => {
            out.reserve(text.len().saturating_add(1));
            out.push(length);
            out.extend_from_slice(text);
        }
        _ => {
            put_length(out, text.len());
            out.extend_from_slice(text);
        }
    }
}

/// Writes a length in groups of seven bits, the lowest first; all but the last have the high bit.
#[inline]
fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        // The low seven bits fit a byte.
        out.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or(0));
}

/// The texts that were written to `bytes` one after the other, each as it was written.
pub(crate) fn texts(mut bytes: &[u8]) -> impl Iterator<Item = WrittenText<'_>> {
    std::iter::from_fn(move || {
        let (mut length, mut shift, mut head) = (0_usize, 0_u32, 0_usize);
        loop {
            let byte = *bytes.get(head)?;
            head = head.saturating_add(1);
            length |= usize::from(byte & 0x7f).checked_shl(shift)?;
            shift = shift.saturating_add(7);
            if byte < 0x80 {
                break;
            }
        }
        let (written, rest) = bytes.split_at_checked(head.checked_add(length)?)?;
        bytes = rest;
        Some(WrittenText { written, head })
    })
}

/// A text behind its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrittenText<'a> {
    /// Both.
    pub(crate) written: &'a [u8],
    /// How many bytes the length has.
    head: usize,
}

impl<'a> WrittenText<'a> {
    /// The text.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.written.get(self.head..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_without_rows_cannot_be_built() {
        assert!(Block::of(0).is_err());
    }

    #[test]
    fn a_length_has_as_many_bytes_as_it_needs() {
        for (length, written) in [
            (0, vec![0]),
            (127, vec![127]),
            (128, vec![0x80, 1]),
            (16_384, vec![0x80, 0x80, 1]),
        ] {
            let mut out = Vec::new();
            put_length(&mut out, length);
            assert_eq!(out, written);
        }
    }

    proptest! {
        #[test]
        fn texts_are_read_back(
            written in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let mut out = Vec::new();
            for text in &written {
                put_text(&mut out, text);
            }
            let read: Vec<_> = texts(&out).map(|text| text.bytes().to_vec()).collect();
            prop_assert_eq!(read, written);
        }
    }
}
