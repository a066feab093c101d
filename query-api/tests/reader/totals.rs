//! Totals: the whole number, or how far the time to count went.

use std::time::{Duration, Instant};

use audit_schema::Event;
use audit_schema::row::EVENTS;

use crate::stand::{ACME, Stand, T, event};

/// Events that are made; the table has them many times.
const MADE: u64 = 1_200;

/// Asks for all events in a way that only a look at each of them can answer.
const EACH: &str = "/v1/audit-logs?not.userAgent=none-of-them";

fn numbered(number: u64) -> Event<'static> {
    let millis = T + i64::try_from(number).unwrap();
    event(ACME, millis).build().unwrap()
}

impl Stand {
    /// Fills the table with so many times [`MADE`] events, and says how many that is.
    async fn fill_times(&self, times: u64) -> u64 {
        let events: Vec<_> = (0..MADE).map(numbered).collect();
        self.insert(0, &events).await;
        // The partitions divide MADE, so each of them gets as many again. All of it may take longer than
        // an insert may be late, so each block has its own time, and is stored soon after.
        let sql = format!(
            "INSERT INTO {EVENTS} SELECT events.* REPLACE (\
             source_offset + (SELECT max(source_offset) + 1 FROM {EVENTS}) * number AS source_offset, \
             created_at + toIntervalSecond(number) AS created_at, generateUUIDv4() AS event_id, \
             nowInBlock64(3) AS ingested_at) \
             FROM (SELECT number FROM numbers(1, {times} - 1)) AS times CROSS JOIN {EVENTS} AS events \
             SETTINGS min_insert_block_size_rows = 400000, min_insert_block_size_bytes = 0"
        );
        self.run(&sql).await;
        self.settle(MADE * times).await;
        MADE * times
    }
}

#[tokio::test]
async fn a_total_that_ran_out_of_time_is_what_was_counted_by_then() {
    let stand = Stand::with("total_gte", |config| {
        config.queries.total_time = Duration::from_secs(4);
        config.queries.time = Duration::from_secs(60);
    })
    .await;
    let all = stand.fill_times(4_000).await;
    // 24 s for the whole table.
    stand.slow(0.000_005).await;
    let begun = Instant::now();
    let answer = stand.get(ACME, &format!("{EACH}&limit=10")).await;
    let took = begun.elapsed();
    let total = answer["total"].as_u64().unwrap();
    assert_eq!(answer["totalRelation"], "gte");
    assert!(11 < total && total < all, "the page proves 11, not {total}");
    assert!(took * 4 < Duration::from_secs(24), "{took:?}");
}

#[tokio::test]
async fn no_total_is_said_to_be_whole_that_is_not() {
    let stand = Stand::new("total_edges").await;
    let all = stand.fill_times(170).await;
    // A fifth of a second for the whole table, if one thread reads it.
    stand.slow(0.000_001).await;
    let squares = (0..40_u64).map(|step| 1 + step * step / 4);
    let mut seen = Vec::new();
    for budget in squares.chain([60_000]) {
        let budget = Duration::from_millis(budget);
        let stand = Stand::at("total_edges", |config| config.queries.total_time = budget);
        let answer = stand.get(ACME, &format!("{EACH}&limit=1")).await;
        let total = answer["total"].as_u64().unwrap();
        let is_whole = answer["totalRelation"] == "eq";
        assert!(
            total == all || total < all && !is_whole,
            "{budget:?}: {answer}"
        );
        seen.push((is_whole, total));
    }
    assert!(seen.contains(&(true, all)));
    let begun = seen.iter().filter(|(_, total)| 2 < *total && *total < all);
    assert!(begun.count() > 0, "none broke off in its middle: {seen:?}");
}
