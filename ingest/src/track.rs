//! One event as the plugin `@better-auth/infra` sends it.
//!
//! The plugin sends once and swallows errors, so an event that is refused is lost. Therefore only
//! what cannot be an event at all is refused. What we do not understand (unknown fields, fields of
//! another type, an address that is none) is kept inside the event data under `extraFields`;
//! otherwise the event data stays byte for byte as it was sent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use audit_schema::{Event, EventData, EventType, Location, ProjectId};
use audit_service::ApiError;
use serde_json::value::RawValue;

use crate::events::invalid_event;

/// Where fields that we do not understand are kept.
const EXTRA_FIELDS: &str = "extraFields";

type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Reads the body of `POST /events/track`. The event is `project`'s, and happens now.
pub(crate) fn parse(body: &[u8], project: ProjectId) -> Result<Event<'static>, ApiError> {
    let mut fields: Fields<'_> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid("body", format!("must be a JSON object: {error}")))?;
    fields.retain(|_, value| value.get() != "null");

    let no_type = "must be text, such as user_signed_in";
    let event_type = take_text(&mut fields, "eventType")
        .ok_or_else(|| ApiError::invalid("eventType", no_type))?;
    let event_type = EventType::new(event_type)
        .map_err(|error| ApiError::invalid("eventType", error.to_string()))?;
    let mut text = |name| take_text(&mut fields, name).unwrap_or_default();
    let event = Event::builder(project, event_type)
        .event_key(text("eventKey"))
        .event_display_name(text("eventDisplayName"));
    let mut location = Location {
        ip_address: None,
        city: text("city").into(),
        country: text("country").into(),
        country_code: text("countryCode").into(),
    };
    let address = fields
        .get("ipAddress")
        .and_then(|raw| serde_json::from_str(raw.get()).ok());
    if let Some(address) = address {
        location.ip_address = Some(address);
        fields.remove("ipAddress");
    }
    let is_object = fields
        .get("eventData")
        .is_some_and(|data| data.get().starts_with('{'));
    let data = if is_object {
        fields.remove("eventData")
    } else {
        None
    };

    let data = with_extra_fields(data.map_or("{}", RawValue::get), &fields);
    event
        .location(location)
        .event_data(EventData::parse(&data).map_err(|error| invalid_event(&error))?)
        .build()
        .map_err(|error| invalid_event(&error))
}

/// Takes a field away if it is text.
fn take_text(fields: &mut Fields<'_>, name: &str) -> Option<String> {
    let text = serde_json::from_str(fields.get(name)?.get()).ok()?;
    fields.remove(name);
    Some(text)
}

/// `data` with the fields that are left added at its end.
fn with_extra_fields<'a>(data: &'a str, left: &Fields<'_>) -> Cow<'a, str> {
    let Some(open) = data.strip_suffix('}').filter(|_| !left.is_empty()) else {
        return Cow::Borrowed(data);
    };
    let taken: Fields<'_> = serde_json::from_str(data).unwrap_or_default();
    let mut name = EXTRA_FIELDS.to_owned();
    while taken.contains_key(name.as_str()) {
        name.push('_');
    }
    let comma = if open.trim_end() == "{" { "" } else { "," };
    // Names and raw values cannot fail to serialize.
    let extra = serde_json::to_string(left).unwrap_or_default();
    Cow::Owned(format!("{open}{comma}\"{name}\":{extra}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn track(body: &str) -> Result<Event<'static>, ApiError> {
        parse(body.as_bytes(), "acme".parse().unwrap())
    }

    fn data(body: &Value) -> Value {
        serde_json::from_str(track(&body.to_string()).unwrap().event_data.get()).unwrap()
    }

    #[test]
    fn every_request_of_the_plugin_is_an_event_with_its_data_unchanged() {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            method: &'a str,
            #[serde(borrow, default)]
            body: Option<&'a RawValue>,
        }
        let capture = include_str!("../../schema/tests/fixtures/capture.ndjson");
        let mut events = 0;
        for line in capture.lines() {
            let line: Line<'_> = serde_json::from_str(line).unwrap();
            if line.method != "POST" {
                continue;
            }
            let sent = line.body.unwrap().get();
            let event = track(sent).unwrap();
            let body: BTreeMap<&str, &RawValue> = serde_json::from_str(sent).unwrap();
            let text = |name| serde_json::from_str::<String>(body[name].get()).unwrap();
            assert_eq!(event.event_data.get(), body["eventData"].get());
            assert_eq!(event.event_type.as_str(), text("eventType"));
            assert_eq!(event.event_key, text("eventKey"));
            assert_eq!(event.event_display_name, text("eventDisplayName"));
            events += 1;
        }
        assert_eq!(events, 44);
    }

    #[test]
    fn event_data_keeps_its_bytes() {
        let odd = r#"{ "a" : 1.0e2,"b":"\u0000\ud800" , "a":2 }"#;
        let event = track(&format!(r#"{{"eventType":"t","eventData":{odd}}}"#)).unwrap();
        assert_eq!(event.event_data.get(), odd);
    }

    #[test]
    fn null_is_absent() {
        let event = track(
            r#"{"eventType":"t","eventData":null,"eventKey":null,"ipAddress":null,"city":null,"x":null}"#,
        )
        .unwrap();
        assert_eq!(event.event_data.get(), "{}");
        assert_eq!(event.event_key, "");
        assert_eq!(event.location, Location::default());
    }

    #[test]
    fn the_location_is_taken() {
        let event = track(
            r#"{"eventType":"t","ipAddress":"2001:db8::1","city":"Köln","country":"Germany","countryCode":"DE"}"#,
        )
        .unwrap();
        assert_eq!(event.location.ip_address, "2001:db8::1".parse().ok());
        assert_eq!(event.location.city, "Köln");
        assert_eq!(event.location.country, "Germany");
        assert_eq!(event.location.country_code, "DE");
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let kept = data(&json!({
            "eventType": "t", "eventData": {"userId": "u"}, "eventKey": 42, "eventDisplayName": ["x"],
            "ipAddress": "localhost", "city": {}, "projectId": "other", "id": "x",
        }));
        assert_eq!(
            kept,
            json!({"userId": "u", "extraFields": {
                "eventKey": 42, "eventDisplayName": ["x"], "ipAddress": "localhost", "city": {},
                "projectId": "other", "id": "x",
            }})
        );
        for odd in [json!("text"), json!([1]), json!(1), json!(true)] {
            let kept = data(&json!({"eventType": "t", "eventData": odd}));
            assert_eq!(kept, json!({"extraFields": {"eventData": odd}}));
        }
    }

    #[test]
    fn extra_fields_do_not_hide_the_events_own() {
        let kept = data(&json!({"eventType": "t", "eventData": {"extraFields": 1}, "x": 2}));
        assert_eq!(kept, json!({"extraFields": 1, "extraFields_": {"x": 2}}));
        let spaced = track(r#"{"eventType":"t","eventData":{ },"x":2}"#).unwrap();
        assert_eq!(spaced.event_data.get(), r#"{ "extraFields":{"x":2}}"#);
        let odd = track(r#"{"eventType":"t","eventData":{"\ud800":1},"x":2}"#).unwrap();
        assert_eq!(
            odd.event_data.get(),
            r#"{"\ud800":1,"extraFields":{"x":2}}"#
        );
    }

    #[test]
    fn the_project_is_never_the_bodys() {
        let event = track(r#"{"eventType":"t","projectId":"other"}"#).unwrap();
        assert_eq!(event.project_id.as_str(), "acme");
    }

    #[test]
    fn every_escaped_control_character_is_stored() {
        for code in 0..=0x1f_u32 {
            let escaped = format!("\\u{code:04x}");
            let event = track(&format!(
                r#"{{"eventType":"t","eventKey":"{escaped}","eventData":{{"x":"{escaped}"}}}}"#
            ))
            .unwrap();
            assert_eq!(
                event.event_key.chars().map(u32::from).collect::<Vec<_>>(),
                [code]
            );
            assert_eq!(event.event_data.get(), format!(r#"{{"x":"{escaped}"}}"#));
        }
    }

    #[test]
    fn what_cannot_be_an_event_is_refused() {
        let deep = |levels: usize| {
            format!(
                r#"{{"eventType":"t","eventData":{}1{}}}"#,
                r#"{"a":"#.repeat(levels),
                "}".repeat(levels)
            )
        };
        assert!(track(&deep(100)).is_ok());
        for (body, field) in [
            ("", "body"),
            ("{", "body"),
            ("[]", "body"),
            ("null", "body"),
            ("{\"eventType\":\"a\u{0}\"}", "body"),
            (r#"{"eventData":{}}"#, "eventType"),
            (r#"{"eventType":null}"#, "eventType"),
            (r#"{"eventType":1}"#, "eventType"),
            (r#"{"eventType":""}"#, "eventType"),
            (r#"{"eventType":"a b"}"#, "eventType"),
            (deep(101).as_str(), "eventData"),
        ] {
            let refused = track(body).unwrap_err();
            assert!(
                matches!(&refused, ApiError::Invalid { field: f, .. } if f == field),
                "{body}: {refused}"
            );
        }
        assert!(parse(b"{\"eventType\":\"\xff\"}", "acme".parse().unwrap()).is_err());
    }
}
