#![doc = include_str!("../README.md")]

mod config;
mod confirm;
mod events;
mod metrics;
mod routes;
mod run;
mod track;

pub use config::{Config, Confirm, Kafka, KeyFile, Shutdown};
pub use metrics::describe;
pub use routes::{Ingest, router};
pub use run::{RunError, run};
