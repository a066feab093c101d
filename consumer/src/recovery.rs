//! What to do with an insert in doubt: pure, so that every case can be tried.
//!
//! Of one partition there is never more than one insert whose outcome is unknown. Which offsets
//! are present is read back from ClickHouse and is the authority. While the insert may still land,
//! nothing is sent in its place; once it cannot any more, what is missing stays missing, and is
//! sent anew. An insert cannot land any more when ClickHouse's clock has passed the time it carries
//! by the late limit, so that both tables refuse it, and ClickHouse runs none that got past that
//! check before.

use std::time::Duration;

use audit_schema::row::LATE_LIMIT_SECONDS;

/// By how much ClickHouse's clock may have passed the time an insert carries when its last byte
/// arrives; later it is refused.
pub const LATE_LIMIT: Duration = Duration::from_secs(LATE_LIMIT_SECONDS);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: every row is there.
    Done,
    /// Look again: what is missing may still come.
    LookAgain,
    /// Insert the rows at these places of the wanted ones: nothing else will.
    Insert(Vec<usize>),
}

/// Says what to do, given the offsets that are wanted, those that are stored in either table
/// (`present`, ascending), and whether an insert could still land when `present` was read.
pub fn plan(wanted: &[u64], present: &[u64], may_land: bool) -> Plan {
    let missing: Vec<usize> = wanted
        .iter()
        .enumerate()
        .filter(|(_, offset)| present.binary_search(offset).is_err())
        .map(|(place, _)| place)
        .collect();
    if missing.is_empty() {
        Plan::Done
    } else if may_land {
        Plan::LookAgain
    } else {
        Plan::Insert(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_there_is_done_whatever_may_land() {
        assert_eq!(plan(&[1, 2], &[1, 2, 3], true), Plan::Done);
        assert_eq!(plan(&[], &[], true), Plan::Done);
    }

    #[test]
    fn what_may_still_land_is_waited_for() {
        assert_eq!(plan(&[1, 2], &[2], true), Plan::LookAgain);
    }

    #[test]
    fn only_what_is_missing_is_sent() {
        assert_eq!(plan(&[5, 6, 7], &[6], false), Plan::Insert(vec![0, 2]));
    }

    proptest! {
        #[test]
        fn what_is_sent_and_what_is_present_are_what_was_wanted(
            wanted in proptest::collection::btree_set(0_u64..50, 0..20),
            present in proptest::collection::btree_set(0_u64..50, 0..50),
        ) {
            let wanted: Vec<_> = wanted.into_iter().collect();
            let present: Vec<_> = present.into_iter().collect();
            let sent = match plan(&wanted, &present, false) {
                Plan::Insert(places) => places,
                Plan::Done => Vec::new(),
                Plan::LookAgain => panic!("nothing may land"),
            };
            for (place, offset) in wanted.iter().enumerate() {
                prop_assert!(sent.contains(&place) != present.contains(offset));
            }
        }
    }
}
