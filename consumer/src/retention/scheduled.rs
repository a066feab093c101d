//! Retention by the running consumer: one member sees to it, the one that has partition 0.

use std::sync::Arc;
use std::time::Duration;

use audit_service::telemetry::with_causes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Tables, run};
use crate::batch::Table;
use crate::config::Config;
use crate::metrics;
use crate::settle::Settler;
use crate::writer::Writer;

/// How often the oldest rows are looked for, and whether it is time to run, at most.
const LOOK: Duration = Duration::from_secs(60);

/// The partition whose owner does it.
const OF_PARTITION: u32 = 0;

/// Says how old the oldest rows are, and runs retention as often as it is configured, until
/// `shutdown`. A run that is cut off is finished by the next one.
pub(crate) async fn watch(
    config: Config,
    settler: Arc<Settler<Writer>>,
    shutdown: CancellationToken,
) {
    let removes = config.retention.shortest().is_some();
    let every = config.retention.run_every.filter(|_| removes);
    if removes && every.is_none() {
        tracing::warn!(
            "[retention] says how long events are kept, but retention.run_every is \"never\": only \
             `audit-consumer retention --yes` removes them"
        );
    }
    let look = every.map_or(LOOK, |every| every.min(LOOK));
    let client = settler
        .store()
        .client()
        .clone()
        .with_setting("max_threads", "1")
        .with_setting("priority", "10");
    let tables = Tables::new(client.clone(), &config.clickhouse);
    let mut ran: Option<Instant> = None;
    let looking = async {
        loop {
            tokio::time::sleep(look).await;
            let held = settler.held();
            if !held.iter().any(|of| of.id().partition == OF_PARTITION) {
                metrics::oldest_row(Table::Events, None);
                metrics::oldest_row(Table::DeadLetters, None);
                continue;
            }
            let due = |every| ran.is_none_or(|ran| ran.elapsed() >= every);
            if every.is_some_and(due) {
                ran = Some(Instant::now());
                match run(&config, settler.store(), client.clone(), true).await {
                    Ok(done) => {
                        metrics::retention_ran(chrono::Utc::now().into());
                        if let Some(reason) = done.held_back {
                            tracing::warn!(reason, "retention holds rows back");
                        }
                    }
                    Err(error) => {
                        let error = with_causes(&error);
                        tracing::error!(error = %error, "retention failed; it is run again");
                    }
                }
            }
            for table in [Table::Events, Table::DeadLetters] {
                match tables.oldest(table).await {
                    Ok(oldest) => metrics::oldest_row(table, oldest),
                    Err(error) => tracing::debug!(error = %error, "the oldest row is not known"),
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = looking => {}
    }
}
