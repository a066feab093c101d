//! What the documents of all formats are read by.

use audit_schema::EventType;
use chrono::{DateTime, Utc};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads one JSON document; the error names the field.
pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let reason = reason(error.inner());
        let is_json = error.inner().is_data();
        if !is_json || path == "." || reason.contains(&format!("`{path}`")) {
            reason
        } else {
            format!("{path}: {reason}")
        }
    })?;
    reader.end().map_err(|error| reason(&error))?;
    Ok(read)
}

/// Reads one JSON object: serde would take an array for one as well.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    if !json.trim_start().starts_with('{') {
        // What is not even JSON says so.
        read::<IgnoredAny>(json)?;
        return Err("not a JSON object".to_owned());
    }
    read(json)
}

/// What is wrong, without the place: that would be counted from the start of the document.
fn reason(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "the line ends within a JSON document; `jq -c .` writes each on one line"
            .to_owned();
    }
    let text = error.to_string();
    let (reason, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
    if error.is_syntax() {
        format!("not JSON: {reason}")
    } else {
        reason.to_owned()
    }
}

/// A name of an event type that has to be there.
pub(super) fn event_type(name: Option<String>) -> Result<EventType<'static>, String> {
    let name = name.ok_or("eventType is missing")?;
    EventType::new(name).map_err(|error| format!("eventType: {error}"))
}

/// A time as RFC 3339, or in milliseconds since 1970.
pub(super) fn time<'de, D: Deserializer<'de>>(input: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let time = match Value::deserialize(input)? {
        Value::Null => return Ok(None),
        Value::Number(millis) => millis.as_i64().and_then(DateTime::from_timestamp_millis),
        Value::String(text) => DateTime::parse_from_rfc3339(&text).ok().map(Into::into),
        _ => None,
    };
    time.map(Some).ok_or_else(|| {
        D::Error::custom(
            "expected a time such as \"2026-01-31T12:00:00.123Z\", or milliseconds since 1970",
        )
    })
}
