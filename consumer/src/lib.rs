#![doc = include_str!("../README.md")]

pub mod alone;
mod assignments;
pub mod audit;
pub mod batch;
pub mod config;
pub mod dead_letters;
pub mod erase;
pub mod erasures;
pub mod error;
pub mod freshness;
pub mod group;
mod holes;
pub mod import;
mod incarnation;
mod membership;
mod metrics;
pub mod migrate;
mod month;
pub mod offsets;
pub mod partition;
mod publish;
pub mod recovery;
pub mod refill;
mod removed;
pub mod repair;
pub mod replay;
mod reread;
pub mod retention;
mod self_audit;
mod server_state;
pub mod settle;
mod shards;
pub mod skip;
pub mod source;
pub mod store;
mod stored;
pub mod topic;
pub mod traced;
pub mod verify;
pub mod writer;

use std::sync::Arc;

use audit_schema::migrate::MigrateError;
use audit_service::Tasks;
use audit_service::admin::{self, Readiness};
use audit_service::tasks::{Failure, TasksError};
use audit_service::{telemetry, traces};
use tokio_util::sync::CancellationToken;

use crate::assignments::Parts;
use crate::audit::Auditor;
use crate::config::Config;
use crate::freshness::Freshness;
use crate::settle::Settler;
use crate::topic::{Topic, TopicError};
use crate::writer::Writer;

pub use crate::metrics::describe as describe_metrics;

/// Why the consumer ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The topic cannot be consumed as it is.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The tables could not be made.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// Kafka's client could not be set up.
    #[error("kafka's client cannot be set up")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// A part of it ended.
    #[error(transparent)]
    Tasks(#[from] TasksError),
}

/// Consumes until `shutdown`, then finishes what it holds within the configured budget.
/// `freshness` tells meanwhile how far all is readable.
pub async fn run(
    config: Config,
    readiness: Readiness,
    freshness: Freshness,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let store = Arc::new(Writer::new(&config.clickhouse, config.batch.in_flight));
    let topic = Topic::new(&config, store.client().clone());
    let incarnation = topic.check().await?;
    let watching = freshness
        .clone()
        .watch(topic.clone(), store.client().clone(), shutdown.clone());
    let asking = server_state::watch(store.client().clone(), shutdown.clone());
    let settler = Arc::new(Settler::new(Arc::clone(&store)));

    let parts = Parts {
        incarnation,
        topic,
        store,
        settler: Arc::clone(&settler),
        clock_skew: config.settle.clock_skew,
        retention: config.topic.retention,
        readiness,
        freshness: freshness.clone(),
    };
    metrics::retention(config.topic.retention);
    let (interval, budget) = (config.settle.interval, config.shutdown.budget);
    let auditor = Auditor::in_background(&config.clickhouse);
    let audit = config.audit;
    let retention = retention::watch(config.clone(), Arc::clone(&settler), shutdown.clone());

    // Counting goes on until all that is held is written.
    let written = CancellationToken::new();
    let (all_written, stop) = (written.clone(), shutdown.clone());
    let mut tasks = Tasks::new(shutdown);
    tasks.spawn("membership", async move {
        let ended = membership::run(&config, &parts, stop).await;
        all_written.cancel();
        ended
    });
    tasks.spawn("freshness", well(watching));
    tasks.spawn("server state", well(asking));
    let audited = self_audit::run(auditor, Arc::clone(&settler), audit, written.clone());
    tasks.spawn("self audit", well(audited));
    tasks.spawn("retention", well(retention));
    tasks.spawn("settler", async move {
        settler.run(interval, written).await?;
        // Once more for what was answered last.
        settler.round().await
    });
    // The source gives up at the budget; what then follows it is quick.
    tasks.join(budget.saturating_mul(2)).await?;
    Ok(())
}

/// A task that does not fail.
async fn well(task: impl Future<Output = ()>) -> Result<(), Failure> {
    task.await;
    Ok(())
}

/// Runs the consumer with its admin port, as the service does.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let recorder = telemetry::init(&config.telemetry).map_err(failed("telemetry"))?;
    let traces = traces::begin("audit-consumer", &config.telemetry.traces);
    let traces = traces.map_err(failed("traces"))?;
    describe_metrics();
    tracing::info!(config = ?config, "consumer starts");
    let readiness = Readiness::new(shutdown.clone());
    let freshness = Freshness::default();
    let told = freshness.clone();
    let watermarks = admin::document("/watermarks", move || told.report());
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.attend(
        "admin port",
        admin::serve_with(
            config.admin.clone(),
            recorder,
            readiness.clone(),
            watermarks,
        ),
    );
    let budget = config.shutdown.budget.saturating_mul(3);
    tasks.spawn("consumer", run(config, readiness, freshness, shutdown));
    let ended = tasks.join(budget).await;
    traces.finish().await;
    ended?;
    tracing::info!("consumer stopped");
    Ok(())
}

fn failed<E: Into<Failure>>(task: &'static str) -> impl FnOnce(E) -> RunError {
    move |error| {
        TasksError::Failed {
            task,
            source: error.into(),
        }
        .into()
    }
}
