//! The numbers: one JSON document on stdout, a table for people on stderr.
//!
//! Everything runs on this machine and shares its cores: the broker, the services, what makes the
//! load. So figures are compared within one run, and each is the median of several.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

mod dataset;
mod events;
mod export;
mod http;
mod kafka;
mod producer;
mod reads;
mod report;
mod tail;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use audit_tests::process::root;
use audit_tests::server::Server;
use audit_tests::world::World;
use clap::Parser;
use serde_json::json;

use report::Report;

/// What publishing, live reading and files cost.
#[derive(Parser)]
#[command(name = "audit-bench")]
enum Bench {
    /// Publishing: latency in the caller, events to Kafka, the spool, ingest over HTTP.
    Producer {
        /// How often each figure is measured.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// How long each measurement takes, in seconds.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
    },
    /// How long after it was published an event is seen by a live reader, and in a list.
    Tail {
        /// How many events are published.
        #[arg(long, default_value_t = 500)]
        events: u32,
        /// How many of them in a second.
        #[arg(long, default_value_t = 20)]
        rate: u32,
    },
    /// First pages and totals of a year of events, by each filter.
    Reads {
        /// How many events the log has.
        #[arg(long, default_value_t = 100_000_000)]
        rows: u64,
        /// How many questions are asked of each kind.
        #[arg(long, default_value_t = 300)]
        questions: u64,
        /// Only questions whose name has this in it.
        #[arg(long)]
        only: Option<String>,
    },
    /// Files of a large table: how fast they come, and the memory of the query API meanwhile.
    Export {
        /// How many events the table has.
        #[arg(long, default_value_t = 10_000_000)]
        rows: u64,
        /// Only files of this format.
        #[arg(long)]
        format: Option<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let bench = Bench::parse();
    let logs = root().join("target/bench");
    if logs.exists() {
        std::fs::remove_dir_all(&logs)?;
    }
    // Servers die with the thread that starts them: this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        match bench {
            Bench::Producer { runs, seconds } => publish(runs, seconds, logs).await,
            Bench::Tail { events, rate } => tail::measure(events, rate, logs).await,
            Bench::Reads {
                rows,
                questions,
                only,
            } => reads::measure(rows, questions, only.as_deref(), logs).await,
            Bench::Export { rows, format } => export::measure(rows, format.as_deref(), logs).await,
        }
    })?;
    eprint!("{}", report.table());
    println!("{}", serde_json::to_string_pretty(&report.json()?)?);
    Ok(())
}

async fn publish(runs: usize, seconds: u64, logs: PathBuf) -> anyhow::Result<Report> {
    let mut server = Server::kafka(&logs)?;
    server.run().await.context("Kafka")?;
    let world = World::on([&server.address(), "http://127.0.0.1:1"], "bench", logs)?;
    kafka::create_topic(&world).await?;
    let time = Duration::from_secs(seconds);
    let key = world.key("bench", &["write"])?;
    let ingest = world.ingest().await?;
    let mut report = Report::new(json!({
        "runs": runs,
        "seconds": seconds,
        "events": "types, keys and data of a Better Auth server",
        "http": "256 connections for single events, 8 for batches of 1,000",
        "beside": "broker, ingest and load share the cores",
    }));
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        eprintln!("  latency");
        producer::latency(&world, time, &mut report).await?;
        eprintln!("  throughput");
        producer::throughput(&world, &mut report).await?;
        eprintln!("  spool");
        producer::spool(&world, &mut report).await?;
        eprintln!("  POST /events/track");
        http::track(&ingest, &key.secret, time, &mut report).await?;
        eprintln!("  POST /v1/events");
        http::batches(&ingest, &key.secret, time, &mut report).await?;
    }
    Ok(report)
}
