//! Publishing again: events that may be in the topic already, with their own ids and times.
//!
//! Every record is marked `audit-maybe-delivered`, so that the consumer looks for an earlier copy
//! at the lower offsets of its partition. It finds one only there: so the partition follows from the
//! key as it does in `audit-producer`, by murmur2.

use std::time::Duration;

use audit_schema::wire;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use crate::topic::Topic;

/// How long Kafka may take to store one event.
const DELIVERY: Duration = Duration::from_secs(60);

/// A connection to Kafka that publishes to one topic, up to 64 MiB at a time.
pub(crate) struct Publisher {
    producer: FutureProducer,
    topic: String,
}

impl Publisher {
    pub(crate) fn new(topic: &Topic) -> Result<Self, KafkaError> {
        let producer = topic
            .client_config()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2")
            .set("compression.type", "zstd")
            .set("linger.ms", "5")
            .set("message.max.bytes", "1048576")
            .set("queue.buffering.max.kbytes", "65536")
            .set("delivery.timeout.ms", DELIVERY.as_millis().to_string())
            .set("allow.auto.create.topics", "false")
            .create()?;
        Ok(Self {
            producer,
            topic: topic.name().to_owned(),
        })
    }

    /// Sends a record to `partition`, or to the one of its key.
    pub(crate) fn publish(
        &self,
        partition: Option<u32>,
        key: &str,
        value: &[u8],
    ) -> Result<UnderWay, KafkaError> {
        let header = |key, value| Header { key, value };
        let mut record = FutureRecord::to(&self.topic)
            .key(key)
            .payload(value)
            .headers(
                OwnedHeaders::new_with_capacity(2)
                    .insert(header(wire::VERSION_HEADER, Some(wire::VERSION)))
                    .insert(header(wire::MAYBE_DELIVERED_HEADER, Some("1"))),
            );
        if let Some(partition) = partition {
            record = record.partition(i32::try_from(partition).unwrap_or(i32::MAX));
        }
        let sent = self.producer.send_result(record);
        sent.map(UnderWay).map_err(|(error, _)| error)
    }
}

/// A record on its way.
pub(crate) struct UnderWay(DeliveryFuture);

impl UnderWay {
    /// Where Kafka has it. After an error Kafka may have it or not.
    pub(crate) async fn delivered(self) -> Result<Delivery, KafkaError> {
        match self.0.await {
            Ok(Ok(delivered)) => Ok(delivered),
            Ok(Err((error, _))) => Err(error),
            Err(_) => Err(KafkaError::Canceled),
        }
    }
}
