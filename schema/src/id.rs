//! Who an event is, and whose it is.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is not a UUID.
    #[error("an event id is a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
    Event,
    /// The text cannot name a project.
    #[error(
        "a project id has 1 to 63 characters of a-z, 0-9, '-' and '_', and starts with a letter or digit"
    )]
    Project,
}

/// The identity of one event, for its whole life.
///
/// New ids are UUIDv7 (RFC 9562), so they sort by time; an id given by a client may be any UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// Makes a new UUIDv7 of the current time.
    #[expect(clippy::new_without_default, reason = "every call gives another id")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The millisecond a UUIDv7 was made in; `None` for every other UUID.
    pub fn time(self) -> Option<DateTime<Utc>> {
        if self.0.get_version_num() != 7 {
            return None;
        }
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    }

    /// The UUID itself.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for EventId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| InvalidId::Event)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The isolation boundary. It comes from the API key, never from a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId(String);

impl ProjectId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProjectId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let starts_well = text.bytes().next().is_some_and(word);
        let reads_well = text.bytes().all(|b| word(b) || b == b'-' || b == b'_');
        if starts_well && reads_well && text.len() <= 63 {
            Ok(Self(text))
        } else {
            Err(InvalidId::Project)
        }
    }
}

impl FromStr for ProjectId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::try_from(text.to_owned())
    }
}

impl From<ProjectId> for String {
    fn from(id: ProjectId) -> Self {
        id.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_carries_its_time() {
        let before = Utc::now().timestamp_millis();
        let time = EventId::new().time().unwrap().timestamp_millis();
        assert!((before..=Utc::now().timestamp_millis()).contains(&time));
    }

    #[test]
    fn a_random_uuid_carries_no_time() {
        let id: EventId = "f47ac10b-58cc-4372-a567-0e02b2c3d479".parse().unwrap();
        assert_eq!(id.time(), None);
    }

    #[test]
    fn a_project_is_a_short_lower_case_word() {
        for good in ["a", "acme", "acme-2_eu", "0"] {
            assert!(good.parse::<ProjectId>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "_a", "Acme", "a b", "a/b", "ä", long.as_str()] {
            assert!(bad.parse::<ProjectId>().is_err(), "{bad}");
        }
    }
}
