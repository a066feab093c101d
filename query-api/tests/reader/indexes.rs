//! Which questions an index answers: ClickHouse refuses them when it does not use the index.

use audit_schema::row::EVENTS;
use axum::http::StatusCode;

use crate::stand::{ACME, Stand, T, event};

/// How many events the table has: enough for the engine to find an index worth its while.
const EVENTS_MADE: i64 = 20_000;

impl Stand {
    /// Makes every query fail that does not use `index`.
    async fn demand(&self, index: &str) {
        for sql in [
            format!("DROP VIEW IF EXISTS {EVENTS}"),
            format!(
                "CREATE VIEW {EVENTS} AS SELECT *, words FROM kept \
                 SETTINGS force_data_skipping_indices = '{index}'"
            ),
        ] {
            self.run(&sql).await;
        }
    }
}

#[tokio::test]
async fn each_indexed_filter_uses_its_index_for_page_and_total() {
    let stand = Stand::new("indexes").await;
    let events: Vec<_> = (0..EVENTS_MADE)
        .map(|number| event(ACME, T + number).build().unwrap())
        .collect();
    stand.insert(0, &events).await;
    // Indexes are made by the first merge.
    stand.run(&format!("OPTIMIZE TABLE {EVENTS} FINAL")).await;
    // Where nothing came after what is readable, nothing is left for an index to find there.
    stand.settle(u64::try_from(EVENTS_MADE / 2).unwrap()).await;
    stand.run(&format!("RENAME TABLE {EVENTS} TO kept")).await;
    // ClickHouse demands it of projections, too, and they have none.
    for projection in ["by_position", "by_kind"] {
        let drop =
            format!("ALTER TABLE kept DROP PROJECTION {projection} SETTINGS mutations_sync = 2");
        stand.run(&drop).await;
    }
    for (question, index) in [
        ("userId=a&userId=b", "by_user_id"),
        ("organizationId=a", "by_organization_id"),
        ("identifier=a", "by_identifier"),
        ("actorId=a", "by_actor_id"),
        ("sessionId=a", "by_session_id"),
        ("requestId=a", "by_request_id"),
        ("eventKey=a", "by_event_key"),
        ("ip=192.0.2.7", "by_ip_address"),
        ("ip=2001:db8::7", "by_ip_address"),
        ("ip=192.0.2.0/28", "by_ip_address"),
        ("q=rare+word", "by_words"),
        ("data.a.b=rare", "by_words"),
        ("userId=a&eventType=user_signed_in&from=-1d", "by_user_id"),
    ] {
        stand.demand(index).await;
        let (status, answer) = stand.ask(ACME, &format!("/v1/audit-logs?{question}")).await;
        assert_eq!(status, StatusCode::OK, "{question}: {answer}");
    }
    // What this test stands on: without the index, there is no answer.
    stand.demand("by_user_id").await;
    let (status, _) = stand.ask(ACME, "/v1/audit-logs?city=Graz").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}
