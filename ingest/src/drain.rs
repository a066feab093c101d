//! Empties the spool of an instance that will not come back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use audit_producer::{CheckError, CreateError, Producer};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// How often progress is said.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Why the spool is not empty.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// There is no such folder: name the one that is meant.
    #[error("there is no spool in {folder}", folder = .0.display())]
    NoSpool(PathBuf),
    /// The spool, or the section `kafka`, cannot be used.
    #[error(transparent)]
    Producer(#[from] CreateError),
    /// Kafka does not take events: mend it, and drain again.
    #[error(transparent)]
    Kafka(#[from] CheckError),
    /// It was asked to stop: drain again.
    #[error("stopped with {events} events left in the spool; none is lost")]
    Stopped {
        /// How many.
        events: u64,
    },
}

/// Sends everything in the spool `folder` to Kafka, in order, and gives how many events that were.
/// Each is stored once, whether Kafka had it before or not.
pub async fn drain(
    mut config: Config,
    folder: &Path,
    shutdown: CancellationToken,
) -> Result<u64, DrainError> {
    if !folder.join("lock").exists() {
        return Err(DrainError::NoSpool(folder.to_owned()));
    }
    if let Some(spool) = &mut config.kafka.spool {
        folder.clone_into(&mut spool.folder);
    }
    let producer = Producer::new(&config.kafka)?;
    let all = producer.in_spool();
    tracing::info!(events = all, "draining the spool");
    while !producer.flush(SAY_EVERY).await {
        tracing::info!(left = producer.in_spool(), of = all, "draining the spool");
        if shutdown.is_cancelled() {
            let events = producer.close(Duration::ZERO).await.spooled;
            return Err(DrainError::Stopped { events });
        }
        let asked = producer.clone();
        let checked = tokio::task::spawn_blocking(move || asked.check(SAY_EVERY)).await;
        if let Ok(Err(wrong)) = checked
            && wrong.is_misconfigured()
        {
            producer.close(Duration::ZERO).await;
            return Err(wrong.into());
        }
    }
    producer.close(Duration::ZERO).await;
    Ok(all)
}
