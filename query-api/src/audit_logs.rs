//! `/v1`: the audit logs of a project, and the types of events there are.
//!
//! A text that is empty is `null` in an answer; objects are always there. Everything else is given
//! as it was sent.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use audit_schema::row::{EventRow, Millis};
use audit_schema::{CATALOGUE, Category};
use audit_service::ApiError;
use audit_service::keys::Identity;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cursor::{Cursor, Direction, FrozenSet, Place, Walk};
use crate::filter::{Filter, ID};
use crate::query_string::QueryString;
use crate::reader::{Page, Slice, Start};
use crate::{QueryApi, metrics};

/// Parameters that say which page, beside those of the filter.
const PAGING: [&str; 4] = ["limit", "offset", "cursor", "asOf"];

/// How many events a page may have.
pub(crate) const LIMITS: RangeInclusive<u64> = 1..=100;

/// How many it has, unless the request says otherwise.
pub(crate) const DEFAULT_LIMIT: u64 = 50;

/// Types that only the plugin sends; they have no documented name.
const UNDOCUMENTED: [&str; 7] = [
    "user_sign_in_failed",
    "email_changed",
    "two_factor_enabled",
    "two_factor_disabled",
    "two_factor_verified",
    "security_check",
    "security_signal",
];

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
        let limit = number(query, "limit", LIMITS, "")?.unwrap_or(DEFAULT_LIMIT);
        let deeper = "; deeper, go on with nextCursor";
        let offset = number(query, "offset", 0..=max_offset, deeper)?;
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
        Ok(Self { limit, begin })
    }
}

fn number(
    query: &mut QueryString,
    name: &'static str,
    range: RangeInclusive<u64>,
    hint: &str,
) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.take_one(name)? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => {
            let (least, most) = (range.start(), range.end());
            let reason = format!("must be a whole number from {least} to {most}{hint}");
            Err(ApiError::invalid(name, reason))
        }
    }
}

/// `GET /v1/audit-logs`
pub(crate) async fn list_audit_logs(
    State(api): State<QueryApi>,
    Extension(identity): Extension<Identity>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = QueryString::parse(raw.as_deref())?;
    let paging = Paging::take(&mut query, api.max_offset())?;
    let filter = Filter::take(identity.project, &mut query)?;
    let valid: Vec<_> = Filter::names().chain(PAGING).collect();
    query.refuse_rest(&valid)?;

    let (limit, now) = (paging.limit, Millis::from(Utc::now()));
    let (page, walk) = match paging.begin {
        Begin::Cursor(text) => {
            let cursor = api.cursors().open(&text, &filter, now);
            let cursor = cursor.inspect_err(|_| metrics::refused("stale_cursor"))?;
            let reading = api.reader().admit().await?;
            let start = Start::At(&cursor);
            let slice = Slice { start, limit };
            let page = reading.page(&filter, &cursor.walk, slice).await?;
            (page, cursor.walk)
        }
        Begin::Offset { offset, as_of } => {
            let opened = as_of.map(|text| api.cursors().open_set(&text, filter.project(), now));
            let opened = opened.transpose();
            let opened = opened.inspect_err(|_| metrics::refused("stale_cursor"))?;
            let reading = api.reader().admit().await?;
            let set = match opened {
                Some(set) => set,
                None => reading.freeze().await?,
            };
            let walk = Walk { set, total: None };
            let start = Start::Top(offset);
            let slice = Slice { start, limit };
            let page = reading.page(&filter, &walk, slice).await?;
            (page, walk)
        }
    };
    Ok(answer(&api, &filter, &page, walk.set))
}

/// `GET /v1/audit-logs/{id}`
pub(crate) async fn get_audit_log(
    State(api): State<QueryApi>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let filter = Filter::new(identity.project).with(&ID, vec![id]);
    // What is no id is the id of no event.
    let filter = filter.map_err(|_| ApiError::NotFound)?;
    let reading = api.reader().admit().await?;
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
    Ok(Json(AuditLog::of(row)).into_response())
}

/// `GET /v1/event-types`
pub(crate) async fn list_event_types() -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct EventTypes {
        event_types: Vec<Named>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        name: &'static str,
        wire_name: Option<&'static str>,
        category: Option<Category>,
    }
    let documented = CATALOGUE.iter().map(|entry| Named {
        name: entry.name,
        wire_name: entry.wire_name,
        category: Some(entry.category),
    });
    let others = UNDOCUMENTED.map(|name| Named {
        name,
        wire_name: None,
        category: None,
    });
    let event_types = documented.chain(others).collect();
    Json(EventTypes { event_types }).into_response()
}

fn answer(api: &QueryApi, filter: &Filter, page: &Page, set: FrozenSet) -> Response {
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
    let last = page.rows.last().filter(|_| page.older);
    let first = page.rows.first().filter(|_| page.offset > 0);
    let (total, total_relation) = page.total.with_relation();
    let answer = AuditLogs {
        events: page.rows.iter().map(AuditLog::of).collect(),
        total,
        total_relation,
        limit: page.limit,
        offset: page.offset,
        next_cursor: last.map(|row| seal(Direction::Older, row, page.end())),
        prev_cursor: first.map(|row| seal(Direction::Newer, row, page.offset)),
        as_of: api.cursors().seal_set(&walk.set, filter.project()),
        complete_up_to: walk.set.complete_up_to.map(rfc3339),
    };
    Json(answer).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditLogs<'a> {
    events: Vec<AuditLog<'a>>,
    total: u64,
    total_relation: &'static str,
    limit: u64,
    offset: u64,
    next_cursor: Option<String>,
    prev_cursor: Option<String>,
    as_of: String,
    complete_up_to: Option<String>,
}

/// One event, as it is answered.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditLog<'a> {
    id: String,
    event_type: &'a str,
    documented_type: Option<&'a str>,
    event_key: Option<&'a str>,
    event_display_name: Option<&'a str>,
    user_id: Option<&'a str>,
    organization_id: Option<&'a str>,
    identifier: Option<&'a str>,
    actor: Actor<'a>,
    outcome: Option<&'a str>,
    session_id: Option<&'a str>,
    request_id: Option<&'a str>,
    user_agent: Option<&'a str>,
    location: Location<'a>,
    event_data: Cow<'a, RawValue>,
    created_at: String,
    logged_at: String,
    project_id: &'a str,
    position: At,
}

#[derive(Serialize)]
struct Actor<'a> {
    id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location<'a> {
    ip_address: Option<IpAddr>,
    city: Option<&'a str>,
    country: Option<&'a str>,
    country_code: Option<&'a str>,
}

#[derive(Serialize)]
struct At {
    incarnation: u32,
    partition: u32,
    offset: u64,
}

impl<'a> AuditLog<'a> {
    fn of(row: &'a EventRow) -> Self {
        Self {
            id: row.event_id.to_string(),
            event_type: &row.event_type,
            documented_type: given(&row.documented_type),
            event_key: given(&row.event_key),
            event_display_name: given(&row.event_display_name),
            user_id: given(&row.user_id),
            organization_id: given(&row.organization_id),
            identifier: given(&row.identifier),
            actor: Actor {
                id: given(&row.actor_id),
                kind: given(&row.actor_type),
            },
            outcome: given(&row.outcome),
            session_id: given(&row.session_id),
            request_id: given(&row.request_id),
            user_agent: given(&row.user_agent),
            location: Location {
                ip_address: address(row.ip_address),
                city: given(&row.city),
                country: given(&row.country),
                country_code: given(&row.country_code),
            },
            event_data: embedded(&row.event_data),
            created_at: rfc3339(row.created_at),
            logged_at: rfc3339(row.logged_at),
            project_id: &row.project_id,
            position: At {
                incarnation: row.source_incarnation,
                partition: row.source_partition,
                offset: row.source_offset,
            },
        }
    }
}

/// A text, unless it is empty.
pub(crate) fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A client's address as it was given, if it was.
pub(crate) fn address(stored: Ipv6Addr) -> Option<IpAddr> {
    (!stored.is_unspecified()).then(|| IpAddr::V6(stored).to_canonical())
}

/// A time in UTC, to the millisecond.
pub(crate) fn rfc3339(time: Millis) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Event data as it was sent. A row that was not made by our consumer may hold anything; then its
/// text is given as a text.
pub(crate) fn embedded(data: &str) -> Cow<'_, RawValue> {
    match serde_json::from_str::<&RawValue>(data) {
        Ok(raw) => Cow::Borrowed(raw),
        Err(_) => Cow::Owned(serde_json::value::to_raw_value(data).unwrap_or_default()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row() -> EventRow {
        EventRow {
            project_id: "acme".into(),
            event_id: uuid::Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057),
            event_type: "user_created".into(),
            documented_type: "user_signed_up".into(),
            event_key: "u1".into(),
            event_display_name: "Ann signed up".into(),
            user_id: "u1".into(),
            organization_id: "o1".into(),
            identifier: "ann@example.com".into(),
            actor_id: "u1".into(),
            actor_type: "user".into(),
            outcome: "success".into(),
            session_id: "s1".into(),
            request_id: "r1".into(),
            ip_address: "::ffff:192.0.2.1".parse().unwrap(),
            city: "Graz".into(),
            country: "Austria".into(),
            country_code: "AT".into(),
            user_agent: "Firefox".into(),
            event_data: r#"{ "userId": "u1", "n": 1.50 }"#.into(),
            created_at: Millis(1_700_000_000_123),
            logged_at: Millis(1_700_000_000_400),
            source_incarnation: 1,
            source_partition: 2,
            source_offset: 3,
            ingested_at: Millis(1_700_000_000_500),
        }
    }

    #[test]
    fn an_event_is_answered_with_all_it_has() {
        let text = serde_json::to_string(&AuditLog::of(&row())).unwrap();
        assert!(text.contains(r#""eventData":{ "userId": "u1", "n": 1.50 }"#));
        insta::assert_snapshot!(serde_json::to_string_pretty(&AuditLog::of(&row())).unwrap());
    }

    #[test]
    fn what_an_event_does_not_have_is_null() {
        let mut row = row();
        for text in [
            &mut row.documented_type,
            &mut row.event_key,
            &mut row.event_display_name,
            &mut row.user_id,
            &mut row.organization_id,
            &mut row.identifier,
            &mut row.actor_id,
            &mut row.actor_type,
            &mut row.outcome,
            &mut row.session_id,
            &mut row.request_id,
            &mut row.city,
            &mut row.country,
            &mut row.country_code,
            &mut row.user_agent,
        ] {
            text.clear();
        }
        row.ip_address = Ipv6Addr::UNSPECIFIED;
        row.event_data = "{}".into();
        insta::assert_snapshot!(serde_json::to_string_pretty(&AuditLog::of(&row)).unwrap());
    }

    #[test]
    fn an_address_is_shown_as_it_was_given() {
        let shown = |text: &str| address(text.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(shown("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(shown("2001:db8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(shown("::"), None);
    }

    #[test]
    fn no_undocumented_type_is_in_the_catalogue() {
        for name in UNDOCUMENTED {
            assert_eq!(audit_schema::CatalogueEntry::named(name), None, "{name}");
        }
    }

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
