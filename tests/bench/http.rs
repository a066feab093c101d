//! Ingest over HTTP: so many connections, each with one request after the other.
#![expect(
    clippy::cast_possible_truncation,
    reason = "times and counts of a run are far smaller"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use audit_tests::world::Service;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cpu;
use crate::events::body;
use crate::report::{Report, millis};

const CONNECTIONS: u64 = 256;

/// Requests and events of one measurement.
struct Load {
    took: Histogram<u64>,
    requests: u32,
    seconds: f64,
}

/// `POST /events/track`, one event each.
pub(crate) async fn track(
    ingest: &Service,
    key: &str,
    time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let requests = (0..CONNECTIONS).map(|n| request(&ingest.url, "/events/track", key, &body(n)));
    let cpu = cpu::seconds(&ingest.process)?;
    let load = run(&ingest.url, requests.collect(), time).await?;
    let used = cpu::seconds(&ingest.process)? - cpu;
    let requests = f64::from(load.requests);
    report.add("POST /events/track", "requests/s", requests / load.seconds);
    report.add("POST /events/track p50", "ms", millis(&load.took, 0.5));
    report.add("POST /events/track p99", "ms", millis(&load.took, 0.99));
    report.add(
        "POST /events/track, CPU of ingest",
        "µs/request",
        used * 1e6 / requests,
    );
    Ok(())
}

/// `POST /v1/events`, a thousand events each, on few connections.
pub(crate) async fn batches(
    ingest: &Service,
    key: &str,
    time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let batch = |connection: u64| {
        let events: Vec<_> = (0..1_000).map(|n| body(connection * 1_000 + n)).collect();
        format!("[{}]", events.join(","))
    };
    let requests = (0..8).map(|n| request(&ingest.url, "/v1/events", key, &batch(n)));
    let cpu = cpu::seconds(&ingest.process)?;
    let load = run(&ingest.url, requests.collect(), time).await?;
    let used = cpu::seconds(&ingest.process)? - cpu;
    let events = f64::from(load.requests) * 1_000.0;
    report.add(
        "POST /v1/events, 1,000 each",
        "events/s",
        events / load.seconds,
    );
    report.add(
        "POST /v1/events p99, 1,000 each",
        "ms",
        millis(&load.took, 0.99),
    );
    report.add(
        "POST /v1/events, CPU of ingest",
        "µs/event",
        used * 1e6 / events,
    );
    Ok(())
}

fn request(url: &str, path: &str, key: &str, body: &str) -> Vec<u8> {
    let host = url.trim_start_matches("http://");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// A connection for each request, which sends it again and again.
async fn run(url: &str, requests: Vec<Vec<u8>>, time: Duration) -> anyhow::Result<Load> {
    let address = url.trim_start_matches("http://").to_owned();
    let mut connections = JoinSet::new();
    let started = Instant::now();
    for request in requests {
        let address = address.clone();
        connections.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut took = Histogram::<u64>::new_with_max(60_000_000, 3)?;
            let mut answer = Vec::new();
            while started.elapsed() < time {
                let sent = Instant::now();
                stream.write_all(&request).await?;
                read(&mut stream, &mut answer).await?;
                took.saturating_record(sent.elapsed().as_micros() as u64);
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Histogram::<u64>::new_with_max(60_000_000, 3)?;
    while let Some(ended) = connections.join_next().await {
        took.add(ended??)?;
    }
    Ok(Load {
        requests: u32::try_from(took.len())?,
        took,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Reads one answer, which has to be 200.
async fn read(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    answer.clear();
    loop {
        ensure!(stream.read_buf(answer).await? > 0, "the connection ended");
        let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&answer[..head])?;
        ensure!(
            text.starts_with("HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(answer)
        );
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("a length")?.parse()?;
        if answer.len() >= head + 4 + length {
            return Ok(());
        }
    }
}
