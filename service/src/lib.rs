#![doc = include_str!("../README.md")]

pub mod admin;
pub mod api;
pub mod auth;
pub mod config;
pub mod http;
pub mod keys;
mod metrics;
pub mod rate_limit;
pub mod suggestion;
pub mod tasks;
pub mod telemetry;
pub mod traces;

pub use api::ApiError;
pub use tasks::Tasks;
