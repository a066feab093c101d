//! Refill: putting back rows that were taken away, without doubling any.
//!
//! What is missing above the settled offset the consumer stores by itself when it starts. Below it
//! nobody looks any more: rows that were deleted by hand, or that a restored backup does not
//! have, stay away. This reads exactly these offsets from Kafka again, and stores them in the
//! order of their offsets, so that an event that was sent twice is decided on as it was then.

use std::fmt;

use audit_schema::OffsetRange;
use audit_schema::dead_letter::DEAD_LETTERS;
use audit_schema::row::EVENTS;
use clap::Args;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::alone::{Alone, WayOutError, in_use, known};
use crate::audit::{End, end_of};
use crate::batch::PartitionId;
use crate::config::Config;
use crate::error::ReadError;
use crate::holes;
use crate::reread::Reader;
use crate::store::Store;
use crate::topic::Topic;
use crate::writer::Writer;

/// What to fill.
#[derive(Debug, Clone, Args)]
pub struct Refill {
    /// The partition with the holes; without it each partition, one after the other.
    #[arg(long)]
    pub partition: Option<u32>,
    /// Begin here, if that is below the lowest offset that is stored or that Kafka still has: for
    /// rows that are missing at the beginning, which `verify` cannot see.
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub from: Option<u64>,
    /// End before this offset instead of at the settled one.
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub to: Option<u64>,
    /// Do it; without this the command only says what it would do.
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON document for each partition instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// What was filled, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refilled {
    /// Which life of the topic.
    pub incarnation: u32,
    /// The partition.
    pub partition: u32,
    /// The first offset that was looked at.
    pub from: u64,
    /// The offset behind the last one; the consumer itself sees to what is missing from here on.
    pub to: u64,
    /// How many offsets are missing that Kafka still has.
    pub missing: u64,
    /// Which, as `[first, last]` each.
    pub missing_ranges: Vec<[u64; 2]>,
    /// How many rows were stored.
    pub stored: u64,
    /// How many offsets are missing that Kafka does not have any more.
    pub gone: u64,
    /// Which, as `[first, last]` each.
    pub gone_ranges: Vec<[u64; 2]>,
    /// Whether it was done.
    pub done: bool,
    /// The members of the group, which have to be stopped before.
    pub in_use_by: Vec<String>,
}

impl Refilled {
    /// Whether nothing is missing now.
    pub fn holds(&self) -> bool {
        self.gone == 0 && (self.done || self.missing == 0)
    }
}

impl fmt::Display for Refilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = |pairs: &[[u64; 2]]| {
            let ranges = pairs.iter().filter_map(|[a, b]| OffsetRange::new(*a, *b));
            holes::named(&ranges.collect::<Vec<_>>())
        };
        let Self {
            from, to, missing, ..
        } = self;
        write!(
            f,
            "incarnation {} partition {}: ",
            self.incarnation, self.partition
        )?;
        if self.missing == 0 {
            write!(f, "nothing to fill from {from} to below {to}")?;
        } else if self.done {
            let ranges = ranges(&self.missing_ranges);
            write!(
                f,
                "{missing} missing offsets filled: {ranges}; {} rows stored",
                self.stored
            )?;
        } else {
            let ranges = ranges(&self.missing_ranges);
            write!(
                f,
                "{missing} missing offsets would be filled: {ranges}; --yes does it"
            )?;
            if !self.in_use_by.is_empty() {
                let members = self.in_use_by.join(", ");
                write!(f, ", once these consumers are stopped: {members}")?;
            }
        }
        if let (Some([first, _]), Some([_, last])) =
            (self.gone_ranges.first(), self.gone_ranges.last())
        {
            write!(
                f,
                "\nincarnation {} partition {}: {} MISSING offsets are not in kafka any more: {}; \
                 `audit-consumer skip --partition {} --from {first} --to {}` writes them down",
                self.incarnation,
                self.partition,
                self.gone,
                ranges(&self.gone_ranges),
                self.partition,
                last.saturating_add(1)
            )?;
        }
        Ok(())
    }
}

/// Fills what is missing below the settled offsets, or says what it would fill. `each` is told what
/// became of a partition as soon as it is known.
pub async fn refill(
    config: &Config,
    refill: &Refill,
    mut each: impl FnMut(&Refilled),
) -> Result<(), WayOutError> {
    let writer = Writer::new(&config.clickhouse, config.batch.in_flight);
    let topic = Topic::new(config, writer.client().clone());
    let partitions = match refill.partition {
        Some(only) => only..only.saturating_add(1),
        None => 0..topic.partitions().await?,
    };
    let life = topic.registered().await?;
    for partition in partitions {
        // What lies before a life begins is stored under the one before.
        let begin = life.as_ref().map_or(0, |life| life.begin(partition));
        each(&refill_one((config, &topic, &writer), refill, (partition, begin)).await?);
    }
    Ok(())
}

async fn refill_one(
    (config, topic, writer): (&Config, &Topic, &Writer),
    refill: &Refill,
    (partition, begin): (u32, u64),
) -> Result<Refilled, WayOutError> {
    let id = known(topic, partition).await?;
    let bounds = topic.bounds(partition).await?;
    let settled = writer.settled(id).await?.unwrap_or(0);
    let lowest = lowest(writer, id)
        .await?
        .unwrap_or(bounds.start)
        .min(bounds.start);
    let from = refill
        .from
        .map_or(lowest, |from| from.min(lowest))
        .max(begin);
    let to = refill.to.map_or(settled, |to| to.min(settled));
    let mut refilled = Refilled {
        incarnation: id.incarnation,
        partition: id.partition,
        from,
        to,
        missing: 0,
        missing_ranges: Vec::new(),
        stored: 0,
        gone: 0,
        gone_ranges: Vec::new(),
        done: false,
        in_use_by: Vec::new(),
    };
    let Some(range) = OffsetRange::until(from, to) else {
        return Ok(refilled);
    };
    let all = holes::missing(writer, id, range).await?;
    let (mut gone, mut missing) = holes::split(&all, bounds.start);
    if refill.yes && !missing.is_empty() {
        let mut alone = Alone::join(config, topic, writer, id).await?;
        // Something that was under way may have landed since, and something expired.
        let bounds = alone.bounds().await?;
        let all = holes::missing(writer, id, range).await?;
        (gone, missing) = holes::split(&all, bounds.start);
        refilled.stored = fill(config, (topic, writer, &mut alone), id, &missing).await?;
        alone.done(settled).await?;
        refilled.done = true;
        tracing::warn!(
            kafka.partition = id.partition,
            rows = refilled.stored,
            ranges = holes::named(&missing),
            "`audit-consumer refill` put rows back that were missing"
        );
    } else {
        refilled.in_use_by = in_use(config, topic).await?;
    }
    refilled.missing = holes::count(&missing);
    refilled.missing_ranges = holes::pairs(&missing);
    refilled.gone = holes::count(&gone);
    refilled.gone_ranges = holes::pairs(&gone);
    Ok(refilled)
}

/// Reads and stores what is missing, batch after batch. Gives how many rows that were.
async fn fill(
    config: &Config,
    (topic, writer, alone): (&Topic, &Writer, &mut Alone),
    id: PartitionId,
    missing: &[OffsetRange],
) -> Result<u64, WayOutError> {
    let mut reader = Reader::new(topic.client_config(), topic.name(), id)?;
    let (mut left, mut stored) = (missing.to_vec(), 0_u64);
    while !left.is_empty() {
        let limits = config.batch.clone();
        let wanted = left.clone();
        let read = tokio::task::spawn_blocking(move || {
            let batch = reader.read(&wanted, &limits);
            (reader, batch)
        });
        let (returned, batch) = read.await?;
        reader = returned;
        let Some(mut batch) = batch? else { break };
        if batch.has_suspects() {
            // All that is missing before is filled, so this decides as the consumer did.
            let first = batch.range().map_or(0, OffsetRange::first);
            let earlier = writer.earlier(id, &batch.suspects(), first).await?;
            batch.resolve_suspects(&earlier);
        }
        stored = stored.saturating_add(alone.store(&batch).await?);
        left = holes::split(&left, batch.next_offset()).1;
        tracing::info!(
            kafka.partition = id.partition,
            at = batch.next_offset(),
            rows = stored,
            left = holes::count(&left),
            "missing offsets are being filled"
        );
    }
    Ok(stored)
}

#[derive(Debug, Row, Deserialize)]
struct Lowest {
    offset: u64,
}

/// The lowest stored offset.
async fn lowest(writer: &Writer, id: PartitionId) -> Result<Option<u64>, ReadError> {
    let sql = end_of(EVENTS, DEAD_LETTERS, id, End::Lowest);
    let asked = writer.client().query_raw(&sql).fetch_optional::<Lowest>();
    let found = asked.await.map_err(ReadError::Unavailable)?;
    Ok(found.map(|lowest| lowest.offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kafka_has_no_more_is_named_with_the_way_out() {
        let refilled = Refilled {
            incarnation: 1,
            partition: 2,
            from: 0,
            to: 100,
            missing: 3,
            missing_ranges: vec![[50, 52]],
            stored: 0,
            gone: 2,
            gone_ranges: vec![[7, 7], [9, 9]],
            done: false,
            in_use_by: Vec::new(),
        };
        assert!(!refilled.holds());
        let said = refilled.to_string();
        assert!(
            said.contains("3 missing offsets would be filled: 50-52; --yes does it"),
            "{said}"
        );
        assert!(
            said.contains("skip --partition 2 --from 7 --to 10"),
            "{said}"
        );
    }
}
