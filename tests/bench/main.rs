//! The numbers: one JSON document on stdout, a table for people on stderr.
//!
//! Everything runs on this machine and shares its cores: the broker, the services, what makes the
//! load. So figures are compared within one run, and each is the median of several.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

mod events;
mod http;
mod kafka;
mod producer;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use audit_tests::process::root;
use audit_tests::server::Server;
use audit_tests::world::World;
use clap::Parser;

use report::Report;

/// Publishing: latency in the caller, events to Kafka, the spool, ingest over HTTP.
#[derive(Parser)]
#[command(name = "audit-bench")]
struct Options {
    /// How often each figure is measured.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long each measurement takes, in seconds.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let logs = root().join("target/bench");
    // Servers die with the thread that starts them: this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(&options, logs))?;
    eprint!("{}", report.table());
    println!("{}", serde_json::to_string_pretty(&report.json()?)?);
    Ok(())
}

async fn measure(options: &Options, logs: PathBuf) -> anyhow::Result<Report> {
    if logs.exists() {
        std::fs::remove_dir_all(&logs)?;
    }
    let mut server = Server::kafka(&logs)?;
    server.run().await.context("Kafka")?;
    let world = World::on([&server.address(), "http://127.0.0.1:1"], "bench", logs)?;
    kafka::create_topic(&world).await?;
    let time = Duration::from_secs(options.seconds);
    let key = world.key("bench", &["write"])?;
    let ingest = world.ingest().await?;
    let mut report = Report::new(options.runs, options.seconds);
    for run in 1..=options.runs {
        eprintln!("run {run} of {}", options.runs);
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
