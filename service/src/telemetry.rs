//! Logs and metrics, set up once per process.
//!
//! Logs go to standard error: readable on a terminal, JSON otherwise. Metrics are recorded through
//! the `metrics` facade and read by the admin port.

use std::io::IsTerminal;

pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::config::Validate;
use crate::traces::Traces;

/// Bounds of every histogram of seconds.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// What is logged, and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Which logs are kept, in the syntax of `tracing`'s `EnvFilter`: `info,audit_ingest=debug`.
    pub filter: String,
    /// How they are written.
    pub format: Format,
    /// Traces, which [`traces::begin`](crate::traces::begin) begins.
    pub traces: Traces,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

impl Validate for Telemetry {
    fn complaints(&self) -> Vec<String> {
        let filter = EnvFilter::try_new(&self.filter).err();
        let filter = filter.map(|error| format!("telemetry.filter is no log filter: {error}"));
        filter.into_iter().chain(self.traces.complaints()).collect()
    }
}

/// Why logs and metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error("the log filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process takes the logs already.
    #[error("logs were set up before")]
    Logs(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something else in this process takes the metrics already.
    #[error("metrics were set up before")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Sets up logs and metrics, once per process, and gives what renders the metrics.
pub fn init(telemetry: &Telemetry) -> Result<PrometheusHandle, TelemetryError> {
    let filter = EnvFilter::try_new(&telemetry.filter)?;
    let on_terminal = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match telemetry.format {
        Format::Auto if on_terminal => logs.with_target(false).try_init(),
        Format::Pretty => logs.with_target(false).with_ansi(on_terminal).try_init(),
        Format::Auto | Format::Json => logs.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::Logs)?;
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .install_recorder()?;
    crate::metrics::describe();
    Ok(handle)
}

/// An error and everything that caused it, in one line, for a log.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
