//! Each view: known events in, expected rows out.

use crate::stand::{Stand, captured};

#[tokio::test]
async fn everything_a_better_auth_server_sends_is_stored() {
    let stand = Stand::new("stored").await;
    stand.fill(&captured()).await;
    let rows = stand.rows("SELECT count() AS events FROM audit_events").await;
    assert_eq!(rows[0]["events"], 44);
}
