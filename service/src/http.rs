//! What every HTTP answer has in common, and serving it.
//!
//! [`finish`] is applied once, by whoever serves: services export bare routers, so that several
//! can be merged into one.

mod limits;

use std::any::Any;
use std::net::SocketAddr;
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
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, field};

pub use limits::LimitedBody;
use limits::Limits;

use crate::config::Validate;
use crate::{ApiError, metrics, telemetry};

/// How long a connection may take to send a request's head. This is also how long it may be idle,
/// so it is longer than the 60 s of common load balancers: a connection must not be closed under
/// a request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a client may read nothing of an answer before it is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many files a service has open beside its connections, generously.
const OTHER_FILES: u64 = 1_000;

/// Longest text of a framework's refusal that is passed on.
const MAX_REASON: usize = 4_096;

/// How much of a body that is too large is still read, in multiples of the limit: a client that
/// is cut off while it sends does not see why.
const DRAIN_FACTOR: usize = 8;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where an API listens, and what one request may cost.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// Most connections; further ones wait until one ends.
    pub max_connections: usize,
    /// Most requests that are answered at once; further ones are refused with 429.
    pub max_requests: usize,
    /// Largest body, in bytes.
    pub max_body_bytes: usize,
    /// Most bytes of all bodies that are read and handled at once; what is more is refused with
    /// 429.
    pub max_bodies_bytes: usize,
    /// How long a body may take to come, from the end of its head.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// How long a request may take, from its head to the head of its answer.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
}

impl Validate for Http {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (name, value) in [
            ("max_connections", self.max_connections),
            ("max_requests", self.max_requests),
            ("max_body_bytes", self.max_body_bytes),
        ] {
            if value == 0 {
                complaints.push(format!("http.{name} must be at least 1"));
            }
        }
        if self.max_bodies_bytes < self.max_body_bytes {
            let least = "http.max_bodies_bytes must be at least http.max_body_bytes";
            complaints.push(least.to_owned());
        }
        if self.body_timeout.is_zero() || self.body_timeout > self.request_timeout {
            let range = "http.body_timeout must be above 0 and at most http.request_timeout";
            complaints.push(range.to_owned());
        }
        if self.request_timeout.is_zero() {
            complaints.push("http.request_timeout must not be 0".to_owned());
        }
        complaints
    }
}

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
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(http.max_body_bytes))
        .layer(from_fn_with_state(Limits::new(http), answer))
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

    let mut response = async {
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
        tracing::debug!(status, duration_ms = took.as_millis(), "answered");
        response
    }
    .instrument(span)
    .await;

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

/// Serves `app` on `listener` until `shutdown`, then finishes the requests that are under way. At
/// most `max_connections` are open; further ones wait to be accepted.
///
/// An answer that streams without end has to watch the same token.
pub async fn serve(
    mut listener: TcpListener,
    app: Router,
    max_connections: usize,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    allow_open_files(max_connections);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            (stream, _) = Listener::accept(&mut listener), if connections.len() < max_connections => {
                connections.spawn(connection(stream, app.clone(), shutdown.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Raises the number of files that may be open, which connections are too, as far as we may.
fn allow_open_files(connections: usize) {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX);
    let needed = needed.saturating_add(OTHER_FILES);
    let allowed = getrlimit(Resource::Nofile);
    if allowed.current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = allowed.maximum.map_or(needed, |most| most.min(needed));
    let wished = Rlimit {
        current: Some(raised),
        ..allowed
    };
    if setrlimit(Resource::Nofile, wished).is_err() || raised < needed {
        tracing::warn!(
            needed,
            allowed = raised,
            "fewer files may be open than connections are allowed: raise the limit nofile, or \
             lower http.max_connections"
        );
    }
}

async fn connection(stream: TcpStream, app: Router, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(app),
        );
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}
