//! How far behind readers are: from the call that publishes an event until a live reader has it,
//! and until a list has it.
#![expect(clippy::cast_precision_loss, reason = "times of a run are far smaller")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use audit_schema::EventId;
use audit_tests::live::LiveReader;
use audit_tests::process::PATIENCE;
use audit_tests::world::{Key, Service, World};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::events::event;
use crate::report::Report;
use crate::stage::{Stage, unlimited};

/// How long it is waited between two lists: how exact their figures are. Asking without a pause
/// would keep a core busy, and make what is measured slower.
const LIST_AGAIN: Duration = Duration::from_millis(50);

/// When each event was published, by its id.
type Published = RefCell<HashMap<String, Instant>>;

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "tail p50", "tail p99", "tail max", "list p50", "list p99", "list max",
];

/// Publishes so many events at so many a second.
pub(crate) async fn measure((events, rate): (u32, u32), logs: &Path) -> anyhow::Result<Report> {
    let stage = Stage::engine(logs).await?.and_kafka().await?;
    let world = stage.world("tail")?;
    world.migrate()?;
    let key = world.key("bench", &["read"])?;
    unlimited(&world);
    let _consumer = world.consumer().await?;
    let api = world.query_api().await?;

    let published = Published::default();
    let mut reader = LiveReader::open(&world, &api.url, &key, None).await?;
    // What is slow only the first time is not measured.
    publish(&world, 1, 1, &published).await?;
    tokio::try_join!(
        tailed(&mut reader, 1, &published),
        listed(&world, &api, &key, 1, &published)
    )?;
    published.borrow_mut().clear();
    let ((), tailed, listed) = tokio::try_join!(
        publish(&world, events, rate, &published),
        tailed(&mut reader, events, &published),
        listed(&world, &api, &key, events, &published),
    )?;

    let mut report = Report::new(json!({
        "events": events,
        "rate": format!("{rate} events/s"),
        "clock": "from the call that publishes an event until a client has it",
        "list": format!("asked again {LIST_AGAIN:?} after each answer, beside the live reader"),
        "beside": "broker, engine, consumer, query API and client share the cores",
    }));
    for (names, took) in [
        (["tail p50", "tail p99", "tail max"], tailed),
        (["list p50", "list p99", "list max"], listed),
    ] {
        let quantiles = [0.5, 0.99, 1.0].map(|quantile| took.value_at_quantile(quantile));
        for (name, millis) in names.into_iter().zip(quantiles) {
            report.add(name, "ms", millis as f64);
        }
    }
    Ok(report)
}

async fn publish(
    world: &World,
    events: u32,
    rate: u32,
    published: &Published,
) -> anyhow::Result<()> {
    let producer = world.producer()?;
    let mut next = tokio::time::interval(Duration::from_secs(1) / rate);
    for number in 0..events {
        next.tick().await;
        let event = event(number.into());
        published
            .borrow_mut()
            .insert(event.id.to_string(), Instant::now());
        drop(producer.publish(&event));
    }
    ensure!(producer.flush(PATIENCE).await, "Kafka takes too long");
    Ok(())
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(60_000, 3)?)
}

/// How many milliseconds ago an event was published; `None` if it is none of these.
fn age(event: &Value, published: &Published) -> anyhow::Result<Option<u64>> {
    let now = Instant::now();
    let id: EventId = event["id"].as_str().context("an id")?.parse()?;
    let published = published.borrow().get(&id.to_string()).copied();
    let age = published.map(|published| now.duration_since(published).as_millis());
    Ok(age.map(u64::try_from).transpose()?)
}

async fn tailed(
    reader: &mut LiveReader,
    events: u32,
    published: &Published,
) -> anyhow::Result<Histogram<u64>> {
    let mut took = histogram()?;
    while took.len() < events.into() {
        let event = reader.next().await?.context("the tail ended")?;
        took.saturating_record(age(&event, published)?.context("an event of ours")?);
    }
    Ok(took)
}

async fn listed(
    world: &World,
    api: &Service,
    key: &Key,
    events: u32,
    published: &Published,
) -> anyhow::Result<Histogram<u64>> {
    let url = format!("{}/v1/audit-logs?limit=100", api.url);
    let (mut took, mut seen) = (histogram()?, std::collections::HashSet::new());
    while took.len() < events.into() {
        let page = world.get(&url, key).await?;
        let rows = page["events"].as_array().context("events")?;
        let mut known = 0;
        for event in rows {
            // The newest come first.
            if !seen.insert(event["id"].to_string()) {
                known += 1;
            } else if let Some(age) = age(event, published)? {
                took.saturating_record(age);
            }
        }
        let overlaps = known > 0 || rows.len() < 100;
        ensure!(overlaps, "more came between two lists than a list has");
        tokio::time::sleep(LIST_AGAIN).await;
    }
    Ok(took)
}
