//! How an event travels through Kafka.
//!
//! One event is one record. Its value is the event as JSON, its key is project and event key, so
//! that all of one user or organization keep their order in one partition, and its headers say
//! which version of this contract it was written to, whether it may have been sent before, and which
//! trace it belongs to.

use crate::{Event, ProjectId};

/// The topic, unless configured otherwise.
pub const TOPIC: &str = "audit.events.v1";

/// Header with the version of the value's shape, in ASCII digits. A record without it is of
/// version 1.
pub const VERSION_HEADER: &str = "audit-version";

/// The version this crate writes, and the only one it reads.
pub const VERSION: &str = "1";

/// Header of a record whose event may already be in the topic: a client's retry, or a replay
/// after a lost answer. Its presence counts, not its value.
pub const MAYBE_DELIVERED_HEADER: &str = "audit-maybe-delivered";

/// Header with the trace that the report of the event belongs to: a
/// [`TraceParent`](crate::TraceParent) that is recorded. Optional; one that is not valid is ignored.
pub const TRACE_PARENT_HEADER: &str = "traceparent";

/// Largest encoded event, in bytes.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The encoded event is larger than [`MAX_EVENT_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encoded event has {bytes} bytes; the limit is {MAX_EVENT_BYTES}")]
pub struct TooLarge {
    /// Its size.
    pub bytes: usize,
}

/// Why a record is not an event. Each becomes a dead letter of the kind [`kind`](Self::kind).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The value is not an event.
    #[error("not an event: {0}")]
    Malformed(String),
    /// The record was written to a contract this crate does not know.
    #[error("version {0:?} of the wire format is not known")]
    UnsupportedVersion(String),
    /// The value is larger than an event may be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl DecodeError {
    /// The kind of dead letter such a record becomes.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnsupportedVersion(_) => "unsupported_version",
            Self::TooLarge(_) => "too_large",
        }
    }
}

/// The version that a dead letter of kind `unsupported_version` was refused for, read back from
/// the reason that [`DecodeError`] gave it; `None` for another reason.
pub fn refused_version(reason: &str) -> Option<&str> {
    let (version, rest) = reason.strip_prefix("version \"")?.split_once('"')?;
    (rest == " of the wire format is not known").then_some(version)
}

/// The record key: what keeps its order together.
///
/// An empty or `unknown` event key is replaced by the event's id; otherwise all failed sign-ins
/// would meet in one partition.
pub fn key(event: &Event<'_>) -> String {
    let project: &ProjectId = &event.project_id;
    match event.event_key.as_ref() {
        "" | "unknown" => format!("{project}/{}", event.id),
        key => format!("{project}/{key}"),
    }
}

/// The record value.
pub fn encode(event: &Event<'_>) -> Result<Vec<u8>, TooLarge> {
    // Texts, numbers and checked JSON cannot fail to serialize into memory; should that ever
    // change, an empty value is a dead letter, not a loss that nobody sees.
    let value = serde_json::to_vec(event).unwrap_or_default();
    if value.len() > MAX_EVENT_BYTES {
        return Err(TooLarge { bytes: value.len() });
    }
    Ok(value)
}

/// Reads a record: its value, and the value of its version header if it has one.
pub fn decode<'a>(value: &'a [u8], version: Option<&[u8]>) -> Result<Event<'a>, DecodeError> {
    if let Some(version) = version
        && version != VERSION.as_bytes()
    {
        let version = String::from_utf8_lossy(version);
        return Err(DecodeError::UnsupportedVersion(
            version.chars().take(32).collect(),
        ));
    }
    if value.len() > MAX_EVENT_BYTES {
        return Err(TooLarge { bytes: value.len() }.into());
    }
    // Texts are then checked for UTF-8 all together and not one by one; for bytes that are not, the
    // error says where.
    let event = match str::from_utf8(value) {
        Ok(value) => serde_json::from_str(value),
        Err(_) => serde_json::from_slice(value),
    };
    event.map_err(|error| DecodeError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Actor, EventData, EventType, Location, Outcome};
    use proptest::prelude::*;

    fn event(key: &str) -> Event<'static> {
        Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN)
            .event_key(key.to_owned())
            .build()
            .unwrap()
    }

    #[test]
    fn events_without_a_key_of_their_own_are_spread() {
        assert_eq!(key(&event("u1")), "acme/u1");
        for keyless in ["", "unknown"] {
            let event = event(keyless);
            assert_eq!(key(&event), format!("acme/{}", event.id));
        }
    }

    #[test]
    fn a_record_of_another_version_is_not_read() {
        let value = encode(&event("u1")).unwrap();
        assert!(decode(&value, None).is_ok());
        assert!(decode(&value, Some(b"1")).is_ok());
        assert_eq!(
            decode(&value, Some(b"2")).unwrap_err(),
            DecodeError::UnsupportedVersion("2".into())
        );
    }

    #[test]
    fn a_refused_version_is_read_back_from_its_reason() {
        let refused = decode(b"{}", Some(b"2")).unwrap_err().to_string();
        assert_eq!(refused_version(&refused), Some("2"));
        let malformed = decode(b"{}", None).unwrap_err().to_string();
        assert_eq!(refused_version(&malformed), None);
    }

    #[test]
    fn an_event_over_the_limit_is_neither_written_nor_read() {
        let data = EventData::of(&serde_json::json!({ "x": "y".repeat(MAX_EVENT_BYTES) })).unwrap();
        let large = Event {
            event_data: data,
            ..event("u1")
        };
        assert!(encode(&large).is_err());
        let value = serde_json::to_vec(&large).unwrap();
        assert_eq!(decode(&value, None).unwrap_err().kind(), "too_large");
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_event_are_malformed_and_never_a_panic(bytes: Vec<u8>) {
            prop_assert!(decode(&bytes, None).is_err());
        }

        #[test]
        fn what_is_written_is_read_back(
            key in ".*", name in ".*", user in ".*", agent in ".*", ip: Option<std::net::IpAddr>,
            millis in 0_i64..10_413_791_999_999,
        ) {
            let written = Event::builder("acme".parse().unwrap(), EventType::USER_BANNED)
                .event_key(key)
                .event_display_name(name.clone())
                .user_id(user.clone())
                .user_agent(agent.clone())
                .actor(Actor { id: user.clone().into(), kind: "admin".into() })
                .outcome(Outcome::Failure)
                .location(Location { ip_address: ip, city: name.into(), ..Location::default() })
                .created_at(chrono::DateTime::from_timestamp_millis(millis).unwrap())
                .event_data(EventData::of(&serde_json::json!({ "agent": agent })).unwrap())
                .build()
                .unwrap();
            let value = encode(&written).unwrap();
            let read = decode(&value, Some(VERSION.as_bytes())).unwrap();
            prop_assert_eq!(format!("{:?}", written), format!("{:?}", read));
        }
    }
}
