//! The embedded engine, asked by the unmodified `clickhouse` crate (and by plain HTTP where the crate says too little).
//!
//! One engine serves all tests; each has a database of its own.

mod access;
mod analyst;
mod errors;
mod inserts;
mod processes;
mod reads;
mod stand;
