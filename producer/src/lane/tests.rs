//! The lane against a Kafka that loses answers and processes that die, at every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::spool::SpoolConfig;

const PARTITIONS: usize = 2;
const AFTER: Duration = Duration::from_secs(1);
/// So few that events soon go to disk alone.
const IN_MEMORY: u32 = 8;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// An event of this key is published.
    Publish(u8, Durability),
    /// A round of the delivery thread: time passes first.
    Round(Duration),
    /// Kafka takes up to so many events of a partition, and its answers come or do not.
    Take {
        partition: usize,
        events: usize,
        answered: bool,
    },
    /// The client is replaced.
    Replace,
    /// The process dies and is started again.
    Die,
    /// It is closed, and started again.
    Close,
}

/// What one record of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    event: u32,
    maybe_delivered: bool,
}

struct World {
    config: SpoolConfig,
    lane: Option<Lane>,
    occupancy: Arc<Occupancy>,
    now: Instant,
    /// What the client holds, in order: number and record.
    client: [VecDeque<(u64, Record)>; PARTITIONS],
    log: [Vec<Taken>; PARTITIONS],
    published: u32,
    keys: BTreeMap<u32, u8>,
    receipts: BTreeMap<u32, oneshot::Receiver<Answer>>,
    /// Events whose receipt said that they are durable.
    durable: BTreeSet<u32>,
    refused: BTreeSet<u32>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(max_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = SpoolConfig {
            max_bytes,
            after: AFTER,
            ..SpoolConfig::at(folder.path())
        };
        let mut world = Self {
            config,
            lane: None,
            occupancy: Arc::new(Occupancy::new(IN_MEMORY, 1 << 20)),
            now: Instant::now(),
            client: Default::default(),
            log: Default::default(),
            published: 0,
            keys: BTreeMap::new(),
            receipts: BTreeMap::new(),
            durable: BTreeSet::new(),
            refused: BTreeSet::new(),
            _folder: folder,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.occupancy = Arc::new(Occupancy::new(IN_MEMORY, 1 << 20));
        let spool = Spool::open(&self.config).unwrap();
        self.lane = Some(Lane::new(Some((spool, AFTER)), self.occupancy.clone()));
        self.client = Default::default();
    }

    fn lane(&mut self) -> &mut Lane {
        self.lane.as_mut().unwrap()
    }

    fn publish(&mut self, key: u8, durability: Durability) {
        let event = self.published;
        self.published += 1;
        let record = Record {
            key: vec![key],
            value: event.to_le_bytes().to_vec(),
            maybe_delivered: false,
            trace_parent: None,
        };
        if !self.occupancy.enter(record.cost()) {
            self.refused.insert(event);
            return;
        }
        self.keys.insert(event, key);
        let (answer, receipt) = oneshot::channel();
        self.receipts.insert(event, receipt);
        let pending = Box::new(Pending {
            record,
            durability,
            published: self.now,
            answer: Some(answer),
        });
        let now = self.now;
        self.lane().accept(pending, now);
    }

    fn round(&mut self) {
        let now = self.now;
        let lane = self.lane();
        lane.tick(now);
        lane.commit(now).unwrap();
        while lane.read_back(now).unwrap() {}
        while let Some((number, record)) = self.lane.as_mut().unwrap().next_unsent() {
            let partition = usize::from(record.key[0]) % PARTITIONS;
            self.client[partition].push_back((number, record.clone()));
            self.lane().sent();
        }
        self.lane().note_confirmed().unwrap();
        self.look_at_receipts();
    }

    fn look_at_receipts(&mut self) {
        let (durable, refused) = (&mut self.durable, &mut self.refused);
        self.receipts
            .retain(|event, receipt| match receipt.try_recv() {
                Ok(Ok(_)) => !durable.insert(*event),
                // It may be in Kafka, or not; and a process that died answers nothing.
                Ok(Err(Refused::GivenUp)) | Err(oneshot::error::TryRecvError::Closed) => false,
                Ok(Err(_)) => !refused.insert(*event),
                Err(oneshot::error::TryRecvError::Empty) => true,
            });
    }

    fn take(&mut self, partition: usize, events: usize, answered: bool) {
        for _ in 0..events {
            let Some((number, record)) = self.client[partition].pop_front() else {
                return;
            };
            let event = u32::from_le_bytes(record.value.as_slice().try_into().unwrap());
            self.log[partition].push(Taken {
                event,
                maybe_delivered: record.maybe_delivered,
            });
            if answered {
                let stored = Stored {
                    partition: 0,
                    offset: 0,
                };
                self.lane().confirmed(number, stored);
            }
        }
        self.look_at_receipts();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(key, durability) => self.publish(key, durability),
            Step::Round(time) => {
                self.now += time;
                self.round();
            }
            Step::Take {
                partition,
                events,
                answered,
            } => self.take(partition, events, answered),
            Step::Replace => {
                self.client = Default::default();
                self.lane().rewind();
            }
            Step::Die => {
                self.lane = None;
                self.look_at_receipts();
                self.start();
            }
            Step::Close => {
                let now = self.now;
                self.lane.take().unwrap().close(now);
                self.look_at_receipts();
                self.start();
            }
        }
    }

    /// Kafka is well from now on: everything is taken and answered. Answers that were lost are
    /// found missing, and the client is replaced.
    fn end(&mut self) {
        self.step(Step::Replace);
        for _ in 0..1_000 {
            self.step(Step::Round(AFTER));
            for partition in 0..PARTITIONS {
                self.take(partition, usize::MAX, true);
            }
            if self.lane().is_empty() {
                break;
            }
        }
        self.step(Step::Round(AFTER));
        assert!(self.lane().is_empty() && self.occupancy.is_empty());
        assert_eq!(self.occupancy.in_spool(), 0);
    }

    /// What the consumer keeps: the first of each event, if only flagged ones follow.
    fn kept(&self) -> BTreeMap<u8, Vec<u32>> {
        let mut kept: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for taken in self.log.iter().flatten() {
            if seen.insert(taken.event) {
                let key = self.keys[&taken.event];
                kept.entry(key).or_default().push(taken.event);
            } else {
                assert!(taken.maybe_delivered, "event {} is doubled", taken.event);
            }
        }
        kept
    }

    fn check(&self) {
        let kept = self.kept();
        for (key, events) in &kept {
            assert!(events.is_sorted(), "key {key}: {events:?}");
        }
        let all: BTreeSet<u32> = kept.into_values().flatten().collect();
        let lost: Vec<_> = self.durable.difference(&all).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let refused: Vec<_> = self.refused.intersection(&all).collect();
        assert!(refused.is_empty(), "refused and stored: {refused:?}");
    }
}

fn run(steps: &[Step]) -> World {
    run_in(1 << 20, steps)
}

fn run_in(max_bytes: u64, steps: &[Step]) -> World {
    let mut world = World::new(max_bytes);
    for step in steps {
        world.step(*step);
    }
    world.end();
    world.check();
    world
}

fn publish(key: u8) -> Step {
    Step::Publish(key, Durability::Spool)
}

fn round(millis: u64) -> Step {
    Step::Round(Duration::from_millis(millis))
}

fn take(partition: usize, events: usize, answered: bool) -> Step {
    Step::Take {
        partition,
        events,
        answered,
    }
}

/// Kafka goes away, memory fills up, events go to disk alone, and Kafka comes back.
fn story() -> Vec<Step> {
    let mut steps = vec![
        publish(0),
        round(1),
        take(0, 1, true),
        publish(1),
        publish(0),
        round(1),
    ];
    steps.extend([take(0, 1, false), round(2_000)]);
    for key in 0..5 {
        steps.extend([publish(key), publish(key), round(10)]);
    }
    steps.push(Step::Publish(1, Durability::Require));
    steps.push(Step::Publish(0, Durability::BestEffort));
    steps.extend([
        round(10),
        take(1, 2, true),
        round(10),
        publish(1),
        publish(2),
        round(10),
    ]);
    steps.extend([
        take(0, 2, true),
        take(1, 1, false),
        round(10),
        publish(3),
        round(1),
    ]);
    steps
}

#[test]
fn events_that_kafka_takes_in_time_do_not_touch_the_disk() {
    let world = run(&[
        publish(0),
        publish(1),
        round(1),
        take(0, 9, true),
        take(1, 9, true),
    ]);
    assert_eq!(world.durable.len(), 2);
    assert_eq!(std::fs::read_dir(&world.config.folder).unwrap().count(), 2);
}

#[test]
fn an_event_that_waits_too_long_is_spooled_and_sent_once() {
    let mut world = World::new(1 << 20);
    world.step(publish(0));
    world.step(round(999));
    assert!(world.durable.is_empty());
    world.step(round(1));
    assert_eq!(world.durable.len(), 1);
    world.take(0, 1, true);
    world.step(round(1));
    assert_eq!(world.log[0].len(), 1);
    assert_eq!(world.occupancy.in_spool(), 0);
}

#[test]
fn while_an_event_waits_too_long_later_ones_are_spooled_at_once() {
    let mut world = World::new(1 << 20);
    world.step(publish(0));
    world.step(round(1_000));
    world.step(publish(1));
    world.step(round(1));
    assert_eq!(world.durable.len(), 2);
}

#[test]
fn best_effort_waits_in_memory_alone_and_is_dropped_when_events_wait_on_disk() {
    let mut world = World::new(1 << 20);
    world.step(Step::Publish(0, Durability::BestEffort));
    world.step(round(2_000));
    assert!(world.durable.is_empty() && world.refused.is_empty());
    for _ in 0..8 {
        world.step(publish(0));
        world.step(round(1));
    }
    world.step(Step::Publish(0, Durability::BestEffort));
    world.step(round(1));
    assert_eq!(world.refused, BTreeSet::from([9]));
    assert_eq!(world.lane().take_lost().len(), 1);
    world.end();
    world.check();
}

#[test]
fn a_disk_that_fails_costs_nothing_while_memory_lasts() {
    let mut world = World::new(1 << 20);
    std::fs::remove_dir_all(&world.config.folder).unwrap();
    world.step(publish(0));
    world.now += AFTER;
    let now = world.now;
    world.lane().tick(now);
    assert!(world.lane().commit(now).is_err());
    assert!(!world.lane().commit(now).unwrap());
    std::fs::create_dir(&world.config.folder).unwrap();
    world.step(round(10));
    assert!(world.durable.is_empty());
    world.step(Step::Round(WRITE_AGAIN));
    assert_eq!(world.durable.len(), 1);
}

#[test]
fn a_disk_that_fails_lets_nothing_overtake_what_waits_on_it() {
    let mut world = World::new(1 << 20);
    for _ in 0..10 {
        world.step(publish(0));
        world.step(round(1));
    }
    assert!(world.lane().has_unread());
    // Memory has room again, and the disk fails.
    world.take(0, 6, true);
    std::fs::remove_dir_all(&world.config.folder).unwrap();
    world.step(publish(0));
    let now = world.now;
    assert!(world.lane().commit(now).is_err());
    world.step(publish(0));
    world.look_at_receipts();
    assert_eq!(world.refused, BTreeSet::from([10, 11]));
}

#[test]
fn without_a_spool_memory_is_all_there_is() {
    let occupancy = Arc::new(Occupancy::new(2, 1 << 20));
    assert!(occupancy.enter(10) && occupancy.enter(10) && !occupancy.enter(10));
    occupancy.leave(10);
    assert!(occupancy.enter(10));
    assert!(occupancy.is_full() && !occupancy.is_empty());
}

#[test]
fn after_any_two_faults_every_durable_event_is_kept_once_and_in_order() {
    let story = story();
    let faults = [Step::Replace, Step::Die, Step::Close];
    for first_at in 0..=story.len() {
        for first in faults {
            for second_at in first_at..=story.len() {
                for second in faults {
                    let mut steps = story.clone();
                    steps.insert(second_at, second);
                    steps.insert(first_at, first);
                    run(&steps);
                }
            }
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let durability = prop_oneof![
        6 => Just(Durability::Spool),
        1 => Just(Durability::Require),
        1 => Just(Durability::BestEffort),
    ];
    prop_oneof![
        8 => (0..5_u8, durability).prop_map(|(key, durability)| Step::Publish(key, durability)),
        4 => (0..1_500_u64).prop_map(round),
        4 => (0..PARTITIONS, 0..6_usize, prop::bool::weighted(0.8))
            .prop_map(|(partition, events, answered)| take(partition, events, answered)),
        1 => Just(Step::Replace),
        1 => Just(Step::Die),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_every_durable_event_is_kept_once_and_in_order(
        max_bytes in prop_oneof![Just(1 << 20), 60..1_000_u64], steps in prop::collection::vec(any_step(), 0..80),
    ) {
        run_in(max_bytes, &steps);
    }
}
