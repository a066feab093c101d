//! The views as such: what `DESCRIBE` says of them, and which filters reach the keys.

use audit_schema::CATALOGUE;
use serde_json::{Value, json};

use crate::stand::{Stand, captured, sent};

const VIEWS: [&str; 9] = [
    "audit_log", "audit_sign_ins", "audit_sessions", "audit_accounts", "audit_memberships",
    "audit_security_events", "audit_impersonations", "audit_hourly", "audit_daily",
];

#[tokio::test]
async fn show() {
    let stand = Stand::new("stored").await;
    stand.fill(&captured()).await;
    for view in VIEWS {
        println!("== {view}");
        for row in stand.rows(&format!("SELECT * FROM {view} LIMIT 12")).await {
            println!("{row}");
        }
    }
    let _ = (CATALOGUE, json!(0), Value::Null, sent(0, "x", "", json!({})), crate::stand::at(0), crate::stand::with(json!({}), json!({})));
}
