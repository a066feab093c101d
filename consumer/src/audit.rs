//! The audit: is every offset of a range in exactly one of the two tables, or taken away by
//! retention?
//!
//! It needs only ClickHouse, and believes nothing but the rows. It is asked range by range: one
//! question reads at most [`STEP`] offsets and keeps one bit of each, so that a table of any size
//! is audited in the same small memory. `verify` walks all of a table with it, and the running
//! consumer its own partitions.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use audit_schema::OffsetRange;
use audit_schema::clickhouse::{Engine, WATERMARKS, local_table};
use audit_schema::dead_letter::DEAD_LETTERS;
use audit_schema::row::EVENTS;
use clickhouse::error::Error;
use clickhouse::{Row, RowOwned, RowRead};
use serde::{Deserialize, Serialize};

use crate::batch::PartitionId;
use crate::config::ClickHouse;
use crate::removed;
use crate::shards::{Shard, Shards};
use crate::stored;

/// How many offsets are looked at together.
pub const STEP: u64 = 1_000_000;

/// Offsets that follow each other: a range, as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Run {
    /// The first offset.
    pub first: u64,
    /// The last offset.
    pub last: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Ranges as one text, such as `[7, 9-12]`.
pub(crate) fn listed(runs: &[Run]) -> String {
    let runs: Vec<String> = runs.iter().map(Run::to_string).collect();
    format!("[{}]", runs.join(", "))
}

/// How many rows a range has, and how many different offsets they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Row, Deserialize)]
pub struct Counted {
    /// Rows of events, and offsets that dead letters stand for.
    pub rows: u64,
    /// Different offsets.
    pub offsets: u64,
    /// Different offsets that are stored, or that retention took away.
    pub accounted: u64,
}

impl Counted {
    /// How many offsets retention took away.
    pub fn removed(&self) -> u64 {
        self.accounted.saturating_sub(self.offsets)
    }
}

/// What is wrong with a range, or with several together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How many offsets are in neither table and were not taken away by retention.
    pub missing: u64,
    /// How many rows there are beyond one per offset.
    pub doubled: u64,
    /// The first of the missing offsets.
    pub missing_ranges: Vec<Run>,
    /// The first of the doubled offsets.
    pub doubled_ranges: Vec<Run>,
}

impl Finding {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.doubled == 0
    }

    /// Adds what is wrong with the range behind; at most `named` ranges of each kind are kept.
    pub fn add(&mut self, other: Self, named: usize) {
        self.missing = self.missing.saturating_add(other.missing);
        self.doubled = self.doubled.saturating_add(other.doubled);
        for (runs, more) in [
            (&mut self.missing_ranges, other.missing_ranges),
            (&mut self.doubled_ranges, other.doubled_ranges),
        ] {
            for run in more {
                let full = runs.len() >= named;
                match runs.last_mut() {
                    // One hole that two questions saw a part of each.
                    Some(before) if before.last.saturating_add(1) == run.first => {
                        before.last = run.last;
                    }
                    _ if full => {}
                    _ => runs.push(run),
                }
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("each offset once");
        }
        if self.missing > 0 {
            let first = listed(&self.missing_ranges);
            write!(f, "{} MISSING, first {first}", self.missing)?;
        }
        if self.missing > 0 && self.doubled > 0 {
            f.write_str(", ")?;
        }
        if self.doubled > 0 {
            let first = listed(&self.doubled_ranges);
            write!(f, "{} DOUBLED, first {first}", self.doubled)?;
        }
        Ok(())
    }
}

/// What the tables say of one partition as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The partition.
    pub id: PartitionId,
    /// From its lowest to its highest stored offset, if there is one.
    pub stored: Option<OffsetRange>,
    /// The lowest offset that retention took away, if it did.
    pub removed_from: Option<u64>,
    /// The settled offset; 0 if none was written down.
    pub settled: u64,
}

#[derive(Debug, Row, Deserialize)]
struct PartitionRow {
    incarnation: u32,
    partition: u32,
}

#[derive(Debug, Row, Deserialize)]
struct SettledRow {
    incarnation: u32,
    partition: u32,
    next: u64,
}

#[derive(Debug, Row, Deserialize)]
struct KindRow {
    kind: String,
    offsets: u64,
}

#[derive(Debug, Row, Deserialize)]
struct OffsetRow {
    offset: u64,
}

/// Asks the two tables, each partition on its shard.
#[derive(Debug, Clone)]
pub struct Auditor {
    shards: Shards,
    events: String,
    dead_letters: String,
    watermarks: String,
}

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(600);

impl Auditor {
    /// Audits the tables of `config`.
    pub fn new(config: &ClickHouse) -> Self {
        Self::of(Shards::new(config), &config.options().engine)
    }

    /// The same, as far as possible when nobody else asks.
    pub(crate) fn in_background(config: &ClickHouse) -> Self {
        Self::of(Shards::in_background(config), &config.options().engine)
    }

    fn of(shards: Shards, engine: &Engine) -> Self {
        Self {
            shards,
            events: local_table(EVENTS, engine),
            dead_letters: local_table(DEAD_LETTERS, engine),
            watermarks: local_table(WATERMARKS, engine),
        }
    }

    /// Asks a shard for rows of `tables`.
    async fn ask<T>(&self, shard: &Shard, tables: &[&str], sql: &str) -> Result<Vec<T>, Error>
    where
        T: RowOwned + RowRead,
    {
        let asked = shard.ask(tables, PATIENCE, |client| async move {
            client.query_raw(sql).fetch_all::<T>().await
        });
        asked.await
    }

    /// Asks the shard of a partition for rows of both tables.
    async fn rows<T>(&self, id: PartitionId, sql: &str) -> Result<Vec<T>, Error>
    where
        T: RowOwned + RowRead,
    {
        let tables = [self.events.as_str(), &self.dead_letters];
        self.ask(self.shards.of(id.partition), &tables, sql).await
    }

    /// Every partition of every life that has rows or a watermark, in order.
    pub async fn extents(&self) -> Result<Vec<Extent>, Error> {
        let settled = format!(
            "SELECT incarnation, partition, max(next_offset) AS next FROM {} \
             GROUP BY incarnation, partition",
            self.watermarks
        );
        let mut extents = BTreeMap::new();
        for shard in self.shards.all() {
            // In this order: what is settled was stored before.
            let settled: Vec<SettledRow> = self.ask(shard, &[&self.watermarks], &settled).await?;
            for row in settled {
                let id = PartitionId {
                    incarnation: row.incarnation,
                    partition: row.partition,
                };
                extents.insert(id, row.next);
            }
            for table in [&self.events, &self.dead_letters] {
                let mut last = None;
                while let Some(id) = self.next_partition(shard, table, last).await? {
                    extents.entry(id).or_default();
                    last = Some(id);
                }
            }
        }
        let mut found = Vec::new();
        for (id, settled) in extents {
            // In this order: what goes meanwhile is written down before.
            let lowest = self.end(id, End::Lowest).await?;
            let highest = self.end(id, End::Highest).await?;
            let shard = self.shards.of(id.partition);
            let removed: Vec<OffsetRow> = self.ask(shard, &[], &removed::lowest(id)).await?;
            found.push(Extent {
                id,
                stored: lowest
                    .zip(highest)
                    .and_then(|(first, last)| OffsetRange::new(first, last)),
                removed_from: removed.first().map(|row| row.offset),
                settled,
            });
        }
        Ok(found)
    }

    /// The settled offset of a partition; 0 if none was written down.
    pub async fn settled(&self, id: PartitionId) -> Result<u64, Error> {
        let sql = format!(
            "SELECT max(next_offset) AS offset FROM {} WHERE incarnation = {} AND partition = {}",
            self.watermarks, id.incarnation, id.partition
        );
        let shard = self.shards.of(id.partition);
        let rows: Vec<OffsetRow> = self.ask(shard, &[&self.watermarks], &sql).await?;
        Ok(rows.first().map_or(0, |row| row.offset))
    }

    /// The partition behind `last` that has rows in `table`. One step along the order of
    /// positions instead of a look at every row.
    async fn next_partition(
        &self,
        shard: &Shard,
        table: &str,
        last: Option<PartitionId>,
    ) -> Result<Option<PartitionId>, Error> {
        let beyond = last.map_or("1".to_owned(), |last| {
            format!(
                "source_incarnation > {0} OR (source_incarnation = {0} AND source_partition > {1})",
                last.incarnation, last.partition
            )
        });
        let sql = format!(
            "SELECT source_incarnation AS incarnation, source_partition AS partition FROM {table} \
             WHERE {beyond} ORDER BY source_incarnation, source_partition LIMIT 1"
        );
        let rows: Vec<PartitionRow> = self.ask(shard, &[table], &sql).await?;
        Ok(rows.first().map(|row| PartitionId {
            incarnation: row.incarnation,
            partition: row.partition,
        }))
    }

    /// The lowest or highest stored offset of a partition.
    pub async fn end(&self, id: PartitionId, end: End) -> Result<Option<u64>, Error> {
        let sql = end_of(&self.events, &self.dead_letters, id, end);
        let rows: Vec<OffsetRow> = self.rows(id, &sql).await?;
        Ok(rows.first().map(|row| row.offset))
    }

    /// How many offsets the dead letters of a partition stand for, by kind.
    pub async fn letters(&self, id: PartitionId) -> Result<BTreeMap<String, u64>, Error> {
        let sql = format!(
            "SELECT toString(kind) AS kind, \
             toUInt64(sum(source_offset_last - source_offset + 1)) AS offsets \
             FROM {} WHERE {} GROUP BY kind",
            self.dead_letters,
            stored::of(id)
        );
        let rows: Vec<KindRow> = self.rows(id, &sql).await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.kind, row.offsets))
            .collect())
    }

    /// Audits one range of at most [`STEP`] offsets. Up to `named` ranges of each kind are named.
    pub async fn look(
        &self,
        id: PartitionId,
        range: OffsetRange,
        named: usize,
    ) -> Result<(Counted, Finding), Error> {
        let stored = stored::offsets_in(&self.events, &self.dead_letters, id, range);
        let sql = format!(
            "SELECT sum(there) AS rows, toUInt64(groupBitmapMergeIf(bits, stored)) AS offsets, \
             toUInt64(groupBitmapMerge(bits)) AS accounted FROM (\
               SELECT count() AS there, groupBitmapState(offset) AS bits, true AS stored \
               FROM ({stored}) UNION ALL \
               SELECT toUInt64(0) AS there, bits, false AS stored FROM ({}))",
            removed::bits_in(id, range)
        );
        let mut counted: Vec<Counted> = self.rows(id, &sql).await?;
        if counted.iter().any(|found| found.accounted < range.len()) {
            // Retention writes down what it takes away before, but one question may have looked for
            // that first and for the rows last.
            counted = self.rows(id, &sql).await?;
        }
        let counted = counted.into_iter().next().ok_or(Error::RowNotFound)?;
        let mut finding = Finding {
            missing: range.len().saturating_sub(counted.accounted),
            doubled: counted.rows.saturating_sub(counted.offsets),
            ..Finding::default()
        };
        // Consecutive offsets differ from their rank by the same number.
        if finding.doubled > 0 {
            finding.doubled_ranges = self
                .rows(
                    id,
                    &format!(
                        "SELECT min(offset) AS first, max(offset) AS last FROM (\
                       SELECT offset, offset - row_number() OVER (ORDER BY offset) AS difference \
                       FROM (SELECT offset FROM ({stored}) GROUP BY offset HAVING count() > 1)\
                     ) GROUP BY difference ORDER BY first LIMIT {named}"
                    ),
                )
                .await?;
        }
        if finding.missing > 0 {
            finding.missing_ranges = self
                .rows(
                    id,
                    &format!(
                        "SELECT before AS first, toUInt64(offset - 1) AS last FROM (\
                       SELECT offset, lagInFrame(offset + 1, 1, toUInt64({})) OVER \
                       (ORDER BY offset ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before \
                       FROM ({stored} UNION ALL {} UNION ALL SELECT toUInt64({}) AS offset)\
                     ) WHERE offset > before ORDER BY first LIMIT {named}",
                        range.first(),
                        removed::offsets_in(id, range),
                        range.end()
                    ),
                )
                .await?;
        }
        Ok((counted, finding))
    }
}

/// One end of what is stored of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The lowest offset.
    Lowest,
    /// The highest offset.
    Highest,
}

/// A question for the lowest or highest offset in both tables; no row if there is none.
///
/// It names the whole order of positions, in which one row is read: `max()` reads all of them.
pub(crate) fn end_of(events: &str, dead_letters: &str, id: PartitionId, end: End) -> String {
    let (source, direction, letter) = match end {
        End::Lowest => (stored::of(id), "ASC", "source_offset"),
        End::Highest => (stored::of(id), "DESC", "source_offset_last"),
    };
    let order = ["source_incarnation", "source_partition", "source_offset"]
        .map(|column| format!("{column} {direction}"))
        .join(", ");
    format!(
        "SELECT offset FROM (\
           SELECT source_offset AS offset FROM {events} WHERE {source} ORDER BY {order} LIMIT 1 \
           UNION ALL \
           SELECT {letter} AS offset FROM {dead_letters} WHERE {source} ORDER BY {order} LIMIT 1\
         ) ORDER BY offset {direction} LIMIT 1"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(missing: &[(u64, u64)]) -> Finding {
        let runs: Vec<Run> = missing
            .iter()
            .map(|(first, last)| Run {
                first: *first,
                last: *last,
            })
            .collect();
        Finding {
            missing: runs.iter().map(|run| run.last - run.first + 1).sum(),
            missing_ranges: runs,
            ..Finding::default()
        }
    }

    #[test]
    fn a_hole_over_two_questions_is_named_as_one() {
        let mut all = finding(&[(3, 3), (8, 9)]);
        all.add(finding(&[(10, 12), (20, 20)]), 20);
        assert_eq!(all.to_string(), "7 MISSING, first [3, 8-12, 20]");
        all.add(finding(&[(30, 30)]), 3);
        assert_eq!(all.to_string(), "8 MISSING, first [3, 8-12, 20]");
    }

    #[test]
    fn a_hole_and_a_double_do_not_cancel_out() {
        let mut all = finding(&[(3, 3)]);
        all.doubled = 1;
        all.doubled_ranges = vec![Run { first: 5, last: 5 }];
        assert!(!all.is_clean());
        assert_eq!(
            all.to_string(),
            "1 MISSING, first [3], 1 DOUBLED, first [5]"
        );
    }
}
