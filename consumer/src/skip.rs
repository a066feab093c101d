//! Skip: going on behind records that cannot be read any more, on purpose and written down.
//!
//! Offsets that are given up become dead letters of kind `skipped`, which say who gave them up and
//! why. So every offset stays in exactly one table, and the partition goes on behind them by
//! itself: its loop finds them stored.

use std::fmt;

use audit_schema::OffsetRange;
use clap::Args;
use serde::Serialize;

use crate::alone::{Alone, WayOutError, in_use, known};
use crate::batch::{Batch, PartitionId};
use crate::config::Config;
use crate::holes;
use crate::store::Store;
use crate::topic::Topic;
use crate::writer::Writer;

/// Most offsets of one dead letter: whoever looks at some of its offsets unfolds all of them.
const LETTER: u64 = 100_000;

/// What to give up.
#[derive(Debug, Clone, Args)]
pub struct Skip {
    /// The partition that stopped.
    #[arg(long)]
    pub partition: u32,
    /// The offset to go on at, as the error names it: everything below it that is not stored is
    /// given up.
    #[arg(long, value_name = "OFFSET")]
    pub to: u64,
    /// Look from here on instead of from the settled offset: for a hole below it that `refill`
    /// cannot fill, because Kafka has its records no more.
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// Who gives these records up, and why; it is kept with them.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Also give up records that Kafka says it still has, such as those on a damaged disk.
    #[arg(long)]
    pub even_if_kafka_has_them: bool,
    /// Do it; without this the command only says what it would do.
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// What was given up, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// Which life of the topic.
    pub incarnation: u32,
    /// The partition.
    pub partition: u32,
    /// The first offset that was looked at.
    pub from: u64,
    /// Where the partition goes on.
    pub to: u64,
    /// How many offsets are given up.
    pub offsets: u64,
    /// Which, as `[first, last]` each.
    pub ranges: Vec<[u64; 2]>,
    /// Whether that was written down.
    pub recorded: bool,
    /// The members of the group, which have to be stopped before.
    pub in_use_by: Vec<String>,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, .. } = self;
        write!(
            f,
            "incarnation {} partition {}: ",
            self.incarnation, self.partition
        )?;
        if self.ranges.is_empty() {
            return write!(
                f,
                "every offset from {from} to below {to} is stored, nothing to skip"
            );
        }
        let ranges: Vec<_> = self
            .ranges
            .iter()
            .filter_map(|[first, last]| OffsetRange::new(*first, *last))
            .collect();
        let (count, named) = (self.offsets, holes::named(&ranges));
        if self.recorded {
            write!(
                f,
                "{count} offsets skipped and written down: {named}; it goes on at {to}"
            )
        } else {
            write!(
                f,
                "{count} offsets would be skipped: {named}; --yes writes them down"
            )?;
            if !self.in_use_by.is_empty() {
                let members = self.in_use_by.join(", ");
                write!(f, ", once these consumers are stopped: {members}")?;
            }
            Ok(())
        }
    }
}

/// Gives up what is missing below `skip.to`, or says what it would give up.
pub async fn skip(config: &Config, skip: &Skip) -> Result<Skipped, WayOutError> {
    let writer = Writer::new(&config.clickhouse, config.batch.in_flight);
    let topic = Topic::new(config, writer.client().clone());
    let id = known(&topic, skip.partition).await?;
    let bounds = topic.bounds(id.partition).await?;
    let to = skip.to;
    if to > bounds.end {
        return Err(WayOutError::BehindTheEnd {
            to,
            end: bounds.end,
        });
    }
    if to > bounds.start && !skip.even_if_kafka_has_them {
        return Err(WayOutError::StillInKafka {
            to,
            log_start: bounds.start,
        });
    }
    let settled = writer.settled(id).await?;
    let begin = settled.unwrap_or(bounds.start);
    let from = skip.from.map_or(begin, |from| from.min(begin));
    let mut skipped = Skipped {
        incarnation: id.incarnation,
        partition: id.partition,
        from,
        to,
        offsets: 0,
        ranges: Vec::new(),
        recorded: false,
        in_use_by: Vec::new(),
    };
    let Some(range) = OffsetRange::until(from, to) else {
        return Ok(skipped);
    };
    let mut missing = holes::missing(&writer, id, range).await?;
    if skip.yes && !missing.is_empty() {
        let mut alone = Alone::join(config, &topic, &writer, id).await?;
        // Something that was under way may have landed since.
        missing = holes::missing(&writer, id, range).await?;
        for hole in &missing {
            alone.store(&letters(id, *hole, &skip.reason)).await?;
            tracing::warn!(
                kafka.partition = id.partition,
                range = %hole,
                reason = skip.reason,
                "`audit-consumer skip` wrote these offsets down as given up"
            );
        }
        alone.done(begin.max(to)).await?;
        skipped.recorded = true;
    } else {
        skipped.in_use_by = in_use(config, &topic).await?;
    }
    skipped.offsets = holes::count(&missing);
    skipped.ranges = holes::pairs(&missing);
    Ok(skipped)
}

/// The dead letters of one hole.
fn letters(id: PartitionId, hole: OffsetRange, reason: &str) -> Batch {
    let now = chrono::Utc::now().into();
    let mut batch = Batch::new(id, hole.first());
    while let Some(run) = OffsetRange::until(
        batch.next_offset(),
        hole.end().min(batch.next_offset().saturating_add(LETTER)),
    ) {
        if batch.push_skipped(run, reason, now).is_err() {
            break;
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_hole_is_several_letters_without_a_gap() {
        let id = PartitionId {
            incarnation: 1,
            partition: 0,
        };
        let hole = OffsetRange::new(5, 250_004).unwrap();
        let batch = letters(id, hole, "disk lost; Ana");
        assert_eq!(batch.range(), Some(hole));
        let letters: Vec<_> = batch
            .letters()
            .iter()
            .map(|letter| (letter.position.offset, letter.last_offset, letter.kind))
            .collect();
        assert_eq!(
            letters,
            [
                (5, 100_004, "skipped"),
                (100_005, 200_004, "skipped"),
                (200_005, 250_004, "skipped"),
            ]
        );
        assert!(batch.letters().iter().all(|l| l.reason == "disk lost; Ana"));
    }

    #[test]
    fn a_dry_run_says_so() {
        let mut skipped = Skipped {
            incarnation: 1,
            partition: 3,
            from: 10,
            to: 20,
            offsets: 5,
            ranges: vec![[15, 19]],
            recorded: false,
            in_use_by: Vec::new(),
        };
        assert_eq!(
            skipped.to_string(),
            "incarnation 1 partition 3: 5 offsets would be skipped: 15-19; --yes writes them down"
        );
        skipped.recorded = true;
        assert!(skipped.to_string().ends_with("15-19; it goes on at 20"));
    }
}
