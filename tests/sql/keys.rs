//! What the views' comments say of keys and indexes: which filters reach them.

use crate::stand::{Stand, captured};
use crate::views::VIEWS;

/// View, filter, index, and in how many of how many readings of the table it is used.
const VALUES: [(&str, &str, &str, [usize; 2]); 25] = [
    ("audit_log", "user_id = 'a'", "by_user_id", [1, 1]),
    (
        "audit_log",
        "organization_id = 'a'",
        "by_organization_id",
        [1, 1],
    ),
    ("audit_log", "identifier = 'a'", "by_identifier", [1, 1]),
    ("audit_log", "actor_id = 'a'", "by_actor_id", [1, 1]),
    ("audit_log", "session_id = 'a'", "by_session_id", [1, 1]),
    ("audit_log", "request_id = 'a'", "by_request_id", [1, 1]),
    ("audit_log", "event_key = 'a'", "by_event_key", [1, 1]),
    (
        "audit_log",
        "toString(ip_address) = '::1'",
        "by_ip_address",
        [1, 1],
    ),
    (
        "audit_log",
        "hasAllTokens(words, ['rare'])",
        "by_words",
        [1, 1],
    ),
    (
        "audit_log",
        "event_id = '01890a5d-ac96-774b-bcce-b302099a8057'",
        "by_event_id",
        [1, 1],
    ),
    ("audit_sign_ins", "user_id = 'a'", "by_user_id", [2, 2]),
    (
        "audit_sign_ins",
        "identifier = 'a'",
        "by_identifier",
        [2, 2],
    ),
    (
        "audit_sign_ins",
        "session_id = 'a'",
        "by_session_id",
        [2, 2],
    ),
    (
        "audit_sign_ins",
        "organization_id = 'a'",
        "by_organization_id",
        [2, 2],
    ),
    ("audit_sign_ins", "true", "by_words", [1, 2]),
    ("audit_sessions", "user_id = 'a'", "by_user_id", [3, 3]),
    (
        "audit_sessions",
        "session_id = 'a'",
        "by_session_id",
        [2, 3],
    ),
    ("audit_accounts", "user_id = 'a'", "by_user_id", [1, 1]),
    (
        "audit_memberships",
        "organization_id = 'a'",
        "by_organization_id",
        [3, 4],
    ),
    ("audit_memberships", "user_id = 'a'", "by_user_id", [2, 4]),
    (
        "audit_security_events",
        "user_id = 'a'",
        "by_user_id",
        [1, 1],
    ),
    (
        "audit_security_events",
        "identifier = 'a'",
        "by_identifier",
        [1, 1],
    ),
    (
        "audit_impersonations",
        "user_id = 'a'",
        "by_user_id",
        [2, 2],
    ),
    (
        "audit_impersonations",
        "session_id = 'a'",
        "by_session_id",
        [2, 2],
    ),
    (
        "audit_impersonations",
        "admin_id = 'a'",
        "by_actor_id",
        [1, 2],
    ),
];

/// The conditions of each reading of the table, as the engine plans the question.
async fn readings(stand: &Stand, view: &str, filter: &str) -> Vec<String> {
    let sql = format!(
        "SELECT explain FROM (EXPLAIN indexes = 1 \
         SELECT * FROM {view} WHERE project_id = 'acme' AND {filter})"
    );
    let lines = stand.rows(&sql).await;
    let lines: Vec<_> = lines
        .iter()
        .map(|line| line["explain"].as_str().unwrap())
        .collect();
    let plan = lines.join("\n");
    let readings = plan.split("ReadFromMergeTree").skip(1);
    readings.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_reading_of_every_view_uses_the_project() {
    let stand = Stand::new("projects").await;
    stand.fill(&captured()).await;
    for view in VIEWS {
        let readings = readings(&stand, view, "true").await;
        assert!(!readings.is_empty(), "{view}");
        for reading in readings {
            let project = "(project_id in ['acme', 'acme'])";
            assert!(reading.contains(project), "{view}: {reading}");
        }
    }
}

#[tokio::test]
async fn a_time_uses_the_key() {
    let stand = Stand::new("times").await;
    stand.fill(&captured()).await;
    for (view, column, of) in [
        ("audit_log", "created_at", 1),
        ("audit_sign_ins", "created_at", 2),
        ("audit_sessions", "started_at", 1),
        ("audit_security_events", "created_at", 1),
        ("audit_impersonations", "started_at", 1),
        ("audit_hourly", "hour", 1),
        ("audit_daily", "day", 1),
    ] {
        let filter = format!("{column} >= '2026-03-02' AND {column} < '2026-03-09'");
        let readings = readings(&stand, view, &filter).await;
        let keys = readings.iter().filter(|reading| {
            let mut conditions = reading
                .lines()
                .filter(|line| line.contains("Condition: and("));
            conditions.any(|line| line.contains("created_at") && line.contains("project_id"))
        });
        assert_eq!(keys.count(), of, "{view}: {readings:#?}");
    }
}

#[tokio::test]
async fn a_value_uses_its_index() {
    let stand = Stand::new("values").await;
    stand.fill(&captured()).await;
    for (view, filter, index, of) in VALUES {
        let readings = readings(&stand, view, filter).await;
        let name = format!("Name: {index}\n");
        let indexed = readings
            .iter()
            .filter(|reading| reading.contains(&name))
            .count();
        assert_eq!(
            [indexed, readings.len()],
            of,
            "{view}, {filter}: {readings:#?}"
        );
    }
}

#[tokio::test]
async fn counts_of_kinds_are_answered_by_their_projection() {
    let stand = Stand::new("kinds").await;
    stand.fill(&captured()).await;
    for kind in ["event_type", "category", "outcome", "country_code"] {
        let sql = format!(
            "SELECT explain FROM (EXPLAIN SELECT {kind}, count() FROM audit_log \
             WHERE project_id = 'acme' GROUP BY {kind}) WHERE explain LIKE '%ReadFromMergeTree (by_kind)%'"
        );
        assert_eq!(stand.rows(&sql).await.len(), 1, "{kind}");
    }
}
