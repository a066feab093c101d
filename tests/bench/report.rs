//! Figures of several runs, and what they were measured on.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::Utc;
use serde_json::{Value, json};

/// All figures, by name.
pub(crate) struct Report {
    work: Value,
    figures: BTreeMap<String, Figure>,
}

struct Figure {
    unit: &'static str,
    of_runs: Vec<f64>,
}

impl Figure {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.of_runs.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn json(&self) -> Value {
        let sorted = self.sorted();
        json!({
            "unit": self.unit,
            "median": self.median(),
            "min": sorted.first(),
            "max": sorted.last(),
        })
    }
}

impl Report {
    /// No figures yet; `work` says what they will be of.
    pub(crate) fn new(work: Value) -> Self {
        Self {
            work,
            figures: BTreeMap::new(),
        }
    }

    /// Adds what one run found.
    pub(crate) fn add(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        let figure = self.figures.entry(name.into()).or_insert(Figure {
            unit,
            of_runs: Vec::new(),
        });
        figure.of_runs.push(value);
    }

    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        for (name, figure) in &self.figures {
            let sorted = figure.sorted();
            let (min, max) = (sorted.first(), sorted.last());
            // Writing to a text does not fail.
            writeln!(
                table,
                "{name:<46} {:>12.1} {:<10} ({:.1} to {:.1})",
                figure.median(),
                figure.unit,
                min.unwrap_or(&0.0),
                max.unwrap_or(&0.0),
            )
            .ok();
        }
        table
    }

    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let memory = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        let figures: BTreeMap<_, _> = self.figures.iter().map(|(n, f)| (n, f.json())).collect();
        Ok(json!({
            "date": Utc::now().format("%Y-%m-%d").to_string(),
            "machine": {
                "cpu": model.map(|model| model.trim_matches([' ', '\t', ':'])),
                "cores": std::thread::available_parallelism()?.get(),
                "memory": memory.map(str::trim),
            },
            "versions": { "audit": env!("CARGO_PKG_VERSION"), "librdkafka": librdkafka },
            "work": self.work,
            "figures": figures,
        }))
    }
}
