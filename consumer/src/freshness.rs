//! How far each partition is readable, and how old the oldest event is that is not.
//!
//! The watermarks are read from `audit_watermarks`, which is what readers go by, and the ends of the
//! logs from Kafka, for *all* partitions: one that stopped, or that no member has, is seen by
//! every member that lives. The ends are asked for first, so that what is readable in between is
//! not taken for unreadable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit_schema::clickhouse::WATERMARKS;
use audit_schema::row::Millis;
use audit_service::telemetry::with_causes;
use chrono::{DateTime, SecondsFormat, Utc};
use clickhouse::error::Error;
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::topic::{LogReader, Topic, TopicError};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(2);

/// How long ClickHouse may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// What is known of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    settled: u64,
    log_end: u64,
    complete_up_to: Millis,
    /// When it was first seen to have something unreadable, since it was last seen to have none.
    behind_since: Option<Millis>,
}

impl Known {
    /// Takes note of what was seen at `now`.
    fn seen(&mut self, now: Millis) {
        if self.log_end <= self.settled {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert(now);
        }
    }

    /// For how long at most an event has been waiting to be readable.
    fn oldest_unreadable(&self, now: Millis) -> Duration {
        let Some(since) = self.behind_since else {
            return Duration::ZERO;
        };
        // What Kafka took before it is readable, so the oldest came later. It is not known before
        // the partition was complete for the first time.
        let since = if self.complete_up_to > Millis::default() {
            self.complete_up_to
        } else {
            since
        };
        Duration::from_millis(u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0))
    }
}

#[derive(Debug, Default)]
struct State {
    now: Millis,
    incarnation: u32,
    partitions: BTreeMap<u32, Known>,
    stopped: BTreeMap<u32, String>,
}

/// The freshness of all partitions; all clones say the same.
#[derive(Debug, Clone, Default)]
pub struct Freshness(Arc<Mutex<State>>);

/// What is told of all partitions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When this was found, on ClickHouse's clock.
    pub as_of: String,
    /// Which life of the topic.
    pub incarnation: u32,
    /// Every event Kafka took before it is readable; `null` as long as nobody can say.
    pub complete_up_to: Option<String>,
    /// The partitions, in order.
    pub partitions: Vec<PartitionReport>,
}

/// What is told of one partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionReport {
    /// The partition.
    pub partition: u32,
    /// Every offset below it is readable.
    pub settled_offset: u64,
    /// The offset the next record will get.
    pub log_end: u64,
    /// Every event Kafka took before it is readable; `null` as long as nobody can say.
    pub complete_up_to: Option<String>,
    /// For how long at most an event has been waiting to be readable; 0 if none is.
    pub oldest_unreadable_seconds: f64,
    /// Why this member has stopped it.
    pub stopped: Option<String>,
}

#[derive(Debug, Row, Deserialize)]
struct WatermarkRow {
    partition: u32,
    next_offset: u64,
    complete_up_to: Millis,
}

#[derive(Debug, Row, Deserialize)]
struct ClockRow {
    now: Millis,
}

impl Freshness {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why this member has stopped a partition, or that it has not.
    pub(crate) fn stopped(&self, partition: u32, reason: Option<String>) {
        let mut state = self.state();
        match reason {
            Some(reason) => state.stopped.insert(partition, reason),
            None => state.stopped.remove(&partition),
        };
    }

    /// Looks again and again until `shutdown`.
    pub(crate) async fn watch(self, topic: Topic, client: Client, shutdown: CancellationToken) {
        let reader = match topic.reader() {
            Ok(reader) => reader,
            Err(error) => {
                tracing::error!(error = %with_causes(&error), "the logs cannot be watched");
                return shutdown.cancelled().await;
            }
        };
        let looking = async {
            let mut ticks = tokio::time::interval(LOOK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.look(&topic, &reader, &client).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = looking => {}
        }
    }

    /// What Kafka or ClickHouse does not answer stays as it was, and grows older.
    async fn look(&self, topic: &Topic, reader: &LogReader, client: &Client) {
        match topic.logs(reader).await {
            Ok(logs) => {
                metrics::server_up("kafka", true);
                let mut state = self.state();
                if state.incarnation != logs.incarnation() {
                    state.partitions.clear();
                    state.incarnation = logs.incarnation();
                }
                for (partition, bounds) in (0..).zip(logs.bounds()) {
                    let known = state.partitions.entry(partition).or_default();
                    known.log_end = bounds.end;
                }
            }
            Err(error) => {
                if matches!(error, TopicError::Kafka { .. }) {
                    metrics::server_up("kafka", false);
                }
                tracing::debug!(error = %with_causes(&error), "the ends of the logs are not known");
            }
        }
        let incarnation = self.state().incarnation;
        let read = tokio::time::timeout(ANSWER, watermarks(client, incarnation));
        let read = read.await.unwrap_or(Err(Error::TimedOut));
        metrics::server_up("clickhouse", read.is_ok());
        let mut state = self.state();
        state.now = match read {
            Ok((now, rows)) => {
                for row in rows {
                    let known = state.partitions.entry(row.partition).or_default();
                    known.settled = row.next_offset;
                    known.complete_up_to = row.complete_up_to;
                }
                now
            }
            Err(error) => {
                tracing::debug!(error = %error, "the watermarks are not known");
                state.now.max(Utc::now().into())
            }
        };
        let now = state.now;
        for (partition, known) in &mut state.partitions {
            known.seen(now);
            metrics::oldest_unreadable(*partition, known.oldest_unreadable(now));
            if known.log_end == 0 && known.settled > 0 {
                // Kafka did not tell yet where its log ends.
                continue;
            }
            let complete_up_to = known.complete_up_to;
            let complete_up_to = (complete_up_to > Millis::default()).then_some(complete_up_to.0);
            metrics::freshness(*partition, known.log_end, known.settled, complete_up_to);
        }
    }

    /// What was found last.
    pub fn report(&self) -> Report {
        let state = self.state();
        let complete = state.partitions.values().map(|known| known.complete_up_to);
        Report {
            as_of: text(state.now).unwrap_or_default(),
            incarnation: state.incarnation,
            complete_up_to: complete.min().and_then(text),
            partitions: state
                .partitions
                .iter()
                .map(|(partition, known)| PartitionReport {
                    partition: *partition,
                    settled_offset: known.settled,
                    log_end: known.log_end,
                    complete_up_to: text(known.complete_up_to),
                    oldest_unreadable_seconds: known.oldest_unreadable(state.now).as_secs_f64(),
                    stopped: state.stopped.get(partition).cloned(),
                })
                .collect(),
        }
    }
}

/// A time as it is told; `None` if there is none.
fn text(time: Millis) -> Option<String> {
    (time > Millis::default())
        .then(|| DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// ClickHouse's clock.
async fn clock(client: &Client) -> Result<Millis, Error> {
    let row: ClockRow = client
        .query_raw("SELECT now64(3) AS now")
        .fetch_one()
        .await?;
    Ok(row.now)
}

async fn watermarks(
    client: &Client,
    incarnation: u32,
) -> Result<(Millis, Vec<WatermarkRow>), Error> {
    let sql = format!(
        "SELECT partition, max(w.next_offset) AS next_offset, \
         max(w.complete_up_to) AS complete_up_to FROM {WATERMARKS} AS w \
         WHERE incarnation = {incarnation} GROUP BY partition"
    );
    let rows = client.query_raw(&sql).fetch_all().await?;
    Ok((clock(client).await?, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unreadable_event_is_as_old_as_the_watermark() {
        let mut known = Known {
            settled: 5,
            log_end: 5,
            complete_up_to: Millis(10_000),
            ..Known::default()
        };
        known.seen(Millis(20_000));
        assert_eq!(known.oldest_unreadable(Millis(20_000)), Duration::ZERO);
        known.log_end = 6;
        known.seen(Millis(21_000));
        assert_eq!(
            known.oldest_unreadable(Millis(22_000)),
            Duration::from_secs(12)
        );
    }

    #[test]
    fn what_was_never_complete_ages_from_when_it_was_seen() {
        let mut known = Known {
            log_end: 6,
            ..Known::default()
        };
        known.seen(Millis(21_000));
        known.seen(Millis(22_000));
        assert_eq!(
            known.oldest_unreadable(Millis(23_000)),
            Duration::from_secs(2)
        );
        known.settled = 6;
        known.seen(Millis(24_000));
        assert_eq!(known.oldest_unreadable(Millis(24_000)), Duration::ZERO);
    }
}
