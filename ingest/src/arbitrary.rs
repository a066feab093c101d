//! Bodies that may be anything: each is an event or a refusal, never a panic.

use audit_schema::wire;
use chrono::DateTime;
use proptest::prelude::*;

use crate::{events, track};

const TRACKED: &str = r#"{"eventType":"user_signed_in","eventKey":"u","eventDisplayName":"é","ipAddress":"::1","city":null,"eventData":{"userId":"u","n":[1,2e3,{"a":"\ud83d\ude00"}]},"x":true}"#;

const SENT: &str = r#"[{"id":"0193a4a0-0000-7000-8000-000000000001","createdAt":"2026-01-01T01:00:00.5+01:00","eventType":"a","actor":{"id":"a","type":"b"},"outcome":"failure","ipAddress":"192.0.2.1","eventData":{}},{"eventType":"b","createdAt":1767225600000}]"#;

/// Everything that is taken can be encoded, and is read back.
fn take(body: &[u8]) {
    if let Ok(event) = track::parse(body, "acme".parse().unwrap())
        && let Ok(value) = wire::encode(&event)
    {
        wire::decode(&value, None).unwrap();
    }
    for item in events::split(body).unwrap_or_default() {
        let parsed = events::parse(item, "acme".parse().unwrap(), DateTime::UNIX_EPOCH);
        if let Ok(parsed) = parsed
            && let Ok(value) = wire::encode(&parsed.event)
        {
            wire::decode(&value, None).unwrap();
        }
    }
}

/// A body with some of its bytes changed, taken out or put in.
fn harmed() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0..3_usize, any::<u8>());
    let changes = prop::collection::vec(change, 1..6);
    (prop_oneof![Just(TRACKED), Just(SENT)], changes).prop_map(|(body, changes)| {
        let mut body = body.as_bytes().to_vec();
        for (place, taken, put) in changes {
            let start = place.index(body.len() + 1);
            let end = (start + taken).min(body.len());
            body.splice(start..end, [put]);
        }
        body
    })
}

proptest! {
    #[test]
    fn arbitrary_bodies_are_never_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        take(&body);
    }

    #[test]
    fn arbitrary_harm_to_a_body_is_never_a_panic(body in harmed()) {
        take(&body);
    }
}
