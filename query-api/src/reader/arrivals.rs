//! Events in the order in which Kafka took them: what a live reader has not seen yet.
//!
//! Within a partition that is the order of offsets. Between partitions it is that of `loggedAt`,
//! as far as each partition's own order allows: the partitions are merged.

use std::collections::VecDeque;
use std::time::Instant;

use audit_schema::Position;
use audit_schema::row::{EVENTS, EventRow};
use clickhouse::Row;

use super::{Admitted, ApiError, Filter, FrozenSet, metrics, refusal};
use crate::cursor::Place;

/// What came, in order, and how far that goes.
#[derive(Debug, PartialEq)]
pub(crate) struct Arrivals {
    pub(crate) rows: Vec<EventRow>,
    /// What was seen when all of the rows are.
    pub(crate) seen: FrozenSet,
}

impl Admitted<'_> {
    /// The events of `filter` in `set` that are not in `seen`, at most `most` of each partition.
    pub(crate) async fn arrivals(
        &self,
        filter: &Filter,
        seen: &FrozenSet,
        set: &FrozenSet,
        most: u64,
    ) -> Result<Arrivals, ApiError> {
        let ranges = unseen(seen, set);
        if ranges.is_empty() {
            return Ok(merge(Vec::new(), seen, set, most));
        }
        let begun = Instant::now();
        let predicate = filter.predicate(set.frozen_at);
        // Numbers of ours, not values of a caller.
        let ranges = ranges.iter().map(|(from, end)| {
            format!(
                "(source_incarnation = {} AND source_partition = {} \
                 AND source_offset >= {} AND source_offset < {end})",
                from.incarnation, from.partition, from.offset
            )
        });
        let sql = format!(
            "SELECT {} FROM {EVENTS} WHERE {} AND ({}) \
             ORDER BY source_incarnation, source_partition, source_offset \
             LIMIT {most} BY source_incarnation, source_partition",
            EventRow::COLUMN_NAMES.join(", "),
            predicate.sql(),
            ranges.collect::<Vec<_>>().join(" OR ")
        );
        let rows = predicate.bind(self.client.query_raw(&sql)).fetch_all();
        let rows = rows.await.map_err(refusal)?;
        metrics::queried("arrivals", begun.elapsed());
        Ok(merge(rows, seen, set, most))
    }
}

/// The ranges of offsets in `set` that are not in `seen`: where each begins, and its end.
fn unseen(seen: &FrozenSet, set: &FrozenSet) -> Vec<(Position, u64)> {
    let ranges = set.ends.iter().map(|end| (begin(seen, end), end.offset));
    ranges.filter(|(from, end)| from.offset < *end).collect()
}

/// The first position of `end`'s partition that is not in `seen`.
fn begin(seen: &FrozenSet, end: &Position) -> Position {
    Position {
        offset: seen.end_beside(end),
        ..*end
    }
}

/// Merges rows that are sorted by position. Where a partition has `most` rows there may be more of
/// it, so what comes behind its last one is left for the next time.
fn merge(rows: Vec<EventRow>, seen: &FrozenSet, set: &FrozenSet, most: u64) -> Arrivals {
    let mut partitions: Vec<Partition> = Vec::new();
    for row in rows {
        let position = Place::of(&row).position;
        let of = (position.incarnation, position.partition);
        match partitions.last_mut().filter(|last| last.of == of) {
            Some(partition) => partition.rows.push_back(row),
            None => partitions.push(Partition {
                of,
                rows: VecDeque::from([row]),
                full: false,
            }),
        }
    }
    for partition in &mut partitions {
        partition.full = u64::try_from(partition.rows.len()).unwrap_or(u64::MAX) >= most;
    }

    let mut arrivals = Arrivals {
        rows: Vec::new(),
        seen: seen.clone(),
    };
    arrivals.seen.frozen_at = set.frozen_at;
    let logged_at = |partition: &&mut Partition| partition.rows.front().map(|row| row.logged_at);
    loop {
        let left = partitions.iter_mut().filter(|p| !p.rows.is_empty());
        let Some(earliest) = left.min_by_key(logged_at) else {
            arrivals.seen.widen(set);
            return arrivals;
        };
        if let Some(row) = earliest.rows.pop_front() {
            arrivals.seen.pass(&row);
            arrivals.rows.push(row);
        }
        if earliest.full && earliest.rows.is_empty() {
            return arrivals;
        }
    }
}

/// What a query gave of one partition.
struct Partition {
    /// Incarnation and number.
    of: (u32, u32),
    rows: VecDeque<EventRow>,
    /// Whether there may be more of it.
    full: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::row;
    use audit_schema::row::Millis;
    use proptest::prelude::*;

    fn set(ends: &[u64]) -> FrozenSet {
        let end = |(partition, offset): (u32, &u64)| Position {
            incarnation: 1,
            partition,
            offset: *offset,
        };
        FrozenSet {
            frozen_at: Millis(1),
            complete_up_to: None,
            ends: (0..).zip(ends).map(end).collect(),
        }
    }

    fn at(partition: u32, offset: u64, logged_at: i64) -> EventRow {
        EventRow {
            source_incarnation: 1,
            source_partition: partition,
            source_offset: offset,
            logged_at: Millis(logged_at),
            ..row()
        }
    }

    /// What the query gives: in the order of positions, so many of each partition.
    fn asked(table: &[EventRow], seen: &FrozenSet, set: &FrozenSet, most: u64) -> Vec<EventRow> {
        let mut rows = Vec::new();
        for (from, end) in unseen(seen, set) {
            let of = |row: &&EventRow| {
                row.source_partition == from.partition
                    && (from.offset..end).contains(&row.source_offset)
            };
            let of = table.iter().filter(of).take(usize::try_from(most).unwrap());
            rows.extend(of.cloned());
        }
        rows
    }

    #[test]
    fn partitions_are_merged_by_time_and_keep_their_own_order() {
        let rows = vec![at(0, 0, 10), at(0, 1, 40), at(1, 0, 30), at(1, 1, 20)];
        let arrivals = merge(rows, &set(&[0, 0]), &set(&[2, 2]), 10);
        let offsets: Vec<_> = arrivals
            .rows
            .iter()
            .map(|row| (row.source_partition, row.source_offset))
            .collect();
        assert_eq!(offsets, [(0, 0), (1, 0), (1, 1), (0, 1)]);
        assert_eq!(arrivals.seen, set(&[2, 2]));
    }

    proptest! {
        #[test]
        fn every_event_arrives_once_and_each_partition_in_order(
            offsets in prop::collection::vec((0_u32..3, 1_u64..4, 0_i64..50), 0..60),
            looks in prop::collection::vec(0_u64..40, 0..6),
            most in 1_u64..6,
        ) {
            let mut table = Vec::new();
            let mut next = [0_u64; 3];
            for (partition, step, logged_at) in offsets {
                let next = &mut next[usize::try_from(partition).unwrap()];
                *next += step;
                table.push(at(partition, *next, logged_at));
            }
            table.sort_by_key(|row| (row.source_partition, row.source_offset));
            let mut seen = set(&[0, 0, 0]);
            let mut arrived = Vec::new();
            let mut low = 0;
            let looks = looks.into_iter().map(|end| { low = low.max(end); low });
            // In the end everything is readable, and the reader comes back until it has all.
            let looks: Vec<_> = looks.chain(std::iter::repeat_n(1_000, 70)).collect();
            for end in looks {
                let now = set(&[end, end, end]);
                let arrivals = merge(asked(&table, &seen, &now, most), &seen, &now, most);
                arrived.extend(arrivals.rows);
                seen = arrivals.seen;
            }
            for partition in 0..3 {
                let of = |row: &&EventRow| row.source_partition == partition;
                let offsets = |rows: &[EventRow]| -> Vec<_> {
                    rows.iter().filter(of).map(|row| row.source_offset).collect()
                };
                prop_assert_eq!(offsets(&arrived), offsets(&table));
            }
        }
    }
}
