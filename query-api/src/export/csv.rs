//! CSV: a record per event, for spreadsheets (RFC 4180).
//!
//! A spreadsheet runs a cell that looks like a formula, and whoever signs up chooses what is in
//! some cells. So such a cell begins with `'`, which makes it a text; who needs every text as it
//! is takes another format. All cells are quoted: some programs also divide them at `;`, and what
//! is behind it would be a cell that nobody looked at.
//!
//! The last record begins with `#complete`, which is no id; a file without it was cut.

use std::borrow::Cow;

use audit_schema::row::EventRow;
use csv::{QuoteStyle, Terminator, Writer, WriterBuilder};

use super::whole::{Part, Whole, event_data, ip_address};
use crate::event::rfc3339;

const HEADER: [&str; 23] = [
    "id",
    "eventType",
    "documentedType",
    "eventKey",
    "eventDisplayName",
    "userId",
    "organizationId",
    "identifier",
    "actorId",
    "actorType",
    "outcome",
    "sessionId",
    "requestId",
    "userAgent",
    "ipAddress",
    "city",
    "country",
    "countryCode",
    "eventData",
    "createdAt",
    "loggedAt",
    "projectId",
    "position",
];

/// What a formula begins with: <https://owasp.org/www-community/attacks/CSV_Injection>.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

pub(crate) struct Csv {
    header_due: bool,
}

impl Csv {
    pub(super) fn new(part: Part) -> Self {
        let header_due = part == Part::Start;
        Self { header_due }
    }

    pub(super) fn rows(&mut self, rows: &[EventRow]) -> Result<Vec<u8>, csv::Error> {
        let mut writer = self.writer()?;
        for row in rows {
            let cells = cells(row).map(inert);
            writer.write_record(cells.iter().map(|cell| cell.as_bytes()))?;
        }
        bytes(writer)
    }

    pub(super) fn end(mut self, whole: &Whole) -> Result<Vec<u8>, csv::Error> {
        let mut writer = self.writer()?;
        let events = whole.events.to_string();
        let removed_before = whole.removed_before.as_deref().unwrap_or_default();
        // Cut within the empty cells it has fewer than the other records.
        let cells = ["#complete", &events, removed_before].into_iter();
        let empty = std::iter::repeat("");
        writer.write_record(cells.chain(empty).take(HEADER.len()))?;
        bytes(writer)
    }

    fn writer(&mut self) -> Result<Writer<Vec<u8>>, csv::Error> {
        let mut writer = WriterBuilder::new()
            .quote_style(QuoteStyle::Always)
            .terminator(Terminator::CRLF)
            .from_writer(Vec::new());
        if std::mem::take(&mut self.header_due) {
            writer.write_record(HEADER)?;
        }
        Ok(writer)
    }
}

fn bytes(writer: Writer<Vec<u8>>) -> Result<Vec<u8>, csv::Error> {
    let bytes = writer.into_inner();
    bytes.map_err(|error| error.into_error().into())
}

/// An event in the order of [`HEADER`].
fn cells(row: &EventRow) -> [Cow<'_, str>; HEADER.len()] {
    let (incarnation, partition) = (row.source_incarnation, row.source_partition);
    [
        row.event_id.to_string().into(),
        (&row.event_type).into(),
        (&row.documented_type).into(),
        (&row.event_key).into(),
        (&row.event_display_name).into(),
        (&row.user_id).into(),
        (&row.organization_id).into(),
        (&row.identifier).into(),
        (&row.actor_id).into(),
        (&row.actor_type).into(),
        (&row.outcome).into(),
        (&row.session_id).into(),
        (&row.request_id).into(),
        (&row.user_agent).into(),
        ip_address(row),
        (&row.city).into(),
        (&row.country).into(),
        (&row.country_code).into(),
        event_data(row),
        rfc3339(row.created_at).into(),
        rfc3339(row.logged_at).into(),
        (&row.project_id).into(),
        format!("{incarnation}-{partition}-{}", row.source_offset).into(),
    ]
}

/// The cell as one that no spreadsheet runs.
fn inert(cell: Cow<'_, str>) -> Cow<'_, str> {
    if cell.starts_with(FORMULA) {
        format!("'{cell}").into()
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use csv::{ReaderBuilder, StringRecord};
    use proptest::prelude::*;

    use super::super::format::Format;
    use super::super::format::tests::{any_rows, file, two_rows};
    use super::*;

    /// The records of a file, the header too, by a reader that wants them all to be as long.
    fn records(file: &[u8]) -> Result<Vec<StringRecord>, csv::Error> {
        let mut reader = ReaderBuilder::new().has_headers(false).from_reader(file);
        reader.records().collect()
    }

    /// How a reader tells that a file is whole.
    fn is_whole(file: &[u8]) -> bool {
        let Ok(records) = records(file) else {
            return false;
        };
        let events = records.len().saturating_sub(2).to_string();
        let end = records.last();
        end.is_some_and(|end| &end[0] == "#complete" && end[1] == events)
    }

    #[test]
    fn a_file_is_a_header_a_record_per_event_and_one_that_ends_it() {
        let text = String::from_utf8(file(Format::Csv, Part::Start, &two_rows())).unwrap();
        // Shown, for a snapshot has no line breaks of its own.
        insta::assert_snapshot!(text.replace('\r', "\\r").replace('\n', "\\n\n"));
    }

    #[test]
    fn a_file_without_events_is_whole_too() {
        assert!(is_whole(&file(Format::Csv, Part::Start, &[])));
    }

    #[test]
    fn what_continues_a_file_that_was_cut_fits_to_its_events() {
        let [first, second] = two_rows();
        let mut cut = Csv::new(Part::Start).rows(&[first]).unwrap();
        cut.extend(file(Format::Csv, Part::Rest, &[second]));
        let whole = file(Format::Csv, Part::Start, &two_rows());
        let (cut, whole) = (records(&cut).unwrap(), records(&whole).unwrap());
        assert_eq!(cut[..3], whole[..3]);
        assert_eq!(cut[3][0], whole[3][0]);
    }

    #[test]
    fn a_cell_that_would_run_as_a_formula_is_a_text() {
        let [mut row, _] = two_rows();
        for first in FORMULA {
            row.identifier = format!("{first}1+1");
            let file = file(Format::Csv, Part::Start, std::slice::from_ref(&row));
            assert_eq!(records(&file).unwrap()[1][7], format!("'{first}1+1"));
        }
        for harmless in ["1-1", "a=b", "'=1", "", " x"] {
            row.identifier = harmless.into();
            let file = file(Format::Csv, Part::Start, std::slice::from_ref(&row));
            assert_eq!(&records(&file).unwrap()[1][7], harmless);
        }
    }

    #[test]
    fn a_program_that_also_divides_at_semicolons_sees_the_same_cells() {
        let [mut row, _] = two_rows();
        row.user_agent = "a;=1+1".into();
        let file = file(Format::Csv, Part::Start, &[row]);
        let text = String::from_utf8(file).unwrap();
        assert!(text.contains(r#","a;=1+1","#));
    }

    #[test]
    fn a_file_that_was_cut_is_never_whole() {
        let file = file(Format::Csv, Part::Start, &two_rows());
        assert!(is_whole(&file));
        // After the last comma there is nothing that it does not say without.
        let all = file.len() - "\"\"\r\n".len();
        for length in 0..all {
            assert!(!is_whole(&file[..length]), "{length}");
        }
    }

    proptest! {
        #[test]
        fn each_record_reads_as_the_event(rows in any_rows()) {
            let file = file(Format::Csv, Part::Start, &rows);
            prop_assert!(is_whole(&file));
            let records = records(&file).unwrap();
            prop_assert_eq!(&records[0], &HEADER[..]);
            for (record, row) in records[1..].iter().zip(&rows) {
                for (read, cell) in record.iter().zip(cells(row)) {
                    prop_assert!(!read.starts_with(FORMULA), "{read}");
                    let text = match read.strip_prefix('\'') {
                        Some(text) if text.starts_with(FORMULA) && *cell != *read => text,
                        _ => read,
                    };
                    prop_assert_eq!(text, cell);
                }
            }
        }
    }
}
