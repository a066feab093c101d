//! The producer's metrics. The names and their help are what an operator sees.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use std::time::Duration;

use metrics::{
    Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const EVENTS: &str = "audit_producer_events_total";
const BUFFERED: &str = "audit_producer_buffered_events";
const DELIVERY: &str = "audit_producer_delivery_seconds";

/// Gives the recorder the help texts. Call it once, after the recorder was installed.
pub fn describe() {
    describe_counter!(
        EVENTS,
        "Published events by outcome: stored, buffer_full, too_large, undelivered, broken, closed."
    );
    describe_gauge!(BUFFERED, "Events that wait for Kafka's confirmation.");
    describe_histogram!(
        DELIVERY,
        "Seconds from publishing an event to Kafka's confirmation."
    );
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

/// The gauge of events that wait.
pub(crate) fn buffered() -> Gauge {
    gauge!(BUFFERED)
}
