//! What clients of any of our HTTP APIs see, and what they can do to it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod access_log;
mod answers;
mod callers;
mod limits;
mod stand;
mod stopping;
mod tls;
