//! Reading events: the only module that speaks to ClickHouse.
//!
//! Everything it reads is asked for by a [`Filter`], which has a project, and by a [`FrozenSet`],
//! so what the consumer has not counted yet is not shown. A page is found by the place of its
//! neighbour, never by time alone: rows that share a millisecond are each on one page. Each query
//! is read-only and may use only so much time, memory and rows; only so many requests read at
//! once, and the others wait for a bounded time.

use std::time::{Duration, Instant};

use audit_schema::Position;
use audit_schema::clickhouse::{SOURCES, WATERMARKS};
use audit_schema::row::{EVENTS, EventRow, Millis};
use audit_service::ApiError;
use chrono::Utc;
use clickhouse::error::Error;
use clickhouse::query::Query;
use clickhouse::{Client, Row};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Queries;
use crate::cursor::{Cursor, Direction, FrozenSet, Place, Walk};
use crate::filter::Filter;
use crate::metrics;

/// A row belongs to a frozen set if its offset is below the end of its partition. A partition
/// without one ends at 0, so none of its rows belongs to the set.
const IN_FROZEN_SET: &str = "source_offset < transform(\
    bitOr(bitShiftLeft(toUInt64(source_incarnation), 32), source_partition), \
    {end_partitions:Array(UInt64)}, {end_offsets:Array(UInt64)}, toUInt64(0))";

/// The parts of a row's place. The position decides between reports of one id.
const PLACE: &[&str] = &[
    "created_at",
    "event_id",
    "source_incarnation",
    "source_partition",
    "source_offset",
];

/// Those that the table is ordered by: sorting by them reads the rows of the page and no others.
const KEY: &[&str] = &["created_at", "event_id"];

/// The given place, as [`PLACE`] is.
const GIVEN_PLACE: &str = "(fromUnixTimestamp64Milli({place_time:Int64}, 'UTC'), {place_id:UUID}, \
    {place_incarnation:UInt32}, {place_partition:UInt32}, {place_offset:UInt64})";

/// Reads from one ClickHouse.
pub(crate) struct Reader {
    client: Client,
    limits: Queries,
    admission: Semaphore,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// This many events below the newest.
    Top(u64),
    /// Beside the place of a cursor.
    At(&'a Cursor),
}

/// Which rows of a walk a page has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice<'a> {
    pub(crate) start: Start<'a>,
    /// How many at most.
    pub(crate) limit: u64,
}

/// One page, newest first, and what is around it.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<EventRow>,
    /// The most rows it could have.
    pub(crate) limit: u64,
    /// How many events of the frozen set are before it.
    pub(crate) offset: u64,
    /// Whether there are older ones.
    pub(crate) older: bool,
    pub(crate) total: Total,
}

impl Page {
    /// How many events of the frozen set are before the next page.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(count(&self.rows))
    }
}

fn count(rows: &[EventRow]) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

/// How many events a filter matches in a frozen set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Total {
    /// This many.
    Exactly(u64),
    /// This many were seen when the time to count was over.
    AtLeast(u64),
}

impl Total {
    /// The number, if it is the whole number.
    pub(crate) fn exactly(self) -> Option<u64> {
        match self {
            Self::Exactly(rows) => Some(rows),
            Self::AtLeast(_) => None,
        }
    }

    /// The number, and how the truth relates to it.
    pub(crate) fn with_relation(self) -> (u64, &'static str) {
        match self {
            Self::Exactly(rows) => (rows, "eq"),
            Self::AtLeast(rows) => (rows, "gte"),
        }
    }
}

#[derive(Debug, Row, Deserialize)]
struct Watermark {
    incarnation: u32,
    partition: u32,
    frozen_below: u64,
    complete: Millis,
    newest_incarnation: u32,
    newest_partitions: u32,
}

#[derive(Debug, Row, Deserialize)]
struct Count {
    rows: u64,
}

impl Reader {
    /// Reads through `client`, within `limits`.
    pub(crate) fn new(client: Client, limits: Queries) -> Self {
        let client = client
            // 2, not 1: the settings of a query may still be set beside it.
            .with_setting("readonly", "2")
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            .with_setting("max_execution_time", seconds(limits.time))
            .with_setting("max_memory_usage", limits.memory_bytes.to_string())
            .with_setting("max_result_rows", limits.result_rows.to_string());
        let admission = Semaphore::new(limits.at_once);
        Self {
            client,
            limits,
            admission,
        }
    }

    /// Lets a request read, or refuses it when it has waited long enough.
    pub(crate) async fn admit(&self) -> Result<Admitted<'_>, ApiError> {
        let admitted = tokio::time::timeout(self.limits.wait, self.admission.acquire()).await;
        let Ok(Ok(permit)) = admitted else {
            metrics::refused("busy");
            return Err(ApiError::Unavailable {
                reason: "too many queries are under way",
                retry_after: Duration::from_secs(1),
            });
        };
        metrics::admitted(self.limits.at_once, self.admission.available_permits());
        Ok(Admitted {
            reader: self,
            _permit: permit,
        })
    }

    /// A query for what `filter` matches in `set`, with `rest` behind its conditions.
    fn select(&self, columns: &str, filter: &Filter, set: &FrozenSet, rest: &str) -> Query {
        let predicate = filter.predicate();
        let sql = format!(
            "SELECT {columns} FROM {EVENTS} WHERE {} AND {IN_FROZEN_SET}{rest}",
            predicate.sql
        );
        let partition =
            |end: &Position| u64::from(end.incarnation) << 32 | u64::from(end.partition);
        let partitions: Vec<_> = set.ends.iter().map(partition).collect();
        let offsets: Vec<_> = set.ends.iter().map(|end| end.offset).collect();
        let mut query = self
            .client
            .query_raw(&sql)
            .param("end_partitions", partitions)
            .param("end_offsets", offsets);
        for (name, text) in predicate.texts {
            query = query.param(name, text);
        }
        for (name, list) in predicate.lists {
            query = query.param(name, list);
        }
        query
    }

    /// The query for a page and one row more, which tells whether that was all. It sorts by
    /// `parts` of the place.
    fn page_query(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        slice: Slice<'_>,
        parts: &[&str],
    ) -> Query {
        let (beside, direction) = match slice.start {
            Start::Top(_) => (None, "DESC"),
            Start::At(cursor) => match cursor.direction {
                Direction::Older => (Some((cursor, "<")), "DESC"),
                Direction::Newer => (Some((cursor, ">")), "ASC"),
            },
        };
        let beyond = beside.map(|(_, than)| {
            // The first condition follows from the second, but the index understands only it.
            format!(
                " AND created_at {than}= fromUnixTimestamp64Milli({{place_time:Int64}}, 'UTC') \
                 AND ({}) {than} {GIVEN_PLACE}",
                PLACE.join(", ")
            )
        });
        let order = parts.iter().map(|part| format!("{part} {direction}"));
        let rest = format!(
            "{} ORDER BY {} LIMIT {{rows:UInt64}} OFFSET {{skip:UInt64}}",
            beyond.unwrap_or_default(),
            order.collect::<Vec<_>>().join(", ")
        );
        let skip = match slice.start {
            Start::Top(skip) => skip,
            Start::At(_) => 0,
        };
        let query = self
            .select(&EventRow::COLUMN_NAMES.join(", "), filter, set, &rest)
            .param("rows", slice.limit.saturating_add(1))
            .param("skip", skip)
            // Reading ahead costs more than it gives where a page is all that is wanted.
            .with_setting("read_in_order_use_buffering", "0")
            .with_setting("max_block_size", "8192");
        match beside {
            Some((cursor, _)) => at(query, &cursor.place),
            None => query,
        }
    }

    /// Whether ClickHouse answers, and has our tables.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.watermarks().await.map(drop)
    }

    async fn watermarks(&self) -> Result<Vec<Watermark>, Error> {
        let sql = format!(
            "SELECT incarnation, partition, max(w.next_offset) AS frozen_below, \
             max(w.complete_up_to) AS complete, \
             toUInt32(ifNull((SELECT max(incarnation) FROM {SOURCES}), 0)) AS newest_incarnation, \
             toUInt32(ifNull((SELECT argMax(partitions, (incarnation, registered_at)) \
             FROM {SOURCES}), 0)) AS newest_partitions \
             FROM {WATERMARKS} AS w GROUP BY incarnation, partition ORDER BY incarnation, partition"
        );
        let begun = Instant::now();
        let watermarks = self.client.query_raw(&sql).fetch_all().await;
        metrics::queried("watermarks", begun.elapsed());
        watermarks
    }
}

/// A request that may read. It may ask several queries at once.
pub(crate) struct Admitted<'a> {
    reader: &'a Reader,
    _permit: SemaphorePermit<'a>,
}

impl Admitted<'_> {
    /// What is readable now.
    pub(crate) async fn freeze(&self) -> Result<FrozenSet, ApiError> {
        let frozen_at = Millis::from(Utc::now());
        let watermarks = self.reader.watermarks().await.map_err(refusal)?;
        Ok(frozen_set(&watermarks, frozen_at))
    }

    /// The events of `filter` in a slice of `walk`, and how many there are in all, which is
    /// counted once in a walk.
    pub(crate) async fn page(
        &self,
        filter: &Filter,
        walk: &Walk,
        slice: Slice<'_>,
    ) -> Result<Page, ApiError> {
        let Walk { set, total } = walk;
        if set.ends.is_empty() {
            return Ok(page(Vec::new(), Some(0), slice));
        }
        let total = async {
            match total {
                Some(total) => Ok(Some(*total)),
                None => self.total(filter, set).await,
            }
        };
        let (rows, total) = tokio::try_join!(self.rows(filter, set, slice), total)?;
        Ok(page(rows, total, slice))
    }

    /// Sorting by the whole place costs twice as much as by the key, and is needed only where
    /// one id was reported twice.
    async fn rows(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        slice: Slice<'_>,
    ) -> Result<Vec<EventRow>, ApiError> {
        let begun = Instant::now();
        let by = async |parts| {
            let query = self.reader.page_query(filter, set, slice, parts);
            query.fetch_all().await.map_err(refusal)
        };
        let rows = match slice.start {
            // What is skipped is not seen.
            Start::Top(1..) => by(PLACE).await,
            _ => match by(KEY).await {
                Ok(rows) if share_a_key(&rows) => by(PLACE).await,
                rows => rows,
            },
        };
        metrics::queried("page", begun.elapsed());
        rows
    }

    /// How many events there are; `None` if the time for that was not enough.
    async fn total(&self, filter: &Filter, set: &FrozenSet) -> Result<Option<u64>, ApiError> {
        let begun = Instant::now();
        let budget = self.reader.limits.total_time;
        let query = self
            .reader
            .select("count() AS rows", filter, set, "")
            .with_setting("max_execution_time", seconds(budget));
        let counted = tokio::time::timeout(budget, query.fetch_one::<Count>()).await;
        metrics::queried("total", begun.elapsed());
        let total = match counted {
            Err(_) => Ok(None),
            Ok(Ok(count)) => Ok(Some(count.rows)),
            Ok(Err(error)) if is_over_limits(&error) => Ok(None),
            Ok(Err(error)) => Err(refusal(error)),
        };
        metrics::totalled(matches!(total, Ok(Some(_))));
        total
    }
}

/// A time in seconds, as ClickHouse takes it.
fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// The set that the watermarks of all partitions say is readable.
fn frozen_set(watermarks: &[Watermark], frozen_at: Millis) -> FrozenSet {
    let registered = watermarks.first().map_or(0, |w| w.newest_incarnation);
    let newest = watermarks
        .iter()
        .map(|w| w.incarnation)
        .fold(registered, u32::max);
    let of_newest: Vec<_> = watermarks
        .iter()
        .filter(|w| w.incarnation == newest)
        .collect();
    // A registered partition that nobody has settled yet may hold events of any time.
    let missing = of_newest.first().is_some_and(|w| {
        let registered = usize::try_from(w.newest_partitions).unwrap_or(usize::MAX);
        w.newest_incarnation == newest && of_newest.len() < registered
    });
    let complete_up_to = of_newest.iter().map(|w| w.complete).min();
    FrozenSet {
        frozen_at,
        complete_up_to: complete_up_to.filter(|time| !missing && time.0 > 0),
        ends: watermarks
            .iter()
            .map(|w| Position {
                incarnation: w.incarnation,
                partition: w.partition,
                offset: w.frozen_below,
            })
            .collect(),
    }
}

fn at(query: Query, place: &Place) -> Query {
    query
        .param("place_time", place.created_at.0)
        .param("place_id", place.event_id.to_string())
        .param("place_incarnation", place.position.incarnation)
        .param("place_partition", place.position.partition)
        .param("place_offset", place.position.offset)
}

/// Whether two of the rows, which are sorted by it, have the same [`KEY`].
fn share_a_key(rows: &[EventRow]) -> bool {
    let mut pairs = rows.iter().zip(rows.iter().skip(1));
    pairs.any(|(a, b)| (a.created_at, a.event_id) == (b.created_at, b.event_id))
}

/// The page made of the rows of [`Reader::page_query`], and what is known of the total.
fn page(mut rows: Vec<EventRow>, total: Option<u64>, slice: Slice<'_>) -> Page {
    let Slice { start, limit } = slice;
    let more = count(&rows) > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let len = count(&rows);
    let (offset, older) = match start {
        Start::Top(skip) => (skip, more),
        Start::At(cursor) => match cursor.direction {
            Direction::Older => (cursor.offset, more),
            Direction::Newer => {
                rows.reverse();
                // The cursor's own event is the next older one.
                (cursor.offset.saturating_sub(len), true)
            }
        },
    };
    let seen = match start {
        // Nothing is known of an offset behind the end.
        Start::Top(_) if rows.is_empty() => 0,
        _ => offset.saturating_add(len).saturating_add(older.into()),
    };
    Page {
        rows,
        limit,
        offset,
        older,
        total: total.map_or(Total::AtLeast(seen), Total::Exactly),
    }
}

/// What a failed query means for the caller.
fn refusal(error: Error) -> ApiError {
    if is_over_limits(&error) {
        metrics::refused("too_broad");
        return ApiError::TooBroad;
    }
    let away = match exception_code(&error) {
        // Too many queries, an unreachable shard, shutting down, no keeper.
        Some(code) => matches!(code, 202 | 209 | 210 | 236 | 279 | 999),
        // Nobody there, or somebody else.
        None => matches!(
            error,
            Error::Network(_) | Error::TimedOut | Error::BadResponse(_)
        ),
    };
    if away {
        return unavailable(&error);
    }
    ApiError::internal(error)
}

/// Whether it is about too much time (two ways), memory, rows or bytes.
fn is_over_limits(error: &Error) -> bool {
    matches!(
        exception_code(error),
        Some(158 | 159 | 160 | 241 | 307 | 396)
    )
}

fn unavailable(error: &Error) -> ApiError {
    metrics::refused("unavailable");
    tracing::warn!(%error, "clickhouse did not answer a query");
    ApiError::Unavailable {
        reason: "the events cannot be read at the moment",
        retry_after: Duration::from_secs(1),
    }
}

/// The number in `Code: 159. DB::Exception: …`.
fn exception_code(error: &Error) -> Option<u32> {
    let Error::BadResponse(text) = error else {
        return None;
    };
    let (_, rest) = text.split_once("Code: ")?;
    let (code, _) = rest.split_once('.')?;
    code.parse().ok()
}

#[cfg(test)]
mod tests;
