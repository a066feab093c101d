//! How many events a filter matches in a frozen set.
//!
//! Indexes and projections know how many rows have a value, but not which of them are in a frozen
//! set. Those that are not are the newest and few. So the total is the number of all that match,
//! less those that came after the set, all counted in one snapshot of the table:
//!
//! ```text
//! |set ∧ wanted ∧ ¬unwanted| = |wanted| − |wanted ∧ unwanted| − |wanted ∧ ¬unwanted ∧ ¬set|
//! ```
//!
//! Where every row has to be taken apart to tell whether it matches, those in the set are counted
//! one by one, for as long as there is time, and the total says how far that went.

use std::time::{Duration, Instant};

use clickhouse::Row;
use serde::Deserialize;

use super::refusal::is_over_limits;
use super::{
    Admitted, Among, ApiError, EVENTS, Filter, FrozenSet, Query, frozen, metrics, refusal, seconds,
};

/// How much of the time for the total the engine may take, in percent: the rest is for its answer
/// to come in time.
const COUNTING_SHARE: u32 = 80;

/// How much earlier than it should the engine may break off: it reads a clock that ticks.
const TICK: Duration = Duration::from_millis(10);

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

    /// The number, whatever it says.
    pub(crate) fn number(self) -> u64 {
        let (Self::Exactly(rows) | Self::AtLeast(rows)) = self;
        rows
    }
}

#[derive(Debug, Row, Deserialize)]
pub(super) struct Count {
    pub(super) rows: u64,
}

impl Admitted<'_> {
    /// How many events there are, or how many were counted when the time for that was over.
    pub(super) async fn total(&self, filter: &Filter, set: &FrozenSet) -> Result<Total, ApiError> {
        let begun = Instant::now();
        let budget = self.limits.total_time;
        let counting = budget * COUNTING_SHARE / 100;
        let scans = filter.scans();
        let query = if scans {
            self.one_by_one(filter, set, counting)
        } else {
            self.by_difference(filter, set)
                .with_setting("max_execution_time", seconds(counting))
        };
        let counted = tokio::time::timeout(budget, query.fetch_one::<Count>()).await;
        let took = begun.elapsed();
        metrics::queried("total", took);
        let total = match counted {
            // The engine's clock began after ours, so an answer that came before its time was over
            // is whole.
            Ok(Ok(count)) if !scans || took.saturating_add(TICK) < counting => {
                Ok(Total::Exactly(count.rows))
            }
            Ok(Ok(count)) => Ok(Total::AtLeast(count.rows)),
            Err(_) => Ok(Total::AtLeast(0)),
            Ok(Err(error)) if is_over_limits(&error) => Ok(Total::AtLeast(0)),
            Ok(Err(error)) => Err(refusal(error)),
        };
        metrics::totalled(matches!(total, Ok(Total::Exactly(_))));
        total
    }

    /// Counts the rows of the set; a count that is broken off says how far it went.
    fn one_by_one(&self, filter: &Filter, set: &FrozenSet, counting: Duration) -> Query {
        // Only what reads may break off. If the whole query did, it would count nothing.
        let query = self.query(filter, set, Among::Set, |events| {
            format!(
                "SELECT count() AS rows FROM (SELECT 1 {events} \
                 SETTINGS max_execution_time = {}, timeout_overflow_mode = 'break')",
                seconds(counting)
            )
        });
        // Between blocks it looks at its clock.
        query.with_setting("max_block_size", "8192")
    }

    /// Counts all rows that match, less those that are not in the set.
    fn by_difference(&self, filter: &Filter, set: &FrozenSet) -> Query {
        let predicate = filter.predicate(set.frozen_at);
        let wanted = &predicate.wanted;
        let mut less = vec![format!("{} AND {}", predicate.sql(), frozen::not_in(set))];
        if !predicate.unwanted.is_empty() {
            let unwanted = predicate.unwanted.join(") OR (");
            less.push(format!("{wanted} AND (({unwanted}))"));
        }
        let less = less.iter().map(|condition| {
            format!(" UNION ALL SELECT -toInt64(count()) FROM {EVENTS} WHERE {condition}")
        });
        let sql = format!(
            "SELECT toUInt64(sum(n)) AS rows FROM \
             (SELECT toInt64(count()) AS n FROM {EVENTS} WHERE {wanted}{})",
            less.collect::<String>()
        );
        let query = predicate
            .bind(self.client.query_raw(&sql))
            .with_setting("enable_shared_storage_snapshot_in_query", "1");
        frozen::bind(query, set)
    }
}
