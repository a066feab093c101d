//! What each guard is for: without it some schedule ends with an event lost or doubled. So no guard
//! is needless, and the model can see each of them fail.

use crate::one_owner::pairs;
use crate::replicas::{replicated, steps as replicated_steps};
use crate::schedule::{Fault, Schedule, Without};
use crate::two_owners::freezes;
use crate::{run, run_two};

/// Whether some schedule of one member ends badly.
fn breaks_alone(without: Without) -> bool {
    pairs().any(|faults| {
        let schedule = Schedule {
            faults,
            without: Some(without),
            ..Schedule::default()
        };
        !run(schedule).holds()
    })
}

/// Whether some schedule of one member with replicas ends badly, of these faults alone.
fn breaks_with_replicas(without: Without, faults: &[Fault]) -> bool {
    (1..=replicated_steps()).any(|step| {
        faults.iter().any(|fault| {
            let schedule = Schedule {
                faults: vec![(0, step, *fault)],
                without: Some(without),
                ..replicated()
            };
            !run(schedule).holds()
        })
    })
}

/// Whether some schedule of two members ends badly.
fn breaks_with_two(without: Without) -> bool {
    freezes().any(|frozen| {
        let schedule = Schedule {
            frozen: Some(frozen),
            without: Some(without),
            ..Schedule::default()
        };
        !run_two(schedule).holds()
    })
}

#[test]
fn without_reading_back_events_are_lost() {
    assert!(breaks_alone(Without::ReadBack));
}

#[test]
fn without_counting_what_was_answered_events_are_lost() {
    assert!(breaks_alone(Without::Count));
}

#[test]
fn without_tokens_an_insert_that_arrives_twice_is_doubled() {
    assert!(breaks_alone(Without::Tokens));
}

#[test]
fn without_the_late_limit_an_insert_held_up_is_doubled() {
    assert!(breaks_alone(Without::LateLimit));
}

#[test]
fn without_waiting_for_what_may_land_it_is_doubled() {
    assert!(breaks_alone(Without::Waiting));
}

#[test]
fn without_looking_for_what_is_being_stored_it_is_doubled() {
    assert!(breaks_alone(Without::Running));
}

#[test]
fn without_the_clock_in_the_commit_a_successor_does_not_wait_long_enough() {
    assert!(breaks_alone(Without::Clock));
}

#[test]
fn without_renewing_the_membership_a_late_commit_hides_the_last_one() {
    assert!(breaks_alone(Without::Renewal));
}

#[test]
fn without_the_fence_a_member_that_was_replaced_doubles_events() {
    assert!(breaks_with_two(Without::Fence));
}

#[test]
fn without_the_right_a_live_member_that_lost_its_partition_doubles_events() {
    assert!(breaks_with_two(Without::Right));
}

#[test]
fn without_fetching_what_other_replicas_have_an_insert_whose_answer_is_lost_is_doubled() {
    assert!(breaks_with_replicas(Without::Sync, &[Fault::AnswerLost]));
}

#[test]
fn without_asking_each_replica_what_one_is_still_storing_is_doubled() {
    assert!(breaks_with_replicas(Without::EachReplica, &[Fault::Slow]));
    let stands_still = [Fault::ReplicaStandsStill];
    assert!(breaks_with_replicas(Without::EachReplica, &stands_still));
}
