//! How to reach Kafka, and how much may wait for it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::error::CreateError;

/// The settings that no duplicates, order and durability rest on; `properties` may not name them.
const FIXED: [(&str, &str); 4] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("partitioner", "murmur2"),
    ("compression.type", "zstd"),
];

/// Configuration of a [`Producer`](crate::Producer).
///
/// ```
/// use audit_producer::ProducerConfig;
///
/// let config = ProducerConfig { brokers: "kafka-1:9092,kafka-2:9092".into(), ..Default::default() };
/// assert_eq!(config.topic, "audit.events.v1");
/// ```
#[derive(Clone)]
pub struct ProducerConfig {
    /// First brokers to ask, `host:port`, separated by commas. Default: `127.0.0.1:9092`.
    pub brokers: String,
    /// The topic; it must exist. Default: [`TOPIC`](audit_schema::wire::TOPIC).
    pub topic: String,
    /// Most events that wait for Kafka; from 1. Default: 100,000.
    pub max_buffered_events: u32,
    /// Most bytes that wait for Kafka; from 1,024. Default: 64 MiB.
    pub max_buffered_bytes: u64,
    /// How long an event waits for others to travel with; up to 15 minutes. Default: 5 ms.
    pub linger: Duration,
    /// How long Kafka has to confirm an event; from 1 ms. Default: 5 minutes, in memory.
    pub delivery_timeout: Duration,
    /// Further properties of librdkafka, such as `security.protocol` or `sasl.password`.
    /// Default: none.
    pub properties: BTreeMap<String, String>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            topic: audit_schema::wire::TOPIC.to_owned(),
            max_buffered_events: 100_000,
            max_buffered_bytes: 64 * 1024 * 1024,
            linger: Duration::from_millis(5),
            delivery_timeout: Duration::from_secs(300),
            properties: BTreeMap::new(),
        }
    }
}

/// Shows the names of the further properties, not their values: a password may be among them.
impl fmt::Debug for ProducerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerConfig")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("max_buffered_events", &self.max_buffered_events)
            .field("max_buffered_bytes", &self.max_buffered_bytes)
            .field("linger", &self.linger)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl ProducerConfig {
    /// The configuration in librdkafka's words.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, CreateError> {
        let own = [
            ("bootstrap.servers", self.brokers.clone()),
            (
                "queue.buffering.max.messages",
                self.max_buffered_events.max(1).to_string(),
            ),
            (
                "queue.buffering.max.kbytes",
                (self.max_buffered_bytes / 1_024).max(1).to_string(),
            ),
            ("linger.ms", self.linger.as_millis().to_string()),
            // 0 would mean forever.
            (
                "delivery.timeout.ms",
                self.delivery_timeout.as_millis().max(1).to_string(),
            ),
        ];
        let mut client = ClientConfig::new();
        client.set("client.id", "audit-producer");
        // Not librdkafka's 10 s: a sign-in may be waiting when Kafka comes back.
        client.set("reconnect.backoff.max.ms", "1000");
        // A topic made by chance has the wrong number of partitions and the wrong clock.
        client.set("allow.auto.create.topics", "false");
        for (name, value) in &self.properties {
            let reserved = FIXED.iter().any(|(fixed, _)| fixed == name)
                || own.iter().any(|(set, _)| set == name);
            if reserved {
                return Err(CreateError::ReservedProperty(name.clone()));
            }
            client.set(name, value);
        }
        for (name, value) in own {
            client.set(name, value);
        }
        for (name, value) in FIXED {
            client.set(name, value);
        }
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> ProducerConfig {
        let properties = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        ProducerConfig {
            properties,
            ..ProducerConfig::default()
        }
    }

    #[test]
    fn a_property_the_promises_rest_on_is_refused() {
        for name in [
            "acks",
            "enable.idempotence",
            "bootstrap.servers",
            "linger.ms",
        ] {
            let refused = with(name, "1").client_config();
            assert!(matches!(refused, Err(CreateError::ReservedProperty(n)) if n == name));
        }
    }

    #[test]
    fn a_further_property_is_passed_on_and_not_printed() {
        let config = with("sasl.password", "hunter2");
        assert_eq!(
            config.client_config().unwrap().get("sasl.password"),
            Some("hunter2")
        );
        let printed = format!("{config:?}");
        assert!(
            printed.contains("sasl.password") && !printed.contains("hunter2"),
            "{printed}"
        );
    }
}
