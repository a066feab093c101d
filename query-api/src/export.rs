//! `/v1/audit-logs/export`: everything a filter matches in a frozen set, as a file.
//!
//! The file is made while it is sent, chunk by chunk, each found by the place of the event before
//! it. So memory does not grow with the file, no query lasts long, and between two chunks others
//! have their turn. While a chunk is written the next one is read, and no more: a client that reads
//! slowly is what the one after waits for.
//!
//! A whole file says so at its end; where reading fails, the connection is broken. A file that
//! was cut goes on with `asOf` of its head and `after`, the position of the last whole event in it.

mod csv;
mod format;
mod ndjson;
mod parquet;
mod whole;

use audit_schema::Position;
use audit_schema::row::Millis;
use audit_service::ApiError;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::{Stream, stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::caller::Caller;
use crate::cursor::{FrozenSet, Place};
use crate::event::rfc3339;
use crate::filter::{Filter, Order};
use crate::query_string::QueryString;
use crate::reader::{Chunk, Slice, Start};
use crate::{QueryApi, metrics};
use format::Encoder;
pub(crate) use format::Format;
use whole::{Part, Whole};

/// Parameters beside those of the filter.
const PARAMETERS: [&str; 4] = ["format", "order", "asOf", "after"];

/// The set that a file is of; sealed.
const AS_OF: HeaderName = HeaderName::from_static("audit-as-of");

/// Most events of a chunk, and most bytes of their texts, but for the last event.
const CHUNK_ROWS: u64 = 4_000;
const CHUNK_BYTES: u64 = 8 << 20;

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
    let turn = api.reader().turn().await?;
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
    let export = Export {
        reading: Reading {
            api,
            filter,
            set,
            behind,
        },
        ahead: None,
        as_of,
        encoder,
        events,
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
    reading: Reading,
    /// What was read while the chunk before was written.
    ahead: Option<Result<Read, ApiError>>,
    as_of: String,
    encoder: Encoder,
    /// How many events there are up to the last one that was written.
    events: u64,
    _place: OwnedSemaphorePermit,
}

impl Export {
    /// The bytes of the file; an error breaks the connection.
    fn bytes(self) -> impl Stream<Item = Result<Bytes, ApiError>> {
        stream::try_unfold(Some(self), async |export| {
            let Some(export) = export else {
                return Ok(None);
            };
            let closing = export.reading.api.closing().clone();
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
            let Read {
                chunk,
                removed_before,
            } = match self.ahead.take() {
                Some(ahead) => ahead?,
                None => self.reading.next().await?,
            };
            let rows = u64::try_from(chunk.rows.len()).unwrap_or(u64::MAX);
            self.events = self.events.saturating_add(rows);
            metrics::exported(rows);
            // Compressing a row group takes a while.
            let (more, as_of, events) = (chunk.more, self.as_of.clone(), self.events);
            let mut encoder = self.encoder;
            let work = tokio::task::spawn_blocking(move || {
                let mut bytes = encoder.rows(&chunk.rows)?;
                if more {
                    return Ok((bytes, Some(encoder)));
                }
                let removed_before = removed_before.map(rfc3339);
                let whole = Whole {
                    events,
                    as_of,
                    removed_before,
                };
                bytes.extend(encoder.end(&whole)?);
                Ok::<_, format::EncodeError>((bytes, None))
            });
            let reading = &mut self.reading;
            let ahead = async {
                if more {
                    Some(reading.next().await)
                } else {
                    None
                }
            };
            let (work, ahead) = tokio::join!(work, ahead);
            self.ahead = ahead;
            let (bytes, encoder) = work
                .map_err(ApiError::internal)?
                .map_err(ApiError::internal)?;
            let bytes = Bytes::from(bytes);
            let Some(encoder) = encoder else {
                return Ok((bytes, None));
            };
            self.encoder = encoder;
            // A row group of Parquet is not full yet.
            if !bytes.is_empty() {
                return Ok((bytes, Some(self)));
            }
        }
    }
}

/// Where the events of a file come from.
struct Reading {
    api: QueryApi,
    filter: Filter,
    set: FrozenSet,
    /// The last event that was read.
    behind: Option<Place>,
}

/// A chunk, and with the last one before which time events may be lacking.
struct Read {
    chunk: Chunk,
    removed_before: Option<Millis>,
}

impl Reading {
    async fn next(&mut self) -> Result<Read, ApiError> {
        let start = match &self.behind {
            None => Start::Top(0),
            Some(place) => Start::Behind(place),
        };
        let slice = Slice {
            start,
            limit: CHUNK_ROWS,
        };
        let turn = self.api.reader().turn().await?;
        let chunk = turn
            .chunk(&self.filter, &self.set, slice, CHUNK_BYTES)
            .await?;
        let removed_before = if chunk.more {
            None
        } else {
            turn.removed_before(self.filter.reach()).await?
        };
        if let Some(last) = chunk.rows.last() {
            self.behind = Some(Place::of(last));
        }
        Ok(Read {
            chunk,
            removed_before,
        })
    }
}
