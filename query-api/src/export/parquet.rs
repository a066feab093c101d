//! Parquet: the columns of the table, typed and compressed, for analysis.
//!
//! What is kept is the row group at hand, which ends after so many rows or so much text, and of each
//! one before it what the footer says of it: some 11 KiB. A text that is empty is null.
//!
//! The footer ends the file; without it no reader opens one, so a file that was cut has nothing to
//! be taken for whole.

use std::borrow::Cow;
use std::sync::Arc;

use audit_schema::row::EventRow;
use bytes::BytesMut;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::whole::{Whole, event_data, ip_address};

/// After how much a row group ends. Larger ones compress better.
struct Limits {
    rows: usize,
    text_bytes: usize,
}

const LIMITS: Limits = Limits {
    rows: 15_000,
    text_bytes: 32 * 1024 * 1024,
};

/// Hardly any two events have these in common, so a dictionary would only make them longer.
const UNIQUE: [&str; 2] = ["event_id", "event_data"];

pub(crate) struct Parquet {
    file: SerializedFileWriter<Vec<u8>>,
    limits: Limits,
    group: Vec<Column>,
    rows: usize,
    text_bytes: usize,
}

impl Parquet {
    pub(super) fn new() -> Result<Self, ParquetError> {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Result<Self, ParquetError> {
        let (fields, group): (Vec<_>, Vec<_>) = columns().into_iter().unzip();
        let schema = format!("message event {{ {} }}", fields.concat());
        let schema = Arc::new(parse_message_type(&schema)?);
        // An index of pages would be kept to the end, for all row groups.
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true);
        for name in UNIQUE {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), false);
        }
        let properties = Arc::new(properties.build());
        Ok(Self {
            file: SerializedFileWriter::new(Vec::new(), schema, properties)?,
            limits,
            group,
            rows: 0,
            text_bytes: 0,
        })
    }

    pub(super) fn rows(&mut self, rows: &[EventRow]) -> Result<Vec<u8>, ParquetError> {
        for row in rows {
            self.rows += 1;
            for column in &mut self.group {
                self.text_bytes += column.push(row);
            }
            if self.rows >= self.limits.rows || self.text_bytes >= self.limits.text_bytes {
                self.write_group()?;
            }
        }
        self.file.flush()?;
        // Where the next byte goes is counted, not taken from what is there.
        Ok(std::mem::take(self.file.inner_mut()))
    }

    pub(super) fn end(mut self, whole: &Whole) -> Result<Vec<u8>, ParquetError> {
        if self.rows > 0 {
            self.write_group()?;
        }
        let removed_before = whole.removed_before.clone();
        let said = [
            ("audit.events", Some(whole.events.to_string())),
            ("audit.as_of", Some(whole.as_of.clone())),
            ("audit.removed_before", removed_before),
        ];
        for (key, value) in said.into_iter().filter(|(_, value)| value.is_some()) {
            let said = KeyValue::new(key.to_owned(), value);
            self.file.append_key_value_metadata(said);
        }
        self.file.into_inner()
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut writer = self.file.next_row_group()?;
        for column in &mut self.group {
            if let Some(mut chunk) = writer.next_column()? {
                column.write(&mut chunk)?;
                chunk.close()?;
            }
        }
        writer.close()?;
        (self.rows, self.text_bytes) = (0, 0);
        Ok(())
    }
}

/// What a column takes of a row, and what it has of the row group at hand.
enum Column {
    Text {
        take: for<'a> fn(&'a EventRow) -> Cow<'a, str>,
        texts: Texts,
    },
    Int {
        take: fn(&EventRow) -> i32,
        values: Vec<i32>,
    },
    Long {
        take: fn(&EventRow) -> i64,
        values: Vec<i64>,
    },
}

/// Texts end to end in one buffer, which is used again for the next row group.
#[derive(Default)]
struct Texts {
    bytes: BytesMut,
    /// Where each ends that is not null.
    ends: Vec<usize>,
    /// Whether each is null: 0, or not: 1.
    levels: Vec<i16>,
}

/// A column: what the schema says of it, and how it is filled.
type Declared = (String, Column);

fn text(name: &str, kind: &str, take: for<'a> fn(&'a EventRow) -> Cow<'a, str>) -> Declared {
    let texts = Texts::default();
    let column = Column::Text { take, texts };
    (format!("optional binary {name} ({kind});"), column)
}

fn int(name: &str, kind: &str, take: fn(&EventRow) -> i32) -> Declared {
    let values = Vec::new();
    let column = Column::Int { take, values };
    (format!("required int32 {name} ({kind});"), column)
}

fn long(name: &str, kind: &str, take: fn(&EventRow) -> i64) -> Declared {
    let values = Vec::new();
    let column = Column::Long { take, values };
    (format!("required int64 {name} ({kind});"), column)
}

impl Column {
    /// Takes its value of `row`, and says how many bytes of text that is.
    fn push(&mut self, row: &EventRow) -> usize {
        match self {
            Self::Text { take, texts } => return texts.push(&take(row)),
            Self::Int { take, values } => values.push(take(row)),
            Self::Long { take, values } => values.push(take(row)),
        }
        0
    }

    /// Writes what it has, and has nothing then.
    fn write(&mut self, chunk: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self {
            Self::Text { texts, .. } => {
                let bytes = texts.bytes.split().freeze();
                let mut start = 0;
                let values = texts.ends.drain(..).map(|end| {
                    let text = bytes.slice(start..end);
                    start = end;
                    ByteArray::from(text)
                });
                let values: Vec<_> = values.collect();
                let chunk = chunk.typed::<ByteArrayType>();
                chunk.write_batch(&values, Some(&texts.levels), None)?;
                texts.levels.clear();
            }
            Self::Int { values, .. } => {
                chunk.typed::<Int32Type>().write_batch(values, None, None)?;
                values.clear();
            }
            Self::Long { values, .. } => {
                chunk.typed::<Int64Type>().write_batch(values, None, None)?;
                values.clear();
            }
        }
        Ok(())
    }
}

impl Texts {
    fn push(&mut self, text: &str) -> usize {
        if text.is_empty() {
            self.levels.push(0);
        } else {
            self.levels.push(1);
            self.bytes.extend_from_slice(text.as_bytes());
            self.ends.push(self.bytes.len());
        }
        text.len()
    }
}

/// The columns, named as in the table. Parquet has unsigned numbers as signed ones of the same bits.
fn columns() -> Vec<Declared> {
    vec![
        text("project_id", "STRING", |row| (&row.project_id).into()),
        text("event_id", "STRING", |row| row.event_id.to_string().into()),
        text("event_type", "STRING", |row| (&row.event_type).into()),
        text("documented_type", "STRING", |row| {
            (&row.documented_type).into()
        }),
        text("event_key", "STRING", |row| (&row.event_key).into()),
        text("event_display_name", "STRING", |row| {
            (&row.event_display_name).into()
        }),
        text("user_id", "STRING", |row| (&row.user_id).into()),
        text("organization_id", "STRING", |row| {
            (&row.organization_id).into()
        }),
        text("identifier", "STRING", |row| (&row.identifier).into()),
        text("actor_id", "STRING", |row| (&row.actor_id).into()),
        text("actor_type", "STRING", |row| (&row.actor_type).into()),
        text("outcome", "STRING", |row| (&row.outcome).into()),
        text("session_id", "STRING", |row| (&row.session_id).into()),
        text("request_id", "STRING", |row| (&row.request_id).into()),
        text("ip_address", "STRING", ip_address),
        text("city", "STRING", |row| (&row.city).into()),
        text("country", "STRING", |row| (&row.country).into()),
        text("country_code", "STRING", |row| (&row.country_code).into()),
        text("user_agent", "STRING", |row| (&row.user_agent).into()),
        text("event_data", "JSON", event_data),
        long("created_at", "TIMESTAMP(MILLIS,true)", |row| {
            row.created_at.0
        }),
        long("logged_at", "TIMESTAMP(MILLIS,true)", |row| row.logged_at.0),
        int("source_incarnation", "INTEGER(32,false)", |row| {
            row.source_incarnation.cast_signed()
        }),
        int("source_partition", "INTEGER(32,false)", |row| {
            row.source_partition.cast_signed()
        }),
        long("source_offset", "INTEGER(64,false)", |row| {
            row.source_offset.cast_signed()
        }),
    ]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::metadata::RowGroupMetaData;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, Row, RowAccessor};
    use proptest::prelude::*;

    use super::super::format::Format;
    use super::super::format::tests::{any_rows, file, two_rows, whole};
    use super::super::whole::Part;
    use super::*;
    use crate::event::tests::row;

    fn open(file: Vec<u8>) -> Result<SerializedFileReader<Bytes>, ParquetError> {
        SerializedFileReader::new(Bytes::from(file))
    }

    fn written(rows: &[EventRow]) -> SerializedFileReader<Bytes> {
        open(file(Format::Parquet, Part::Start, rows)).unwrap()
    }

    fn read(file: &SerializedFileReader<Bytes>) -> Vec<Row> {
        let rows = file.get_row_iter(None).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// An event as a reader sees it.
    fn fields(row: &EventRow) -> Vec<Field> {
        let text = |text: &str| match text {
            "" => Field::Null,
            text => Field::Str(text.into()),
        };
        vec![
            text(&row.project_id),
            text(&row.event_id.to_string()),
            text(&row.event_type),
            text(&row.documented_type),
            text(&row.event_key),
            text(&row.event_display_name),
            text(&row.user_id),
            text(&row.organization_id),
            text(&row.identifier),
            text(&row.actor_id),
            text(&row.actor_type),
            text(&row.outcome),
            text(&row.session_id),
            text(&row.request_id),
            text(&ip_address(row)),
            text(&row.city),
            text(&row.country),
            text(&row.country_code),
            text(&row.user_agent),
            text(&row.event_data),
            Field::TimestampMillis(row.created_at.0),
            Field::TimestampMillis(row.logged_at.0),
            Field::UInt(row.source_incarnation),
            Field::UInt(row.source_partition),
            Field::ULong(row.source_offset),
        ]
    }

    fn has(parquet: &Parquet) -> usize {
        let held = parquet.group.iter().map(|column| match column {
            Column::Text { texts, .. } => texts.bytes.len() + texts.ends.len() + texts.levels.len(),
            Column::Int { values, .. } => values.len(),
            Column::Long { values, .. } => values.len(),
        });
        held.sum::<usize>() + parquet.file.inner().len()
    }

    #[test]
    fn the_schema_is_the_table() {
        let mut text = Vec::new();
        let file = written(&[]);
        let schema = file.metadata().file_metadata().schema();
        parquet::schema::printer::print_schema(&mut text, schema);
        insta::assert_snapshot!(String::from_utf8(text).unwrap());
    }

    #[test]
    fn the_footer_says_how_many_events_of_which_state() {
        let file = written(&two_rows());
        let said = file.metadata().file_metadata();
        assert_eq!(said.num_rows(), 2);
        let said = said.key_value_metadata().unwrap().iter();
        let said: Vec<_> = said
            .map(|said| (said.key.as_str(), said.value.as_deref().unwrap()))
            .collect();
        assert_eq!(said, [("audit.events", "2"), ("audit.as_of", "state-1")]);
    }

    #[test]
    fn a_file_without_events_is_whole_too() {
        assert_eq!(read(&written(&[])), []);
    }

    #[test]
    fn what_continues_a_file_is_a_file_of_its_own() {
        let rest = file(Format::Parquet, Part::Rest, &two_rows());
        assert_eq!(read(&open(rest).unwrap()).len(), 2);
    }

    #[test]
    fn a_file_that_was_cut_is_never_opened() {
        let limits = Limits { rows: 1, ..LIMITS };
        let mut parquet = Parquet::with(limits).unwrap();
        let rows = two_rows();
        let mut file = parquet.rows(&rows).unwrap();
        assert_eq!(parquet.file.flushed_row_groups().len(), 2);
        file.extend(parquet.end(&whole(&rows)).unwrap());
        for length in 0..file.len() {
            assert!(open(file[..length].into()).is_err(), "{length}");
        }
        assert!(open(file).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_a_row_group_but_what_the_footer_says_of_it() {
        const GROUPS: u64 = 200;
        const ROWS: u64 = 100;
        let limits = Limits {
            rows: ROWS.try_into().unwrap(),
            ..LIMITS
        };
        let mut parquet = Parquet::with(limits).unwrap();
        let mut file = parquet.rows(&[]).unwrap();
        assert_eq!(file, b"PAR1");
        for group in 0..GROUPS {
            let offsets = group * ROWS..(group + 1) * ROWS;
            let rows: Vec<_> = offsets
                .map(|offset| EventRow {
                    identifier: format!("{offset}@example.com"),
                    source_offset: offset,
                    ..row()
                })
                .collect();
            let (last, others) = rows.split_last().unwrap();
            assert!(parquet.rows(others).unwrap().is_empty());
            assert!(has(&parquet) > 0);
            file.extend(parquet.rows(std::slice::from_ref(last)).unwrap());
            assert_eq!(has(&parquet), 0);
        }
        file.extend(parquet.end(&whole(&[])).unwrap());
        let file = open(file).unwrap();
        // What the footer says of a row group, in memory.
        assert!(file.metadata().memory_size() < 200 * 16 * 1024);
        let rows = read(&file);
        let offsets: Vec<_> = rows.iter().map(|row| row.get_ulong(24).unwrap()).collect();
        assert_eq!(offsets, (0..GROUPS * ROWS).collect::<Vec<_>>());
    }

    #[test]
    fn much_text_ends_a_row_group_before_many_rows_do() {
        let limits = Limits {
            text_bytes: 10_000,
            ..LIMITS
        };
        let mut parquet = Parquet::with(limits).unwrap();
        let long = EventRow {
            event_data: format!("\"{}\"", "x".repeat(6_000)),
            ..row()
        };
        let rows = vec![long; 5];
        let mut file = parquet.rows(&rows).unwrap();
        file.extend(parquet.end(&whole(&rows)).unwrap());
        let file = open(file).unwrap();
        let groups = file.metadata().row_groups().iter();
        let lengths: Vec<_> = groups.map(RowGroupMetaData::num_rows).collect();
        assert_eq!(lengths, [2, 2, 1]);
    }

    proptest! {
        #[test]
        fn each_row_reads_as_the_event(rows in any_rows()) {
            let file = written(&rows);
            let read = read(&file);
            prop_assert_eq!(read.len(), rows.len());
            for (read, row) in read.iter().zip(&rows) {
                let read: Vec<_> = read.get_column_iter().map(|(_, field)| field.clone()).collect();
                prop_assert_eq!(read, fields(row));
            }
        }
    }
}
