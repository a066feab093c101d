//! What an event takes on disk: each column, projection and index, and all of it; beside a table with
//! the same columns and codecs and nothing else, of which one month is compared.
//!
//! Taken from the engine's own tables, of the kept log, whose parts are merged. What they say of a
//! part is the size of its files; the part as a whole is compared with the sum of them.

use std::path::Path;

use anyhow::Context;
use audit_tests::world::World;
use serde_json::json;

use crate::plain;
use crate::report::{Goal, Report};
use crate::sizes::Sizes;
use crate::stage::Stage;

/// Most bytes of an event, all in.
const GOAL_BYTES: f64 = 120.0;

/// Parts of the log that are in use.
const PARTS: &str = "active AND database = currentDatabase() AND table = 'audit_events'";

/// What each column of a projection takes, of what the projection does. 0 in a part so small that all
/// its columns are in one file, as in a small log.
const IN_PROJECTIONS: &str = "SELECT concat(name, ', ', column), sum(column_bytes_on_disk) \
    FROM system.projection_parts_columns WHERE PARTS GROUP BY 1";

/// Kinds of files: the beginning of their figures, and a question for names and bytes of each.
const FILES: [(&str, &str); 3] = [
    (
        "column",
        "SELECT column, sum(column_bytes_on_disk) FROM system.parts_columns WHERE PARTS GROUP BY 1",
    ),
    (
        "projection",
        "SELECT name, sum(bytes_on_disk) FROM system.projection_parts WHERE PARTS GROUP BY 1",
    ),
    (
        "index",
        "SELECT name, data_compressed_bytes + marks_bytes FROM system.data_skipping_indices \
         WHERE database = currentDatabase() AND table = 'audit_events'",
    ),
];

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "column event_data",
    "column event_id",
    "all of kind column",
    "all of kind projection",
    "all of kind index",
    "all in",
    "other files of parts",
    "newest month, all in",
    "newest month, plain table",
    "newest month, all in / plain table",
];

/// One look: sizes do not change from run to run.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let (_stage, world) = Stage::log(sizes.rows, logs).await?;
    let rows = number(&world, "SELECT sum(rows) FROM system.parts WHERE PARTS").await?;
    let mut report = Report::new(json!({
        "rows": rows,
        "log": "the kept log, whose parts are merged",
        "column": "data and marks, compressed",
        "plain": "the same columns, codecs, key and partitions, no index and no projection",
        "runs": "one: sizes do not change",
    }));
    let mut told = 0.0;
    for (kind, question) in FILES {
        let sum = listed(&world, &mut report, kind, question, rows).await?;
        report.add(format!("all of kind {kind}"), "B/event", sum);
        told += sum;
    }
    let (kind, question) = ("projection column", IN_PROJECTIONS);
    listed(&world, &mut report, kind, question, rows).await?;
    let all = "SELECT sum(bytes_on_disk) FROM system.parts WHERE PARTS";
    let all = number(&world, all).await? / rows;
    report.add("all in", "B/event", all);
    report.add("other files of parts", "B/event", all - told);
    report.goal("all in", Goal::AtMost(GOAL_BYTES))?;
    beside_plain(&world, &mut report, logs).await?;
    Ok(report)
}

/// Adds what each of a kind takes, and gives their sum.
async fn listed(
    world: &World,
    report: &mut Report,
    kind: &str,
    question: &str,
    rows: f64,
) -> anyhow::Result<f64> {
    let answer = world.sql(&question.replace("PARTS", PARTS)).await?;
    let mut sum = 0.0;
    for line in answer.lines() {
        let (name, bytes) = line.split_once('\t').context("a name and bytes")?;
        let bytes = bytes.parse::<f64>()? / rows;
        report.add(format!("{kind} {name}"), "B/event", bytes);
        sum += bytes;
    }
    Ok(sum)
}

/// The newest month, in our table and in one without indexes and projections.
async fn beside_plain(world: &World, report: &mut Report, logs: &Path) -> anyhow::Result<()> {
    let month = "SELECT max(toYYYYMM(logged_at)) FROM audit_events";
    let month = world.sql(month).await?;
    let plain = plain::make(world, logs).await?;
    let bytes_per_row = format!(
        "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts WHERE active \
         AND database = currentDatabase() AND table = 'audit_events' AND partition = '{month}'"
    );
    let ours = number(world, &bytes_per_row).await?;
    let without = number(&plain, &bytes_per_row).await?;
    report.add("newest month, all in", "B/event", ours);
    report.add("newest month, plain table", "B/event", without);
    report.add("newest month, all in / plain table", "×", ours / without);
    Ok(())
}

async fn number(world: &World, question: &str) -> anyhow::Result<f64> {
    Ok(world
        .sql(&question.replace("PARTS", PARTS))
        .await?
        .parse()?)
}
