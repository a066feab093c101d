//! The three reads of Better Auth's plugin.

use std::collections::BTreeSet;

use audit_schema::{Actor, Event, EventData, EventType};
use serde_json::{Value, json};

use crate::stand::{ACME, Stand, T, event};

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
    let (status, answer) = stand.ask(ACME, "/events/user?userId=u1&offset=10001").await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (400, &"invalid".into())
    );
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
