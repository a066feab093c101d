//! A key sees its project and nothing else, whatever it asks.

use audit_schema::Event;
use serde_json::Value;

use crate::stand::{ACME, OTHER, Stand, T, encoded, event, ids};

/// Events of both projects with the same ids, times, users and organizations.
async fn two_projects(database: &str) -> (Stand, Vec<Event<'static>>) {
    let stand = Stand::new(database).await;
    let ours: Vec<_> = (0..30)
        .map(|_| {
            event(ACME, T)
                .identifier("ann@example.com")
                .build()
                .unwrap()
        })
        .collect();
    let theirs = ours.iter().cloned().map(|event| Event {
        project_id: OTHER.parse().unwrap(),
        event_display_name: "theirs".into(),
        ..event
    });
    let both: Vec<_> = ours.iter().cloned().chain(theirs).collect();
    stand.fill(&both).await;
    (stand, ours)
}

fn projects(answer: &Value) -> Vec<&str> {
    let events = answer["events"].as_array().unwrap().iter();
    let mut projects: Vec<_> = events
        .map(|event| event["projectId"].as_str().unwrap())
        .collect();
    projects.dedup();
    projects
}

#[tokio::test]
async fn two_projects_with_the_same_ids_never_see_each_other() {
    let (stand, ours) = two_projects("isolation").await;
    for project in [ACME, OTHER] {
        for path in [
            "/v1/audit-logs?limit=100",
            "/v1/audit-logs?userId=u1",
            "/v1/audit-logs?organizationId=o1&eventType=user_signed_in",
            "/v1/audit-logs?identifier=ann@example.com&from=0",
            "/events/user?userId=u1&limit=100",
            "/events/organization?organizationId=o1&limit=100",
            "/events/activity?organizationIds=o1,o2&userId=u1&limit=100",
        ] {
            let answer = stand.get(project, path).await;
            assert_eq!(answer["total"], 30, "{path}");
            assert_eq!(projects(&answer), [project], "{path}");
        }
        for event in &ours {
            let answer = stand
                .get(project, &format!("/v1/audit-logs/{}", event.id))
                .await;
            assert_eq!(answer["projectId"], project);
        }
    }
}

#[tokio::test]
async fn an_event_of_another_project_is_not_found() {
    let stand = Stand::new("isolation_by_id").await;
    let theirs = event(OTHER, T).build().unwrap();
    stand.fill(std::slice::from_ref(&theirs)).await;
    let path = format!("/v1/audit-logs/{}", theirs.id);
    assert_eq!(stand.ask(OTHER, &path).await.0, 200);
    assert_eq!(stand.ask(ACME, &path).await.0, 404);
}

#[tokio::test]
async fn a_cursor_of_another_project_or_filter_is_stale() {
    let (stand, _) = two_projects("swapped_cursors").await;
    let page = stand.get(ACME, "/v1/audit-logs?userId=u1&limit=10").await;
    let cursor = page["nextCursor"].as_str().unwrap();
    let as_of = page["asOf"].as_str().unwrap();
    for (project, path) in [
        (OTHER, format!("/v1/audit-logs?userId=u1&cursor={cursor}")),
        (OTHER, format!("/v1/audit-logs?asOf={as_of}")),
        (ACME, format!("/v1/audit-logs?cursor={cursor}")),
        (ACME, format!("/v1/audit-logs?userId=u2&cursor={cursor}")),
        (
            ACME,
            format!("/v1/audit-logs?userId=u1&userId=u2&cursor={cursor}"),
        ),
        (ACME, format!("/v1/audit-logs?userId=u1&cursor={as_of}")),
        (ACME, format!("/v1/audit-logs?userId=u1&asOf={cursor}")),
        (ACME, format!("/v1/audit-logs?userId=u1&cursor={cursor}x")),
        (ACME, "/v1/audit-logs?cursor=".to_owned()),
        (
            ACME,
            format!("/v1/audit-logs?cursor={}", "A".repeat(10_000)),
        ),
    ] {
        let (status, answer) = stand.ask(project, &path).await;
        assert!(status.is_client_error(), "{path}: {status}");
        assert_eq!(answer["error"]["code"], "stale_cursor", "{path}");
    }
    // The page size is not part of what a cursor belongs to.
    let path = format!("/v1/audit-logs?userId=u1&limit=3&cursor={cursor}");
    assert_eq!(stand.get(ACME, &path).await["offset"], 10);
}

/// Texts that mean something to SQL, to ClickHouse's parameters, to HTTP or to JSON.
pub(crate) fn attempts() -> Vec<String> {
    [
        "' OR '1'='1",
        "' OR 1=1 -- ",
        "\\' OR 1=1 -- ",
        "\\",
        "\\\\'",
        "u1') OR project_id IN ('other",
        "u1'] OR 1 OR ['",
        "'] , 1) UNION ALL SELECT * FROM audit_events --",
        "; DROP TABLE audit_events",
        "{project:String}",
        "{user_id:Array(String)}",
        "?",
        "??fields",
        "%",
        "*",
        "NULL",
        "\\N",
        "u1\0",
        "\0",
        "\t\n\r\u{b}",
        "\r\n--boundary\r\nContent-Disposition: form-data; name=\"param_project\"\r\n\r\nother\r\n",
        "\u{feff}\u{202e}\u{10ffff}",
        "${jndi:ldap://x}",
        "[]",
        "['other']",
        "0x00",
        "1e400",
        "-0",
        "170000000000000000000",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["x".repeat(10_000), "'".repeat(1_024), ",".repeat(10_000)])
    .collect()
}

#[tokio::test]
async fn no_value_of_any_parameter_breaks_out_of_its_place() {
    let (stand, _) = two_projects("injection").await;
    for attempt in attempts() {
        let text = encoded(&attempt);
        let of_list = [
            "userId",
            "organizationId",
            "identifier",
            "eventType",
            "from",
            "to",
        ];
        let of_page = ["limit", "offset", "cursor", "asOf", text.as_str()];
        let lists = of_list.iter().chain(&of_page).flat_map(|name| {
            let second = format!("/v1/audit-logs?userId=u1&{name}={text}");
            [format!("/v1/audit-logs?{name}={text}"), second]
        });
        let plugin = [
            "userId",
            "eventType",
            "identifier",
            "organizationIds",
            "limit",
            "offset",
        ];
        let activity = plugin.map(|name| match name {
            "organizationIds" => format!("/events/activity?{name}={text}"),
            name => format!("/events/activity?organizationIds=o1&{name}={text}"),
        });
        let others = [
            format!("/events/user?userId={text}"),
            format!("/events/organization?organizationId={text}"),
            format!("/events/user?userId=u1&limit={text}&offset={text}"),
        ];
        for path in lists.chain(activity).chain(others) {
            let (status, answer) = stand.ask(ACME, &path).await;
            assert!(
                status == 200 || status.is_client_error(),
                "{path}: {status}"
            );
            if status == 200 {
                let seen = projects(&answer);
                assert!(seen.is_empty() || seen == [ACME], "{path}: {answer}");
            } else {
                assert!(answer["error"]["message"].is_string(), "{path}: {answer}");
            }
        }
        let path = format!("/v1/audit-logs/{text}");
        let (status, _) = stand.ask(ACME, &path).await;
        assert!(status.is_client_error(), "{path}: {status}");
    }
    // Everything is still there.
    assert_eq!(stand.get(OTHER, "/v1/audit-logs").await["total"], 30);
}

#[tokio::test]
async fn a_value_is_found_whatever_its_characters() {
    let stand = Stand::new("characters").await;
    let values: Vec<_> = attempts()
        .into_iter()
        .filter(|value| value.len() <= 1_024 && !value.trim().is_empty())
        .collect();
    let events: Vec<_> = values
        .iter()
        .map(|value| event(ACME, T).user_id(value.clone()).build().unwrap())
        .collect();
    stand.fill(&events).await;
    for (value, event) in values.iter().zip(&events) {
        let path = format!("/v1/audit-logs?userId={}", encoded(value));
        let answer = stand.get(ACME, &path).await;
        assert_eq!(ids(&answer), [event.id.to_string()], "{value:?}");
        assert_eq!(answer["events"][0]["userId"], value.as_str());
    }
}

#[tokio::test]
async fn bytes_that_are_not_utf_8_are_a_bad_request() {
    let stand = Stand::new("not_utf_8").await;
    for path in [
        "/v1/audit-logs?userId=%ff",
        "/v1/audit-logs?%ff=u1",
        "/v1/audit-logs/%ff",
        "/events/user?userId=%c3%28",
        "/events/activity?organizationIds=%ed%a0%80",
    ] {
        let (status, answer) = stand.ask(ACME, path).await;
        assert_eq!(status, 400, "{path}: {answer}");
    }
}
