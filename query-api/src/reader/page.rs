//! Pages of a walk.
//!
//! A page is found by the place of its neighbour, never by time alone: rows that share a
//! millisecond are each on one page.

use std::time::{Duration, Instant};

use audit_schema::row::{EventRow, Millis};
use audit_service::traces::Span;
use clickhouse::Row;
use uuid::Uuid;

use super::total::{Count, Total};
use super::{Admitted, Among, ApiError, Filter, FrozenSet, Query, metrics, refusal};
use crate::cursor::{Cursor, Direction, Place, Walk};
use crate::filter::Order;

/// The parts of a row's place. The position decides between reports of one id.
pub(super) const PLACE: &[&str] = &[
    "created_at",
    "event_id",
    "source_incarnation",
    "source_partition",
    "source_offset",
];

/// Those that the table is ordered by: sorting by them reads the rows of the page and no others.
pub(super) const KEY: &[&str] = &["created_at", "event_id"];

/// The given place, as [`PLACE`] is.
const GIVEN_PLACE: &str = "(fromUnixTimestamp64Milli({place_time:Int64}, 'UTC'), {place_id:UUID}, \
    {place_incarnation:UInt32}, {place_partition:UInt32}, {place_offset:UInt64})";

/// Where a page begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Behind so many events of the walk.
    Top(u64),
    /// Beside the place of a cursor.
    At(&'a Cursor),
    /// Behind this place.
    Behind(&'a Place),
}

impl Start<'_> {
    /// The place the page lies beside, and on which side.
    fn beside(&self) -> Option<(&Place, Direction)> {
        match self {
            Self::Top(_) => None,
            Self::At(cursor) => Some((&cursor.place, cursor.direction)),
            Self::Behind(place) => Some((place, Direction::Onward)),
        }
    }

    fn skip(&self) -> u64 {
        match self {
            Self::Top(skip) => *skip,
            Self::At(_) | Self::Behind(_) => 0,
        }
    }
}

/// Which rows of a walk a page has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice<'a> {
    pub(crate) start: Start<'a>,
    /// How many at most.
    pub(crate) limit: u64,
}

/// One page, in the order of its walk, and what is around it.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<EventRow>,
    /// The most rows it could have.
    pub(crate) limit: u64,
    /// How many events of the frozen set are before it.
    pub(crate) offset: u64,
    /// Whether the walk goes on behind it.
    pub(crate) more: bool,
    pub(crate) total: Total,
    pub(crate) took: Took,
}

/// How long the parts of a page took; they are found and counted at the same time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    pub(crate) found: Duration,
    /// `None` if the total was known.
    pub(crate) counted: Option<Duration>,
}

impl Page {
    /// How many events of the frozen set are before the next page.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(count(&self.rows))
    }
}

/// The rows that are in `set`, if it is certain that no others belong in their place: up to `limit`
/// rows and one more were looked for among all.
fn within(mut rows: Vec<EventRow>, set: &FrozenSet, limit: u64) -> Option<Vec<EventRow>> {
    if count(&rows) <= limit {
        rows.retain(|row| set.has(row));
    }
    rows.iter().all(|row| set.has(row)).then_some(rows)
}

impl Admitted<'_> {
    /// The events of `filter` in a slice of `walk`, and how many there are in all, which is
    /// counted once in a walk.
    pub(crate) async fn page(
        &self,
        filter: &Filter,
        walk: &Walk,
        slice: Slice<'_>,
    ) -> Result<Page, ApiError> {
        let Walk { set, total } = walk;
        let begun = Instant::now();
        let total = async {
            if let Some(total) = total {
                return Ok((Total::Exactly(*total), None));
            }
            let counted = Span::part("total").within(self.total(filter, set)).await?;
            Ok((counted, Some(begun.elapsed())))
        };
        let rows = async {
            let found = self.rows(filter, set, slice);
            let found = Span::part("page").within(found).await?;
            Ok((found, begun.elapsed()))
        };
        let ((rows, found), (total, counted)) = tokio::try_join!(rows, total)?;
        Ok(Page {
            took: Took { found, counted },
            ..page(rows, total, slice)
        })
    }

    /// The row at a position, if `filter` matches it.
    pub(crate) async fn row_at(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        position: audit_schema::Position,
    ) -> Result<Option<EventRow>, ApiError> {
        let rest = " AND source_incarnation = {at_incarnation:UInt32} \
                    AND source_partition = {at_partition:UInt32} \
                    AND source_offset = {at_offset:UInt64}";
        let columns = EventRow::COLUMN_NAMES.join(", ");
        let query = self
            .select(&columns, filter, set, rest)
            .param("at_incarnation", position.incarnation)
            .param("at_partition", position.partition)
            .param("at_offset", position.offset);
        query.fetch_optional().await.map_err(refusal)
    }

    /// How many events a walk has up to a place and the event at it.
    pub(crate) async fn count_up_to(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        place: &Place,
    ) -> Result<u64, ApiError> {
        let than = match filter.order {
            Order::Descending => ">=",
            Order::Ascending => "<=",
        };
        let query = self.select("count() AS rows", filter, set, &beside_place(than));
        let query = at(query, place);
        let count = query.fetch_one::<Count>().await.map_err(refusal)?;
        Ok(count.rows)
    }

    /// The rows of [`page_query`](Self::page_query). Sorting by the whole place costs twice as much as
    /// by the key, and is needed only where one id was reported twice.
    async fn rows(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        slice: Slice<'_>,
    ) -> Result<Vec<EventRow>, ApiError> {
        let begun = Instant::now();
        let by = async |parts, among| {
            let query = self.page_query(filter, set, slice, parts, among);
            query.fetch_all::<EventRow>().await.map_err(refusal)
        };
        let rows = async {
            // What is skipped is not seen.
            if slice.start.skip() > 0 {
                return by(PLACE, Among::Set).await;
            }
            // The rows of a value are few of many, and to look for the set in all of those costs
            // more than the page. Mostly none of them came after it.
            if filter.is_looked_up() {
                let found = by(KEY, Among::All).await?;
                if !share_a_key(&found)
                    && let Some(found) = within(found, set, slice.limit)
                {
                    return Ok(found);
                }
            }
            match by(KEY, Among::Set).await {
                Ok(found) if share_a_key(&found) => by(PLACE, Among::Set).await,
                found => found,
            }
        };
        let rows = rows.await;
        metrics::queried("page", begun.elapsed());
        rows
    }

    /// The query for a page and one row more, which tells whether that was all. It sorts by
    /// `parts` of the place.
    pub(super) fn page_query(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        slice: Slice<'_>,
        parts: &[&str],
        among: Among,
    ) -> Query {
        let beside = slice.start.beside();
        let onward = beside.is_none_or(|(_, direction)| direction == Direction::Onward);
        let (than, direction) = match (filter.order, onward) {
            (Order::Descending, true) | (Order::Ascending, false) => ("<", "DESC"),
            (Order::Descending, false) | (Order::Ascending, true) => (">", "ASC"),
        };
        let beyond = beside.map(|_| beside_place(than));
        let order = parts.iter().map(|part| format!("{part} {direction}"));
        let rest = format!(
            "{} ORDER BY {} LIMIT {{rows:UInt64}} OFFSET {{skip:UInt64}}",
            beyond.unwrap_or_default(),
            order.collect::<Vec<_>>().join(", ")
        );
        let columns = EventRow::COLUMN_NAMES.join(", ");
        let query = self
            .query(filter, set, among, |events| {
                format!("SELECT {columns} {events}{rest}")
            })
            .param("rows", slice.limit.saturating_add(1))
            .param("skip", slice.start.skip())
            // Reading ahead costs more than it gives where a page is all that is wanted.
            .with_setting("read_in_order_use_buffering", "0")
            // With these an index of values or words is not believed, or asked too late.
            .with_setting("use_skip_indexes_for_top_k", "0")
            .with_setting("use_top_k_dynamic_filtering", "0")
            .with_setting("use_skip_indexes_on_data_read", "0")
            .with_setting("max_block_size", "8192");
        match beside {
            Some((place, _)) => at(query, place),
            None => query,
        }
    }
}

/// The condition that a row compares so to the given place: `<`, `<=`, `>` or `>=`.
fn beside_place(than: &str) -> String {
    // The first condition follows from the second, but the index understands only it.
    format!(
        " AND created_at {}= fromUnixTimestamp64Milli({{place_time:Int64}}, 'UTC') \
         AND ({}) {than} {GIVEN_PLACE}",
        than.trim_end_matches('='),
        PLACE.join(", ")
    )
}

fn count(rows: &[EventRow]) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
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
pub(super) fn share_a_key(rows: &[EventRow]) -> bool {
    let mut pairs = rows.iter().zip(rows.iter().skip(1));
    pairs.any(|(a, b)| key(a) == key(b))
}

/// What of a row is its [`KEY`].
pub(super) fn key(row: &EventRow) -> (Millis, Uuid) {
    (row.created_at, row.event_id)
}

/// The page made of the rows of [`Admitted::page_query`], and what is known of the total.
pub(super) fn page(mut rows: Vec<EventRow>, total: Total, slice: Slice<'_>) -> Page {
    let Slice { start, limit } = slice;
    let followed = count(&rows) > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let len = count(&rows);
    let (offset, more) = match start {
        Start::Top(skip) => (skip, followed),
        Start::At(cursor) => match cursor.direction {
            Direction::Onward => (cursor.offset, followed),
            Direction::Back => {
                rows.reverse();
                // The cursor's own event is the next one.
                (cursor.offset.saturating_sub(len), true)
            }
        },
        Start::Behind(_) => (0, followed),
    };
    let seen = match start {
        // Nothing is known of an offset behind the end.
        Start::Top(_) if rows.is_empty() => 0,
        _ => offset.saturating_add(len).saturating_add(more.into()),
    };
    Page {
        rows,
        limit,
        offset,
        more,
        total: match total {
            Total::AtLeast(counted) => Total::AtLeast(counted.max(seen)),
            exactly @ Total::Exactly(_) => exactly,
        },
        took: Took::default(),
    }
}
