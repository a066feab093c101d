//! Every place where the loop of a partition can die, lose an answer, or have an insert stored by
//! half, late, twice, without its token or not at all, alone and with a second owner whose steps
//! come between: in each end every offset is in exactly one table.
//!
//! The loop, its batches and its settling are the real ones; Kafka's group and ClickHouse are a
//! model that does to each step what the schedule says. A process that dies is followed by one
//! that knows only what the model kept. When ClickHouse dies, so do the inserts inside it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod guards;
mod model;
mod one_owner;
mod replicas;
mod schedule;
mod two_owners;
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

use crate::schedule::Schedule;
use crate::world::{END, ID, World};

/// How many records the feed puts into a batch: other members cut elsewhere.
fn batch_rows(member: usize) -> usize {
    if member == 0 { 3 } else { 2 }
}

/// The log: reads as the source does, but cuts by number alone.
async fn feed(mut commands: mpsc::UnboundedReceiver<Command>, rows: usize) {
    let event = Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN);
    let event = wire::encode(&event.build().unwrap()).unwrap();
    let mut reading = None;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Read { from, batches, .. } => reading = Some((from, batches)),
            Command::Ready { .. } => {}
            Command::LogEnds { .. } => continue,
        }
        let Some((next, batches)) = &mut reading else {
            continue;
        };
        let mut batch = Batch::new(ID, *next);
        while *next < END && batch.rows() < rows {
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
                trace_parent: None,
            };
            batch.push(&record).unwrap();
            *next += 1;
        }
        if batch.rows() > 0 {
            batches.send(batch).await.ok();
        }
    }
}

/// How a membership ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its process died, or it was given up.
    Gone,
    Fenced,
    AllSettled,
}

/// One membership, from its start until it dies, is given up or fenced off, or all is settled.
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
        () = world.died.notified() => Ended::Gone,
        () = world.finished.notified() => Ended::AllSettled,
        error = partition.run() => match error {
            PartitionError::Fenced => Ended::Fenced,
            PartitionError::MembershipInDoubt(_) => Ended::Gone,
            error => panic!("the partition stopped: {error}"),
        },
        () = feed(obeyed, batch_rows(world.member)) => panic!("the feed ended"),
        ended = settler.run(Duration::from_millis(10), never) => panic!("settling ended: {ended:?}"),
    }
}

/// One member and its successors in the same place, until all is settled or another one has the
/// partition.
async fn live_on(mut world: World) -> Ended {
    loop {
        match live(&world).await {
            Ended::Gone => world = world.next_life(false),
            ended => return ended,
        }
    }
}

/// What the tables hold in the end.
#[derive(Debug, PartialEq, Eq)]
struct End {
    /// Steps taken, by member.
    steps: [usize; 2],
    rows: Vec<u64>,
}

impl End {
    /// What is there when nothing is on its way any more.
    async fn of(world: &World) -> Self {
        tokio::time::advance(LATE_LIMIT * 10).await;
        let mut model = world.model.lock().unwrap();
        model.catch_up();
        let mut rows = model.rows.clone();
        rows.sort_unstable();
        Self {
            steps: model.steps,
            rows,
        }
    }

    fn holds(&self) -> bool {
        self.rows.iter().copied().eq(0..END)
    }
}

/// Runs a future on a clock that moves when everything waits.
fn in_model_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run)
}

/// Runs a schedule of one member to its end.
fn run(schedule: Schedule) -> End {
    in_model_time(async {
        let world = World::new(schedule);
        assert_eq!(live_on(world.clone()).await, Ended::AllSettled);
        End::of(&world).await
    })
}

/// Runs a schedule of two members, of which the first freezes.
fn run_two(schedule: Schedule) -> End {
    let after = schedule.frozen.unwrap().after;
    in_model_time(async {
        let world = World::new(schedule);
        let mut first = std::pin::pin!(live(&world));
        let ended = tokio::select! {
            biased;
            () = world.froze.notified() => None,
            ended = &mut first => Some(ended),
        };
        if ended == Some(Ended::AllSettled) {
            return End::of(&world).await;
        }
        let mut first_ended = ended.is_some();
        tokio::time::advance(after).await;
        let mut second = std::pin::pin!(live_on(world.next_life(true)));
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
        // Who is still frozen wakes up to a finished log.
        if !first_ended {
            world.thaw.notify_one();
            let woken = tokio::time::timeout(LATE_LIMIT, &mut first);
            woken.await.ok();
        }
        End::of(&world).await
    })
}
