//! `/v1/audit-logs`: pages of a project's events, and single events.

use std::ops::RangeInclusive;
use std::time::Duration;

use audit_schema::row::{EventRow, Millis};
use audit_service::ApiError;
use audit_service::http::LimitedBody;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use schemars::JsonSchema;
use serde::Serialize;

use crate::caller::Caller;
use crate::cursor::{Cursor, Direction, FrozenSet, Place, Walk};
use crate::event::{AuditLog, rfc3339};
use crate::filter::field::ID;
use crate::filter::{Filter, Order};
use crate::query_object;
use crate::query_string::QueryString;
use crate::reader::{Page, Slice, Start, Took, Total};
use crate::{QueryApi, metrics};

/// Parameters that say which page, beside those of the filter.
const PAGING: [&str; 5] = ["limit", "offset", "cursor", "asOf", "order"];

/// How many events a page may have.
pub(crate) const LIMITS: RangeInclusive<u64> = 1..=100;

/// How many it has, unless the request says otherwise.
pub(crate) const DEFAULT_LIMIT: u64 = 50;

/// Which page a request asks for.
struct Paging {
    limit: u64,
    begin: Begin,
}

enum Begin {
    Offset { offset: u64, as_of: Option<String> },
    Cursor(String),
}

impl Paging {
    fn take(query: &mut QueryString, max_offset: u64) -> Result<Self, ApiError> {
        let limit = query.take_number("limit", LIMITS, "")?;
        let deeper = "; deeper, go on with nextCursor";
        let offset = query.take_number("offset", 0..=max_offset, deeper)?;
        let (cursor, as_of) = (query.take_one("cursor")?, query.take_one("asOf")?);
        let begin = match cursor {
            Some(_) if offset.is_some() || as_of.is_some() => {
                let reason = "stands for offset and asOf; leave those out";
                return Err(ApiError::invalid("cursor", reason));
            }
            Some(cursor) => Begin::Cursor(cursor),
            None => Begin::Offset {
                offset: offset.unwrap_or(0),
                as_of,
            },
        };
        Ok(Self {
            limit: limit.unwrap_or(DEFAULT_LIMIT),
            begin,
        })
    }
}

/// `GET /v1/audit-logs`
pub(crate) async fn list_audit_logs(
    State(api): State<QueryApi>,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    list(&api, &caller, QueryString::parse(raw.as_deref())?).await
}

/// `POST /v1/audit-logs/query`: the same question as a JSON object.
pub(crate) async fn query_audit_logs(
    State(api): State<QueryApi>,
    caller: Caller,
    body: LimitedBody,
) -> Result<Response, ApiError> {
    list(&api, &caller, query_object::parse(&body.bytes)?).await
}

async fn list(
    api: &QueryApi,
    caller: &Caller,
    mut query: QueryString,
) -> Result<Response, ApiError> {
    let read = api.recorder().read("list", &query);
    let paging = Paging::take(&mut query, api.max_offset())?;
    let order = Order::take(&mut query)?;
    let filter = Filter::take(caller.reach.clone(), &mut query)?.in_order(order);
    Filter::refuse_rest(&query, &PAGING)?;

    let (limit, now) = (paging.limit, Millis::from(Utc::now()));
    let (page, walk, removed_before) = match paging.begin {
        Begin::Cursor(text) => {
            let cursor = api.cursors().open(&text, &filter, now);
            let cursor = cursor.inspect_err(|_| metrics::refused("stale_cursor"))?;
            let reading = api.reader().admit(caller).await?;
            let start = Start::At(&cursor);
            let slice = Slice { start, limit };
            let page = reading.page(&filter, &cursor.walk, slice).await?;
            let removed_before = reading.removed_before(filter.reach()).await?;
            (page, cursor.walk, removed_before)
        }
        Begin::Offset { offset, as_of } => {
            let named = api.frozen_as_of(as_of.as_deref(), filter.reach(), now)?;
            let reading = api.reader().admit(caller).await?;
            let set = reading.named_or_now(named).await?;
            let walk = Walk { set, total: None };
            let start = Start::Top(offset);
            let slice = Slice { start, limit };
            let page = reading.page(&filter, &walk, slice).await?;
            let removed_before = reading.removed_before(filter.reach()).await?;
            (page, walk, removed_before)
        }
    };
    api.recorder().record(caller, read);
    Ok(answer(api, &filter, &page, walk.set, removed_before))
}

/// `GET /v1/audit-logs/{id}`
pub(crate) async fn get_audit_log(
    State(api): State<QueryApi>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let query = QueryString::of(vec![("id".to_owned(), id.clone())]);
    let read = api.recorder().read("get", &query);
    let filter = Filter::new(caller.reach.clone()).with(&ID, vec![id]);
    // What is no id is the id of no event.
    let filter = filter.map_err(|_| ApiError::NotFound)?;
    let reading = api.reader().admit(&caller).await?;
    let walk = Walk {
        set: reading.freeze().await?,
        total: Some(1),
    };
    let slice = Slice {
        start: Start::Top(0),
        limit: 1,
    };
    let page = reading.page(&filter, &walk, slice).await?;
    let row = page.rows.first().ok_or(ApiError::NotFound)?;
    api.recorder().record(&caller, read);
    Ok(Json(AuditLog::of(row)).into_response())
}

fn answer(
    api: &QueryApi,
    filter: &Filter,
    page: &Page,
    set: FrozenSet,
    removed_before: Option<Millis>,
) -> Response {
    let walk = Walk {
        set,
        total: page.total.exactly(),
    };
    let seal = |direction, row: &EventRow, offset| {
        let cursor = Cursor {
            direction,
            place: Place::of(row),
            offset,
            walk: walk.clone(),
        };
        api.cursors().seal(&cursor, filter)
    };
    let last = page.rows.last().filter(|_| page.more);
    let first = page.rows.first().filter(|_| page.offset > 0);
    let answer = AuditLogs {
        events: page.rows.iter().map(AuditLog::of).collect(),
        total: page.total.number(),
        total_relation: page.total.into(),
        limit: page.limit,
        offset: page.offset,
        next_cursor: last.map(|row| seal(Direction::Onward, row, page.end())),
        prev_cursor: first.map(|row| seal(Direction::Back, row, page.offset)),
        as_of: api.cursors().seal_set(&walk.set, filter.reach()),
        complete_up_to: walk.set.complete_up_to.map(rfc3339),
        removed_before: removed_before.map(rfc3339),
    };
    ([(SERVER_TIMING, server_timing(page.took))], Json(answer)).into_response()
}

/// Where the time of a page went, for the tools of browsers and whoever looks into slow answers.
/// Source: W3C Server Timing; milliseconds.
const SERVER_TIMING: &str = "server-timing";

fn server_timing(took: Took) -> String {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let page = format!("page;dur={:.1}", millis(took.found));
    match took.counted {
        Some(counted) => format!("{page}, total;dur={:.1}", millis(counted)),
        None => page,
    }
}

/// A page of events.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditLogs<'a> {
    /// In the order asked for.
    events: Vec<AuditLog<'a>>,
    /// How many events the walk has.
    total: u64,
    total_relation: TotalRelation,
    /// The most events the page could have.
    limit: u64,
    /// How many events of the walk are before the page.
    offset: u64,
    /// The page behind this one; null on the last.
    next_cursor: Option<String>,
    /// The page before this one; null on the first.
    prev_cursor: Option<String>,
    /// The set the page is of, for other questions about the same set.
    as_of: String,
    /// Every event that Kafka took before this time is in the set; null if nobody knows.
    complete_up_to: Option<String>,
    /// What Kafka took before this time was removed by retention, or is about to be; null if nothing
    /// was. If it is later than on the first page of a walk, events of the walk went away since.
    removed_before: Option<String>,
}

/// How the truth relates to a total.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TotalRelation {
    /// It is the total.
    Eq,
    /// It is the total or more: the time to count was over.
    Gte,
}

impl From<Total> for TotalRelation {
    fn from(total: Total) -> Self {
        match total {
            Total::Exactly(_) => Self::Eq,
            Total::AtLeast(_) => Self::Gte,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_cannot_be_is_refused_with_what_to_change() {
        let refusals: Vec<_> = [
            "limit=0",
            "limit=-1",
            "limit=101",
            "limit=abc",
            "limit=",
            "limit=10&limit=10",
            "offset=-1",
            "offset=10001",
            "offset=99999999999999999999",
            "cursor=x&offset=1",
            "cursor=x&asOf=y",
            "cursor=x&cursor=y",
        ]
        .into_iter()
        .map(|raw| {
            let mut query = QueryString::parse(Some(raw)).unwrap();
            Paging::take(&mut query, 10_000)
                .map(drop)
                .unwrap_err()
                .to_string()
        })
        .collect();
        insta::assert_snapshot!(refusals.join("\n"));
    }
}
