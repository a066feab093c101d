#![doc = include_str!("../README.md")]

#[cfg(test)]
mod arbitrary;
mod config;
mod confirm;
mod drain;
mod events;
mod metrics;
mod routes;
mod run;
mod track;

pub use config::{Config, Confirm, KeyFile, Shutdown};
pub use drain::{DrainError, drain};
pub use metrics::describe;
pub use routes::{Ingest, router};
pub use run::{RunError, run};
