//! What small inserts cost at a low rate: how many parts there are at most, and how much of the
//! processors merges take, over an hour at 100 events a second.
//!
//! Time is simulated. Which batches such an hour has follows from the consumer's defaults: how long
//! after its first event a batch is written, and how often watermarks are at most. They are inserted
//! one after the other as fast as the engine takes them, so merges have less time than they would
//! have: the most parts at a time are more than there would be, the work of the merges is about the
//! same.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use audit_schema::row::EVENTS;
use audit_tests::defaults;
use audit_tests::world::World;
use serde_json::json;

use crate::events::Shape;
use crate::native;
use crate::report::Report;
use crate::sizes::Sizes;
use crate::stage::Stage;

/// Milliseconds between two events: 100 a second.
const EVENT_EVERY: u64 = 10;

/// As the topic is made.
const PARTITIONS: usize = 6;

/// `batch.interval` and `settle.interval` of the consumer, in milliseconds.
struct Intervals {
    batch: u64,
    settle: u64,
}

impl Intervals {
    fn of_consumer() -> anyhow::Result<Self> {
        let of = |section| {
            let interval = defaults::duration("consumer", section, "interval")?;
            anyhow::Ok(u64::try_from(interval.as_millis())?)
        };
        Ok(Self {
            batch: of("batch")?,
            settle: of("settle")?,
        })
    }
}

/// How many inserts there are between two looks at the parts.
const LOOK_EVERY: usize = 50;

/// How many there are between two lines of progress.
const TELL_EVERY: usize = 10_000;

/// An insert of the simulated time.
enum Insert {
    /// So many events of a partition.
    Events(usize, u64),
    Watermarks,
}

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "most parts of audit_events",
    "most parts of audit_watermarks",
    "merges, CPU of an hour",
    "engine, CPU of an hour",
    "merges, share of the engine's CPU",
    "events of a batch",
    "inserted in",
];

/// Inserts the batches of the simulated time.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let mut stage = Stage::engine(logs).await?;
    let intervals = Intervals::of_consumer()?;
    let inserts = inserts(sizes.simulated, &intervals);
    let events = inserts.iter().filter_map(|insert| match insert {
        Insert::Events(_, events) => Some(*events),
        Insert::Watermarks => None,
    });
    let (batches, events) = events.fold((0_u32, 0_u64), |(n, sum), e| (n + 1, sum + e));
    let mut report = Report::new(json!({
        "runs": "one, which is long",
        "simulated": format!("{:?} at 100 events/s over {PARTITIONS} partitions", sizes.simulated),
        "inserts": format!("{batches} batches with {events} events, the consumer's defaults; watermarks \
                            every {} ms", intervals.settle),
        "pace": "one after the other, as fast as the engine takes them",
        "merges": "CPU of the engine's threads that merge",
    }));
    let world = stage.world("parts")?;
    let begun = Instant::now();
    let (engine, merges) = (stage.engine_cpu()?, stage.merges_cpu()?);
    let [most, most_of_watermarks] = insert(&world, &inserts).await?;
    let engine = stage.engine_cpu()? - engine;
    let merges = stage.merges_cpu()? - merges;
    let hour = sizes.simulated.as_secs_f64() / 3_600.0;
    report.add("most parts of audit_events", "parts", most);
    report.add(
        "most parts of audit_watermarks",
        "parts",
        most_of_watermarks,
    );
    report.add("merges, CPU of an hour", "s", merges / hour);
    report.add("engine, CPU of an hour", "s", engine / hour);
    report.add("merges, share of the engine's CPU", "×", merges / engine);
    report.add("inserted in", "s", begun.elapsed().as_secs_f64());
    report.add(
        "events of a batch",
        "events",
        f64::from(u32::try_from(events)?) / f64::from(batches),
    );
    Ok(report)
}

/// Which inserts a time has, in their order.
fn inserts(time: Duration, intervals: &Intervals) -> Vec<Insert> {
    // Of each partition: when the batch that waits is due, and its events.
    let mut waiting = [(0_u64, 0_u64); PARTITIONS];
    let (mut inserts, mut settled, mut unsettled) = (Vec::new(), 0, false);
    let events = u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / EVENT_EVERY;
    for number in 0..events {
        let now = number * EVENT_EVERY;
        for (partition, (due, events)) in waiting.iter_mut().enumerate() {
            if *events > 0 && *due <= now {
                inserts.push(Insert::Events(partition, std::mem::take(events)));
                unsettled = true;
            }
        }
        if unsettled && now >= settled + intervals.settle {
            inserts.push(Insert::Watermarks);
            (settled, unsettled) = (now, false);
        }
        // As keys do: any partition may follow any other.
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let batch = &mut waiting[usize::try_from(key).unwrap_or_default() % PARTITIONS];
        if batch.1 == 0 {
            batch.0 = now + intervals.batch;
        }
        batch.1 += 1;
    }
    inserts
}

/// Does the inserts, and says how many parts the two tables had at most.
#[expect(clippy::cast_precision_loss, reason = "far fewer inserts")]
async fn insert(world: &World, inserts: &[Insert]) -> anyhow::Result<[f64; 2]> {
    let client = native::tables(world).await?;
    let mut pool = Shape::Full.pool();
    let (mut offsets, mut most) = ([0_u64; PARTITIONS], [0.0_f64; 2]);
    for (place, insert) in inserts.iter().enumerate() {
        match *insert {
            Insert::Events(partition, events) => {
                let offset = &mut offsets[partition];
                let number = u32::try_from(partition)?;
                let columns = native::columns(&mut pool, number, *offset, events);
                *offset += events;
                native::insert(&client, &columns, &format!("{partition}-{offset}")).await?;
            }
            Insert::Watermarks => {
                let rows = (0..6).zip(&offsets).map(|(partition, next)| {
                    format!("(1, {partition}, {next}, now64(3), now64(3))")
                });
                let rows: Vec<_> = rows.collect();
                let insert = format!(
                    "INSERT INTO audit_watermarks SETTINGS async_insert = 0 VALUES {}",
                    rows.join(", ")
                );
                world.sql(&insert).await?;
            }
        }
        if place % LOOK_EVERY == 0 {
            for (most, table) in most.iter_mut().zip([EVENTS, "audit_watermarks"]) {
                let parts = format!(
                    "SELECT count() FROM system.parts \
                     WHERE active AND database = currentDatabase() AND table = '{table}'"
                );
                *most = most.max(world.sql(&parts).await?.parse()?);
            }
        }
        if place % TELL_EVERY == 0 {
            let [most, of] = [most[0], 100.0 * place as f64 / inserts.len() as f64];
            eprintln!("{of:.0} % of the time, {most} parts at most");
        }
    }
    let stored: u64 = world
        .sql("SELECT count() FROM audit_events")
        .await?
        .parse()?;
    ensure!(
        stored == offsets.iter().sum::<u64>(),
        "{stored} rows are stored"
    );
    Ok(most)
}
