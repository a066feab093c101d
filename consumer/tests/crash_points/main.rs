//! Every place where the loop of a partition can die, lose an answer, or have an insert stored by
//! half, late, without its token or not at all: in each end every offset is in exactly one table.
//!
//! The loop, its batches and its settling are the real ones; Kafka's group and ClickHouse are a
//! model that does to each step what the schedule says. A process that dies is followed by one
//! that knows only what the model kept. When ClickHouse dies, so do the inserts inside it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use audit_consumer::batch::{Batch, Record};
use audit_consumer::error::PartitionError;
use audit_consumer::partition::{Command, Partition};
use audit_consumer::recovery::LATE_LIMIT;
use audit_consumer::settle::Settler;
use audit_schema::row::Millis;
use audit_schema::{Event, EventType, wire};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::world::{END, FAULTS, Fault, Frozen, ID, Without, World};

/// How many records the feed puts into a batch: other members cut elsewhere.
fn batch_rows(member: usize) -> usize {
    if member.is_multiple_of(2) { 2 } else { 3 }
}

/// The log: reads as the source does, but a batch every three records.
async fn feed(mut commands: mpsc::UnboundedReceiver<Command>, rows: usize) {
    let event = Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN);
    let event = wire::encode(&event.build().unwrap()).unwrap();
    let mut reading = None;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Read {
                from,
                cuts,
                batches,
                ..
            } => reading = Some((from, cuts, batches)),
            Command::Ready { .. } => {}
            Command::LogEnds { .. } => continue,
        }
        let Some((next, cuts, batches)) = &mut reading else {
            continue;
        };
        let mut batch = Batch::new(ID, *next);
        while *next < END && batch.rows() < rows && (batch.rows() == 0 || !cuts.contains(next)) {
            let value: &[u8] = if next.is_multiple_of(4) {
                b"no event"
            } else {
                &event
            };
            let record = Record {
                offset: *next,
                logged_at: Millis(1_700_000_000_000),
                key: b"",
                value,
                version: None,
                maybe_delivered: false,
            };
            batch.push(&record).unwrap();
            *next += 1;
        }
        if batch.rows() > 0 {
            batches.send(batch).await.ok();
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Died,
    Fenced,
    AllSettled,
}

/// One process, from its start until it dies, is fenced off, or everything is settled.
async fn live(world: &World) -> Ended {
    let store = Arc::new(world.clone());
    let settler = Arc::new(Settler::new(Arc::clone(&store)));
    let (commands, obeyed) = mpsc::unbounded_channel();
    let idle = Duration::from_secs(1);
    let partition = Partition::new(
        ID,
        world.clone(),
        Arc::clone(&settler),
        store,
        commands,
        idle,
    );
    let never = CancellationToken::new();
    tokio::select! {
        biased;
        () = world.died.notified() => Ended::Died,
        () = world.finished.notified() => Ended::AllSettled,
        error = partition.run() => match error {
            PartitionError::Fenced => Ended::Fenced,
            error => panic!("the partition stopped: {error}"),
        },
        () = feed(obeyed, batch_rows(world.member)) => panic!("the feed ended"),
        ended = settler.run(Duration::from_millis(10), never) => panic!("settling ended: {ended:?}"),
    }
}

/// What the tables hold in the end.
#[derive(Debug, PartialEq, Eq)]
struct End {
    steps: usize,
    rows: Vec<u64>,
}

/// Runs a schedule to its end: processes follow each other until all is settled.
fn run(faults: &[(usize, Fault)], without: Without) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::new(faults, without);
        while live(&world).await != Ended::AllSettled {}
        end(&world).await
    })
}

/// What is there when nothing is on its way any more.
async fn end(world: &World) -> End {
    // Whatever is still on its way arrives.
    tokio::time::advance(LATE_LIMIT * 3).await;
    let mut model = world.model.lock().unwrap();
    model.catch_up();
    let mut rows = model.rows.clone();
    rows.sort_unstable();
    End {
        steps: model.steps,
        rows,
    }
}

/// Runs with two members: the first stops before a step of its own, is replaced after `replaced`,
/// and goes on before a step of the second's, or when that has finished.
fn run_two(frozen: Frozen, replaced: Duration, without: Without) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::frozen(frozen, without);
        let mut first = std::pin::pin!(live(&world));
        tokio::select! {
            biased;
            () = world.froze.notified() => {}
            ended = &mut first => {
                assert_eq!(ended, Ended::AllSettled);
                return end(&world).await;
            }
        }
        tokio::time::advance(replaced).await;
        let successor = world.successor();
        let mut second = std::pin::pin!(live(&successor));
        let mut first_ended = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut first, if !first_ended => {
                    first_ended = true;
                    if ended == Ended::AllSettled {
                        break;
                    }
                }
                ended = &mut second => {
                    assert_eq!(ended, Ended::AllSettled);
                    break;
                }
            }
        }
        // A member that is still frozen wakes up to a finished log.
        world.thaw.notify_one();
        if !first_ended {
            tokio::time::timeout(LATE_LIMIT, &mut first).await.ok();
        }
        end(&world).await
    })
}

/// When a frozen member is replaced: at once (a live one whose partition was handed on while an
/// insert was about to leave), after a session that began with a heartbeat 3 s before, after a
/// whole one.
const REPLACED: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(7),
    Duration::from_secs(10),
];

/// Every step the first member can freeze before, and every step of the second one it can go on
/// before.
fn freezes() -> impl Iterator<Item = (Frozen, Duration)> {
    let steps = run(&[], Without::Nothing).steps;
    (1..=steps).flat_map(move |before| {
        (0..=steps + 8).flat_map(move |until| {
            REPLACED
                .into_iter()
                .map(move |replaced| (Frozen { before, until }, replaced))
        })
    })
}

#[test]
fn a_member_that_wakes_up_replaced_does_no_harm() {
    let mut combinations = 0;
    for (frozen, replaced) in freezes() {
        let end = run_two(frozen, replaced, Without::Nothing);
        assert!(
            holds(&end),
            "{frozen:?} replaced after {replaced:?}: {end:?}"
        );
        combinations += 1;
    }
    assert!(combinations > 2_000, "{combinations}");
}

#[test]
fn without_the_fence_a_member_that_wakes_up_replaced_doubles_events() {
    assert!(freezes().any(|(frozen, replaced)| !holds(&run_two(frozen, replaced, Without::Fence))));
}

#[test]
fn without_tokens_a_member_that_wakes_up_replaced_doubles_events() {
    assert!(freezes().any(|(frozen, replaced)| !holds(&run_two(
        frozen,
        replaced,
        Without::Tokens
    ))));
}

fn holds(end: &End) -> bool {
    end.rows.iter().copied().eq(0..END)
}

#[test]
fn without_a_fault_every_offset_is_stored_once() {
    assert!(holds(&run(&[], Without::Nothing)));
}

#[test]
fn after_every_single_fault_every_offset_is_stored_once() {
    let steps = run(&[], Without::Nothing).steps;
    for step in 1..=steps {
        for fault in FAULTS {
            let end = run(&[(step, fault)], Without::Nothing);
            assert!(holds(&end), "{fault:?} at step {step}: {end:?}");
        }
    }
}

#[test]
fn after_every_pair_of_faults_every_offset_is_stored_once() {
    let mut combinations = 0;
    for (first, second) in pairs() {
        let end = run(&[first, second], Without::Nothing);
        assert!(holds(&end), "{first:?}, {second:?}: {end:?}");
        combinations += 1;
    }
    assert!(combinations > 26_000, "{combinations}");
}

/// Every fault at every step, followed by every fault at one of the next steps.
fn pairs() -> impl Iterator<Item = ((usize, Fault), (usize, Fault))> {
    let steps = run(&[], Without::Nothing).steps;
    (1..=steps).flat_map(move |step| {
        FAULTS.into_iter().flat_map(move |first| {
            (1..=NEXT_STEPS).flat_map(move |later| {
                FAULTS
                    .into_iter()
                    .map(move |second| ((step, first), (step + later, second)))
            })
        })
    })
}

/// How many steps behind the first fault the second one is tried.
const NEXT_STEPS: usize = 12;

/// Whether some schedule ends badly once a guard is taken out.
fn breaks(without: Without) -> bool {
    pairs().any(|(first, second)| !holds(&run(&[first, second], without)))
}

#[test]
fn without_reading_back_events_are_lost() {
    assert!(breaks(Without::ReadBack));
}

#[test]
fn without_counting_events_are_lost() {
    assert!(breaks(Without::Count));
}

#[test]
fn without_tokens_events_are_doubled() {
    assert!(breaks(Without::Tokens));
}

#[test]
fn without_the_late_limit_events_are_doubled() {
    assert!(breaks(Without::LateLimit));
}
