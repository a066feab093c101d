//! The numbers: one JSON document on stdout, a table for people on stderr.
//!
//! Everything runs on this machine and shares its cores: the broker, the engine, the services, what
//! makes the load. So figures are compared within one run, and each is the median of several.
//! A part that lacks a figure is an error, so a document that was printed is complete.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

mod arrivals;
mod cold;
mod cpu;
mod dataset;
mod disk;
mod document;
mod drain;
mod drained;
mod events;
mod export;
mod group_commit;
mod growth;
mod http;
mod inserts;
mod kafka;
mod latency;
mod load;
mod native;
mod pages;
mod part;
mod peer;
mod plain;
mod producer;
mod reads;
mod report;
mod sizes;
mod stage;
mod tail;

use std::time::Instant;

use anyhow::Context;
use audit_tests::process::root;
use clap::{Parser, ValueEnum};

use document::Document;
use part::Part;
use sizes::{Flags, Sizes};
use stage::Stage;

/// What the audit log does on this machine: a JSON document on stdout, a table on stderr.
///
/// Give it the machine for itself. Servers keep their data in TMPDIR, and the log that is read from in
/// target/bench-log; give them a file system with a journal. Logs of what it starts are kept in
/// target/bench.
#[derive(Parser)]
#[command(name = "audit-bench")]
struct Bench {
    /// What is measured; everything if none is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
    #[command(flatten)]
    flags: Flags,
}

fn main() -> anyhow::Result<()> {
    let bench = Bench::parse();
    let logs = root().join("target/bench");
    if logs.exists() {
        std::fs::remove_dir_all(&logs)?;
    }
    let mut parts = bench.parts;
    if parts.is_empty() {
        parts = Part::value_variants().to_vec();
    }
    let sizes = Sizes::of(&bench.flags);
    // Servers die with the thread that starts them: this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let document = runtime.block_on(async {
        let stage = Stage::engine(&logs).await?;
        let mut document = Document::new(&stage.version().await?)?;
        drop(stage);
        for part in parts {
            eprintln!("{}", part.name());
            let begun = Instant::now();
            let logs = logs.join(part.name());
            let report = part.measure(&sizes, &bench.flags, &logs).await;
            let report = report.with_context(|| format!("the part {}", part.name()))?;
            eprintln!("{} took {:.0?}", part.name(), begun.elapsed());
            document.add(part.name(), report);
        }
        anyhow::Ok(document)
    })?;
    eprint!("{}", document.table());
    println!("{}", serde_json::to_string_pretty(&document.json())?);
    Ok(())
}
