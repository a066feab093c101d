//! Events like those of a Better Auth server.

use audit_schema::{Event, EventData, EventType, Location};
use serde_json::json;

/// How many different events there are; each is published again and again, under new ids.
const POOL: u64 = 5_000;

/// Sent type names and how many of a hundred events have them.
const MIX: [(&str, u64); 6] = [
    ("session_created", 35),
    ("user_signed_in", 35),
    ("user_signed_out", 15),
    ("user_sign_in_failed", 10),
    ("organization_member_added", 3),
    ("profile_updated", 2),
];

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/130.0.0.0 Safari/537.36";

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
