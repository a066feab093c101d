//! What is answered, and how it is refused.

use std::time::Duration;

use audit_query_api::Config;
use audit_schema::{Event, EventData, EventType, Location};
use serde_json::{Value, json};

use crate::stand::{ACME, Stand, T, app, ask, event, ids, key};

fn pretty(answer: &Value) -> String {
    serde_json::to_string_pretty(answer).unwrap()
}

#[tokio::test]
async fn a_list_has_the_documented_shape() {
    let stand = Stand::new("shape").await;
    let full = event(ACME, T + 1)
        .id("01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap())
        .event_display_name("Ann signed in")
        .session_id("s1")
        .location(Location {
            ip_address: Some("192.0.2.1".parse().unwrap()),
            country_code: "AT".into(),
            ..Location::default()
        })
        .event_data(EventData::parse(r#"{"loginMethod": "passkey"}"#).unwrap());
    let bare = event(ACME, T)
        .id("f47ac10b-58cc-4372-a567-0e02b2c3d479".parse().unwrap())
        .user_id("")
        .event_key("");
    stand
        .fill(&[full.build().unwrap(), bare.build().unwrap()])
        .await;
    let mut answer = stand.get(ACME, "/v1/audit-logs?limit=1").await;
    for sealed in ["nextCursor", "asOf"] {
        let text = answer[sealed].take();
        assert!(text.as_str().unwrap().len() < 400, "{text}");
    }
    insta::assert_snapshot!("first_page", pretty(&answer));
    let path = "/v1/audit-logs/f47ac10b-58cc-4372-a567-0e02b2c3d479";
    insta::assert_snapshot!("one_event", pretty(&stand.get(ACME, path).await));
    insta::assert_snapshot!(
        "event_types",
        pretty(&stand.get(ACME, "/v1/event-types").await)
    );
}

#[tokio::test]
async fn a_type_is_found_under_its_documented_and_its_wire_name() {
    let stand = Stand::new("types").await;
    let typed = |(name, data): (&'static str, Value)| Event {
        event_type: EventType::new(name).unwrap(),
        event_data: EventData::of(&data).unwrap(),
        ..event(ACME, T).build().unwrap()
    };
    let events = [
        ("user_created", json!({})),
        ("user_signed_up", json!({})),
        ("security_check", json!({ "outcome": "blocked" })),
        ("security_check", json!({ "outcome": "challenged" })),
        ("security_signal", json!({ "type": "impossible_travel" })),
        ("two_factor_enabled", json!({})),
        ("invoice.paid", json!({})),
    ]
    .map(typed);
    stand.fill(&events).await;
    for (types, total) in [
        ("user_signed_up", 2),
        ("user_created", 2),
        ("security_blocked", 1),
        ("security_check", 2),
        ("security_impossible_travel", 1),
        ("two_factor_enabled", 1),
        ("invoice.paid", 1),
        ("nothing", 0),
        ("user_created,security_check", 4),
        ("user_signed_up&eventType=invoice.paid, nothing", 3),
    ] {
        let path = format!("/v1/audit-logs?eventType={}", types.replace(' ', "+"));
        let answer = stand.get(ACME, &path).await;
        assert_eq!(answer["total"], total, "{types}");
        assert_eq!(ids(&answer).len(), total, "{types}");
    }
}

#[tokio::test]
async fn filters_narrow_the_list_and_the_total_alike() {
    let stand = Stand::new("filters").await;
    let of = |user, organization, identifier, after| {
        event(ACME, T + after)
            .user_id(user)
            .organization_id(organization)
            .identifier(identifier)
            .build()
            .unwrap()
    };
    stand
        .fill(&[
            of("u1", "o1", "ann@example.com", 0),
            of("u2", "o1", "bob@example.com", 1),
            of("u3", "o2", "eve, the third", 2),
            of("u1,u2", "o3", "", 3),
        ])
        .await;
    for (filter, total) in [
        ("", 4),
        ("userId=u1", 1),
        ("userId=u1&userId=u3", 2),
        ("userId=u1,u2", 1),
        ("organizationId=o1", 2),
        ("organizationId=o1,o2", 3),
        ("organizationId=o1&organizationId=o2&userId=u3", 1),
        ("identifier=eve,%20the%20third", 1),
        ("identifier=ann@example.com&identifier=bob@example.com", 2),
        ("userId=u1&organizationId=o2", 0),
        ("from=1700000000124", 3),
        ("to=1700000000124", 1),
        ("from=1700000000124&to=1700000000126", 2),
        ("from=2023-11-14T22:13:20.124Z", 3),
        ("from=2023-11-14T23:13:20.1231%2B01:00", 3),
        ("to=2023-11-14T22:13:20.124Z", 1),
        ("from=1700000000126&to=1700000000124", 0),
        ("to=9999-12-31T23:59:59Z&from=-1", 4),
    ] {
        let answer = stand.get(ACME, &format!("/v1/audit-logs?{filter}")).await;
        assert_eq!(answer["total"], total, "{filter}");
        assert_eq!(ids(&answer).len(), total, "{filter}");
    }
}

#[tokio::test]
async fn complete_up_to_is_what_every_registered_partition_reached() {
    let stand = Stand::new("complete").await;
    stand.fill(&[event(ACME, T).build().unwrap()]).await;
    let complete = async || {
        let answer = stand.get(ACME, "/v1/audit-logs").await;
        assert_eq!(answer["total"], 1);
        answer["completeUpTo"].clone()
    };
    let settled = json!("2023-11-14T22:13:20.124Z");
    assert_eq!(complete().await, settled);
    stand.register(1, 6).await;
    assert_eq!(complete().await, settled);
    // A life of the topic began of which nothing is known yet.
    stand.register(2, 6).await;
    assert_eq!(complete().await, Value::Null);
}

#[tokio::test]
async fn a_total_that_takes_too_long_is_a_lower_bound() {
    let stand = Stand::with("slow_total", |config| {
        config.queries.total_time = Duration::from_millis(1);
    })
    .await;
    let events: Vec<_> = (0..20_000)
        .map(|_| event(ACME, T).build().unwrap())
        .collect();
    stand.fill(&events).await;
    let answer = stand.get(ACME, "/v1/audit-logs?limit=10&offset=100").await;
    assert_eq!(
        (&answer["total"], &answer["totalRelation"]),
        (&111.into(), &"gte".into())
    );
    let next = answer["nextCursor"].as_str().unwrap();
    let answer = stand
        .get(ACME, &format!("/v1/audit-logs?limit=10&cursor={next}"))
        .await;
    assert_eq!(
        (&answer["total"], &answer["totalRelation"]),
        (&121.into(), &"gte".into())
    );
}

#[tokio::test]
async fn a_query_over_its_limits_is_too_broad() {
    let stand = Stand::with("too_broad", |config| {
        config.queries.memory_bytes = 1_000;
    })
    .await;
    stand.fill(&[event(ACME, T).build().unwrap()]).await;
    let (status, answer) = stand.ask(ACME, "/v1/audit-logs").await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (422, &"too_broad".into())
    );
}

#[tokio::test]
async fn refusals_say_what_to_change() {
    let stand = Stand::new("refusals").await;
    let mut refusals = Vec::new();
    for path in [
        "/v1/audit-logs?usrId=u1",
        "/v1/audit-logs?userId=",
        "/v1/audit-logs?limit=0",
        "/v1/audit-logs?limit=-1",
        "/v1/audit-logs?limit=1000",
        "/v1/audit-logs?limit=abc",
        "/v1/audit-logs?limit=1&limit=2",
        "/v1/audit-logs?offset=10001",
        "/v1/audit-logs?from=yesterday",
        "/v1/audit-logs/x",
        "/v1/audit-logs/f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "/v1/audit-log",
    ] {
        let (status, answer) = stand.ask(ACME, path).await;
        refusals.push(format!("{path}\n{} {answer}\n", status.as_u16()));
    }
    insta::assert_snapshot!(refusals.join("\n"));
}

#[tokio::test]
async fn every_read_needs_a_key_that_may_read() {
    let stand = Stand::new("scopes").await;
    for path in [
        "/v1/audit-logs",
        "/v1/audit-logs/f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "/v1/event-types",
        "/events/user?userId=u1",
        "/events/organization?organizationId=o1",
        "/events/activity?organizationIds=o1",
    ] {
        assert_eq!(stand.ask("nobody", path).await.0, 401, "{path}");
        assert_eq!(stand.ask("writer", path).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn without_clickhouse_reads_are_unavailable() {
    let mut config = Config::load(None).unwrap();
    // Bound once and closed again, so nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    config.clickhouse.url = format!("http://{free}");
    let app = app(&config);
    for path in ["/v1/audit-logs", "/events/user?userId=u1"] {
        let (status, answer) = ask(&app, &key(ACME), path).await;
        assert_eq!(
            (status.as_u16(), &answer["error"]["code"]),
            (503, &"unavailable".into())
        );
    }
    // What needs no events is answered.
    assert_eq!(ask(&app, &key(ACME), "/v1/event-types").await.0, 200);
    assert_eq!(ask(&app, &key(ACME), "/v1/audit-logs?limit=0").await.0, 400);
}
