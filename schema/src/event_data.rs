//! Event data: the JSON object that says everything else.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::InvalidEvent;

/// Deepest nesting of event data.
pub(crate) const MAX_DEPTH: usize = 100;

/// A JSON object, kept byte for byte as it was sent.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct EventData<'a>(Cow<'a, RawValue>);

impl<'a> EventData<'a> {
    /// Checks that `raw` is an object of bounded depth.
    pub fn new(raw: Cow<'a, RawValue>) -> Result<Self, InvalidEvent> {
        if !raw.get().starts_with('{') {
            return Err(InvalidEvent::DataNotAnObject);
        }
        if too_deep(raw.get()) {
            return Err(InvalidEvent::DataTooDeep);
        }
        Ok(Self(raw))
    }

    /// The JSON text.
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl EventData<'static> {
    /// Turns anything that serializes to a JSON object into event data.
    pub fn of(value: &impl Serialize) -> Result<Self, InvalidEvent> {
        let raw = serde_json::value::to_raw_value(value)
            .map_err(|error| InvalidEvent::DataNotJson(error.to_string()))?;
        Self::new(Cow::Owned(raw))
    }

    /// Takes a JSON text as it is.
    pub fn parse(json: &str) -> Result<Self, InvalidEvent> {
        let raw: Box<RawValue> = serde_json::from_str(json)
            .map_err(|error| InvalidEvent::DataNotJson(error.to_string()))?;
        Self::new(Cow::Owned(raw))
    }
}

impl Default for EventData<'_> {
    fn default() -> Self {
        static EMPTY: std::sync::LazyLock<Box<RawValue>> = std::sync::LazyLock::new(|| {
            #[expect(clippy::expect_used, reason = "a constant text; a test builds it")]
            RawValue::from_string("{}".to_owned()).expect("{} is JSON")
        });
        Self(Cow::Borrowed(&EMPTY))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for EventData<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Self::new(Cow::Borrowed(raw)).map_err(serde::de::Error::custom)
    }
}

/// Whether a valid JSON text is nested too deeply.
fn too_deep(json: &str) -> bool {
    // Nothing is nested deeper than it has brackets, and those are counted many at a time.
    let brackets = json
        .bytes()
        .filter(|byte| matches!(byte, b'{' | b'['))
        .count();
    brackets > MAX_DEPTH && depth(json) > MAX_DEPTH
}

/// The deepest nesting of a valid JSON text.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_data_is_an_object_of_bounded_depth() {
        assert_eq!(EventData::default().get(), "{}");
        assert_eq!(
            EventData::parse("[1]").unwrap_err(),
            InvalidEvent::DataNotAnObject
        );
        assert!(matches!(
            EventData::parse("{"),
            Err(InvalidEvent::DataNotJson(_))
        ));
        let nested = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        assert!(EventData::parse(&nested(100)).is_ok());
        assert_eq!(
            EventData::parse(&nested(101)).unwrap_err(),
            InvalidEvent::DataTooDeep
        );
        assert!(EventData::parse(&format!(r#"{{"a":"\"{}"}}"#, "[".repeat(200))).is_ok());
    }
}
