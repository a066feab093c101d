//! What is there of the ranges that were answered.

use audit_schema::OffsetRange;
use clickhouse::Row;
use serde::Deserialize;

use super::Writer;
use crate::batch::PartitionId;
use crate::error::ReadError;
use crate::store::Found;
use crate::stored;

#[derive(Debug, Row, Deserialize)]
struct CountRow {
    incarnation: u32,
    partition: u32,
    rows: u64,
    offsets: u64,
}

impl Writer {
    /// Counts what is there of ranges of one shard, of no partition more than one.
    pub(super) async fn count_on_one_shard(
        &self,
        ranges: &[(PartitionId, OffsetRange)],
    ) -> Result<Vec<Found>, ReadError> {
        let Some((first, _)) = ranges.first() else {
            return Ok(Vec::new());
        };
        let positions = stored::positions_in(&self.events, &self.dead_letters, ranges);
        let sql = format!(
            "SELECT incarnation, partition, count() AS rows, uniqExact(offset) AS offsets \
             FROM ({positions}) GROUP BY incarnation, partition"
        );
        let rows = self.rows::<CountRow>(*first, sql).await?;
        let found = rows.into_iter().map(|row| Found {
            id: PartitionId {
                incarnation: row.incarnation,
                partition: row.partition,
            },
            offsets: row.offsets,
            rows: row.rows,
        });
        Ok(found.collect())
    }
}
