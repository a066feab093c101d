//! A process that publishes through the producer crate and says what it was promised: the
//! end-to-end tests kill it.
//!
//! For every event whose receipt says that it is durable, a line `durable <key> <number> <id>` is
//! on stdout before anything else becomes of it. A line on stdin ends it; then it says `closed`.
#![expect(clippy::unwrap_used, reason = "a test's process fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use audit_producer::{Producer, ProducerConfig, Published, SpoolConfig};
use audit_schema::{Event, EventData, EventType};
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::time::MissedTickBehavior;

/// How many keys the events have.
const KEYS: u64 = 50;

/// How long Kafka has, in the end, to take the rest.
const FLUSH: Duration = Duration::from_secs(50);

#[derive(Parser)]
struct Options {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    spool: PathBuf,
    /// Events a second.
    #[arg(long)]
    rate: u64,
    /// The number of the first event.
    #[arg(long)]
    first: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let producer = Producer::new(&ProducerConfig {
        brokers: options.brokers,
        topic: options.topic,
        spool: Some(SpoolConfig::at(options.spool)),
        ..ProducerConfig::default()
    })
    .unwrap();
    let mut receipts = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / options.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut asked = std::pin::pin!(tokio::task::spawn_blocking(|| {
        std::io::stdin().read_line(&mut String::new())
    }));
    let mut number = options.first;
    loop {
        tokio::select! {
            _ = &mut asked => break,
            _ = ticks.tick() => {
                let key = format!("user-{}", number % KEYS);
                let event = event(&key, number);
                let receipt = producer.publish(&event);
                receipts.push(async move { (key, number, event.id, receipt.await) });
                number += 1;
            }
            Some((key, number, id, published)) = receipts.next() => match published {
                Ok(Published::Stored(_)) => println!("durable {key} {number} {id}"),
                Ok(Published::Spooled) => println!("durable {key} {number} {id} spooled"),
                Err(refused) => println!("refused {key} {number} {id}: {refused}"),
            },
        }
    }
    let left = producer.close(FLUSH).await;
    while let Some((key, number, id, published)) = receipts.next().await {
        if published.is_ok() {
            println!("durable {key} {number} {id}");
        }
    }
    println!("closed {left:?}");
}

fn event(key: &str, number: u64) -> Event<'static> {
    Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN)
        .event_key(key.to_owned())
        .event_data(EventData::of(&json!({ "number": number })).unwrap())
        .build()
        .unwrap()
}
