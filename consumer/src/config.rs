//! The configuration of the consumer; `config.toml` says what each value means.

use std::collections::BTreeMap;
use std::time::Duration;

use audit_producer::RedactionConfig;
use audit_schema::ProjectId;
use audit_schema::authorities::{Authorities, is_https};
use audit_schema::clickhouse::{Address, Engine};
use audit_schema::migrate::Options;
use audit_service::admin::Admin;
use audit_service::config::{Properties, Secret, Validate};
use audit_service::telemetry::Telemetry;
use humantime_serde::re::humantime;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The annotated defaults.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Most rows of one insert that ClickHouse stores as one part.
/// Source: the defaults of `max_insert_block_size` and `min_insert_block_size_rows`.
const ONE_PART_ROWS: usize = 1_048_449;

/// Most bytes of one insert that ClickHouse stores as one part.
/// Source: the default of `min_insert_block_size_bytes`.
const ONE_PART_BYTES: usize = 256 * 1024 * 1024;

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// What the topic has to be like.
    pub topic: Topic,
    /// How to reach ClickHouse.
    pub clickhouse: ClickHouse,
    /// When a batch is written.
    pub batch: Batch,
    /// When it is counted.
    pub settle: Settle,
    /// How the running consumer audits what it wrote.
    pub audit: Audit,
    /// What is done to events of a file before they are published.
    pub import: Import,
    /// How long what is stored is kept.
    pub retention: Retention,
    /// Where the admin port listens.
    pub admin: Admin,
    /// What is logged, and how.
    pub telemetry: Telemetry,
    /// How to stop.
    pub shutdown: Shutdown,
}

/// How to reach Kafka.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Addresses, comma-separated.
    pub brokers: String,
    /// The topic of events.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Silence after which a consumer is replaced.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// A lasting name for this instance; empty for none.
    pub instance: String,
    /// Further properties of librdkafka.
    pub properties: Properties,
}

/// What the topic has to be like.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// How many partitions.
    pub partitions: u32,
    /// How many copies of each.
    pub replication: u32,
    /// How many of them have a record when it is acknowledged.
    pub min_insync_replicas: u32,
    /// How long records are kept.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
}

/// How to reach ClickHouse.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    /// Its HTTP interface.
    pub url: String,
    /// The database of the tables.
    pub database: String,
    /// The user; empty for none.
    pub user: String,
    /// The password; empty for none.
    pub password: Secret,
    /// The authorities of an `https` URL; empty for those of the system.
    #[serde(deserialize_with = "Authorities::named")]
    pub ca: Option<Authorities>,
    /// The cluster; empty for a single server.
    pub cluster: String,
    /// The servers of its shards; empty for a single server.
    pub shards: String,
    /// Whether an insert is on disk when it is answered.
    pub fsync: bool,
    /// Whether `migrate` also makes roles, and what bounds analysts.
    pub access: bool,
    /// How long an insert may take.
    #[serde(with = "humantime_serde")]
    pub insert_timeout: Duration,
    /// How long a question may take.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
}

impl ClickHouse {
    /// Where it is, and as whom to speak to it.
    pub fn address(&self) -> Address<'_> {
        Address {
            url: &self.url,
            database: &self.database,
            user: &self.user,
            password: self.password.expose(),
            authorities: self.ca.as_ref(),
        }
    }

    /// The servers of each shard: those named, or the one there is.
    pub fn shards(&self) -> Vec<Vec<&str>> {
        let shards = self.shards.split_whitespace();
        let shards: Vec<Vec<&str>> = shards
            .map(|shard| shard.split(',').filter(|url| !url.is_empty()).collect())
            .filter(|replicas: &Vec<&str>| !replicas.is_empty())
            .collect();
        if shards.is_empty() {
            vec![vec![self.url.as_str()]]
        } else {
            shards
        }
    }

    /// How to make the tables.
    pub fn options(&self) -> Options {
        Options {
            engine: match self.cluster.as_str() {
                "" => Engine::SingleNode,
                cluster => Engine::Cluster(cluster.to_owned()),
            },
            fsync: self.fsync,
        }
    }
}

/// When a batch is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Age.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Rows.
    pub max_rows: usize,
    /// Bytes of records.
    pub max_bytes: usize,
    /// Inserts under way at the same time.
    pub in_flight: usize,
}

impl Batch {
    /// The rows a batch may grow to while its partition is not free for it.
    pub fn most_rows(&self) -> usize {
        self.max_rows.saturating_mul(2)
    }

    /// The bytes a batch may grow to while its partition is not free for it.
    pub fn most_bytes(&self) -> usize {
        self.max_bytes.saturating_mul(2)
    }
}

/// When what was written is counted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// Shortest time between two counts.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How far clocks may be apart.
    #[serde(with = "humantime_serde")]
    pub clock_skew: Duration,
}

/// How the running consumer audits what it wrote.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Shortest time between two questions.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Shortest time between two beginnings of the walk over a partition.
    #[serde(with = "humantime_serde")]
    pub again: Duration,
}

/// What is done to events of a file before they are published.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// What is removed from events that no producer of ours has published.
    pub redaction: RedactionConfig,
}

/// How long what is stored is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Events of projects that have nothing of their own.
    pub keep: Keep,
    /// Dead letters.
    pub dead_letters: Keep,
    /// How often the running consumer sees to it; `None`: not at all.
    #[serde(deserialize_with = "or_never")]
    pub run_every: Option<Duration>,
    /// Events of these projects, for longer or shorter.
    pub projects: BTreeMap<ProjectId, Keep>,
}

impl Retention {
    /// The shortest time that anything is kept; `None` if nothing ever goes.
    pub fn shortest(&self) -> Option<Duration> {
        let all = self
            .projects
            .values()
            .chain([&self.keep, &self.dead_letters]);
        all.filter_map(|keep| keep.span()).min()
    }
}

/// How long something is kept, since Kafka took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Keep {
    /// For ever.
    Forever,
    /// For so long; not 0.
    For(Duration),
}

impl Keep {
    /// For how long, if not for ever.
    pub fn span(self) -> Option<Duration> {
        match self {
            Self::Forever => None,
            Self::For(span) => Some(span),
        }
    }
}

impl TryFrom<String> for Keep {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        span_or(&text, "forever").map(|span| span.map_or(Self::Forever, Self::For))
    }
}

fn or_never<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    span_or(&text, "never").map_err(D::Error::custom)
}

/// A span of time, or `None` for `word`.
fn span_or(text: &str, word: &str) -> Result<Option<Duration>, String> {
    if text == word {
        return Ok(None);
    }
    match humantime::parse_duration(text) {
        Ok(span) if !span.is_zero() => Ok(Some(span)),
        _ => Err(format!(
            "{text:?} is neither a time such as \"90d\" nor {word:?}"
        )),
    }
}

/// How to stop.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// Time to finish what is held.
    #[serde(with = "humantime_serde")]
    pub budget: Duration,
}

impl Validate for Config {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.admin.complaints();
        let mut refuse = |refused: bool, complaint: &str| {
            if refused {
                complaints.push(complaint.to_owned());
            }
        };
        refuse(
            self.kafka.brokers.is_empty(),
            "kafka.brokers must name a broker",
        );
        refuse(self.kafka.group.is_empty(), "kafka.group must not be empty");
        refuse(
            self.clickhouse.ca.is_some() && !is_https(&self.clickhouse.url),
            "clickhouse.ca needs an https address in clickhouse.url: without TLS nothing is checked",
        );
        refuse(
            self.topic.partitions == 0,
            "topic.partitions must be at least 1",
        );
        refuse(
            self.topic.replication == 0,
            "topic.replication must be at least 1",
        );
        refuse(
            !(1..=self.topic.replication).contains(&self.topic.min_insync_replicas),
            "topic.min_insync_replicas must be at least 1 and at most topic.replication",
        );
        refuse(
            self.clickhouse.cluster.is_empty() != self.clickhouse.shards.trim().is_empty(),
            "clickhouse.cluster and clickhouse.shards go together: name the servers of each shard, \
             or leave both empty for a single server",
        );
        refuse(
            self.batch.in_flight == 0,
            "batch.in_flight must be at least 1",
        );
        refuse(
            self.batch.max_rows == 0 || self.batch.most_rows() >= ONE_PART_ROWS,
            "batch.max_rows must be 1 to 524224: twice as many have to fit one part",
        );
        refuse(
            self.batch.max_bytes == 0 || self.batch.most_bytes() >= ONE_PART_BYTES,
            "batch.max_bytes must be 1 to 134217727: twice as many have to fit one part",
        );
        complaints.extend(self.telemetry.complaints());
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_accepted() {
        let config: Config = audit_service::config::load("consumer", DEFAULTS, None).unwrap();
        assert_eq!(config.kafka.topic, audit_schema::wire::TOPIC);
        assert_eq!(config.batch.interval, Duration::from_millis(150));
        assert_eq!(config.retention.shortest(), None);
    }

    #[test]
    fn a_time_to_keep_is_a_time_or_for_ever() {
        let keep = |text: &str| Keep::try_from(text.to_owned());
        assert_eq!(keep("forever"), Ok(Keep::Forever));
        assert_eq!(keep("90d"), Ok(Keep::For(Duration::from_secs(90 * 86_400))));
        for wrong in ["", "0s", "90", "never", "-1d"] {
            assert!(keep(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cluster_needs_the_servers_of_its_shards() {
        let mut config: Config = audit_service::config::load("consumer", DEFAULTS, None).unwrap();
        "audit".clone_into(&mut config.clickhouse.cluster);
        let complaints = config.complaints();
        assert!(
            complaints[0].contains("clickhouse.shards"),
            "{complaints:?}"
        );
        "http://a1:8123,http://a2:8123 http://b1:8123".clone_into(&mut config.clickhouse.shards);
        assert_eq!(config.complaints(), Vec::<String>::new());
        assert_eq!(config.clickhouse.shards().len(), 2);
    }

    #[test]
    fn more_copies_in_sync_than_there_are_would_stop_the_topic() {
        let mut config: Config = audit_service::config::load("consumer", DEFAULTS, None).unwrap();
        config.topic.min_insync_replicas = 2;
        assert_eq!(config.complaints().len(), 1);
        config.topic.replication = 3;
        assert_eq!(config.complaints(), Vec::<String>::new());
    }
}
