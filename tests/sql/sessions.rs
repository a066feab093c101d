//! `audit_sessions` and `audit_impersonations`: what began, and how it ended.

use serde_json::{Value, json};

use crate::stand::{Stand, at, captured, sent};

/// An event of a session of a user.
fn of(seconds: i64, event_type: &str, user: &str, session: &str, more: Value) -> Value {
    let mut data = json!({
        "userId": user, "userEmail": format!("{user}@example.com"), "sessionId": session,
        "loginMethod": "email", "userAgent": "test", "triggeredBy": user, "triggerContext": "user",
    });
    let Value::Object(more) = more else {
        panic!("{more} is no object");
    };
    data.as_object_mut().unwrap().extend(more);
    sent(seconds, event_type, user, data)
}

#[tokio::test]
async fn a_session_ends_once_by_what_came_first() {
    let stand = Stand::new("sessions").await;
    let none = || json!({});
    let all_revoked = |seconds, user: &str| {
        sent(
            seconds,
            "all_sessions_revoked",
            user,
            json!({"userId": user}),
        )
    };
    let mut records = vec![
        of(0, "user_signed_in", "ann", "out", none()),
        of(1, "session_created", "ann", "out", none()),
        of(2, "email_verification_sent", "ann", "out", none()),
        of(3, "user_signed_out", "ann", "out", none()),
        of(4, "session_created", "ann", "revoked", none()),
        of(5, "session_revoked", "ann", "revoked", none()),
        of(6, "session_created", "ann", "all", none()),
        of(7, "session_created", "bob", "of bob", none()),
        all_revoked(8, "ann"),
        of(9, "session_revoked", "ann", "all", none()),
        of(10, "session_created", "ann", "open", none()),
    ];
    // Another project uses the same words.
    let mut other = all_revoked(11, "ann");
    other["projectId"] = json!("other");
    records.push(other);
    stand.fill(&records).await;
    let rows = stand
        .rows(
            "SELECT session_id, user_id, started_at, ended_at, ended_by, login_method, events \
             FROM audit_sessions ORDER BY started_at",
        )
        .await;
    let row = |session: &str, user: &str, begin, end: Option<i64>, by: &str, events: u64| {
        json!({
            "session_id": session, "user_id": user, "started_at": at(begin), "ended_at": end.map(at),
            "ended_by": by, "login_method": "email", "events": events,
        })
    };
    assert_eq!(
        rows,
        [
            row("out", "ann", 1, Some(3), "signed_out", 4),
            row("revoked", "ann", 4, Some(5), "revoked", 2),
            row("all", "ann", 6, Some(8), "all_revoked", 2),
            row("of bob", "bob", 7, None, "", 1),
            row("open", "ann", 10, None, "", 1),
        ]
    );
}

#[tokio::test]
async fn the_sessions_of_a_better_auth_server() {
    let stand = Stand::new("captured_sessions").await;
    stand.fill(&captured()).await;
    let ended = stand
        .rows("SELECT ended_by, count() AS sessions FROM audit_sessions GROUP BY ended_by ORDER BY ended_by")
        .await;
    let count = |by: &str, sessions: u64| json!({"ended_by": by, "sessions": sessions});
    assert_eq!(
        ended,
        [
            count("", 1),
            count("all_revoked", 3),
            count("revoked", 1),
            count("signed_out", 1)
        ]
    );
}

#[tokio::test]
async fn an_impersonation_says_who_was_whom_and_for_how_long() {
    let stand = Stand::new("impersonations").await;
    let by_admin = || json!({"loginMethod": "impersonation", "impersonatedBy": "Root", "impersonatedById": "root", "triggeredBy": "root"});
    let stopped = || json!({"impersonatedById": "root"});
    stand
        .fill(&[
            of(
                0,
                "session_created",
                "ann",
                "s1",
                json!({"loginMethod": "impersonation"}),
            ),
            of(1, "user_impersonated", "ann", "s1", by_admin()),
            of(2, "profile_updated", "ann", "s1", json!({})),
            of(3, "session_revoked", "ann", "s1", json!({})),
            of(4, "user_impersonated_stopped", "ann", "s1", stopped()),
            of(5, "user_impersonated", "bob", "s2", by_admin()),
            of(6, "session_created", "bob", "s3", json!({})),
        ])
        .await;
    let rows = stand
        .rows(
            "SELECT admin_id, user_id, session_id, started_at, ended_at, duration, events \
             FROM audit_impersonations ORDER BY started_at",
        )
        .await;
    assert_eq!(
        rows,
        [
            json!({"admin_id": "root", "user_id": "ann", "session_id": "s1", "started_at": at(1),
                   "ended_at": at(3), "duration": 2, "events": 1}),
            json!({"admin_id": "root", "user_id": "bob", "session_id": "s2", "started_at": at(5),
                   "ended_at": null, "duration": null, "events": 0}),
        ]
    );
}
