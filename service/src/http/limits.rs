//! What may be under way at once, so that no client makes memory grow.
//!
//! A request above the number that may be answered at once is refused with 429 before its body is
//! read. A body is read by [`LimitedBody`], in a handler and so after
//! [`require`](crate::auth::require): nobody without a key takes room, and all bodies together have
//! a bounded size.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Http, declared_len};
use crate::ApiError;

/// When a request that was refused for want of room may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The limits of one API, shared by its requests.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) http: Http,
    requests: Arc<Semaphore>,
    /// In bytes.
    bodies: Arc<Semaphore>,
}

impl Limits {
    pub(super) fn new(http: &Http) -> Self {
        let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            http: http.clone(),
            requests: places(http.max_requests),
            bodies: places(http.max_bodies_bytes),
        }
    }

    /// A place for one request.
    pub(super) fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = Arc::clone(&self.requests).try_acquire_owned();
        place.map_err(|_| ApiError::Overloaded {
            retry_after: RETRY_AFTER,
        })
    }

    async fn read<S: Send + Sync>(
        self,
        request: Request,
        state: &S,
    ) -> Result<LimitedBody, ApiError> {
        // What is not declared may be as long as a body may be.
        let size = match declared_len(request.headers()) {
            Some(declared) => declared.min(self.http.max_body_bytes),
            None => self.http.max_body_bytes,
        };
        let room = u32::try_from(size).unwrap_or(u32::MAX);
        let room = self.bodies.try_acquire_many_owned(room);
        let room = room.map_err(|_| ApiError::Overloaded {
            retry_after: RETRY_AFTER,
        })?;
        let read = Bytes::from_request(request, state);
        match tokio::time::timeout(self.http.body_timeout, read).await {
            Ok(Ok(bytes)) => Ok(LimitedBody { bytes, _room: room }),
            Ok(Err(refused)) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(ApiError::TooLarge(self.http.max_body_bytes))
            }
            Ok(Err(refused)) => Err(ApiError::invalid("body", refused.body_text())),
            Err(_) => Err(ApiError::TooSlow(self.http.body_timeout)),
        }
    }
}

/// A body, and its room among all bodies: that is free again when this is dropped.
#[derive(Debug)]
pub struct LimitedBody {
    /// The body.
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl<S: Send + Sync> FromRequest<S> for LimitedBody {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        match request.extensions_mut().remove::<Limits>() {
            Some(limits) => limits.read(request, state).await,
            None => Err(ApiError::internal("the router was not finished")),
        }
    }
}
