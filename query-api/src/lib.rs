#![doc = include_str!("../README.md")]

mod audit_logs;
mod better_auth;
mod caller;
pub mod config;
mod cursor;
mod event;
mod event_types;
mod export;
mod filter;
mod metrics;
mod openapi;
mod query_object;
mod query_string;
mod reader;
mod recorder;
mod stats;
mod streams;
mod tail;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use audit_producer::{CreateError, Producer};
use audit_schema::row::Millis;
use audit_service::admin::{self, Readiness};
use audit_service::keys::{ApiKeys, KeysError, Scope};
use audit_service::rate_limit::RateLimiter;
use audit_service::tasks::TasksError;
use audit_service::telemetry::{self, TelemetryError};
use audit_service::tls::TlsError;
use audit_service::traces::{self, TracesError};
use audit_service::{ApiError, Tasks, auth, http};
use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};

pub use crate::config::Config;
use crate::cursor::{Cursors, FrozenSet};
use crate::filter::Reach;
pub use crate::metrics::describe as describe_metrics;
use crate::reader::Reader;
use crate::recorder::Recorder;
use crate::streams::Streams;

/// How often ClickHouse is asked whether it is there.
const LOOK: Duration = Duration::from_secs(2);

/// What stopping may take beyond the requests that are under way.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// What the handlers share; clones are the same.
#[derive(Clone)]
pub struct QueryApi(Arc<Shared>);

struct Shared {
    keys: ApiKeys,
    reader: Reader,
    cursors: Cursors,
    freezes: better_auth::Freezes,
    streams: Streams,
    recorder: Recorder,
    closing: CancellationToken,
    limit: RateLimiter,
    max_offset: u64,
}

impl QueryApi {
    /// Reads as `config` says for whoever has one of `keys`, and records that through `producer`.
    /// Answers that last end with `closing`.
    pub fn new(
        config: &Config,
        keys: ApiKeys,
        producer: Option<Producer>,
        closing: CancellationToken,
    ) -> Self {
        let max_age = config.cursors.max_age;
        let cursors = match config.cursors.secret.expose() {
            "" => {
                tracing::info!("cursors.secret is empty: cursors end with this process");
                Cursors::new(&rand::random::<[u8; 32]>(), max_age)
            }
            secret => Cursors::new(secret.as_bytes(), max_age),
        };
        let cursors = match config.cursors.also_accepted.expose() {
            "" => cursors,
            secret => cursors.also_accepting(secret.as_bytes()),
        };
        let client = config.clickhouse.connect();
        Self(Arc::new(Shared {
            keys,
            reader: Reader::new(client, config.queries.clone()),
            cursors,
            freezes: better_auth::Freezes::default(),
            streams: Streams::new(&config.streams),
            recorder: Recorder::new(producer, config.audit.clone()),
            closing,
            limit: RateLimiter::new(config.rate_limit),
            max_offset: config.queries.max_offset,
        }))
    }

    /// Whether events can be read now, or why not.
    pub async fn check(&self) -> Result<(), String> {
        let checked = tokio::time::timeout(LOOK, self.reader().check()).await;
        match checked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("clickhouse: {}", telemetry::with_causes(&error))),
            Err(_) => Err(format!("clickhouse did not answer within {LOOK:?}")),
        }
    }

    /// The frozen set that `text` seals for `reach`, if there is one.
    fn frozen_as_of(
        &self,
        text: Option<&str>,
        reach: &Reach,
        now: Millis,
    ) -> Result<Option<FrozenSet>, ApiError> {
        let opened = text.map(|text| self.cursors().open_set(text, reach, now));
        let opened = opened.transpose();
        opened.inspect_err(|_| metrics::refused("stale_cursor"))
    }

    fn reader(&self) -> &Reader {
        &self.0.reader
    }

    fn cursors(&self) -> &Cursors {
        &self.0.cursors
    }

    fn freezes(&self) -> &better_auth::Freezes {
        &self.0.freezes
    }

    fn streams(&self) -> &Streams {
        &self.0.streams
    }

    fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    fn max_offset(&self) -> u64 {
        self.0.max_offset
    }
}

/// The routes. Whoever serves them applies [`http::finish`], once for all routers it merged.
pub fn router(api: QueryApi) -> Router {
    let reads = Router::new()
        .route("/v1/audit-logs", get(audit_logs::list_audit_logs))
        .route("/v1/audit-logs/{id}", get(audit_logs::get_audit_log))
        .route("/v1/audit-logs/query", post(audit_logs::query_audit_logs))
        .route("/v1/audit-logs/export", get(export::export_audit_logs))
        .route("/v1/audit-logs/tail", get(tail::tail_audit_logs))
        .route("/v1/audit-logs/stats", get(stats::count_audit_logs))
        .route("/v1/event-types", get(event_types::list_event_types))
        .route("/events/user", get(better_auth::list_user_events))
        .route(
            "/events/organization",
            get(better_auth::list_organization_events),
        )
        .route("/events/activity", get(better_auth::list_activity));
    let (keys, limit) = (api.0.keys.clone(), api.0.limit.clone());
    // Parquet is compressed already; live events are not kept back to be.
    let worth_it = DefaultPredicate::new().and(NotForContentType::const_new(
        "application/vnd.apache.parquet",
    ));
    auth::require(reads, keys, Scope::Read, Some(limit))
        .merge(openapi::routes())
        .layer(CompressionLayer::new().compress_when(worth_it))
        .with_state(api)
}

/// Why the service did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Logs and metrics cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// There are no keys to check callers by.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The API cannot speak TLS.
    #[error("the API cannot speak TLS; see [http.tls] of the configuration")]
    Tls(#[from] TlsError),
    /// Reads could not be recorded.
    #[error("reads cannot be recorded; see [kafka] and [audit] of the configuration")]
    Producer(#[from] CreateError),
    /// The API cannot listen.
    #[error("{address} cannot be listened on")]
    Listen {
        /// Where it should.
        address: std::net::SocketAddr,
        /// Why it cannot.
        source: std::io::Error,
    },
    /// A part of it failed.
    #[error(transparent)]
    Tasks(#[from] TasksError),
}

/// Serves the API and the admin port until `shutdown`, and for `http.stay_open` after it.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let recorded = telemetry::init(&config.telemetry)?;
    let traces = traces::begin("audit-query-api", &config.telemetry.traces)?;
    metrics::describe();
    audit_producer::describe();
    tracing::info!(?config, "starting");
    let keys = ApiKeys::open(&config.keys.file)?;
    let connections = config.http.connections()?;
    let recording = config.audit.exports || config.audit.reads;
    let producer = if recording {
        Some(Producer::new(&config.kafka)?)
    } else {
        None
    };
    let closing = connections.closing.clone();
    let api = QueryApi::new(&config, keys.clone(), producer.clone(), closing);
    let app = http::finish(router(api.clone()), &config.http);
    let address = config.http.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;

    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, scheme = connections.scheme(), "api is open");
    }
    let readiness = Readiness::new(shutdown.clone());
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.attend(
        "admin port",
        admin::serve(config.admin, recorded, readiness.clone()),
    );
    tasks.attend("key file", keys.watch());
    tasks.attend("readiness", watch(api, readiness));
    tasks.spawn("api", http::serve(listener, app, connections, shutdown));
    let under_way = config.http.request_timeout + STOP_MARGIN;
    let ended = tasks.join(config.http.stay_open + under_way).await;
    if let Some(producer) = producer {
        let left = producer.close(STOP_MARGIN).await;
        if left.given_up > 0 {
            tracing::error!(reads = left.given_up, "reads of the log were not recorded");
        }
    }
    traces.finish().await;
    Ok(ended?)
}

/// Tells the admin port whether events can be read.
async fn watch(api: QueryApi, readiness: Readiness) -> Result<(), Infallible> {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match api.check().await {
            Ok(()) => readiness.set_ready(),
            Err(reason) => readiness.set_unready(reason),
        }
    }
}
