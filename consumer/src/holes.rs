//! Holes: the offsets of a range that are in neither table and were not taken away by retention.

use std::time::{Duration, Instant};

use audit_schema::OffsetRange;

use crate::batch::PartitionId;
use crate::error::ReadError;
use crate::store::Store;

/// How many offsets are looked at together.
const WINDOW: u64 = 100_000;

/// How often it is said how far a long look has come.
const PROGRESS: Duration = Duration::from_secs(5);

/// The offsets of `range` that are in neither table, as ranges, ascending.
pub(crate) async fn missing(
    store: &impl Store,
    id: PartitionId,
    range: OffsetRange,
) -> Result<Vec<OffsetRange>, ReadError> {
    let mut missing = Vec::new();
    let mut from = range.first();
    let mut said = Instant::now();
    while let Some(window) = OffsetRange::until(from, range.end().min(from.saturating_add(WINDOW)))
    {
        let present = store.present(id, window).await?;
        extend(&mut missing, window, &present);
        from = window.end();
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            tracing::info!(
                kafka.partition = id.partition,
                at = from,
                until = range.end(),
                missing = count(&missing),
                "looking for missing offsets"
            );
        }
    }
    Ok(missing)
}

/// Adds what of `window` is not `present`, which is ascending.
fn extend(missing: &mut Vec<OffsetRange>, window: OffsetRange, present: &[u64]) {
    let mut next = window.first();
    for present in present.iter().copied().chain([window.end()]) {
        if let Some(hole) = OffsetRange::until(next, present) {
            let before = missing.last().copied();
            match before.filter(|before| before.end() == hole.first()) {
                Some(before) => {
                    missing.pop();
                    missing.extend(OffsetRange::new(before.first(), hole.last()));
                }
                None => missing.push(hole),
            }
        }
        next = present.saturating_add(1);
    }
}

/// How many offsets lie in `ranges`.
pub(crate) fn count(ranges: &[OffsetRange]) -> u64 {
    ranges
        .iter()
        .fold(0, |sum, range| sum.saturating_add(range.len()))
}

/// The parts of `ranges` below `offset`, and those from there on.
pub(crate) fn split(ranges: &[OffsetRange], offset: u64) -> (Vec<OffsetRange>, Vec<OffsetRange>) {
    let below = ranges
        .iter()
        .filter_map(|range| OffsetRange::until(range.first(), range.end().min(offset)));
    let from = ranges
        .iter()
        .filter_map(|range| OffsetRange::until(range.first().max(offset), range.end()));
    (below.collect(), from.collect())
}

/// Ranges for people: the first of them, and how many there are.
pub(crate) fn named(ranges: &[OffsetRange]) -> String {
    const NAMED: usize = 10;
    let mut text: Vec<String> = ranges.iter().take(NAMED).map(ToString::to_string).collect();
    if ranges.len() > NAMED {
        text.push(format!("… ({} ranges)", ranges.len()));
    }
    text.join(", ")
}

/// Ranges as a machine reads them: `[first, last]` each.
pub(crate) fn pairs(ranges: &[OffsetRange]) -> Vec<[u64; 2]> {
    ranges.iter().map(|r| [r.first(), r.last()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u64, last: u64) -> OffsetRange {
        OffsetRange::new(first, last).unwrap()
    }

    #[test]
    fn a_hole_over_two_windows_is_one() {
        let mut missing = Vec::new();
        extend(&mut missing, range(0, 9), &[0, 1, 2, 3, 4, 5, 6]);
        extend(&mut missing, range(10, 19), &[12, 13, 14, 15, 16, 17, 18]);
        assert_eq!(missing, [range(7, 11), range(19, 19)]);
        assert_eq!(count(&missing), 6);
        assert_eq!(named(&missing), "7-11, 19-19");
    }

    #[test]
    fn ranges_are_split_at_an_offset() {
        let holes = [range(2, 4), range(6, 9)];
        assert_eq!(
            split(&holes, 7),
            (vec![range(2, 4), range(6, 6)], vec![range(7, 9)])
        );
        assert_eq!(split(&holes, 0), (vec![], holes.to_vec()));
        assert_eq!(split(&holes, 99), (holes.to_vec(), vec![]));
    }

    proptest! {
        #[test]
        fn an_offset_is_present_or_missing(
            present in proptest::collection::btree_set(0_u64..60, 0..60),
        ) {
            let present: Vec<_> = present.into_iter().collect();
            let mut missing = Vec::new();
            for window in [range(0, 19), range(20, 39), range(40, 59)] {
                let of_window: Vec<_> =
                    present.iter().copied().filter(|o| window.contains(*o)).collect();
                extend(&mut missing, window, &of_window);
            }
            for offset in 0..60 {
                prop_assert_ne!(
                    present.contains(&offset),
                    missing.iter().any(|hole| hole.contains(offset))
                );
            }
        }
    }
}
