//! What to do with a range whose insert is in doubt: pure, so that every case can be tried.
//!
//! Three facts decide. Which offsets are present is read back from ClickHouse and is the
//! authority. The token makes a repeated insert of the *same* rows harmless, but a crash of
//! ClickHouse can leave its log of tokens wrong in either direction: rows without an entry, or an
//! entry without rows. And an insert that nobody waits for any more is refused by the server once
//! the late limit has passed, so that after it what is missing stays missing.

use std::time::Duration;

use audit_schema::row::LATE_LIMIT_SECONDS;

/// How long after it was sent the server still takes an insert.
///
/// It must not be above the session time-out of the consumer group: then a member that was replaced
/// can no longer insert.
pub const LATE_LIMIT: Duration = Duration::from_secs(LATE_LIMIT_SECONDS);

/// What is waited beyond the limit for a server that stores what it has just let pass.
pub const LATE_MARGIN: Duration = Duration::from_secs(2);

/// What is known of the token that the rows were first sent under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstToken {
    /// A predecessor sent them, in a batch whose ends nobody remembers.
    Unknown,
    /// It is known, and no insert under it was answered cleanly since.
    Unanswered,
    /// It is known, and an insert under it was answered cleanly: whatever is missing now, the
    /// log of tokens has an entry without rows.
    Answered,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Every row is there.
    Done,
    /// Insert all of them again, under the same token: an attempt still under way stays harmless.
    SameAgain,
    /// Wait until nothing sent before can land, then look again.
    OutwaitLateInserts,
    /// Insert these under a token of their own, which names exactly them.
    OnlyMissing(Vec<u64>),
}

/// Says what to do, given the offsets one insert was to bring (`wanted`), those that are stored in
/// either table (`present`, ascending), and whether the late limit had passed, since anything was
/// last sent by anyone, before `present` was read.
pub fn plan(wanted: &[u64], present: &[u64], token: FirstToken, late_limit_passed: bool) -> Plan {
    let missing: Vec<u64> = wanted
        .iter()
        .copied()
        .filter(|offset| present.binary_search(offset).is_err())
        .collect();
    if missing.is_empty() {
        Plan::Done
    } else if token == FirstToken::Unanswered && missing.len() == wanted.len() {
        // One insert is stored whole or not at all. So a range that is there in part was not cut
        // by a crash, and its token may be gone: repeating all of it could double the rest.
        Plan::SameAgain
    } else if late_limit_passed {
        Plan::OnlyMissing(missing)
    } else {
        Plan::OutwaitLateInserts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_done_where_nothing_is_missing() {
        for token in [
            FirstToken::Unknown,
            FirstToken::Unanswered,
            FirstToken::Answered,
        ] {
            assert_eq!(plan(&[1, 2], &[1, 2], token, false), Plan::Done);
        }
        assert_eq!(plan(&[], &[], FirstToken::Unknown, false), Plan::Done);
    }

    #[test]
    fn the_same_token_comes_first() {
        assert_eq!(
            plan(&[1, 2], &[], FirstToken::Unanswered, false),
            Plan::SameAgain
        );
        assert_eq!(
            plan(&[1, 2], &[], FirstToken::Unanswered, true),
            Plan::SameAgain
        );
    }

    #[test]
    fn another_token_waits_for_the_late_limit() {
        for token in [FirstToken::Unknown, FirstToken::Answered] {
            assert_eq!(plan(&[1, 2], &[], token, false), Plan::OutwaitLateInserts);
            assert_eq!(plan(&[1, 2], &[2], token, true), Plan::OnlyMissing(vec![1]));
        }
    }

    #[test]
    fn a_range_that_is_there_in_part_is_never_sent_whole() {
        assert_eq!(
            plan(&[1, 2], &[1], FirstToken::Unanswered, false),
            Plan::OutwaitLateInserts
        );
    }

    proptest! {
        #[test]
        fn what_is_present_is_never_sent_under_another_token(
            wanted in proptest::collection::btree_set(0_u64..50, 0..20),
            present in proptest::collection::btree_set(0_u64..50, 0..50),
            late in any::<bool>(),
        ) {
            let wanted: Vec<_> = wanted.into_iter().collect();
            let present: Vec<_> = present.into_iter().collect();
            for token in [FirstToken::Unknown, FirstToken::Unanswered, FirstToken::Answered] {
                match plan(&wanted, &present, token, late) {
                    Plan::OnlyMissing(rows) => {
                        prop_assert!(late);
                        prop_assert!(rows.iter().all(|row| !present.contains(row)));
                    }
                    Plan::SameAgain => prop_assert!(wanted.iter().all(|row| !present.contains(row))),
                    Plan::Done => prop_assert!(wanted.iter().all(|row| present.contains(row))),
                    Plan::OutwaitLateInserts => prop_assert!(!late || token == FirstToken::Unanswered),
                }
            }
        }
    }
}
