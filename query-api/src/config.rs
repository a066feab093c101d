//! What can be configured. `config.toml` says what each key means and its default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use audit_producer::ProducerConfig;
use audit_schema::authorities::{Authorities, is_https};
use audit_schema::clickhouse::{Address, connect};
use audit_service::admin::Admin;
use audit_service::config::{ConfigError, Secret, Validate, load};
use audit_service::http::Http;
use audit_service::rate_limit::RateLimit;
use audit_service::telemetry::Telemetry;
use clickhouse::Client;
use serde::Deserialize;

/// The annotated defaults.
const DEFAULTS: &str = include_str!("../config.toml");

/// Fewest characters of a cursor secret.
const MIN_SECRET_LEN: usize = 32;

/// Fewest rows a result may have: the longest page, and the row behind it.
const MIN_RESULT_ROWS: u64 = 101;

/// The configuration of the query API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the API listens.
    pub http: Http,
    /// Where the admin port listens.
    pub admin: Admin,
    /// Who may read.
    pub keys: Keys,
    /// Where the events are.
    pub clickhouse: ClickHouse,
    /// What a query may cost.
    pub queries: Queries,
    /// How many requests a key may make.
    pub rate_limit: RateLimit,
    /// Files and live readers.
    pub streams: Streams,
    /// Which reads are events of the log.
    pub audit: Audit,
    /// Where those events go.
    pub kafka: ProducerConfig,
    /// Cursors.
    pub cursors: Cursors,
    /// Logs.
    pub telemetry: Telemetry,
}

/// Who may read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The file of API keys.
    pub file: PathBuf,
}

/// Where the events are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    /// The HTTP interface.
    pub url: String,
    /// The database.
    pub database: String,
    /// The user; empty for none.
    pub user: String,
    /// The password; empty for none.
    pub password: Secret,
    /// The authorities of an `https` URL; empty for those of the system.
    #[serde(deserialize_with = "Authorities::named")]
    pub ca: Option<Authorities>,
}

impl ClickHouse {
    /// A client for it.
    pub(crate) fn connect(&self) -> Client {
        connect(Address {
            url: &self.url,
            database: &self.database,
            user: &self.user,
            password: self.password.expose(),
            authorities: self.ca.as_ref(),
        })
    }
}

/// What a query may cost.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queries {
    /// How many requests read at once.
    pub at_once: usize,
    /// How many of them may be of one key.
    pub at_once_per_key: usize,
    /// How long a request waits for its turn.
    #[serde(with = "humantime_serde")]
    pub wait: Duration,
    /// How long a query may take.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// How many files read at once, and how many live readers.
    pub bulk_at_once: usize,
    /// How long the query of such a turn may take.
    #[serde(with = "humantime_serde")]
    pub bulk_time: Duration,
    /// How long counting the total may take.
    #[serde(with = "humantime_serde")]
    pub total_time: Duration,
    /// How much memory a query may use.
    pub memory_bytes: u64,
    /// How many rows a query may give.
    pub result_rows: u64,
    /// The highest `offset`.
    pub max_offset: u64,
}

/// Files and live readers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// How many files are sent at once.
    pub max_exports: usize,
    /// How many live readers there are at once.
    pub max_tails: usize,
    /// How long a live reader hears nothing at most.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
}

/// Which reads are events of the log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Exports, as `audit_log_exported`.
    pub exports: bool,
    /// All other reads, as `audit_log_read`.
    pub reads: bool,
}

/// Cursors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursors {
    /// What signs them; empty for one per process.
    pub secret: Secret,
    /// What may have signed them as well; empty for nothing.
    pub also_accepted: Secret,
    /// How long a walk may take.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

impl Config {
    /// Loads it: the defaults, then `file`, then the environment (`AUDIT_QUERY_API_…`).
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        load("query-api", DEFAULTS, file)
    }
}

impl Validate for Config {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.http.complaints();
        complaints.extend(self.admin.complaints());
        complaints.extend(self.telemetry.complaints());
        complaints.extend(self.rate_limit.complaints());
        let mut complain = |wrong: bool, complaint: &str| {
            if wrong {
                complaints.push(complaint.to_owned());
            }
        };
        let queries = &self.queries;
        complain(
            self.clickhouse.url.is_empty() || self.clickhouse.database.is_empty(),
            "clickhouse.url and clickhouse.database must be set",
        );
        complain(
            self.clickhouse.ca.is_some() && !is_https(&self.clickhouse.url),
            "clickhouse.ca needs an https address in clickhouse.url: without TLS nothing is checked",
        );
        complain(
            queries.at_once == 0 || queries.bulk_at_once == 0,
            "queries.at_once and queries.bulk_at_once must be at least 1",
        );
        complain(
            !(1..=queries.at_once).contains(&queries.at_once_per_key),
            "queries.at_once_per_key must be at least 1 and at most queries.at_once",
        );
        let times = [queries.time, queries.bulk_time, queries.total_time];
        complain(
            times.iter().any(|time| time.as_millis() == 0),
            "queries.time, queries.bulk_time and queries.total_time must be at least 1ms",
        );
        complain(
            queries.result_rows < MIN_RESULT_ROWS,
            "queries.result_rows must be at least 101, a page and the row behind it",
        );
        complain(
            queries.memory_bytes == 0,
            "queries.memory_bytes must be at least 1",
        );
        complain(
            self.streams.heartbeat.is_zero(),
            "streams.heartbeat must not be 0",
        );
        let recording = self.audit.exports || self.audit.reads;
        let spool = self.kafka.spool.as_ref();
        complain(
            recording && (self.kafka.brokers.is_empty() || self.kafka.topic.is_empty()),
            "kafka.brokers and kafka.topic must be set, or audit.exports and audit.reads be false",
        );
        complain(
            recording && spool.is_none_or(|spool| spool.folder.as_os_str().is_empty()),
            "kafka.spool.folder must be set, or audit.exports and audit.reads be false",
        );
        let secret = self.cursors.secret.expose();
        complain(
            !secret.is_empty() && secret.len() < MIN_SECRET_LEN,
            "cursors.secret must have 32 or more characters; leave it empty for one per process",
        );
        let also_accepted = self.cursors.also_accepted.expose();
        complain(
            !also_accepted.is_empty() && also_accepted.len() < MIN_SECRET_LEN,
            "cursors.also_accepted must have 32 or more characters; leave it empty for none",
        );
        complain(
            self.cursors.max_age.is_zero(),
            "cursors.max_age must not be 0",
        );
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good() {
        let config: Config = toml::from_str(DEFAULTS).unwrap();
        assert_eq!(config.complaints(), [""; 0]);
    }

    #[test]
    fn values_that_cannot_work_are_all_named() {
        let mut config: Config = toml::from_str(DEFAULTS).unwrap();
        config.queries.at_once = 0;
        config.queries.total_time = Duration::from_nanos(1);
        config.queries.result_rows = 100;
        config.queries.memory_bytes = 0;
        config.cursors.secret = "short".to_owned().into();
        config.cursors.also_accepted = "short".to_owned().into();
        config.http.tls.key = "key.pem".into();
        config.admin.tls.client_ca = "ca.pem".into();
        config.cursors.max_age = Duration::ZERO;
        config.clickhouse.database = String::new();
        insta::assert_snapshot!(config.complaints().join("\n"));
    }
}
