//! The contract between everything that reports, moves and reads events.
//!
//! An [`Event`] is what an auth server reports. [`wire`] says how it travels through Kafka,
//! and, with the feature `clickhouse`, `row` and `migrate` say how it lies in the table.
//! Producers, consumers and readers agree on nothing but this crate.

mod event;
mod event_data;
mod event_type;
mod id;
mod position;
pub mod wire;

#[cfg(feature = "clickhouse")]
pub mod access;
#[cfg(feature = "clickhouse")]
pub mod clickhouse;
#[cfg(feature = "clickhouse")]
pub mod dead_letter;
#[cfg(feature = "clickhouse")]
pub mod erasure;
#[cfg(feature = "clickhouse")]
mod facts;
#[cfg(feature = "clickhouse")]
mod members;
#[cfg(feature = "clickhouse")]
pub mod migrate;
#[cfg(feature = "clickhouse")]
pub mod native;
#[cfg(feature = "clickhouse")]
pub mod ocsf;
#[cfg(feature = "clickhouse")]
pub mod row;

pub use event::{Actor, Event, EventBuilder, InvalidEvent, Location, Outcome};
pub use event_data::EventData;
pub use event_type::{
    CATALOGUE, CatalogueEntry, Category, EventType, InvalidEventType, SecurityVerdict,
};
pub use id::{EventId, InvalidId, ProjectId};
pub use position::{OffsetRange, Position};
