//! The parts of the benchmark, and the figures that each has to give, whatever its size.
//!
//! The names are those of the document and are written out here once more, so that a figure that is
//! not measured any more is missed.

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
    /// What a row costs the engine as Native block, as RowBinary and as JSON
    Inserts,
    /// The drain of 1, 4 and 16 partitions by 1 and 2 consumers
    Growth,
    /// From publishing until it can be read at 100, 1k and 10k events/s, beside the Kafka engine
    Latency,
    /// How long after it was published an event is seen by a live reader, and in a list
    Tail,
    /// Parts and merges of an hour at 100 events/s
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
                reads::measure(sizes.rows, sizes.questions, only, logs.to_owned()).await
            }
            Self::Pages => pages::measure(sizes, logs).await,
            Self::Load => load::measure(sizes, logs).await,
            Self::Export => {
                let format = flags.format.as_deref();
                export::measure(sizes.rows, format, sizes.slow, logs).await
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
            Self::Producer => &[
                "publish p50",
                "publish p99",
                "publish p99.9",
                "publish p50, FutureProducer",
                "publish p99, FutureProducer",
                "publish p99.9, FutureProducer",
                "to Kafka",
                "to Kafka, FutureProducer",
                "spool, written",
                "spool, drained",
                "spool, written, fsync each",
                "spool, drained, fsync each",
                "POST /events/track",
                "POST /events/track p50",
                "POST /events/track p99",
                "POST /events/track, CPU of ingest",
                "POST /v1/events, 1,000 each",
                "POST /v1/events p99, 1,000 each",
                "POST /v1/events, CPU of ingest",
            ],
            Self::Drain => &[
                "full, rows per consumer CPU-s",
                "full, rows/s",
                "full, rows/s flowing",
                "full, engine CPU per 1M rows",
                "full, broker CPU per 1M rows",
                "full, Kafka engine, rows/s",
                "full, Kafka engine, rows/s flowing",
                "full, Kafka engine, engine CPU per 1M rows",
                "full, rows/s, times the best of Kafka engine",
                "simple, rows per consumer CPU-s",
                "simple, rows/s",
                "simple, rows/s flowing",
                "simple, engine CPU per 1M rows",
                "simple, Kafka engine, rows/s",
                "simple, Kafka engine, engine CPU per 1M rows",
                "simple, rows/s, times the best of Kafka engine",
            ],
            Self::Inserts => &[
                "Native, engine CPU per 1M rows, with merges",
                "Native, engine CPU per 1M rows, without merges",
                "RowBinary, engine CPU per 1M rows, with merges",
                "RowBinary, engine CPU per 1M rows, without merges",
                "JSONEachRow, engine CPU per 1M rows, with merges",
                "JSONEachRow, engine CPU per 1M rows, without merges",
                "Native / RowBinary, with merges",
                "Native / RowBinary, without merges",
                "Native / JSONEachRow, with merges",
                "Native / JSONEachRow, without merges",
            ],
            Self::Growth => &[
                "partitions: 1, consumers: 1, rows/s",
                "partitions: 1, consumers: 1, rows per consumer CPU-s",
                "partitions: 1, consumers: 2, rows/s",
                "partitions: 4, consumers: 1, rows/s",
                "partitions: 4, consumers: 1, rows per consumer CPU-s",
                "partitions: 4, consumers: 2, rows/s",
                "partitions: 4, consumers: 2, rows per consumer CPU-s",
                "partitions: 16, consumers: 1, rows/s",
                "partitions: 16, consumers: 1, rows per consumer CPU-s",
                "partitions: 16, consumers: 2, rows/s",
                "partitions: 16, consumers: 2, rows per consumer CPU-s",
            ],
            Self::Latency => &[
                "100 events/s, API p50",
                "100 events/s, API p99",
                "100 events/s, Kafka engine p50",
                "100 events/s, Kafka engine p99",
                "1000 events/s, API p50",
                "1000 events/s, API p99",
                "1000 events/s, Kafka engine p50",
                "1000 events/s, Kafka engine p99",
                "10000 events/s, API p50",
                "10000 events/s, API p99",
                "10000 events/s, Kafka engine p50",
                "10000 events/s, Kafka engine p99",
            ],
            Self::Tail => &[
                "tail p50", "tail p99", "tail max", "list p50", "list p99", "list max",
            ],
            Self::Parts => &[
                "most parts of audit_events",
                "most parts of audit_watermarks",
                "merges, CPU of an hour",
                "engine, CPU of an hour",
                "merges, share of the engine's CPU",
                "events of a batch",
                "inserted in",
            ],
            // One of each of its questions; which there are, it says itself.
            Self::Reads => &[],
            Self::Pages => &[
                "all, page 1",
                "all, page 2 by cursor",
                "all, deep page by cursor",
                "all, deep page by offset",
                "all, deep page by cursor / page 2",
                "all, deep page by offset / page 2",
                "type, page 2 by cursor",
                "type, deep page by cursor",
                "type, deep page by cursor / page 2",
                "type, deep page by offset / page 2",
            ],
            Self::Load => &[
                "idle, 1 reader, requests/s",
                "idle, 1 reader, p50",
                "idle, 1 reader, p99",
                "idle, 8 readers, p99",
                "idle, 64 readers, p99",
                "arriving, 1 reader, requests/s",
                "arriving, 1 reader, p99",
                "arriving, 8 readers, requests/s",
                "arriving, 8 readers, p99",
                "arriving, 64 readers, requests/s",
                "arriving, 64 readers, p99",
                "arriving, 64 readers, refused",
                "p99, arriving with 1 reader / idle with 1",
                "p99, arriving with 8 readers / idle with 1",
                "p99, arriving with 64 readers / idle with 1",
            ],
            Self::Export => &[
                "ndjson, rows",
                "ndjson, bytes sent",
                "ndjson, RSS peak",
                "csv, rows",
                "csv, RSS peak",
                "parquet, rows",
                "parquet, RSS peak",
                "ndjson gzip, rows",
                "ndjson zstd, rows",
                "ndjson zstd, RSS peak, slow client",
            ],
            Self::Disk => &[
                "column event_data",
                "column event_id",
                "projection by_position",
                "index by_event_id",
                "all of kind column",
                "all of kind projection",
                "all of kind index",
                "all in",
                "newest month, all in",
                "newest month, plain table",
                "newest month, all in / plain table",
            ],
        }
    }
}
