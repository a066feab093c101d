//! `/v1/audit-logs/tail`: events as they become readable, as server-sent events.
//!
//! They come in the order in which Kafka took them, those that `/v1/audit-logs` shows at the same
//! time and no others. The id of each says how far the reader has come, per partition; a reader
//! that comes back with the last one it saw (`Last-Event-ID`) misses none and gets none twice.
//!
//! Nothing is kept for a reader but the events of one look, and it is only looked when those are
//! gone. A reader that does not keep up thus falls behind at its own cost, and one that stops
//! reading is cut off by the server's write timeout.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use audit_schema::row::{EventRow, Millis};
use audit_service::ApiError;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::caller::Caller;
use crate::cursor::FrozenSet;
use crate::event::{AuditLog, write_on_one_line};
use crate::filter::Filter;
use crate::query_string::QueryString;
use crate::{QueryApi, metrics};

/// Parameters beside those of the filter.
const PARAMETERS: [&str; 2] = ["asOf", "lastEventId"];

/// How often it is looked for events.
const LOOK: Duration = Duration::from_millis(100);

/// Most events of one partition in one look.
const MOST: u64 = 200;

/// How soon a client that lost its connection shall come back.
const RETRY: Duration = Duration::from_secs(1);

/// `GET /v1/audit-logs/tail`
pub(crate) async fn tail_audit_logs(
    State(api): State<QueryApi>,
    caller: Caller,
    headers: HeaderMap,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = QueryString::parse(raw.as_deref())?;
    let read = api.recorder().read("tail", &query);
    let as_of = query.take_one("asOf")?;
    // What a browser sends when it comes back is newer than what its address says.
    let last_seen = last_event_id(&headers)?.or(query.take_one("lastEventId")?);
    let filter = Filter::take(caller.reach.clone(), &mut query)?;
    Filter::refuse_rest(&query, &PARAMETERS)?;

    let now = Millis::from(Utc::now());
    let place = api.streams().tail()?;
    let begun = match last_seen {
        Some(id) => {
            let opened = api.cursors().open_arrivals(&id, filter.hash(), now);
            Some(opened.inspect_err(|_| metrics::refused("stale_cursor"))?)
        }
        None => api.frozen_as_of(as_of.as_deref(), filter.reach(), now)?,
    };
    let seen = match begun {
        Some(seen) => seen,
        None => api.reader().lately().await?,
    };
    api.recorder().record(&caller, read);
    let tail = Tail {
        heartbeat: Instant::now() + api.streams().heartbeat,
        api,
        binding: filter.hash(),
        filter,
        looked: seen.clone(),
        seen,
        waiting: VecDeque::new(),
        begun: false,
        _place: place,
    };
    let events = stream::unfold(tail, |mut tail| async {
        let closing = tail.api.closing().clone();
        let event = tokio::select! {
            () = closing.cancelled() => None,
            event = tail.next() => event,
        };
        Some((Ok::<_, Infallible>(event?), tail))
    });
    let mut response = Sse::new(events).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would keep events back until it has some more.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(id) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let id = id.to_str().map_err(|_| ApiError::StaleCursor)?;
    Ok(Some(id.to_owned()).filter(|id| !id.is_empty()))
}

/// One live reader.
struct Tail {
    api: QueryApi,
    filter: Filter,
    /// What its ids are bound to: the filter's hash.
    binding: [u8; 32],
    /// What the reader has seen when it has all that was sent.
    seen: FrozenSet,
    /// What was looked at: what is seen, and what is waiting.
    looked: FrozenSet,
    /// Events to be sent.
    waiting: VecDeque<EventRow>,
    begun: bool,
    /// When to say that the connection lives.
    heartbeat: Instant,
    _place: OwnedSemaphorePermit,
}

impl Tail {
    /// The next thing to send; `None` when nothing can be read.
    async fn next(&mut self) -> Option<Event> {
        if !self.begun {
            self.begun = true;
            // Whatever comes first, a reader that comes back after it has somewhere to go on.
            return Some(self.beat().retry(RETRY));
        }
        loop {
            if let Some(row) = self.waiting.pop_front() {
                self.heartbeat = Instant::now() + self.api.streams().heartbeat;
                return Some(self.event(&row));
            }
            if Instant::now() >= self.heartbeat {
                self.heartbeat = Instant::now() + self.api.streams().heartbeat;
                return Some(self.beat());
            }
            match self.look().await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(LOOK).await,
                Err(error) => {
                    // The client comes back by itself, to this instance or another.
                    tracing::warn!(code = error.code(), "a live reader was sent away");
                    return None;
                }
            }
        }
    }

    /// Looks for events when none is waiting; says whether there are some.
    async fn look(&mut self) -> Result<bool, ApiError> {
        let set = self.api.reader().lately().await?;
        // An id is as old as the look it is of, also where nothing is found.
        self.seen.frozen_at = set.frozen_at;
        if set.ends == self.looked.ends {
            return Ok(false);
        }
        let turn = self.api.reader().live_turn().await?;
        let arrivals = turn
            .arrivals(&self.filter, &self.looked, &set, MOST)
            .await?;
        self.waiting = arrivals.rows.into();
        self.looked = arrivals.seen;
        if self.waiting.is_empty() {
            self.seen.clone_from(&self.looked);
        }
        Ok(!self.waiting.is_empty())
    }

    fn event(&mut self, row: &EventRow) -> Event {
        self.seen.pass(row);
        if self.waiting.is_empty() {
            // What lies between the events is of other filters and projects.
            self.seen.clone_from(&self.looked);
        }
        // Only maps with keys that are no texts fail, and there are none.
        let mut data = Vec::new();
        write_on_one_line(&mut data, &AuditLog::of(row)).ok();
        let data = String::from_utf8_lossy(&data);
        Event::default().id(self.id()).data(data)
    }

    /// A comment, with how far the reader has come.
    fn beat(&self) -> Event {
        Event::default().id(self.id()).comment("")
    }

    fn id(&self) -> String {
        self.api.cursors().seal_arrivals(&self.seen, self.binding)
    }
}
