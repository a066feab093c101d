//! The metrics every service has.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use std::time::Duration;

use metrics::{describe_histogram, histogram};

/// Seconds from a request's head to its answer's head, by route, method and status.
const HTTP_REQUEST_SECONDS: &str = "audit_http_request_seconds";

pub(crate) fn describe() {
    describe_histogram!(
        HTTP_REQUEST_SECONDS,
        "Seconds from a request's head to its answer's head, by route, method and status."
    );
}

/// Counts one answered request. `route` is the pattern, never the path.
pub(crate) fn answered(route: &str, method: &'static str, status: u16, took: Duration) {
    histogram!(
        HTTP_REQUEST_SECONDS,
        "route" => route.to_owned(), "method" => method, "status" => status.to_string()
    )
    .record(took);
}
