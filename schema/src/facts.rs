//! The facts that are read out of event data, for columns of their own.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{EventData, Outcome, SecurityVerdict};

/// What the plugin says in event data and we keep in columns of their own.
///
/// Of several spellings the first that is present counts; the literal `unknown` is no value, and
/// a value that is neither text nor number is none either. Source: the requests of
/// `@better-auth/infra` 0.4.5 (`tests/fixtures/capture.ndjson`).
#[derive(Debug, Default)]
pub(crate) struct Facts<'a> {
    values: [Option<Cow<'a, str>>; KEYS.len()],
    proof_of_work: bool,
}

/// The names of the facts, at their places in [`Facts::values`].
const KEYS: [&str; 17] = [
    "userId",
    // The plugin's spelling in both team member events.
    "userid",
    "acceptedById",
    "inviteeId",
    "identifier",
    "userEmail",
    "memberEmail",
    "inviteeEmail",
    "userName",
    "triggeredBy",
    "triggerContext",
    "organizationId",
    "sessionId",
    "userAgent",
    "outcome",
    "type",
    "action",
];

impl<'a> Facts<'a> {
    /// Reads the facts out of event data.
    pub(crate) fn of(data: &'a EventData<'_>) -> Self {
        // The text was checked to be an object when it became event data.
        serde_json::from_str(data.get()).unwrap_or_default()
    }

    fn first(&self, keys: &[&str]) -> &str {
        keys.iter()
            .filter_map(|key| {
                let place = KEYS.iter().position(|known| known == key)?;
                self.values.get(place)?.as_deref()
            })
            .find(|value| !value.is_empty() && *value != "unknown")
            .unwrap_or_default()
    }

    pub(crate) fn user_id(&self) -> &str {
        self.first(&["userId", "userid", "acceptedById", "inviteeId"])
    }

    pub(crate) fn identifier(&self) -> &str {
        self.first(&[
            "identifier",
            "userEmail",
            "memberEmail",
            "inviteeEmail",
            "userName",
        ])
    }

    pub(crate) fn actor_id(&self) -> &str {
        self.first(&["triggeredBy"])
    }

    pub(crate) fn actor_type(&self) -> &str {
        self.first(&["triggerContext"])
    }

    pub(crate) fn organization_id(&self) -> &str {
        self.first(&["organizationId"])
    }

    pub(crate) fn session_id(&self) -> &str {
        self.first(&["sessionId"])
    }

    pub(crate) fn user_agent(&self) -> &str {
        self.first(&["userAgent"])
    }

    /// What a security event is named by.
    pub(crate) fn verdict(&self) -> SecurityVerdict<'_> {
        let word = |key| Some(self.first(&[key])).filter(|word| !word.is_empty());
        SecurityVerdict {
            outcome: word("outcome"),
            signal: word("type"),
            proof_of_work: self.proof_of_work,
        }
    }

    /// How the event ended: by its type, and for the plugin's security events by their data.
    pub(crate) fn outcome(&self, event_type: &str) -> Outcome {
        match (
            event_type,
            self.first(&["outcome"]),
            self.first(&["action"]),
        ) {
            ("user_sign_in_failed", ..) => Outcome::Failure,
            ("security_blocked" | "security_geo_blocked" | "security_bot_blocked", ..)
            | ("security_check", "blocked", _)
            | ("security_signal", _, "blocked") => Outcome::Blocked,
            ("security_check", "challenged", _) | ("security_signal", _, "challenged") => {
                Outcome::Challenged
            }
            _ => Outcome::Success,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Facts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FactsVisitor)
    }
}

struct FactsVisitor;

impl<'de> Visitor<'de> for FactsVisitor {
    type Value = Facts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Facts<'de>, M::Error> {
        let mut facts = Facts::default();
        while let Some(raw) = map.next_key::<&RawValue>()? {
            // A key that is no text, such as half of a surrogate pair, is none of ours.
            let key = text(raw).unwrap_or_default();
            let place = KEYS.iter().position(|known| *known == key);
            if let Some(value) = place.and_then(|place| facts.values.get_mut(place)) {
                *value = text(map.next_value()?);
            } else if key == "evaluatedChecks" {
                let checks: &RawValue = map.next_value()?;
                facts.proof_of_work = serde_json::from_str::<Vec<&RawValue>>(checks.get())
                    .is_ok_and(|checks| checks.iter().any(|c| c.get() == "\"pow_challenge\""));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(facts)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A text or number as text.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().bytes().next()? {
        b'"' => serde_json::from_str::<Text<'_>>(value.get())
            .ok()
            .map(|text| text.0),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value.get())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_spelling_that_says_something_counts() {
        let user = |json| {
            Facts::of(&EventData::parse(json).unwrap())
                .user_id()
                .to_owned()
        };
        assert_eq!(user(r#"{"userId":"a","inviteeId":"b"}"#), "a");
        assert_eq!(user(r#"{"inviteeId":"b","userId":"unknown"}"#), "b");
        assert_eq!(user(r#"{"userId":null,"userid":"c"}"#), "c");
        assert_eq!(user(r#"{"userId":{"x":1}}"#), "");
        assert_eq!(user(r#"{"userId":42}"#), "42");
        assert_eq!(user(r#"{"\ud800":1,"x":"\ud800","userId":"a"}"#), "a");
        assert_eq!(user(r#"{"\u0075serId":"a"}"#), "a");
        assert_eq!(user(r#"{"userId":"a","userId":"\u0062"}"#), "b");
    }

    #[test]
    fn a_security_event_ends_as_its_data_says() {
        let outcome = |kind, json| Facts::of(&EventData::parse(json).unwrap()).outcome(kind);
        assert_eq!(
            outcome("security_check", r#"{"outcome":"blocked"}"#),
            Outcome::Blocked
        );
        assert_eq!(
            outcome("security_check", r#"{"outcome":"passed"}"#),
            Outcome::Success
        );
        assert_eq!(
            outcome("security_signal", r#"{"action":"challenged"}"#),
            Outcome::Challenged
        );
        assert_eq!(outcome("user_sign_in_failed", "{}"), Outcome::Failure);
        assert_eq!(
            outcome("user_signed_in", r#"{"outcome":"blocked"}"#),
            Outcome::Success
        );
    }

    #[test]
    fn a_solved_challenge_is_seen() {
        let data = EventData::parse(r#"{"evaluatedChecks":["ip","pow_challenge"]}"#).unwrap();
        assert!(Facts::of(&data).verdict().proof_of_work);
        let data = EventData::parse(r#"{"evaluatedChecks":"pow_challenge"}"#).unwrap();
        assert!(!Facts::of(&data).verdict().proof_of_work);
    }
}
