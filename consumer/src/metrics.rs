//! The metrics of the consumer. Labels are partitions and outcomes, never projects.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use std::time::Duration;

use audit_schema::row::Millis;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::batch::{Batch, Table};
use crate::store::Watermark;

const EVENTS: &str = "audit_consumer_events_total";
const DEAD_LETTERS: &str = "audit_consumer_dead_letters_total";
const BATCH_ROWS: &str = "audit_consumer_batch_rows";
const INSERT_SECONDS: &str = "audit_consumer_insert_seconds";
const IN_DOUBT: &str = "audit_consumer_inserts_in_doubt_total";
const RECOVERED: &str = "audit_consumer_recovered_rows_total";
const SHORT: &str = "audit_consumer_short_ranges_total";
const DOUBLED: &str = "audit_consumer_doubled_rows_total";
const SETTLE_SECONDS: &str = "audit_consumer_settle_seconds";
const SETTLED_OFFSET: &str = "audit_consumer_settled_offset";
const COMPLETE_UP_TO: &str = "audit_consumer_complete_up_to_seconds";
const LOG_END: &str = "audit_consumer_log_end_offset";
const OLDEST_UNREADABLE: &str = "audit_consumer_oldest_unreadable_seconds";
const VERIFIED_OFFSET: &str = "audit_consumer_verified_offset";
const MISSING_OFFSETS: &str = "audit_consumer_missing_offsets";
const DOUBLED_ROWS: &str = "audit_consumer_doubled_rows";
const OLDEST_ROW: &str = "audit_consumer_oldest_row_seconds";
const RETENTION_RAN: &str = "audit_consumer_retention_last_run_seconds";
const RETENTION_REMOVED: &str = "audit_consumer_retention_removed_rows_total";
const STOPPED: &str = "audit_consumer_partition_stopped";

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(EVENTS, "Events in answered batches.");
    describe_counter!(DEAD_LETTERS, "Dead letters in answered batches, by kind.");
    describe_histogram!(BATCH_ROWS, "Rows of an answered batch.");
    describe_histogram!(
        INSERT_SECONDS,
        "Seconds from sending an insert to its answer."
    );
    describe_counter!(IN_DOUBT, "Inserts whose outcome was unknown.");
    describe_counter!(
        RECOVERED,
        "Rows sent again because an insert in doubt did not bring them."
    );
    describe_counter!(
        SHORT,
        "Answered ranges that were not there whole when counted."
    );
    describe_counter!(
        DOUBLED,
        "Rows that were there twice when counted; must stay 0."
    );
    describe_histogram!(SETTLE_SECONDS, "Seconds one round of settling took.");
    describe_gauge!(
        SETTLED_OFFSET,
        "Offset below which everything was counted, by partition."
    );
    describe_gauge!(
        COMPLETE_UP_TO,
        "Time before which everything is readable, in seconds since 1970, by partition."
    );
    describe_gauge!(LOG_END, "Offset the next record will get, by partition.");
    describe_gauge!(
        OLDEST_UNREADABLE,
        "Seconds, at most, that an event has been waiting to be readable, by partition, of all \
         partitions; 0 if none is."
    );
    describe_gauge!(
        VERIFIED_OFFSET,
        "Offset below which the audit of this process has come, by partition."
    );
    describe_gauge!(
        MISSING_OFFSETS,
        "Settled offsets that are in neither table as last audited, by partition; must stay 0."
    );
    describe_gauge!(
        DOUBLED_ROWS,
        "Rows beyond one per offset as last audited, by partition; must stay 0."
    );
    describe_gauge!(
        OLDEST_ROW,
        "When Kafka took the oldest row, in seconds since 1970, by table; 0 if there is none, and \
         where another member has partition 0."
    );
    describe_gauge!(
        RETENTION_RAN,
        "When this process last ran retention to its end, in seconds since 1970."
    );
    describe_counter!(
        RETENTION_REMOVED,
        "Rows that retention of this process removed, by table."
    );
    describe_gauge!(
        STOPPED,
        "1 if a partition needs a person before it goes on, by partition."
    );
}

pub(crate) fn batch(batch: &Batch) {
    let events = batch.rows_of(Table::Events).len();
    counter!(EVENTS).increment(u64::try_from(events).unwrap_or(u64::MAX));
    for letter in batch.letters() {
        counter!(DEAD_LETTERS, "kind" => letter.kind).increment(1);
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a batch has far fewer than 2^52 rows"
    )]
    histogram!(BATCH_ROWS).record(batch.rows() as f64);
}

pub(crate) fn insert_seconds(took: Duration) {
    histogram!(INSERT_SECONDS).record(took);
}

pub(crate) fn in_doubt() {
    counter!(IN_DOUBT).increment(1);
}

pub(crate) fn recovered(rows: usize) {
    counter!(RECOVERED).increment(u64::try_from(rows).unwrap_or(u64::MAX));
}

pub(crate) fn short() {
    counter!(SHORT).increment(1);
}

pub(crate) fn doubled(rows: u64) {
    counter!(DOUBLED).increment(rows);
}

pub(crate) fn settle_seconds(took: Duration) {
    histogram!(SETTLE_SECONDS).record(took);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point numbers"
)]
pub(crate) fn watermark(partition: u32, watermark: &Watermark) {
    let partition = partition.to_string();
    gauge!(SETTLED_OFFSET, "partition" => partition.clone()).set(watermark.next_offset as f64);
    gauge!(COMPLETE_UP_TO, "partition" => partition)
        .set(watermark.complete_up_to.0 as f64 / 1000.0);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point numbers"
)]
pub(crate) fn log_end(partition: u32, end: u64) {
    gauge!(LOG_END, "partition" => partition.to_string()).set(end as f64);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point numbers"
)]
pub(crate) fn oldest_row(table: Table, oldest: Option<Millis>) {
    let seconds = oldest.map_or(0.0, |oldest| oldest.0 as f64 / 1000.0);
    gauge!(OLDEST_ROW, "table" => table.name()).set(seconds);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point numbers"
)]
pub(crate) fn retention_ran(at: Millis) {
    gauge!(RETENTION_RAN).set(at.0 as f64 / 1000.0);
}

pub(crate) fn retention_removed(table: Table, rows: u64) {
    counter!(RETENTION_REMOVED, "table" => table.name()).increment(rows);
}

pub(crate) fn stopped(partition: u32, stopped: bool) {
    gauge!(STOPPED, "partition" => partition.to_string()).set(f64::from(u8::from(stopped)));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point numbers"
)]
pub(crate) fn audited(partition: u32, verified: u64, (missing, doubled): (u64, u64)) {
    let partition = partition.to_string();
    gauge!(VERIFIED_OFFSET, "partition" => partition.clone()).set(verified as f64);
    gauge!(MISSING_OFFSETS, "partition" => partition.clone()).set(missing as f64);
    gauge!(DOUBLED_ROWS, "partition" => partition).set(doubled as f64);
}

pub(crate) fn oldest_unreadable(partition: u32, age: Duration) {
    gauge!(OLDEST_UNREADABLE, "partition" => partition.to_string()).set(age.as_secs_f64());
}
