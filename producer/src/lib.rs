#![doc = include_str!("../README.md")]

mod client;
mod clock;
mod config;
mod delivery;
mod durability;
mod error;
mod lane;
mod lost;
mod metrics;
mod occupancy;
mod producer;
mod receipt;
mod redaction;
mod spool;
mod trouble;

pub use config::ProducerConfig;
pub use durability::{Durability, DurabilityConfig};
pub use error::{CheckError, CreateError, Refused};
pub use metrics::describe;
pub use producer::{LeftBehind, Producer};
pub use receipt::{Published, Receipt, Stored};
pub use redaction::{HashKey, Redaction, RedactionConfig, RedactionError};
pub use spool::{Fsync, SpoolConfig, SpoolError};
