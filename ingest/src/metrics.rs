//! The metrics of ingest; the producer and the HTTP layers have their own.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use audit_service::ApiError;
use metrics::{Unit, counter, describe_counter};

const EVENTS: &str = "audit_ingest_events_total";

/// Gives the recorder the help texts, and begins the counters at 0. Call it once, after the recorder
/// was installed.
pub fn describe() {
    describe_counter!(
        EVENTS,
        Unit::Count,
        "Events by `endpoint` (track, v1) and `result`: taken, or the code of the error."
    );
    for endpoint in ["track", "v1"] {
        for result in ["taken", "invalid", "too_large", "unavailable", "internal"] {
            counter!(EVENTS, "endpoint" => endpoint, "result" => result).increment(0);
        }
    }
}

/// Counts one event that was taken or refused.
pub(crate) fn answered<T>(endpoint: &'static str, result: &Result<T, ApiError>) {
    let result = result.as_ref().map_or_else(ApiError::code, |_| "taken");
    counter!(EVENTS, "endpoint" => endpoint, "result" => result).increment(1);
}
