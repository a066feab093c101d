//! Files of a large table: rows and bytes a second, and what the query API holds meanwhile, with a
//! client that reads as fast as it can, and with one that hardly reads.
#![expect(
    clippy::cast_precision_loss,
    reason = "counts and bytes of a run are far smaller"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use audit_tests::world::{Key, Service, World};
use reqwest::Response;
use reqwest::header::ACCEPT_ENCODING;
use serde_json::json;

use crate::report::{Goal, Report};
use crate::sizes::Sizes;
use crate::stage::Stage;

/// What a client that hardly reads waits before it takes the next piece.
const SLOW_PAUSE: Duration = Duration::from_millis(20);

/// How much of the end of a file is looked at.
const END: usize = 600;

/// What of ClickHouse's own rate a file has to come at, and the memory it may take, in MiB.
const GOAL_OF_CLICKHOUSE: f64 = 0.7;
const GOAL_PEAK: f64 = 64.0;

/// A kind of file: its parameter, how it is packed, how it ends when it is whole; and the names of
/// its figures.
struct Kind {
    format: &'static str,
    packed: &'static str,
    whole: &'static str,
    /// What ClickHouse calls it, where it sends it as it goes.
    peer: Option<&'static str>,
    rows: &'static str,
    bytes: &'static str,
    peaks: [&'static str; 4],
}

macro_rules! kind {
    ($name:literal, $format:literal, $packed:literal, $whole:literal, $peer:expr) => {
        Kind {
            format: $format,
            packed: $packed,
            whole: $whole,
            peer: $peer,
            rows: concat!($name, ", rows"),
            bytes: concat!($name, ", bytes sent"),
            peaks: [
                concat!($name, ", RSS before"),
                concat!($name, ", RSS peak"),
                concat!($name, ", RSS before, slow client"),
                concat!($name, ", RSS peak, slow client"),
            ],
        }
    };
}

const KINDS: [Kind; 5] = [
    kind!(
        "ndjson",
        "ndjson",
        "identity",
        "\"complete\":true",
        Some("JSONEachRow")
    ),
    kind!("csv", "csv", "identity", "\"#complete\"", Some("CSV")),
    kind!("parquet", "parquet", "identity", "PAR1", None),
    // The end of what is packed cannot be seen, but that it was sent can.
    kind!("ndjson gzip", "ndjson", "gzip", "", None),
    kind!("ndjson zstd", "ndjson", "zstd", "", None),
];

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "ndjson, rows",
    "ndjson, bytes sent",
    "ndjson, RSS peak",
    "ndjson, rows / ClickHouse's",
    "csv, rows",
    "csv, rows / ClickHouse's",
    "csv, RSS peak",
    "parquet, rows",
    "parquet, RSS peak",
    "ndjson gzip, rows",
    "ndjson zstd, rows",
    "ndjson zstd, RSS peak, slow client",
];

/// Files of one project of the kept log: of all kinds, or of one format.
pub(crate) async fn measure(
    sizes: &Sizes,
    format: Option<&str>,
    logs: &Path,
) -> anyhow::Result<Report> {
    let (rows, project, slow_for) = (sizes.rows, sizes.exported, sizes.slow);
    let (_stage, world) = Stage::log(rows, logs).await?;
    let count = format!("SELECT count() FROM audit_events WHERE project_id = '{project}'");
    let events: u64 = world.sql(&count).await?.parse()?;

    let key = world.key(project, &["read"])?;
    world.set("AUDIT_QUERY_API_AUDIT__EXPORTS", "false");
    let mut report = Report::new(json!({
        "runs": sizes.runs,
        "rows": rows,
        "events": events,
        "log": format!("a year of a Better Auth system, of which the project {project} is exported"),
        "fast": "a client that reads as fast as it can",
        "slow": format!("a client that pauses {SLOW_PAUSE:?} after each piece, for {slow_for:?}"),
        "RSS": "of the query API: before each file, and its peak until the end of it",
        "beside": "engine, query API and client share the cores",
    }));
    let wanted = |kind: &&Kind| format.is_none_or(|format| format == kind.format);
    for kind in KINDS.iter().filter(wanted) {
        let [before, peak, slow_before, slow_peak] = kind.peaks;
        let ratio = format!("{} / ClickHouse's", kind.rows);
        for run in 1..=sizes.runs {
            eprintln!(
                "{} {}, run {run} of {}",
                kind.format, kind.packed, sizes.runs
            );
            // A new one each time: what is freed is not given back to the system.
            let api = world.query_api().await?;
            report.add(before, "MiB", mebibytes(api.process.resident()?));
            api.process.forget_peak()?;
            let started = Instant::now();
            let bytes = fast(open(&world, &api, &key, kind).await?, kind).await?;
            let seconds = started.elapsed().as_secs_f64();
            report.add(peak, "MiB", mebibytes(api.process.peak()?));
            report.add(kind.rows, "rows/s", events as f64 / seconds);
            report.add(kind.bytes, "MB/s", bytes as f64 / 1e6 / seconds);
            if let Some(format) = kind.peer {
                let theirs = events as f64 / of_clickhouse(&world, project, format).await?;
                report.add(format!("{}, ClickHouse's", kind.rows), "rows/s", theirs);
                report.add(&ratio, "×", events as f64 / seconds / theirs);
            }

            report.add(slow_before, "MiB", mebibytes(api.process.resident()?));
            api.process.forget_peak()?;
            slow(open(&world, &api, &key, kind).await?, slow_for).await?;
            report.add(slow_peak, "MiB", mebibytes(api.process.peak()?));
        }
        report.goal(peak, Goal::AtMost(GOAL_PEAK))?;
        if kind.peer.is_some() {
            report.goal(&ratio, Goal::AtLeast(GOAL_OF_CLICKHOUSE))?;
        }
    }
    Ok(report)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn open(world: &World, api: &Service, key: &Key, kind: &Kind) -> anyhow::Result<Response> {
    let url = format!("{}/v1/audit-logs/export?format={}", api.url, kind.format);
    let request = world.http().get(&url).header("x-api-key", &key.secret);
    let answer = request.header(ACCEPT_ENCODING, kind.packed).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    Ok(answer)
}

/// Reads a file to its end, which has to be that of a whole one, and says how long it is.
async fn fast(mut answer: Response, kind: &Kind) -> anyhow::Result<u64> {
    let (mut bytes, mut end) = (0, Vec::new());
    while let Some(chunk) = answer.chunk().await? {
        bytes += u64::try_from(chunk.len())?;
        end.extend_from_slice(&chunk[chunk.len().saturating_sub(END)..]);
        end.drain(..end.len().saturating_sub(END));
    }
    let end = String::from_utf8_lossy(&end);
    ensure!(end.contains(kind.whole), "the file was cut: {end}");
    Ok(bytes)
}

/// How many seconds ClickHouse takes to send the same rows in the same order over HTTP.
async fn of_clickhouse(world: &World, project: &str, format: &str) -> anyhow::Result<f64> {
    let sql = format!(
        "SELECT * FROM {}.audit_events WHERE project_id = '{project}' \
         ORDER BY created_at DESC, event_id DESC FORMAT {format}",
        world.database
    );
    let begun = Instant::now();
    let request = world.http().post(world.clickhouse()).body(sql);
    let mut answer = request.send().await?.error_for_status()?;
    while answer.chunk().await?.is_some() {}
    Ok(begun.elapsed().as_secs_f64())
}

async fn slow(mut answer: Response, time: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < time && answer.chunk().await?.is_some() {
        tokio::time::sleep(SLOW_PAUSE).await;
    }
    Ok(())
}
