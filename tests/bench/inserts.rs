//! What a row costs the engine, by the format it comes in: the same batches as blocks of ClickHouse's
//! Native format, as the consumer sends them, as `RowBinary` and as JSON lines.
//!
//! All three say the same settings, and a batch is one part in each of them. The figure without
//! merges is that of the inserts alone, on a table that may not merge; the other one has all that was
//! merged until nothing was left to merge.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use audit_schema::native::SETTINGS;
use audit_schema::row::{EVENTS, EventColumns, EventRow, Millis};
use audit_tests::world::World;
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::events::Shape;
use crate::native;
use crate::report::{Goal, Report};
use crate::sizes::Sizes;
use crate::stage::Stage;

/// As the consumer's, when there is more than it can write at once.
const BATCH: u64 = 50_000;

/// How long nothing is merged before merging is over.
const REST: Duration = Duration::from_secs(2);

/// How often it is looked whether something is merged.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
enum Format {
    Native,
    RowBinary,
    JsonLines,
}

const FORMATS: [(Format, &str); 3] = [
    (Format::Native, "Native"),
    (Format::RowBinary, "RowBinary"),
    (Format::JsonLines, "JSONEachRow"),
];

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "Native, engine CPU per 1M rows, with merges",
    "Native, engine CPU per 1M rows, without merges",
    "RowBinary, engine CPU per 1M rows, with merges",
    "RowBinary, engine CPU per 1M rows, without merges",
    "JSONEachRow, engine CPU per 1M rows, with merges",
    "JSONEachRow, engine CPU per 1M rows, without merges",
    "Native / RowBinary, with merges",
    "Native / RowBinary, without merges",
    "Native / JSONEachRow, with merges",
    "Native / JSONEachRow, without merges",
];

/// Inserts the same rows in each format, with and without merges.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let mut stage = Stage::engine(logs).await?;
    let rows = (sizes.events / 2).max(1);
    let batch = BATCH.min(rows);
    let mut report = Report::new(json!({
        "runs": sizes.runs,
        "rows": rows / batch * batch,
        "batches": format!("{batch} rows, one after the other, each one part, not compressed"),
        "table": "audit_events with its projections and indexes",
        "merges": "with: CPU until nothing is merged any more; without: the table may not merge",
    }));
    // What is slow only the first time is not measured.
    for (format, _) in FORMATS {
        let world = stage.world("warm")?;
        insert(&mut stage, &world, format, (1, batch), None).await?;
    }
    for run in 1..=sizes.runs {
        for (format, name) in FORMATS {
            for rest in [None, Some(REST.min(sizes.time))] {
                let world = stage.world("inserts")?;
                let used = insert(&mut stage, &world, format, (rows / batch, batch), rest).await?;
                let with = if rest.is_some() { "with" } else { "without" };
                let figure = format!("{name}, engine CPU per 1M rows, {with} merges");
                let per_million = used * 1e6 / as_float(rows / batch * batch);
                eprintln!("run {run}: {figure}: {per_million:.2} s");
                report.add(figure, "s", per_million);
            }
        }
    }
    for with in ["with", "without"] {
        let of = |name: &str| format!("{name}, engine CPU per 1M rows, {with} merges");
        for peer in ["RowBinary", "JSONEachRow"] {
            let ratio = report.median(&of("Native"))? / report.median(&of(peer))?;
            report.add(format!("Native / {peer}, {with} merges"), "×", ratio);
        }
    }
    report.goal("Native / RowBinary, without merges", Goal::AtMost(0.6))?;
    Ok(report)
}

/// Seconds the engine takes for so many batches of so many rows; with merges, until there were none for
/// so long.
async fn insert(
    stage: &mut Stage,
    world: &World,
    format: Format,
    (batches, rows): (u64, u64),
    merges: Option<Duration>,
) -> anyhow::Result<f64> {
    let client = native::tables(world).await?;
    if merges.is_none() {
        world.sql("SYSTEM STOP MERGES audit_events").await?;
    }
    let mut pool = Shape::Full.pool();
    let before = stage.engine_cpu()?;
    for number in 0..batches {
        let columns = native::columns(&mut pool, 0, number * rows, rows);
        let now = Millis::from(Utc::now());
        match format {
            Format::Native => native::insert(&client, &columns, &number.to_string()).await?,
            Format::RowBinary => {
                let mut request = client.insert::<EventRow>(EVENTS).await?;
                for (name, value) in SETTINGS {
                    request = request.with_setting(name, value);
                }
                for mut row in columns.rows() {
                    row.ingested_at = now;
                    request.write(&row).await?;
                }
                request.end().await?;
            }
            Format::JsonLines => json_lines(world, &columns, now).await?,
        }
    }
    let mut after = stage.engine_cpu()?;
    if let Some(rest) = merges {
        after = merged(stage, world, rest).await?;
    }
    let used = after - before;
    let stored: u64 = world
        .sql("SELECT count() FROM audit_events")
        .await?
        .parse()?;
    ensure!(stored == batches * rows, "{stored} rows are stored");
    world.drop_database().await?;
    Ok(used)
}

async fn json_lines(world: &World, columns: &EventColumns, now: Millis) -> anyhow::Result<()> {
    let mut body = String::from("INSERT INTO audit_events FORMAT JSONEachRow\n");
    let text = |time: Millis| {
        let time: DateTime<Utc> = time.into();
        time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
    };
    for row in columns.rows() {
        let mut line = serde_json::to_value(&row)?;
        line["created_at"] = text(row.created_at).into();
        line["logged_at"] = text(row.logged_at).into();
        line["ingested_at"] = text(now).into();
        body += &line.to_string();
        body.push('\n');
    }
    let settings: Vec<_> = SETTINGS
        .map(|(name, value)| format!("{name}={value}"))
        .into();
    let url = format!(
        "{}/?database={}&async_insert=0&{}",
        world.clickhouse(),
        world.database,
        settings.join("&")
    );
    let answer = world.http().post(url).body(body).send().await?;
    let status = answer.status();
    ensure!(status.is_success(), "{}", answer.text().await?);
    Ok(())
}

/// Waits until nothing has been merged for a while, and says what the engine had used when merging
/// ended.
async fn merged(stage: &mut Stage, world: &World, rest: Duration) -> anyhow::Result<f64> {
    let merges = "SELECT count() FROM system.merges WHERE database = currentDatabase()";
    let (mut busy, mut used) = (Instant::now(), stage.engine_cpu()?);
    while busy.elapsed() < rest {
        if world.sql(merges).await? != "0" {
            busy = Instant::now();
            used = stage.engine_cpu()?;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(used)
}

#[expect(clippy::cast_precision_loss, reason = "far fewer rows")]
fn as_float(rows: u64) -> f64 {
    rows as f64
}
