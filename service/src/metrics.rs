//! The metrics every service has.
#![expect(
    clippy::disallowed_macros,
    reason = "the crate's metrics are named here"
)]

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const HTTP_REQUEST_SECONDS: &str = "audit_http_request_seconds";
const READY: &str = "audit_ready";

/// When the certificate of a listener expires, in seconds since 1970.
const CERTIFICATE_EXPIRY: &str = "audit_tls_certificate_expiry_seconds";

/// Whether the files of a certificate changed and were no good.
const CERTIFICATE_STALE: &str = "audit_tls_certificate_stale";

/// Whether the file of API keys changed and was no good.
const API_KEYS_STALE: &str = "audit_api_keys_stale";

/// Connections that ended before TLS was agreed on.
const HANDSHAKES_FAILED: &str = "audit_tls_handshake_failures_total";

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
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "When the first certificate of the chain of a `listener` expires, since 1970."
    );
    describe_gauge!(
        CERTIFICATE_STALE,
        Unit::Count,
        "1 if the files of a `listener`'s certificate changed and cannot be used, so that the old one stays; 0 if not."
    );
    describe_counter!(
        HANDSHAKES_FAILED,
        Unit::Count,
        "Connections that ended before TLS was agreed on, by `listener` and `reason`: slow, refused."
    );
    describe_gauge!(
        API_KEYS_STALE,
        Unit::Count,
        "1 if the file of API keys changed and cannot be used, so that the old keys stay; 0 if not."
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

/// A certificate was read that expires at `expiry`, in seconds since 1970.
pub(crate) fn certificate_read(listener: &'static str, expiry: i64) {
    // One that is said to last beyond 2106 outlasts us.
    let expiry = u32::try_from(expiry).unwrap_or(u32::MAX);
    gauge!(CERTIFICATE_EXPIRY, "listener" => listener).set(f64::from(expiry));
    gauge!(CERTIFICATE_STALE, "listener" => listener).set(0);
}

/// The files of a certificate changed and are no good.
pub(crate) fn certificate_stale(listener: &'static str) {
    gauge!(CERTIFICATE_STALE, "listener" => listener).set(1);
}

/// Says whether the file of API keys changed and is no good.
pub(crate) fn api_keys_stale(stale: bool) {
    gauge!(API_KEYS_STALE).set(f64::from(u8::from(stale)));
}

/// A client and a listener did not agree on TLS.
pub(crate) fn handshake_failed(listener: &'static str, reason: &'static str) {
    counter!(HANDSHAKES_FAILED, "listener" => listener, "reason" => reason).increment(1);
}

/// Says whether work can be done.
pub(crate) fn ready(ready: bool) {
    gauge!(READY).set(f64::from(u8::from(ready)));
}
