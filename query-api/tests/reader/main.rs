//! What a reader sees, through the routes and with the real engine.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod answers;
mod exports;
mod indexes;
mod injection;
mod isolation;
mod leaving;
mod plugin;
mod random_events;
mod random_filters;
mod random_isolation;
mod random_questions;
mod random_reads;
mod reference;
mod removed;
mod slowness;
mod stale;
mod stand;
mod stats;
mod tails;
mod totals;
mod walk_kinds;
mod walks;
