//! What has to go from an event before Kafka gets it.
//!
//! What was once in Kafka and its backups cannot be taken back. So redaction happens in the
//! caller's thread, before the event is encoded, and a rule file that is not understood is an
//! error at start. Whatever no rule is for stays byte for byte, and an event that no rule is for
//! is not copied.

mod key_name;
mod replace;
mod rules;
#[cfg(test)]
mod tests;
mod walk;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_schema::{Event, EventData};
use hmac::{Hmac, KeyInit as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::Sha256;

use replace::Redacted;
use rules::Rules;
use walk::Walk;

/// Fewest characters of a hash key.
const MIN_HASH_KEY: usize = 32;

/// Where the rules are. The default has no rule file: keys that name a secret are dropped.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactionConfig {
    /// The rule file, in TOML; it is read once, at start. Default: none.
    pub file: Option<PathBuf>,
    /// The key of hashes, at least 32 characters; rules that hash need one. Whoever reports to
    /// one log uses one key: equal values are equal hashes under the same key only.
    /// Default: none.
    pub hash_key: Option<HashKey>,
}

/// The key that values are hashed with. It never prints.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct HashKey(String);

impl From<String> for HashKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why it is not clear what has to go. Mend what it names; nothing may be published before.
#[derive(Debug, thiserror::Error)]
pub enum RedactionError {
    /// There is no such file, or it may not be read: mend its path or its rights.
    #[error("the rule file {} cannot be read: {error}", file.display())]
    Unreadable {
        /// The rule file.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The rules are not understood: mend the line or the rule it names, counted from 1.
    #[error("{} refused: {reason}", shown(file.as_deref()))]
    Refused {
        /// The rule file, if the rules are from one.
        file: Option<PathBuf>,
        /// What is to be mended.
        reason: String,
    },
    /// Hashes under a short key can be guessed: make another.
    #[error("the hash key has {0} characters; it needs at least {MIN_HASH_KEY}")]
    ShortHashKey(usize),
}

fn shown(file: Option<&Path>) -> String {
    file.map_or("the rules are".to_owned(), |file| {
        format!("the rule file {} is", file.display())
    })
}

/// Takes out of events what must not be stored. Clones share their rules.
///
/// ```
/// use audit_producer::{HashKey, Redaction};
/// use audit_schema::{Event, EventData, EventType};
///
/// let key = HashKey::from("0123456789abcdef0123456789abcdef".to_owned());
/// let redaction = Redaction::parse(r#"
///     [[rules]]
///     types = ["user_*"]
///     path = "data.userEmail"
///     action = "truncate"
/// "#, Some(&key))?;
/// let event = Event::builder("acme".parse()?, EventType::USER_SIGNED_IN)
///     .event_data(EventData::parse(r#"{"userEmail": "ann@example.com", "accessToken": "x"}"#)?)
///     .build()?;
/// assert_eq!(redaction.apply(&event).event_data.get(), r#"{"userEmail": "a…@example.com"}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Redaction {
    rules: Arc<Rules>,
    mac: Option<Hmac<Sha256>>,
}

impl Redaction {
    /// Reads the rule file, if there is one. It blocks.
    pub fn load(config: &RedactionConfig) -> Result<Self, RedactionError> {
        let Some(file) = &config.file else {
            return Self::parse("", config.hash_key.as_ref());
        };
        let text = std::fs::read_to_string(file).map_err(|error| RedactionError::Unreadable {
            file: file.clone(),
            error,
        })?;
        Self::parse(&text, config.hash_key.as_ref()).map_err(|error| match error {
            RedactionError::Refused { reason, .. } => RedactionError::Refused {
                file: Some(file.clone()),
                reason,
            },
            other => other,
        })
    }

    /// Reads the text of a rule file.
    pub fn parse(text: &str, hash_key: Option<&HashKey>) -> Result<Self, RedactionError> {
        let mac = match hash_key {
            None => None,
            Some(HashKey(key)) => match key.chars().count() {
                short if short < MIN_HASH_KEY => return Err(RedactionError::ShortHashKey(short)),
                _ => Hmac::new_from_slice(key.as_bytes()).ok(),
            },
        };
        match Rules::parse(text, mac.is_some()) {
            Ok(rules) => Ok(Self {
                rules: Arc::new(rules),
                mac,
            }),
            Err(reason) => Err(RedactionError::Refused { file: None, reason }),
        }
    }

    /// The event without what has to go; the event itself if that is nothing.
    ///
    /// One event always becomes the same: a retry differs in nothing from the first attempt.
    pub fn apply<'e>(&self, event: &'e Event<'e>) -> Cow<'e, Event<'e>> {
        let event_type = event.event_type.as_str();
        let mut redacted = Cow::Borrowed(event);
        for (field, action) in self.rules.fields_of(event_type) {
            let text = field.text(event);
            match action.on_text(&text, self.mac.as_ref()) {
                Redacted::Replaced(other) => field.set(redacted.to_mut(), other),
                Redacted::Dropped if !text.is_empty() => {
                    field.set(redacted.to_mut(), String::new());
                }
                Redacted::Dropped | Redacted::Kept => {}
            }
        }
        match Walk::new(event.event_data.get(), self, event_type).redact() {
            Some(Cow::Borrowed(_)) => {}
            // Event data is JSON, and stays JSON. Were it not so, nothing of it may go on.
            other => redacted.to_mut().event_data = other.and_then(checked).unwrap_or_default(),
        }
        redacted
    }
}

fn checked(json: Cow<'_, str>) -> Option<EventData<'static>> {
    let json = RawValue::from_string(json.into_owned()).ok()?;
    EventData::new(Cow::Owned(json)).ok()
}

impl Default for Redaction {
    /// The rules of an empty rule file.
    fn default() -> Self {
        Self {
            rules: Arc::default(),
            mac: None,
        }
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
