//! What can go wrong, named after what the caller does next.

/// Why an event is not, or not surely, stored. A receipt resolves to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Kafka takes events more slowly than they come: refuse work, or go on without the event.
    /// It was not sent.
    #[error("the buffer is full")]
    BufferFull,
    /// The event is larger than [`MAX_EVENT_BYTES`](audit_schema::wire::MAX_EVENT_BYTES): send
    /// less. It was not sent.
    #[error(transparent)]
    TooLarge(#[from] audit_schema::wire::TooLarge),
    /// Kafka did not confirm the event in time, but may have it: publish the same event again
    /// with [`publish_maybe_delivered`](crate::Producer::publish_maybe_delivered).
    #[error("kafka did not confirm the event: {reason}")]
    Undelivered {
        /// What librdkafka says.
        reason: String,
    },
    /// The producer lost its place in Kafka and takes nothing more: make a new one, and publish
    /// the same event again with
    /// [`publish_maybe_delivered`](crate::Producer::publish_maybe_delivered).
    #[error("the producer is broken: {reason}")]
    Broken {
        /// What librdkafka says.
        reason: String,
    },
    /// The producer was closed before: publish earlier. It was not sent.
    #[error("the producer is closed")]
    Closed,
}

impl PublishError {
    /// The value of the label `outcome`.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::BufferFull => "buffer_full",
            Self::TooLarge(_) => "too_large",
            Self::Undelivered { .. } => "undelivered",
            Self::Broken { .. } => "broken",
            Self::Closed => "closed",
        }
    }
}

/// Why there is no producer. Mend the configuration.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A property that the producer's promises rest on.
    #[error("the property {0} is set by the producer itself")]
    ReservedProperty(String),
    /// librdkafka refuses the configuration.
    #[error("the configuration is refused: {0}")]
    Refused(#[from] rdkafka::error::KafkaError),
}

/// Why the producer cannot deliver now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No broker answers. It may pass.
    #[error("kafka does not answer: {0}")]
    Unreachable(String),
    /// The brokers do not know the topic. Create it.
    #[error("the topic {0} does not exist")]
    NoTopic(String),
    /// See [`PublishError::Broken`]. It does not pass.
    #[error("the producer is broken: {0}")]
    Broken(String),
}
