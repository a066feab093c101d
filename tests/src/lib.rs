//! What end-to-end tests and the chaos run are made of: a real Kafka and a real engine, and our
//! services as processes that can be watched, frozen and killed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

pub mod certificates;
pub mod clock;
pub mod compose;
pub mod defaults;
pub mod fault_proxy;
pub mod image;
pub mod kafka_proxy;
pub mod live;
pub mod process;
pub mod secured_kafka;
pub mod server;
pub mod stack;
pub mod tls_proxy;
pub mod world;
