//! The endpoints.

use std::time::Duration;

use audit_producer::Producer;
use audit_schema::{Event, EventId};
use audit_service::http::LimitedBody;
use audit_service::keys::{ApiKeys, Identity, Scope};
use audit_service::{ApiError, auth, traces};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use chrono::Utc;
use serde::Serialize;
use tokio::time::Instant;

use crate::confirm::confirm;
use crate::{events, metrics, track};

/// What the endpoints need.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// Where events go.
    pub producer: Producer,
    /// Who may send them.
    pub keys: ApiKeys,
    /// How long an answer waits for Kafka.
    pub confirm_timeout: Duration,
}

/// The routes, without the layers of [`finish`](audit_service::http::finish).
pub fn router(ingest: Ingest) -> Router {
    let events = Router::new()
        .route("/events/track", post(track_event))
        .route("/v1/events", post(create_events));
    // No key has a limit here: the plugin does not repeat what is refused, so events were lost.
    auth::require(events, ingest.keys.clone(), Scope::Write, None)
        .route("/identify/{id}", get(identify))
        .route("/api/auth/jwks", get(list_signing_keys))
        .with_state(ingest)
}

/// `POST /events/track`: one event of the plugin.
async fn track_event(
    State(ingest): State<Ingest>,
    Extension(caller): Extension<Identity>,
    body: LimitedBody,
) -> Result<Json<Taken>, ApiError> {
    let deadline = Instant::now() + ingest.confirm_timeout;
    let taken = async {
        let mut event = track::parse(&body.bytes, caller.project)?;
        event.trace_parent = traces::current();
        confirm(ingest.producer.publish(&event), deadline).await?;
        Ok(Taken { id: event.id })
    }
    .await;
    metrics::answered("track", &taken);
    taken.map(Json)
}

#[derive(Serialize)]
struct Taken {
    id: EventId,
}

/// `POST /v1/events`: one event or many, each with its own result.
async fn create_events(
    State(ingest): State<Ingest>,
    Extension(caller): Extension<Identity>,
    body: LimitedBody,
) -> Result<Response, ApiError> {
    let deadline = Instant::now() + ingest.confirm_timeout;
    let now = Utc::now();
    let trace_parent = traces::current();
    let under_way: Vec<_> = events::split(&body.bytes)?
        .into_iter()
        .map(|item| {
            let mut parsed = events::parse(item, caller.project.clone(), now)?;
            parsed.event.trace_parent = trace_parent;
            let event: &Event<'_> = &parsed.event;
            let receipt = if parsed.maybe_delivered {
                ingest.producer.publish_maybe_delivered(event)
            } else {
                ingest.producer.publish(event)
            };
            Ok((event.id, receipt))
        })
        .collect();
    let mut results = Vec::with_capacity(under_way.len());
    for (index, published) in under_way.into_iter().enumerate() {
        let result = match published {
            Ok((id, receipt)) => confirm(receipt, deadline).await.map(|()| id),
            Err(error) => Err(error),
        };
        metrics::answered("v1", &result);
        results.push(ItemResult::new(index, result));
    }
    Ok(answer(results))
}

#[derive(Serialize)]
struct ItemResult {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
}

#[derive(Serialize)]
struct ItemError {
    code: &'static str,
    message: String,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl ItemResult {
    fn new(index: usize, result: Result<EventId, ApiError>) -> Self {
        let error = result.as_ref().err().map(|error| ItemError {
            code: error.code(),
            message: error.to_string(),
            retry_after: match error {
                ApiError::Unavailable { retry_after, .. } => Some(*retry_after),
                _ => None,
            },
        });
        Self {
            index,
            id: result.ok(),
            error,
        }
    }
}

/// 200 if any event was taken; otherwise 503 if any may be taken later, because a client that
/// repeats the request loses nothing; otherwise 400.
fn answer(results: Vec<ItemResult>) -> Response {
    #[derive(Serialize)]
    struct Results {
        results: Vec<ItemResult>,
    }
    let taken = results.iter().any(|result| result.error.is_none());
    let retry_after = results
        .iter()
        .filter_map(|result| result.error.as_ref()?.retry_after)
        .max();
    let body = Json(Results { results });
    match retry_after {
        _ if taken => body.into_response(),
        None => (StatusCode::BAD_REQUEST, body).into_response(),
        Some(after) => {
            let header = [(RETRY_AFTER, after.as_secs().max(1).to_string())];
            (StatusCode::SERVICE_UNAVAILABLE, header, body).into_response()
        }
    }
}

/// `GET /identify/{id}`: the plugin asks `kvUrl` who a visitor is. We know nobody, and say so at
/// once: a 404 would make it try three times during a sign-in.
async fn identify() -> Json<()> {
    Json(())
}

/// `GET /api/auth/jwks`: the keys the vendor's dashboard signs its requests with. We have no
/// dashboard, so no request is genuine. The plugin asks when anybody knocks at the auth server's
/// `/dash/*` with a token, and an answer other than a list of keys ends the auth server's process
/// (an unhandled rejection in `@better-auth/infra` 0.4.5).
async fn list_signing_keys() -> Json<SigningKeys> {
    Json(SigningKeys { keys: [] })
}

#[derive(Serialize)]
struct SigningKeys {
    keys: [(); 0],
}
