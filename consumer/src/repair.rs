//! Repair: what a dead letter is published as when it is replayed.
//!
//! Everything a row is recognised by comes from the letter and not from its repair, so that two
//! repairs of one letter are one event:
//!
//! - **Its id** is the one its bytes carry, if they can be read so far: it is the event's identity
//!   for its whole life, and whoever reported it may report it again. Otherwise it is derived
//!   from the letter's position, a UUIDv7 of the time Kafka took the record at.
//! - **Its time** is what the repair says, or else what the bytes say, or the time in the id.

use std::collections::BTreeMap;

use audit_schema::dead_letter::UNDECODABLE;
use audit_schema::row::Millis;
use audit_schema::{EventId, Position, wire};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::dead_letters::Letter;

/// One line of a file of repaired letters. What else a listing says of a letter is not needed.
#[derive(Debug, Deserialize)]
pub struct Repaired {
    pub(crate) incarnation: u32,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) value: Box<RawValue>,
}

impl Repaired {
    /// Reads a file of repaired letters; the error names the line.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().enumerate();
        lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| {
                serde_json::from_str(line).map_err(|error| {
                    format!(
                        "line {} is no repaired letter: {error}",
                        number.saturating_add(1)
                    )
                })
            })
            .collect()
    }
}

/// A letter as a record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Whose event it is.
    pub(crate) project: String,
    /// The event's id.
    pub(crate) id: EventId,
    /// The record's key.
    pub(crate) key: String,
    /// The record's value.
    pub(crate) value: Vec<u8>,
}

/// What the stored bytes say of the event's identity, as far as they can be read.
#[derive(Debug, Default, Deserialize)]
struct Identity {
    id: Option<serde_json::Value>,
    #[serde(rename = "createdAt")]
    created_at: Option<serde_json::Value>,
}

/// The id that the event of a letter has: the one its bytes carry, or one of its position.
fn identity(topic: &str, letter: &Letter) -> (EventId, i64) {
    let value = letter.value.as_deref().unwrap_or_default();
    let stored: Identity = serde_json::from_slice(value).unwrap_or_default();
    let carried = stored.id.as_ref().and_then(|id| id.as_str()?.parse().ok());
    let id = carried.unwrap_or_else(|| of_position(topic, letter));
    let time = stored.created_at.and_then(|time| time.as_i64());
    let time = time.or_else(|| id.time().map(|time| time.timestamp_millis()));
    (id, time.unwrap_or(letter.logged_at.0))
}

/// A UUIDv7 of the time Kafka took the record at, and of where it lay.
fn of_position(topic: &str, letter: &Letter) -> EventId {
    let Position {
        incarnation,
        partition,
        offset,
    } = letter.position;
    let position = format!("{topic}/{incarnation}/{partition}/{offset}");
    derived_id(letter.logged_at, position.as_bytes())
}

/// The UUIDv7 of a time whose random part is derived from what it is the id of.
pub(crate) fn derived_id(time: Millis, of: &[u8]) -> EventId {
    let mut random = [0; 10];
    random
        .iter_mut()
        .zip(Sha256::digest(of))
        .for_each(|(to, from)| *to = from);
    let millis = u64::try_from(time.0).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random)
        .into_uuid()
        .into()
}

/// Makes a record of a letter, with the value it has or a repaired one.
pub(crate) fn prepare(
    topic: &str,
    letter: &Letter,
    repaired: Option<&RawValue>,
) -> Result<Prepared, String> {
    if !UNDECODABLE.contains(&letter.kind.as_str()) {
        return Err(format!("a letter of kind {} is not replayed", letter.kind));
    }
    let value = match repaired {
        Some(repaired) => complete(topic, letter, repaired)?,
        None => letter.value.clone().unwrap_or_default(),
    };
    // A value as it was is of the version it was refused for.
    let version = match repaired {
        Some(_) => None,
        None => wire::refused_version(&letter.reason).map(str::as_bytes),
    };
    let event = wire::decode(&value, version).map_err(|error| error.to_string())?;
    Ok(Prepared {
        project: event.project_id.as_str().to_owned(),
        id: event.id,
        key: wire::key(&event),
        value: wire::encode(&event).map_err(|error| error.to_string())?,
    })
}

/// Gives a repaired value the id and, if it has none, the time of its letter.
fn complete(topic: &str, letter: &Letter, repaired: &RawValue) -> Result<Vec<u8>, String> {
    let unreadable = |error: serde_json::Error| format!("the repaired value is no event: {error}");
    let text: String;
    let json = if repaired.get().starts_with('"') {
        text = serde_json::from_str(repaired.get()).map_err(unreadable)?;
        text.as_str()
    } else {
        repaired.get()
    };
    let mut fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(json).map_err(unreadable)?;
    let (id, time) = identity(topic, letter);
    let own = serde_json::value::to_raw_value(&id).map_err(unreadable)?;
    if let Some(given) = fields.get("id") {
        let given: Option<EventId> = serde_json::from_str(given.get()).ok();
        if given != Some(id) {
            return Err(format!(
                "the event of this letter has the id {id}: leave `id` away"
            ));
        }
    }
    fields.insert("id".to_owned(), own);
    if !fields.contains_key("createdAt") {
        let time = serde_json::value::to_raw_value(&time).map_err(unreadable)?;
        fields.insert("createdAt".to_owned(), time);
    }
    serde_json::to_vec(&fields).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::tests::letter;
    use audit_schema::{Event, EventType};

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn event() -> Vec<u8> {
        let event = Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN)
            .id(ID.parse().unwrap())
            .event_key("u1");
        wire::encode(&event.build().unwrap()).unwrap()
    }

    fn repaired(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn bytes_that_can_be_read_now_keep_all_they_say() {
        let prepared = prepare("t", &letter("too_large", &event()), None).unwrap();
        assert_eq!(prepared.id.to_string(), ID);
        assert_eq!(
            (prepared.key.as_str(), prepared.value),
            ("acme/u1", event())
        );
    }

    #[test]
    fn bytes_that_still_cannot_be_read_are_refused_with_the_reason() {
        let refused = prepare("t", &letter("malformed", b"no"), None).unwrap_err();
        assert!(refused.starts_with("not an event"), "{refused}");
        let mut future = letter("unsupported_version", &event());
        future.reason = wire::decode(b"{}", Some(b"2")).unwrap_err().to_string();
        let refused = prepare("t", &future, None).unwrap_err();
        assert_eq!(refused, future.reason);
    }

    #[test]
    fn only_a_record_that_was_no_event_is_replayed() {
        for kind in ["duplicate", "absent", "skipped"] {
            let refused = prepare("t", &letter(kind, &event()), None).unwrap_err();
            assert!(refused.contains("is not replayed"), "{refused}");
        }
    }

    #[test]
    fn an_id_that_can_be_read_is_kept_and_another_is_refused() {
        let broken = letter(
            "malformed",
            format!(r#"{{"id":"{ID}","createdAt":1690000000000,"eventTyp":"x"}}"#).as_bytes(),
        );
        let value = repaired(r#"{"projectId":"acme","eventType":"x","eventData":{"n":1.10}}"#);
        let prepared = prepare("t", &broken, Some(&value)).unwrap();
        let event = wire::decode(&prepared.value, None).unwrap();
        assert_eq!(event.id.to_string(), ID);
        assert_eq!(event.created_at.timestamp_millis(), 1_690_000_000_000);
        assert_eq!(event.event_data.get(), r#"{"n":1.10}"#);

        let other = repaired(
            r#"{"id":"f47ac10b-58cc-4372-a567-0e02b2c3d479","projectId":"acme","eventType":"x"}"#,
        );
        let refused = prepare("t", &broken, Some(&other)).unwrap_err();
        assert!(refused.contains(ID), "{refused}");
    }

    #[test]
    fn an_id_that_cannot_be_read_is_derived_from_the_position() {
        let value = repaired(r#"{"projectId":"acme","eventType":"x"}"#);
        let as_text = repaired(r#""{\"projectId\":\"acme\",\"eventType\":\"x\"}""#);
        let broken = letter("malformed", b"{\"eventType\":");
        let first = prepare("t", &broken, Some(&value)).unwrap();
        assert_eq!(
            Some(&first),
            prepare("t", &broken, Some(&as_text)).ok().as_ref()
        );
        assert_eq!(
            first.id.time().unwrap().timestamp_millis(),
            broken.logged_at.0
        );
        let event = wire::decode(&first.value, None).unwrap();
        assert_eq!(Some(event.created_at), first.id.time());

        let mut elsewhere = broken.clone();
        elsewhere.position.offset += 1;
        assert_ne!(first.id, prepare("t", &elsewhere, Some(&value)).unwrap().id);
        assert_ne!(first.id, prepare("u", &broken, Some(&value)).unwrap().id);
    }

    #[test]
    fn a_line_that_is_no_letter_is_named() {
        let good = r#"{"incarnation":1,"partition":0,"offset":7,"kind":"malformed","value":{}}"#;
        assert_eq!(
            Repaired::parse(&format!("{good}\n\n{good}\n"))
                .unwrap()
                .len(),
            2
        );
        let error = Repaired::parse(&format!("{good}\n{{}}\n")).unwrap_err();
        assert!(error.starts_with("line 2 "), "{error}");
    }
}
