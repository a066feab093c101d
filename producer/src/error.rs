//! What can go wrong, named after what the caller does next.

use rdkafka::types::RDKafkaErrorCode;

use crate::redaction::RedactionError;
use crate::spool::SpoolError;

/// Why an event is not durable. A receipt resolves to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The event is larger than [`MAX_EVENT_BYTES`](audit_schema::wire::MAX_EVENT_BYTES): send
    /// less. It was not sent.
    #[error(transparent)]
    TooLarge(#[from] audit_schema::wire::TooLarge),
    /// Events come faster than they go, and memory is full: refuse work, or go on without the
    /// event. It was not sent.
    #[error("the buffer is full")]
    BufferFull,
    /// Kafka is away and the spool is full, cannot be written, or is not for events of this
    /// durability: refuse work, or go on without the event. It was not sent.
    #[error("kafka is away, and the event cannot be spooled")]
    SpoolFull,
    /// The producer was closed before: publish earlier. It was not sent.
    #[error("the producer is closed")]
    Closed,
    /// The producer was closed before Kafka confirmed the event, which Kafka may have: publish
    /// the same event with
    /// [`publish_maybe_delivered`](crate::Producer::publish_maybe_delivered) next time.
    #[error("the producer was closed before kafka confirmed the event")]
    GivenUp,
}

impl Refused {
    /// The value of the label `outcome`, and the reason given in `audit_events_lost`.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::BufferFull => "buffer_full",
            Self::SpoolFull => "spool_full",
            Self::Closed => "closed",
            Self::GivenUp => "given_up",
        }
    }
}

/// Why there is no producer. Mend what it names.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A property that the producer's promises rest on.
    #[error("the property {0} is set by the producer itself")]
    ReservedProperty(String),
    /// librdkafka refuses the configuration.
    #[error("the configuration is refused: {0}")]
    Refused(#[from] rdkafka::error::KafkaError),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What is to be redacted is not clear: nothing is published before it is.
    #[error(transparent)]
    Redaction(#[from] RedactionError),
    /// The system gives no thread.
    #[error("no thread for deliveries: {0}")]
    NoThread(std::io::Error),
}

/// Why Kafka does not take events now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No broker answers. It may pass.
    #[error("kafka does not answer: {0}")]
    Unreachable(String),
    /// The brokers refuse the login, or are not who they have to be: mend `properties`.
    #[error("kafka refuses the connection: {0}")]
    LoginRefused(String),
    /// The login may not write to the topic: grant it `DESCRIBE` and `WRITE`.
    #[error("the right to write to the topic {0} is missing")]
    NotAllowed(String),
    /// The brokers do not know the topic: create it.
    #[error("the topic {0} does not exist")]
    NoTopic(String),
}

impl CheckError {
    /// What `code` means for `topic`; `reason` is what librdkafka says of it.
    pub(crate) fn of(code: RDKafkaErrorCode, topic: &str, reason: &str) -> Self {
        match code {
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::SSL => Self::LoginRefused(reason.to_owned()),
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => Self::NotAllowed(topic.to_owned()),
            RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                Self::NoTopic(topic.to_owned())
            }
            _ => Self::Unreachable(reason.to_owned()),
        }
    }

    /// Whether only a person can mend it.
    pub fn is_misconfigured(&self) -> bool {
        !matches!(self, Self::Unreachable(_))
    }
}
