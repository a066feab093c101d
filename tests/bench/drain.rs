//! A topic that is full, drained into the table: by our consumer, and by ClickHouse's own Kafka engine
//! into a table with the same columns, projections and indexes.
//!
//! Rows are counted as they become readable; the time runs from the start of the process, or from
//! the statement that makes the peer's table, until all of them are. After a run of ours each event
//! is there once; the rows of the peer are compared with ours by a hash over all columns.

use std::path::Path;

use anyhow::ensure;
use serde_json::json;

use crate::drained::{Backlog, Drained};
use crate::events::Shape;
use crate::report::{Goal, Report};
use crate::sizes::Sizes;
use crate::stage::Stage;

/// As `audit-consumer migrate` makes the topic.
const PARTITIONS: u32 = 6;

/// Rows a second of simple events into a table without indexes: what a plain loop does with one of 9
/// columns.
const WITHOUT_INDEXES: f64 = 480_000.0;

/// What the peer's rows a second are to be multiplied by.
const TIMES_PEER: f64 = 2.0;

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "full, rows per consumer CPU-s",
    "full, rows/s",
    "full, rows/s flowing",
    "full, engine CPU per 1M rows",
    "full, broker CPU per 1M rows",
    "full, Kafka engine, rows/s",
    "full, Kafka engine, rows/s flowing",
    "full, Kafka engine, engine CPU per 1M rows",
    "full, rows/s, times the best of Kafka engine",
    "simple, rows per consumer CPU-s",
    "simple, rows/s",
    "simple, rows/s flowing",
    "simple, engine CPU per 1M rows",
    "simple, Kafka engine, rows/s",
    "simple, Kafka engine, engine CPU per 1M rows",
    "simple, rows/s, times the best of Kafka engine",
    "simple, without indexes, rows/s",
    "simple, without indexes, rows/s flowing",
    "simple, without indexes, engine CPU per 1M rows",
];

/// A run of each, one after the other, again and again.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let mut stage = Stage::engine(logs).await?.and_kafka().await?;
    let mut report = Report::new(json!({
        "runs": sizes.runs,
        "events": sizes.events,
        "full": "an event of the plugin, facts in its event data",
        "simple": "what happened to whom, some 330 bytes",
        "topic": format!("{PARTITIONS} partitions, filled by the producer crate before"),
        "ours": "one audit-consumer as configured by default",
        "Kafka engine": "2 consumers, blocks of 65,536 rows or a second, a view that derives the same columns",
        "table": "audit_events with its projections and indexes",
        "without indexes": "ours into audit_events without them",
        "rows/s": "from the start until all rows can be read; flowing: from the first row on",
        "CPU": "until all rows can be read, merges until then included",
        "beside": "broker, engine and consumer share the cores",
    }));
    for (shape, least) in [(Shape::Full, 400_000.0), (Shape::Simple, 500_000.0)] {
        let backlog = Backlog::fill(&stage, shape, PARTITIONS, sizes.events).await?;
        let of = shape.name();
        for run in 1..=sizes.runs {
            let ours = backlog.by_us(&mut stage, 1, run).await?;
            eprintln!("{of}, run {run} of {}: {:.1} s", sizes.runs, ours.seconds);
            let peer = backlog.by_peer(&mut stage, run).await?;
            eprintln!("{of}, Kafka engine: {:.1} s", peer.seconds);
            ensure!(
                ours.rows == peer.rows,
                "the rows of the Kafka engine are not ours: make its view derive what schema/src/row.rs does"
            );
            add(&mut report, of, &backlog, &ours);
            let rows = rows(&backlog) / ours.consumer;
            report.add(format!("{of}, rows per consumer CPU-s"), "rows", rows);
            add(&mut report, &format!("{of}, Kafka engine"), &backlog, &peer);
            if shape == Shape::Simple {
                let of = format!("{of}, without indexes");
                let plain = backlog.by_us_plain(&mut stage, run).await?;
                eprintln!("{of}: {:.1} s", plain.seconds);
                add(&mut report, &of, &backlog, &plain);
            }
        }
        report.goal(
            &format!("{of}, rows per consumer CPU-s"),
            Goal::AtLeast(least),
        )?;
        // Its good mode: the best of its runs.
        let peer = report.highest(&format!("{of}, Kafka engine, rows/s"))?;
        let times = format!("{of}, rows/s, times the best of Kafka engine");
        let ours = report.median(&format!("{of}, rows/s"))?;
        report.add(&times, "×", ours / peer);
        report.goal(&times, Goal::AtLeast(TIMES_PEER))?;
    }
    let plain = "simple, without indexes, rows/s";
    report.goal(plain, Goal::AtLeast(WITHOUT_INDEXES))?;
    Ok(report)
}

fn add(report: &mut Report, of: &str, backlog: &Backlog, drained: &Drained) {
    let rows = rows(backlog);
    report.add(format!("{of}, rows/s"), "rows/s", rows / drained.seconds);
    report.add(format!("{of}, rows/s flowing"), "rows/s", drained.flowing);
    for (name, used) in [("engine", drained.engine), ("broker", drained.broker)] {
        let name = format!("{of}, {name} CPU per 1M rows");
        report.add(name, "s", used * 1e6 / rows);
    }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer events")]
fn rows(backlog: &Backlog) -> f64 {
    backlog.events as f64
}
