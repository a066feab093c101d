//! What operators install by: images, compose file and Kubernetes manifests. Without a container
//! runtime, each is held to its schema and to the programs it starts: every name in it has to be
//! one of theirs.
//!
//! `compose-spec.json` is the schema of the Compose Specification (Apache-2.0), of October 2026.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod compose;
mod images;
mod kubernetes;
mod pods;
mod runbook;
mod services;
