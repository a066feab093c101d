//! The topic: how it is made, what it has to be like, and what lies in it.

use std::time::{Duration, Instant};

use audit_schema::clickhouse::{SOURCES, local_table};
use audit_schema::row::Millis;
use clickhouse::Client;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::config::Config;
use crate::offsets::Bounds;
use crate::shards::Shards;

mod logs;

pub use logs::{LogReader, Logs};

/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// How long to wait before the broker is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What every topic of events has to be configured as, beside its retention.
const SETTINGS: [(&str, &str); 4] = [
    ("message.timestamp.type", "LogAppendTime"),
    ("cleanup.policy", "delete"),
    ("max.message.bytes", "1048576"),
    ("compression.type", "producer"),
];

/// Why the topic cannot be consumed.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// Kafka did not answer, or refused.
    #[error("kafka cannot be asked about topic {topic}; is it at {brokers}?")]
    Kafka {
        /// The topic.
        topic: String,
        /// Where it was looked for.
        brokers: String,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
    /// ClickHouse did not answer, or the tables are not there.
    #[error("the registered sources cannot be read; `audit-consumer migrate` makes the tables")]
    ClickHouse(#[source] clickhouse::error::Error),
    /// There is no such topic, or no life of it is registered.
    #[error("topic {0} is not there or not registered; `audit-consumer migrate` does both")]
    Unknown(String),
    /// The topic is not what it has to be.
    #[error(
        "topic {topic} must be changed before it can be consumed: {}; \
         `kafka-configs --bootstrap-server {brokers} --alter --entity-type topics \
         --entity-name {topic} --add-config {settings}` does it",
        .complaints.join("; ")
    )]
    Unfit {
        /// The topic.
        topic: String,
        /// Where it is.
        brokers: String,
        /// All that is wrong.
        complaints: Vec<String>,
        /// What it has to be set to: `name=value,…`.
        settings: String,
    },
    /// A new life was asked for, but it is the topic whose records are stored.
    #[error(
        "topic {topic} is the one whose records are stored, by its partitions {partitions:?}: \
         another life of it would store them a second time; only a topic that was deleted and \
         created anew, or that was given more partitions, begins another one"
    )]
    Unchanged {
        /// The topic.
        topic: String,
        /// The partitions whose last record is the stored one.
        partitions: Vec<u32>,
    },
    /// A life cannot end yet.
    #[error("the life of topic {topic} cannot end yet: {reason}")]
    Unfinished {
        /// The topic.
        topic: String,
        /// What has to be done before.
        reason: String,
    },
    /// Its partitions were changed within a life.
    #[error(
        "topic {topic} has {found} partitions, but {registered} were registered: events of one \
         key may have changed partition; `audit-consumer migrate --new-incarnation` begins another \
         life of it, which goes on where this one ends"
    )]
    Repartitioned {
        /// The topic.
        topic: String,
        /// How many it has.
        found: u32,
        /// How many it had.
        registered: u32,
    },
}

/// One topic, and the life of it that is registered.
#[derive(Clone)]
pub struct Topic {
    pub(crate) config: Config,
    pub(crate) client: Client,
    /// The first shard has the registered sources.
    pub(crate) shards: Shards,
    pub(crate) sources: String,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Topic")
            .field(&self.config.kafka.topic)
            .finish()
    }
}

impl Topic {
    /// The topic of `config`; `client` reads the tables that have all shards' rows.
    pub fn new(config: &Config, client: Client) -> Self {
        Self {
            config: config.clone(),
            client,
            shards: Shards::new(&config.clickhouse),
            sources: local_table(SOURCES, &config.clickhouse.options().engine),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.kafka.topic
    }

    pub(crate) fn kafka(&self, source: KafkaError) -> TopicError {
        TopicError::Kafka {
            topic: self.name().to_owned(),
            brokers: self.config.kafka.brokers.clone(),
            source,
        }
    }

    /// The settings of every client of this consumer.
    pub fn client_config(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.config.kafka.brokers);
        settings.set("client.id", "audit-consumer");
        // A broker that is back is noticed soon; the default grows to 10 s.
        settings.set("reconnect.backoff.max.ms", "1000");
        for (name, value) in self.config.kafka.properties.iter() {
            settings.set(name, value);
        }
        settings
    }

    /// Makes the topic if it is not there. Says whether it did.
    pub async fn create(&self) -> Result<bool, TopicError> {
        let admin: AdminClient<DefaultClientContext> =
            self.client_config().create().map_err(|e| self.kafka(e))?;
        let replication = i32::try_from(self.config.topic.replication).unwrap_or(i32::MAX);
        let partitions = i32::try_from(self.config.topic.partitions).unwrap_or(i32::MAX);
        let retention = self.config.topic.retention.as_millis().to_string();
        let in_sync = self.config.topic.min_insync_replicas.to_string();
        let mut topic = NewTopic::new(
            self.name(),
            partitions,
            TopicReplication::Fixed(replication),
        )
        .set("retention.ms", &retention)
        .set("min.insync.replicas", &in_sync);
        for (name, value) in SETTINGS {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(ANSWER))
            .operation_timeout(Some(ANSWER));
        let made = admin
            .create_topics([&topic], &options)
            .await
            .map_err(|e| self.kafka(e))?;
        match made.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(self.kafka(KafkaError::AdminOp(code))),
            _ => self.until_known().await.map(|()| true),
        }
    }

    /// Waits until the topic that was just made is known to the broker that is asked: the one that
    /// makes it tells the others afterwards, and itself.
    async fn until_known(&self) -> Result<(), TopicError> {
        let deadline = Instant::now() + ANSWER;
        loop {
            match self.partitions().await {
                Err(TopicError::Unknown(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                answered => return answered.map(drop),
            }
        }
    }

    /// Where the log of a partition begins and ends.
    pub(crate) async fn bounds(&self, partition: u32) -> Result<Bounds, TopicError> {
        let (settings, name) = (self.client_config(), self.name().to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = settings.create()?;
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            let (start, end) = consumer.fetch_watermarks(&name, partition, ANSWER)?;
            Ok(Bounds {
                start: u64::try_from(start).unwrap_or(0),
                end: u64::try_from(end).unwrap_or(0),
            })
        });
        let bounds = asked.await.unwrap_or(Err(KafkaError::Canceled));
        bounds.map_err(|e| self.kafka(e))
    }

    /// How many partitions the topic has now. Blocks a thread, not the runtime.
    pub(crate) async fn partitions(&self) -> Result<u32, TopicError> {
        let (settings, name) = (self.client_config(), self.name().to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = settings.create()?;
            let metadata = consumer.fetch_metadata(Some(&name), ANSWER)?;
            Ok(metadata
                .topics()
                .first()
                .map_or(0, |topic| match topic.error() {
                    None => topic.partitions().len(),
                    Some(_) => 0,
                }))
        });
        let partitions = asked
            .await
            .unwrap_or(Err(KafkaError::Canceled))
            .map_err(|e| self.kafka(e))?;
        match u32::try_from(partitions) {
            Ok(0) | Err(_) => Err(TopicError::Unknown(self.name().to_owned())),
            Ok(partitions) => Ok(partitions),
        }
    }

    /// Checks that the topic is fit to be consumed and gives its registered life.
    pub async fn check(&self) -> Result<u32, TopicError> {
        let found = self.partitions().await?;
        let registered = self
            .registered()
            .await?
            .ok_or_else(|| TopicError::Unknown(self.name().to_owned()))?;
        if registered.partitions != found {
            return Err(TopicError::Repartitioned {
                topic: self.name().to_owned(),
                found,
                registered: registered.partitions,
            });
        }
        let admin: AdminClient<DefaultClientContext> =
            self.client_config().create().map_err(|e| self.kafka(e))?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let described = admin
            .describe_configs([&ResourceSpecifier::Topic(self.name())], &options)
            .await
            .map_err(|e| self.kafka(e))?;
        let resource = match described.into_iter().next() {
            Some(Ok(resource)) => resource,
            Some(Err(code)) => return Err(self.kafka(KafkaError::AdminOp(code))),
            None => return Err(TopicError::Unknown(self.name().to_owned())),
        };
        let found = |name| resource.get(name).and_then(|entry| entry.value.as_deref());
        let (mut complaints, mut settings) = (Vec::new(), Vec::new());
        let off = SETTINGS
            .iter()
            .filter(|(name, wanted)| found(name) != Some(*wanted));
        for (name, wanted) in off {
            let found = found(name).unwrap_or_default();
            complaints.push(format!("{name}={found} must be {name}={wanted}"));
            settings.push(format!("{name}={wanted}"));
        }
        let wanted = self.config.topic.retention.as_millis();
        let retention: Option<i128> = found("retention.ms").and_then(|text| text.parse().ok());
        // Negative: for ever.
        if retention.is_none_or(|kept| kept >= 0 && kept.unsigned_abs() < wanted) {
            complaints.push(format!("retention.ms must be at least {wanted}"));
            settings.push(format!("retention.ms={wanted}"));
        }
        let wanted = self.config.topic.min_insync_replicas;
        let in_sync: Option<u32> = found("min.insync.replicas").and_then(|text| text.parse().ok());
        if in_sync.is_none_or(|in_sync| in_sync < wanted) {
            complaints.push(format!("min.insync.replicas must be at least {wanted}"));
            settings.push(format!("min.insync.replicas={wanted}"));
        }
        if complaints.is_empty() {
            Ok(registered.incarnation)
        } else {
            Err(TopicError::Unfit {
                topic: self.name().to_owned(),
                brokers: self.config.kafka.brokers.clone(),
                complaints,
                settings: settings.join(","),
            })
        }
    }
}

/// What a reader finds that starts at some offset.
#[derive(Debug)]
pub(crate) struct Look {
    /// The first offset Kafka still keeps.
    pub(crate) start: u64,
    /// The offset the next record got when the look began.
    pub(crate) end: u64,
    /// Offset and time of the first record from there on; `None` if there is none below `end`.
    pub(crate) first: Option<(u64, Millis)>,
}

/// A client that reads what it is told to: it commits nothing and joins no group.
pub(crate) fn lone_reader(settings: &ClientConfig) -> Result<BaseConsumer, KafkaError> {
    settings
        .clone()
        .set("group.id", "audit-consumer-look")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_uncommitted")
        .create()
}

/// Reads from an offset with a reader of its own, which commits nothing and belongs to no group.
/// Blocks for as long as the broker takes, at most twice [`ANSWER`].
pub(crate) fn look_from(
    settings: &ClientConfig,
    topic: &str,
    partition: u32,
    offset: u64,
) -> Result<Look, KafkaError> {
    let consumer = lone_reader(settings)?;
    let partition = i32::try_from(partition).unwrap_or(i32::MAX);
    let (start, end) = consumer.fetch_watermarks(topic, partition, ANSWER)?;
    let mut look = Look {
        start: u64::try_from(start).unwrap_or(0),
        end: u64::try_from(end).unwrap_or(0),
        first: None,
    };
    if offset < look.start || offset >= look.end {
        return Ok(look);
    }
    let mut list = TopicPartitionList::new();
    let from = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
    list.add_partition_offset(topic, partition, from)?;
    consumer.assign(&list)?;
    let deadline = Instant::now() + ANSWER;
    // A poll may return nothing early: an event of the client used it up.
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let offset = u64::try_from(message.offset()).unwrap_or(0);
                let time = Millis(message.timestamp().to_millis().unwrap_or(0));
                look.first = Some((offset, time)).filter(|_| offset < look.end);
                return Ok(look);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(look),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(
        RDKafkaErrorCode::OperationTimedOut,
    ))
}
