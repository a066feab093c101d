//! Two members that have the partition one after the other, with the steps of the first between
//! those of the second.

use std::time::Duration;

use crate::one_owner::steps;
use crate::run_two;
use crate::schedule::{FAULTS, Fault, Frozen, Replaced, Schedule};

/// How the first member is replaced, and after how long: a live one at once, while something it
/// sent is still under way; a dead one after a session that began with a heartbeat before, or a
/// whole one.
const REPLACEMENTS: [(Replaced, Duration); 4] = [
    (Replaced::Alive, Duration::ZERO),
    (Replaced::Alive, Duration::from_secs(3)),
    (Replaced::Dead, Duration::from_secs(5)),
    (Replaced::Dead, Duration::from_secs(10)),
];

/// How many steps the first member takes between those of the second: one, what an insert takes
/// from its clock to its answer, and as many as it likes.
const BETWEEN: [usize; 3] = [1, 3, usize::MAX / 2];

/// Every step the first member can freeze before, and every step of the second one it can go on
/// before.
pub(crate) fn freezes() -> impl Iterator<Item = Frozen> {
    let steps = steps();
    (1..=steps).flat_map(move |before| {
        (1..=steps + 8).flat_map(move |until| {
            REPLACEMENTS.into_iter().flat_map(move |(replaced, after)| {
                BETWEEN.into_iter().map(move |steps| Frozen {
                    before,
                    until,
                    steps,
                    replaced,
                    after,
                })
            })
        })
    })
}

/// Every fault at the last step before the first member freezes, or at the first one after. Not
/// that the clock is set back when it wakes up: what it then sends is not late any more, which the
/// README says under what is not promised.
pub(crate) fn freezes_with_faults() -> impl Iterator<Item = (Frozen, Fault, usize)> {
    freezes()
        .filter(|frozen| frozen.steps == BETWEEN[2] && frozen.until.is_multiple_of(3))
        .flat_map(|frozen| {
            FAULTS.into_iter().flat_map(move |fault| {
                [frozen.before.saturating_sub(1), frozen.before]
                    .map(move |step| (frozen, fault, step))
            })
        })
        .filter(|(frozen, fault, step)| !(*fault == Fault::ClockBack && *step == frozen.before))
}

fn holds(schedule: &Schedule) {
    let end = run_two(schedule.clone());
    assert!(end.holds(), "{schedule:?}: {end:?}");
}

#[test]
fn a_member_that_wakes_up_replaced_does_no_harm() {
    let mut schedules = 0;
    for frozen in freezes() {
        holds(&Schedule {
            frozen: Some(frozen),
            ..Schedule::default()
        });
        schedules += 1;
    }
    println!("{schedules} schedules");
    assert!(schedules > 8_000, "{schedules}");
}

#[test]
fn a_member_whose_last_step_went_wrong_does_no_harm_when_it_wakes_up_replaced() {
    let mut schedules = 0;
    for (frozen, fault, step) in freezes_with_faults() {
        holds(&Schedule {
            faults: vec![(0, step, fault)],
            frozen: Some(frozen),
            ..Schedule::default()
        });
        schedules += 1;
    }
    println!("{schedules} schedules");
    assert!(schedules > 35_000, "{schedules}");
}

#[test]
fn a_fault_of_the_successor_does_no_harm_while_its_predecessor_wakes_up() {
    let mut schedules = 0;
    for frozen in freezes().filter(|frozen| frozen.steps == BETWEEN[2]) {
        for fault in [
            Fault::DiesAfter,
            Fault::Late,
            Fault::DiesLate,
            Fault::AnswerLost,
        ] {
            for step in [frozen.until, frozen.until + 1] {
                holds(&Schedule {
                    faults: vec![(1, step, fault)],
                    frozen: Some(frozen),
                    ..Schedule::default()
                });
                schedules += 1;
            }
        }
    }
    println!("{schedules} schedules");
    assert!(schedules > 20_000, "{schedules}");
}
