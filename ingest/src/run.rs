//! The service: the API, the admin port, the producer, and how they stop.

use std::convert::Infallible;
use std::time::Duration;

use audit_producer::{CreateError, Producer};
use audit_service::admin::{self, Readiness};
use audit_service::keys::{ApiKeys, KeysError};
use audit_service::tasks::TasksError;
use audit_service::telemetry::PrometheusHandle;
use audit_service::tls::TlsError;
use audit_service::traces::{self, TracesError};
use audit_service::{Tasks, http};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::routes::{Ingest, router};

/// How often Kafka is asked for the topic, and how long it has to answer.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Why the service ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There are no API keys: make one.
    #[error("no API keys; `audit-ingest keys create` makes one")]
    Keys(#[from] KeysError),
    /// The API cannot speak TLS: mend the section `http.tls`.
    #[error("the API cannot speak TLS")]
    Tls(#[from] TlsError),
    /// There is no producer: mend the section `kafka`.
    #[error("the producer cannot be made")]
    Producer(#[from] CreateError),
    /// Traces cannot be exported: mend the section `telemetry.traces`.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// A part of the service failed.
    #[error(transparent)]
    Tasks(#[from] TasksError),
    /// Neither Kafka nor the spool took all events.
    #[error("{events} events reached neither kafka nor the spool before the end")]
    GivenUp {
        /// How many.
        events: u64,
    },
}

/// Serves until `shutdown`, and for `http.stay_open` after it; then finishes the requests under way
/// and waits for their events.
pub async fn run(
    config: Config,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    tracing::info!(config = ?config, "starting");
    let traces = traces::begin("audit-ingest", &config.telemetry.traces)?;
    crate::metrics::describe();
    audit_producer::describe();
    let keys = ApiKeys::open(&config.keys.file)?;
    let connections = config.http.connections()?;
    let producer = Producer::new(&config.kafka)?;
    let readiness = Readiness::new(shutdown.clone());

    let mut tasks = Tasks::new(shutdown.clone());
    tasks.attend(
        "admin port",
        admin::serve(config.admin, metrics, readiness.clone()),
    );
    tasks.attend("api keys", keys.clone().watch());
    tasks.attend("kafka check", check(producer.clone(), readiness));
    let confirm_timeout = config.confirm.timeout;
    let requests = config.http.stay_open + config.shutdown.requests;
    let routes = router(Ingest {
        producer: producer.clone(),
        keys,
        confirm_timeout,
    });
    tasks.spawn("http", async move {
        let listener = TcpListener::bind(config.http.listen).await?;
        let scheme = connections.scheme();
        tracing::info!(address = %listener.local_addr()?, scheme, "api is open");
        let app = http::finish(routes, &config.http);
        http::serve(listener, app, connections, shutdown).await
    });

    let ended = tasks.join(requests).await;
    let left = producer.close(config.shutdown.events).await;
    traces.finish().await;
    ended?;
    if left.given_up > 0 {
        return Err(RunError::GivenUp {
            events: left.given_up,
        });
    }
    tracing::info!(spooled = left.spooled, "stopped");
    Ok(())
}

/// Ready as long as events can be taken and become durable: Kafka may be away, the spool may not
/// be full. A login, right or topic that is wrong from the start is another matter: only a person
/// can mend it, so the instance does not become ready before it was right once.
async fn check(producer: Producer, readiness: Readiness) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    let mut was_right = false;
    loop {
        ticks.tick().await;
        let asked = producer.clone();
        let checked = tokio::task::spawn_blocking(move || asked.check(CHECK_EVERY)).await;
        was_right |= matches!(checked, Ok(Ok(())));
        match checked {
            _ if producer.is_full() => {
                readiness.set_unready("events are refused: memory or the spool is full".to_owned());
            }
            Ok(Err(wrong)) if wrong.is_misconfigured() && !was_right => {
                readiness.set_unready(wrong.to_string());
            }
            _ => readiness.set_ready(),
        }
    }
}
