//! Events as any client sends them: everything can be said, and nothing is guessed.
//!
//! A client reads the answer, so what is wrong is refused, item by item, with the name of the
//! field. An id given by the client makes its retry safe: the event is looked up before it is
//! stored again.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use audit_schema::{
    Actor, Event, EventData, EventId, EventType, InvalidEvent, Location, Outcome, ProjectId,
};
use audit_service::ApiError;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;

/// Most events of one request.
pub(crate) const MAX_EVENTS: usize = 1_000;

/// How far ahead of our clock an event may lie: clients' clocks are wrong by hours, not days.
const MAX_AHEAD: TimeDelta = TimeDelta::hours(24);

/// An event that can be published.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) event: Event<'static>,
    /// The client gave the id, so this may be its second attempt.
    pub(crate) maybe_delivered: bool,
}

/// Splits the body of `POST /v1/events` into its items: one object, or an array of them.
pub(crate) fn split(body: &[u8]) -> Result<Vec<&RawValue>, ApiError> {
    let not_json =
        |error: serde_json::Error| ApiError::invalid("body", format!("not JSON: {error}"));
    let whole: &RawValue = serde_json::from_slice(body).map_err(not_json)?;
    let items = match whole.get().bytes().next() {
        Some(b'{') => vec![whole],
        Some(b'[') => serde_json::from_str(whole.get()).map_err(not_json)?,
        _ => Vec::new(),
    };
    if items.is_empty() || items.len() > MAX_EVENTS {
        let expected = format!("send one event, or an array of 1 to {MAX_EVENTS} events");
        return Err(ApiError::invalid("body", expected));
    }
    Ok(items)
}

/// Reads one item. The event is `project`'s; without an id and a time it happens now.
pub(crate) fn parse(
    item: &RawValue,
    project: ProjectId,
    now: DateTime<Utc>,
) -> Result<Parsed, ApiError> {
    let mut reader = serde_json::Deserializer::from_str(item.get());
    let item: Item<'_> = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = Some(error.path().to_string()).filter(|path| path != ".");
        let reason = error.into_inner().to_string();
        // The place is counted from the start of the item, and the field is named.
        let reason = reason
            .rsplit_once(" at line ")
            .map_or(reason.as_str(), |(reason, _)| reason);
        invalid(field.unwrap_or_else(|| "event".to_owned()), reason)
    })?;
    let maybe_delivered = item.id.is_some();
    let event = item.into_event(project)?;
    if event.created_at > now + MAX_AHEAD {
        let reason = "lies more than 24 hours ahead of the server's clock";
        return Err(ApiError::invalid("createdAt", reason));
    }
    Ok(Parsed {
        event,
        maybe_delivered,
    })
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an event, which is an object"
)]
struct Item<'a> {
    id: Option<EventId>,
    created_at: Option<Time>,
    event_type: Option<String>,
    event_key: Option<String>,
    event_display_name: Option<String>,
    user_id: Option<String>,
    organization_id: Option<String>,
    identifier: Option<String>,
    actor: Option<ItemActor>,
    outcome: Option<Outcome>,
    session_id: Option<String>,
    request_id: Option<String>,
    user_agent: Option<String>,
    ip_address: Option<IpAddr>,
    city: Option<String>,
    country: Option<String>,
    country_code: Option<String>,
    #[serde(borrow)]
    event_data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an actor such as {\"id\": \"…\", \"type\": \"user\"}"
)]
struct ItemActor {
    id: Option<String>,
    r#type: Option<String>,
}

impl Item<'_> {
    fn into_event(self, project: ProjectId) -> Result<Event<'static>, ApiError> {
        let of_type = |reason: String| ApiError::invalid("eventType", reason);
        let name = self
            .event_type
            .ok_or_else(|| of_type("is needed".to_owned()))?;
        let event_type = EventType::new(name).map_err(|error| of_type(error.to_string()))?;
        let location = Location {
            ip_address: self.ip_address,
            city: self.city.unwrap_or_default().into(),
            country: self.country.unwrap_or_default().into(),
            country_code: self.country_code.unwrap_or_default().into(),
        };
        let mut event = Event::builder(project, event_type)
            .event_key(self.event_key.unwrap_or_default())
            .event_display_name(self.event_display_name.unwrap_or_default())
            .user_id(self.user_id.unwrap_or_default())
            .organization_id(self.organization_id.unwrap_or_default())
            .identifier(self.identifier.unwrap_or_default())
            .session_id(self.session_id.unwrap_or_default())
            .request_id(self.request_id.unwrap_or_default())
            .user_agent(self.user_agent.unwrap_or_default())
            .location(location);
        if let Some(actor) = self.actor {
            event = event.actor(Actor {
                id: actor.id.unwrap_or_default().into(),
                kind: actor.r#type.unwrap_or_default().into(),
            });
        }
        if let Some(outcome) = self.outcome {
            event = event.outcome(outcome);
        }
        if let Some(id) = self.id {
            event = event.id(id);
        }
        if let Some(Time(time)) = self.created_at {
            event = event.created_at(time);
        }
        if let Some(data) = self.event_data {
            event = event
                .event_data(EventData::parse(data.get()).map_err(|error| invalid_event(&error))?);
        }
        event.build().map_err(|error| invalid_event(&error))
    }
}

/// What is wrong with a field; `reason` may start with its name.
fn invalid(field: impl Into<Cow<'static, str>>, reason: &str) -> ApiError {
    let field = field.into();
    let reason = reason.strip_prefix(field.as_ref()).unwrap_or(reason);
    let reason = reason.trim_start().to_owned();
    ApiError::invalid(field, reason)
}

/// Names the field; the texts of [`InvalidEvent`] say what to change.
pub(crate) fn invalid_event(error: &InvalidEvent) -> ApiError {
    let field = match error {
        InvalidEvent::TimeOutOfRange | InvalidEvent::TimeMissing => "createdAt",
        InvalidEvent::DataNotAnObject
        | InvalidEvent::DataNotJson(_)
        | InvalidEvent::DataTooDeep => "eventData",
    };
    invalid(field, &error.to_string())
}

/// A time as RFC 3339, or in milliseconds since 1970.
struct Time(DateTime<Utc>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor).map(Self)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = DateTime<Utc>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as \"2026-01-31T12:00:00.123Z\", or milliseconds since 1970")
    }

    fn visit_i64<E: Error>(self, millis: i64) -> Result<DateTime<Utc>, E> {
        DateTime::from_timestamp_millis(millis)
            .ok_or_else(|| E::custom(InvalidEvent::TimeOutOfRange))
    }

    fn visit_u64<E: Error>(self, millis: u64) -> Result<DateTime<Utc>, E> {
        self.visit_i64(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DateTime<Utc>, E> {
        DateTime::parse_from_rfc3339(text)
            .map(Into::into)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> DateTime<Utc> {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    fn read_at(now: DateTime<Utc>, item: &Value) -> Result<Parsed, ApiError> {
        let raw = serde_json::value::to_raw_value(item).unwrap();
        parse(&raw, "acme".parse().unwrap(), now)
    }

    fn read(item: &Value) -> Result<Parsed, ApiError> {
        read_at(now(), item)
    }

    fn created_at(item: &Value) -> Option<String> {
        let time = read(item).ok()?.event.created_at;
        Some(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
    }

    #[test]
    fn everything_can_be_said() {
        let parsed = read(&json!({
            "id": "0193a4a0-0000-7000-8000-000000000001", "createdAt": "2026-01-01T01:00:00.5+01:00",
            "eventType": "user_signed_in", "eventKey": "u", "eventDisplayName": "d", "userId": "u",
            "organizationId": "o", "identifier": "ann", "actor": {"id": "a", "type": "admin"},
            "outcome": "failure", "sessionId": "s", "requestId": "r", "userAgent": "ua",
            "ipAddress": "192.0.2.1", "city": "c", "country": "n", "countryCode": "DE",
            "eventData": {"x": 1},
        }))
        .unwrap();
        assert!(parsed.maybe_delivered);
        let written = serde_json::to_value(&parsed.event).unwrap();
        assert_eq!(
            written,
            json!({
                "id": "0193a4a0-0000-7000-8000-000000000001", "projectId": "acme",
                "createdAt": 1_767_225_600_500_i64, "eventType": "user_signed_in", "eventKey": "u",
                "eventDisplayName": "d", "userId": "u", "organizationId": "o", "identifier": "ann",
                "actor": {"id": "a", "type": "admin"}, "outcome": "failure", "sessionId": "s",
                "requestId": "r", "userAgent": "ua", "eventData": {"x": 1},
                "location": {
                    "ipAddress": "192.0.2.1", "city": "c", "country": "n", "countryCode": "DE"
                },
            })
        );
    }

    #[test]
    fn only_the_type_is_needed_and_null_is_absent() {
        let nulls = json!({"eventType": "t", "id": null, "actor": null, "outcome": null,
            "eventData": null, "ipAddress": null, "createdAt": null, "userId": null});
        let parsed = read_at(Utc::now(), &nulls).unwrap();
        assert!(!parsed.maybe_delivered);
        assert_eq!(parsed.event.event_data.get(), "{}");
        assert_eq!(Some(parsed.event.created_at), parsed.event.id.time());
    }

    #[test]
    fn a_time_is_rfc_3339_or_milliseconds() {
        let at = |time: Value| created_at(&json!({"eventType": "t", "createdAt": time}));
        assert_eq!(
            at(json!("1970-01-01T00:00:00Z")).unwrap(),
            "1970-01-01T00:00:00.000Z"
        );
        assert_eq!(at(json!(0)).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            at(json!(1_700_000_000_123_i64)).unwrap(),
            "2023-11-14T22:13:20.123Z"
        );
        assert_eq!(
            at(json!("2026-02-01T12:00:00Z")).unwrap(),
            "2026-02-01T12:00:00.000Z"
        );
        for refused in [
            json!("2026-02-01T12:00:00.001Z"),
            json!("9999-01-01T00:00:00Z"),
            json!("1969-12-31T23:59:59.999Z"),
            json!(-1),
            json!(u64::MAX),
            json!(1.5),
            json!("yesterday"),
            json!("2026-01-01"),
        ] {
            assert_eq!(at(refused.clone()), None, "{refused}");
        }
    }

    #[test]
    fn an_event_happened_when_its_id_was_made() {
        let v7 = json!({"eventType": "t", "id": "0193a4a0-0000-7000-8000-000000000001"});
        assert_eq!(created_at(&v7).unwrap(), "2024-12-08T04:56:09.472Z");
        let v4 = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
        assert_eq!(created_at(&json!({"eventType": "t", "id": v4})), None);
        assert!(created_at(&json!({"eventType": "t", "id": v4, "createdAt": 1})).is_some());
        let future = "0fffffff-ffff-7000-8000-000000000001";
        assert_eq!(created_at(&json!({"eventType": "t", "id": future})), None);
    }

    #[test]
    fn an_error_names_the_field() {
        for (item, expected) in [
            (json!({"eventType": "t", "userID": "u"}), "userID"),
            (json!({"eventType": "t", "projectId": "other"}), "projectId"),
            (json!({"eventType": "t", "userId": 5}), "userId"),
            (json!({"eventType": "t", "actor": {"id": 5}}), "actor.id"),
            (
                json!({"eventType": "t", "actor": {"name": "x"}}),
                "actor.name",
            ),
            (json!({"eventType": "t", "actor": "ann"}), "actor"),
            (json!({"eventType": "t", "outcome": "ok"}), "outcome"),
            (json!({"eventType": "t", "ipAddress": "1.2.3"}), "ipAddress"),
            (json!({"eventType": "t", "id": "x"}), "id"),
            (json!({"eventType": "t", "createdAt": true}), "createdAt"),
            (json!({"eventType": "t", "eventData": []}), "eventData"),
            (json!({"eventType": ["t"]}), "eventType"),
            (json!({"eventType": "a,b"}), "eventType"),
            (json!({}), "eventType"),
            (json!("text"), "event"),
        ] {
            let refused = read(&item).unwrap_err();
            assert!(
                matches!(&refused, ApiError::Invalid { field, .. } if field == expected),
                "{item}: {refused}"
            );
        }
    }

    #[test]
    fn a_body_is_one_event_or_a_bounded_array() {
        let count = |body: &str| split(body.as_bytes()).map(|items| items.len());
        assert_eq!(count(" {}").unwrap(), 1);
        assert_eq!(count(" [ {}, 5, {} ] ").unwrap(), 3);
        let many = |n: usize| format!("[{}]", vec!["{}"; n].join(","));
        assert_eq!(count(&many(1_000)).unwrap(), 1_000);
        for refused in ["", "[]", "5", "null", "[{}", "{}{}", "[{},]", &many(1_001)] {
            assert!(count(refused).is_err(), "{refused}");
        }
    }
}
