//! The consumer group's offsets as the protocol uses them: a fence and a hint.
//!
//! Before every insert its range is declared by one offset commit, whose metadata names the range
//! and the time on ClickHouse's clock that the insert will carry. The broker refuses the commit of
//! a member it has replaced, so what a successor reads is the last thing its predecessor sent. The
//! broker does *not* check that a live member owns the partition (measured on Apache Kafka 4.4, all
//! three group protocols), so the right to commit is taken away here, in the callback that hands
//! the partition back, and every commit is made while holding it.
//!
//! A commit that is not answered at once may have been sent more than once, and a copy of it may
//! land behind a later one. Then what a successor reads would not be the last thing any more, so
//! the member gives up its membership: the broker refuses whatever is still on its way.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_schema::OffsetRange;
use audit_schema::row::Millis;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::batch::PartitionId;
use crate::error::PartitionError;
use crate::group::{GroupContext, Right};

/// What a commit declares beside its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// Nothing is under way.
    Nothing,
    /// The intent: rows of a range, which begins at the committed offset, are being inserted.
    Intent {
        /// The range.
        range: OffsetRange,
        /// ClickHouse's time that this insert carries, and no earlier one exceeds.
        clock: Millis,
    },
}

/// One commit: everything below `next` was answered, and `declared` may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The committed offset.
    pub next: u64,
    /// What may be under way.
    pub declared: Declared,
}

impl Commit {
    /// The commit's metadata: `v1|incarnation|` and `first-last@clock` or nothing.
    pub(crate) fn metadata(self, incarnation: u32) -> String {
        match self.declared {
            Declared::Nothing => format!("v1|{incarnation}|"),
            Declared::Intent { range, clock } => format!("v1|{incarnation}|{range}@{}", clock.0),
        }
    }

    /// Reads a commit. One of another hand, or of another life of the topic, is none: whoever
    /// moved the offset did not know what is under way.
    fn parse(next: u64, metadata: &str, incarnation: u32) -> Option<Self> {
        let text = metadata.strip_prefix(&format!("v1|{incarnation}|"))?;
        let declared = if text.is_empty() {
            Declared::Nothing
        } else {
            let (range, clock) = text.split_once('@')?;
            let (first, last) = range.split_once('-')?;
            let range = OffsetRange::new(first.parse().ok()?, last.parse().ok()?)?;
            let clock = Millis(clock.parse().ok()?);
            Some(range).filter(|range| range.first() == next)?;
            Declared::Intent { range, clock }
        };
        Some(Self { next, declared })
    }

    /// The offset from which on nothing is under way.
    pub fn end(self) -> u64 {
        match self.declared {
            Declared::Nothing => self.next,
            Declared::Intent { range, .. } => range.end(),
        }
    }
}

/// Where the log of a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset Kafka still keeps.
    pub start: u64,
    /// The offset the next record will get.
    pub end: u64,
}

/// What the partition loop needs of the consumer group, for one partition.
pub trait Offsets: Send + Sync {
    /// The last commit, if there is one of ours.
    fn committed(&self) -> impl Future<Output = Result<Option<Commit>, PartitionError>> + Send;

    /// Commits, and returns when the broker has answered; with
    /// [`PartitionError::MembershipInDoubt`] if a copy of the commit may still be on its way.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<(), PartitionError>> + Send;

    /// Where the log begins and ends.
    fn bounds(&self) -> impl Future<Output = Result<Bounds, PartitionError>> + Send;
}

/// The offsets of one partition in a real consumer group.
#[derive(Clone)]
pub struct GroupOffsets {
    consumer: Arc<BaseConsumer<GroupContext>>,
    topic: Arc<str>,
    id: PartitionId,
    right: Arc<Right>,
}

impl fmt::Debug for GroupOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupOffsets")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// After how long the client itself repeats a request whose connection broke, at the earliest four
/// fifths of it: what was answered sooner was sent once.
/// Source: `rd_kafka_broker_buf_retry` of librdkafka, which varies `retry.backoff.ms` by a fifth.
pub(crate) const CLIENT_REPEATS: Duration = Duration::from_secs(2);

/// A commit that was answered within this time was sent once.
const SENT_ONCE: Duration = Duration::from_millis(1500);

/// How long one question to the broker may take before it is asked again.
const ANSWER: Duration = Duration::from_secs(5);

/// How long to wait before a question is asked again.
const AGAIN: Duration = Duration::from_millis(200);

impl GroupOffsets {
    /// The offsets of `id` for as long as `right` is held.
    pub fn new(
        consumer: Arc<BaseConsumer<GroupContext>>,
        topic: Arc<str>,
        id: PartitionId,
        right: Arc<Right>,
    ) -> Self {
        Self {
            consumer,
            topic,
            id,
            right,
        }
    }

    fn list(&self, commit: Option<Commit>) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        let partition = i32::try_from(self.id.partition).unwrap_or(i32::MAX);
        let mut element = list.add_partition(&self.topic, partition);
        if let Some(commit) = commit {
            element.set_offset(Offset::Offset(
                i64::try_from(commit.next).unwrap_or(i64::MAX),
            ))?;
            element.set_metadata(commit.metadata(self.id.incarnation));
        }
        Ok(list)
    }

    /// Asks the broker until it answers, or until `give_up` says not to ask again.
    async fn until_answered<T: Send + 'static>(
        &self,
        what: &'static str,
        ask: impl Fn(&Self) -> Result<T, KafkaError> + Clone + Send + 'static,
        give_up: impl Fn(&KafkaError) -> bool,
    ) -> Result<T, PartitionError> {
        loop {
            let (offsets, ask) = (self.clone(), ask.clone());
            // The guard is held in the thread that waits for the broker, so that taking the right
            // away waits for the answer even if nobody waits for this future any more.
            let answer = tokio::task::spawn_blocking(move || {
                let held = offsets.right.hold()?;
                let answer = ask(&offsets);
                drop(held);
                Some(answer)
            });
            match answer.await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(None) | Err(_) => return Err(PartitionError::Fenced),
                Ok(Some(Err(error))) if is_fenced(&error) => return Err(PartitionError::Fenced),
                Ok(Some(Err(error))) if is_refused(&error) => {
                    return Err(PartitionError::Commit(error));
                }
                Ok(Some(Err(error))) => {
                    if give_up(&error) {
                        return Err(PartitionError::MembershipInDoubt(Some(error)));
                    }
                    tracing::warn!(
                        kafka.partition = self.id.partition,
                        error = %error,
                        "kafka did not answer ({what}); asking again"
                    );
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

impl Offsets for GroupOffsets {
    async fn committed(&self) -> Result<Option<Commit>, PartitionError> {
        let ask = |this: &Self| {
            let found = this.consumer.committed_offsets(this.list(None)?, ANSWER)?;
            let element = found.elements().into_iter().next();
            Ok(element.and_then(|element| match element.offset() {
                Offset::Offset(next) => Commit::parse(
                    u64::try_from(next).ok()?,
                    element.metadata(),
                    this.id.incarnation,
                ),
                _ => None,
            }))
        };
        self.until_answered("committed offset", ask, |_| false)
            .await
    }

    async fn commit(&self, commit: Commit) -> Result<(), PartitionError> {
        let ask = move |this: &Self| {
            let sent = Instant::now();
            this.consumer
                .commit(&this.list(Some(commit))?, CommitMode::Sync)?;
            Ok(sent.elapsed() < SENT_ONCE)
        };
        let sent_once = self
            .until_answered("offset commit", ask, |error| !is_no(error))
            .await?;
        if sent_once {
            Ok(())
        } else {
            Err(PartitionError::MembershipInDoubt(None))
        }
    }

    async fn bounds(&self) -> Result<Bounds, PartitionError> {
        let ask = |this: &Self| {
            let partition = i32::try_from(this.id.partition).unwrap_or(i32::MAX);
            let (start, end) = this
                .consumer
                .fetch_watermarks(&this.topic, partition, ANSWER)?;
            Ok(Bounds {
                start: u64::try_from(start).unwrap_or(0),
                end: u64::try_from(end).unwrap_or(0),
            })
        };
        self.until_answered("log bounds", ask, |_| false).await
    }
}

fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::FencedInstanceId
                | RDKafkaErrorCode::AssignmentLost
                | RDKafkaErrorCode::Fenced
        )
    )
}

fn is_refused(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::OffsetMetadataTooLarge
                | RDKafkaErrorCode::InvalidGroupId
                | RDKafkaErrorCode::Authentication
        )
    )
}

/// Whether the broker itself said that it did not take a commit, and may take it later.
fn is_no(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::RebalanceInProgress
                // A new member joined, and this one has not been told its new generation yet.
                // Whoever was replaced loses its right before it is given another generation.
                | RDKafkaErrorCode::IllegalGeneration
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;

    #[tokio::test]
    async fn a_revoked_partition_cannot_commit() {
        let kafka = MockCluster::new(1).unwrap();
        kafka.create_topic("events", 1, 1).unwrap();
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap_servers())
            .set("group.id", "audit-consumer")
            .create_with_context(GroupContext::default())
            .unwrap();
        let id = PartitionId {
            incarnation: 1,
            partition: 0,
        };
        let right = Right::granted();
        let offsets =
            GroupOffsets::new(Arc::new(consumer), "events".into(), id, Arc::clone(&right));
        let range = OffsetRange::new(7, 12).unwrap();
        let clock = Millis(1_700_000_000_000);
        let declared = Declared::Intent { range, clock };
        let mine = Commit { next: 7, declared };
        offsets.commit(mine).await.unwrap();
        assert_eq!(offsets.committed().await.unwrap(), Some(mine));

        right.revoke();
        let late = Commit {
            next: 13,
            declared: Declared::Nothing,
        };
        let refused = offsets.commit(late).await;
        assert!(
            matches!(refused, Err(PartitionError::Fenced)),
            "{refused:?}"
        );
    }

    #[test]
    fn an_intent_is_read_back_as_it_was_committed() {
        let range = OffsetRange::new(7, 12).unwrap();
        let clock = Millis(1_700_000_000_000);
        for (declared, metadata) in [
            (Declared::Nothing, "v1|3|"),
            (Declared::Intent { range, clock }, "v1|3|7-12@1700000000000"),
        ] {
            let commit = Commit { next: 7, declared };
            assert_eq!(commit.metadata(3), metadata);
            assert_eq!(Commit::parse(7, metadata, 3), Some(commit));
        }
    }

    #[test]
    fn a_commit_of_another_hand_is_none() {
        for metadata in [
            "",
            "v2|3|7-12@5",
            "v1|4|7-12@5",
            "v1|3|12-7@5",
            "v1|3|8-12@5",
            "v1|3|x-y@5",
            "v1|3|7-12@",
            "v1|3|7-12",
            "7-12@5",
        ] {
            assert_eq!(Commit::parse(7, metadata, 3), None, "{metadata:?}");
        }
    }
}
