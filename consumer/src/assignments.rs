//! The partitions of this member: one loop each, from assignment until it is taken away.
//!
//! A loop that ends with an error does not end the others: its partition stops, which is logged
//! once, shown by a metric and makes the service unready, and its watermark stays where it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use audit_schema::row::Millis;
use audit_service::admin::Readiness;
use audit_service::telemetry::with_causes;
use rdkafka::consumer::BaseConsumer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::batch::PartitionId;
use crate::error::PartitionError;
use crate::freshness::Freshness;
use crate::group::{Event, GroupContext, Right};
use crate::metrics;
use crate::offsets::{GroupOffsets, Offsets};
use crate::partition::{Command, Partition};
use crate::settle::Settler;
use crate::store::Store;
use crate::topic::Topic;
use crate::writer::Writer;

/// After how long without a batch a partition's position is committed without a range.
const IDLE: Duration = Duration::from_secs(1);

/// How often the ends of the logs are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often stored rows are compared with the topic's records.
const COMPARE: Duration = Duration::from_secs(60);

/// A partition this member has.
struct Held {
    offsets: GroupOffsets,
    taken: CancellationToken,
}

/// Runs the loops of the partitions this member has.
pub(crate) struct Assignments {
    consumer: Arc<BaseConsumer<GroupContext>>,
    incarnation: u32,
    topic: Topic,
    store: Arc<Writer>,
    settler: Arc<Settler<Writer>>,
    commands: mpsc::UnboundedSender<Command>,
    clock_skew: Duration,
    retention: Duration,
    readiness: Readiness,
    /// Cancelled when this membership has to end.
    given_up: CancellationToken,
    freshness: Freshness,
    held: HashMap<u32, Held>,
    /// Cancelled when the last loop of a partition has ended.
    ended: HashMap<u32, CancellationToken>,
    stopped: BTreeMap<u32, String>,
    loops: JoinSet<(u32, Option<PartitionError>)>,
}

impl std::fmt::Debug for Assignments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assignments")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// What the loops need, whatever membership they run in.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The topic's registered life.
    pub(crate) incarnation: u32,
    /// The topic.
    pub(crate) topic: Topic,
    /// The tables.
    pub(crate) store: Arc<Writer>,
    /// What counts what they wrote.
    pub(crate) settler: Arc<Settler<Writer>>,
    /// How far Kafka's clock may be from ours.
    pub(crate) clock_skew: Duration,
    /// How long Kafka keeps records.
    pub(crate) retention: Duration,
    /// Who is told when a partition stops.
    pub(crate) readiness: Readiness,
    /// Who tells that it has.
    pub(crate) freshness: Freshness,
}

impl Assignments {
    /// No partitions yet; they come through `consumer`'s group. `commands` go to its source, and
    /// `given_up` is cancelled when its membership has to end.
    pub(crate) fn new(
        consumer: Arc<BaseConsumer<GroupContext>>,
        parts: Parts,
        commands: mpsc::UnboundedSender<Command>,
        given_up: CancellationToken,
    ) -> Self {
        Self {
            consumer,
            incarnation: parts.incarnation,
            topic: parts.topic,
            store: parts.store,
            settler: parts.settler,
            commands,
            clock_skew: parts.clock_skew,
            retention: parts.retention,
            readiness: parts.readiness,
            given_up,
            freshness: parts.freshness,
            held: HashMap::new(),
            ended: HashMap::new(),
            stopped: BTreeMap::new(),
            loops: JoinSet::new(),
        }
    }

    /// Follows the source's events until the source has ended.
    pub(crate) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut compare = tokio::time::interval_at(Instant::now() + COMPARE, COMPARE);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Every question to Kafka is asked beside the loop: a rebalance does not wait for it.
        let mut asked: JoinSet<()> = JoinSet::new();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.follow(event),
                    None => break,
                },
                Some(Ok((partition, error))) = self.loops.join_next() => {
                    if let Some(error) = error {
                        self.stop(partition, &error);
                    }
                }
                Some(_) = asked.join_next() => {}
                _ = look.tick(), if asked.is_empty() => self.look_at_ends(&mut asked),
                _ = compare.tick() => {
                    self.compare();
                    self.alarm_late();
                }
            }
        }
        self.loops.shutdown().await;
    }

    fn follow(&mut self, event: Event) {
        match event {
            Event::Assigned { partition, right } => self.assigned(partition, right),
            Event::Revoked { partition } => {
                tracing::info!(kafka.partition = partition, "partition handed back");
                if let Some(held) = self.held.remove(&partition) {
                    held.taken.cancel();
                }
                self.stopped.remove(&partition);
                self.freshness.stopped(partition, None);
                metrics::stopped(partition, false);
                self.tell_readiness();
            }
            Event::TopicInQuestion => self.compare(),
            Event::OtherTopic { reason } => {
                let held: Vec<u32> = self.held.keys().copied().collect();
                for partition in held {
                    let reason = reason.clone();
                    self.give_up(partition, &PartitionError::OtherTopic { reason });
                }
            }
            Event::Unreadable { partition, error } => self.give_up(partition, &error),
        }
    }

    /// Ends the loop of a partition that cannot be consumed as it is.
    fn give_up(&mut self, partition: u32, error: &PartitionError) {
        if let Some(held) = self.held.get(&partition) {
            held.taken.cancel();
        }
        self.stop(partition, error);
    }

    fn assigned(&mut self, partition: u32, right: Arc<Right>) {
        let id = PartitionId {
            incarnation: self.incarnation,
            partition,
        };
        let offsets = GroupOffsets::new(
            Arc::clone(&self.consumer),
            self.topic.name().into(),
            id,
            right,
        );
        metrics::stopped(partition, false);
        let taken = CancellationToken::new();
        let old = self.held.insert(
            partition,
            Held {
                offsets: offsets.clone(),
                taken: taken.clone(),
            },
        );
        if let Some(old) = old {
            old.taken.cancel();
        }
        let (settler, store) = (Arc::clone(&self.settler), Arc::clone(&self.store));
        let (commands, topic) = (self.commands.clone(), self.topic.clone());
        let ended = CancellationToken::new();
        let before = self.ended.insert(partition, ended.clone());
        self.loops.spawn(async move {
            let _ended = ended.drop_guard();
            // One loop at a time: what the one before still asks of the source comes first.
            if let Some(before) = before {
                before.cancelled().await;
            }
            let looped = async {
                if let Some(reason) = differs(&topic, id).await {
                    return PartitionError::OtherTopic { reason };
                }
                Partition::new(id, offsets, settler, store, commands, IDLE)
                    .run()
                    .await
            };
            let error = tokio::select! {
                () = taken.cancelled() => None,
                error = looped => Some(error),
            };
            (partition, error)
        });
        self.tell_readiness();
    }

    fn stop(&mut self, partition: u32, error: &PartitionError) {
        if matches!(error, PartitionError::Fenced) {
            tracing::info!(
                kafka.partition = partition,
                "another member has the partition now"
            );
            return;
        }
        if matches!(error, PartitionError::MembershipInDoubt(_)) {
            tracing::warn!(
                kafka.partition = partition,
                error = %with_causes(error),
                "leaving the group: only then is a copy of the commit refused"
            );
            self.given_up.cancel();
            return;
        }
        let reason = with_causes(error);
        tracing::error!(
            kafka.partition = partition,
            error = %reason,
            "partition stopped; mend the cause and restart the consumer"
        );
        metrics::stopped(partition, true);
        self.freshness.stopped(partition, Some(reason.clone()));
        self.stopped.insert(partition, reason);
        self.tell_readiness();
    }

    fn tell_readiness(&self) {
        match self.stopped.iter().next() {
            Some((partition, reason)) => self
                .readiness
                .set_unready(format!("partition {partition} stopped: {reason}")),
            None => self.readiness.set_ready(),
        }
    }

    /// Looks where each log ends: for the watermark of an idle partition, and for holes.
    ///
    /// The watermark's time is the earlier of this machine's clock and ClickHouse's: a clock that
    /// jumps ahead alone does not claim that what is not there yet is readable.
    fn look_at_ends(&self, asked: &mut JoinSet<()>) {
        let looks: Vec<_> = self
            .settler
            .held()
            .into_iter()
            .filter_map(|progress| {
                let held = self.held.get(&progress.id().partition)?;
                Some((progress, held.offsets.clone()))
            })
            .collect();
        let (store, settler) = (Arc::clone(&self.store), Arc::clone(&self.settler));
        let (commands, skew) = (self.commands.clone(), self.clock_skew);
        asked.spawn(async move {
            let Some((first, _)) = looks.first() else {
                return;
            };
            let Ok(there) = store.clock(first.id()).await else {
                return;
            };
            let before = there.min(chrono::Utc::now().into()).earlier_by(skew);
            let mut ends = JoinSet::new();
            for (progress, offsets) in looks {
                ends.spawn(async move { (progress, offsets.bounds().await) });
            }
            while let Some(end) = ends.join_next().await {
                let Ok((progress, Ok(bounds))) = end else {
                    continue;
                };
                let partition = progress.id().partition;
                progress.log_ended(before, bounds.end);
                settler.wake();
                // Without a source there is nothing to look for.
                commands
                    .send(Command::LogEnds {
                        partition,
                        at: bounds.end,
                    })
                    .ok();
            }
        });
    }

    /// Alarms while there is still time: what is not stored when it expires is lost.
    fn alarm_late(&self) {
        let latest = Millis::from(chrono::Utc::now()).earlier_by(self.retention / 2);
        for progress in self.settler.held() {
            let complete_up_to = progress.complete_up_to();
            if complete_up_to < latest && complete_up_to > Millis::default() {
                tracing::error!(
                    kafka.partition = progress.id().partition,
                    complete_up_to = %chrono::DateTime::from(complete_up_to),
                    "the partition lags by more than half of what kafka keeps; records are lost \
                     when they expire unread"
                );
            }
        }
    }

    /// Compares each partition with what is stored of it, and stops the one that differs.
    fn compare(&mut self) {
        for (partition, held) in &self.held {
            if self.stopped.contains_key(partition) {
                continue;
            }
            let id = PartitionId {
                incarnation: self.incarnation,
                partition: *partition,
            };
            let (topic, taken, partition) = (self.topic.clone(), held.taken.clone(), *partition);
            self.loops.spawn(async move {
                let error = tokio::select! {
                    () = taken.cancelled() => None,
                    reason = differs(&topic, id) => {
                        reason.map(|reason| PartitionError::OtherTopic { reason })
                    }
                };
                if error.is_some() {
                    taken.cancel();
                }
                (partition, error)
            });
        }
    }
}

/// Whether the topic is another one than the stored rows are of. What cannot be asked now is
/// asked again later.
async fn differs(topic: &Topic, id: PartitionId) -> Option<String> {
    match topic.differs(id).await {
        Ok(difference) => difference,
        Err(error) => {
            tracing::warn!(
                kafka.partition = id.partition,
                error = %with_causes(&error),
                "the topic could not be compared with what is stored"
            );
            None
        }
    }
}
