//! Files of a large table: rows and bytes a second, and what the query API holds meanwhile, with a
//! client that reads as fast as it can, and with one that hardly reads.
#![expect(
    clippy::cast_precision_loss,
    reason = "counts and bytes of a run are far smaller"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use audit_tests::server::Server;
use audit_tests::world::{Key, Service, World};
use reqwest::Response;
use reqwest::header::ACCEPT_ENCODING;
use serde_json::json;

use crate::report::Report;

/// Rows of one insert.
const INSERT: u64 = 1_000_000;

/// How long a client hardly reads, and what it waits before it takes the next piece.
const SLOW_FOR: Duration = Duration::from_secs(15);
const SLOW_PAUSE: Duration = Duration::from_millis(20);

/// How much of the end of a file is looked at.
const END: usize = 600;

/// A kind of file: its parameter, how it is packed, how it ends when it is whole; and the names of
/// its figures.
struct Kind {
    format: &'static str,
    packed: &'static str,
    whole: &'static str,
    rows: &'static str,
    bytes: &'static str,
    peaks: [&'static str; 4],
}

macro_rules! kind {
    ($name:literal, $format:literal, $packed:literal, $whole:literal) => {
        Kind {
            format: $format,
            packed: $packed,
            whole: $whole,
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
    kind!("ndjson", "ndjson", "identity", "\"complete\":true"),
    kind!("csv", "csv", "identity", "\"#complete\""),
    kind!("parquet", "parquet", "identity", "PAR1"),
    // The end of what is packed cannot be seen, but that it was sent can.
    kind!("ndjson gzip", "ndjson", "gzip", ""),
    kind!("ndjson zstd", "ndjson", "zstd", ""),
];

/// Makes a table of so many events, and files of it: of all kinds, or of one format.
pub(crate) async fn measure(
    rows: u64,
    format: Option<&str>,
    logs: PathBuf,
) -> anyhow::Result<Report> {
    let mut kafka = Server::kafka(&logs)?;
    kafka.run().await.context("Kafka")?;
    let world = World::on([&kafka.address(), ""], "bench", logs)?;
    let mut engine = Server::engine(&world)?;
    engine.run().await.context("ClickHouse")?;
    world.use_engine(&engine.url());
    world.migrate()?;
    // It is needed for the tables only.
    kafka.kill().await?;
    let started = Instant::now();
    fill(&world, rows).await?;
    eprintln!("{rows} rows after {:?}", started.elapsed());

    let key = world.key("bench", &["read"])?;
    world.set("AUDIT_QUERY_API_AUDIT__EXPORTS", "false");
    let api = world.query_api().await?;
    let mut report = Report::new(json!({
        "rows": rows,
        "events": "columns and data like those of a Better Auth server, all of one project",
        "fast": "a client that reads as fast as it can",
        "slow": format!("a client that pauses {SLOW_PAUSE:?} after each piece, for {SLOW_FOR:?}"),
        "RSS": "of the query API: before each file, and its peak until the end of it",
        "beside": "engine, query API and client share the cores",
    }));
    let wanted = |kind: &&Kind| format.is_none_or(|format| format == kind.format);
    for kind in KINDS.iter().filter(wanted) {
        eprintln!("{} {}", kind.format, kind.packed);
        let [before, peak, slow_before, slow_peak] = kind.peaks;
        report.add(before, "MiB", mebibytes(api.process.resident()?));
        api.process.forget_peak()?;
        let started = Instant::now();
        let bytes = fast(open(&world, &api, &key, kind).await?, kind).await?;
        let seconds = started.elapsed().as_secs_f64();
        report.add(peak, "MiB", mebibytes(api.process.peak()?));
        report.add(kind.rows, "rows/s", rows as f64 / seconds);
        report.add(kind.bytes, "MB/s", bytes as f64 / 1e6 / seconds);

        report.add(slow_before, "MiB", mebibytes(api.process.resident()?));
        api.process.forget_peak()?;
        slow(open(&world, &api, &key, kind).await?).await?;
        report.add(slow_peak, "MiB", mebibytes(api.process.peak()?));
    }
    Ok(report)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Rows as the consumer writes them, in the order of time, and the watermarks behind them.
async fn fill(world: &World, rows: u64) -> anyhow::Result<()> {
    for first in (0..rows).step_by(usize::try_from(INSERT)?) {
        let count = INSERT.min(rows - first);
        world
            .sql(&format!(
                "INSERT INTO audit_events SELECT \
                 'bench' AS project_id, generateUUIDv4(number) AS event_id, \
                 ['session_created', 'user_signed_in', 'user_signed_out'][number % 3 + 1] AS event_type, \
                 event_type AS documented_type, \
                 concat('user-', toString(number % 99991)) AS event_key, \
                 'Signed in via passkey' AS event_display_name, event_key AS user_id, \
                 concat('organization-', toString(number % 997)) AS organization_id, \
                 concat(event_key, '@example.com') AS identifier, event_key AS actor_id, \
                 'user' AS actor_type, 'success' AS outcome, \
                 concat('session-', hex(sipHash64(number))) AS session_id, '' AS request_id, \
                 toIPv6('::ffff:192.0.2.7') AS ip_address, 'Berlin' AS city, 'Germany' AS country, \
                 'DE' AS country_code, \
                 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0' AS user_agent, \
                 concat('{{\"userId\":\"', event_key, '\",\"userEmail\":\"', identifier, \
                        '\",\"userName\":\"Ann Example\",\"sessionId\":\"', session_id, \
                        '\",\"loginMethod\":\"passkey\",\"userAgent\":\"', user_agent, \
                        '\",\"triggeredBy\":\"', event_key, '\",\"triggerContext\":\"user\"}}') AS event_data, \
                 now64(3) - INTERVAL 1 DAY - toIntervalMillisecond({rows} - number) AS created_at, \
                 created_at AS logged_at, nowInBlock64(3) AS ingested_at, \
                 1 AS source_incarnation, number % 6 AS source_partition, \
                 intDiv(number, 6) AS source_offset \
                 FROM numbers({first}, {count})"
            ))
            .await?;
    }
    world
        .sql(&format!(
            "INSERT INTO audit_watermarks SELECT 1, number, intDiv({rows} + 5 - number, 6), \
             now64(3), now64(3) FROM numbers(6)"
        ))
        .await?;
    Ok(())
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

async fn slow(mut answer: Response) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < SLOW_FOR && answer.chunk().await?.is_some() {
        tokio::time::sleep(SLOW_PAUSE).await;
    }
    Ok(())
}
