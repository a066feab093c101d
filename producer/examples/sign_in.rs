//! Publishes one sign-in and says where Kafka stored it.
//!
//!     cargo run -p audit-producer --example sign_in -- 127.0.0.1:9092
//!
//! The topic must exist; the local stack (`make run`) creates it.

use std::process::ExitCode;
use std::time::Duration;

use audit_producer::{Producer, ProducerConfig, Published};
use audit_schema::{Actor, Event, EventData, EventType, Outcome};

#[tokio::main]
async fn main() -> ExitCode {
    match sign_in().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed     {error}");
            ExitCode::FAILURE
        }
    }
}

async fn sign_in() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let config = ProducerConfig {
        brokers: brokers.clone(),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&config)?;
    if let Err(error) = producer.check(Duration::from_secs(5)) {
        return Err(format!("{error} (brokers: {brokers}); is the local stack running?").into());
    }

    let event = Event::builder("demo".parse()?, EventType::USER_SIGNED_IN)
        .event_key("user-1")
        .event_display_name("Ann signed in")
        .user_id("user-1")
        .identifier("ann@example.com")
        .actor(Actor {
            id: "user-1".into(),
            kind: "user".into(),
        })
        .outcome(Outcome::Success)
        .event_data(EventData::parse(r#"{"loginMethod":"passkey"}"#)?)
        .build()?;

    // Your sign-in goes on here, with or without the receipt.
    let receipt = producer.publish(&event);
    println!("published  {} {}", event.event_type, event.id);
    match receipt.await? {
        Published::Stored(at) => println!(
            "stored     {} partition {} offset {}",
            config.topic, at.partition, at.offset
        ),
        Published::Spooled => println!("spooled    until kafka takes events"),
    }

    let left = producer.close(Duration::from_secs(5)).await;
    println!("closed     {} events given up", left.given_up);
    Ok(())
}
