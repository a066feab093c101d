//! The producer crate, beside a plain `FutureProducer`.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "times and counts of a run are far smaller"
)]

use std::time::{Duration, Instant};

use anyhow::ensure;
use audit_producer::{Fsync, Producer, ProducerConfig, SpoolConfig};
use audit_schema::{Event, EventId};
use audit_tests::world::World;
use hdrhistogram::Histogram;

use crate::events::pool;
use crate::kafka::Plain;
use crate::report::Report;

/// Events a second while latency is measured.
const RATE: u32 = 50_000;

/// Events of one measurement of throughput, and of the spool.
const EVENTS: u32 = 300_000;

/// How long Kafka has to take the rest.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(world: &World, spool: Option<SpoolConfig>) -> ProducerConfig {
    ProducerConfig {
        brokers: world.brokers(),
        topic: world.topic.clone(),
        spool,
        ..ProducerConfig::default()
    }
}

/// The pool's events under new ids, for ever.
fn renewed<'p>(pool: &'p mut [Event<'static>], number: u32) -> &'p Event<'static> {
    let place = number as usize % pool.len();
    pool[place].id = EventId::new();
    &pool[place]
}

/// How long a call takes, at 50,000 a second from one thread: fifty each millisecond, each
/// measured by itself.
pub(crate) async fn latency(
    world: &World,
    time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
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
            let event = renewed(&mut pool, number);
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
pub(crate) async fn throughput(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let mut pool = pool();
    let producer = Producer::new(&config(world, None))?;
    let started = Instant::now();
    for number in 0..EVENTS {
        while producer.in_memory() > 50_000 {
            std::thread::sleep(Duration::from_micros(200));
        }
        drop(producer.publish(renewed(&mut pool, number)));
    }
    ensure!(producer.flush(PATIENCE).await, "Kafka takes too long");
    report.add("to Kafka", "events/s", per_second(EVENTS, started));
    drop(producer);

    let plain = Plain::new(world)?;
    let started = Instant::now();
    for number in 0..EVENTS {
        while plain.under_way() > 50_000 {
            std::thread::sleep(Duration::from_micros(200));
        }
        drop(plain.send(renewed(&mut pool, number)));
    }
    wait_for(&plain);
    let rate = per_second(EVENTS, started);
    report.add("to Kafka, FutureProducer", "events/s", rate);
    Ok(())
}

fn wait_for(plain: &Plain) {
    while plain.under_way() > 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Writing to the spool while Kafka is away, and draining it when it is back.
pub(crate) async fn spool(world: &World, report: &mut Report) -> anyhow::Result<()> {
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
        for number in 0..EVENTS {
            // Three quarters of memory stay full while Kafka is away; the rest goes to disk.
            while away.in_memory() > 70_000 {
                std::thread::sleep(Duration::from_micros(200));
            }
            drop(away.publish(renewed(&mut pool, number)));
        }
        while away.in_spool() < u64::from(EVENTS) {
            std::thread::sleep(Duration::from_micros(200));
        }
        report.add(written, "events/s", per_second(EVENTS, started));
        let left = away.close(Duration::ZERO).await;
        ensure!(left.spooled == u64::from(EVENTS), "{left:?}");

        let started = Instant::now();
        let producer = Producer::new(&config(world, Some(spool)))?;
        ensure!(producer.flush(PATIENCE).await, "Kafka takes too long");
        report.add(drained, "events/s", per_second(EVENTS, started));
        producer.close(Duration::ZERO).await;
    }
    Ok(())
}

pub(crate) fn per_second(events: u32, started: Instant) -> f64 {
    f64::from(events) / started.elapsed().as_secs_f64()
}
