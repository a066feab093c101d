//! What the ClickHouse server that is written to says of itself, as metrics: whether its disks have
//! room, its merges keep up and its mutations succeed, and how far its clock is from ours.
//!
//! It is one server, in a cluster too. Nothing of the protocol goes by it.

use std::time::Duration;

use audit_schema::row::Millis;
use chrono::Utc;
use clickhouse::error::Error;
use clickhouse::{Client, Row};
use serde::Deserialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::error::is_refusal;
use crate::metrics;

/// How often it is asked.
const LOOK: Duration = Duration::from_secs(10);

/// How long its answers may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Disks without an end, such as those of an object store, have no room that could be told.
const DISKS: &str = "SELECT name, free_space AS free, total_space AS total FROM system.disks \
                     WHERE total_space < 9223372036854775807";

const TABLES: &str = "SELECT table AS name, max(count) AS parts, sum(size) AS bytes FROM ( \
                      SELECT table, partition_id, count() AS count, sum(bytes_on_disk) AS size \
                      FROM system.parts WHERE active AND database = currentDatabase() \
                      GROUP BY table, partition_id) GROUP BY table";

const MUTATIONS: &str = "SELECT countIf(latest_fail_reason = '') AS running, \
                         countIf(latest_fail_reason != '') AS failing FROM system.mutations \
                         WHERE database = currentDatabase() AND NOT is_done";

#[derive(Debug, Row, Deserialize)]
struct DiskRow {
    name: String,
    free: u64,
    total: u64,
}

#[derive(Debug, Row, Deserialize)]
struct TableRow {
    name: String,
    parts: u64,
    bytes: u64,
}

#[derive(Debug, Row, Deserialize)]
struct MutationsRow {
    running: u64,
    failing: u64,
}

#[derive(Debug, Row, Deserialize)]
struct ClockRow {
    now: Millis,
}

/// Asks again and again until `shutdown`.
pub(crate) async fn watch(client: Client, shutdown: CancellationToken) {
    let looking = async {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_refused = false;
        loop {
            ticks.tick().await;
            let looked = tokio::time::timeout(ANSWER, look(&client)).await;
            match looked.unwrap_or(Err(Error::TimedOut)) {
                Ok(()) => was_refused = false,
                Err(error) if is_refusal(&error) && !was_refused => {
                    was_refused = true;
                    tracing::warn!(
                        error = %error,
                        "the state of clickhouse is not told: its user needs the rights of the role \
                         audit_writer, which `audit-consumer migrate` renews if clickhouse.access is \
                         set"
                    );
                }
                Err(error) => {
                    tracing::debug!(error = %error, "the state of clickhouse is not known");
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = looking => {}
    }
}

async fn look(client: &Client) -> Result<(), Error> {
    let asked = Utc::now().timestamp_millis();
    let clock = client.query_raw("SELECT now64(3) AS now");
    let now = clock.fetch_one::<ClockRow>().await?.now;
    let answered = Utc::now().timestamp_millis();
    metrics::clickhouse_clock_ahead(ahead(now.0, asked, answered));
    for disk in client.query_raw(DISKS).fetch_all::<DiskRow>().await? {
        metrics::disk(&disk.name, disk.free, disk.total);
    }
    for table in client.query_raw(TABLES).fetch_all::<TableRow>().await? {
        metrics::table(&table.name, table.parts, table.bytes);
    }
    let mutations = client.query_raw(MUTATIONS);
    let mutations = mutations.fetch_one::<MutationsRow>().await?;
    metrics::mutations(mutations.running, mutations.failing);
    Ok(())
}

/// By how much a clock is at least ahead that said `now` between `asked` and `answered` of ours;
/// negative if it is behind.
fn ahead(now: i64, asked: i64, answered: i64) -> i64 {
    // Times are in whole milliseconds, cut off.
    now.saturating_sub(now.clamp(asked.saturating_sub(1), answered.max(asked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_by_what_the_question_does_not_explain() {
        for (now, found) in [(90, -9), (99, 0), (105, 0), (110, 0), (117, 7)] {
            assert_eq!(ahead(now, 100, 110), found, "{now}");
        }
        // Ours was set back meanwhile.
        assert_eq!(ahead(100, 100, 50), 0);
    }
}
