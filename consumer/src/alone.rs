//! Alone in the group: what a command needs to write rows itself.
//!
//! A command that stores rows keeps the consumer's protocol. It is a member of the consumer group,
//! the only one: whoever was a member before is refused by the broker from then on, and a
//! consumer that starts meanwhile takes the partition over by the group's rules, after which no
//! insert of the command follows. Before the command looks at what is stored it waits until
//! nothing that was sent before can land any more, so that what it finds missing stays missing.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use audit_schema::OffsetRange;
use audit_schema::row::Millis;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, PartitionId, Table};
use crate::config::Config;
use crate::error::{InsertError, PartitionError, ReadError};
use crate::group::{Event, GroupContext, Right};
use crate::membership;
use crate::offsets::{Bounds, Commit, Declared, GroupOffsets, Offsets};
use crate::store::{Insert, Store, token_prefix};
use crate::topic::{Topic, TopicError};
use crate::writer::Writer;

/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// How long the group may take to hand its partitions over.
const JOIN: Duration = Duration::from_secs(60);

/// How often it is looked whether anything can still land.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why a way out was not taken. Nothing was doubled or lost; the command can be run again.
#[derive(Debug, thiserror::Error)]
pub enum WayOutError {
    /// The topic is not as it has to be.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// ClickHouse did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// ClickHouse refuses what it is sent.
    #[error(transparent)]
    Insert(#[from] InsertError),
    /// Kafka did not answer.
    #[error("kafka does not answer")]
    Kafka(#[from] KafkaError),
    /// The partition cannot be worked on.
    #[error(transparent)]
    Partition(PartitionError),
    /// There is no such partition.
    #[error("the topic has no partition {0}")]
    NoPartition(u32),
    /// Stop the consumers first.
    #[error(
        "group {group} is in use by {}: stop these consumers first; one that was killed is gone \
         when kafka.session_timeout has passed",
        .members.join(", ")
    )]
    InUse {
        /// The group.
        group: String,
        /// Its members: client and host.
        members: Vec<String>,
    },
    /// The group does not hand its partitions over.
    #[error("the group did not give the partition to this command; run it again")]
    NotGiven,
    /// A consumer was started meanwhile.
    #[error(
        "a consumer took the partition over before this was done; stop the consumers and run it \
         again: what is done stays done"
    )]
    TakenOver,
    /// Kafka did not answer a commit in time.
    #[error("kafka was slow to answer an offset commit; run it again: what is done stays done")]
    CommitInDoubt,
    /// Kafka can still be read there.
    #[error(
        "kafka still has records from offset {log_start} on, which lies below {to}: --to {log_start} \
         gives up only what is gone; --even-if-kafka-has-them gives up readable records too"
    )]
    StillInKafka {
        /// Where the command was to go on.
        to: u64,
        /// The first offset Kafka keeps.
        log_start: u64,
    },
    /// The log ends before that.
    #[error("the log ends at offset {end}: there is nothing to go on with at {to}")]
    BehindTheEnd {
        /// Where the command was to go on.
        to: u64,
        /// Where the log ends.
        end: u64,
    },
    /// Letters of this kind stand for no event.
    #[error("dead letters of kind {0} are not replayed: there is no event to publish")]
    NotReplayable(String),
    /// A mutation does not get on.
    #[error(
        "clickhouse fails to rewrite {table}: {reason}; it tries again by itself: mend that and run \
         this again"
    )]
    Mutation {
        /// The table.
        table: String,
        /// What it says.
        reason: String,
    },
    /// More identifiers than are looked for at once.
    #[error(
        "{0} identifiers or more were found in the events of this user: is it one person? Nothing was \
         erased"
    )]
    TooManyIdentifiers(usize),
    /// Something was stored that no insert should have brought.
    #[error(
        "{events} events and {letters} dead letters of the person are still stored: is every consumer \
         of this version, and was every part of a restored backup attached anew? Run it again"
    )]
    NotErased {
        /// How many events.
        events: u64,
        /// How many dead letters.
        letters: usize,
    },
    /// The event that records an erasure cannot exist.
    #[error("the erasure cannot be recorded as an event, so it is not begun: {0}")]
    Unrecordable(String),
    /// Kafka did not confirm the event that records an erasure.
    #[error(
        "the data is erased, but kafka did not confirm the event that records it; run it again, it \
         is recorded once"
    )]
    Unrecorded(#[source] KafkaError),
    /// A thread of this process panicked.
    #[error("a thread of this command panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

impl From<PartitionError> for WayOutError {
    fn from(error: PartitionError) -> Self {
        match error {
            // The membership ends with the command: no copy of its commit lands after it.
            PartitionError::MembershipInDoubt(_) => Self::CommitInDoubt,
            PartitionError::Fenced => Self::TakenOver,
            other => Self::Partition(other),
        }
    }
}

/// Checks that a command works on the partition it means: it is one of the registered life of the
/// topic, and that life's records are those that are stored.
pub(crate) async fn known(topic: &Topic, partition: u32) -> Result<PartitionId, WayOutError> {
    let incarnation = topic.check().await?;
    if partition >= topic.partitions().await? {
        return Err(WayOutError::NoPartition(partition));
    }
    let id = PartitionId {
        incarnation,
        partition,
    };
    match topic.differs(id).await? {
        None => Ok(id),
        Some(reason) => Err(PartitionError::OtherTopic { reason }.into()),
    }
}

/// Waits until no insert of a partition can land any more that carries `clock` or an earlier time,
/// by default any that was sent until now: by ClickHouse's clock it is too old to be let pass, and
/// none that was let pass is being stored.
pub(crate) async fn outwait(
    writer: &Writer,
    id: PartitionId,
    clock: Option<Millis>,
) -> Result<(), ReadError> {
    let clock = match clock {
        Some(clock) => clock,
        None => writer.latest_clock(id).await?,
    };
    tracing::info!(
        kafka.partition = id.partition,
        "waiting until no earlier insert can land"
    );
    while writer.may_land(id, clock).await? {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// The only member of the group, holding the right to commit for one partition.
pub(crate) struct Alone {
    id: PartitionId,
    writer: Writer,
    offsets: GroupOffsets,
    /// No insert of this partition that anyone sent carries a later time of ClickHouse's.
    clock: Millis,
    _member: Member,
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alone")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Alone {
    /// Joins the group, which has to be empty, and waits until nothing that was sent before can
    /// land any more.
    pub(crate) async fn join(
        config: &Config,
        topic: &Topic,
        writer: &Writer,
        id: PartitionId,
    ) -> Result<Self, WayOutError> {
        let group = &config.kafka.group;
        let used_by = |members| WayOutError::InUse {
            group: group.clone(),
            members,
        };
        let members = in_use(config, topic).await?;
        if !members.is_empty() {
            return Err(used_by(members));
        }
        let consumer = Arc::new(membership::join(config, topic, "")?);
        let (said, events) = mpsc::unbounded_channel();
        let member = Member::start(Arc::clone(&consumer), said);
        let right = tokio::time::timeout(JOIN, given(events, id.partition)).await;
        let right = right.ok().flatten().ok_or(WayOutError::NotGiven)?;
        // One that joined at the same moment saw an empty group as well.
        let members = self::members(&consumer, group).await?;
        if members.len() > 1 {
            return Err(used_by(members));
        }
        let mut alone = Self {
            id,
            writer: writer.clone(),
            offsets: GroupOffsets::new(consumer, topic.name().into(), id, right),
            clock: Millis::default(),
            _member: member,
        };
        // A clock that was set back does not make what was sent before land any sooner.
        let declared = alone
            .offsets
            .committed()
            .await?
            .map(|commit| commit.declared);
        alone.clock = match declared {
            Some(Declared::Intent { clock, .. }) => clock.max(writer.latest_clock(id).await?),
            _ => writer.latest_clock(id).await?,
        };
        alone.outwait().await?;
        Ok(alone)
    }

    /// Where the log begins and ends.
    pub(crate) async fn bounds(&self) -> Result<Bounds, WayOutError> {
        Ok(self.offsets.bounds().await?)
    }

    /// Waits until nothing that anyone sent for this partition can land any more.
    async fn outwait(&self) -> Result<(), WayOutError> {
        Ok(outwait(&self.writer, self.id, Some(self.clock)).await?)
    }

    /// Makes the rows of a batch be there once, however often it takes. Gives how many were not.
    pub(crate) async fn store(&mut self, batch: &Batch) -> Result<u64, WayOutError> {
        let Some(range) = batch.range() else {
            return Ok(0);
        };
        let mut lacking = self.lacking(batch, range).await?;
        let stored = lacking.iter().map(|(_, rows)| rows.len()).sum::<usize>();
        while !lacking.is_empty() {
            for (table, rows) in &lacking {
                self.insert((batch, range), *table, rows).await?;
            }
            lacking = self.lacking(batch, range).await?;
            if !lacking.is_empty() {
                // Whatever became of it may still land.
                self.outwait().await?;
                lacking = self.lacking(batch, range).await?;
            }
        }
        Ok(u64::try_from(stored).unwrap_or(u64::MAX))
    }

    /// The rows of each table whose offset is in neither.
    async fn lacking(
        &self,
        batch: &Batch,
        range: OffsetRange,
    ) -> Result<Vec<(Table, Vec<usize>)>, WayOutError> {
        let present = self.writer.present(self.id, range).await?;
        let of = |table| {
            let mut rows = batch.rows_of(table);
            rows.retain(|row| {
                let offset = batch.offset(table, *row);
                offset.is_some_and(|offset| present.binary_search(&offset).is_err())
            });
            (table, rows)
        };
        Ok([Table::DeadLetters, Table::Events]
            .map(of)
            .into_iter()
            .filter(|(_, rows)| !rows.is_empty())
            .collect())
    }

    /// One attempt, under an accepted commit and a token of its own: the clock first, so that it
    /// is too old for the server when a successor has waited.
    async fn insert(
        &mut self,
        (batch, range): (&Batch, OffsetRange),
        table: Table,
        rows: &[usize],
    ) -> Result<(), WayOutError> {
        let turn = self.writer.turn(self.id).await?;
        self.clock = self.clock.max(turn.ingested_at);
        let intent = Commit {
            next: range.first(),
            declared: Declared::Intent {
                range,
                clock: self.clock,
            },
        };
        self.offsets.commit(intent).await?;
        let token = format!("{}{range}/{}", token_prefix(self.id), uuid::Uuid::now_v7());
        let insert = Insert {
            table,
            batch,
            rows,
            token: &token,
        };
        match self.writer.insert(turn, insert).await {
            Ok(()) => Ok(()),
            Err(InsertError::InDoubt(error)) => {
                tracing::warn!(
                    kafka.partition = self.id.partition,
                    token,
                    error = %error,
                    "the outcome of an insert is unknown; looking"
                );
                Ok(())
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Commits that everything below `next` is answered and nothing is under way, and leaves.
    pub(crate) async fn done(self, next: u64) -> Result<(), WayOutError> {
        let declared = Declared::Nothing;
        self.offsets.commit(Commit { next, declared }).await?;
        self.leave().await
    }

    /// Leaves the group; blocks a thread until the broker knows.
    async fn leave(self) -> Result<(), WayOutError> {
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }
}

/// The thread that stays in the group and that the group's callbacks come on.
struct Member {
    leave: CancellationToken,
    polling: Option<JoinHandle<()>>,
}

impl Member {
    fn start(
        consumer: Arc<BaseConsumer<GroupContext>>,
        said: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let leave = CancellationToken::new();
        let left = leave.clone();
        let polling = std::thread::spawn(move || {
            while !left.is_cancelled() {
                if let Some(Err(error)) = consumer.poll(Duration::from_millis(50)) {
                    tracing::warn!(error = %error, "kafka client");
                }
                for event in consumer.context().said() {
                    // Nobody listens any more once the partition was given.
                    said.send(event).ok();
                }
            }
        });
        Self {
            leave,
            polling: Some(polling),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave.cancel();
        if let Some(polling) = self.polling.take() {
            // A thread that panicked has said so.
            polling.join().ok();
        }
    }
}

/// Waits until the group gives `partition` to this member.
async fn given(mut events: mpsc::UnboundedReceiver<Event>, partition: u32) -> Option<Arc<Right>> {
    loop {
        match events.recv().await? {
            Event::Assigned {
                partition: given,
                right,
            } if given == partition => return Some(right),
            _ => {}
        }
    }
}

/// The members of a group: client and host.
async fn members(
    consumer: &Arc<BaseConsumer<GroupContext>>,
    group: &str,
) -> Result<Vec<String>, KafkaError> {
    let (consumer, group) = (Arc::clone(consumer), group.to_owned());
    let asked = tokio::task::spawn_blocking(move || {
        let list = consumer.fetch_group_list(Some(&group), ANSWER)?;
        let of_group = list.groups().iter().filter(|found| found.name() == group);
        let members = of_group
            .flat_map(rdkafka::groups::GroupInfo::members)
            .map(|member| format!("{} ({})", member.client_id(), member.client_host()));
        Ok::<_, KafkaError>(members.collect())
    });
    asked.await.unwrap_or(Err(KafkaError::Canceled))
}

/// Who is in the group; for what does not join it.
pub(crate) async fn in_use(config: &Config, topic: &Topic) -> Result<Vec<String>, KafkaError> {
    let consumer: BaseConsumer<GroupContext> = topic
        .client_config()
        .set("group.id", &config.kafka.group)
        .create_with_context(GroupContext::default())?;
    members(&Arc::new(consumer), &config.kafka.group).await
}
