//! From the call that publishes an event until it can be read, while events arrive at a rate: by the
//! query API, and by SQL from the table that ClickHouse's own Kafka engine fills.
//!
//! The rate is an open loop (`arrivals`). What is measured are the events of a project of its own,
//! one every 50 ms: asked for is, again and again, the page that begins with the oldest of them that
//! was not seen yet, so a look costs the same at any rate and no event is missed however late it
//! comes. A time ends when the answer has come that has the event; so it contains the pause between two
//! looks and a look itself.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use audit_tests::defaults;
use audit_tests::world::{Key, World};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::arrivals::{Arrivals, PROBES, Probe};
use crate::peer::Peer;
use crate::report::{Goal, Report, millis};
use crate::sizes::Sizes;
use crate::stage::{Stage, unlimited};

/// Events a second.
const RATES: [u64; 3] = [100, 1_000, 10_000];

/// What is waited between two looks. Looking without a pause would keep a core busy, and make what is
/// measured slower.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many events a look may show.
const PAGE: usize = 100;

/// Within which time 99 of 100 events are to be readable.
const GOAL_MS: f64 = 500.0;

/// Where it is looked.
enum Reader<'w> {
    Api {
        world: &'w World,
        key: Key,
        url: String,
    },
    Sql {
        world: &'w World,
        table: String,
    },
}

impl Reader<'_> {
    /// The ids of the first events that were created at `since` or later.
    async fn readable(&self, since: i64) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Api { world, key, url } => {
                let url = format!("{url}/v1/audit-logs?order=asc&limit={PAGE}&from={since}");
                let page: Value = world.get(&url, key).await?;
                let events = page["events"].as_array().context("events")?;
                let id = |event: &Value| event["id"].as_str().map(str::to_owned);
                events
                    .iter()
                    .map(|event| id(event).context("an id"))
                    .collect()
            }
            Self::Sql { world, table } => {
                let ids = format!(
                    "SELECT event_id FROM {table} WHERE project_id = '{PROBES}' \
                     AND created_at >= fromUnixTimestamp64Milli({since}, 'UTC') \
                     ORDER BY created_at, event_id LIMIT {PAGE}"
                );
                Ok(world.sql(&ids).await?.lines().map(str::to_owned).collect())
            }
        }
    }
}

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "100 events/s, API p50",
    "100 events/s, API p99",
    "100 events/s, Kafka engine p50",
    "100 events/s, Kafka engine p99",
    "1000 events/s, API p50",
    "1000 events/s, API p99",
    "1000 events/s, Kafka engine p50",
    "1000 events/s, Kafka engine p99",
    "10000 events/s, API p50",
    "10000 events/s, API p99",
    "10000 events/s, Kafka engine p50",
    "10000 events/s, Kafka engine p99",
];

/// At each rate, ours and the peer's one after the other, again and again.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let stage = Stage::engine(logs).await?.and_kafka().await?;
    let ours = stage.world("latency")?;
    unlimited(&ours);
    ours.migrate()?;
    let key = ours.key(PROBES, &["read"])?;
    let _consumer = ours.consumer().await?;
    let api = ours.query_api().await?;
    let theirs = stage.world("latency_peer")?;
    theirs.migrate()?;
    // The peer writes as often as our consumer does.
    let flush = defaults::duration("consumer", "batch", "interval")?;
    let peer = Peer::start(&theirs, "peer", flush).await?;
    let readers = [
        (
            "API",
            &ours,
            Reader::Api {
                world: &ours,
                key,
                url: api.url.clone(),
            },
        ),
        (
            "Kafka engine",
            &theirs,
            Reader::Sql {
                world: &theirs,
                table: peer.table(),
            },
        ),
    ];
    let mut report = Report::new(json!({
        "runs": sizes.runs,
        "seconds": sizes.time.as_secs_f64(),
        "clock": "from the call that publishes an event until an answer has it",
        "looked for": format!("an event every 50 ms, again {LOOK_AGAIN:?} after each answer"),
        "API": "GET /v1/audit-logs; consumer and query API as configured by default",
        "Kafka engine": format!("SQL on the table its view fills; it flushes every {flush:?}"),
        "beside": "broker, engine, services and client share the cores",
    }));
    // What is slow only the first time is not measured.
    for (_, world, reader) in &readers {
        measured(world, reader, 100, Duration::from_secs(1)).await?;
    }
    for rate in RATES {
        for run in 1..=sizes.runs {
            for (of, world, reader) in &readers {
                let took = measured(world, reader, rate, sizes.time).await?;
                for (quantile, name) in [(0.5, "p50"), (0.99, "p99")] {
                    let millis = millis(&took, quantile);
                    eprintln!("{rate} events/s, run {run}: {of} {name} {millis:.0} ms");
                    report.add(format!("{rate} events/s, {of} {name}"), "ms", millis);
                }
            }
        }
        let goal = Goal::AtMost(GOAL_MS);
        report.goal(&format!("{rate} events/s, API p99"), goal)?;
    }
    peer.end(&theirs).await?;
    Ok(report)
}

/// How many microseconds each event took.
async fn measured(
    world: &World,
    reader: &Reader<'_>,
    rate: u64,
    time: Duration,
) -> anyhow::Result<Histogram<u64>> {
    let mut took = Histogram::new_with_max(600_000_000, 3)?;
    let mut waiting: HashMap<String, Probe> = HashMap::new();
    let arrivals = Arrivals::start(world, "bench", rate)?;
    let started = Instant::now();
    while started.elapsed() < time {
        let new = arrivals.probes.try_iter();
        waiting.extend(new.map(|probe| (probe.id.clone(), probe)));
        look(reader, &mut waiting, &mut took).await?;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let (_, rest) = arrivals.stop().await?;
    waiting.extend(rest.into_iter().map(|probe| (probe.id.clone(), probe)));
    let ended = Instant::now();
    while !waiting.is_empty() {
        if ended.elapsed() > PATIENCE {
            bail!("{} events cannot be read yet", waiting.len());
        }
        look(reader, &mut waiting, &mut took).await?;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(took)
}

/// Looks which of the events that are waited for are there.
async fn look(
    reader: &Reader<'_>,
    waiting: &mut HashMap<String, Probe>,
    took: &mut Histogram<u64>,
) -> anyhow::Result<()> {
    let Some(since) = waiting.values().map(|probe| probe.created).min() else {
        return Ok(());
    };
    for id in reader.readable(since).await? {
        if let Some(probe) = waiting.remove(&id) {
            took.saturating_record(u64::try_from(probe.published.elapsed().as_micros())?);
        }
    }
    Ok(())
}
