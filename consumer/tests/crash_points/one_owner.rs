//! One member, its deaths, and what goes wrong between it, Kafka and ClickHouse.

use crate::run;
use crate::schedule::{FAULTS, Fault, Schedule};

/// How many steps behind the first fault the second one is tried.
const NEXT_STEPS: usize = 8;

/// How many steps it takes when nothing goes wrong.
pub(crate) fn steps() -> usize {
    run(Schedule::default()).steps[0]
}

/// Every fault at every step, followed by every fault at one of the next steps.
pub(crate) fn pairs() -> impl Iterator<Item = Vec<(usize, usize, Fault)>> {
    (1..=steps()).flat_map(move |step| {
        FAULTS.into_iter().flat_map(move |first| {
            (1..=NEXT_STEPS).flat_map(move |later| {
                FAULTS
                    .into_iter()
                    .map(move |second| vec![(0, step, first), (0, step + later, second)])
            })
        })
    })
}

fn holds(faults: Vec<(usize, usize, Fault)>) {
    let schedule = Schedule {
        faults,
        ..Schedule::default()
    };
    let end = run(schedule.clone());
    assert!(end.holds(), "{schedule:?}: {end:?}");
}

#[test]
fn without_a_fault_every_offset_is_stored_once() {
    holds(Vec::new());
}

#[test]
fn after_every_single_fault_every_offset_is_stored_once() {
    for step in 1..=steps() {
        for fault in FAULTS {
            holds(vec![(0, step, fault)]);
        }
    }
}

#[test]
fn after_every_pair_of_faults_every_offset_is_stored_once() {
    let mut schedules = 0;
    for faults in pairs() {
        holds(faults);
        schedules += 1;
    }
    println!("{schedules} schedules");
    assert!(schedules > 60_000, "{schedules}");
}
