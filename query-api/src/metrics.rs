//! Every metric of the query API.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Seconds a query took at ClickHouse, by kind.
const QUERY_SECONDS: &str = "audit_query_api_query_seconds";
/// Requests refused, by reason.
const REFUSED: &str = "audit_query_api_refused_total";
/// Totals, by whether they were counted to the end.
const TOTALS: &str = "audit_query_api_totals_total";
/// Events sent in files.
const EXPORTED: &str = "audit_query_api_exported_events_total";
/// Reads that should have been recorded and were not.
const UNRECORDED: &str = "audit_query_api_unrecorded_reads_total";
/// Requests that were reading when the last one began.
const READING: &str = "audit_query_api_reading";
/// Walks of the plugin's endpoints that are kept frozen.
const FREEZES: &str = "audit_query_api_freezes";

/// Gives the recorder the help texts, and begins at 0. Call it once, after the recorder was
/// installed.
pub fn describe() {
    describe_histogram!(
        QUERY_SECONDS,
        Unit::Seconds,
        "What a query took at ClickHouse, by `kind`: page, total, counts, arrivals, file, watermarks."
    );
    describe_counter!(
        REFUSED,
        Unit::Count,
        "Requests refused, by `reason`: busy, no_place, unavailable, too_broad, stale_cursor."
    );
    describe_counter!(
        TOTALS,
        Unit::Count,
        "Totals, by `relation`: eq were counted to the end, gte ran out of time."
    );
    describe_counter!(EXPORTED, Unit::Count, "Events sent in files.");
    describe_counter!(
        UNRECORDED,
        Unit::Count,
        "Reads that should have been recorded and were not: see the log."
    );
    describe_gauge!(
        READING,
        Unit::Count,
        "Requests that were reading when the last one began."
    );
    describe_gauge!(
        FREEZES,
        Unit::Count,
        "Walks of the plugin's endpoints that are kept frozen."
    );
    for reason in [
        "busy",
        "no_place",
        "unavailable",
        "too_broad",
        "stale_cursor",
    ] {
        counter!(REFUSED, "reason" => reason).increment(0);
    }
    for relation in ["eq", "gte"] {
        counter!(TOTALS, "relation" => relation).increment(0);
    }
    counter!(EXPORTED).increment(0);
    counter!(UNRECORDED).increment(0);
    gauge!(READING).set(0.0);
    gauge!(FREEZES).set(0.0);
}

pub(crate) fn queried(kind: &'static str, took: Duration) {
    histogram!(QUERY_SECONDS, "kind" => kind).record(took);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn totalled(exactly: bool) {
    let relation = if exactly { "eq" } else { "gte" };
    counter!(TOTALS, "relation" => relation).increment(1);
}

pub(crate) fn exported(events: u64) {
    counter!(EXPORTED).increment(events);
}

pub(crate) fn unrecorded() {
    counter!(UNRECORDED).increment(1);
}

pub(crate) fn admitted(at_once: usize, free: usize) {
    let reading = u32::try_from(at_once.saturating_sub(free)).unwrap_or(u32::MAX);
    gauge!(READING).set(f64::from(reading));
}

pub(crate) fn frozen(walks: usize) {
    gauge!(FREEZES).set(f64::from(u32::try_from(walks).unwrap_or(u32::MAX)));
}
