//! The logs of all partitions: where they begin and end, so that what is stored can be held against
//! them.

use crate::batch::PartitionId;
use crate::offsets::Bounds;
use crate::topic::{Topic, TopicError};

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

    /// Asks Kafka for those of the registered life.
    pub async fn ask(topic: &Topic) -> Result<Self, TopicError> {
        let incarnation = topic.check().await?;
        let mut bounds = Vec::new();
        for partition in 0..topic.partitions().await? {
            bounds.push(topic.bounds(partition).await?);
        }
        Ok(Self::new(incarnation, bounds))
    }

    /// The log of one partition, unless it is of another life.
    pub fn of(&self, id: PartitionId) -> Option<Bounds> {
        let place = usize::try_from(id.partition).ok()?;
        let bounds = self.bounds.get(place)?;
        (id.incarnation == self.incarnation).then_some(*bounds)
    }
}
