//! What holds for all views: they describe themselves, say what is in the table, and fit together.

use audit_schema::CATALOGUE;
use serde_json::{Value, json};

use crate::stand::{Stand, captured, sent, with};

/// All views.
pub(crate) const VIEWS: [&str; 9] = [
    "audit_log",
    "audit_sign_ins",
    "audit_sessions",
    "audit_accounts",
    "audit_memberships",
    "audit_security_events",
    "audit_impersonations",
    "audit_hourly",
    "audit_daily",
];

#[tokio::test]
async fn every_view_and_every_column_says_what_it_is() {
    let stand = Stand::new("comments").await;
    let views = stand
        .rows(
            "SELECT name, comment FROM system.tables \
             WHERE database = currentDatabase() AND engine = 'View'",
        )
        .await;
    let names: Vec<_> = views.iter().map(|view| &view["name"]).collect();
    for view in VIEWS {
        assert!(names.contains(&&json!(view)), "{view} is not there");
        for column in stand.rows(&format!("DESCRIBE {view}")).await {
            assert_ne!(column["comment"], "", "{view}: {column}");
        }
    }
    for view in &views {
        assert_ne!(view["comment"], "", "{view}");
    }
    let silent = "SELECT table, name FROM system.columns \
                  WHERE database = currentDatabase() AND table LIKE 'audit_%' \
                  AND table != 'audit_migrations' AND comment = ''";
    assert_eq!(stand.rows(silent).await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_log_has_every_column_of_the_table_and_says_the_same_of_it() {
    let stand = Stand::new("same_columns").await;
    let columns = |table: &str| {
        format!(
            "SELECT name, type, comment FROM system.columns \
             WHERE database = currentDatabase() AND table = '{table}'"
        )
    };
    let in_log = stand.rows(&columns("audit_log")).await;
    for column in stand.rows(&columns("audit_events")).await {
        assert!(in_log.contains(&column), "{column}");
    }
}

#[tokio::test]
async fn a_category_is_what_the_catalogue_says() {
    let stand = Stand::new("categories").await;
    let mut records: Vec<_> = (0..)
        .zip(CATALOGUE)
        .map(|(seconds, entry)| sent(seconds, entry.name, "u1", json!({})))
        .collect();
    records.push(sent(99, "invoice.paid", "u1", json!({})));
    stand.fill(&records).await;
    let rows = stand
        .rows("SELECT category FROM audit_log ORDER BY created_at")
        .await;
    let expected = CATALOGUE.iter().map(|entry| entry.category.as_str());
    let expected: Vec<_> = expected
        .chain([""])
        .map(|word| json!({"category": word}))
        .collect();
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn a_readers_setting_of_joins_changes_no_view() {
    let stand = Stand::new("join_use_nulls").await;
    stand.fill(&captured()).await;
    for view in VIEWS {
        let sql =
            |nulls| format!("SELECT * FROM {view} ORDER BY ALL SETTINGS join_use_nulls = {nulls}");
        let rows = stand.rows(&sql(0)).await;
        assert_eq!(rows, stand.rows(&sql(1)).await, "{view}");
    }
}

#[tokio::test]
async fn hours_and_days_count_events_and_their_users() {
    let stand = Stand::new("counted").await;
    let sign_in =
        |seconds, user: &str| sent(seconds, "user_signed_in", user, json!({"userId": user}));
    stand
        .fill(&[
            sign_in(0, "ann"),
            sign_in(3599, "ann"),
            sign_in(3600, "bob"),
            with(sign_in(3601, "bob"), json!({"outcome": "failure"})),
            sign_in(86_400, "bob"),
            sent(
                3602,
                "organization_team_created",
                "o1",
                json!({"organizationId": "o1"}),
            ),
        ])
        .await;
    let counts = "documented_type, category, outcome, events, users";
    let row = |time: &str, kind: [&str; 3], counts: [u64; 2]| {
        let [documented_type, category, outcome] = kind;
        let [events, users] = counts;
        json!({
            "time": time, "documented_type": documented_type, "category": category,
            "outcome": outcome, "events": events, "users": users,
        })
    };
    let signed_in = ["user_signed_in", "session", "success"];
    let failed = ["user_signed_in", "session", "failure"];
    let team = ["team_created", "organization", "success"];
    let hours = format!("SELECT hour AS time, {counts} FROM audit_hourly ORDER BY ALL");
    assert_eq!(
        stand.rows(&hours).await,
        [
            row("2026-03-02 10:00:00", signed_in, [2, 1]),
            row("2026-03-02 11:00:00", team, [1, 0]),
            row("2026-03-02 11:00:00", failed, [1, 1]),
            row("2026-03-02 11:00:00", signed_in, [1, 1]),
            row("2026-03-03 10:00:00", signed_in, [1, 1]),
        ]
    );
    let days = format!("SELECT day AS time, {counts} FROM audit_daily ORDER BY ALL");
    assert_eq!(
        stand.rows(&days).await,
        [
            row("2026-03-02", team, [1, 0]),
            row("2026-03-02", failed, [1, 1]),
            row("2026-03-02", signed_in, [3, 2]),
            row("2026-03-03", signed_in, [1, 1]),
        ]
    );
}

#[tokio::test]
async fn a_security_event_has_a_verdict_and_says_who_and_why() {
    let stand = Stand::new("security").await;
    let from = json!({"location": {"ipAddress": "192.0.2.7", "countryCode": "NZ"}});
    stand
        .fill(&[
            with(
                sent(
                    0,
                    "security_check",
                    "visitor-1",
                    json!({
                        "outcome": "blocked", "evaluatedChecks": ["geo", "velocity"],
                        "triggeredBy": "geo", "reason": "country", "identifier": "ann@example.com",
                        "path": "/sign-in/email", "details": {"confidence": 0.9, "country": "NZ"},
                    }),
                ),
                from,
            ),
            sent(
                1,
                "security_check",
                "192.0.2.7",
                json!({"outcome": "passed", "evaluatedChecks": ["pow_challenge"], "triggeredBy": null}),
            ),
            sent(
                2,
                "security_signal",
                "visitor-2",
                json!({"type": "impossible_travel", "userId": "u1", "visitorId": "visitor-2",
                       "action": "challenged", "distance": 9000}),
            ),
            sent(3, "security_signal", "u1", json!({"type": "unknown_device", "action": "logged"})),
            sent(4, "security_geo_blocked", "u1", json!({})),
            sent(5, "user_signed_in", "u1", json!({"userId": "u1"})),
        ])
        .await;
    let rows = stand
        .rows(
            "SELECT verdict, name, reason, visitor_id, toString(ip_address) AS ip, user_id, \
             identifier, path, confidence, details, evaluated \
             FROM audit_security_events ORDER BY created_at",
        )
        .await;
    assert_eq!(
        rows[0],
        json!({
            "verdict": "blocked", "name": "geo", "reason": "country", "visitor_id": "visitor-1",
            "ip": "::ffff:192.0.2.7", "user_id": "", "identifier": "ann@example.com",
            "path": "/sign-in/email", "confidence": "0.9",
            "details": "{\"confidence\":0.9,\"country\":\"NZ\"}", "evaluated": ["geo", "velocity"],
        })
    );
    let brief = |row: &Value| {
        ["verdict", "name", "visitor_id", "user_id"]
            .map(|column| row[column].as_str().unwrap().to_owned())
    };
    let briefs: Vec<_> = rows[1..].iter().map(brief).collect();
    assert_eq!(
        briefs,
        [
            ["allowed", "", "", ""],
            ["challenged", "impossible_travel", "visitor-2", "u1"],
            ["signal", "unknown_device", "", ""],
            ["blocked", "geo_blocked", "", ""],
        ]
    );
    let details: Value = serde_json::from_str(rows[2]["details"].as_str().unwrap()).unwrap();
    assert_eq!(details["distance"], 9000);
}

#[tokio::test]
async fn what_the_readme_asks_is_answered() {
    const README: &str = include_str!("../../deploy/clickhouse/README.md");
    let stand = Stand::new("readme").await;
    stand.fill(&captured()).await;
    let blocks = README.split("```sql\n").skip(1);
    let statements = blocks.flat_map(|block| block.split("```").next().unwrap().split(';'));
    let statements: Vec<_> = statements.filter(|sql| !sql.trim().is_empty()).collect();
    assert!(!statements.is_empty());
    for sql in statements {
        stand.rows(sql).await;
    }
    for view in VIEWS {
        assert!(README.contains(&format!("`{view}`")), "{view}");
    }
}

#[tokio::test]
async fn views_of_an_empty_log_are_empty() {
    let stand = Stand::new("empty").await;
    for view in VIEWS {
        let rows = stand.rows(&format!("SELECT * FROM {view}")).await;
        assert_eq!(rows, Vec::<Value>::new(), "{view}");
    }
}
