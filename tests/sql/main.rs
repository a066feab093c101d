//! What analysts see: the views, with the real engine and rows made as the consumer makes them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod cookbook;
mod data;
mod keys;
mod members;
mod ocsf;
mod sessions;
mod sign_ins;
mod stand;
mod views;
