#![doc = include_str!("../README.md")]

pub mod admin;
pub mod api;
pub mod auth;
pub mod config;
pub mod http;
pub mod keys;
mod metrics;
pub mod rate_limit;
mod reread;
pub mod suggestion;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod traces;

pub use api::ApiError;
pub use metrics::describe as describe_metrics;
pub use tasks::Tasks;
