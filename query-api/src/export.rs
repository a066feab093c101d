//! `/v1/audit-logs/export`: everything a filter matches in a frozen set, as a file.
//!
//! The file is made while it is sent: a task reads events, and whoever sends the file writes them when
//! the client has taken what was before. It reads stretch by stretch, each found by the place of
//! the event before it. So memory does not grow with the file, no query lasts long, and between two
//! stretches others have their turn. A client that keeps the task waiting loses its query, and gets a
//! new one when it comes for more: stretches are short until it keeps up.
//!
//! A whole file says so at its end; where reading fails, the connection is broken. A file that
//! was cut goes on with `asOf` of its head and `after`, the position of the last whole event in it.

mod csv;
mod format;
mod ndjson;
mod parquet;
mod whole;

use std::time::Duration;

use audit_schema::Position;
use audit_schema::row::{EventRow, Millis};
use audit_service::ApiError;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::cursor::{FrozenSet, Place};
use crate::event::rfc3339;
use crate::filter::{Filter, Order};
use crate::query_string::QueryString;
use crate::{QueryApi, metrics};
use format::Encoder;
pub(crate) use format::Format;
use whole::{Part, Whole};

/// Parameters beside those of the filter.
const PARAMETERS: [&str; 4] = ["format", "order", "asOf", "after"];

/// The set that a file is of; sealed.
const AS_OF: HeaderName = HeaderName::from_static("audit-as-of");

/// How many events a stretch has at first, and in the end, when it has become twice as long again and
/// again.
const SHORTEST: u64 = 2_000;
const LONGEST: u64 = 64_000;

/// How long a query waits for the client.
const PATIENCE: Duration = Duration::from_millis(100);

/// `GET /v1/audit-logs/export`
pub(crate) async fn export_audit_logs(
    State(api): State<QueryApi>,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = QueryString::parse(raw.as_deref())?;
    let read = api.recorder().export("export", &query);
    let format = query.take_word("format", Format::ALL, Format::name)?;
    let format = format.unwrap_or(Format::Ndjson);
    let as_of = query.take_one("asOf")?;
    let after = query
        .take_one("after")?
        .map(|text| position(&text))
        .transpose()?;
    if after.is_some() && as_of.is_none() {
        let reason = "needs asOf: the header audit-as-of of the file that was cut";
        return Err(ApiError::invalid("after", reason));
    }
    let order = Order::take(&mut query)?;
    let filter = Filter::take(caller.reach.clone(), &mut query)?.in_order(order);
    Filter::refuse_rest(&query, &PARAMETERS)?;

    let now = Millis::from(Utc::now());
    let named = api.frozen_as_of(as_of.as_deref(), filter.reach(), now)?;
    let place = api.streams().export()?;
    let turn = api.reader().file_turn().await?;
    let set = turn.named_or_now(named).await?;
    let (behind, events) = match after {
        None => (None, 0),
        Some(position) => {
            let row = turn.row_at(&filter, &set, position).await?;
            let row = row.ok_or_else(|| {
                let reason = "is the position of no event of this file; is the filter the same?";
                ApiError::invalid("after", reason)
            })?;
            let behind = Place::of(&row);
            let events = turn.count_up_to(&filter, &set, &behind).await?;
            (Some(behind), events)
        }
    };
    drop(turn);
    let part = if behind.is_none() {
        Part::Start
    } else {
        Part::Rest
    };
    let as_of = api.cursors().seal_set(&set, filter.reach());
    let head = head(format, part, &caller, &as_of, set.frozen_at)?;
    let encoder = Encoder::new(format, part).map_err(ApiError::internal)?;
    api.recorder().record(&caller, read);
    let closing = api.closing().clone();
    let reading = Reading {
        api,
        filter,
        set,
        behind,
        length: SHORTEST,
    };
    let (to, pieces) = mpsc::channel(1);
    // It ends with the file: when that is dropped, so is the set.
    let mut tasks = JoinSet::new();
    tasks.spawn(reading.run(to));
    let export = Export {
        pieces,
        as_of,
        encoder,
        events,
        closing,
        _reading: tasks,
        _place: place,
    };
    Ok((head, Body::from_stream(export.bytes())).into_response())
}

/// A position as events of files and answers have it.
fn position(text: &str) -> Result<Position, ApiError> {
    let mut numbers = text.split('-');
    let mut parts = || {
        Some(Position {
            incarnation: numbers.next()?.parse().ok()?,
            partition: numbers.next()?.parse().ok()?,
            offset: numbers.next()?.parse().ok()?,
        })
    };
    let position = parts().filter(|_| numbers.next().is_none());
    position.ok_or_else(|| {
        let reason = "is no position; write incarnation, partition and offset, such as 1-4-1234";
        ApiError::invalid("after", reason)
    })
}

fn head(
    format: Format,
    part: Part,
    caller: &Caller,
    as_of: &str,
    frozen_at: Millis,
) -> Result<[(HeaderName, HeaderValue); 3], ApiError> {
    let time = DateTime::<Utc>::from(frozen_at).to_rfc3339_opts(SecondsFormat::Secs, true);
    let time = time.replace(':', "");
    let name = format!(
        "audit-logs-{}-{time}.{}",
        caller.reach.project,
        format.name()
    );
    let disposition = format!("attachment; filename=\"{name}\"");
    let value = |text: &str| HeaderValue::try_from(text).map_err(ApiError::internal);
    Ok([
        (
            CONTENT_TYPE,
            HeaderValue::from_static(format.media_type(part)),
        ),
        (CONTENT_DISPOSITION, value(&disposition)?),
        (AS_OF, value(as_of)?),
    ])
}

/// A file that is being sent.
struct Export {
    /// One that lies ready, while the next is read.
    pieces: mpsc::Receiver<Result<Piece, ApiError>>,
    as_of: String,
    encoder: Encoder,
    /// How many events there are up to the last one that was written.
    events: u64,
    closing: CancellationToken,
    _reading: JoinSet<()>,
    _place: OwnedSemaphorePermit,
}

impl Export {
    /// The bytes of the file; an error breaks the connection.
    fn bytes(self) -> impl Stream<Item = Result<Bytes, ApiError>> {
        stream::try_unfold(Some(self), async |export| {
            let Some(export) = export else {
                return Ok(None);
            };
            let closing = export.closing.clone();
            tokio::select! {
                () = closing.cancelled() => {
                    tracing::info!("a file was cut: this service stops");
                    Err(ApiError::internal("this service stops"))
                }
                next = export.next() => match next {
                    Ok((bytes, export)) => Ok(Some((bytes, export))),
                    Err(error) => {
                        tracing::warn!(%error, "a file was cut");
                        Err(error)
                    }
                }
            }
        })
    }

    /// The next bytes, and what is left of the file behind them.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), ApiError> {
        loop {
            let piece = self.pieces.recv().await;
            let piece = piece.unwrap_or_else(|| Err(ApiError::internal("its reader is gone")));
            match piece? {
                Piece::Events(rows) => {
                    let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
                    self.events = self.events.saturating_add(count);
                    metrics::exported(count);
                    let mut encoder = self.encoder;
                    // Compressing a row group takes a while.
                    let work = tokio::task::spawn_blocking(move || {
                        let bytes = encoder.rows(&rows);
                        (encoder, bytes)
                    });
                    let (encoder, bytes) = work.await.map_err(ApiError::internal)?;
                    let bytes = bytes.map_err(ApiError::internal)?;
                    self.encoder = encoder;
                    // A row group of Parquet is not full yet.
                    if !bytes.is_empty() {
                        return Ok((bytes.into(), Some(self)));
                    }
                }
                Piece::End { removed_before } => {
                    let whole = Whole {
                        events: self.events,
                        as_of: self.as_of,
                        removed_before: removed_before.map(rfc3339),
                    };
                    let encoder = self.encoder;
                    let work = tokio::task::spawn_blocking(move || encoder.end(&whole));
                    let bytes = work.await.map_err(ApiError::internal)?;
                    return Ok((bytes.map_err(ApiError::internal)?.into(), None));
                }
            }
        }
    }
}

/// What is read of a file.
enum Piece {
    Events(Vec<EventRow>),
    /// There are no more, and before this time some may be lacking.
    End {
        removed_before: Option<Millis>,
    },
}

/// Where the events of a file come from.
struct Reading {
    api: QueryApi,
    filter: Filter,
    set: FrozenSet,
    /// The place of the last event that was read.
    behind: Option<Place>,
    /// How many events the next stretch may have.
    length: u64,
}

/// Why a stretch ended.
enum Ended {
    /// It has as many events as it may.
    Full,
    /// The client waits with these.
    Slow(Vec<EventRow>),
    /// The walk has no more events.
    Walk { removed_before: Option<Millis> },
    /// The client left.
    Left,
}

impl Reading {
    /// Reads to the end of the walk, an error, or until nobody takes the pieces.
    async fn run(mut self, to: mpsc::Sender<Result<Piece, ApiError>>) {
        loop {
            let piece = match self.stretch(&to).await {
                Ok(Ended::Full) => {
                    self.length = LONGEST.min(self.length.saturating_mul(2));
                    continue;
                }
                Ok(Ended::Slow(rows)) => {
                    self.length = SHORTEST;
                    Ok(Piece::Events(rows))
                }
                Ok(Ended::Walk { removed_before }) => Ok(Piece::End { removed_before }),
                Ok(Ended::Left) => return,
                Err(error) => Err(error),
            };
            let last = !matches!(piece, Ok(Piece::Events(_)));
            if to.send(piece).await.is_err() || last {
                return;
            }
        }
    }

    /// Reads the next stretch, in one turn.
    async fn stretch(
        &mut self,
        to: &mpsc::Sender<Result<Piece, ApiError>>,
    ) -> Result<Ended, ApiError> {
        let turn = self.api.reader().file_turn().await?;
        let behind = self.behind.clone();
        let mut stretch = turn.stretch(&self.filter, &self.set, behind, self.length)?;
        loop {
            let rows = stretch.next().await?;
            let Some(last) = rows.last() else {
                break;
            };
            self.behind = Some(Place::of(last));
            match tokio::time::timeout(PATIENCE, to.reserve()).await {
                Ok(Ok(room)) => room.send(Ok(Piece::Events(rows))),
                Ok(Err(_)) => return Ok(Ended::Left),
                Err(_) => return Ok(Ended::Slow(rows)),
            }
        }
        if !stretch.ends_the_walk() {
            return Ok(Ended::Full);
        }
        let removed_before = turn.removed_before(self.filter.reach()).await?;
        Ok(Ended::Walk { removed_before })
    }
}
