//! The consumer group: which partitions this member is given, and when they are taken away.
//!
//! librdkafka calls back here, on the thread of the source, while that thread polls.

use std::collections::HashMap;
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
}

impl GroupContext {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_right_cannot_be_held() {
        let right = Right::granted();
        assert!(right.hold().is_some());
        right.revoke();
        assert!(right.hold().is_none());
    }
}
