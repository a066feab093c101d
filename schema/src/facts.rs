//! The facts that are read out of event data, for columns of their own.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::members::{Token, members};
use crate::{EventData, Outcome, SecurityVerdict};

/// What the plugin says in event data and we keep in columns of their own.
///
/// Of several spellings the first that is present counts; the literal `unknown` is no value, and
/// a value that is neither text nor number is none either. Source: the requests of
/// `@better-auth/infra` 0.4.5 (`tests/fixtures/capture.ndjson`).
#[derive(Debug, Default)]
pub(crate) struct Facts<'a> {
    values: [Option<Cow<'a, str>>; Key::COUNT],
    proof_of_work: bool,
}

macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident = $name:literal,)*) => {
        /// The names of the facts.
        #[derive(Debug, Clone, Copy)]
        enum Key {
            $($(#[$doc])* $key,)*
        }

        impl Key {
            const COUNT: usize = [$($name),*].len();

            fn named(name: &str) -> Option<Self> {
                Some(match name {
                    $($name => Self::$key,)*
                    _ => return None,
                })
            }
        }
    };
}

keys! {
    UserId = "userId",
    /// The plugin's spelling in both team member events.
    Userid = "userid",
    AcceptedById = "acceptedById",
    InviteeId = "inviteeId",
    Identifier = "identifier",
    UserEmail = "userEmail",
    MemberEmail = "memberEmail",
    InviteeEmail = "inviteeEmail",
    UserName = "userName",
    TriggeredBy = "triggeredBy",
    TriggerContext = "triggerContext",
    OrganizationId = "organizationId",
    SessionId = "sessionId",
    UserAgent = "userAgent",
    Outcome = "outcome",
    Type = "type",
    Action = "action",
}

impl<'a> Facts<'a> {
    /// Reads the facts out of event data.
    pub(crate) fn of(data: &'a EventData<'_>) -> Self {
        let mut facts = Self::default();
        for (name, value) in members(data.get()) {
            // A name that is no text, such as half of a surrogate pair, is none of ours.
            let name = text(name).unwrap_or_default();
            if let Some(key) = Key::named(&name) {
                if let Some(fact) = facts.values.get_mut(key as usize) {
                    *fact = text(value);
                }
            } else if name == "evaluatedChecks" {
                facts.proof_of_work = serde_json::from_str::<Vec<&RawValue>>(value.written)
                    .is_ok_and(|checks| checks.iter().any(|c| c.get() == "\"pow_challenge\""));
            }
        }
        facts
    }

    fn first(&self, keys: &[Key]) -> &str {
        keys.iter()
            .filter_map(|key| self.values.get(*key as usize)?.as_deref())
            .find(|value| !value.is_empty() && *value != "unknown")
            .unwrap_or_default()
    }

    pub(crate) fn user_id(&self) -> &str {
        self.first(&[Key::UserId, Key::Userid, Key::AcceptedById, Key::InviteeId])
    }

    pub(crate) fn identifier(&self) -> &str {
        self.first(&[
            Key::Identifier,
            Key::UserEmail,
            Key::MemberEmail,
            Key::InviteeEmail,
            Key::UserName,
        ])
    }

    pub(crate) fn actor_id(&self) -> &str {
        self.first(&[Key::TriggeredBy])
    }

    pub(crate) fn actor_type(&self) -> &str {
        self.first(&[Key::TriggerContext])
    }

    pub(crate) fn organization_id(&self) -> &str {
        self.first(&[Key::OrganizationId])
    }

    pub(crate) fn session_id(&self) -> &str {
        self.first(&[Key::SessionId])
    }

    pub(crate) fn user_agent(&self) -> &str {
        self.first(&[Key::UserAgent])
    }

    /// What a security event is named by.
    pub(crate) fn verdict(&self) -> SecurityVerdict<'_> {
        let word = |key| Some(self.first(&[key])).filter(|word| !word.is_empty());
        SecurityVerdict {
            outcome: word(Key::Outcome),
            signal: word(Key::Type),
            proof_of_work: self.proof_of_work,
        }
    }

    /// How the event ended: by its type, and for the plugin's security events by their data.
    pub(crate) fn outcome(&self, event_type: &str) -> Outcome {
        match (
            event_type,
            self.first(&[Key::Outcome]),
            self.first(&[Key::Action]),
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

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A text or number as text.
#[inline]
fn text(value: Token<'_>) -> Option<Cow<'_, str>> {
    let written = value.written;
    match written.bytes().next()? {
        b'"' if value.escaped => serde_json::from_str::<Text<'_>>(written)
            .ok()
            .map(|text| text.0),
        b'"' => written
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .map(Cow::Borrowed),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(written)),
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
