//! Where the logs of a topic begin and end.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::{ANSWER, Topic, TopicError};
use crate::batch::PartitionId;
use crate::offsets::Bounds;

/// Where the logs of all partitions begin and end, in the life that is registered.
#[derive(Debug, Clone)]
pub struct Logs {
    incarnation: u32,
    bounds: Vec<Bounds>,
}

impl Logs {
    /// The logs of one life, by partition.
    pub fn new(incarnation: u32, bounds: Vec<Bounds>) -> Self {
        Self {
            incarnation,
            bounds,
        }
    }

    /// Which life.
    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// All of them, by partition.
    pub(crate) fn bounds(&self) -> &[Bounds] {
        &self.bounds
    }

    /// The log of one partition, unless it is of another life.
    pub fn of(&self, id: PartitionId) -> Option<Bounds> {
        let place = usize::try_from(id.partition).ok()?;
        let bounds = self.bounds.get(place)?;
        (id.incarnation == self.incarnation).then_some(*bounds)
    }
}

/// A client that asks for the ends of logs.
#[derive(Clone)]
pub struct LogReader(Arc<BaseConsumer>);

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl Topic {
    /// A client that belongs to no group, to ask for [`Topic::logs`] with.
    pub fn reader(&self) -> Result<LogReader, KafkaError> {
        Ok(LogReader(Arc::new(self.client_config().create()?)))
    }

    /// Asks where its logs begin and end. Blocks a thread, not the runtime.
    pub async fn logs(&self, reader: &LogReader) -> Result<Logs, TopicError> {
        let source = self
            .registered()
            .await?
            .ok_or_else(|| TopicError::Unknown(self.name().to_owned()))?;
        let incarnation = source.incarnation;
        let (consumer, name) = (Arc::clone(&reader.0), self.name().to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            // Nothing is read with it, but what the client has to say would pile up.
            while consumer.poll(Duration::ZERO).is_some() {}
            (0..source.partitions)
                .map(|partition| {
                    let begin = source.begin(partition);
                    let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                    let (start, end) = consumer.fetch_watermarks(&name, partition, ANSWER)?;
                    Ok(Bounds {
                        start: u64::try_from(start).unwrap_or(0).max(begin),
                        end: u64::try_from(end).unwrap_or(0),
                    })
                })
                .collect()
        });
        let bounds: Result<_, KafkaError> = asked.await.unwrap_or(Err(KafkaError::Canceled));
        Ok(Logs::new(incarnation, bounds.map_err(|e| self.kafka(e))?))
    }
}
