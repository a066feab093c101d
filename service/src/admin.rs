//! The admin port: is it alive, is it ready, what does it measure.
//!
//! `/livez` asks nobody: a process that answers is alive. `/readyz` says what the service last
//! told its [`Readiness`]. The port belongs in no ingress: who has no certificate of `tls.client_ca`
//! is kept out, and there is no other authentication.
//!
//! [`healthcheck`] asks a running service as a probe would, so that an image needs no other program
//! for it.

mod healthcheck;

use std::net::SocketAddr;
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

pub use healthcheck::{HealthcheckError, healthcheck};

/// How often the recorder tidies its histograms.
const UPKEEP: Duration = Duration::from_secs(5);

/// The type of what Prometheus reads.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Most connections of probes and scrapers.
const MAX_CONNECTIONS: usize = 100;

/// How long one of them may read nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

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
}
