//! The view `audit_ocsf`: each event type as the OCSF event that the table below says, with all
//! that OCSF 1.8.0 requires of its class.

use serde_json::{Value, json};

use crate::stand::{ACME, Stand, T, at, captured, sent, with};

/// Class and activity of every type that has a mapping.
const EXPECTED: &[(&str, u64, u64)] = &[
    ("user_signed_up", 3001, 1),
    ("user_profile_updated", 3004, 3),
    ("user_profile_image_updated", 3004, 3),
    ("user_email_verified", 3004, 10),
    ("user_banned", 3001, 5),
    ("user_unbanned", 3001, 2),
    ("user_deleted", 3001, 6),
    ("user_signed_in", 3002, 1),
    ("user_signed_out", 3002, 2),
    ("session_created", 3002, 1),
    ("session_revoked", 3002, 2),
    ("sessions_revoked_all", 3002, 2),
    ("user_impersonated", 3002, 7),
    ("user_impersonation_stopped", 3002, 2),
    ("account_linked", 3004, 6),
    ("account_unlinked", 3004, 7),
    ("password_changed", 3001, 3),
    ("password_reset_requested", 3001, 4),
    ("password_reset_completed", 3001, 4),
    ("email_verification_sent", 3004, 99),
    ("organization_created", 3004, 1),
    ("organization_updated", 3004, 3),
    ("member_added", 3006, 3),
    ("member_removed", 3006, 4),
    ("member_role_updated", 3005, 1),
    ("member_invited", 3004, 1),
    ("invite_accepted", 3006, 3),
    ("invite_rejected", 3004, 11),
    ("invite_cancelled", 3004, 11),
    ("team_created", 3006, 6),
    ("team_updated", 3004, 3),
    ("team_deleted", 3006, 5),
    ("team_member_added", 3006, 3),
    ("team_member_removed", 3006, 4),
    ("security_blocked", 3002, 6),
    ("security_allowed", 3002, 6),
    ("security_geo_blocked", 3002, 6),
    ("security_bot_blocked", 3002, 6),
    ("security_velocity_exceeded", 3002, 6),
    ("security_credential_stuffing", 2004, 1),
    ("security_impossible_travel", 2004, 1),
    ("security_suspicious_ip", 2004, 1),
    ("security_free_trial_abuse", 2004, 1),
    ("security_compromised_password", 2004, 1),
    ("security_stale_account", 2004, 1),
    ("security_check", 3002, 6),
    ("security_signal", 2004, 1),
    ("user_sign_in_failed", 3002, 1),
    ("email_changed", 3004, 3),
    ("two_factor_enabled", 3001, 10),
    ("two_factor_disabled", 3001, 11),
    ("two_factor_verified", 3002, 6),
    ("sign_in_failed", 3002, 1),
    ("mfa_enabled", 3001, 10),
    ("mfa_disabled", 3001, 11),
    ("account_locked", 3001, 9),
    ("account_unlocked", 3001, 12),
    ("passkey_created", 3001, 10),
    ("passkey_deleted", 3001, 11),
    ("api_key_created", 3004, 1),
    ("api_key_revoked", 3004, 4),
    ("oauth_consent_granted", 3005, 1),
    ("oauth_consent_revoked", 3005, 2),
    ("oauth_token_issued", 3002, 3),
    ("audit_log_read", 6003, 2),
    ("audit_log_exported", 6003, 2),
    ("audit_events_lost", 0, 99),
    ("invoice.paid", 0, 99),
];

/// What OCSF 1.8.0 requires of an event of each class, and of the objects in it. Of several names
/// between bars one must be there.
const REQUIRED: &[(u64, &[&str])] = &[
    (0, &[]),
    (2004, &["finding_info.uid"]),
    (3001, &["user", "user.name|user.uid"]),
    (
        3002,
        &["user", "user.name|user.uid", "service|dst_endpoint"],
    ),
    (3004, &["entity", "entity.name|entity.uid"]),
    (3005, &["user", "user.name|user.uid", "privileges.0"]),
    (3006, &["group", "group.name|group.uid"]),
    (
        6003,
        &[
            "actor.user|actor.session|actor.app_name",
            "api.operation",
            "src_endpoint.ip|src_endpoint.name",
        ],
    ),
];

/// What it requires of every event.
const REQUIRED_OF_ALL: &[&str] = &[
    "activity_id",
    "category_uid",
    "class_uid",
    "metadata.product.name",
    "metadata.version",
    "severity_id",
    "time",
    "type_uid",
];

/// What may not be there without the profile `security_control`.
const OF_CONTROLS: [&str; 4] = ["action_id", "action", "disposition_id", "disposition"];

/// Everything that an event of any type may say.
fn full(record: Value) -> Value {
    with(
        record,
        json!({
            "userId": "u1",
            "organizationId": "o1",
            "identifier": "ann@example.com",
            "actor": {"id": "u2", "type": "admin"},
            "sessionId": "s1",
            "requestId": "r1",
            "userAgent": "Mozilla/5.0 \"x\"",
            "location": {"ipAddress": "192.0.2.7", "city": "Bern", "country": "Switzerland", "countryCode": "CH"},
            "eventData": {
                "organizationName": "Acme", "teamId": "t1", "teamName": "Blue",
                "accountId": "a1", "providerId": "google", "newRole": "admin,owner",
                "scopes": ["read", "write"], "loginMethod": "google", "reason": "said \"no\"\n",
            },
        }),
    )
}

/// The value at `path`, members and places between dots.
fn found<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    document.pointer(&format!("/{}", path.replace('.', "/")))
}

fn assert_no_empty_attributes(value: &Value, document: &Value) {
    match value {
        Value::Null => panic!("a null in {document}"),
        Value::String(text) => assert!(!text.is_empty(), "an empty text in {document}"),
        Value::Array(values) => {
            assert!(!values.is_empty(), "an empty list in {document}");
            for value in values {
                assert_no_empty_attributes(value, document);
            }
        }
        Value::Object(members) => {
            assert!(!members.is_empty(), "an empty object in {document}");
            for (name, value) in members {
                if name != "event_data" {
                    assert_no_empty_attributes(value, document);
                }
            }
        }
        Value::Bool(_) | Value::Number(_) => {}
    }
}

fn assert_valid(document: &Value) {
    let class = document["class_uid"].as_u64().unwrap();
    let of_class = REQUIRED.iter().find(|(uid, _)| *uid == class);
    let (_, of_class) = of_class.unwrap_or_else(|| panic!("an unexpected class: {document}"));
    for wanted in REQUIRED_OF_ALL.iter().chain(*of_class) {
        let given = wanted
            .split('|')
            .any(|path| found(document, path).is_some());
        assert!(given, "{wanted} is missing in {document}");
    }
    let activity = document["activity_id"].as_u64().unwrap();
    assert_eq!(document["type_uid"], class * 100 + activity, "{document}");
    assert_eq!(document["category_uid"], class / 1000, "{document}");
    assert_eq!(document["metadata"]["version"], "1.8.0");
    let profiles = found(document, "metadata.profiles.0");
    for name in OF_CONTROLS {
        let given = document.get(name).is_some();
        assert_eq!(given, profiles.is_some(), "{name} in {document}");
    }
    assert_no_empty_attributes(document, document);
}

/// The documents of all events, in the order of their times.
async fn documents(stand: &Stand) -> Vec<Value> {
    let rows = stand
        .rows("SELECT ocsf FROM audit_ocsf ORDER BY created_at")
        .await;
    let texts = rows.iter().map(|row| row["ocsf"].as_str().unwrap());
    texts
        .map(|text| {
            assert!(!text.contains('\n'), "{text:?} is more than one line");
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
        })
        .collect()
}

#[tokio::test]
async fn every_event_type_is_the_ocsf_event_it_is_mapped_to() {
    let stand = Stand::new("ocsf_types").await;
    let bare = |(at, (name, ..)): (i64, &(&str, u64, u64))| sent(at, name, "k1", json!({}));
    let mut records: Vec<_> = (0..).zip(EXPECTED).map(bare).collect();
    // As little as an event can say, and as much.
    let said = (1000..).zip(EXPECTED).map(|event| full(bare(event)));
    records.extend(said);
    stand.fill(&records).await;

    let documents = documents(&stand).await;
    assert_eq!(documents.len(), 2 * EXPECTED.len());
    for (document, (name, class, activity)) in documents.iter().zip(EXPECTED.iter().cycle()) {
        assert_valid(document);
        assert_eq!(document["metadata"]["event_code"], *name);
        let told = [&document["class_uid"], &document["activity_id"]];
        assert_eq!(told, [*class, *activity], "{name}");
    }
    for entry in audit_schema::CATALOGUE {
        assert!(EXPECTED.iter().any(|(name, ..)| *name == entry.name));
    }
    // The columns say the same as the documents.
    let rows = stand
        .rows("SELECT class_uid, activity_id, type_uid, type_name, severity, status_id, status, time FROM audit_ocsf ORDER BY created_at")
        .await;
    for (row, document) in rows.iter().zip(&documents) {
        for (name, value) in row.as_object().unwrap() {
            assert_eq!(*value, document[name], "{name} of {document}");
        }
    }
}

#[tokio::test]
async fn everything_a_better_auth_server_sends_is_valid_ocsf() {
    let stand = Stand::new("ocsf_captured").await;
    let sent = captured();
    stand.fill(&sent).await;
    let documents = documents(&stand).await;
    assert_eq!(documents.len(), sent.len());
    for (document, record) in documents.iter().zip(&sent) {
        assert_valid(document);
        assert_ne!(document["class_uid"], 0, "{document}");
        assert_eq!(document["metadata"]["uid"], record["id"]);
        assert_eq!(document["time"], record["createdAt"]);
        let data = &document["unmapped"]["event_data"];
        assert_eq!(data, &record["eventData"]);
    }
    let first = |name: &str| {
        let is_it = |document: &&Value| document["metadata"]["event_code"] == name;
        documents.iter().find(is_it).unwrap()
    };
    assert_eq!(first("user_created")["type_uid"], 300_101);
    let failed = first("user_sign_in_failed");
    assert_eq!(failed["status"], "Failure");
    assert_eq!(failed["user"]["email_addr"], "ann@example.com");
    // A sign-in and the session it begins are told together.
    let (signed_in, session) = (first("user_signed_in"), first("session_created"));
    assert_eq!(
        signed_in["metadata"]["correlation_uid"],
        session["metadata"]["correlation_uid"]
    );
    let promoted = first("organization_member_role_updated");
    assert_eq!(
        promoted["privileges"][0],
        promoted["unmapped"]["event_data"]["newRole"]
    );
    let joined = first("organization_team_member_added");
    assert_eq!(joined["group"]["type"], "Group");
    assert_eq!(
        joined["group"]["uid"],
        joined["unmapped"]["event_data"]["teamId"]
    );
}

#[tokio::test]
async fn an_ocsf_document_says_who_did_what_from_where() {
    let stand = Stand::new("ocsf_facts").await;
    let records = [
        full(sent(0, "user_impersonated", "u1", json!({}))),
        full(sent(1, "security_impossible_travel", "u1", json!({}))),
        full(sent(2, "invoice.paid", "u1", json!({}))),
    ];
    stand.fill(&records).await;
    let documents = documents(&stand).await;
    let user = json!({
        "uid": "u1", "name": "ann@example.com", "email_addr": "ann@example.com", "type_id": 1, "type": "User",
    });
    let endpoint = json!({"ip": "192.0.2.7", "location": {"city": "Bern", "country": "CH"}});
    let request = json!({"uid": "r1", "user_agent": "Mozilla/5.0 \"x\""});

    let impersonated = &documents[0];
    assert_eq!(impersonated["user"], user);
    let admin = json!({"user": {"uid": "u2", "type_id": 2, "type": "Admin"}});
    assert_eq!(impersonated["actor"], admin);
    assert_eq!(impersonated["src_endpoint"], endpoint);
    assert_eq!(impersonated["http_request"], request);
    assert_eq!(impersonated["session"], json!({"uid": "s1"}));
    assert_eq!(impersonated["service"], json!({"name": ACME}));
    assert_eq!(impersonated["account_switch_type"], "Impersonate");
    assert_eq!(impersonated["status_detail"], "said \"no\"\n");
    assert_eq!(impersonated["metadata"]["tenant_uid"], "o1");
    assert_eq!(impersonated["metadata"]["source"], ACME);
    assert_eq!(impersonated["metadata"]["correlation_uid"], "r1");

    let finding = &documents[1];
    assert_eq!(finding["status"], "New");
    assert_eq!(finding["finding_info"]["uid"], records[1]["id"]);
    assert_eq!(finding["evidences"][0]["user"], user);
    assert_eq!(finding["evidences"][0]["src_endpoint"], endpoint);
    assert_eq!(finding["evidences"][0]["http_request"], request);

    // The class for what OCSF does not know has no place for a user, so it is not mapped.
    let unknown = &documents[2];
    assert_eq!(unknown["activity_name"], "invoice.paid");
    assert_eq!(unknown["unmapped"]["user"], user);
    assert_eq!(unknown["unmapped"]["src_endpoint"], endpoint);
}

#[tokio::test]
async fn how_an_event_ended_is_its_ocsf_status_and_disposition() {
    let stand = Stand::new("ocsf_outcomes").await;
    let signal = |at, action| {
        let data = json!({"type": "velocity_exceeded", "action": action});
        sent(at, "security_signal", "v1", data)
    };
    let stuffing = json!({"type": "credential_stuffing", "action": "blocked"});
    let allowed = json!({"outcome": "passed", "evaluatedChecks": ["pow_challenge"]});
    let failed = with(
        sent(8, "password_changed", "u1", json!({})),
        json!({"outcome": "failure"}),
    );
    stand
        .fill(&[
            signal(0, "logged"),
            signal(1, "blocked"),
            signal(2, "challenged"),
            sent(3, "security_geo_blocked", "v1", json!({})),
            sent(4, "security_check", "v1", allowed),
            sent(5, "security_signal", "v1", stuffing),
            sent(6, "sign_in_failed", "v1", json!({})),
            sent(7, "password_reset_requested", "u1", json!({})),
            failed,
            sent(9, "password_changed", "u1", json!({})),
        ])
        .await;
    let documents = documents(&stand).await;
    let told: Vec<_> = documents
        .iter()
        .map(|document| {
            assert_valid(document);
            let text = |name: &str| document[name].as_str().unwrap_or("-");
            ["status", "severity", "action", "disposition"]
                .map(text)
                .join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "Success Medium Observed Logged",
            "Failure Medium Denied Blocked",
            "challenged Medium Unknown Challenge",
            "Failure Medium Denied Blocked",
            "Success Informational Allowed Allowed",
            "New High Denied Blocked",
            "Failure Low - -",
            "requested Informational - -",
            "Failure Low - -",
            "Success Informational - -",
        ]
    );
}

#[tokio::test]
async fn event_data_cannot_break_an_ocsf_document() {
    let stand = Stand::new("ocsf_hostile").await;
    let hostile = json!({
        "unmapped": {}, "a": "", "list": [], "text": ",\"uid\":\"\"", "lines": "a\nb\u{0}\u{2028}",
        "reason": "\"},{\"class_uid\":1", "loginMethod": "\\\"",
    });
    let mut record = sent(0, "user_signed_in", "\",\"name\":\"", hostile);
    record["identifier"] = json!(",\"name\":\"\"");
    let odd = json!({"reason": ["no", "text"], "loginMethod": {"deep": [1]}});
    let odd = sent(1, "user_signed_in", "u1", odd);
    // Data that was sent on many lines is still a document of one line.
    let lines = serde_json::to_string_pretty(&odd).unwrap();
    stand.store(&[record.to_string(), lines]).await;
    let documents = documents(&stand).await;
    assert_valid(&documents[0]);
    assert_valid(&documents[1]);
    assert_eq!(documents[0]["unmapped"]["event_data"], record["eventData"]);
    assert_eq!(documents[1]["unmapped"]["event_data"], odd["eventData"]);
    assert_eq!(documents[0]["unmapped"]["event_key"], record["eventKey"]);
    assert_eq!(documents[0]["user"]["name"], record["identifier"]);
    assert_eq!(documents[0]["status_detail"], record["eventData"]["reason"]);
}

#[tokio::test]
async fn filters_of_the_ocsf_view_reach_the_keys_and_indexes() {
    let stand = Stand::new("ocsf_keys").await;
    stand
        .fill(&[full(sent(0, "user_signed_in", "u1", json!({})))])
        .await;
    let explained = |filter: &str| {
        let sql = format!(
            "EXPLAIN indexes = 1 SELECT ocsf FROM audit_ocsf WHERE project_id = '{ACME}' AND {filter}"
        );
        let stand = &stand;
        async move {
            let rows = stand.rows(&sql).await;
            let lines = rows.iter().map(|row| row["explain"].as_str().unwrap());
            lines.map(str::trim).collect::<Vec<_>>().join("\n")
        }
    };
    let by_time = explained(&format!("created_at >= '{}'", at(0))).await;
    let key = by_time.split("PrimaryKey").nth(1).unwrap();
    assert!(
        key.contains(&format!("project_id in ['{ACME}', '{ACME}']")),
        "{key}"
    );
    assert!(
        key.contains(&format!("created_at in ['{}'", T / 1000)),
        "{key}"
    );
    for (filter, index) in [
        ("user_id = 'u1'", "by_user_id"),
        ("organization_id = 'o1'", "by_organization_id"),
    ] {
        let plan = explained(filter).await;
        assert!(plan.contains(&format!("Name: {index}")), "{plan}");
    }
}

#[tokio::test]
async fn the_ocsf_view_and_each_of_its_columns_say_what_they_are() {
    let stand = Stand::new("ocsf_comments").await;
    let columns = stand.rows("DESCRIBE audit_ocsf").await;
    assert!(!columns.is_empty());
    for column in columns {
        assert_ne!(column["comment"], "", "{column}");
    }
    let view = "SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = 'audit_ocsf'";
    let comment = &stand.rows(view).await[0]["comment"];
    assert!(
        comment.as_str().unwrap().contains("OCSF 1.8.0"),
        "{comment}"
    );
}
