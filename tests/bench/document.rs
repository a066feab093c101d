//! What a benchmark gives: the parts that ran, and what they were measured on.

use std::path::Path;

use anyhow::Context;
use audit_tests::process::root;
use chrono::Utc;
use serde_json::{Map, Value, json};

use crate::report::Report;

/// The one document of a run.
pub(crate) struct Document {
    head: Value,
    parts: Vec<(&'static str, Report)>,
}

impl Document {
    /// Without parts yet; `engine` is the version of ClickHouse.
    pub(crate) fn new(engine: &str) -> anyhow::Result<Self> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let memory = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        Ok(Self {
            head: json!({
                "date": Utc::now().format("%Y-%m-%d").to_string(),
                "machine": {
                    "cpu": model.map(|model| model.trim_matches([' ', '\t', ':'])),
                    "cores": std::thread::available_parallelism()?.get(),
                    "memory": memory.map(str::trim),
                    "data": file_system(&std::env::temp_dir())?,
                },
                "versions": {
                    "audit": env!("CARGO_PKG_VERSION"),
                    "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
                    "librdkafka": librdkafka,
                    "kafka": kafka_version()?,
                    "clickhouse": engine,
                },
            }),
            parts: Vec::new(),
        })
    }

    pub(crate) fn add(&mut self, part: &'static str, report: Report) {
        self.parts.push((part, report));
    }

    pub(crate) fn json(&self) -> Value {
        let mut document = self.head.clone();
        let parts: Map<_, _> = self
            .parts
            .iter()
            .map(|(name, report)| ((*name).to_owned(), report.json()))
            .collect();
        document["parts"] = Value::Object(parts);
        document
    }

    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{}, {}\n{}\n",
            self.head["date"].as_str().unwrap_or_default(),
            self.head["machine"],
            self.head["versions"]
        );
        for (name, report) in &self.parts {
            table.extend(["\n", name, "\n", &report.table()]);
        }
        table
    }
}

/// The version of Kafka that the local stack is pinned to: a broker does not tell its own.
fn kafka_version() -> anyhow::Result<String> {
    let pinned = std::fs::read_to_string(root().join("deploy/local/kafka/pom.xml"))?;
    let version = pinned
        .split_once("<artifactId>kafka_")
        .and_then(|(_, rest)| rest.split_once("<version>"))
        .and_then(|(_, rest)| rest.split_once("</version>"))
        .map(|(version, _)| version.to_owned());
    version.context("deploy/local/kafka/pom.xml names no version of Kafka")
}

/// The file system that servers keep their data on, such as `ext4 on /dev/vda1`.
///
/// An ext4 without a journal passes by every file that was deleted in the last minutes before it
/// makes one (`recently_deleted` in Linux' `fs/ext4/ialloc.c`), so small parts that come and go cost
/// many times what they do elsewhere.
fn file_system(folder: &Path) -> anyhow::Result<String> {
    let folder = folder.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let (device, _, kind) = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(_, at, _)| folder.starts_with(at))
        // Of two at the same place the later one hides the earlier.
        .max_by_key(|(_, at, _)| at.len())
        .context("a mount")?;
    let name = device.trim_start_matches("/dev/");
    let journal = std::fs::read_to_string(format!("/sys/fs/ext4/{name}/journal_task"));
    if journal.is_ok_and(|task| task.trim() == "<none>") {
        eprintln!("{device} has no journal, which makes small inserts slow: set TMPDIR to another");
        return Ok(format!("{kind} on {device}, without a journal"));
    }
    Ok(format!("{kind} on {device}"))
}
