//! NDJSON: an event per line, each as `/v1/audit-logs` answers it.
//!
//! The last line has no event but `export`, which no event has; a file without it was cut.

use audit_schema::row::EventRow;
use serde::Serialize;

use super::whole::Whole;
use crate::event::{AuditLog, write_on_one_line};

#[derive(Serialize)]
struct End<'a> {
    export: Export<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Export<'a> {
    complete: bool,
    events: u64,
    as_of: &'a str,
    removed_before: Option<&'a str>,
}

pub(super) fn rows(rows: &[EventRow]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    for row in rows {
        write_line(&mut bytes, &AuditLog::of(row))?;
    }
    Ok(bytes)
}

pub(super) fn end(whole: &Whole) -> Result<Vec<u8>, serde_json::Error> {
    let export = Export {
        complete: true,
        events: whole.events,
        as_of: &whole.as_of,
        removed_before: whole.removed_before.as_deref(),
    };
    let mut bytes = Vec::new();
    write_line(&mut bytes, &End { export })?;
    Ok(bytes)
}

fn write_line(bytes: &mut Vec<u8>, value: &impl Serialize) -> Result<(), serde_json::Error> {
    write_on_one_line(bytes, value)?;
    bytes.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::format::Format;
    use super::super::format::tests::{any_rows, file, two_rows};
    use super::super::whole::Part;
    use super::*;

    fn written(rows: &[EventRow]) -> String {
        String::from_utf8(file(Format::Ndjson, Part::Start, rows)).unwrap()
    }

    /// How a reader tells that a file is whole.
    fn is_whole(file: &[u8]) -> bool {
        let lines: Vec<_> = file.split(|byte| *byte == b'\n').collect();
        let Some((last, events)) = lines.split_last() else {
            return false;
        };
        // After the last line there is nothing.
        let (Some((end, events)), true) = (events.split_last(), last.is_empty()) else {
            return false;
        };
        let end: Value = serde_json::from_slice(end).unwrap();
        end["export"]["complete"] == true && end["export"]["events"] == events.len()
    }

    #[test]
    fn a_file_is_a_line_per_event_and_one_that_ends_it() {
        insta::assert_snapshot!(written(&two_rows()));
    }

    #[test]
    fn a_file_without_events_is_whole_too() {
        let end =
            r#"{"export":{"complete":true,"events":0,"asOf":"state-1","removedBefore":null}}"#;
        assert_eq!(written(&[]), format!("{end}\n"));
    }

    #[test]
    fn numbers_stay_as_they_were_sent() {
        let data = "{\"n\":\n1.500e2,\r\"big\":123456789012345678901234567890}";
        let [mut row, _] = two_rows();
        row.event_data = data.into();
        let sent = data.replace(['\n', '\r'], " ");
        assert!(written(&[row]).contains(&format!("\"eventData\":{sent},")));
    }

    #[test]
    fn a_file_that_was_cut_is_never_whole() {
        let file = file(Format::Ndjson, Part::Start, &two_rows());
        assert!(is_whole(&file));
        for length in 0..file.len() {
            assert!(!is_whole(&file[..length]), "{length}");
        }
    }

    proptest! {
        #[test]
        fn each_line_reads_as_the_event(rows in any_rows()) {
            let text = written(&rows);
            prop_assert!(!text.contains('\r'));
            let lines: Vec<_> = text.split_terminator('\n').collect();
            prop_assert_eq!(lines.len(), rows.len() + 1);
            for (line, row) in lines.iter().zip(&rows) {
                let read: Value = serde_json::from_str(line).unwrap();
                prop_assert_eq!(read, serde_json::to_value(AuditLog::of(row)).unwrap());
            }
            prop_assert!(is_whole(text.as_bytes()));
        }
    }
}
