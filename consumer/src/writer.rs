//! The tables in ClickHouse: native inserts, and the questions that recovery and settling ask.
//!
//! Every insert is one block, so it is stored as one part, whole or not at all, and is checked
//! against the late limit when its last byte has arrived: for that `native::SETTINGS` pins the two
//! `min_insert_block_size` above the size of any batch. Measured on ClickHouse 26.7: with smaller
//! ones a block is checked when it arrives and stored when the body ends, however late.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit_schema::clickhouse::{Engine, WATERMARKS, local_table};
use audit_schema::dead_letter::{self, DEAD_LETTERS, DeadLetter};
use audit_schema::erasure::ERASURES;
use audit_schema::row::{EVENTS, Millis};
use audit_schema::{OffsetRange, native};
use clickhouse::error::Error;
use clickhouse::query::Query;
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::audit::{self, End};
use crate::batch::{EventKey, PartitionId, Table};
use crate::config::ClickHouse;
use crate::erasures::{Erasures, Registered};
use crate::error::{InsertError, ReadError};
use crate::metrics;
use crate::recovery::LATE_LIMIT;
use crate::removed;
use crate::store::{Found, Insert, Store, Turn, Watermark, token_prefix};

/// Errors that stay until somebody changes something: no such column, table, database or setting,
/// wrong types, no access, wrong password.
/// Source: `src/Common/ErrorCodes.cpp` of ClickHouse.
const REFUSALS: [u32; 14] = [16, 20, 36, 47, 50, 53, 60, 81, 115, 164, 192, 193, 497, 516];

/// How many keys are looked up together.
const KEYS: usize = 2000;

/// Writes to and reads from the tables.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    events: String,
    dead_letters: String,
    watermarks: String,
    /// The erasures that were found last.
    erasures: Arc<Mutex<Arc<Erasures>>>,
    places: Arc<Semaphore>,
    insert_timeout: Duration,
    read_timeout: Duration,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Row, Deserialize)]
struct Number<T> {
    number: T,
}

#[derive(Debug, Row, Deserialize)]
struct CountRow {
    incarnation: u32,
    partition: u32,
    rows: u64,
    offsets: u64,
}

#[derive(Debug, Row, Deserialize)]
struct EarlierRow {
    project: String,
    created_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    offset: u64,
}

#[derive(Debug, Row, Deserialize)]
struct KeyRow {
    project: String,
    created_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
}

#[derive(Debug, Row, Serialize)]
struct WatermarkRow {
    incarnation: u32,
    partition: u32,
    next_offset: u64,
    complete_up_to: Millis,
    updated_at: Millis,
}

impl Writer {
    /// A writer with `in_flight` places for inserts.
    pub fn new(config: &ClickHouse, in_flight: usize) -> Self {
        let engine: Engine = config.options().engine;
        Self {
            client: audit_schema::clickhouse::connect(config.address()).with_validation(false),
            events: local_table(EVENTS, &engine),
            dead_letters: local_table(DEAD_LETTERS, &engine),
            watermarks: local_table(WATERMARKS, &engine),
            erasures: Arc::default(),
            places: Arc::new(Semaphore::new(in_flight)),
            insert_timeout: config.insert_timeout,
            read_timeout: config.read_timeout,
        }
    }

    /// The client, for the questions of `verify` and `topic`.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Every erasure that was registered before this was asked.
    pub(crate) async fn erasures(&self) -> Result<Arc<Erasures>, ReadError> {
        let number = self
            .client
            .query_raw(&format!("SELECT count() AS number FROM {ERASURES}"))
            .fetch_one::<Number<u64>>();
        let number = self.ask(number).await?.number;
        let known = || self.erasures.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Arc::clone(&known());
        if found.rows() == number {
            return Ok(found);
        }
        let rows = self
            .client
            .query(&format!("SELECT ?fields FROM {ERASURES}"))
            .fetch_all::<Registered>();
        let found = Arc::new(Erasures::of(&self.ask(rows).await?));
        *known() = Arc::clone(&found);
        Ok(found)
    }

    async fn ask<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, ReadError> {
        let answer = tokio::time::timeout(self.read_timeout, answer)
            .await
            .unwrap_or(Err(Error::TimedOut));
        answer.map_err(|error| {
            if is_refusal(&error) {
                ReadError::Refused(error)
            } else {
                ReadError::Unavailable(error)
            }
        })
    }

    /// Which of these events are in the table, in any partition and any life of the topic.
    pub(crate) async fn stored(&self, keys: &[EventKey]) -> Result<HashSet<EventKey>, ReadError> {
        let sql = format!(
            "SELECT DISTINCT project_id AS project, \
             toUnixTimestamp64Milli(created_at) AS created_at, event_id AS id FROM {EVENTS} \
             WHERE {}",
            is_one_of_the_keys(EVENTS)
        );
        let mut found = HashSet::new();
        for keys in keys.chunks(KEYS) {
            let rows = with_keys(self.client.query_raw(&sql), keys).fetch_all::<KeyRow>();
            found.extend(self.ask(rows).await?.into_iter().map(|row| EventKey {
                project: row.project,
                created_at: Millis(row.created_at),
                id: row.id,
            }));
        }
        Ok(found)
    }
}

/// The condition that a row of `table` has one of the primary keys that [`with_keys`] binds.
fn is_one_of_the_keys(table: &str) -> String {
    format!(
        "(project_id, {table}.created_at, event_id) IN (SELECT arrayJoin(arrayZip( \
         {{projects:Array(String)}}, \
         arrayMap(t -> fromUnixTimestamp64Milli(t, 'UTC'), {{times:Array(Int64)}}), \
         {{ids:Array(UUID)}})))"
    )
}

fn with_keys(question: Query, keys: &[EventKey]) -> Query {
    let projects: Vec<&str> = keys.iter().map(|key| key.project.as_str()).collect();
    let times: Vec<i64> = keys.iter().map(|key| key.created_at.0).collect();
    let ids: Vec<String> = keys.iter().map(|key| key.id.to_string()).collect();
    question
        .param("projects", projects)
        .param("times", times)
        .param("ids", ids)
}

/// Whether asking again is of no use.
pub(crate) fn is_refusal(error: &Error) -> bool {
    let Error::BadResponse(text) = error else {
        return matches!(
            error,
            Error::SchemaMismatch(_) | Error::InvalidParams(_) | Error::Unsupported(_)
        );
    };
    text.strip_prefix("Code: ")
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(code, _)| code.parse().ok())
        .is_some_and(|code: u32| REFUSALS.contains(&code))
}

fn in_doubt(error: Error) -> InsertError {
    if is_refusal(&error) {
        InsertError::Refused(error)
    } else {
        InsertError::InDoubt(error)
    }
}

impl Store for Writer {
    async fn clock(&self) -> Result<Millis, ReadError> {
        let question = "SELECT toUnixTimestamp64Milli(now64(3)) AS number";
        let now = self.client.query(question).fetch_one::<Number<i64>>();
        Ok(Millis(self.ask(now).await?.number))
    }

    async fn turn(&self) -> Result<Turn, ReadError> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        Ok(Turn {
            ingested_at: self.clock().await?,
            place,
        })
    }

    async fn insert(&self, turn: Turn, insert: Insert<'_>) -> Result<(), InsertError> {
        // Asked after the clock that this insert carries: an insert that carries a later time than an
        // erasure's registration has seen it, and an erasure outwaits all others.
        let erasures = self.erasures().await.map_err(|error| match error {
            ReadError::Unavailable(error) => InsertError::InDoubt(error),
            ReadError::Refused(error) => InsertError::Refused(error),
        })?;
        let erased;
        let (table, block) = match insert.table {
            Table::Events => {
                erased = erasures.erased(insert.batch.events());
                let events = erased.as_ref().unwrap_or(insert.batch.events());
                (&self.events, events.block(insert.rows, turn.ingested_at))
            }
            Table::DeadLetters => {
                let letters = insert.rows.iter().filter_map(|row| {
                    let letter = insert.batch.letters().get(*row)?;
                    Some(erasures.letter(letter))
                });
                let letters: Vec<Cow<'_, DeadLetter>> = letters.collect();
                let letters: Vec<&DeadLetter> = letters.iter().map(Cow::as_ref).collect();
                (
                    &self.dead_letters,
                    dead_letter::block(&letters, turn.ingested_at),
                )
            }
        };
        // A block that cannot be built was never sent, and never will be.
        let block = block.map_err(InsertError::Refused)?;
        let started = std::time::Instant::now();
        let request = native::insert(&self.client, table)
            .with_setting("insert_deduplication_token", insert.token)
            .with_setting("insert_deduplicate", "1")
            .with_setting("max_partitions_per_insert_block", "1")
            .with_timeouts(Some(self.insert_timeout), Some(self.insert_timeout));
        let answer = block.send(request).await;
        metrics::insert_seconds(started.elapsed());
        drop(turn.place);
        answer.map_err(in_doubt)
    }

    async fn may_land(&self, id: PartitionId, clock: Millis) -> Result<bool, ReadError> {
        // In this order: what gets past the check before the limit is running, or stored, when the
        // limit has passed and it is looked for.
        if self.clock().await? <= clock.later_by(LATE_LIMIT) {
            return Ok(true);
        }
        let running = self
            .client
            .query(
                "SELECT count() AS number FROM system.processes \
                 WHERE current_database = currentDatabase() \
                 AND startsWith(Settings['insert_deduplication_token'], {prefix:String})",
            )
            .param("prefix", token_prefix(id))
            .fetch_one::<Number<u64>>();
        Ok(self.ask(running).await?.number > 0)
    }

    async fn present(&self, id: PartitionId, range: OffsetRange) -> Result<Vec<u64>, ReadError> {
        let sql = format!(
            "SELECT DISTINCT offset AS number FROM ({} UNION ALL {}) ORDER BY offset",
            audit::offsets_in(&self.events, &self.dead_letters, id, range),
            removed::offsets_in(id, range)
        );
        let rows = self.client.query_raw(&sql).fetch_all::<Number<u64>>();
        Ok(self
            .ask(rows)
            .await?
            .into_iter()
            .map(|row| row.number)
            .collect())
    }

    async fn highest(&self, id: PartitionId, from: u64) -> Result<Option<u64>, ReadError> {
        let sql = audit::end_of(&self.events, &self.dead_letters, id, End::Highest);
        let sql = format!("SELECT offset AS number FROM ({sql}) WHERE offset >= {from}");
        let row = self.client.query_raw(&sql).fetch_optional::<Number<u64>>();
        Ok(self.ask(row).await?.map(|row| row.number))
    }

    async fn settled(&self, id: PartitionId) -> Result<Option<u64>, ReadError> {
        let sql = format!(
            "SELECT max(next_offset) AS number FROM {} WHERE incarnation = {} AND partition = {} \
             HAVING count() > 0",
            self.watermarks, id.incarnation, id.partition
        );
        let row = self.client.query_raw(&sql).fetch_optional::<Number<u64>>();
        Ok(self.ask(row).await?.map(|row| row.number))
    }

    async fn count(&self, ranges: &[(PartitionId, OffsetRange)]) -> Result<Vec<Found>, ReadError> {
        let parts: Vec<String> = ranges
            .iter()
            .map(|(id, range)| {
                format!(
                    "SELECT toUInt32({}) AS incarnation, toUInt32({}) AS partition, \
                     count() AS rows, uniqExact(offset) AS offsets FROM ({})",
                    id.incarnation,
                    id.partition,
                    audit::offsets_in(&self.events, &self.dead_letters, *id, *range)
                )
            })
            .collect();
        let sql = parts.join(" UNION ALL ");
        let rows = self.client.query_raw(&sql).fetch_all::<CountRow>();
        Ok(self
            .ask(rows)
            .await?
            .into_iter()
            .map(|row| Found {
                id: PartitionId {
                    incarnation: row.incarnation,
                    partition: row.partition,
                },
                offsets: row.offsets,
                rows: row.rows,
            })
            .collect())
    }

    async fn write_watermarks(&self, watermarks: &[Watermark]) -> Result<(), InsertError> {
        let updated_at = chrono::Utc::now().into();
        let insert = async {
            let mut insert = self.client.insert::<WatermarkRow>(&self.watermarks).await?;
            for watermark in watermarks {
                insert
                    .write(&WatermarkRow {
                        incarnation: watermark.id.incarnation,
                        partition: watermark.id.partition,
                        next_offset: watermark.next_offset,
                        complete_up_to: watermark.complete_up_to,
                        updated_at,
                    })
                    .await?;
            }
            insert.end().await
        };
        tokio::time::timeout(self.insert_timeout, insert)
            .await
            .unwrap_or(Err(Error::TimedOut))
            .map_err(in_doubt)
    }

    async fn earlier(
        &self,
        id: PartitionId,
        keys: &[EventKey],
        below: u64,
    ) -> Result<HashMap<EventKey, u64>, ReadError> {
        let sql = format!(
            "SELECT project_id AS project, toUnixTimestamp64Milli(created_at) AS created_at, \
             event_id AS id, min(source_offset) AS offset FROM {} WHERE {} \
             AND source_incarnation = {} AND source_partition = {} AND source_offset < {below} \
             GROUP BY project_id, {}.created_at, event_id",
            self.events,
            is_one_of_the_keys(&self.events),
            id.incarnation,
            id.partition,
            self.events
        );
        let mut found = HashMap::new();
        for keys in keys.chunks(KEYS) {
            let rows = with_keys(self.client.query_raw(&sql), keys).fetch_all::<EarlierRow>();
            for row in self.ask(rows).await? {
                let key = EventKey {
                    project: row.project,
                    created_at: Millis(row.created_at),
                    id: row.id,
                };
                found.insert(key, row.offset);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_table_stops_and_a_busy_server_does_not() {
        let says = |text: &str| is_refusal(&Error::BadResponse(text.to_owned()));
        assert!(says(
            "Code: 60. DB::Exception: Unknown table. (UNKNOWN_TABLE)"
        ));
        for busy in [
            "Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)",
            "Code: 469. DB::Exception: Constraint `in_time` is violated. (VIOLATED_CONSTRAINT)",
            "<html>bad gateway</html>",
            "",
        ] {
            assert!(!says(busy), "{busy}");
        }
        assert!(!is_refusal(&Error::TimedOut));
    }
}
