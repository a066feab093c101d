//! The settings of `config.toml`, which says what each of them means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use audit_producer::ProducerConfig;
use audit_schema::wire::MAX_EVENT_BYTES;
use audit_service::admin::Admin;
use audit_service::config::{self, ConfigError, Validate};
use audit_service::http::Http;
use audit_service::telemetry::Telemetry;
use serde::Deserialize;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The API.
    pub http: Http,
    /// The admin port.
    pub admin: Admin,
    /// Logs.
    pub telemetry: Telemetry,
    /// API keys.
    pub keys: KeyFile,
    /// Where events go, and where they wait.
    pub kafka: ProducerConfig,
    /// What an answer waits for.
    pub confirm: Confirm,
    /// How the service stops.
    pub shutdown: Shutdown,
}

/// API keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// The file they are in.
    pub file: PathBuf,
}

/// What an answer waits for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// How long it waits for Kafka.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// How the service stops.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long requests under way have after `http.stay_open`.
    #[serde(with = "humantime_serde")]
    pub requests: Duration,
    /// How long events in memory then have.
    #[serde(with = "humantime_serde")]
    pub events: Duration,
}

impl Config {
    /// Loads the settings: the defaults, `file`, the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        config::load("ingest", include_str!("../config.toml"), file)
    }
}

impl Validate for Config {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.http.complaints();
        complaints.extend(self.admin.complaints());
        complaints.extend(self.telemetry.complaints());
        if self.http.max_body_bytes < MAX_EVENT_BYTES {
            complaints.push(format!(
                "http.max_body_bytes must be at least {MAX_EVENT_BYTES}"
            ));
        }
        if self.confirm.timeout.is_zero() || self.confirm.timeout >= self.http.request_timeout {
            let range = "confirm.timeout must be above 0 and below http.request_timeout";
            complaints.push(range.to_owned());
        }
        if self.kafka.brokers.is_empty() || self.kafka.topic.is_empty() {
            complaints.push("kafka.brokers and kafka.topic must not be empty".to_owned());
        }
        match &self.kafka.spool {
            None => complaints.push("kafka.spool is needed: an answer means durable".to_owned()),
            Some(spool) => {
                if spool.folder.as_os_str().is_empty() {
                    complaints.push("kafka.spool.folder must not be empty".to_owned());
                }
                if spool.after >= self.confirm.timeout {
                    let range = "kafka.spool.after must be below confirm.timeout";
                    complaints.push(range.to_owned());
                }
            }
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_producer::SpoolConfig;

    #[test]
    fn the_compiled_in_defaults_are_those_of_the_producer_and_are_valid() {
        let config = Config::load(None).unwrap();
        let expected = ProducerConfig {
            spool: Some(SpoolConfig::at("audit-spool")),
            ..ProducerConfig::default()
        };
        assert_eq!(format!("{:?}", config.kafka), format!("{expected:?}"));
    }

    #[test]
    fn an_answer_may_not_wait_longer_than_its_request() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ingest.toml");
        std::fs::write(&file, "[confirm]\ntimeout = '10s'").unwrap();
        let error = Config::load(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("confirm.timeout"), "{error}");
    }
}
