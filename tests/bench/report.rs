//! The figures of one part of the benchmark: each the median of its runs, some with a goal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// All figures of a part, by name.
pub(crate) struct Report {
    work: Value,
    figures: BTreeMap<String, Figure>,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn json(self, value: f64) -> Value {
        match self {
            Self::AtLeast(least) => json!({ "atLeast": least, "met": self.met(value) }),
            Self::AtMost(most) => json!({ "atMost": most, "met": self.met(value) }),
        }
    }

    fn text(self, value: f64) -> String {
        let met = if self.met(value) { "met" } else { "NOT MET" };
        match self {
            Self::AtLeast(least) => format!("  goal ≥ {least}: {met}"),
            Self::AtMost(most) => format!("  goal ≤ {most}: {met}"),
        }
    }
}

struct Figure {
    unit: &'static str,
    of_runs: Vec<f64>,
    goal: Option<Goal>,
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
        let mut figure = json!({
            "unit": self.unit,
            "median": self.median(),
            "min": sorted.first(),
            "max": sorted.last(),
            "runs": sorted.len(),
        });
        if let Some(goal) = self.goal {
            figure["goal"] = goal.json(self.median());
        }
        figure
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
            goal: None,
        });
        figure.of_runs.push(value);
    }

    /// Says what the median of a figure that is there has to be.
    pub(crate) fn goal(&mut self, name: &str, goal: Goal) -> anyhow::Result<()> {
        let figure = self.figures.get_mut(name);
        let figure = figure.with_context(|| format!("no figure {name:?} was measured"))?;
        figure.goal = Some(goal);
        Ok(())
    }

    /// The median of what the runs found.
    pub(crate) fn median(&self, name: &str) -> anyhow::Result<f64> {
        Ok(self.figure(name)?.median())
    }

    /// The highest that a run found.
    pub(crate) fn highest(&self, name: &str) -> anyhow::Result<f64> {
        let highest = self.figure(name)?.sorted().last().copied();
        highest.with_context(|| format!("{name:?} has no runs"))
    }

    /// The highest median of all figures whose names end so.
    pub(crate) fn highest_of(&self, end: &str) -> anyhow::Result<f64> {
        let of = self.figures.iter().filter(|(name, _)| name.ends_with(end));
        let highest = of.map(|(_, figure)| figure.median()).max_by(f64::total_cmp);
        highest.with_context(|| format!("no figure ends with {end:?}"))
    }

    fn figure(&self, name: &str) -> anyhow::Result<&Figure> {
        let figure = self.figures.get(name);
        figure.with_context(|| format!("no figure {name:?} was measured"))
    }

    /// Checks that there are figures, among them `wanted`, and that each is a number.
    pub(crate) fn check(&self, wanted: &[&str]) -> anyhow::Result<()> {
        ensure!(!self.figures.is_empty(), "no figures");
        for name in wanted {
            self.figure(name)?;
        }
        for (name, figure) in &self.figures {
            let finite = figure.of_runs.iter().all(|value| value.is_finite());
            ensure!(finite, "{name:?} is no number: {:?}", figure.of_runs);
        }
        Ok(())
    }

    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        // Writing to a text does not fail.
        for (what, how) in self.work.as_object().into_iter().flatten() {
            match how.as_str() {
                Some(text) => writeln!(table, "  {what}: {text}").ok(),
                None => writeln!(table, "  {what}: {how}").ok(),
            };
        }
        for (name, figure) in &self.figures {
            let (sorted, median) = (figure.sorted(), figure.median());
            let (min, max) = (sorted.first(), sorted.last());
            let digits = if median.abs() < 10.0 { 2 } else { 1 };
            writeln!(
                table,
                "{name:<58} {median:>12.digits$} {:<10} ({:.digits$} to {:.digits$}){}",
                figure.unit,
                min.unwrap_or(&0.0),
                max.unwrap_or(&0.0),
                figure.goal.map_or(String::new(), |goal| goal.text(median)),
            )
            .ok();
        }
        table
    }

    pub(crate) fn json(&self) -> Value {
        let figures: BTreeMap<_, _> = self.figures.iter().map(|(n, f)| (n, f.json())).collect();
        json!({ "work": self.work, "figures": figures })
    }
}

/// The milliseconds that so much of what was measured, in microseconds, took at most.
#[expect(clippy::cast_precision_loss, reason = "times of a run are far smaller")]
pub(crate) fn millis(took: &Histogram<u64>, quantile: f64) -> f64 {
    took.value_at_quantile(quantile) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(of_runs: &[f64]) -> Report {
        let mut report = Report::new(json!({}));
        for value in of_runs {
            report.add("rows/s", "rows/s", *value);
        }
        report
    }

    #[test]
    fn a_figure_is_the_median_of_its_runs_and_says_whether_it_is_good_enough() {
        let mut report = report(&[3.0, 1.0, 2.0]);
        report.goal("rows/s", Goal::AtLeast(2.0)).unwrap();
        let figure = &report.json()["figures"]["rows/s"];
        assert_eq!([&figure["min"], &figure["max"]], [&json!(1.0), &json!(3.0)]);
        assert_eq!(figure["median"], 2.0);
        assert_eq!(figure["goal"], json!({ "atLeast": 2.0, "met": true }));
        assert!(report.goal("rows", Goal::AtMost(1.0)).is_err());
    }

    #[test]
    fn a_report_without_a_figure_or_with_one_that_is_no_number_is_refused() {
        assert!(report(&[1.0]).check(&["rows/s"]).is_ok());
        assert!(report(&[1.0]).check(&["rows/s", "MB/s"]).is_err());
        assert!(report(&[1.0, f64::NAN]).check(&["rows/s"]).is_err());
        assert!(report(&[]).check(&[]).is_err());
    }
}
