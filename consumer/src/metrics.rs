//! The metrics of the consumer. Labels are partitions and outcomes, never projects.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use std::time::Duration;

use audit_schema::dead_letter::KINDS;
use audit_schema::row::Millis;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::batch::{Batch, Table};

const EVENTS: &str = "audit_consumer_events_total";
const DEAD_LETTERS: &str = "audit_consumer_dead_letters_total";
const BATCH_ROWS: &str = "audit_consumer_batch_rows";
const INSERT_SECONDS: &str = "audit_consumer_insert_seconds";
const IN_DOUBT: &str = "audit_consumer_inserts_in_doubt_total";
const RECOVERED: &str = "audit_consumer_recovered_rows_total";
const SHORT: &str = "audit_consumer_short_ranges_total";
const DOUBLED: &str = "audit_consumer_doubled_rows_total";
const SETTLE_SECONDS: &str = "audit_consumer_settle_seconds";
const READABLE_SECONDS: &str = "audit_consumer_readable_seconds";
const SETTLED_OFFSET: &str = "audit_consumer_settled_offset";
const COMPLETE_UP_TO: &str = "audit_consumer_complete_up_to_seconds";
const LOG_END: &str = "audit_consumer_log_end_offset";
const LAG: &str = "audit_consumer_lag_records";
const OLDEST_UNREADABLE: &str = "audit_consumer_oldest_unreadable_seconds";
const RETENTION: &str = "audit_consumer_topic_retention_seconds";
const VERIFIED_OFFSET: &str = "audit_consumer_verified_offset";
const MISSING_OFFSETS: &str = "audit_consumer_missing_offsets";
const DOUBLED_ROWS: &str = "audit_consumer_doubled_rows";
const OLDEST_ROW: &str = "audit_consumer_oldest_row_seconds";
const RETENTION_RAN: &str = "audit_consumer_retention_last_run_seconds";
const RETENTION_REMOVED: &str = "audit_consumer_retention_removed_rows_total";
const STOPPED: &str = "audit_consumer_partition_stopped";
const SERVER_UP: &str = "audit_consumer_server_up";
const DISK_FREE: &str = "audit_consumer_clickhouse_disk_free_bytes";
const DISK_TOTAL: &str = "audit_consumer_clickhouse_disk_total_bytes";
const PARTS: &str = "audit_consumer_clickhouse_parts";
const STORED_BYTES: &str = "audit_consumer_clickhouse_stored_bytes";
const MUTATIONS: &str = "audit_consumer_clickhouse_mutations";
const CLOCK_AHEAD: &str = "audit_consumer_clickhouse_clock_ahead_seconds";

/// Tells the recorder what each metric means, and begins the counters at 0: what appears with its
/// first increase has not increased for Prometheus. Call it once, after the recorder was installed.
pub fn describe() {
    describe_work();
    describe_freshness();
    describe_server();
    for kind in KINDS {
        counter!(DEAD_LETTERS, "kind" => kind).increment(0);
    }
    for name in [EVENTS, IN_DOUBT, RECOVERED, SHORT, DOUBLED] {
        counter!(name).increment(0);
    }
}

/// What this process does with its partitions.
fn describe_work() {
    describe_counter!(EVENTS, Unit::Count, "Events in answered batches.");
    describe_counter!(
        DEAD_LETTERS,
        Unit::Count,
        "Dead letters in answered batches, by `kind`: malformed, unsupported_version, too_large, \
         duplicate, absent, skipped."
    );
    describe_histogram!(BATCH_ROWS, Unit::Count, "Rows of an answered batch.");
    describe_histogram!(
        INSERT_SECONDS,
        Unit::Seconds,
        "From sending an insert to its answer, whatever that was."
    );
    describe_counter!(
        IN_DOUBT,
        Unit::Count,
        "Inserts whose outcome was unknown: answered by an error, or not in time."
    );
    describe_counter!(
        RECOVERED,
        Unit::Count,
        "Rows sent again because an insert in doubt did not bring them."
    );
    describe_counter!(
        SHORT,
        Unit::Count,
        "Answered ranges that were not there whole when counted."
    );
    describe_counter!(
        DOUBLED,
        Unit::Count,
        "Rows that were there twice when counted; must stay 0."
    );
    describe_histogram!(
        SETTLE_SECONDS,
        Unit::Seconds,
        "What one round of settling took."
    );
    describe_histogram!(
        READABLE_SECONDS,
        Unit::Seconds,
        "From when Kafka took the oldest record of a batch, on its clock, until the batch was \
         readable, on this machine's."
    );
    describe_gauge!(
        VERIFIED_OFFSET,
        Unit::Count,
        "Offset below which the audit of this process has come, by `partition`."
    );
    describe_gauge!(
        MISSING_OFFSETS,
        Unit::Count,
        "Settled offsets that are in neither table as last audited, by `partition`; must stay 0."
    );
    describe_gauge!(
        DOUBLED_ROWS,
        Unit::Count,
        "Rows beyond one per offset as last audited, by `partition`; must stay 0."
    );
    describe_gauge!(
        OLDEST_ROW,
        Unit::Seconds,
        "When Kafka took the oldest row, since 1970, by `table`; 0 if there is none, and where \
         another member has partition 0."
    );
    describe_gauge!(
        RETENTION_RAN,
        Unit::Seconds,
        "When this process last ran retention to its end, since 1970."
    );
    describe_counter!(
        RETENTION_REMOVED,
        Unit::Count,
        "Rows that retention of this process removed, by `table`."
    );
    describe_gauge!(
        STOPPED,
        Unit::Count,
        "1 if a `partition` needs a person before it goes on, 0 if this process has it or had it."
    );
}

/// What every process tells of all partitions.
fn describe_freshness() {
    describe_gauge!(
        SETTLED_OFFSET,
        Unit::Count,
        "Offset below which everything is readable, by `partition`, of all partitions."
    );
    describe_gauge!(
        COMPLETE_UP_TO,
        Unit::Seconds,
        "Time before which everything is readable, since 1970, by `partition`, of all partitions; \
         none as long as nobody can say."
    );
    describe_gauge!(
        LOG_END,
        Unit::Count,
        "Offset the next record will get, by `partition`, of all partitions."
    );
    describe_gauge!(
        LAG,
        Unit::Count,
        "Records in Kafka that are not readable yet, by `partition`, of all partitions."
    );
    describe_gauge!(
        OLDEST_UNREADABLE,
        Unit::Seconds,
        "How long, at most, an event has been waiting to be readable, by `partition`, of all \
         partitions; 0 if none is."
    );
    describe_gauge!(
        RETENTION,
        Unit::Seconds,
        "How long Kafka keeps records, as configured: what is not stored by then is lost."
    );
    describe_gauge!(
        SERVER_UP,
        Unit::Count,
        "1 if a `server` (kafka, clickhouse) answered when it was last asked, 0 if not."
    );
}

/// What ClickHouse says of itself: the one server that this process writes to.
fn describe_server() {
    describe_gauge!(
        DISK_FREE,
        Unit::Bytes,
        "Free space of a `disk` of the ClickHouse server that is written to."
    );
    describe_gauge!(
        DISK_TOTAL,
        Unit::Bytes,
        "Size of a `disk` of the ClickHouse server that is written to."
    );
    describe_gauge!(
        PARTS,
        Unit::Count,
        "Most active parts that a partition of a `table` has; ClickHouse slows inserts down at \
         parts_to_delay_insert of them."
    );
    describe_gauge!(
        STORED_BYTES,
        Unit::Bytes,
        "Compressed size of the active parts of a `table`."
    );
    describe_gauge!(
        MUTATIONS,
        Unit::Count,
        "Mutations of our tables that are not done, by `state`: running, failing."
    );
    describe_gauge!(
        CLOCK_AHEAD,
        Unit::Seconds,
        "By how much ClickHouse's clock is at least ahead of this machine's, negative if it is \
         behind; 0 as long as its answers do not show that they differ."
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

pub(crate) fn readable_seconds(took: Duration) {
    histogram!(READABLE_SECONDS).record(took);
}

/// How far a partition is readable; its time is milliseconds since 1970, if it is known.
pub(crate) fn freshness(partition: u32, log_end: u64, settled: u64, complete_up_to: Option<i64>) {
    let partition = partition.to_string();
    gauge!(LOG_END, "partition" => partition.clone()).set(float(log_end));
    gauge!(SETTLED_OFFSET, "partition" => partition.clone()).set(float(settled));
    gauge!(LAG, "partition" => partition.clone()).set(float(log_end.saturating_sub(settled)));
    if let Some(millis) = complete_up_to {
        gauge!(COMPLETE_UP_TO, "partition" => partition).set(seconds(millis));
    }
}

pub(crate) fn retention(kept: Duration) {
    gauge!(RETENTION).set(kept.as_secs_f64());
}

pub(crate) fn server_up(server: &'static str, up: bool) {
    gauge!(SERVER_UP, "server" => server).set(f64::from(u8::from(up)));
}

pub(crate) fn disk(name: &str, free: u64, total: u64) {
    gauge!(DISK_FREE, "disk" => name.to_owned()).set(float(free));
    gauge!(DISK_TOTAL, "disk" => name.to_owned()).set(float(total));
}

pub(crate) fn table(name: &str, parts: u64, bytes: u64) {
    gauge!(PARTS, "table" => name.to_owned()).set(float(parts));
    gauge!(STORED_BYTES, "table" => name.to_owned()).set(float(bytes));
}

pub(crate) fn mutations(running: u64, failing: u64) {
    gauge!(MUTATIONS, "state" => "running").set(float(running));
    gauge!(MUTATIONS, "state" => "failing").set(float(failing));
}

/// How far ClickHouse's clock is ahead, in milliseconds.
pub(crate) fn clickhouse_clock_ahead(millis: i64) {
    gauge!(CLOCK_AHEAD).set(seconds(millis));
}

pub(crate) fn oldest_row(table: Table, oldest: Option<Millis>) {
    let oldest = oldest.map_or(0.0, |oldest| seconds(oldest.0));
    gauge!(OLDEST_ROW, "table" => table.name()).set(oldest);
}

pub(crate) fn retention_ran(at: Millis) {
    gauge!(RETENTION_RAN).set(seconds(at.0));
}

pub(crate) fn retention_removed(table: Table, rows: u64) {
    counter!(RETENTION_REMOVED, "table" => table.name()).increment(rows);
}

pub(crate) fn stopped(partition: u32, stopped: bool) {
    gauge!(STOPPED, "partition" => partition.to_string()).set(f64::from(u8::from(stopped)));
}

pub(crate) fn audited(partition: u32, verified: u64, (missing, doubled): (u64, u64)) {
    let partition = partition.to_string();
    gauge!(VERIFIED_OFFSET, "partition" => partition.clone()).set(float(verified));
    gauge!(MISSING_OFFSETS, "partition" => partition.clone()).set(float(missing));
    gauge!(DOUBLED_ROWS, "partition" => partition).set(float(doubled));
}

pub(crate) fn oldest_unreadable(partition: u32, age: Duration) {
    gauge!(OLDEST_UNREADABLE, "partition" => partition.to_string()).set(age.as_secs_f64());
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point numbers"
)]
fn float(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point numbers"
)]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}
