//! The topic: how it is made, what it has to be like, and which life of it is consumed.
//!
//! An **incarnation** is one life of the topic. A topic deleted and created anew under the same
//! name reuses offsets, so the life is part of every position. Kafka's name cannot tell two lives
//! apart, the records can: the time Kafka took a record at is compared with the stored row.

use std::time::{Duration, Instant};

use audit_schema::clickhouse::SOURCES;
use audit_schema::dead_letter::DEAD_LETTERS;
use audit_schema::row::{EVENTS, Millis};
use clickhouse::{Client, Row};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::audit;
use crate::batch::PartitionId;
use crate::config::Config;
use crate::offsets::{Commit, Declared};

mod logs;

pub use logs::{LogReader, Logs};

/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

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
         `kafka-configs --alter --entity-type topics --entity-name {topic} --add-config …` does it",
        .complaints.join("; ")
    )]
    Unfit {
        /// The topic.
        topic: String,
        /// All that is wrong.
        complaints: Vec<String>,
    },
    /// Its partitions were changed within a life.
    #[error(
        "topic {topic} has {found} partitions, but {registered} were registered: events of one \
         key may have changed partition; register a new life with \
         `audit-consumer migrate --new-incarnation`"
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

#[derive(Debug, Row, Serialize, Deserialize)]
struct SourceRow {
    topic: String,
    incarnation: u32,
    partitions: u32,
    registered_at: Millis,
}

#[derive(Debug, Row, Deserialize)]
struct StoredRow {
    offset: u64,
    logged_at: Millis,
}

/// One topic, and the life of it that is registered.
#[derive(Clone)]
pub struct Topic {
    config: Config,
    client: Client,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Topic")
            .field(&self.config.kafka.topic)
            .finish()
    }
}

impl Topic {
    /// The topic of `config`; `client` reads and writes the registered sources.
    pub fn new(config: &Config, client: Client) -> Self {
        Self {
            config: config.clone(),
            client,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.kafka.topic
    }

    fn kafka(&self, source: KafkaError) -> TopicError {
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
        let mut topic = NewTopic::new(
            self.name(),
            partitions,
            TopicReplication::Fixed(replication),
        )
        .set("retention.ms", &retention);
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
            _ => Ok(true),
        }
    }

    /// Registers the topic's life, if none is registered or `anew` asks for another one.
    pub async fn register(&self, anew: bool) -> Result<u32, TopicError> {
        let known = self.registered().await?;
        let incarnation = match known {
            Some(known) if !anew => return Ok(known.incarnation),
            Some(known) => known.incarnation.saturating_add(1),
            None => 1,
        };
        let row = SourceRow {
            topic: self.name().to_owned(),
            incarnation,
            partitions: self.partitions().await?,
            registered_at: chrono::Utc::now().into(),
        };
        let mut insert = self
            .client
            .insert::<SourceRow>(SOURCES)
            .await
            .map_err(TopicError::ClickHouse)?;
        insert.write(&row).await.map_err(TopicError::ClickHouse)?;
        insert.end().await.map_err(TopicError::ClickHouse)?;
        self.declare_untouched(&row).await;
        Ok(incarnation)
    }

    /// Commits for the group that nothing of a new life is under way, which only its registration
    /// knows for sure. Without it the first start outwaits inserts that nobody sent.
    async fn declare_untouched(&self, source: &SourceRow) {
        let mut settings = self.client_config();
        settings.set("group.id", &self.config.kafka.group);
        let untouched = Commit {
            next: 0,
            declared: Declared::Nothing,
        };
        let (topic, partitions) = (source.topic.clone(), source.partitions);
        let metadata = untouched.metadata(source.incarnation);
        let committed = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = settings.create()?;
            let mut list = TopicPartitionList::new();
            for partition in 0..partitions {
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                let mut element = list.add_partition(&topic, partition);
                element.set_offset(Offset::Offset(0))?;
                element.set_metadata(&metadata);
            }
            consumer.commit(&list, CommitMode::Sync)
        });
        if let Ok(Err(error)) = committed.await {
            tracing::info!(error = %error, "the group is in use: its first start takes a while longer");
        }
    }

    async fn registered(&self) -> Result<Option<SourceRow>, TopicError> {
        self.client
            .query_raw(&format!(
                "SELECT topic, incarnation, partitions, registered_at FROM {SOURCES} \
                 WHERE topic = {{topic:String}} ORDER BY incarnation DESC, registered_at DESC LIMIT 1"
            ))
            .param("topic", self.name())
            .fetch_optional::<SourceRow>()
            .await
            .map_err(TopicError::ClickHouse)
    }

    /// How many partitions the topic has now. Blocks a thread, not the runtime.
    async fn partitions(&self) -> Result<u32, TopicError> {
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
        let mut complaints: Vec<String> = SETTINGS
            .iter()
            .filter(|(name, wanted)| found(name) != Some(*wanted))
            .map(|(name, wanted)| {
                format!(
                    "{name}={} must be {name}={wanted}",
                    found(name).unwrap_or_default()
                )
            })
            .collect();
        let wanted = self.config.topic.retention.as_millis();
        let retention: Option<i128> = found("retention.ms").and_then(|text| text.parse().ok());
        // Negative: for ever.
        if retention.is_none_or(|kept| kept >= 0 && kept.unsigned_abs() < wanted) {
            complaints.push(format!("retention.ms must be at least {wanted}"));
        }
        if complaints.is_empty() {
            Ok(registered.incarnation)
        } else {
            Err(TopicError::Unfit {
                topic: self.name().to_owned(),
                complaints,
            })
        }
    }

    /// Compares the record at the highest stored offset with its row. `Some` says what differs.
    ///
    /// A record that expired, or a partition without rows, says nothing.
    pub async fn differs(&self, id: PartitionId) -> Result<Option<String>, TopicError> {
        // The highest offset is found in the order of positions, and its row by that offset.
        let source = audit::of(id);
        let highest = |table: &str, records: &str| {
            format!(
                "SELECT source_offset AS offset, logged_at FROM {table} WHERE {source} \
                 AND source_offset = (SELECT source_offset FROM {table} WHERE {source}{records} \
                 ORDER BY source_incarnation DESC, source_partition DESC, source_offset DESC \
                 LIMIT 1)"
            )
        };
        let sql = format!(
            "SELECT offset, logged_at FROM ({} UNION ALL {}) ORDER BY offset DESC LIMIT 1",
            highest(EVENTS, ""),
            highest(DEAD_LETTERS, " AND kind NOT IN ('absent', 'skipped')")
        );
        let stored = self
            .client
            .query_raw(&sql)
            .fetch_optional::<StoredRow>()
            .await
            .map_err(TopicError::ClickHouse)?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        let (settings, topic) = (self.client_config(), self.name().to_owned());
        let looked = tokio::task::spawn_blocking(move || {
            record_time(&settings, &topic, id.partition, stored.offset)
        });
        let found = looked
            .await
            .unwrap_or(Err(KafkaError::Canceled))
            .map_err(|e| self.kafka(e))?;
        Ok(match found {
            Found::Expired => None,
            Found::At(time) if time == stored.logged_at => None,
            Found::At(time) => Some(format!(
                "offset {} was logged at {} ms, but its row says {} ms",
                stored.offset, time.0, stored.logged_at.0
            )),
            Found::BehindTheEnd(end) => Some(format!(
                "offset {} is stored, but the log ends at {end}",
                stored.offset
            )),
        })
    }
}

/// What Kafka has at an offset.
#[derive(Debug)]
enum Found {
    At(Millis),
    Expired,
    BehindTheEnd(u64),
}

/// When Kafka took the record at an offset. Blocks.
fn record_time(
    settings: &ClientConfig,
    topic: &str,
    partition: u32,
    offset: u64,
) -> Result<Found, KafkaError> {
    let look = look_from(settings, topic, partition, offset)?;
    Ok(if offset < look.start {
        Found::Expired
    } else if offset >= look.end {
        Found::BehindTheEnd(look.end)
    } else {
        match look.first {
            Some((first, time)) if first == offset => Found::At(time),
            // The record itself is gone; a later one does not tell.
            _ => Found::Expired,
        }
    })
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

/// Reads from an offset with a reader of its own, which commits nothing and belongs to no group.
/// Blocks for as long as the broker takes, at most twice [`ANSWER`].
pub(crate) fn look_from(
    settings: &ClientConfig,
    topic: &str,
    partition: u32,
    offset: u64,
) -> Result<Look, KafkaError> {
    let consumer: BaseConsumer = settings
        .clone()
        .set("group.id", "audit-consumer-look")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_uncommitted")
        .create()?;
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
