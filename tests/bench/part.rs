//! The parts of the benchmark.
//!
//! Each has a list of the figures that have to be in the document, whatever its size. They are written
//! out there once more, so that a figure that is not measured any more is missed.

use std::path::Path;

use clap::ValueEnum;

use crate::report::Report;
use crate::sizes::{Flags, Sizes};
use crate::{
    disk, drain, export, group_commit, growth, inserts, latency, load, pages, producer, reads, tail,
};

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Publishing: latency in the caller, events to Kafka, the spool, ingest over HTTP
    Producer,
    /// A full topic drained into the table, beside ClickHouse's own Kafka engine
    Drain,
    /// What a row costs the engine as Native block, as `RowBinary` and as JSON
    Inserts,
    /// The drain of 1, 4 and 16 partitions by 1 and 2 consumers
    Growth,
    /// From publishing until it can be read at 100, 1k and 10k events/s, beside the Kafka engine
    Latency,
    /// How long after it was published an event is seen by a live reader, and in a list
    Tail,
    /// Parts and merges of an hour at 100 events/s; one run, which is long
    Parts,
    /// First pages and totals of a year of events, by each filter
    Reads,
    /// A page deep in a walk, by cursor and by offset
    Pages,
    /// Readers while 5k events/s arrive, beside a log at rest
    Load,
    /// Files: how fast they come, and the memory of the query API meanwhile
    Export,
    /// Bytes of an event by column, projection and index
    Disk,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Drain => "drain",
            Self::Inserts => "inserts",
            Self::Growth => "growth",
            Self::Latency => "latency",
            Self::Tail => "tail",
            Self::Parts => "parts",
            Self::Reads => "reads",
            Self::Pages => "pages",
            Self::Load => "load",
            Self::Export => "export",
            Self::Disk => "disk",
        }
    }

    /// Measures it, and checks that it is all there.
    pub(crate) async fn measure(
        self,
        sizes: &Sizes,
        flags: &Flags,
        logs: &Path,
    ) -> anyhow::Result<Report> {
        let report = match self {
            Self::Producer => producer::measure(sizes, logs).await,
            Self::Drain => drain::measure(sizes, logs).await,
            Self::Inserts => inserts::measure(sizes, logs).await,
            Self::Growth => growth::measure(sizes, logs).await,
            Self::Latency => latency::measure(sizes, logs).await,
            Self::Tail => tail::measure(sizes.tailed, logs).await,
            Self::Parts => group_commit::measure(sizes, logs).await,
            Self::Reads => {
                let only = flags.only.as_deref();
                reads::measure(sizes, only, logs).await
            }
            Self::Pages => pages::measure(sizes, logs).await,
            Self::Load => load::measure(sizes, logs).await,
            Self::Export => {
                let format = flags.format.as_deref();
                export::measure(sizes, format, logs).await
            }
            Self::Disk => disk::measure(sizes, logs).await,
        }?;
        // Of a choice of questions or of formats there is only a choice of figures.
        let chosen = match self {
            Self::Reads => flags.only.is_some(),
            Self::Export => flags.format.is_some(),
            _ => false,
        };
        report.check(if chosen { &[] } else { self.figures() })?;
        Ok(report)
    }

    /// The figures that have to be there.
    fn figures(self) -> &'static [&'static str] {
        match self {
            Self::Producer => producer::FIGURES,
            Self::Drain => drain::FIGURES,
            Self::Inserts => inserts::FIGURES,
            Self::Growth => growth::FIGURES,
            Self::Latency => latency::FIGURES,
            Self::Tail => tail::FIGURES,
            Self::Parts => group_commit::FIGURES,
            Self::Reads => reads::FIGURES,
            Self::Pages => pages::FIGURES,
            Self::Load => load::FIGURES,
            Self::Export => export::FIGURES,
            Self::Disk => disk::FIGURES,
        }
    }
}
