//! Answers that last: how many there may be at once. Each holds some memory for as long as its
//! client reads.

use std::sync::Arc;
use std::time::Duration;

use audit_service::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config, metrics};

/// When a client that found no place may come again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The places for files and live readers.
pub(crate) struct Streams {
    exports: Arc<Semaphore>,
    tails: Arc<Semaphore>,
    /// How long a live reader hears nothing at most.
    pub(crate) heartbeat: Duration,
}

impl Streams {
    pub(crate) fn new(config: &config::Streams) -> Self {
        let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            exports: places(config.max_exports),
            tails: places(config.max_tails),
            heartbeat: config.heartbeat,
        }
    }

    /// A place for a file.
    pub(crate) fn export(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        place(&self.exports)
    }

    /// A place for a live reader.
    pub(crate) fn tail(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        place(&self.tails)
    }
}

fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        metrics::refused("no_place");
        ApiError::Overloaded {
            retry_after: RETRY_AFTER,
        }
    })
}
