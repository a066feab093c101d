//! The service: the API, the admin port, the producer, and how they stop.

use std::time::Duration;

use audit_producer::{CheckError, CreateError, Producer};
use audit_service::admin::{self, Readiness};
use audit_service::keys::{ApiKeys, KeysError};
use audit_service::tasks::TasksError;
use audit_service::telemetry::PrometheusHandle;
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
    /// There is no producer: mend the section `kafka`.
    #[error("the producer cannot be made")]
    Producer(#[from] CreateError),
    /// A part of the service failed.
    #[error(transparent)]
    Tasks(#[from] TasksError),
    /// Kafka did not take all events in time.
    #[error("{events} events did not reach kafka before the end")]
    LeftBehind {
        /// How many.
        events: usize,
    },
}

/// Serves until `shutdown`, then finishes the requests under way and waits for their events.
pub async fn run(
    config: Config,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    tracing::info!(config = ?config, "starting");
    crate::metrics::describe();
    audit_producer::describe();
    let keys = ApiKeys::open(&config.keys.file)?;
    let producer = Producer::new(&config.kafka.producer_config())?;
    let readiness = Readiness::new(shutdown.clone());

    let mut tasks = Tasks::new(shutdown.clone());
    tasks.attend(
        "admin port",
        admin::serve(config.admin, metrics, readiness.clone()),
    );
    tasks.attend("api keys", keys.clone().watch());
    tasks.attend("kafka check", check(producer.clone(), readiness));
    let confirm_timeout = config.confirm.timeout;
    let routes = router(Ingest {
        producer: producer.clone(),
        keys,
        confirm_timeout,
    });
    tasks.spawn("http", async move {
        let listener = TcpListener::bind(config.http.listen).await?;
        tracing::info!(address = %listener.local_addr()?, "api is open");
        http::serve(listener, http::finish(routes, &config.http), shutdown).await
    });

    let ended = tasks.join(config.shutdown.requests).await;
    let events = producer.close(config.shutdown.events).await;
    ended?;
    if events > 0 {
        return Err(RunError::LeftBehind { events });
    }
    tracing::info!("stopped");
    Ok(())
}

/// Ready once Kafka has named the topic's partitions, and from then on: while Kafka is away,
/// events wait in memory, which is more than a load balancer without a server could do for them.
/// Ends only if the producer is broken; the process is then to be started anew.
async fn check(producer: Producer, readiness: Readiness) -> Result<(), CheckError> {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    let mut seen = false;
    loop {
        ticks.tick().await;
        let producer = producer.clone();
        let checked = tokio::task::spawn_blocking(move || producer.check(CHECK_EVERY)).await;
        match checked {
            Ok(Ok(())) => {
                seen = true;
                readiness.set_ready();
            }
            Ok(Err(broken @ CheckError::Broken(_))) => return Err(broken),
            Ok(Err(away)) if !seen => readiness.set_unready(away.to_string()),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
