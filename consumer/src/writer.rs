//! The tables in ClickHouse: native inserts, and the questions that recovery and settling ask.
//!
//! Every insert is one block, so it is stored as one part, whole or not at all, and is checked
//! against the late limit when its last byte has arrived: for that `native::SETTINGS` pins the two
//! `min_insert_block_size` above the size of any batch. Measured on ClickHouse 26.7: with smaller
//! ones a block is checked when it arrives and stored when the body ends, however late.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_schema::clickhouse::{Engine, WATERMARKS, local_table};
use audit_schema::dead_letter::{self, DEAD_LETTERS, DeadLetter};
use audit_schema::erasure::ERASURES;
use audit_schema::row::{EVENTS, Millis};
use audit_schema::{OffsetRange, native};
use clickhouse::error::Error;
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::audit::{self, End};
use crate::batch::{EventKey, PartitionId, Table};
use crate::config::ClickHouse;
use crate::erasures::Erasures;
use crate::error::{InsertError, ReadError, is_refusal};
use crate::metrics;
use crate::recovery::LATE_LIMIT;
use crate::removed;
use crate::shards::{Shard, Shards};
use crate::store::{Found, Insert, Store, Turn, Watermark, token_prefix};
use crate::stored;

mod counts;
mod keys;
mod registry;

/// Writes to and reads from the tables.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    shards: Shards,
    events: String,
    dead_letters: String,
    watermarks: String,
    registry: String,
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
            shards: Shards::new(config),
            events: local_table(EVENTS, &engine),
            dead_letters: local_table(DEAD_LETTERS, &engine),
            watermarks: local_table(WATERMARKS, &engine),
            registry: local_table(ERASURES, &engine),
            erasures: Arc::default(),
            places: Arc::new(Semaphore::new(in_flight)),
            insert_timeout: config.insert_timeout,
            read_timeout: config.read_timeout,
        }
    }

    /// The client of the tables that have all shards' rows.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Asks the shard of a partition, about what it has of these tables.
    async fn ask<T, F>(
        &self,
        id: PartitionId,
        tables: &[&str],
        question: impl FnOnce(Client) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let shard = self.shards.of(id.partition);
        Ok(shard.ask(tables, self.read_timeout, question).await?)
    }

    /// Asks for rows of a partition in both tables.
    async fn rows<T>(&self, id: PartitionId, sql: String) -> Result<Vec<T>, ReadError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let tables = [self.events.as_str(), &self.dead_letters];
        let asked = self.ask(id, &tables, |client| async move {
            client.query_raw(&sql).fetch_all::<T>().await
        });
        asked.await
    }

    /// Waits for an answer about all shards' rows.
    async fn of_all<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, ReadError> {
        let answer = tokio::time::timeout(self.read_timeout, answer).await;
        Ok(answer.unwrap_or(Err(Error::TimedOut))?)
    }

    /// Whether rows of a partition were settled on another shard than its own, as far as all
    /// shards answer.
    async fn settled_anywhere(&self, id: PartitionId) -> Result<Option<u64>, ReadError> {
        let sql = settled_in(WATERMARKS, id);
        let client = self.client.clone();
        let client = client.with_setting("skip_unavailable_shards", "1");
        let asked = client.query_raw(&sql).fetch_optional::<Number<u64>>();
        Ok(self.of_all(asked).await?.map(|row| row.number))
    }
}

/// A question for the settled offset in a table of watermarks.
fn settled_in(watermarks: &str, id: PartitionId) -> String {
    format!(
        "SELECT max(next_offset) AS number FROM {watermarks} WHERE incarnation = {} \
         AND partition = {} HAVING count() > 0",
        id.incarnation, id.partition
    )
}

async fn clock_of(client: Client) -> Result<Millis, Error> {
    let question = "SELECT toUnixTimestamp64Milli(now64(3)) AS number";
    let now = client.query(question).fetch_one::<Number<i64>>().await?;
    Ok(Millis(now.number))
}

/// What is to be asked or written, shard by shard.
fn by_shard<T: Copy>(shards: &Shards, items: &[T], id: impl Fn(&T) -> PartitionId) -> Vec<Vec<T>> {
    let of = |shard: &Shard| {
        let items = items.iter().copied();
        let own = items.filter(|item| std::ptr::eq(shards.of(id(item).partition), shard));
        own.collect()
    };
    shards.all().iter().map(of).collect()
}

impl Store for Writer {
    async fn clock(&self, id: PartitionId) -> Result<Millis, ReadError> {
        self.ask(id, &[], clock_of).await
    }

    async fn latest_clock(&self, id: PartitionId) -> Result<Millis, ReadError> {
        let shard = self.shards.of(id.partition);
        let clocks = shard.ask_each(self.read_timeout, clock_of).await?;
        Ok(clocks.into_iter().max().unwrap_or_default())
    }

    async fn turn(&self, id: PartitionId) -> Result<Turn, ReadError> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        Ok(Turn {
            ingested_at: self.clock(id).await?,
            place,
        })
    }

    async fn insert(&self, turn: Turn, insert: Insert<'_>) -> Result<(), InsertError> {
        // Asked after the clock that this insert carries: an insert that carries a later time than an
        // erasure's registration has seen it, and an erasure outwaits all others.
        let erasures = self.registered().await?;
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
        let shard = self.shards.of(insert.batch.id().partition);
        let (asked, client) = shard.asked();
        let request = native::insert(&shard.durable(client.clone()), table)
            .with_setting("insert_deduplication_token", insert.token)
            .with_setting("insert_deduplicate", "1")
            .with_setting("max_partitions_per_insert_block", "1")
            .with_timeouts(Some(self.insert_timeout), Some(self.insert_timeout));
        let answer = block.send(request).await;
        metrics::insert_seconds(started.elapsed());
        drop(turn.place);
        Ok(answer.inspect_err(|error| shard.failed(asked, error))?)
    }

    async fn may_land(&self, id: PartitionId, clock: Millis) -> Result<bool, ReadError> {
        let shard = self.shards.of(id.partition);
        let look = |client: Client| async move {
            // In this order: what gets past the check before the limit is running, or stored, when
            // the limit has passed and it is looked for.
            if clock_of(client.clone()).await? <= clock.later_by(LATE_LIMIT) {
                return Ok(true);
            }
            let running = client
                .query(
                    "SELECT count() AS number FROM system.processes \
                     WHERE current_database = currentDatabase() \
                     AND startsWith(Settings['insert_deduplication_token'], {prefix:String})",
                )
                .param("prefix", token_prefix(id))
                .fetch_one::<Number<u64>>();
            Ok(running.await?.number > 0)
        };
        match shard.ask_each(self.read_timeout, look).await {
            Ok(may) => Ok(may.contains(&true)),
            // What a replica that does not answer is storing is not known.
            Err(error) if shard.is_replicated() && !is_refusal(&error) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    async fn present(&self, id: PartitionId, range: OffsetRange) -> Result<Vec<u64>, ReadError> {
        let sql = format!(
            "SELECT DISTINCT offset AS number FROM ({} UNION ALL {}) ORDER BY offset",
            stored::offsets_in(&self.events, &self.dead_letters, id, range),
            removed::offsets_in(id, range)
        );
        let rows = self.rows::<Number<u64>>(id, sql).await?;
        Ok(rows.into_iter().map(|row| row.number).collect())
    }

    async fn highest(&self, id: PartitionId, from: u64) -> Result<Option<u64>, ReadError> {
        let sql = audit::end_of(&self.events, &self.dead_letters, id, End::Highest);
        let sql = format!("SELECT offset AS number FROM ({sql}) WHERE offset >= {from}");
        let rows = self.rows::<Number<u64>>(id, sql).await?;
        Ok(rows.first().map(|row| row.number))
    }

    async fn settled(&self, id: PartitionId) -> Result<Option<u64>, ReadError> {
        // In this order: what any server knows of this shard's the shard knows then.
        let replicated = self.shards.of(id.partition).is_replicated();
        let anywhere = if replicated {
            self.settled_anywhere(id).await?
        } else {
            None
        };
        let sql = settled_in(&self.watermarks, id);
        let tables = [self.watermarks.as_str()];
        let asked = self.ask(id, &tables, |client| async move {
            client.query_raw(&sql).fetch_optional::<Number<u64>>().await
        });
        let settled = asked.await?.map(|row| row.number);
        if anywhere > settled {
            return Err(ReadError::OtherShard(id.partition));
        }
        Ok(settled)
    }

    async fn count(&self, ranges: &[(PartitionId, OffsetRange)]) -> Result<Vec<Found>, ReadError> {
        let mut found = Vec::new();
        for ranges in by_shard(&self.shards, ranges, |(id, _)| *id) {
            found.extend(self.count_on_one_shard(&ranges).await?);
        }
        Ok(found)
    }

    async fn write_watermarks(&self, watermarks: &[Watermark]) -> Result<(), InsertError> {
        let updated_at = chrono::Utc::now().into();
        for watermarks in by_shard(&self.shards, watermarks, |watermark| watermark.id) {
            let Some(first) = watermarks.first() else {
                continue;
            };
            let shard = self.shards.of(first.id.partition);
            let (asked, client) = shard.asked();
            let client = shard.durable(client.clone());
            let insert = async {
                let mut insert = client.insert::<WatermarkRow>(&self.watermarks).await?;
                for watermark in &watermarks {
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
            let written = tokio::time::timeout(self.insert_timeout, insert).await;
            let written = written.unwrap_or(Err(Error::TimedOut));
            written.inspect_err(|error| shard.failed(asked, error))?;
        }
        Ok(())
    }

    async fn earlier(
        &self,
        id: PartitionId,
        keys: &[EventKey],
        below: u64,
    ) -> Result<HashMap<EventKey, u64>, ReadError> {
        self.earlier_keys(id, keys, below).await
    }
}
