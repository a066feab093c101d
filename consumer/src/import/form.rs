//! In which form the lines of a file hold events.

use audit_producer::Redaction;
use audit_schema::ProjectId;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::dashboard::Dashboard;
use super::own_export::{self, Completeness};
use super::{Format, Prepared, fields};

/// Reads the lines of one file, from its first one on.
pub(super) struct Form {
    project: ProjectId,
    redaction: Redaction,
    known: Known,
}

enum Known {
    Nothing,
    Export(Completeness),
    Dashboard(Box<Dashboard>),
}

/// What tells our own export: only its events have a position.
#[derive(Deserialize)]
struct Look {
    position: Option<IgnoredAny>,
    export: Option<IgnoredAny>,
}

impl Form {
    /// Events of `project`. What `redaction` takes out of events goes from those that were not
    /// published by a producer before: those of a dashboard.
    pub(super) fn new(format: Format, project: ProjectId, redaction: Redaction) -> Self {
        let mut form = Self {
            project,
            redaction,
            known: Known::Nothing,
        };
        form.read_as(format);
        form
    }

    fn read_as(&mut self, format: Format) {
        self.known = match format {
            Format::Auto => Known::Nothing,
            Format::Export => Known::Export(Completeness::default()),
            Format::Dashboard => {
                let dashboard = Dashboard::new(self.project.clone(), self.redaction.clone());
                Known::Dashboard(Box::new(dashboard))
            }
        };
    }

    /// Which format it is; `Auto` while no line has told it.
    pub(super) fn format(&self) -> Format {
        match self.known {
            Known::Nothing => Format::Auto,
            Known::Export(_) => Format::Export,
            Known::Dashboard(_) => Format::Dashboard,
        }
    }

    /// The events of a line, each with what is wrong with it if it is none; or what is wrong with
    /// all of the line.
    pub(super) fn events(&mut self, line: &[u8]) -> Result<Vec<Result<Prepared, String>>, String> {
        let json = str::from_utf8(line).map_err(|error| {
            let place = error.valid_up_to().saturating_add(1);
            format!("not UTF-8: byte {place} of the line")
        })?;
        if json.trim_start().is_empty() {
            return Ok(Vec::new());
        }
        if let Known::Nothing = self.known {
            self.read_as(recognised(json)?);
        }
        match &mut self.known {
            Known::Nothing => Ok(Vec::new()),
            Known::Dashboard(dashboard) => dashboard.events(json),
            Known::Export(completeness) => Ok(if completeness.take(json)? {
                vec![own_export::event(json, self.project.clone())]
            } else {
                Vec::new()
            }),
        }
    }

    /// What is missing at the end of the file, if it can be known.
    pub(super) fn cut(&self) -> Option<&'static str> {
        match &self.known {
            Known::Export(completeness) => completeness.cut(),
            Known::Nothing | Known::Dashboard(_) => None,
        }
    }
}

/// Which format a line is of.
fn recognised(json: &str) -> Result<Format, String> {
    if json.trim_start().starts_with('[') {
        return Ok(Format::Dashboard);
    }
    let look: Look = fields::object(json)?;
    Ok(match (look.position, look.export) {
        (None, None) => Format::Dashboard,
        _ => Format::Export,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(format: Format) -> Form {
        Form::new(format, "copy".parse().unwrap(), Redaction::default())
    }

    #[test]
    fn a_format_is_told_by_the_first_line_that_can_be_of_one() {
        let of = |lines: &[&str]| {
            let mut form = form(Format::Auto);
            let _results: Vec<_> = lines
                .iter()
                .map(|line| form.events(line.as_bytes()))
                .collect();
            form.format()
        };
        assert_eq!(of(&["", "nothing", "\u{7f}", "5"]), Format::Auto);
        let event = r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","position":{}}"#;
        assert_eq!(of(&["x", event]), Format::Export);
        assert_eq!(
            of(&[r#"{"export":{"complete":true,"events":0,"asOf":"s"}}"#]),
            Format::Export
        );
        for dashboard in [r#"{"eventType":"t"}"#, r#"{"events":[]}"#, "[]"] {
            assert_eq!(of(&[dashboard, event]), Format::Dashboard, "{dashboard}");
        }
    }

    #[test]
    fn a_byte_that_is_no_utf_8_is_named() {
        let refused = form(Format::Auto).events(b"{\"a\":\"\xff\"}").err();
        assert_eq!(refused.as_deref(), Some("not UTF-8: byte 7 of the line"));
    }

    /// JSON as it may be in a file: names that count, with values of any kind.
    fn any_document() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "id",
            "eventType",
            "createdAt",
            "eventData",
            "events",
            "location",
            "ipAddress",
            "actor",
            "position",
            "export",
            "outcome",
            "else",
        ]);
        let value = prop::sample::select(vec![
            "null",
            "5",
            "-1e400",
            "\"\"",
            "\"t\"",
            "\"\\ud800\"",
            "[]",
            "{}",
            "[{}]",
            "[[]]",
            "tru",
            "\"2026-01-01T00:00:00Z\"",
            "1767225600000",
            "99999999999999999999",
            "\"2001:db8::1\"",
            "\"01890a5d-ac96-774b-bcce-b302099a8057\"",
            "{\"complete\":true,\"events\":1}",
            "[{\"eventType\":\"t\",\"createdAt\":1}]",
        ]);
        prop::collection::vec((name, value), 0..8).prop_map(|members| {
            let members = members
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        })
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_events_or_refused_and_never_a_panic(lines: Vec<Vec<u8>>) {
            for format in [Format::Auto, Format::Export, Format::Dashboard] {
                let mut form = form(format);
                for line in &lines {
                    let _result = form.events(line);
                }
                form.cut();
            }
        }

        #[test]
        fn arbitrary_documents_are_events_that_can_be_stored_or_refused(
            lines in prop::collection::vec(any_document(), 1..5),
        ) {
            for format in [Format::Auto, Format::Export, Format::Dashboard] {
                let mut form = form(format);
                let read = lines.iter().flat_map(|line| form.events(line.as_bytes()));
                for event in read.flatten().flatten() {
                    let read = audit_schema::wire::decode(&event.value, None).unwrap();
                    prop_assert_eq!(read.id.as_uuid(), event.id.id);
                    prop_assert_eq!(read.project_id.as_str(), "copy");
                }
            }
        }
    }
}
