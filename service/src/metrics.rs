//! The metrics every service has.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use std::time::Duration;

use metrics::{Unit, describe_gauge, describe_histogram, gauge, histogram};

const HTTP_REQUEST_SECONDS: &str = "audit_http_request_seconds";
const READY: &str = "audit_ready";

/// Gives the recorder the help texts; [`telemetry::init`](crate::telemetry::init) does.
pub fn describe() {
    describe_histogram!(
        HTTP_REQUEST_SECONDS,
        Unit::Seconds,
        "From a request's head to its answer's head, by `route`, `method` and `status`."
    );
    describe_gauge!(
        READY,
        Unit::Count,
        "1 if the service can do its work, 0 if not: `/readyz` of the admin port says why."
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

/// Says whether work can be done.
pub(crate) fn ready(ready: bool) {
    gauge!(READY).set(f64::from(u8::from(ready)));
}
