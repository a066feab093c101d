//! How much of everything is measured: the flags of the benchmark, and what holds without them.

use std::time::Duration;

use clap::Args;

use crate::dataset::{LARGE, SMALL};

/// What the flags say.
#[derive(Debug, Clone, Args)]
pub(crate) struct Flags {
    /// Everything at a size that only shows that it works, in less than two minutes.
    #[arg(long)]
    small: bool,
    /// Events of the log that is read from; it is made once and kept in target/bench-log
    /// [default: 100000000, small: 200000]
    #[arg(long)]
    rows: Option<u64>,
    /// Events that are published and drained [default: 2000000, small: 20000]
    #[arg(long)]
    events: Option<u64>,
    /// How often each figure is measured [default: 5, small: 1]
    #[arg(long)]
    runs: Option<usize>,
    /// How long each measurement takes that has a rate, in seconds [default: 10, small: 0.5]
    #[arg(long)]
    seconds: Option<f64>,
    /// How many questions are asked of each kind [default: 300, small: 1]
    #[arg(long)]
    questions: Option<u64>,
    /// How much time the part `parts` simulates, in seconds [default: 3600, small: 5]
    #[arg(long)]
    simulated: Option<u64>,
    /// Of the part `reads`, only questions whose name has this in it
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Of the part `export`, only files of this format
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) rows: u64,
    pub(crate) events: u64,
    pub(crate) runs: usize,
    pub(crate) time: Duration,
    pub(crate) questions: u64,
    pub(crate) simulated: Duration,
    /// How many events each measurement of the producer publishes.
    pub(crate) published: u32,
    /// Events that live readers wait for, and how many of them come in a second.
    pub(crate) tailed: (u32, u32),
    /// The project that files are made of.
    pub(crate) exported: &'static str,
    /// How many questions of a filter are asked with nothing in memory.
    pub(crate) cold: u64,
    /// How long a client of a file hardly reads.
    pub(crate) slow: Duration,
}

impl Sizes {
    pub(crate) fn of(flags: &Flags) -> Self {
        let pick = |value: Option<u64>, full, small| {
            value.unwrap_or(if flags.small { small } else { full })
        };
        let (published, tailed) = if flags.small {
            (10_000, (20, 20))
        } else {
            (300_000, (500, 20))
        };
        let (time, slow) = if flags.small {
            (500, 200)
        } else {
            (10_000, 5_000)
        };
        let [time, slow] = [time, slow].map(Duration::from_millis);
        Self {
            rows: pick(flags.rows, 100_000_000, 200_000),
            events: pick(flags.events, 2_000_000, 20_000),
            runs: flags.runs.unwrap_or(if flags.small { 1 } else { 5 }),
            time: flags.seconds.map_or(time, Duration::from_secs_f64),
            questions: pick(flags.questions, 300, 1),
            simulated: Duration::from_secs(pick(flags.simulated, 3_600, 5)),
            published,
            tailed,
            cold: if flags.small { 0 } else { 10 },
            exported: if flags.small { SMALL } else { LARGE },
            slow,
        }
    }
}
