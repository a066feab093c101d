//! `audit_sign_ins`: one row per attempt.

use serde_json::{Value, json};

use crate::stand::{Stand, sent, with};

#[tokio::test]
async fn every_attempt_to_sign_in_is_one_row() {
    let stand = Stand::new("sign_ins").await;
    let session = |seconds, event_type: &str, session: &str, method: &str| {
        let data = json!({"userId": "ann", "userEmail": "ann@example.com", "sessionId": session, "loginMethod": method});
        sent(seconds, event_type, "ann", data)
    };
    let from = json!({"location": {"ipAddress": "192.0.2.7", "city": "Wellington", "country": "New Zealand", "countryCode": "NZ"}});
    stand
        .fill(&[
            // By e-mail: two events of the plugin.
            with(session(0, "user_signed_in", "s0", "email"), from),
            session(1, "session_created", "s0", "email"),
            // By a magic link the plugin says one thing only.
            session(2, "session_created", "s2", "magic-link"),
            // A second factor follows upon a sign-in that was told, and so does what is not known.
            session(3, "session_created", "s3", "totp"),
            session(4, "session_created", "s4", "unknown"),
            session(5, "session_created", "s5", "impersonation"),
            // In vain, with an account and without.
            sent(6, "user_sign_in_failed", "ann", json!({"userId": "ann", "userEmail": "ann@example.com", "loginMethod": "email"})),
            sent(7, "user_sign_in_failed", "unknown", json!({"userId": "unknown", "userEmail": "eve@example.com", "loginMethod": "email"})),
            // Another source says it by the outcome, and why.
            with(
                sent(8, "user_signed_in", "ann", json!({"reason": "locked"})),
                json!({"outcome": "failure", "userId": "ann", "identifier": "ann@example.com", "organizationId": "o1"}),
            ),
            // A block is none, nor is what is hidden behind an escape overlooked.
            sent(9, "security_check", "v1", json!({"outcome": "blocked", "path": "/sign-in/email"})),
        ])
        .await;
    let escaped = r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","projectId":"acme","createdAt":1772445610000,"eventType":"session_created","eventData":{"userId":"ann","sessionId":"s10","loginMethod":"\u0073iwe"}}"#;
    stand.store(&[escaped.to_owned()]).await;
    let rows = stand
        .rows("SELECT * FROM audit_sign_ins WHERE project_id = 'acme' ORDER BY created_at")
        .await;
    let mut first = rows[0].clone();
    first["event_id"] = Value::Null;
    assert_eq!(
        first,
        json!({
            "project_id": "acme", "created_at": crate::stand::at(0), "event_id": null,
            "event_type": "user_signed_in", "user_id": "ann", "identifier": "ann@example.com",
            "success": true, "outcome": "success", "login_method": "email", "reason": "",
            "ip_address": "::ffff:192.0.2.7", "city": "Wellington", "country": "New Zealand",
            "country_code": "NZ", "user_agent": "", "session_id": "s0", "organization_id": "",
        })
    );
    let brief: Vec<_> = rows
        .iter()
        .map(|row| {
            json!([
                row["session_id"],
                row["identifier"],
                row["success"],
                row["login_method"],
                row["reason"],
                row["organization_id"]
            ])
        })
        .collect();
    assert_eq!(
        brief,
        [
            json!(["s0", "ann@example.com", true, "email", "", ""]),
            json!(["s2", "ann@example.com", true, "magic-link", "", ""]),
            json!(["", "ann@example.com", false, "email", "", ""]),
            json!(["", "eve@example.com", false, "email", "", ""]),
            json!(["", "ann@example.com", false, "", "locked", "o1"]),
            json!(["s10", "", true, "siwe", "", ""]),
        ]
    );
}
