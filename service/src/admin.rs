//! The admin port: is it alive, is it ready, what does it measure.
//!
//! `/livez` asks nobody: a process that answers is alive. `/readyz` says what the service last
//! told its [`Readiness`]. The port belongs in no ingress: who has no certificate of `tls.client_ca`
//! is kept out, and there is no other authentication.
//!
//! [`healthcheck`] asks a running service as a probe would, so that an image needs no other program
//! for it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Validate;
use crate::http::{self, Connections};
use crate::tasks::Failure;
use crate::tls::{Certificate, Tls};

/// How often the recorder tidies its histograms.
const UPKEEP: Duration = Duration::from_secs(5);

/// The type of what Prometheus reads.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Most connections of probes and scrapers.
const MAX_CONNECTIONS: usize = 100;

/// How long one of them may read nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a service may take to accept, and then to answer, a [`healthcheck`].
const PROBE: Duration = Duration::from_secs(2);

/// Most bytes of an answer that a [`healthcheck`] reads.
const MAX_ANSWER: u64 = 4_096;

/// Where the admin port listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port.
    pub listen: SocketAddr,
    /// Its TLS. Authorities of clients are all the authentication there is.
    pub tls: Tls,
}

impl Validate for Admin {
    fn complaints(&self) -> Vec<String> {
        self.tls.complaints("admin.tls")
    }
}

/// Whether a service can do its work now; all clones say the same.
///
/// It starts unready, and is unready for good once the service was told to stop.
#[derive(Debug, Clone)]
pub struct Readiness {
    obstacle: Arc<ArcSwapOption<String>>,
    shutdown: CancellationToken,
}

impl Readiness {
    /// A service that is starting and stops by `shutdown`.
    pub fn new(shutdown: CancellationToken) -> Self {
        let obstacle = Arc::new(ArcSwapOption::from_pointee("starting".to_owned()));
        Self { obstacle, shutdown }
    }

    /// Says that work can be done.
    pub fn set_ready(&self) {
        if self.obstacle.swap(None).is_some() {
            tracing::info!("ready");
        }
    }

    /// Says why work cannot be done; every change is logged.
    pub fn set_unready(&self, reason: impl Into<String>) {
        let reason = Arc::new(reason.into());
        if self.obstacle.swap(Some(Arc::clone(&reason))).as_ref() != Some(&reason) {
            tracing::warn!(reason = %reason, "not ready");
        }
    }

    /// `Ok` if work can be done, or why not.
    pub fn check(&self) -> Result<(), String> {
        if self.shutdown.is_cancelled() {
            return Err("shutting down".to_owned());
        }
        match self.obstacle.load_full() {
            None => Ok(()),
            Some(reason) => Err(reason.as_ref().clone()),
        }
    }
}

/// The routes of the admin port.
pub fn router(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    let asked = readiness.clone();
    let ready = move || async move {
        match asked.check() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    };
    Router::new()
        .route("/livez", get("alive\n"))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(move || async move {
                crate::metrics::ready(readiness.check().is_ok());
                ([(CONTENT_TYPE, METRICS)], metrics.render())
            }),
        )
}

/// A route that answers `GET path` with what `tell` tells at that moment, as JSON.
pub fn document<T: Serialize>(
    path: &str,
    tell: impl Fn() -> T + Clone + Send + Sync + 'static,
) -> Router {
    Router::new().route(path, get(async move || Json(tell()).into_response()))
}

/// Serves the admin port until it is dropped. Give it to [`Tasks::attend`](crate::Tasks::attend).
pub async fn serve(
    admin: Admin,
    metrics: PrometheusHandle,
    readiness: Readiness,
) -> Result<(), Failure> {
    serve_with(admin, metrics, readiness, Router::new()).await
}

/// [`serve`], with `more` that a service has to tell; [`document`] makes such routes.
pub async fn serve_with(
    admin: Admin,
    metrics: PrometheusHandle,
    readiness: Readiness,
    more: Router,
) -> Result<(), Failure> {
    let connections = Connections {
        max: MAX_CONNECTIONS,
        write_timeout: WRITE_TIMEOUT,
        stay_open: Duration::ZERO,
        closing: CancellationToken::new(),
        certificate: Certificate::open("admin", &admin.tls)?,
    };
    let listener = TcpListener::bind(admin.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "admin port is open");
    let upkeep = async {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            metrics.run_upkeep();
        }
    };
    let routes = router(metrics.clone(), readiness).merge(more);
    tokio::select! {
        served = http::serve(listener, routes, connections, CancellationToken::new()) => {
            Ok(served?)
        }
        () = upkeep => Ok(()),
    }
}

/// Why a service cannot be sent work; each names the address that was asked.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// It does not run, listens elsewhere, or hangs.
    #[error("http://{address}/readyz does not answer: {source}")]
    NoAnswer {
        /// What was asked.
        address: SocketAddr,
        /// What came instead of an answer.
        source: io::Error,
    },
    /// It runs, and says why it is not ready.
    #[error("http://{address}/readyz says: {reason}")]
    NotReady {
        /// What was asked.
        address: SocketAddr,
        /// What it answered.
        reason: String,
    },
    /// The port speaks TLS.
    #[error(
        "the admin port {address} speaks TLS, which a healthcheck does not: probe the port itself"
    )]
    Encrypted {
        /// What would be asked.
        address: SocketAddr,
    },
}

/// Asks the service whose admin port is `admin`, on this machine, whether it is ready. Takes 4
/// seconds at most.
pub fn healthcheck(admin: &Admin) -> Result<(), HealthcheckError> {
    let mut address = admin.listen;
    if admin.tls.is_on() {
        return Err(HealthcheckError::Encrypted { address });
    }
    match address {
        SocketAddr::V4(any) if any.ip().is_unspecified() => {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        SocketAddr::V6(any) if any.ip().is_unspecified() => {
            address.set_ip(Ipv6Addr::LOCALHOST.into());
        }
        _ => {}
    }
    let answer =
        answer_of(address).map_err(|source| HealthcheckError::NoAnswer { address, source })?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim());
    let reason = body.unwrap_or(&answer).to_owned();
    Err(HealthcheckError::NotReady { address, reason })
}

fn answer_of(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE)?;
    stream.set_read_timeout(Some(PROBE))?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 65_536).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_says_what_is_missing_and_liveness_does_not_care() {
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let router = router(metrics.handle(), readiness.clone());
        let unready = |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));

        assert_eq!(ask(&router, "/readyz").await, unready("starting"));
        readiness.set_ready();
        assert_eq!(
            ask(&router, "/readyz").await,
            (StatusCode::OK, "ready\n".to_owned())
        );
        readiness.set_unready("no assignment");
        assert_eq!(ask(&router, "/readyz").await, unready("no assignment"));
        readiness.set_ready();
        shutdown.cancel();
        assert_eq!(ask(&router, "/readyz").await, unready("shutting down"));
        assert_eq!(ask(&router, "/livez").await.0, StatusCode::OK);
        assert_eq!(ask(&router, "/metrics").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_healthcheck_says_what_readyz_says() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let admin = Admin {
            listen: SocketAddr::from(([0, 0, 0, 0], port)),
            tls: Tls::default(),
        };
        let asked = admin.clone();
        let probe = async move || {
            let probe = tokio::task::spawn_blocking(move || healthcheck(&asked));
            probe.await.unwrap().map_err(|error| error.to_string())
        };
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let served = http::serve(
            listener,
            router(metrics.handle(), readiness.clone()),
            Connections {
                max: MAX_CONNECTIONS,
                write_timeout: WRITE_TIMEOUT,
                stay_open: Duration::ZERO,
                closing: CancellationToken::new(),
                certificate: None,
            },
            shutdown.clone(),
        );
        let asking = async {
            let starting = format!("http://127.0.0.1:{port}/readyz says: starting");
            assert_eq!(probe.clone()().await, Err(starting));
            readiness.set_ready();
            assert_eq!(probe.clone()().await, Ok(()));
            shutdown.cancel();
        };
        let (served, ()) = tokio::join!(served, asking);
        served.unwrap();
        let nobody = probe().await.unwrap_err();
        assert!(nobody.contains("/readyz does not answer"), "{nobody}");
    }
}
