//! The producer's metrics. The names and their help are what an operator sees.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::lane::OnDisk;

const EVENTS: &str = "audit_producer_events_total";
const BUFFERED: &str = "audit_producer_buffered_events";
const DELIVERY: &str = "audit_producer_delivery_seconds";
const CLOCK_AHEAD: &str = "audit_producer_kafka_clock_ahead_seconds";
const SPOOL_EVENTS: &str = "audit_producer_spool_events";
const SPOOL_BYTES: &str = "audit_producer_spool_bytes";
const SPOOL_MAX_BYTES: &str = "audit_producer_spool_max_bytes";
const SPOOL_AGE: &str = "audit_producer_spool_oldest_timestamp_seconds";
const SPOOL_CORRUPT: &str = "audit_producer_spool_corrupt_regions";
const SPOOL_CORRUPT_ENTRIES: &str = "audit_producer_spool_corrupt_events";
const REPLACED: &str = "audit_producer_clients_replaced_total";

/// Every outcome of an event.
const OUTCOMES: [&str; 6] = [
    "stored",
    "too_large",
    "buffer_full",
    "spool_full",
    "closed",
    "given_up",
];

/// Gives the recorder the help texts, and begins the counters at 0: what appears with its first
/// increase has not increased for Prometheus. Call it once, after the recorder was installed.
pub fn describe() {
    describe_counter!(
        EVENTS,
        Unit::Count,
        "Published events by `outcome`: stored, too_large, buffer_full, spool_full, closed, given_up."
    );
    describe_gauge!(
        BUFFERED,
        Unit::Count,
        "Events in memory that Kafka did not confirm."
    );
    describe_histogram!(
        DELIVERY,
        Unit::Seconds,
        "From publishing an event, or reading it back from the spool, to Kafka's confirmation."
    );
    describe_gauge!(
        CLOCK_AHEAD,
        Unit::Seconds,
        "By how much Kafka's clock is at least ahead of this machine's, negative if it is behind; \
         0 as long as the last confirmation does not show that they differ."
    );
    describe_gauge!(
        SPOOL_EVENTS,
        Unit::Count,
        "Events in the spool that Kafka did not confirm."
    );
    describe_gauge!(SPOOL_BYTES, Unit::Bytes, "Size of the spool on disk.");
    describe_gauge!(
        SPOOL_MAX_BYTES,
        Unit::Bytes,
        "Largest size of the spool, as configured; beyond it events are refused."
    );
    describe_gauge!(
        SPOOL_AGE,
        Unit::Seconds,
        "When the oldest event in the spool was written, since 1970; 0 if it is empty."
    );
    describe_gauge!(
        SPOOL_CORRUPT,
        Unit::Count,
        "Regions of the spool that were put aside since the start because they cannot be read."
    );
    describe_gauge!(
        SPOOL_CORRUPT_ENTRIES,
        Unit::Count,
        "Events that were in those regions, as far as the events around them tell."
    );
    describe_counter!(
        REPLACED,
        Unit::Count,
        "Kafka clients that were replaced because they could not go on."
    );
    for outcome in OUTCOMES {
        counter!(EVENTS, "outcome" => outcome).increment(0);
    }
    counter!(REPLACED).increment(0);
}

/// Counts one event that ended as `outcome`.
pub(crate) fn ended(outcome: &'static str) {
    counter!(EVENTS, "outcome" => outcome).increment(1);
}

/// Counts one event that is stored.
pub(crate) fn stored(took: Duration) {
    ended("stored");
    histogram!(DELIVERY).record(took);
}

/// Says how far Kafka's clock is ahead, in milliseconds.
pub(crate) fn kafka_clock_ahead(millis: i64) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge may be off by one above 2^53"
    )]
    gauge!(CLOCK_AHEAD).set(millis as f64 / 1_000.0);
}

/// Counts a client that was replaced.
pub(crate) fn replaced() {
    counter!(REPLACED).increment(1);
}

/// Says how much waits in memory.
pub(crate) fn buffered(events: usize) {
    gauge!(BUFFERED).set(float(u64::try_from(events).unwrap_or(u64::MAX)));
}

/// Says how much waits on disk, and how much may.
pub(crate) fn spool(on_disk: &OnDisk, max_bytes: u64) {
    gauge!(SPOOL_EVENTS).set(float(on_disk.entries));
    gauge!(SPOOL_BYTES).set(float(on_disk.bytes));
    gauge!(SPOOL_MAX_BYTES).set(float(max_bytes));
    gauge!(SPOOL_AGE).set(float(on_disk.oldest_ms.unwrap_or(0)) / 1_000.0);
    gauge!(SPOOL_CORRUPT).set(float(on_disk.corrupt_regions));
    gauge!(SPOOL_CORRUPT_ENTRIES).set(float(on_disk.corrupt_entries));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge may be off by one above 2^53"
)]
fn float(number: u64) -> f64 {
    number as f64
}
