//! A frozen set in SQL: the rows in it, and the few that came after it.

use std::collections::BTreeMap;

use super::{FrozenSet, Query};
use crate::cursor::Place;
use audit_schema::row::EventRow;

/// A row belongs to a frozen set if its offset is below the end of its partition. A partition
/// without one ends at 0, so none of its rows belongs to the set.
pub(super) const IN_FROZEN_SET: &str = "source_offset < transform(\
    bitOr(bitShiftLeft(toUInt64(source_incarnation), 32), source_partition), \
    {end_partitions:Array(UInt64)}, {end_offsets:Array(UInt64)}, toUInt64(0))";

/// The query with the ends that [`IN_FROZEN_SET`] speaks of.
pub(super) fn bind(query: Query, set: &FrozenSet) -> Query {
    let partitions: Vec<_> = set
        .ends
        .iter()
        .map(|end| u64::from(end.incarnation) << 32 | u64::from(end.partition))
        .collect();
    let offsets: Vec<_> = set.ends.iter().map(|end| end.offset).collect();
    query
        .param("end_partitions", partitions)
        .param("end_offsets", offsets)
}

/// The condition of the rows that are not in `set`, which the index `by_offset` narrows to granules
/// with such rows: the newest, if all partitions grow alike.
pub(super) fn not_in(set: &FrozenSet) -> String {
    // Per incarnation, its partitions, and the lowest of their ends. Numbers of ours, not values of
    // a caller.
    let mut incarnations: BTreeMap<u32, (Vec<u32>, u64)> = BTreeMap::new();
    for end in &set.ends {
        let (partitions, lowest) = incarnations
            .entry(end.incarnation)
            .or_insert((Vec::new(), u64::MAX));
        partitions.push(end.partition);
        *lowest = end.offset.min(*lowest);
    }
    let mut near = none_of("source_incarnation", incarnations.keys().copied().collect());
    for (incarnation, (partitions, lowest)) in incarnations {
        let of_others = none_of("source_partition", partitions);
        near.push(format!(
            "(source_incarnation = {incarnation} AND ({} OR source_offset >= {lowest}))",
            of_others.join(" OR ")
        ));
    }
    format!("({}) AND NOT ({IN_FROZEN_SET})", near.join(" OR "))
}

/// Conditions of which one holds if the column has none of the numbers, as ranges, which an index of
/// least and greatest values understands.
fn none_of(column: &str, mut numbers: Vec<u32>) -> Vec<String> {
    numbers.sort_unstable();
    let mut ranges = Vec::new();
    let mut next = 0_u64;
    for number in numbers.into_iter().map(u64::from) {
        if number > next {
            ranges.push(format!("({column} >= {next} AND {column} < {number})"));
        }
        next = number.saturating_add(1);
    }
    ranges.push(format!("{column} >= {next}"));
    ranges
}

impl FrozenSet {
    /// Whether the row is in it.
    pub(super) fn has(&self, row: &EventRow) -> bool {
        let at = Place::of(row).position;
        at.offset < self.end_beside(&at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_schema::Position;
    use audit_schema::row::Millis;

    #[test]
    fn what_is_not_in_a_set_is_narrowed_by_ranges() {
        let end = |(incarnation, partition, offset)| Position {
            incarnation,
            partition,
            offset,
        };
        let set = |ends: &[(u32, u32, u64)]| FrozenSet {
            frozen_at: Millis(0),
            complete_up_to: None,
            ends: ends.iter().copied().map(end).collect(),
        };
        let said = [
            set(&[]),
            set(&[(1, 0, 70), (1, 1, 60)]),
            // Partition 1 of the second life was never settled.
            set(&[(1, 0, 70), (2, 2, 5), (2, 0, 4)]),
        ]
        .map(|set| not_in(&set).replace(IN_FROZEN_SET, "in"));
        insta::assert_snapshot!(said.join("\n"), @r"
        (source_incarnation >= 0) AND NOT (in)
        ((source_incarnation >= 0 AND source_incarnation < 1) OR source_incarnation >= 2 OR (source_incarnation = 1 AND (source_partition >= 2 OR source_offset >= 60))) AND NOT (in)
        ((source_incarnation >= 0 AND source_incarnation < 1) OR source_incarnation >= 3 OR (source_incarnation = 1 AND (source_partition >= 1 OR source_offset >= 70)) OR (source_incarnation = 2 AND ((source_partition >= 1 AND source_partition < 2) OR source_partition >= 3 OR source_offset >= 4))) AND NOT (in)
        ");
    }
}
