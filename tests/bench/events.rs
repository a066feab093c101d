//! Events like those of a Better Auth server.

use audit_schema::{Event, EventData, EventId, EventType, Location};
use serde_json::json;

/// How many different events there are; each is published again and again, under new ids.
const POOL: u64 = 5_000;

/// Sent type names and how many of a hundred events have them.
pub(crate) const MIX: [(&str, u64); 6] = [
    ("session_created", 35),
    ("user_signed_in", 35),
    ("user_signed_out", 15),
    ("user_sign_in_failed", 10),
    ("organization_member_added", 3),
    ("profile_updated", 2),
];

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/130.0.0.0 Safari/537.36";

/// Which events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As the plugin sends them: eight facts in the event data, some 640 bytes.
    Full,
    /// As a small server of one's own sends them: what happened to whom, some 330 bytes.
    Simple,
}

impl Shape {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Simple => "simple",
        }
    }

    /// Different events of this shape.
    pub(crate) fn pool(self) -> Vec<Event<'static>> {
        match self {
            Self::Full => pool(),
            Self::Simple => (0..POOL).map(simple).collect(),
        }
    }
}

/// The pool's events under new ids, for ever, as if they happened now.
pub(crate) fn renewed<'p>(pool: &'p mut [Event<'static>], number: u64) -> &'p Event<'static> {
    let place = usize::try_from(number % POOL).expect("a place in the pool");
    pool[place].id = EventId::new();
    pool[place].created_at = chrono::Utc::now();
    &pool[place]
}

/// A number's event that says no more than what happened to whom.
fn simple(number: u64) -> Event<'static> {
    let user = format!("user-{:05}", number.wrapping_mul(7_919) % 1_000);
    Event::builder("bench".parse().expect("a project"), event_type(number))
        .event_key(user.clone())
        .user_id(user.clone())
        .session_id(format!("session-{number:012}"))
        .event_data(EventData::of(&json!({ "loginMethod": "passkey" })).expect("event data"))
        .build()
        .expect("an event")
}

/// A number's event.
pub(crate) fn event(number: u64) -> Event<'static> {
    let user = format!("user-{:05}", number.wrapping_mul(7_919) % 1_000);
    Event::builder("bench".parse().expect("a project"), event_type(number))
        .event_key(user.clone())
        .event_display_name("Signed in via passkey")
        .location(Location {
            ip_address: "192.0.2.7".parse().ok(),
            city: "Berlin".into(),
            country: "Germany".into(),
            country_code: "DE".into(),
        })
        .event_data(data(number, &user))
        .build()
        .expect("an event")
}

/// The body that the plugin sends for it.
pub(crate) fn body(number: u64) -> String {
    let event = event(number);
    json!({
        "eventType": event.event_type.as_str(),
        "eventKey": event.event_key,
        "eventDisplayName": event.event_display_name,
        "ipAddress": "192.0.2.7",
        "city": "Berlin",
        "country": "Germany",
        "countryCode": "DE",
        "eventData": serde_json::from_str::<serde_json::Value>(event.event_data.get()).expect("JSON"),
    })
    .to_string()
}

/// All different events.
pub(crate) fn pool() -> Vec<Event<'static>> {
    (0..POOL).map(event).collect()
}

fn event_type(number: u64) -> EventType<'static> {
    let mut place = number.wrapping_mul(31) % 100;
    for (name, share) in MIX {
        if place < share {
            return EventType::new(name).expect("a name");
        }
        place -= share;
    }
    EventType::USER_SIGNED_IN
}

fn data(number: u64, user: &str) -> EventData<'static> {
    EventData::of(&json!({
        "userId": user,
        "userEmail": format!("{user}@example.com"),
        "userName": "Ann Example",
        "sessionId": format!("session-{number:012}"),
        "loginMethod": "passkey",
        "userAgent": AGENT,
        "triggeredBy": user,
        "triggerContext": "user",
    }))
    .expect("event data")
}
