//! An event: what an auth server reports.
//!
//! One type serves both ends of the wire: a builder owns its texts, a decoder borrows them from
//! the record. An empty text means "not given". Facts that are not given are read from the event
//! data when the row is made (`row::EventRow`), so that a plugin's event is stored as it was sent.

use std::borrow::Cow;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event_data::{EventData, MAX_DEPTH};
use crate::{EventId, EventType, ProjectId, TraceParent};

/// Last year an event's time may lie in: the table's `DateTime64(3)` ends with 2299.
const LAST_YEAR: i32 = 2299;

/// Its last millisecond.
const LAST_MILLIS: i64 = 10_413_791_999_999;

/// Why an event cannot exist. The message says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvent {
    /// The event data is not a JSON object.
    #[error("eventData must be a JSON object")]
    DataNotAnObject,
    /// The event data is not JSON at all.
    #[error("eventData must be valid JSON: {0}")]
    DataNotJson(String),
    /// The event data is nested too deeply.
    #[error("eventData may be nested at most {MAX_DEPTH} levels deep")]
    DataTooDeep,
    /// The time is outside of what can be stored.
    #[error("createdAt must lie in the years 1970 to {LAST_YEAR}")]
    TimeOutOfRange,
    /// The id carries no time and none was given.
    #[error("createdAt is needed beside an id that is not a UUIDv7")]
    TimeMissing,
}

/// What an auth server reports, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event<'a> {
    /// Its identity; the same for every attempt to report it.
    pub id: EventId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// When it happened at the source, to the millisecond.
    #[serde(with = "millis")]
    pub created_at: DateTime<Utc>,
    /// What happened, under the name it was sent with.
    #[serde(borrow)]
    pub event_type: EventType<'a>,
    /// What it happened to: events with one key keep their order. A user, an organization,
    /// a visitor or an address.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub event_key: Cow<'a, str>,
    /// A sentence for people.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub event_display_name: Cow<'a, str>,
    /// The user it is about.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub user_id: Cow<'a, str>,
    /// The organization it is about.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub organization_id: Cow<'a, str>,
    /// E-mail address or name of the user it is about.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub identifier: Cow<'a, str>,
    /// Who did it.
    #[serde(borrow, default, skip_serializing_if = "Actor::is_empty")]
    pub actor: Actor<'a>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The session it happened in.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub session_id: Cow<'a, str>,
    /// The request it happened in.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub request_id: Cow<'a, str>,
    /// The client's user agent.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub user_agent: Cow<'a, str>,
    /// Where the request came from.
    #[serde(borrow, default, skip_serializing_if = "Location::is_empty")]
    pub location: Location<'a>,
    /// Everything else, as it was sent.
    #[serde(borrow, default)]
    pub event_data: EventData<'a>,
    /// The trace that its report belongs to. It travels beside the event and is not stored.
    #[serde(skip)]
    pub trace_parent: Option<TraceParent>,
}

impl Event<'static> {
    /// Starts an event of `project_id` that happens now.
    pub fn builder(project_id: ProjectId, event_type: EventType<'static>) -> EventBuilder {
        let id = EventId::new();
        EventBuilder {
            time: None,
            event: Event {
                id,
                project_id,
                created_at: DateTime::UNIX_EPOCH,
                event_type,
                event_key: Cow::Borrowed(""),
                event_display_name: Cow::Borrowed(""),
                user_id: Cow::Borrowed(""),
                organization_id: Cow::Borrowed(""),
                identifier: Cow::Borrowed(""),
                actor: Actor::default(),
                outcome: None,
                session_id: Cow::Borrowed(""),
                request_id: Cow::Borrowed(""),
                user_agent: Cow::Borrowed(""),
                location: Location::default(),
                event_data: EventData::default(),
                trace_parent: None,
            },
        }
    }
}

/// Who did it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor<'a> {
    /// The id of the user, key or system that acted.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub id: Cow<'a, str>,
    /// In which role it acted: `user`, `admin`, `dashboard`, `organization` …
    #[serde(
        borrow,
        default,
        rename = "type",
        skip_serializing_if = "str::is_empty"
    )]
    pub kind: Cow<'a, str>,
}

impl Actor<'_> {
    fn is_empty(&self) -> bool {
        self.id.is_empty() && self.kind.is_empty()
    }
}

/// How the reported action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was tried and did not work.
    Failure,
    /// It was refused by a security check.
    Blocked,
    /// It was held up until a challenge is solved.
    Challenged,
}

impl Outcome {
    /// All there are.
    pub const ALL: [Self; 4] = [
        Self::Success,
        Self::Failure,
        Self::Blocked,
        Self::Challenged,
    ];

    /// The word it is stored and filtered as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Blocked => "blocked",
            Self::Challenged => "challenged",
        }
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location<'a> {
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<IpAddr>,
    /// The city's name.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub city: Cow<'a, str>,
    /// The country's name.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub country: Cow<'a, str>,
    /// The country's ISO 3166-1 alpha-2 code.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub country_code: Cow<'a, str>,
}

impl Location<'_> {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads a text without copying it where the input allows.
pub(crate) fn cow_str<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Cow<'a, str>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Text::deserialize(deserializer).map(|text| text.0)
}

/// Times on the wire: milliseconds since 1970.
mod millis {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc, storable};

    pub(super) fn serialize<S: Serializer>(
        time: &DateTime<Utc>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.timestamp_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DateTime<Utc>, D::Error> {
        let millis = i64::deserialize(deserializer)?;
        storable(millis)
            .ok_or_else(|| serde::de::Error::custom(super::InvalidEvent::TimeOutOfRange))
    }
}

/// The time so many milliseconds after 1970, if the table can hold it.
fn storable(millis: i64) -> Option<DateTime<Utc>> {
    (0..=LAST_MILLIS)
        .contains(&millis)
        .then(|| DateTime::from_timestamp_millis(millis))?
}

/// Builds an [`Event`].
///
/// ```
/// use audit_schema::{Event, EventType};
///
/// let event = Event::builder("acme".parse()?, EventType::USER_SIGNED_IN)
///     .event_key("user-1")
///     .user_id("user-1")
///     .session_id("session-9")
///     .build()?;
/// assert_eq!(event.event_type.as_str(), "user_signed_in");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EventBuilder {
    event: Event<'static>,
    time: Option<Result<DateTime<Utc>, InvalidEvent>>,
}

macro_rules! text_setters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(mut self, $name: impl Into<Cow<'static, str>>) -> Self {
            self.event.$name = $name.into();
            self
        })*
    };
}

impl EventBuilder {
    text_setters! {
        /// What it happened to; events with one key keep their order.
        event_key,
        /// A sentence for people.
        event_display_name,
        /// The user it is about.
        user_id,
        /// The organization it is about.
        organization_id,
        /// E-mail address or name of the user it is about.
        identifier,
        /// The session it happened in.
        session_id,
        /// The request it happened in.
        request_id,
        /// The client's user agent.
        user_agent,
    }

    /// Gives the event an id made elsewhere, so that a repeated report is recognised.
    ///
    /// The event's time becomes the time in the id, unless [`created_at`](Self::created_at) says
    /// otherwise; an id that is not a UUIDv7 needs that.
    #[must_use]
    pub fn id(mut self, id: EventId) -> Self {
        self.event.id = id;
        self
    }

    /// Says when it happened, in whole milliseconds; without it, when the id was made.
    #[must_use]
    pub fn created_at(mut self, time: DateTime<Utc>) -> Self {
        self.time = Some(storable(time.timestamp_millis()).ok_or(InvalidEvent::TimeOutOfRange));
        self
    }

    /// Says who did it.
    #[must_use]
    pub fn actor(mut self, actor: Actor<'static>) -> Self {
        self.event.actor = actor;
        self
    }

    /// Says how it ended.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.event.outcome = Some(outcome);
        self
    }

    /// Says where the request came from.
    #[must_use]
    pub fn location(mut self, location: Location<'static>) -> Self {
        self.event.location = location;
        self
    }

    /// Adds everything else.
    #[must_use]
    pub fn event_data(mut self, data: EventData<'static>) -> Self {
        self.event.event_data = data;
        self
    }

    /// Says which trace the report belongs to: the `traceparent` of the span that it is made in.
    #[must_use]
    pub fn trace_parent(mut self, parent: impl Into<Option<TraceParent>>) -> Self {
        self.event.trace_parent = parent.into();
        self
    }

    /// Checks the time and gives the event.
    pub fn build(self) -> Result<Event<'static>, InvalidEvent> {
        let mut event = self.event;
        event.created_at = match self.time {
            Some(time) => time?,
            None => event
                .id
                .time()
                .ok_or(InvalidEvent::TimeMissing)
                .and_then(|time| {
                    storable(time.timestamp_millis()).ok_or(InvalidEvent::TimeOutOfRange)
                })?,
        };
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> EventBuilder {
        Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN)
    }

    #[test]
    fn an_event_happened_when_its_id_was_made() {
        let event = builder().build().unwrap();
        assert_eq!(Some(event.created_at), event.id.time());
    }

    #[test]
    fn an_id_without_a_time_needs_one() {
        let random: EventId = "f47ac10b-58cc-4372-a567-0e02b2c3d479".parse().unwrap();
        assert_eq!(
            builder().id(random).build().unwrap_err(),
            InvalidEvent::TimeMissing
        );
        let time = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        assert_eq!(
            builder()
                .id(random)
                .created_at(time)
                .build()
                .unwrap()
                .created_at,
            time
        );
    }

    #[test]
    fn a_time_the_table_cannot_hold_is_refused() {
        for year in ["1969", "2300", "9999"] {
            let time = format!("{year}-06-01T00:00:00Z").parse().unwrap();
            assert_eq!(
                builder().created_at(time).build().unwrap_err(),
                InvalidEvent::TimeOutOfRange
            );
        }
        let last = DateTime::from_timestamp_millis(LAST_MILLIS).unwrap();
        assert_eq!(
            last.to_rfc3339(),
            format!("{LAST_YEAR}-12-31T23:59:59.999+00:00")
        );
        for time in [DateTime::UNIX_EPOCH, last] {
            assert!(builder().created_at(time).build().is_ok());
        }
    }
}
