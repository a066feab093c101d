//! Which formats can be streamed, and how.
//!
//! The library hands out a query's output in pieces, each **a complete document of the format**. For formats that are a
//! plain sequence of rows that is right as it is. Formats that begin with names (and types) repeat this header in every
//! piece, so it is cut off all but the first. Any other format (JSON, Parquet, Pretty …) cannot be put together from
//! pieces and is produced as a whole, in memory.

use bytes::Bytes;

/// How the output of a query can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Rows only: piece after piece.
    Rows,
    /// Rows after a header.
    Headed(Header),
    /// In one piece.
    Whole,
}

/// What the rows come after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// So many lines; a newline within double quotes does not end one (CSV).
    Lines { count: usize, quotes: bool },
    /// A count, and so many strings for each column, all as the `RowBinary` formats write them.
    Strings { per_column: u64 },
}

impl Shape {
    pub(crate) fn of(format: &str) -> Self {
        let lines = |count, quotes| Self::Headed(Header::Lines { count, quotes });
        match format.to_ascii_lowercase().as_str() {
            "rowbinary"
            | "native"
            | "tabseparated"
            | "tsv"
            | "tabseparatedraw"
            | "tsvraw"
            | "csv"
            | "jsoneachrow"
            | "jsonlines"
            | "ndjson"
            | "jsonstringseachrow"
            | "jsoncompacteachrow"
            | "jsoncompactstringseachrow"
            | "null" => Self::Rows,
            "rowbinarywithnames" => Self::Headed(Header::Strings { per_column: 1 }),
            "rowbinarywithnamesandtypes" => Self::Headed(Header::Strings { per_column: 2 }),
            "tabseparatedwithnames"
            | "tsvwithnames"
            | "tabseparatedrawwithnames"
            | "tsvrawwithnames"
            | "jsoncompacteachrowwithnames"
            | "jsoncompactstringseachrowwithnames" => lines(1, false),
            "tabseparatedwithnamesandtypes"
            | "tsvwithnamesandtypes"
            | "tabseparatedrawwithnamesandtypes"
            | "tsvrawwithnamesandtypes"
            | "jsoncompacteachrowwithnamesandtypes"
            | "jsoncompactstringseachrowwithnamesandtypes" => lines(2, false),
            "csvwithnames" => lines(1, true),
            "csvwithnamesandtypes" => lines(2, true),
            _ => Self::Whole,
        }
    }

    /// What to send of a piece that is not the first.
    pub(crate) fn continued(self, mut piece: Bytes) -> Bytes {
        if let Self::Headed(header) = self {
            let length = header.length(&piece).unwrap_or(0);
            return piece.split_off(length.min(piece.len()));
        }
        piece
    }
}

impl Header {
    /// `None`: there is no such header.
    fn length(self, piece: &[u8]) -> Option<usize> {
        match self {
            Self::Lines { count, quotes } => {
                let mut quoted = false;
                let ends = |byte: u8| {
                    quoted ^= quotes && byte == b'"';
                    byte == b'\n' && !quoted
                };
                let mut ends = piece.iter().copied().map(ends).enumerate();
                let last = ends.by_ref().filter(|(_, end)| *end).nth(count - 1)?;
                Some(last.0 + 1)
            }
            Self::Strings { per_column } => {
                let (columns, mut at) = variable_integer(piece)?;
                for _ in 0..columns.checked_mul(per_column)? {
                    let (length, size) = variable_integer(piece.get(at..)?)?;
                    at = at
                        .checked_add(size)?
                        .checked_add(usize::try_from(length).ok()?)?;
                }
                (at <= piece.len()).then_some(at)
            }
        }
    }
}

/// An unsigned LEB128 integer and its size.
fn variable_integer(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// The `Content-Type` a ClickHouse server gives a format.
pub(crate) fn content_type(format: &str) -> &'static str {
    let format = format.to_ascii_lowercase();
    match format.as_str() {
        "json" | "jsoncompact" | "jsonstrings" | "jsoncolumns" => "application/json; charset=UTF-8",
        "csv" => "text/csv; charset=UTF-8; header=absent",
        _ if format.starts_with("csvwith") => "text/csv; charset=UTF-8; header=present",
        _ if format.starts_with("json") || format == "ndjson" => {
            "application/x-ndjson; charset=UTF-8"
        }
        _ if format.starts_with("tabseparated") || format.starts_with("tsv") => {
            "text/tab-separated-values; charset=UTF-8"
        }
        "parquet"
        | "native"
        | "rowbinary"
        | "rowbinarywithnames"
        | "rowbinarywithnamesandtypes" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn continued(format: &str, piece: &'static [u8]) -> Bytes {
        Shape::of(format).continued(Bytes::from_static(piece))
    }

    #[test]
    fn the_header_is_cut_off_later_pieces() {
        assert_eq!(
            continued(
                "RowBinaryWithNamesAndTypes",
                b"\x02\x01a\x02bc\x05UInt8\x06Stringrows"
            ),
            "rows"
        );
        assert_eq!(
            continued("RowBinaryWithNames", b"\x02\x01a\x02bcrows"),
            "rows"
        );
        assert_eq!(
            continued("CSVWithNames", b"\"a\",\"b\n\"\"c\"\n1,2\n"),
            "1,2\n"
        );
        assert_eq!(
            continued("TSVWithNamesAndTypes", b"a\nUInt8\n1\n2\n"),
            "1\n2\n"
        );
        assert_eq!(continued("JSONEachRow", b"{}\n"), "{}\n");
        assert_eq!(
            continued("RowBinaryWithNamesAndTypes", b"\x01\x01n\x05UInt8"),
            ""
        );
    }

    #[test]
    fn formats_that_close_what_they_open_are_sent_whole() {
        for format in [
            "JSON",
            "JSONCompact",
            "Parquet",
            "PrettyCompact",
            "XML",
            "Values",
        ] {
            assert_eq!(Shape::of(format), Shape::Whole, "{format}");
        }
    }

    proptest! {
        #[test]
        fn cutting_never_panics(piece in proptest::collection::vec(any::<u8>(), 0..100)) {
            for format in ["RowBinaryWithNames", "RowBinaryWithNamesAndTypes", "CSVWithNamesAndTypes"] {
                Shape::of(format).continued(Bytes::from(piece.clone()));
            }
        }
    }
}
