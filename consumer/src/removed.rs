//! What retention took away, as `audit_removed` says it: offsets that are in neither table and yet
//! not missing.
//!
//! They are written down before their rows go, so an offset may be there and written down as well;
//! it then counts as stored. In a cluster they lie on any shard, so they are asked for by the
//! table's plain name, of all shards; each replica has them before the rows go.

use audit_schema::OffsetRange;
use audit_schema::clickhouse::REMOVED;

use crate::batch::PartitionId;

/// How many offsets are kept together, as one bitmap.
pub(crate) const CHUNK: u64 = 1_000_000;

fn of(id: PartitionId) -> String {
    format!(
        "incarnation = {} AND partition = {}",
        id.incarnation, id.partition
    )
}

/// A question for the offsets of `range` that were taken away, as one bitmap: `bits`.
pub(crate) fn bits_in(id: PartitionId, range: OffsetRange) -> String {
    format!(
        "SELECT bitmapSubsetInRange(groupBitmapMergeState(offsets), toUInt64({}), toUInt64({})) \
         AS bits FROM {REMOVED} WHERE {} AND chunk BETWEEN {} AND {}",
        range.first(),
        range.end(),
        of(id),
        range.first() / CHUNK,
        range.last() / CHUNK,
    )
}

/// The same, one by one, each once.
pub(crate) fn offsets_in(id: PartitionId, range: OffsetRange) -> String {
    let bits = bits_in(id, range);
    format!("SELECT arrayJoin(bitmapToArray(bits)) AS offset FROM ({bits})")
}

/// A question for the lowest offset that was taken away; no row if there is none.
pub(crate) fn lowest(id: PartitionId) -> String {
    let of = of(id);
    format!(
        "SELECT toUInt64(min(bitmapMin(offsets))) AS offset FROM {REMOVED} WHERE {of} \
         AND chunk = (SELECT min(chunk) FROM {REMOVED} WHERE {of}) HAVING count() > 0"
    )
}

/// A question for the highest offset that was taken away and at which Kafka had a record, and for
/// the time Kafka took it; no row if there is none.
pub(crate) fn highest(id: PartitionId) -> String {
    format!(
        "SELECT tupleElement(highest, 1) AS offset, tupleElement(highest, 2) AS logged_at \
         FROM (SELECT maxMerge(last) AS highest FROM {REMOVED} WHERE {}) \
         WHERE toUnixTimestamp64Milli(logged_at) > 0",
        of(id)
    )
}
