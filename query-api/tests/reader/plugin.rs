//! The three reads of Better Auth's plugin.

use std::collections::BTreeSet;

use audit_schema::{Actor, Event, EventData, EventType, Location};
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::http::header::CONTENT_LENGTH;
use serde_json::{Value, json};

use crate::stand::{ACME, Stand, T, encoded, event, key};

/// An event that its display name, which the plugin's answers lack, cannot tell apart: its key does.
fn keyed(number: usize) -> Event<'static> {
    event(ACME, T)
        .event_key(format!("k{number}"))
        .build()
        .unwrap()
}

fn keys(answer: &Value) -> Vec<String> {
    let events = answer["events"].as_array().unwrap().iter();
    events
        .map(|event| event["eventKey"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_walk_by_offset_shows_each_event_once_while_others_arrive() {
    let stand = Stand::new("plugin_walk").await;
    stand.fill(&(0..230).map(keyed).collect::<Vec<_>>()).await;
    let paths = [
        "/events/user?userId=u1",
        "/events/organization?organizationId=o1",
        "/events/activity?organizationIds=o1,o9",
    ];
    let mut logged = 230;
    for path in paths {
        let readable = logged;
        let mut seen = Vec::new();
        for offset in (0..1_000).step_by(50) {
            let page = format!("{path}&limit=50&offset={offset}");
            let answer = stand.get(ACME, &page).await;
            assert_eq!(answer["total"], readable, "{page}");
            assert_eq!(
                (&answer["limit"], &answer["offset"]),
                (&50.into(), &offset.into())
            );
            // Asked for again, it is the same page.
            if offset > 0 {
                assert_eq!(stand.get(ACME, &page).await["events"], answer["events"]);
            }
            seen.extend(keys(&answer));
            let more: Vec<_> = (logged..logged + 10).map(keyed).collect();
            stand.insert(u64::try_from(logged).unwrap(), &more).await;
            logged += 10;
            stand.settle(u64::try_from(logged).unwrap()).await;
        }
        assert_eq!(seen.len(), readable, "{path}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), readable);
    }
}

#[tokio::test]
async fn an_id_that_is_missing_or_empty_asks_for_nothing() {
    let stand = Stand::new("plugin_empty").await;
    let nobody = event(ACME, T).user_id("").organization_id("");
    stand.fill(&[keyed(1), nobody.build().unwrap()]).await;
    for path in [
        "/events/user",
        "/events/user?userId=",
        "/events/organization?limit=10",
        "/events/organization?organizationId=%20",
        "/events/activity",
        "/events/activity?userId=u1",
        "/events/activity?organizationIds=&userId=u1",
        "/events/activity?organizationIds=,%20,",
        "/events/activity?organizationIds=o1&userId=",
        "/events/activity?organizationIds=o1&eventType=",
    ] {
        let answer = stand.get(ACME, path).await;
        assert_eq!(
            (&answer["total"], &answer["events"]),
            (&0.into(), &json!([])),
            "{path}"
        );
    }
    let answer = stand.get(ACME, "/events/activity?organizationIds=o1").await;
    assert_eq!(answer["total"], 1);
}

#[tokio::test]
async fn numbers_are_clamped_and_unknown_parameters_ignored() {
    let stand = Stand::new("plugin_numbers").await;
    stand.fill(&(0..120).map(keyed).collect::<Vec<_>>()).await;
    for (numbers, limit, offset, events) in [
        ("limit=7&offset=0", 7, 0, 7),
        ("limit=0", 1, 0, 1),
        ("limit=-1&offset=-1", 1, 0, 1),
        ("limit=1000", 100, 0, 100),
        ("limit=abc&offset=NaN", 50, 0, 50),
        ("offset=100&sort=asc&cursor=x", 50, 100, 20),
        ("offset=10000", 50, 10_000, 0),
    ] {
        let path = format!("/events/user?userId=u1&{numbers}");
        let answer = stand.get(ACME, &path).await;
        assert_eq!(
            (&answer["limit"], &answer["offset"], keys(&answer).len()),
            (&limit.into(), &offset.into(), events),
            "{numbers}"
        );
    }
    let too_deep = "/events/user?userId=u1&offset=10001";
    stand.refused(ACME, too_deep, "invalid").await;
}

#[tokio::test]
async fn a_type_is_found_under_its_documented_and_its_wire_name() {
    let stand = Stand::new("plugin_types").await;
    let typed = |name: &'static str| {
        let kind = EventType::new(name).unwrap();
        Event {
            event_type: kind,
            ..keyed(1)
        }
    };
    let events = ["organization_member_added", "member_added", "invoice.paid"].map(typed);
    stand.fill(&events).await;
    for (name, total) in [
        ("member_added", 2),
        ("organization_member_added", 2),
        ("invoice.paid", 1),
        ("organization_created", 0),
    ] {
        let path = format!("/events/activity?organizationIds=o1&eventType={name}");
        assert_eq!(stand.get(ACME, &path).await["total"], total, "{name}");
    }
}

#[tokio::test]
async fn events_have_the_ids_that_the_plugin_looks_for() {
    let stand = Stand::new("plugin_filled").await;
    let data =
        json!({ "organizationId": "o1", "memberEmail": "bob@example.com", "triggeredBy": "u1" });
    let sent = event(ACME, T)
        .user_id("")
        .actor(Actor {
            id: "u1".into(),
            kind: "user".into(),
        })
        .event_data(EventData::of(&data).unwrap())
        .build()
        .unwrap();
    stand.fill(&[sent]).await;
    let mut answer = stand
        .get(ACME, "/events/organization?organizationId=o1")
        .await;
    let event = &mut answer["events"][0];
    assert!(event["ageInMinutes"].take().as_i64().unwrap() > 0);
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap());
    // `/v1` stays as it was sent.
    let answer = stand.get(ACME, "/v1/audit-logs").await;
    assert_eq!(answer["events"][0]["eventData"], data);
    assert_eq!(answer["events"][0]["identifier"], "bob@example.com");
}

/// The status, headers and bytes of an answer; without the age of its events, and what depends on
/// it.
async fn bytes(stand: &Stand, key: Option<&str>, path: &str) -> String {
    let mut request = Request::get(path).header("x-request-id", "r1");
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    let answer = stand.send(request.body(Body::empty()).unwrap()).await;
    let mut lines = vec![format!("GET {path}"), answer.status().to_string()];
    let mut headers: Vec<_> = answer
        .headers()
        .iter()
        .filter(|(name, _)| *name != CONTENT_LENGTH)
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    lines.extend(headers);
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let mut parts = body.split("\"ageInMinutes\":");
    let mut shown = parts.next().unwrap().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        shown = format!("{shown}\"ageInMinutes\":…{rest}");
    }
    lines.extend([String::new(), shown]);
    lines.join("\n")
}

#[tokio::test]
async fn every_byte_of_an_answer_is_as_the_plugin_knows_it() {
    let stand = Stand::new("plugin_bytes").await;
    let data = json!({ "userId": "u1", "n": 1.5, "text": "Grüße \u{1f600} \"<&" });
    let some = event(ACME, T)
        .event_data(EventData::of(&data).unwrap())
        .location(Location {
            ip_address: Some("192.0.2.7".parse().unwrap()),
            city: "Graz".into(),
            country: "Austria".into(),
            country_code: "AT".into(),
        });
    let other = event(ACME, T - 1).identifier("ada@example.com");
    stand
        .fill(&[some.build().unwrap(), other.build().unwrap()])
        .await;
    let (reader, writer) = (key(ACME), key("writer"));
    let reader = Some(reader.as_str());
    let mut answers = Vec::new();
    for (key, path) in [
        (reader, "/events/user?userId=u1"),
        (
            reader,
            "/events/organization?organizationId=o1&limit=1&offset=1",
        ),
        (
            reader,
            "/events/activity?organizationIds=o1,o2&identifier=ada@example.com",
        ),
        (reader, "/events/activity"),
        (None, "/events/user?userId=u1"),
        (
            Some("nobody-0123456789abcdef0123456789abcdef"),
            "/events/organization?organizationId=o1",
        ),
        (Some(&writer), "/events/activity?organizationIds=o1"),
        (reader, "/events/user?userId=u1&offset=10001"),
        (reader, "/events/user?userId=%ff"),
        (reader, "/events/user?userId=u1&userId=u2"),
    ] {
        answers.push(bytes(&stand, key, path).await);
    }
    insta::assert_snapshot!(answers.join("\n\n\n"));
}

#[tokio::test]
async fn a_value_that_no_event_has_is_found_nowhere_and_not_refused() {
    let stand = Stand::new("plugin_values").await;
    stand.fill(&[keyed(1)]).await;
    let long = "x".repeat(2_048);
    let values = [
        "ä",
        "*",
        "security_*",
        "user_*",
        "with space",
        "%",
        "'",
        "\\",
        "\0",
        &long,
    ];
    for value in values.map(encoded) {
        for path in [
            format!("/events/user?userId={value}"),
            format!("/events/organization?organizationId={value}"),
            format!("/events/activity?organizationIds={value}"),
            format!("/events/activity?organizationIds=o1&eventType={value}"),
            format!("/events/activity?organizationIds=o1&userId={value}"),
            format!("/events/activity?organizationIds=o1&identifier={value}"),
        ] {
            let answer = stand.get(ACME, &path).await;
            let found = (&answer["total"], &answer["events"]);
            assert_eq!(found, (&0.into(), &json!([])), "{path}");
        }
    }
    // What stands beside it in a list is found.
    let path = format!("/events/activity?organizationIds={long},o1");
    assert_eq!(stand.get(ACME, &path).await["total"], 1);
}
