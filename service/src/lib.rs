#![doc = include_str!("../README.md")]

pub mod admin;
pub mod api;
mod auth;
pub mod config;
pub mod http;
pub mod keys;
mod metrics;
pub mod tasks;
pub mod telemetry;

pub use api::ApiError;
pub use auth::{CanAdmin, CanRead, CanWrite};
pub use tasks::Tasks;
