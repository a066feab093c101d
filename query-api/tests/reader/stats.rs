//! Counts for charts: of every stretch of time, by any field.

use audit_schema::Outcome;
use serde_json::{Value, json};

use crate::stand::{ACME, OTHER, Stand, T, event};

/// T is 2023-11-14T22:13:20.123Z.
const HOUR: i64 = 3_600_000;

async fn filled(name: &str) -> Stand {
    let stand = Stand::new(name).await;
    let of = |project, after, user: &'static str, outcome| {
        let event = event(project, T + after).user_id(user).outcome(outcome);
        event.build().unwrap()
    };
    let events = [
        of(ACME, 0, "u1", Outcome::Success),
        of(ACME, 1, "u1", Outcome::Failure),
        of(ACME, 2 * HOUR, "u2", Outcome::Success),
        of(ACME, 3 * HOUR, "", Outcome::Success),
        of(ACME, 30 * HOUR, "u3", Outcome::Success),
        of(OTHER, 0, "u1", Outcome::Success),
    ];
    stand.fill(&events).await;
    stand
}

fn counts(answer: &Value) -> Vec<u64> {
    let buckets = answer["buckets"].as_array().unwrap().iter();
    buckets
        .map(|bucket| bucket["count"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn empty_stretches_are_counted_too() {
    let stand = filled("stats_empty").await;
    let path = "/v1/audit-logs/stats?from=2023-11-14T22:00:00Z&to=2023-11-15T04:00:00Z";
    let answer = stand.get(ACME, path).await;
    assert_eq!(counts(&answer), [2, 0, 1, 1, 0, 0]);
    assert_eq!(answer["total"], 4);
    assert_eq!(answer["buckets"][0]["start"], "2023-11-14T22:00:00Z");
    assert_eq!(answer["buckets"][5]["end"], "2023-11-15T04:00:00Z");
    assert_eq!(answer["buckets"][0].get("values"), None);
}

#[tokio::test]
async fn days_are_those_of_the_time_zone() {
    let stand = filled("stats_zone").await;
    let range = "from=2023-11-14T00:00:00Z&to=2023-11-17T00:00:00Z&bucket=day";
    let utc = stand
        .get(ACME, &format!("/v1/audit-logs/stats?{range}"))
        .await;
    assert_eq!(counts(&utc), [2, 2, 1]);
    let path = format!("/v1/audit-logs/stats?{range}&timeZone=Asia/Tokyo");
    let tokyo = stand.get(ACME, &path).await;
    assert_eq!(counts(&tokyo), [0, 4, 1, 0]);
    assert_eq!(tokyo["buckets"][1]["start"], "2023-11-15T00:00:00+09:00");
}

#[tokio::test]
async fn the_most_frequent_values_are_told_apart() {
    let stand = filled("stats_values").await;
    let range = "from=2023-11-14T00:00:00Z&to=2023-11-17T00:00:00Z&bucket=day";
    let path = format!("/v1/audit-logs/stats?{range}&by=userId&top=2");
    let mut answer = stand.get(ACME, &path).await;
    answer["asOf"].take();
    assert_eq!(
        answer["values"],
        json!([{ "value": "u1", "count": 2 }, { "value": "", "count": 1 }])
    );
    assert_eq!(answer["buckets"][1]["values"], json!({ "u1": 0, "": 1 }));
    assert_eq!(answer["buckets"][1]["count"], 2);
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap());
    for (by, values) in [
        (
            "eventType",
            json!([{ "value": "user_signed_in", "count": 5 }]),
        ),
        ("organizationId", json!([{ "value": "o1", "count": 5 }])),
        ("country", json!([{ "value": "", "count": 5 }])),
        ("actorId", json!([{ "value": "", "count": 5 }])),
        (
            "outcome",
            json!([{ "value": "success", "count": 4 }, { "value": "failure", "count": 1 }]),
        ),
    ] {
        let path = format!("/v1/audit-logs/stats?{range}&by={by}");
        assert_eq!(stand.get(ACME, &path).await["values"], values, "{by}");
    }
}

#[tokio::test]
async fn a_chart_counts_what_a_list_shows() {
    let stand = filled("stats_list").await;
    let filter = "userId=u1&not.outcome=failure&from=2023-11-14T00:00:00Z";
    let list = stand.get(ACME, &format!("/v1/audit-logs?{filter}")).await;
    stand.insert(6, &[event(ACME, T).build().unwrap()]).await;
    stand.settle(7).await;
    let as_of = list["asOf"].as_str().unwrap();
    let path = format!("/v1/audit-logs/stats?{filter}&to=2023-11-17T00:00:00Z&asOf={as_of}");
    assert_eq!(stand.get(ACME, &path).await["total"], list["total"]);
    assert_eq!(list["total"], 1);
}

#[tokio::test]
async fn a_chart_that_cannot_be_is_refused() {
    let stand = Stand::new("stats_refused").await;
    let mut refusals = Vec::new();
    for parameters in [
        "bucket=hours",
        "timeZone=Vienna",
        "by=user",
        "top=3",
        "by=userId&top=51",
        "order=asc",
        "bucket=minute&from=-7d",
        "from=1700000000000&to=1600000000000",
    ] {
        let path = format!("/v1/audit-logs/stats?{parameters}");
        let (status, answer) = stand.ask(ACME, &path).await;
        assert_eq!(status, 400, "{path}: {answer}");
        refusals.push(answer["error"]["message"].as_str().unwrap().to_owned());
    }
    insta::assert_snapshot!(refusals.join("\n"));
}

#[tokio::test]
async fn an_empty_log_has_a_chart() {
    let stand = Stand::new("stats_nothing").await;
    let answer = stand.get(ACME, "/v1/audit-logs/stats?by=userId").await;
    assert_eq!(answer["total"], 0);
    assert!(counts(&answer).len() >= 24);
}
