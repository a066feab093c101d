//! How to reach Kafka, how much may wait for it, and what happens to events until then.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::{Deserialize, Deserializer};

use crate::durability::DurabilityConfig;
use crate::error::CreateError;
use crate::redaction::RedactionConfig;
use crate::spool::SpoolConfig;

/// The settings that order, durability and no duplicates rest on; `properties` may not name them.
const FIXED: [(&str, &str); 6] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("partitioner", "murmur2"),
    ("compression.type", "zstd"),
    // An event that librdkafka took is never given up: it is tried until Kafka has it.
    ("message.timeout.ms", "0"),
    ("delivery.timeout.ms", "0"),
];

/// What properties may override.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "audit-producer"),
    // Not librdkafka's 10 s: a sign-in may be waiting when Kafka comes back.
    ("reconnect.backoff.max.ms", "1000"),
    // A topic made by chance has the wrong number of partitions and the wrong clock.
    ("allow.auto.create.topics", "false"),
    // Not the 5 minutes after which a leader that moved unseen would be noticed.
    ("topic.metadata.refresh.interval.ms", "10000"),
    // A broker that stands still is left after 10 s, not after 60.
    ("socket.timeout.ms", "10000"),
    ("request.timeout.ms", "10000"),
];

/// Configuration of a [`Producer`](crate::Producer).
///
/// It is a plain struct with a default, and reads from whatever serde reads: a missing key is its
/// default, an unknown one is refused, a duration is text such as `250ms`.
///
/// ```
/// use audit_producer::ProducerConfig;
///
/// let config = ProducerConfig { brokers: "kafka-1:9092,kafka-2:9092".into(), ..Default::default() };
/// assert_eq!(config.topic, "audit.events.v1");
///
/// let config: ProducerConfig = toml::from_str(r#"
///     brokers = "kafka-1:9092"
///     spool = { folder = "/var/lib/auth/spool", max_bytes = 1_000_000_000 }
///     durability.types = { user_deleted = "require", session_created = "best_effort" }
///     properties = { security_protocol = "SASL_SSL" }
/// "#)?;
/// assert_eq!(config.properties["security.protocol"], "SASL_SSL");
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProducerConfig {
    /// First brokers to ask, `host:port`, separated by commas. Default: `127.0.0.1:9092`.
    pub brokers: String,
    /// The topic; it must exist. Default: [`TOPIC`](audit_schema::wire::TOPIC).
    pub topic: String,
    /// Most events that wait in memory; from 1. Default: 100,000.
    pub max_buffered_events: u32,
    /// Most bytes of events that wait in memory; from 1,024. The process needs about twice as
    /// much: librdkafka has a copy. Default: 64 MiB.
    pub max_buffered_bytes: u64,
    /// How long an event waits for others to travel with; up to 15 minutes. Default: 5 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Where events wait that Kafka does not take in time. Default: nowhere but in memory.
    pub spool: Option<SpoolConfig>,
    /// Which events have to be how durable. Default: all are spooled.
    pub durability: DurabilityConfig,
    /// What is removed from events before they leave the process. Default: passwords, tokens,
    /// secrets.
    pub redaction: RedactionConfig,
    /// Further properties of librdkafka, such as `security.protocol` or `sasl.password`. Read by
    /// serde, a name may be written with `_` for `.`. Default: none.
    #[serde(deserialize_with = "with_dots")]
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
            spool: None,
            durability: DurabilityConfig::default(),
            redaction: RedactionConfig::default(),
            properties: BTreeMap::new(),
        }
    }
}

/// A shell has no variables with dots in their names.
fn with_dots<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, String>, D::Error> {
    let properties = BTreeMap::<String, String>::deserialize(input)?;
    let dotted = properties
        .into_iter()
        .map(|(name, value)| (name.replace('_', "."), value));
    Ok(dotted.collect())
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
            .field("spool", &self.spool)
            .field("durability", &self.durability)
            .field("redaction", &self.redaction)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl ProducerConfig {
    /// The configuration in librdkafka's words.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, CreateError> {
        // What waits is bounded by us; librdkafka only must not refuse earlier.
        let kbytes = (self.max_buffered_bytes / 1_024).saturating_mul(2);
        let own = [
            ("bootstrap.servers", self.brokers.clone()),
            (
                "queue.buffering.max.messages",
                self.max_buffered_events.max(1).to_string(),
            ),
            (
                "queue.buffering.max.kbytes",
                kbytes.clamp(1_024, 2_147_483_647).to_string(),
            ),
            ("linger.ms", self.linger.as_millis().to_string()),
        ];
        let mut client = ClientConfig::new();
        for (name, value) in DEFAULTS {
            client.set(name, value);
        }
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
            "message.timeout.ms",
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

    #[test]
    fn librdkafka_takes_the_configuration() {
        let client = ProducerConfig::default().client_config().unwrap();
        assert!(client.create_native_config().is_ok());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_known_ones() {
        let refused = toml::from_str::<ProducerConfig>("broker = 'x'").unwrap_err();
        assert!(refused.to_string().contains("`brokers`"), "{refused}");
    }
}
