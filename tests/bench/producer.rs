//! The producer crate, beside a plain `FutureProducer`.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "times and counts of a run are far smaller"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use audit_producer::{Fsync, Producer, ProducerConfig, SpoolConfig};
use audit_schema::Event;
use audit_tests::server::Server;
use audit_tests::world::World;
use hdrhistogram::Histogram;
use serde_json::json;

use crate::events::{pool, renewed};
use crate::http;
use crate::kafka::{Plain, create_topic, publish_all};
use crate::report::Report;
use crate::sizes::Sizes;

/// Events a second while latency is measured.
const RATE: u32 = 50_000;

/// How long Kafka has to take the rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "publish p50",
    "publish p99",
    "publish p99.9",
    "publish p50, FutureProducer",
    "publish p99, FutureProducer",
    "publish p99.9, FutureProducer",
    "to Kafka",
    "to Kafka, FutureProducer",
    "spool, written",
    "spool, drained",
    "spool, written, fsync each",
    "spool, drained, fsync each",
    "POST /events/track",
    "POST /events/track p50",
    "POST /events/track p99",
    "POST /events/track, CPU of ingest",
    "POST /v1/events, 1,000 each",
    "POST /v1/events p99, 1,000 each",
    "POST /v1/events, CPU of ingest",
];

/// So many times each: latency in the caller, events to Kafka, the spool, ingest over HTTP.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let mut server = Server::kafka(logs)?;
    server.run().await.context("Kafka")?;
    let servers = [&server.address(), "http://127.0.0.1:1"];
    let world = World::on(servers, "bench", logs.to_owned())?;
    create_topic(&world).await?;
    let (time, events) = (sizes.time, sizes.published);
    let key = world.key("bench", &["write"])?;
    let ingest = world.ingest().await?;
    let mut report = Report::new(json!({
        "runs": sizes.runs,
        "seconds": time.as_secs_f64(),
        "events": format!("{events}: types, keys and data of a Better Auth server"),
        "http": "256 connections for single events, 8 for batches of 1,000",
        "beside": "broker, ingest and load share the cores",
    }));
    for run in 1..=sizes.runs {
        eprintln!("run {run} of {}: latency", sizes.runs);
        latency(&world, time, &mut report).await?;
        eprintln!("  throughput");
        throughput(&world, events, &mut report).await?;
        eprintln!("  spool");
        spool(&world, events, &mut report).await?;
        eprintln!("  POST /events/track");
        http::track(&ingest, &key.secret, time, &mut report).await?;
        eprintln!("  POST /v1/events");
        http::batches(&ingest, &key.secret, time, &mut report).await?;
    }
    Ok(report)
}

fn config(world: &World, spool: Option<SpoolConfig>) -> ProducerConfig {
    ProducerConfig {
        brokers: world.brokers(),
        topic: world.topic.clone(),
        spool,
        ..ProducerConfig::default()
    }
}

/// How long a call takes, at 50,000 a second from one thread: fifty each millisecond, each
/// measured by itself.
async fn latency(world: &World, time: Duration, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let producer = Producer::new(&config(world, Some(SpoolConfig::at(folder.path()))))?;
    let plain = Plain::new(world)?;
    let (p50, p99, p999) = paced(time, |event| drop(producer.publish(event)));
    ensure!(producer.flush(PATIENCE).await, "Kafka takes too long");
    report.add("publish p50", "µs", p50);
    report.add("publish p99", "µs", p99);
    report.add("publish p99.9", "µs", p999);
    drop(producer);
    let (p50, p99, p999) = paced(time, |event| drop(plain.send(event)));
    report.add("publish p50, FutureProducer", "µs", p50);
    report.add("publish p99, FutureProducer", "µs", p99);
    report.add("publish p99.9, FutureProducer", "µs", p999);
    wait_for(&plain);
    Ok(())
}

fn paced(time: Duration, mut publish: impl FnMut(&Event<'_>)) -> (f64, f64, f64) {
    let mut pool = pool();
    let mut took = Histogram::<u64>::new_with_max(60_000_000_000, 3).expect("three digits");
    let (started, mut number) = (Instant::now(), 0);
    while started.elapsed() < time {
        // What should have been published by now, and has not been.
        let due = started.elapsed().as_millis() as u32 * (RATE / 1_000);
        while number < due {
            let event = renewed(&mut pool, number.into());
            let before = Instant::now();
            publish(event);
            took.saturating_record(before.elapsed().as_nanos() as u64);
            number += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let micros = |quantile| took.value_at_quantile(quantile) as f64 / 1_000.0;
    (micros(0.5), micros(0.99), micros(0.999))
}

/// Events a second from the first publish to the last confirmation.
async fn throughput(world: &World, events: u32, report: &mut Report) -> anyhow::Result<()> {
    let mut pool = pool();
    let producer = Producer::new(&config(world, None))?;
    let started = Instant::now();
    publish_all(&producer, &mut pool, events.into()).await?;
    report.add("to Kafka", "events/s", per_second(events, started));
    drop(producer);

    let plain = Plain::new(world)?;
    let started = Instant::now();
    for number in 0..events {
        while plain.under_way() > 50_000 {
            std::thread::sleep(Duration::from_micros(200));
        }
        drop(plain.send(renewed(&mut pool, number.into())));
    }
    wait_for(&plain);
    let rate = per_second(events, started);
    report.add("to Kafka, FutureProducer", "events/s", rate);
    Ok(())
}

fn wait_for(plain: &Plain) {
    while plain.under_way() > 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Writing to the spool while Kafka is away, and draining it when it is back.
async fn spool(world: &World, events: u32, report: &mut Report) -> anyhow::Result<()> {
    let mut pool = pool();
    for (fsync, written, drained) in [
        (Fsync::default(), "spool, written", "spool, drained"),
        (
            Fsync::Each,
            "spool, written, fsync each",
            "spool, drained, fsync each",
        ),
    ] {
        let folder = tempfile::tempdir_in(world.logs())?;
        let spool = SpoolConfig {
            fsync,
            after: Duration::ZERO,
            drain_rate: u32::MAX,
            ..SpoolConfig::at(folder.path())
        };
        let away = Producer::new(&ProducerConfig {
            brokers: "127.0.0.1:1".to_owned(),
            ..config(world, Some(spool.clone()))
        })?;
        let started = Instant::now();
        for number in 0..events {
            // Three quarters of memory stay full while Kafka is away; the rest goes to disk.
            while away.in_memory() > 70_000 {
                std::thread::sleep(Duration::from_micros(200));
            }
            drop(away.publish(renewed(&mut pool, number.into())));
        }
        while away.in_spool() < u64::from(events) {
            std::thread::sleep(Duration::from_micros(200));
        }
        report.add(written, "events/s", per_second(events, started));
        let left = away.close(Duration::ZERO).await;
        ensure!(left.spooled == u64::from(events), "{left:?}");

        let started = Instant::now();
        let producer = Producer::new(&config(world, Some(spool)))?;
        ensure!(producer.flush(PATIENCE).await, "Kafka takes too long");
        report.add(drained, "events/s", per_second(events, started));
        producer.close(Duration::ZERO).await;
    }
    Ok(())
}

fn per_second(events: u32, started: Instant) -> f64 {
    f64::from(events) / started.elapsed().as_secs_f64()
}
