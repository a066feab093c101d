#![doc = include_str!("../README.md")]

mod config;
mod delivery;
mod error;
mod metrics;
mod producer;

pub use config::ProducerConfig;
pub use delivery::{Receipt, Stored};
pub use error::{CheckError, CreateError, PublishError};
pub use metrics::describe;
pub use producer::Producer;
