//! The tables as the protocol sees them.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;

use audit_schema::OffsetRange;
use audit_schema::row::Millis;
use tokio::sync::OwnedSemaphorePermit;

use crate::batch::{Batch, EventKey, PartitionId, Table};
use crate::error::{InsertError, ReadError};

/// A place among the inserts in flight, and ClickHouse's time when it was given.
///
/// The insert carries that time, and the server refuses it when it has become too old. So the
/// order is: take a turn, prove by a commit that the partition is still ours, insert.
#[derive(Debug)]
pub struct Turn {
    /// ClickHouse's clock; never ahead of it.
    pub ingested_at: Millis,
    /// The place; `None` where the number of inserts is not limited.
    pub place: Option<OwnedSemaphorePermit>,
}

/// Which rows to insert, and under which token.
#[derive(Debug, Clone, Copy)]
pub struct Insert<'a> {
    /// The table they go to.
    pub table: Table,
    /// The batch they are in.
    pub batch: &'a Batch,
    /// Their places in the batch.
    pub rows: &'a [usize],
    /// What makes a copy of this insert harmless; of the partition's [`token_prefix`], and no other
    /// insert has it.
    pub token: &'a str,
}

/// What the tokens of all inserts of a partition begin with.
pub fn token_prefix(id: PartitionId) -> String {
    format!("{}:{}:", id.incarnation, id.partition)
}

/// How much of a range was found in the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The partition.
    pub id: PartitionId,
    /// How many different offsets.
    pub offsets: u64,
    /// How many rows; more than offsets if one is there twice.
    pub rows: u64,
}

/// How far one partition is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The partition.
    pub id: PartitionId,
    /// Every offset below it was counted in the two tables.
    pub next_offset: u64,
    /// Every record Kafka took before it is readable.
    pub complete_up_to: Millis,
}

/// The tables of events, dead letters and watermarks.
pub trait Store: fmt::Debug + Send + Sync {
    /// Reads the clock of the server that would take an insert of this partition.
    fn clock(&self, id: PartitionId) -> impl Future<Output = Result<Millis, ReadError>> + Send;

    /// Reads the clocks of all servers that may have taken an insert of this partition, and gives
    /// the latest: no insert that was sent before carries a later time.
    fn latest_clock(
        &self,
        id: PartitionId,
    ) -> impl Future<Output = Result<Millis, ReadError>> + Send;

    /// Waits for a place among the inserts in flight, then reads ClickHouse's clock.
    fn turn(&self, id: PartitionId) -> impl Future<Output = Result<Turn, ReadError>> + Send;

    /// Inserts rows as one block. `Ok` is a hint, not a proof.
    fn insert(
        &self,
        turn: Turn,
        insert: Insert<'_>,
    ) -> impl Future<Output = Result<(), InsertError>> + Send;

    /// Whether an insert of a partition that carries `clock`, or an earlier time, may still land:
    /// it is not too late for it yet, or one is being stored, by any server that may have taken it.
    fn may_land(
        &self,
        id: PartitionId,
        clock: Millis,
    ) -> impl Future<Output = Result<bool, ReadError>> + Send;

    /// The offsets of a range that are in either table, or that retention took away, ascending.
    fn present(
        &self,
        id: PartitionId,
        range: OffsetRange,
    ) -> impl Future<Output = Result<Vec<u64>, ReadError>> + Send;

    /// The highest offset from `from` on that is in either table.
    fn highest(
        &self,
        id: PartitionId,
        from: u64,
    ) -> impl Future<Output = Result<Option<u64>, ReadError>> + Send;

    /// The settled offset: everything below it was counted.
    fn settled(
        &self,
        id: PartitionId,
    ) -> impl Future<Output = Result<Option<u64>, ReadError>> + Send;

    /// Counts what is there of each range, in one question. Retention takes nothing away that is
    /// not settled.
    fn count(
        &self,
        ranges: &[(PartitionId, OffsetRange)],
    ) -> impl Future<Output = Result<Vec<Found>, ReadError>> + Send;

    /// Writes down how far partitions are readable.
    fn write_watermarks(
        &self,
        watermarks: &[Watermark],
    ) -> impl Future<Output = Result<(), InsertError>> + Send;

    /// Looks events up by their full primary key among the offsets below `below` of a partition,
    /// and gives the lowest offset of each that is there.
    fn earlier(
        &self,
        id: PartitionId,
        keys: &[EventKey],
        below: u64,
    ) -> impl Future<Output = Result<HashMap<EventKey, u64>, ReadError>> + Send;
}
