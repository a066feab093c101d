//! Events of a Better Auth dashboard, as its read endpoints answer them.
//!
//! No format of an export is documented, so the answers of `GET /events/user`, `/organization` and
//! `/activity` are taken as they are, or as `authClient.dash.getAuditLogs` passes them on: one JSON
//! document a line, which is an event, a page `{"events": […]}`, or an array of either.
//!
//! These answers carry no id, so an event gets one that is derived from all it says, and is the same
//! whenever it is imported. Two events that say the same in the same millisecond are told apart
//! by their number among those of a page, or of lines that follow each other; not among the pages of a
//! file, because a page that was asked for while events arrived begins with the end of the one before.

use std::collections::HashMap;
use std::net::IpAddr;

use audit_producer::Redaction;
use audit_schema::row::Millis;
use audit_schema::{Event, EventData, EventId, Location, ProjectId, wire};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Prepared, fields};
use crate::repair::derived_id;

/// An answer of an endpoint; what else it says does not count.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Answered<'a> {
    id: Option<String>,
    event_type: Option<String>,
    event_key: Option<String>,
    event_display_name: Option<String>,
    #[serde(borrow)]
    event_data: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "fields::time")]
    created_at: Option<DateTime<Utc>>,
    ip_address: Option<String>,
    city: Option<String>,
    country: Option<String>,
    country_code: Option<String>,
    /// Where the plugin puts these four.
    location: Option<AnsweredLocation>,
    #[serde(rename = "projectId", default)]
    _project_id: IgnoredAny,
    #[serde(rename = "updatedAt", default)]
    _updated_at: IgnoredAny,
    #[serde(rename = "ageInMinutes", default)]
    _age_in_minutes: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnsweredLocation {
    ip_address: Option<String>,
    city: Option<String>,
    country: Option<String>,
    country_code: Option<String>,
}

/// Reads the lines of one file, from its first one on.
pub(super) struct Dashboard {
    project: ProjectId,
    redaction: Redaction,
    /// Of the events of one millisecond, of one page: how many said the same.
    alike: HashMap<[u8; 32], u64>,
    millisecond: Millis,
}

impl Dashboard {
    /// Events of `project`, without what `redaction` takes out of them.
    pub(super) fn new(project: ProjectId, redaction: Redaction) -> Self {
        Self {
            project,
            redaction,
            alike: HashMap::new(),
            millisecond: Millis::default(),
        }
    }

    /// The events of a line, in its order, each with what is wrong with it if it is none.
    pub(super) fn events(&mut self, json: &str) -> Result<Vec<Result<Prepared, String>>, String> {
        let documents = match json.trim_start().bytes().next() {
            Some(b'[') => fields::read::<Vec<&RawValue>>(json)?,
            _ => vec![fields::read(json)?],
        };
        let is_one = documents.len() == 1;
        let mut events = Vec::new();
        for document in documents {
            match page(document.get()) {
                Ok(Some(page)) => {
                    self.alike.clear();
                    events.extend(page.into_iter().map(|event| self.event(event.get())));
                    self.alike.clear();
                }
                Ok(None) => events.push(self.event(document.get())),
                Err(reason) if is_one => return Err(reason),
                Err(reason) => events.push(Err(reason)),
            }
        }
        Ok(events)
    }

    fn event(&mut self, json: &str) -> Result<Prepared, String> {
        let answered: Answered<'_> = fields::object(json)?;
        let created_at = answered.created_at.ok_or("createdAt is missing")?;
        let event_type = fields::event_type(answered.event_type)?;
        let moved = answered.location.unwrap_or_default();
        let either = |flat: Option<String>, moved| flat.or(moved).unwrap_or_default();
        let ip_address = either(answered.ip_address, moved.ip_address);
        let ip_address: Option<IpAddr> = match ip_address.as_str() {
            "" | "unknown" => None,
            text => Some(
                text.parse()
                    .map_err(|error| format!("ipAddress: {error}"))?,
            ),
        };
        let event = Event::builder(self.project.clone(), event_type)
            .id(Uuid::nil().into())
            .created_at(created_at)
            .event_key(answered.event_key.unwrap_or_default())
            .event_display_name(answered.event_display_name.unwrap_or_default())
            .location(Location {
                ip_address,
                city: either(answered.city, moved.city).into(),
                country: either(answered.country, moved.country).into(),
                country_code: either(answered.country_code, moved.country_code).into(),
            });
        let event = match answered.event_data.filter(|data| data.get() != "null") {
            None => event,
            Some(data) => {
                event.event_data(EventData::parse(data.get()).map_err(|error| error.to_string())?)
            }
        };
        let event = event.build().map_err(|error| error.to_string())?;
        // Before the id is derived, from which nobody is to find out by trying what was taken out.
        let mut redacted = self.redaction.apply(&event).into_owned();
        redacted.id = self.id(&redacted, answered.id.as_deref().unwrap_or_default());
        Prepared::of(&redacted)
    }

    /// The id that an event was answered with, or else one that is derived from it.
    fn id(&mut self, event: &Event<'_>, answered: &str) -> EventId {
        let created_at = Millis::from(event.created_at);
        if let Ok(id) = answered.parse() {
            return id;
        }
        if !answered.is_empty() {
            let of = format!("{}/{answered}", event.project_id);
            return derived_id(created_at, of.as_bytes());
        }
        if created_at != self.millisecond {
            self.alike.clear();
            self.millisecond = created_at;
        }
        let digest = digest(event);
        let before = self.alike.entry(digest).or_default();
        let of = [digest.as_slice(), &before.to_be_bytes()].concat();
        *before = before.saturating_add(1);
        derived_id(created_at, &of)
    }
}

/// The events of a page; `None` if it is an event.
fn page(json: &str) -> Result<Option<Vec<&RawValue>>, String> {
    // An event says so itself if it is none.
    if !json.starts_with('{') {
        return Ok(None);
    }
    fields::object(json).map(|Page { events }| events)
}

/// What an event says, its id excepted. How its data is spaced and ordered does not count.
fn digest(event: &Event<'_>) -> [u8; 32] {
    let data = serde_json::from_str(event.event_data.get());
    let data = data.and_then(|data: serde_json::Value| serde_json::to_string(&data));
    let data = data.unwrap_or_else(|_| event.event_data.get().to_owned());
    let rest = Event {
        event_data: EventData::default(),
        ..event.clone()
    };
    // Without its data it is never too large.
    let rest = wire::encode(&rest).unwrap_or_default();
    let mut digest = Sha256::new();
    digest.update(rest);
    digest.update(data);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dashboard(rules: &str) -> Dashboard {
        let key = "0123456789abcdef0123456789abcdef".to_owned().into();
        let redaction = Redaction::parse(rules, Some(&key)).unwrap();
        Dashboard::new("copy".parse().unwrap(), redaction)
    }

    /// The events of lines that are all taken.
    fn events(lines: &[&str]) -> Vec<Prepared> {
        let mut dashboard = dashboard("");
        let events = lines
            .iter()
            .flat_map(|line| dashboard.events(line).unwrap());
        events.map(Result::unwrap).collect()
    }

    fn ids(lines: &[&str]) -> Vec<Uuid> {
        events(lines).iter().map(|event| event.id.id).collect()
    }

    fn refused(line: &str) -> String {
        let events = dashboard("")
            .events(line)
            .map(|mut events| events.remove(0));
        events.and_then(|event| event).unwrap_err()
    }

    const EVENT: &str = r#"{"eventType":"user_created","eventData":{"userId":"u1","n":1.50},
        "eventKey":"u1","projectId":"theirs","createdAt":"2026-01-31T12:00:00.123Z",
        "updatedAt":"2026-01-31T12:00:00.123Z","ageInMinutes":7,"ipAddress":"192.0.2.1","city":"Graz",
        "country":"Austria","countryCode":"AT"}"#;

    #[test]
    fn an_event_is_taken_with_all_that_is_answered() {
        let events = events(&[EVENT]);
        let [event] = events.as_slice() else {
            panic!("{events:?}")
        };
        let read = wire::decode(&event.value, None).unwrap();
        assert_eq!(read.id.time(), Some(read.created_at));
        assert_eq!(event.key, "copy/u1");
        let mut read = serde_json::to_value(read).unwrap();
        read.as_object_mut().unwrap().remove("id");
        assert_eq!(
            read,
            json!({
                "projectId": "copy", "createdAt": 1_769_860_800_123_i64, "eventType": "user_created",
                "eventKey": "u1", "eventData": {"userId": "u1", "n": 1.5},
                "location": {"ipAddress": "192.0.2.1", "city": "Graz", "country": "Austria",
                    "countryCode": "AT"},
            })
        );
    }

    #[test]
    fn an_event_has_one_id_however_it_is_written() {
        let mut moved: serde_json::Value = serde_json::from_str(EVENT).unwrap();
        let fields = moved.as_object_mut().unwrap();
        let location: serde_json::Map<_, _> = ["ipAddress", "city", "country", "countryCode"]
            .into_iter()
            .map(|name| (name.to_owned(), fields.remove(name).unwrap()))
            .collect();
        fields.insert("location".to_owned(), location.into());
        fields.insert("eventData".to_owned(), json!({"n": 1.5, "userId": "u1"}));
        fields.insert("ageInMinutes".to_owned(), json!(8));
        fields.insert("city".to_owned(), json!(null));
        let one = ids(&[EVENT]);
        for other in [
            moved.to_string(),
            format!("{{\"events\":[{EVENT}],\"total\":1,\"limit\":50,\"offset\":0}}"),
            format!("[{EVENT}]"),
            format!("[{{\"events\":[{EVENT}]}}]"),
        ] {
            assert_eq!(ids(&[&other]), one, "{other}");
        }
        assert_ne!(ids(&[&EVENT.replace("1.50", "1.51")]), one);
        assert_ne!(ids(&[&EVENT.replace("Graz", "Linz")]), one);
    }

    #[test]
    fn events_that_say_the_same_are_told_apart_by_their_number() {
        let [first, second] = ids(&[EVENT, EVENT])[..] else {
            panic!()
        };
        assert_ne!(first, second);
        let page = format!("{{\"events\":[{EVENT},{EVENT}]}}");
        assert_eq!(ids(&[&page]), [first, second]);
        // The next page begins with what moved there, and is the same when it is asked for again.
        assert_eq!(ids(&[&page, &page]), [first, second, first, second]);
        let later = EVENT.replace(".123Z", ".124Z");
        assert_eq!(ids(&[EVENT, &later, EVENT])[2], first);
    }

    #[test]
    fn an_id_that_is_answered_is_kept_or_told_apart_by() {
        let with = |id: &str| ids(&[&EVENT.replacen('{', &format!("{{\"id\":\"{id}\","), 1)])[0];
        let uuid = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
        assert_eq!(with(uuid).to_string(), uuid);
        assert_eq!(with("cm5x"), with("cm5x"));
        assert_ne!(with("cm5x"), with("cm5y"));
        assert_eq!(vec![with("")], ids(&[EVENT]));
    }

    #[test]
    fn what_must_not_be_stored_is_taken_out_before_the_id_is_made() {
        let rules = "[[rules]]\npath = \"eventKey\"\naction = \"hash\"\n\
                     [[rules]]\npath = \"data.userId\"\naction = \"drop\"\n";
        let taken = |event: &str| dashboard(rules).events(event).unwrap().remove(0).unwrap();
        let secret = EVENT.replace("{\"userId\"", "{\"accessToken\":\"hunter2\",\"userId\"");
        let event = taken(&secret);
        let value = String::from_utf8(event.value.clone()).unwrap();
        assert!(
            !value.contains("hunter2") && !value.contains("\"u1\""),
            "{value}"
        );
        assert!(event.key.starts_with("copy/hmac:"), "{}", event.key);
        assert_eq!(taken(&secret.replace("hunter2", "hunter3")), event);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |old: &str, new: &str| refused(&EVENT.replace(old, new));
        assert_eq!(
            with("\"createdAt\"", "\"updated_at\"").split(',').next(),
            Some("unknown field `updated_at`")
        );
        assert_eq!(refused(r#"{"eventType":"t"}"#), "createdAt is missing");
        assert_eq!(refused(r#"{"createdAt":5}"#), "eventType is missing");
        assert!(refused(r#"{"error":"no"}"#).starts_with("unknown field `error`"));
        assert!(with("192.0.2.1", "here").starts_with("ipAddress: invalid IP address"));
        assert!(with("\"u1\",\"n\"", "7,\"n\":").starts_with("not JSON"));
        assert!(with("2026-01-31T12:00:00.123Z", "2026-01-31").starts_with("createdAt: expected"));
        let large = format!("{{\"x\":\"{}\"}}", "y".repeat(wire::MAX_EVENT_BYTES));
        let large = refused(&format!(
            "{{\"eventType\":\"t\",\"createdAt\":1,\"eventData\":{large}}}"
        ));
        assert!(large.contains("the limit is 262144"), "{large}");
        assert!(refused("{").contains("jq -c"));
    }
}
