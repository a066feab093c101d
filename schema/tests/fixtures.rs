//! Every event shape that was ever shipped still decodes, and its row is what it was.
//!
//! A new fixture needs no new test: requests of the plugin go into `fixtures/capture.ndjson`,
//! wire values into `fixtures/wire-v<version>.ndjson`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use audit_schema::row::{EventColumns, EventRow, Millis};
use audit_schema::{CATALOGUE, Event, EventData, EventId, EventType, Location, Position, wire};
use serde_json::{Value, json};

const CAPTURE: &str = include_str!("fixtures/capture.ndjson");
const WIRE_V1: &str = include_str!("fixtures/wire-v1.ndjson");

/// One fixed event, so that its snapshot is fixed.
fn event(event_type: &str, data: &Value, key: &str, name: &str) -> Event<'static> {
    let id: EventId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    Event::builder(
        "acme".parse().unwrap(),
        EventType::new(event_type.to_owned()).unwrap(),
    )
    .id(id)
    .event_key(key.to_owned())
    .event_display_name(name.to_owned())
    .location(Location {
        ip_address: Some("203.0.113.9".parse().unwrap()),
        country_code: "NZ".into(),
        ..Location::default()
    })
    .event_data(EventData::of(data).unwrap())
    .build()
    .unwrap()
}

/// The columns that are read out of the event data.
fn derived(event: &Event<'_>) -> Value {
    let value = wire::encode(event).unwrap();
    let read = wire::decode(&value, Some(wire::VERSION.as_bytes())).unwrap();
    let row = row(&read);
    json!({
        "event_type": row["event_type"],
        "documented_type": row["documented_type"],
        "user_id": row["user_id"],
        "organization_id": row["organization_id"],
        "identifier": row["identifier"],
        "actor_id": row["actor_id"],
        "actor_type": row["actor_type"],
        "outcome": row["outcome"],
        "session_id": row["session_id"],
        "user_agent": row["user_agent"],
    })
}

fn row(event: &Event<'_>) -> Value {
    let mut columns = EventColumns::default();
    let position = Position {
        incarnation: 1,
        partition: 2,
        offset: 3,
    };
    columns.push(event, position, Millis(1_700_000_000_456));
    let row: EventRow = columns.rows().next().unwrap();
    serde_json::to_value(row).unwrap()
}

#[test]
fn the_rows_of_every_captured_event() {
    let mut rows = Vec::new();
    for line in CAPTURE.lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        if request["method"] != "POST" {
            continue;
        }
        let body = &request["body"];
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        let event = event(
            &text("eventType"),
            &body["eventData"],
            &text("eventKey"),
            &text("eventDisplayName"),
        );
        assert_eq!(row(&event)["event_data"], body["eventData"].to_string());
        rows.push(derived(&event));
    }
    assert_eq!(rows.len(), 44);
    insta::assert_json_snapshot!(rows);
}

#[test]
fn the_rows_of_every_documented_type() {
    let mut rows = Vec::new();
    let mut reached = BTreeSet::new();
    for entry in CATALOGUE {
        for (sent, data) in as_sent(entry.name, entry.wire_name) {
            let event = event(&sent, &data, "u1", entry.name);
            let row = derived(&event);
            assert_eq!(row["documented_type"], entry.name, "sent as {sent}");
            reached.insert(entry.name);
            rows.push(row);
        }
    }
    assert_eq!(reached.len(), 45);
    insta::assert_json_snapshot!(rows);
}

/// A documented type under its own name, and as the plugin sends it where that differs.
fn as_sent(name: &str, wire_name: Option<&str>) -> Vec<(String, Value)> {
    let data = json!({"userId": "u1", "triggeredBy": "u2", "triggerContext": "admin"});
    let signal = |kind: &str, action: &str| {
        let data = json!({"type": kind, "action": action, "triggeredBy": "a-check"});
        ("security_signal".to_owned(), data)
    };
    let mut sent = vec![(name.to_owned(), data.clone())];
    sent.extend(wire_name.map(|wire_name| (wire_name.to_owned(), data)));
    sent.extend(match name {
        "security_blocked" => Some(("security_check".into(), json!({"outcome": "blocked"}))),
        "security_allowed" => Some((
            "security_check".into(),
            json!({"outcome": "passed", "evaluatedChecks": ["pow_challenge"]}),
        )),
        "security_suspicious_ip" => Some(signal("suspicious_ip_detected", "challenged")),
        "security_stale_account" => Some(signal("stale_account_reactivation", "logged")),
        name => name
            .strip_prefix("security_")
            .map(|kind| signal(kind, "blocked")),
    });
    sent
}

#[test]
fn every_wire_value_ever_shipped_still_decodes() {
    let rows: Vec<Value> = WIRE_V1
        .lines()
        .map(|line| row(&wire::decode(line.as_bytes(), Some(b"1")).unwrap()))
        .collect();
    insta::assert_json_snapshot!(rows);
}

#[test]
fn a_value_is_written_as_it_was_shipped() {
    for line in WIRE_V1.lines() {
        let event = wire::decode(line.as_bytes(), None).unwrap();
        assert_eq!(
            String::from_utf8(wire::encode(&event).unwrap()).unwrap(),
            line
        );
    }
}
