//! What a file of events is written as, and the one way to write it.
//!
//! A file can be longer than memory and its sending can break. So it is made chunk by chunk, of
//! which nothing is kept but what the format needs, and its end says that it is whole. No part of
//! a file that was cut reads like that end.

use audit_schema::row::EventRow;

use super::csv::Csv;
use super::ndjson;
use super::parquet::Parquet;
use super::whole::{Part, Whole};

/// What a file is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A JSON object per line.
    Ndjson,
    /// For spreadsheets.
    Csv,
    /// For analysis: typed columns, compressed.
    Parquet,
}

impl Format {
    /// All there are.
    pub(crate) const ALL: [Self; 3] = [Self::Ndjson, Self::Csv, Self::Parquet];

    /// What it is called in a request, and after the dot in the name of a file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// What it is called in `content-type`. What continues a CSV file has no header.
    pub(crate) const fn media_type(self, part: Part) -> &'static str {
        match (self, part) {
            (Self::Ndjson, _) => "application/x-ndjson",
            (Self::Csv, Part::Start) => "text/csv; charset=utf-8; header=present",
            (Self::Csv, Part::Rest) => "text/csv; charset=utf-8; header=absent",
            (Self::Parquet, _) => "application/vnd.apache.parquet",
        }
    }
}

/// Why events cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("no NDJSON could be written")]
    Ndjson(#[from] serde_json::Error),
    #[error("no CSV could be written")]
    Csv(#[from] ::csv::Error),
    #[error("no Parquet could be written")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// Turns rows into the bytes of a file, chunk by chunk.
///
/// It never waits, but a row group of Parquet is computed for a while: 50 ms and more. After an
/// error the file is lost.
pub(crate) enum Encoder {
    Ndjson,
    Csv(Csv),
    Parquet(Box<Parquet>),
}

impl Encoder {
    pub(crate) fn new(format: Format, part: Part) -> Result<Self, EncodeError> {
        Ok(match format {
            Format::Ndjson => Self::Ndjson,
            Format::Csv => Self::Csv(Csv::new(part)),
            Format::Parquet => Self::Parquet(Box::new(Parquet::new()?)),
        })
    }

    /// The bytes to be sent next, after these rows came. There may be none yet.
    pub(crate) fn rows(&mut self, rows: &[EventRow]) -> Result<Vec<u8>, EncodeError> {
        Ok(match self {
            Self::Ndjson => ndjson::rows(rows)?,
            Self::Csv(csv) => csv.rows(rows)?,
            Self::Parquet(parquet) => parquet.rows(rows)?,
        })
    }

    /// The last bytes of a whole file. A file without them was cut.
    pub(crate) fn end(self, whole: &Whole) -> Result<Vec<u8>, EncodeError> {
        Ok(match self {
            Self::Ndjson => ndjson::end(whole)?,
            Self::Csv(csv) => csv.end(whole)?,
            Self::Parquet(parquet) => parquet.end(whole)?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv6Addr;

    use audit_schema::row::Millis;
    use proptest::array::uniform17;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::whole::event_data;
    use super::*;
    use crate::event::tests::row;
    use crate::query_string::QueryString;

    /// What a writer of files can stumble on.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[-=+@\t\r\n＝＋－＠]{0,2}[a-z\"',;#\r\n\u{2028}é😀]{0,6}",
            Just(String::new()),
        ]
    }

    /// Rows that hold anything a row can.
    pub(crate) fn any_rows() -> impl Strategy<Value = Vec<EventRow>> {
        let times = || (0..4_000_000_000_000_i64).prop_map(Millis);
        let numbers = (any::<u32>(), any::<u32>(), any::<u64>());
        let any = (
            (any::<u128>(), any::<u128>(), times(), times(), numbers),
            (uniform17(text()), text()),
        );
        let rows = any.prop_map(
            |((id, ip, created_at, logged_at, position), (texts, sent))| {
                let sent = serde_json::to_string(&sent).unwrap();
                let mut texts = texts.into_iter();
                let mut next = || texts.next().unwrap();
                EventRow {
                    project_id: format!("p{}", next()),
                    event_id: Uuid::from_u128(id),
                    event_type: format!("t{}", next()),
                    documented_type: next(),
                    event_key: next(),
                    event_display_name: next(),
                    user_id: next(),
                    organization_id: next(),
                    identifier: next(),
                    actor_id: next(),
                    actor_type: next(),
                    outcome: next(),
                    session_id: next(),
                    request_id: next(),
                    ip_address: Ipv6Addr::from_bits(ip),
                    city: next(),
                    country: next(),
                    country_code: next(),
                    user_agent: next(),
                    event_data: format!("{{\r\n\"a\" :\n{sent}, \"n\": 1.50}}"),
                    created_at,
                    logged_at,
                    source_incarnation: position.0,
                    source_partition: position.1,
                    source_offset: position.2,
                    ..row()
                }
            },
        );
        vec(rows, 0..4)
    }

    pub(crate) fn whole(rows: &[EventRow]) -> Whole {
        Whole {
            events: rows.len().try_into().unwrap(),
            as_of: "state-1".into(),
            removed_before: None,
        }
    }

    /// A whole file, from a chunk per row.
    pub(crate) fn file(format: Format, part: Part, rows: &[EventRow]) -> Vec<u8> {
        let mut encoder = Encoder::new(format, part).unwrap();
        let mut file = Vec::new();
        for row in rows {
            file.extend(encoder.rows(std::slice::from_ref(row)).unwrap());
        }
        file.extend(encoder.end(&whole(rows)).unwrap());
        file
    }

    /// Two events, of which one runs a formula and one has next to nothing.
    pub(crate) fn two_rows() -> [EventRow; 2] {
        let formula = EventRow {
            event_display_name: r#"=HYPERLINK("http://evil.example", "Ann")"#.into(),
            user_agent: "Mozilla/5.0 (X11; Linux)".into(),
            event_data: "{\n  \"userId\": \"u1\",\r\n  \"n\": 1.50\n}".into(),
            ..row()
        };
        let bare = EventRow {
            documented_type: String::new(),
            event_key: String::new(),
            event_display_name: String::new(),
            user_id: String::new(),
            organization_id: String::new(),
            identifier: "zoë\n\"z\"@example.com".into(),
            ip_address: Ipv6Addr::UNSPECIFIED,
            city: String::new(),
            country: String::new(),
            country_code: String::new(),
            user_agent: String::new(),
            event_data: "{}".into(),
            source_offset: u64::MAX,
            ..row()
        };
        [formula, bare]
    }

    #[test]
    fn a_format_is_found_by_its_name() {
        let named = |name: &str| {
            let mut query = QueryString::of(vec![("format".to_owned(), name.to_owned())]);
            query.take_word("format", Format::ALL, Format::name).ok()?
        };
        for format in Format::ALL {
            assert_eq!(named(format.name()), Some(format));
        }
        for name in ["", "CSV", "json", "csv "] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn only_the_start_of_a_csv_file_has_a_header() {
        let media = |part| Format::Csv.media_type(part);
        assert!(media(Part::Start).ends_with("header=present"));
        assert!(media(Part::Rest).ends_with("header=absent"));
    }

    #[test]
    fn event_data_is_json_even_if_the_row_has_none() {
        let [mut row, _] = two_rows();
        assert_eq!(event_data(&row), row.event_data);
        row.event_data = "=1+1".into();
        assert_eq!(event_data(&row), r#""=1+1""#);
    }

    #[test]
    fn it_does_not_matter_how_rows_are_cut_into_chunks() {
        let rows = two_rows();
        for format in Format::ALL {
            let mut encoder = Encoder::new(format, Part::Start).unwrap();
            let mut at_once = encoder.rows(&[]).unwrap();
            at_once.extend(encoder.rows(&rows).unwrap());
            at_once.extend(encoder.end(&whole(&rows)).unwrap());
            assert_eq!(at_once, file(format, Part::Start, &rows), "{format:?}");
        }
    }

    #[test]
    fn an_encoder_can_go_from_thread_to_thread() {
        fn sent<T: Send + 'static>(_: &T) {}
        sent(&Encoder::new(Format::Parquet, Part::Start).unwrap());
    }
}
