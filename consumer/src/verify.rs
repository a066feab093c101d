//! Verify: every offset of every partition is in exactly one of the two tables.
//!
//! It needs only ClickHouse: offsets are contiguous, so the number of different offsets, of rows,
//! and the span from the first to the last have to be the same.

use std::fmt;

use audit_schema::dead_letter::DEAD_LETTERS;
use audit_schema::row::EVENTS;
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

/// How many offsets are named of each kind.
const NAMED: usize = 20;

/// What was found of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Counted {
    /// Which life of the topic.
    pub incarnation: u32,
    /// The partition.
    pub partition: u32,
    /// The lowest offset.
    pub first: u64,
    /// The highest offset.
    pub last: u64,
    /// How many rows there are.
    pub rows: u64,
    /// How many different offsets they have.
    pub offsets: u64,
}

/// What is to be said of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// What was counted.
    #[serde(flatten)]
    pub counted: Counted,
    /// How many offsets between the first and the last are in neither table.
    pub missing: u64,
    /// How many rows are there beyond one per offset.
    pub doubled: u64,
    /// The first of the missing offsets.
    pub missing_offsets: Vec<u64>,
    /// The first of the doubled offsets.
    pub doubled_offsets: Vec<u64>,
}

impl Verdict {
    fn of(counted: Counted) -> Self {
        let span = counted.last.saturating_sub(counted.first).saturating_add(1);
        Self {
            missing: span.saturating_sub(counted.offsets),
            doubled: counted.rows.saturating_sub(counted.offsets),
            missing_offsets: Vec::new(),
            doubled_offsets: Vec::new(),
            counted,
        }
    }

    /// Whether every offset is there once.
    pub fn holds(&self) -> bool {
        self.missing == 0 && self.doubled == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = &self.counted;
        write!(
            f,
            "incarnation {} partition {}: offsets {} to {}, {} rows",
            counted.incarnation, counted.partition, counted.first, counted.last, counted.rows
        )?;
        if self.holds() {
            return f.write_str(", each offset once");
        }
        if self.missing > 0 {
            write!(
                f,
                ", {} MISSING, first {:?}",
                self.missing, self.missing_offsets
            )?;
        }
        if self.doubled > 0 {
            write!(
                f,
                ", {} DOUBLED, first {:?}",
                self.doubled, self.doubled_offsets
            )?;
        }
        Ok(())
    }
}

#[derive(Debug, Row, Deserialize)]
struct PartitionRow {
    incarnation: u32,
    partition: u32,
}

#[derive(Debug, Row, Deserialize)]
struct OffsetRow {
    offset: u64,
}

/// Counts every partition; `each` is called with its verdict as soon as it is known.
pub async fn verify(
    client: &Client,
    mut each: impl FnMut(&Verdict),
) -> Result<Vec<Verdict>, clickhouse::error::Error> {
    let partitions = client
        .query_raw(&format!(
            "SELECT DISTINCT source_incarnation AS incarnation, source_partition AS partition \
             FROM (SELECT source_incarnation, source_partition FROM {EVENTS} \
             UNION ALL SELECT source_incarnation, source_partition FROM {DEAD_LETTERS}) \
             ORDER BY incarnation, partition"
        ))
        .fetch_all::<PartitionRow>()
        .await?;
    let mut verdicts = Vec::new();
    for PartitionRow {
        incarnation,
        partition,
    } in partitions
    {
        let source =
            format!("source_incarnation = {incarnation} AND source_partition = {partition}");
        let offsets = format!(
            "(SELECT source_offset AS offset FROM {EVENTS} WHERE {source} UNION ALL \
             SELECT arrayJoin(range(source_offset, source_offset_last + 1)) AS offset \
             FROM {DEAD_LETTERS} WHERE {source})"
        );
        let counted = client
            .query_raw(&format!(
                "SELECT toUInt32({incarnation}) AS incarnation, toUInt32({partition}) AS partition, \
                 min(offset) AS first, max(offset) AS last, count() AS rows, \
                 uniqExact(offset) AS offsets FROM {offsets}"
            ))
            .fetch_one::<Counted>()
            .await?;
        let mut verdict = Verdict::of(counted);
        if verdict.doubled > 0 {
            let sql = format!(
                "SELECT offset FROM {offsets} GROUP BY offset HAVING count() > 1 \
                 ORDER BY offset LIMIT {NAMED}"
            );
            verdict.doubled_offsets = named(client, &sql).await?;
        }
        if verdict.missing > 0 {
            // Each offset that follows a hole names the offset before it as missing.
            let sql = format!(
                "SELECT before AS offset FROM (SELECT toUInt64(offset - 1) AS before \
                 FROM {offsets} WHERE offset > {}) \
                 WHERE before NOT IN (SELECT offset FROM {offsets}) \
                 ORDER BY before LIMIT {NAMED}",
                verdict.counted.first
            );
            verdict.missing_offsets = named(client, &sql).await?;
        }
        each(&verdict);
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

async fn named(client: &Client, sql: &str) -> Result<Vec<u64>, clickhouse::error::Error> {
    let rows = client.query_raw(sql).fetch_all::<OffsetRow>().await?;
    Ok(rows.into_iter().map(|row| row.offset).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(first: u64, last: u64, rows: u64, offsets: u64) -> Verdict {
        Verdict::of(Counted {
            incarnation: 1,
            partition: 0,
            first,
            last,
            rows,
            offsets,
        })
    }

    #[test]
    fn every_offset_once_holds() {
        assert!(counted(5, 9, 5, 5).holds());
    }

    #[test]
    fn a_hole_and_a_double_do_not_cancel_out() {
        let verdict = counted(0, 9, 10, 9);
        assert_eq!((verdict.missing, verdict.doubled), (1, 1));
        assert!(!verdict.holds());
    }
}
