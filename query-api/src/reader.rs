//! Reading events: the only module that speaks to ClickHouse.
//!
//! Everything it reads is asked for by a [`Filter`], which has a project, and by a [`FrozenSet`],
//! so what the consumer has not counted yet is not shown. Each query is read-only and may use only
//! so much time, memory and rows, and ends when whoever asked leaves.
//!
//! Reads wait in three lanes. Pages and counts are short: so many read at once, and no more than some
//! of one key; the others wait in the order they came, for a bounded time. Live readers, one look a
//! turn, and files, one stretch a turn, have a lane each, at a lower priority: however many there
//! are, a page finds a place, and no event is seen late because of files.

mod arrivals;
mod counts;
mod fairness;
mod frozen;
mod page;
mod refusal;
mod removed;
mod stretch;
mod total;
mod watermarks;

use std::time::{Duration, Instant};

use audit_schema::row::{EVENTS, Millis};
use audit_service::ApiError;
use chrono::Utc;
use clickhouse::Client;
use clickhouse::error::Error;
use clickhouse::query::Query;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::caller::Caller;
use crate::config::Queries;
use crate::cursor::FrozenSet;
use crate::filter::Filter;
use crate::metrics;
pub(crate) use counts::{By, Counts, Histogram};
use fairness::{KeyTurn, KeyTurns};
use frozen::IN_FROZEN_SET;
pub(crate) use page::{Page, Slice, Start, Took};
use refusal::refusal;
pub(crate) use total::Total;

/// What queries for files and live readers are worth beside those of pages, which is 1.
const BULK_PRIORITY: &str = "10";

/// How old what live readers share may be.
const SHARED_FOR: Duration = Duration::from_millis(80);

/// Reads from one ClickHouse.
pub(crate) struct Reader {
    limits: Queries,
    pages: Lane,
    keys: KeyTurns,
    live: Lane,
    files: Lane,
    /// What was readable lately, for all live readers.
    lately: Mutex<Option<(Instant, FrozenSet)>>,
}

/// Reads that wait for one another.
struct Lane {
    client: Client,
    turns: Semaphore,
    at_once: usize,
}

impl Reader {
    /// Reads through `client`, within `limits`.
    pub(crate) fn new(client: Client, limits: Queries) -> Self {
        let client = client
            // 2, not 1: the settings of a query may still be set beside it.
            .with_setting("readonly", "2")
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            .with_setting("max_memory_usage", limits.memory_bytes.to_string())
            .with_setting("max_result_rows", limits.result_rows.to_string());
        let pages = client
            .clone()
            .with_setting("priority", "1")
            .with_setting("max_execution_time", seconds(limits.time));
        let bulk = client
            .with_setting("priority", BULK_PRIORITY)
            .with_setting("max_threads", "1")
            .with_setting("max_execution_time", seconds(limits.bulk_time));
        Self {
            pages: Lane::new(pages, limits.at_once),
            keys: KeyTurns::new(limits.at_once_per_key),
            live: Lane::new(bulk.clone(), limits.bulk_at_once),
            files: Lane::new(bulk, limits.bulk_at_once),
            lately: Mutex::new(None),
            limits,
        }
    }

    /// Lets a request of `caller` read, or refuses it when it has waited long enough.
    pub(crate) async fn admit(&self, caller: &Caller) -> Result<Admitted<'_>, ApiError> {
        let admitted = async {
            let turn = self.keys.turn(caller).await?;
            self.admit_to(&self.pages, Some(turn)).await
        };
        let admitted = tokio::time::timeout(self.limits.wait, admitted).await;
        let Ok(Some(admitted)) = admitted else {
            metrics::refused("busy");
            return Err(ApiError::Unavailable {
                reason: "too many queries are under way",
                retry_after: Duration::from_secs(1),
            });
        };
        metrics::admitted(self.pages.at_once, self.pages.turns.available_permits());
        Ok(admitted)
    }

    /// The next turn of a live reader; it waits for as long as its client does.
    pub(crate) async fn live_turn(&self) -> Result<Admitted<'_>, ApiError> {
        self.turn(&self.live).await
    }

    /// The same for a file.
    pub(crate) async fn file_turn(&self) -> Result<Admitted<'_>, ApiError> {
        self.turn(&self.files).await
    }

    async fn turn<'a>(&'a self, lane: &'a Lane) -> Result<Admitted<'a>, ApiError> {
        let admitted = self.admit_to(lane, None).await;
        admitted.ok_or_else(|| ApiError::internal("the lane was closed"))
    }

    async fn admit_to<'a>(
        &'a self,
        lane: &'a Lane,
        turn: Option<KeyTurn<'a>>,
    ) -> Option<Admitted<'a>> {
        let permit = lane.turns.acquire().await.ok()?;
        Some(Admitted {
            client: &lane.client,
            limits: &self.limits,
            _permit: permit,
            _turn: turn,
        })
    }

    /// What was readable a moment ago; one look serves all who ask meanwhile.
    pub(crate) async fn lately(&self) -> Result<FrozenSet, ApiError> {
        let mut lately = self.lately.lock().await;
        if let Some((looked, set)) = &*lately
            && looked.elapsed() < SHARED_FOR
        {
            return Ok(set.clone());
        }
        let set = watermarks::freeze(&self.pages.client).await?;
        *lately = Some((Instant::now(), set.clone()));
        Ok(set)
    }

    /// Whether ClickHouse answers, and has our tables.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        watermarks::read(&self.pages.client).await.map(drop)
    }
}

impl Lane {
    fn new(client: Client, at_once: usize) -> Self {
        Self {
            client,
            turns: Semaphore::new(at_once),
            at_once,
        }
    }
}

/// Which rows a query is about.
#[derive(Debug, Clone, Copy)]
enum Among {
    /// Those of the frozen set.
    Set,
    /// All there are.
    All,
}

/// A request that may read. It may ask several queries at once.
pub(crate) struct Admitted<'a> {
    client: &'a Client,
    limits: &'a Queries,
    _permit: SemaphorePermit<'a>,
    /// Of its key's, if it is in the lane of pages.
    _turn: Option<KeyTurn<'a>>,
}

impl Admitted<'_> {
    /// What is readable now.
    pub(crate) async fn freeze(&self) -> Result<FrozenSet, ApiError> {
        watermarks::freeze(self.client).await
    }

    /// The set that a request named, or what is readable now.
    pub(crate) async fn named_or_now(
        &self,
        named: Option<FrozenSet>,
    ) -> Result<FrozenSet, ApiError> {
        match named {
            Some(set) => Ok(set),
            None => self.freeze().await,
        }
    }

    /// A query for what `filter` matches in `set`, with `rest` behind its conditions.
    fn select(&self, columns: &str, filter: &Filter, set: &FrozenSet, rest: &str) -> Query {
        self.query(filter, set, Among::Set, |events| {
            format!("SELECT {columns} {events}{rest}")
        })
    }

    /// A query that `say` writes around `FROM … WHERE …`, what `filter` matches in `set` or of all.
    fn query(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        among: Among,
        say: impl Fn(&str) -> String,
    ) -> Query {
        let predicate = filter.predicate(set.frozen_at);
        let in_set = match among {
            Among::Set => format!(" AND {IN_FROZEN_SET}"),
            Among::All => String::new(),
        };
        let sql = say(&format!("FROM {EVENTS} WHERE {}{in_set}", predicate.sql()));
        frozen::bind(predicate.bind(self.client.query_raw(&sql)), set)
    }
}

/// A time in seconds, as ClickHouse takes it.
fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

#[cfg(test)]
mod tests;
