//! What is there of the ranges that were answered.

use audit_schema::OffsetRange;
use clickhouse::Row;
use serde::Deserialize;

use super::Writer;
use crate::audit;
use crate::batch::PartitionId;
use crate::error::ReadError;
use crate::store::Found;

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
        let sql = question(&self.events, &self.dead_letters, ranges);
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

/// Each table is read once for all ranges: most of what a question costs is its planning.
fn question(events: &str, dead_letters: &str, ranges: &[(PartitionId, OffsetRange)]) -> String {
    let of_each = |text: &dyn Fn(String, u64, u64) -> String, between: &str| {
        let texts = ranges
            .iter()
            .map(|(id, range)| text(audit::of(*id), range.first(), range.last()));
        texts.collect::<Vec<_>>().join(between)
    };
    let stored = of_each(
        &|source, first, last| format!("({source} AND source_offset BETWEEN {first} AND {last})"),
        " OR ",
    );
    let letters = of_each(
        &|source, first, last| {
            format!("({source} AND source_offset <= {last} AND source_offset_last >= {first})")
        },
        " OR ",
    );
    let first = of_each(&|source, first, _| format!("{source}, {first}"), ", ");
    let last = of_each(&|source, _, last| format!("{source}, {last}"), ", ");
    format!(
        "SELECT incarnation, partition, count() AS rows, uniqExact(offset) AS offsets FROM (\
           SELECT source_incarnation AS incarnation, source_partition AS partition, \
             source_offset AS offset FROM {events} WHERE {stored} \
           UNION ALL \
           SELECT source_incarnation AS incarnation, source_partition AS partition, \
             arrayJoin(range(greatest(source_offset, multiIf({first}, 0)), \
             least(source_offset_last, multiIf({last}, 0)) + 1)) AS offset \
           FROM {dead_letters} WHERE {letters}\
         ) GROUP BY incarnation, partition"
    )
}
