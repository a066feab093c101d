//! What every HTTP answer has in common, and serving it.
//!
//! [`finish`] is applied once, by whoever serves: services export bare routers, so that several
//! can be merged into one.

mod connections;
mod cors;
mod limits;
mod settings;

use std::any::Any;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, field};

pub use connections::{Connections, serve};
pub use limits::LimitedBody;
use limits::Limits;
pub use settings::Http;

use crate::traces::Span;
use crate::{ApiError, metrics, telemetry};

/// Longest text of a framework's refusal that is passed on.
const MAX_REASON: usize = 4_096;

/// How much of a body that is too large is still read, in multiples of the limit: a client that
/// is cut off while it sends does not see why.
const DRAIN_FACTOR: usize = 8;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request being answered; a handler may extract it as an `Extension`.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Keeps the client's id if it is 1 to 128 visible ASCII characters, or makes a UUIDv7.
    fn of(headers: &HeaderMap) -> Self {
        let sane = |id: &&HeaderValue| {
            (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let made = || HeaderValue::try_from(uuid::Uuid::now_v7().to_string());
        match headers.get(REQUEST_ID).filter(sane) {
            Some(id) => Self(id.clone()),
            None => Self(made().unwrap_or(HeaderValue::from_static("unknown"))),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// Gives all routes of `router` their limits, their request ids, their metrics, and one shape for
/// every refusal, the framework's own included.
pub fn finish(router: Router, http: &Http) -> Router {
    let answering = router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(http.max_body_bytes))
        .layer(from_fn_with_state(Limits::new(http), answer));
    // Outermost, so that a page may read every refusal, and a browser that asks whether it may
    // send a key has to send none.
    match cors::layer(&http.cors_origins) {
        Some(cors) => answering.layer(cors),
        None => answering,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer gives it away")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    ApiError::internal(format!("a handler panicked: {text}")).into_response()
}

async fn answer(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let http = limits.http.clone();
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let method = method_name(request.method());
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!(
        "request",
        request.id = id.as_str(),
        method,
        route,
        // Known when the key is: `auth` records them.
        project = field::Empty,
        key = field::Empty
    );

    let traced = Span::of_request(method, &route, request.headers());

    let answered = async {
        let place = limits.enter();
        request.extensions_mut().insert(limits);
        let response = if let Err(overloaded) = &place {
            overloaded.clone().into_response()
        } else if declared_len(request.headers()).is_some_and(|len| len > http.max_body_bytes) {
            let most = http.max_body_bytes.saturating_mul(DRAIN_FACTOR);
            // The answer is the same whether the rest comes or not.
            drop(tokio::time::timeout(http.request_timeout, drain(request, most)).await);
            ApiError::TooLarge(http.max_body_bytes).into_response()
        } else {
            match tokio::time::timeout(http.request_timeout, next.run(request)).await {
                Ok(response) => response,
                Err(_) => ApiError::Unavailable {
                    reason: "the answer took too long",
                    retry_after: Duration::from_secs(1),
                }
                .into_response(),
            }
        };
        let response = in_envelope(response, &id, &http).await;
        let (status, took) = (response.status().as_u16(), started.elapsed());
        metrics::answered(&route, method, status, took);
        // Never the path or the query: they hold ids and addresses of people.
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if http.access_log {
            tracing::info!(status, duration_ms, "answered");
        } else {
            tracing::debug!(status, duration_ms, "answered");
        }
        traced.say("http.response.status_code", i64::from(status));
        if status >= 500 {
            traced.fail();
        }
        response
    };
    let mut response = traced.within(answered).instrument(span).await;

    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.0);
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A method's name, of a bounded set.
fn method_name(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn declared_len(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn drain(request: Request, most: usize) {
    use axum::body::HttpBody;
    let mut body = request.into_body();
    let mut read = 0_usize;
    while read < most {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(Ok(frame)) = frame else { return };
        read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
    }
}

/// Writes the body of a refusal, and logs what is our fault.
async fn in_envelope(mut response: Response, id: &RequestId, http: &Http) -> Response {
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        None if is_bare_refusal(&response) => {
            let status = response.status();
            let (parts, body) = response.into_parts();
            let reason = to_bytes(body, MAX_REASON).await.unwrap_or_default();
            response = Response::from_parts(parts, Body::empty());
            of_framework(status, &reason, http)
        }
        None => return response,
    };
    if let ApiError::Internal(source) = &error {
        tracing::error!(error = %telemetry::with_causes(source.as_ref()), "request failed");
    }
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(error.body(id.as_str()));
    response
}

/// Whether the framework refused: its texts are plain, ours are JSON.
fn is_bare_refusal(response: &Response) -> bool {
    let status = response.status();
    let plain = response
        .headers()
        .get(CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    (status.is_client_error() || status.is_server_error()) && plain
}

/// The framework's refusals: no such route, a path, query or body it could not read.
fn of_framework(status: StatusCode, reason: &[u8], http: &Http) -> ApiError {
    let reason = String::from_utf8_lossy(reason).into_owned();
    match status {
        StatusCode::NOT_FOUND => ApiError::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(http.max_body_bytes),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::UnsupportedMediaType,
        status if status.is_client_error() => ApiError::invalid("request", reason),
        status => ApiError::internal(format!("{status}: {reason}")),
    }
}
