//! An answer means that Kafka has the event.

use std::time::Duration;

use audit_producer::{PublishError, Receipt};
use audit_schema::wire::MAX_EVENT_BYTES;
use audit_service::ApiError;
use tokio::time::Instant;

/// When a client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Waits for `receipt` until `deadline`.
///
/// An event that is not confirmed by then is in doubt and travels on: a client that gave it an id
/// may repeat it, and it is stored once.
pub(crate) async fn confirm(receipt: Receipt, deadline: Instant) -> Result<(), ApiError> {
    match tokio::time::timeout_at(deadline, receipt).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(PublishError::TooLarge(_))) => Err(ApiError::TooLarge(MAX_EVENT_BYTES)),
        Ok(Err(PublishError::BufferFull | PublishError::Closed)) => {
            Err(unavailable("no more events can be taken now"))
        }
        Ok(Err(PublishError::Undelivered { .. } | PublishError::Broken { .. })) | Err(_) => Err(
            unavailable("the event was not confirmed in time and may be stored nevertheless"),
        ),
    }
}

fn unavailable(reason: &'static str) -> ApiError {
    ApiError::Unavailable {
        reason,
        retry_after: RETRY_AFTER,
    }
}
