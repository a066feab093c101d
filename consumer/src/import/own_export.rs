//! A line of our own export, `GET /v1/audit-logs/export?format=ndjson`.
//!
//! An event comes back as it was, with its id and time. What says where it was in the log it came
//! from, and whose it was there, does not count: `position`, `loggedAt`, `projectId`. Its
//! `documentedType` follows from the rest.

use std::net::IpAddr;

use audit_schema::{Actor, Event, EventData, EventId, Location, Outcome, ProjectId};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Prepared, fields};

/// What the last line of a file begins with; no event does.
const END: &str = "{\"export\"";

/// The last line.
#[derive(Deserialize)]
struct End {
    export: Whole,
}

/// What it says of the file.
#[derive(Deserialize)]
struct Whole {
    complete: bool,
    events: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line<'a> {
    id: Option<EventId>,
    event_type: Option<String>,
    #[serde(rename = "documentedType", default)]
    _documented_type: IgnoredAny,
    event_key: Option<String>,
    event_display_name: Option<String>,
    user_id: Option<String>,
    organization_id: Option<String>,
    identifier: Option<String>,
    actor: Option<LineActor>,
    outcome: Option<Outcome>,
    session_id: Option<String>,
    request_id: Option<String>,
    user_agent: Option<String>,
    location: Option<LineLocation>,
    #[serde(borrow)]
    event_data: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "fields::time")]
    created_at: Option<DateTime<Utc>>,
    #[serde(rename = "loggedAt", default)]
    _logged_at: IgnoredAny,
    #[serde(rename = "projectId", default)]
    _project_id: IgnoredAny,
    #[serde(rename = "position", default)]
    _position: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineActor {
    id: Option<String>,
    r#type: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LineLocation {
    ip_address: Option<IpAddr>,
    city: Option<String>,
    country: Option<String>,
    country_code: Option<String>,
}

/// Whether a file is whole, told line by line.
#[derive(Debug, Default)]
pub(super) struct Completeness {
    /// Events since the last line that ended a file: several files may follow each other.
    events: u64,
    ended: bool,
}

impl Completeness {
    /// Takes a line, and says whether it may be an event. The line that ends a file is none; it is
    /// an error if the file has not as many events as it says.
    pub(super) fn take(&mut self, json: &str) -> Result<bool, String> {
        if !json.trim_start().starts_with(END) {
            self.events = self.events.saturating_add(1);
            self.ended = false;
            return Ok(true);
        }
        let events = std::mem::take(&mut self.events);
        self.ended = true;
        let End { export } = fields::object(json)?;
        if export.complete && export.events == events {
            return Ok(false);
        }
        Err(format!(
            "the export had {} events, but the file has {events} lines of it: a part is missing",
            export.events
        ))
    }

    /// What is missing at the end of the file.
    pub(super) fn cut(&self) -> Option<&'static str> {
        (!self.ended).then_some(
            "the file does not end with the line {\"export\":{\"complete\":true,…}}: \
             it was cut, or is a choice of lines",
        )
    }
}

/// The event of a line, as an event of `project`.
pub(super) fn event(json: &str, project: ProjectId) -> Result<Prepared, String> {
    let line: Line<'_> = fields::object(json)?;
    let actor = line.actor.unwrap_or_default();
    let location = line.location.unwrap_or_default();
    let mut event = Event::builder(project, fields::event_type(line.event_type)?)
        .id(line.id.ok_or("id is missing")?)
        .created_at(line.created_at.ok_or("createdAt is missing")?)
        .event_key(line.event_key.unwrap_or_default())
        .event_display_name(line.event_display_name.unwrap_or_default())
        .user_id(line.user_id.unwrap_or_default())
        .organization_id(line.organization_id.unwrap_or_default())
        .identifier(line.identifier.unwrap_or_default())
        .actor(Actor {
            id: actor.id.unwrap_or_default().into(),
            kind: actor.r#type.unwrap_or_default().into(),
        })
        .session_id(line.session_id.unwrap_or_default())
        .request_id(line.request_id.unwrap_or_default())
        .user_agent(line.user_agent.unwrap_or_default())
        .location(Location {
            ip_address: location.ip_address,
            city: location.city.unwrap_or_default().into(),
            country: location.country.unwrap_or_default().into(),
            country_code: location.country_code.unwrap_or_default().into(),
        });
    if let Some(outcome) = line.outcome {
        event = event.outcome(outcome);
    }
    if let Some(data) = line.event_data {
        event = event.event_data(EventData::parse(data.get()).map_err(|error| error.to_string())?);
    }
    Prepared::of(&event.build().map_err(|error| error.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line as the query API writes it: the snapshot of its own test.
    const LINES: &str = include_str!(
        "../../../query-api/src/export/snapshots/audit_query_api__export__ndjson__tests__a_file_is_a_line_per_event_and_one_that_ends_it.snap"
    );

    fn lines() -> Vec<&'static str> {
        LINES.lines().filter(|line| line.starts_with('{')).collect()
    }

    fn project() -> ProjectId {
        "copy".parse().unwrap()
    }

    #[test]
    fn a_line_that_the_query_api_writes_is_read_with_all_it_has() {
        let lines = lines();
        let (end, events) = lines.split_last().unwrap();
        let mut whole = Completeness::default();
        for line in events {
            assert!(whole.take(line).unwrap());
            let written: serde_json::Value = serde_json::from_str(line).unwrap();
            let value = event(line, project()).unwrap().value;
            let event: serde_json::Value = serde_json::from_slice(&value).unwrap();
            assert_eq!(event["projectId"], "copy");
            for (name, value) in written.as_object().unwrap() {
                let ignored = [
                    "documentedType",
                    "loggedAt",
                    "position",
                    "projectId",
                    "createdAt",
                ];
                if value.is_null() || ignored.contains(&name.as_str()) {
                    continue;
                }
                if let Some(members) = value.as_object().filter(|_| name != "eventData") {
                    for (member, value) in members.iter().filter(|(_, value)| !value.is_null()) {
                        assert_eq!(&event[name][member], value, "{name}.{member}");
                    }
                } else {
                    assert_eq!(&event[name], value, "{name}");
                }
            }
        }
        assert!(whole.cut().is_some());
        assert!(!whole.take(end).unwrap());
        assert!(whole.cut().is_none());
    }

    #[test]
    fn a_part_that_is_missing_is_noticed() {
        let lines = lines();
        let mut whole = Completeness::default();
        whole.take(lines[0]).unwrap();
        let said = whole.take(lines.last().unwrap()).unwrap_err();
        assert!(said.contains("the file has 1 lines of it"), "{said}");
        assert!(whole.cut().is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let id = r#""id":"01890a5d-ac96-774b-bcce-b302099a8057""#;
        let time = r#""createdAt":"2026-01-01T00:00:00Z""#;
        for (line, expected) in [
            ("", "the line ends within a JSON document"),
            ("{\"id\":", "the line ends within a JSON document"),
            ("nothing", "not JSON: expected ident"),
            ("{} {}", "not JSON: trailing characters"),
            ("[]", "not a JSON object"),
            ("{\"id\":\"7\"}", "id: UUID parsing failed"),
            (&format!("{{{id},{time}}}"), "eventType is missing"),
            (
                &format!("{{{id},\"eventType\":\"a b\"}}"),
                "eventType: an event type has",
            ),
            (
                &format!("{{{id},\"eventType\":\"t\"}}"),
                "createdAt is missing",
            ),
            (
                &format!("{{{id},\"eventType\":\"t\",\"createdAt\":\"today\"}}"),
                "createdAt: expected a time",
            ),
            (
                &format!("{{{id},{time},\"eventType\":\"t\",\"eventData\":[]}}"),
                "eventData must be a JSON object",
            ),
            (
                &format!("{{{id},{time},\"eventTyp\":\"t\"}}"),
                "unknown field `eventTyp`",
            ),
            (&format!("{{{id},{id}}}"), "duplicate field `id`"),
            (
                r#"{"location":{"ipAddress":"x"}}"#,
                "location.ipAddress: invalid IP address",
            ),
            (
                r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","createdAt":-1,"eventType":"t"}"#,
                "createdAt must lie in",
            ),
        ] {
            let said = event(line, project()).unwrap_err();
            assert!(said.starts_with(expected), "{line}: {said}");
        }
    }
}
