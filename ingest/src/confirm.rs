//! An answer means that the event is durable: in Kafka, or in the spool.

use std::time::Duration;

use audit_producer::{Receipt, Refused};
use audit_schema::wire::MAX_EVENT_BYTES;
use audit_service::ApiError;
use tokio::time::Instant;

/// When a client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Waits for `receipt` until `deadline`.
///
/// An event that is not durable by then is in doubt and travels on: a client that gave it an id
/// may repeat it, and it is stored once.
pub(crate) async fn confirm(receipt: Receipt, deadline: Instant) -> Result<(), ApiError> {
    match tokio::time::timeout_at(deadline, receipt).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Refused::TooLarge(_))) => Err(ApiError::TooLarge(MAX_EVENT_BYTES)),
        Ok(Err(Refused::BufferFull | Refused::SpoolFull | Refused::Closed)) => {
            Err(unavailable("no more events can be taken now"))
        }
        Ok(Err(Refused::GivenUp)) | Err(_) => Err(unavailable(
            "the event was not confirmed in time and may be stored nevertheless",
        )),
    }
}

fn unavailable(reason: &'static str) -> ApiError {
    ApiError::Unavailable {
        reason,
        retry_after: RETRY_AFTER,
    }
}
