//! The consumer group: which partitions this member is given, and when they are taken away.
//!
//! librdkafka calls back here, on the thread of the source, while that thread polls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use crate::error::PartitionError;

/// The right to commit for one partition, from its assignment until it is handed back.
#[derive(Debug)]
pub struct Right(Mutex<bool>);

impl Right {
    /// A right that is held.
    pub fn granted() -> Arc<Self> {
        Arc::new(Self(Mutex::new(true)))
    }

    /// Takes the right away, after the commit that is under way. No commit follows.
    pub fn revoke(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Keeps the right for as long as the guard lives.
    pub(crate) fn hold(&self) -> Option<MutexGuard<'_, bool>> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.then_some(guard)
    }
}

/// What the source tells the rest of the consumer.
#[derive(Debug)]
pub enum Event {
    /// The group gave this member a partition.
    Assigned {
        /// The partition.
        partition: u32,
        /// The right to commit for it.
        right: Arc<Right>,
    },
    /// The group took a partition away; its right is gone already.
    Revoked {
        /// The partition.
        partition: u32,
    },
    /// Kafka does not know the topic: it may be another one when it does again.
    TopicInQuestion,
    /// The topic was created anew under the same name.
    OtherTopic {
        /// What gave it away.
        reason: String,
    },
    /// A partition cannot be read on.
    Unreadable {
        /// The partition.
        partition: u32,
        /// Why.
        error: PartitionError,
    },
}

/// What librdkafka calls back into.
#[derive(Debug, Default)]
pub struct GroupContext {
    rights: Mutex<HashMap<u32, Arc<Right>>>,
    events: Mutex<Vec<Event>>,
    other_topic: AtomicBool,
}

impl GroupContext {
    /// Whether the topic was created anew under the same name since this member joined. Nothing
    /// that is read then belongs to the life that is consumed.
    pub(crate) fn is_other_topic(&self) -> bool {
        self.other_topic.load(Ordering::Acquire)
    }

    fn say(&self, event: Event) {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event);
    }

    /// What happened since it was asked last, in order.
    pub(crate) fn said(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(reason) = topic_anew(message)
            && !self.other_topic.swap(true, Ordering::AcqRel)
        {
            self.say(Event::OtherTopic { reason });
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::error!(facility, "kafka client: {message}"),
            RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka client: {message}"),
            _ => tracing::debug!(facility, "kafka client: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Not an error, and reported by `poll` as well.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        tracing::warn!(error = %error, "kafka client: {reason}");
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let ids: Vec<u32> = partitions
            .elements()
            .iter()
            .filter_map(|element| u32::try_from(element.partition()).ok())
            .collect();
        let mut rights = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        let done = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            for partition in ids {
                let right = Right::granted();
                rights.insert(partition, Arc::clone(&right));
                self.say(Event::Assigned { partition, right });
            }
            // Paused until the partition's loop says where to read; the start given here is
            // never used.
            partitions
                .set_all_offsets(Offset::Beginning)
                .and_then(|()| consumer.incremental_assign(partitions))
                .and_then(|()| consumer.pause(partitions))
        } else {
            // The right goes before the partition does: this waits for a commit under way.
            for partition in ids {
                if let Some(right) = rights.remove(&partition) {
                    right.revoke();
                }
                self.say(Event::Revoked { partition });
            }
            consumer.incremental_unassign(partitions)
        };
        if let Err(error) = done {
            tracing::error!(error = %error, "kafka client: a rebalance could not be followed");
        }
    }
}

/// What the client is asked to log, beside warnings, so that [`topic_anew`] is told.
pub(crate) const LOGGED: (&str, &str) = ("debug", "topic");

/// Tells that the topic has another id than before, out of what the client logs.
///
/// The client reads on in a topic that was deleted and created anew, from where it was in the old
/// one, without telling the application: its source calls that a thing to be mended. It logs the
/// change when it learns of it, before it asks for anything of the new topic.
/// Source: `rd_kafka_topic_metadata_update2` in `rdkafka_topic.c` of librdkafka 2.12.
fn topic_anew(message: &str) -> Option<String> {
    let (_, ids) = message.split_once(" changed id from ")?;
    let (old, new) = ids.split_once(" to ")?;
    // The first id follows none, which is written as zeroes.
    let first = old.bytes().all(|byte| byte == b'A' || byte == b'=');
    (!first).then(|| format!("kafka knew it as {old} and now as {new}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_created_anew_when_its_id_changes_from_another() {
        let logged = |from| {
            format!("[thrd:main]: Topic audit changed id from {from} to 7N_3oTqpTG2cAbcGSBpEbA")
        };
        assert_eq!(topic_anew(&logged("AAAAAAAAAAAAAAAAAAAAAA")), None);
        assert!(topic_anew(&logged("vrkXTM3pQ1e0jzWfvpHuIw")).is_some());
        assert_eq!(
            topic_anew("[thrd:main]: Topic audit [0] Leader 1 Epoch 0"),
            None
        );
    }

    #[test]
    fn a_revoked_right_cannot_be_held() {
        let right = Right::granted();
        assert!(right.hold().is_some());
        right.revoke();
        assert!(right.hold().is_none());
    }
}
