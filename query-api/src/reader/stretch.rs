//! Stretches of a walk, for files: many rows of one query, taken as they come.
//!
//! To find where a stretch begins costs as much as some ten thousand of its rows, so it is long. Its query
//! waits for whoever takes its rows, and ends when it is dropped.

use std::time::{Duration, Instant};

use audit_schema::row::EventRow;
use clickhouse::query::RowCursor;

use super::page::{KEY, PLACE, Slice, Start, key};
use super::{Admitted, Among, ApiError, Filter, FrozenSet, metrics, refusal};
use crate::cursor::Place;

/// Most rows that are taken at once, and most bytes of their texts, but for the last row.
const ROWS: usize = 1_000;
const TEXT_BYTES: usize = 4 << 20;

/// Most rows that are sorted by more than the key.
const SORTED_BY_PLACE: u64 = 2_000;

/// Rows that follow one another in a walk.
pub(crate) struct Stretch<'a> {
    admitted: &'a Admitted<'a>,
    filter: &'a Filter,
    set: &'a FrozenSet,
    /// The place of the last row that was given.
    behind: Option<Place>,
    /// How many rows there may still be.
    left: u64,
    rows: RowCursor<EventRow>,
    /// Whether all were read.
    ended: bool,
    /// What they are sorted by.
    by: &'static [&'static str],
    /// A row that was read and not given: the next one may have the same key.
    held: Option<EventRow>,
    /// For how long ClickHouse was waited for.
    waited: Duration,
}

impl Admitted<'_> {
    /// The events of a walk behind a place, or from its beginning: `length` of them at most, and one
    /// at least.
    pub(crate) fn stretch<'a>(
        &'a self,
        filter: &'a Filter,
        set: &'a FrozenSet,
        behind: Option<Place>,
        length: u64,
    ) -> Result<Stretch<'a>, ApiError> {
        Ok(Stretch {
            rows: self.rows_behind(filter, set, behind.as_ref(), length, KEY)?,
            admitted: self,
            filter,
            set,
            behind,
            left: length,
            ended: false,
            by: KEY,
            held: None,
            waited: Duration::ZERO,
        })
    }

    fn rows_behind(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        behind: Option<&Place>,
        length: u64,
        by: &[&str],
    ) -> Result<RowCursor<EventRow>, ApiError> {
        let slice = Slice {
            start: behind.map_or(Start::Top(0), Start::Behind),
            // A page looks for one row more.
            limit: length.saturating_sub(1),
        };
        let query = self.page_query(filter, set, slice, by, Among::Set);
        let query = query.with_setting("max_result_rows", length.to_string());
        query.fetch().map_err(refusal)
    }
}

impl Stretch<'_> {
    /// The next rows; none when it ended.
    pub(crate) async fn next(&mut self) -> Result<Vec<EventRow>, ApiError> {
        let begun = Instant::now();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while !self.ended && rows.len() < ROWS && bytes < TEXT_BYTES {
            let Some(row) = self.rows.next().await.map_err(refusal)? else {
                self.ended = true;
                rows.extend(self.held.take().map(|row| self.given(row)));
                break;
            };
            let same = self.held.as_ref().map(key) == Some(key(&row));
            if same && self.by == KEY {
                // Their order is that of their positions. By these ClickHouse sorts all that is left of
                // the walk, and for more rows than `query_plan_max_limit_for_lazy_materialization` it
                // reads all columns of that. So only few are read so, and the stretch ends with them.
                self.by = PLACE;
                self.held = None;
                self.left = self.left.min(SORTED_BY_PLACE);
                let (behind, left) = (self.behind.as_ref(), self.left);
                self.rows =
                    self.admitted
                        .rows_behind(self.filter, self.set, behind, left, PLACE)?;
                continue;
            }
            if let Some(before) = self.held.replace(row) {
                bytes += text_bytes(&before);
                rows.push(self.given(before));
            }
        }
        self.waited += begun.elapsed();
        Ok(rows)
    }

    fn given(&mut self, row: EventRow) -> EventRow {
        self.behind = Some(Place::of(&row));
        self.left = self.left.saturating_sub(1);
        row
    }

    /// Whether it ended because the walk did.
    pub(crate) fn ends_the_walk(&self) -> bool {
        self.ended && self.left > 0
    }
}

impl Drop for Stretch<'_> {
    fn drop(&mut self) {
        metrics::queried("file", self.waited);
    }
}

/// The bytes of a row that have no bound of their own.
fn text_bytes(row: &EventRow) -> usize {
    let texts = [&row.event_data, &row.event_display_name, &row.user_agent];
    texts.iter().map(|text| text.len()).sum()
}
