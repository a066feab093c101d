//! Three replicas of the tables, of which one lags behind whatever was inserted last.
//!
//! A member asks one of them until it fails, and then the next, which has to fetch first what the
//! others have. Their clocks differ.

use crate::schedule::{FAULTS, Fault, REPLICA_FAULTS, Schedule};
use crate::two_owners::freezes;
use crate::{run, run_two};

/// How many steps behind the first fault the second one is tried.
const NEXT_STEPS: usize = 3;

/// A schedule without faults.
pub(crate) fn replicated() -> Schedule {
    Schedule {
        more_replicas: 2,
        ..Schedule::default()
    }
}

/// How many steps it takes when nothing goes wrong.
pub(crate) fn steps() -> usize {
    run(replicated()).steps[0]
}

fn holds(faults: Vec<(usize, usize, Fault)>) {
    let schedule = Schedule {
        faults,
        ..replicated()
    };
    let end = run(schedule.clone());
    assert!(end.holds(), "{schedule:?}: {end:?}");
}

fn all() -> impl Iterator<Item = Fault> {
    FAULTS.into_iter().chain(REPLICA_FAULTS)
}

#[test]
fn after_every_single_fault_every_offset_is_stored_once_on_some_replica() {
    for step in 1..=steps() {
        for fault in all() {
            holds(vec![(0, step, fault)]);
        }
    }
}

#[test]
fn after_the_fault_of_a_replica_and_any_other_every_offset_is_stored_once() {
    let mut schedules = 0;
    for step in 1..=steps() {
        for later in 1..=NEXT_STEPS {
            for of_replica in REPLICA_FAULTS {
                for other in all() {
                    for (first, second) in [(of_replica, other), (other, of_replica)] {
                        holds(vec![(0, step, first), (0, step + later, second)]);
                        schedules += 1;
                    }
                }
            }
        }
    }
    println!("{schedules} schedules");
    assert!(schedules > 5_000, "{schedules}");
}

#[test]
fn a_member_that_wakes_up_replaced_does_no_harm_to_replicas() {
    let mut schedules = 0;
    for frozen in freezes() {
        for fault in REPLICA_FAULTS {
            let schedule = Schedule {
                faults: vec![(0, frozen.before.saturating_sub(1), fault)],
                frozen: Some(frozen),
                ..replicated()
            };
            if !frozen.until.is_multiple_of(6) {
                continue;
            }
            let end = run_two(schedule.clone());
            assert!(end.holds(), "{schedule:?}: {end:?}");
            schedules += 1;
        }
    }
    println!("{schedules} schedules");
    assert!(schedules > 2_500, "{schedules}");
}
