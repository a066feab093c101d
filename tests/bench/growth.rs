//! How a drain grows: with the partitions of the topic, and with a second consumer.
#![expect(clippy::cast_precision_loss, reason = "far fewer events")]

use std::path::Path;

use serde_json::json;

use crate::drained::Backlog;
use crate::events::Shape;
use crate::report::Report;
use crate::sizes::Sizes;
use crate::stage::Stage;

const PARTITIONS: [u32; 3] = [1, 4, 16];

const CONSUMERS: [usize; 2] = [1, 2];

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "partitions: 1, consumers: 1, rows/s",
    "partitions: 1, consumers: 1, rows per consumer CPU-s",
    "partitions: 1, consumers: 2, rows/s",
    "partitions: 4, consumers: 1, rows/s",
    "partitions: 4, consumers: 1, rows per consumer CPU-s",
    "partitions: 4, consumers: 2, rows/s",
    "partitions: 4, consumers: 2, rows per consumer CPU-s",
    "partitions: 16, consumers: 1, rows/s",
    "partitions: 16, consumers: 1, rows per consumer CPU-s",
    "partitions: 16, consumers: 2, rows/s",
    "partitions: 16, consumers: 2, rows per consumer CPU-s",
];

/// Drains the same events from one, four and sixteen partitions, by one consumer and by two.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let mut stage = Stage::engine(logs).await?.and_kafka().await?;
    let events = sizes.events / 2;
    let mut report = Report::new(json!({
        "runs": sizes.runs,
        "events": events,
        "rows/s": "from the start until all rows can be read",
        "consumers": "processes of one group, started at the same time",
        "beside": "broker, engine and consumers share the cores",
    }));
    for partitions in PARTITIONS {
        let backlog = Backlog::fill(&stage, Shape::Full, partitions, events).await?;
        for (place, consumers) in CONSUMERS.into_iter().enumerate() {
            let of = format!("partitions: {partitions}, consumers: {consumers}");
            for run in 1..=sizes.runs {
                let number = place * sizes.runs + run;
                let drained = backlog.by_us(&mut stage, consumers, number).await?;
                eprintln!("{of}, run {run}: {:.1} s", drained.seconds);
                let rate = events as f64 / drained.seconds;
                report.add(format!("{of}, rows/s"), "rows/s", rate);
                let name = format!("{of}, rows/s flowing");
                report.add(name, "rows/s", drained.flowing);
                let rows = events as f64 / drained.consumer;
                report.add(format!("{of}, rows per consumer CPU-s"), "rows", rows);
            }
        }
    }
    Ok(report)
}
