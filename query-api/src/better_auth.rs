//! The three reads of Better Auth's plugin `@better-auth/infra`, as version 0.4.5 makes them.
//!
//! The plugin pages by offset and looks into the event data itself, so these answers differ from
//! `/v1` in two ways. A missing `eventData.userId` is filled with the actor, and a missing
//! `eventData.identifier` with our column, because the plugin drops events it cannot match by
//! them. And since its calls cannot carry a cursor, [`Freezes`] keeps one for it: a page leaves
//! behind where the next one begins, in the same frozen set, for whoever asks next for the offset
//! behind it. That is exact for one walker per project, filter and instance.
//!
//! Parameters that are not known here are ignored: a newer plugin may send more. An id that is
//! missing or empty asks for nothing, never for everything. A value that `/v1` refuses is found
//! nowhere: the plugin passes on what its users type, and `security_*` is a name like any other.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use audit_schema::row::{EventRow, Millis};
use audit_service::ApiError;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::audit_logs::{DEFAULT_LIMIT, LIMITS};
use crate::caller::Caller;
use crate::cursor::{Cursor, Direction, Place, Walk};
use crate::event::{address, embedded, given, rfc3339};
use crate::filter::field::{EVENT_TYPE, Field, IDENTIFIER, ORGANIZATION_ID, USER_ID};
use crate::filter::{Filter, Reach};
use crate::query_string::QueryString;
use crate::reader::{Slice, Start};
use crate::recorder::Read;
use crate::{QueryApi, metrics};

/// How long a freeze waits for the next page.
const FREEZE_TIME: Duration = Duration::from_secs(60);

/// Most freezes that are kept; some 300 bytes each.
const MAX_FREEZES: usize = 10_000;

/// `GET /events/user`
pub(crate) async fn list_user_events(
    State(api): State<QueryApi>,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = QueryString::parse(raw.as_deref())?;
    let read = api.recorder().read("plugin_user", &query);
    let filter = required(caller.reach.clone(), &USER_ID, query.take_one("userId")?)?;
    list(&api, filter, query, (&caller, read)).await
}

/// `GET /events/organization`
pub(crate) async fn list_organization_events(
    State(api): State<QueryApi>,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = QueryString::parse(raw.as_deref())?;
    let read = api.recorder().read("plugin_organization", &query);
    let organization = query.take_one("organizationId")?;
    let filter = required(caller.reach.clone(), &ORGANIZATION_ID, organization)?;
    list(&api, filter, query, (&caller, read)).await
}

/// `GET /events/activity`
pub(crate) async fn list_activity(
    State(api): State<QueryApi>,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = QueryString::parse(raw.as_deref())?;
    let read = api.recorder().read("plugin_activity", &query);
    let organizations = query.take_one("organizationIds")?;
    let mut filter = required(caller.reach.clone(), &ORGANIZATION_ID, organizations)?;
    for (name, field) in [
        ("userId", &USER_ID),
        ("eventType", &EVENT_TYPE),
        ("identifier", &IDENTIFIER),
    ] {
        if let Some(value) = query.take_one(name)? {
            filter = filter.with_literal(field, vec![value])?;
        }
    }
    list(&api, filter, query, (&caller, read)).await
}

/// A filter that matches nothing if there is no `value`.
fn required(reach: Reach, field: &Field, value: Option<String>) -> Result<Filter, ApiError> {
    Filter::new(reach).with_literal(field, value.into_iter().collect())
}

async fn list(
    api: &QueryApi,
    filter: Filter,
    mut query: QueryString,
    (caller, read): (&Caller, Option<Read>),
) -> Result<Response, ApiError> {
    let limit =
        number(query.take_one("limit")?, DEFAULT_LIMIT).clamp(*LIMITS.start(), *LIMITS.end());
    let offset = number(query.take_one("offset")?, 0);

    let reading = api.reader().admit(caller).await?;
    let freeze = match offset {
        0 => None,
        _ => api.freezes().find(&filter, offset, Instant::now()),
    };
    let (page, walk, place) = match freeze {
        Some(cursor) => {
            let start = Start::At(&cursor);
            let slice = Slice { start, limit };
            let page = reading.page(&filter, &cursor.walk, slice).await?;
            (page, cursor.walk, Some(cursor.place))
        }
        None if offset > api.max_offset() => {
            let reason = format!("begins at most at {}", api.max_offset());
            return Err(ApiError::invalid("offset", reason));
        }
        None => {
            let set = reading.freeze().await?;
            let walk = Walk { set, total: None };
            let start = Start::Top(offset);
            let slice = Slice { start, limit };
            let page = reading.page(&filter, &walk, slice).await?;
            (page, walk, None)
        }
    };
    if let Some(place) = page.rows.last().map(Place::of).or(place) {
        let cursor = Cursor {
            direction: Direction::Onward,
            place,
            offset: page.end(),
            walk: Walk {
                total: page.total.exactly(),
                ..walk
            },
        };
        // Behind a short page too: a walker that goes on finds the end, not what came later.
        let next = offset.saturating_add(limit);
        api.freezes().keep(&filter, next, cursor, Instant::now());
    }
    api.recorder().record(caller, read);
    let now = Millis::from(Utc::now());
    let answer = PluginEvents {
        events: page
            .rows
            .iter()
            .map(|row| PluginEvent::of(row, now))
            .collect(),
        total: page.total.number(),
        limit,
        offset,
    };
    Ok(Json(answer).into_response())
}

/// A number as JavaScript may have written it; the plugin clamps, so nothing is refused.
fn number(text: Option<String>, default: u64) -> u64 {
    let text = text.unwrap_or_default();
    let whole = text.split('.').next().unwrap_or_default();
    let number = whole.trim().parse::<i64>().ok();
    number.map_or(default, |number| u64::try_from(number).unwrap_or(0))
}

/// A page of events, as the plugin reads them.
#[derive(JsonSchema, Serialize)]
pub(crate) struct PluginEvents<'a> {
    events: Vec<PluginEvent<'a>>,
    total: u64,
    limit: u64,
    offset: u64,
}

/// One event, as the plugin reads it.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PluginEvent<'a> {
    event_type: &'a str,
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    event_data: Cow<'a, RawValue>,
    event_key: &'a str,
    project_id: &'a str,
    created_at: String,
    /// An event never changes.
    updated_at: String,
    age_in_minutes: i64,
    #[schemars(with = "IpAddr")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<IpAddr>,
    #[schemars(with = "String")]
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<&'a str>,
    #[schemars(with = "String")]
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
    #[schemars(with = "String")]
    #[serde(skip_serializing_if = "Option::is_none")]
    country_code: Option<&'a str>,
}

impl<'a> PluginEvent<'a> {
    fn of(row: &'a EventRow, now: Millis) -> Self {
        let age = now.0.saturating_sub(row.created_at.0).max(0);
        Self {
            event_type: &row.event_type,
            event_data: filled(row),
            event_key: &row.event_key,
            project_id: &row.project_id,
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.created_at),
            age_in_minutes: age / 60_000,
            ip_address: address(row.ip_address),
            city: given(&row.city),
            country: given(&row.country),
            country_code: given(&row.country_code),
        }
    }
}

/// The event data, with the two ids that the plugin looks for.
fn filled(row: &EventRow) -> Cow<'_, RawValue> {
    let sent = embedded(&row.event_data);
    let Ok(mut data) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(sent.get()) else {
        return sent;
    };
    let mut added = Vec::new();
    for (name, known) in [("userId", &row.actor_id), ("identifier", &row.identifier)] {
        let missing = data.get(name).is_none_or(|value| value.get() == "null");
        if let (true, Some(known)) = (missing, given(known)) {
            added.extend(to_raw_value(known).map(|known| (name, known)));
        }
    }
    for (name, known) in &added {
        data.insert(Cow::Borrowed(name), known);
    }
    match to_raw_value(&data) {
        Ok(filled) if !added.is_empty() => Cow::Owned(filled),
        _ => sent,
    }
}

/// Where the plugin's walks go on: by filter and offset, the cursor of the page before.
#[derive(Debug, Default)]
pub(crate) struct Freezes(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    cursors: HashMap<Expected, (u64, Cursor)>,
    /// The number and time of every freeze, those that were replaced included, oldest first.
    by_age: VecDeque<(u64, Instant, Expected)>,
    /// The number of the next freeze.
    next: u64,
}

/// A filter's hash, and the offset its next page has.
type Expected = ([u8; 32], u64);

impl Freezes {
    /// Keeps where a walk through `filter` goes on at `offset`.
    fn keep(&self, filter: &Filter, offset: u64, cursor: Cursor, now: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = (filter.hash(), offset);
        let number = kept.next;
        kept.next = number.wrapping_add(1);
        kept.cursors.insert(expected, (number, cursor));
        kept.by_age.push_back((number, now, expected));
        kept.forget(now);
        metrics::frozen(kept.cursors.len());
    }

    /// Where a walk through `filter` goes on at `offset`, if one came that far. It stays: a page
    /// that is asked for again is the same page.
    fn find(&self, filter: &Filter, offset: u64, now: Instant) -> Option<Cursor> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(now);
        let (_, cursor) = kept.cursors.get(&(filter.hash(), offset))?;
        Some(cursor.clone())
    }
}

impl Kept {
    /// Forgets what is too old or too many, the oldest first.
    fn forget(&mut self, now: Instant) {
        while let Some((number, time, expected)) = self.by_age.front() {
            let young = now.saturating_duration_since(*time) < FREEZE_TIME;
            if young && self.by_age.len() <= MAX_FREEZES {
                return;
            }
            // A freeze kept again since then has its own, younger line.
            if self
                .cursors
                .get(expected)
                .is_some_and(|(kept, _)| kept == number)
            {
                self.cursors.remove(expected);
            }
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::FrozenSet;
    use audit_schema::Position;

    fn filter(user: &str) -> Filter {
        let user = vec![user.to_owned()];
        let reach = Reach {
            project: "acme".parse().unwrap(),
            organization: None,
        };
        Filter::new(reach).with(&USER_ID, user).unwrap()
    }

    fn cursor(offset: u64) -> Cursor {
        let position = Position {
            incarnation: 1,
            partition: 0,
            offset,
        };
        Cursor {
            direction: Direction::Onward,
            place: Place {
                created_at: Millis(0),
                event_id: uuid::Uuid::nil(),
                position,
            },
            offset,
            walk: Walk {
                set: FrozenSet {
                    frozen_at: Millis(0),
                    complete_up_to: None,
                    ends: vec![position],
                },
                total: Some(offset),
            },
        }
    }

    #[test]
    fn a_freeze_is_found_by_the_filter_and_offset_it_expects() {
        let (freezes, now) = (Freezes::default(), Instant::now());
        freezes.keep(&filter("u"), 50, cursor(50), now);
        assert_eq!(freezes.find(&filter("u"), 50, now), Some(cursor(50)));
        // Asked for again, it is the same page.
        assert_eq!(freezes.find(&filter("u"), 50, now), Some(cursor(50)));
        assert_eq!(freezes.find(&filter("u"), 100, now), None);
        assert_eq!(freezes.find(&filter("v"), 50, now), None);
    }

    #[test]
    fn a_freeze_ends_60_seconds_after_its_page() {
        let (freezes, begun) = (Freezes::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        freezes.keep(&filter("u"), 50, cursor(50), begun);
        freezes.keep(&filter("u"), 100, cursor(100), after(30));
        freezes.keep(&filter("v"), 50, cursor(50), begun);
        freezes.keep(&filter("v"), 50, cursor(51), after(30));
        assert!(freezes.find(&filter("u"), 50, after(59)).is_some());
        assert!(freezes.find(&filter("u"), 50, after(60)).is_none());
        assert!(freezes.find(&filter("u"), 100, after(60)).is_some());
        assert_eq!(
            freezes.find(&filter("v"), 50, after(60)),
            Some(cursor(51)),
            "the younger of two at one place stays"
        );
    }

    #[test]
    fn the_oldest_freezes_make_room() {
        let (freezes, now) = (Freezes::default(), Instant::now());
        for offset in 0..=10_000 {
            freezes.keep(&filter("u"), offset, cursor(offset), now);
        }
        assert!(freezes.find(&filter("u"), 0, now).is_none());
        assert!(freezes.find(&filter("u"), 1, now).is_some());
        for _ in 0..20_000 {
            freezes.keep(&filter("u"), 1, cursor(1), now);
        }
        let kept = freezes.0.lock().unwrap();
        assert!(kept.cursors.len() <= MAX_FREEZES && kept.by_age.len() <= MAX_FREEZES);
        assert_eq!(kept.cursors.len(), 1);
    }

    #[test]
    fn numbers_are_clamped_and_never_refused() {
        let limit = |text: &str| {
            number(Some(text.into()), DEFAULT_LIMIT).clamp(*LIMITS.start(), *LIMITS.end())
        };
        assert_eq!(
            [
                "7",
                "0",
                "-1",
                "1000",
                "abc",
                "12.5",
                "NaN",
                "",
                "99999999999999999999"
            ]
            .map(limit),
            [7, 1, 1, 100, 50, 12, 50, 50, 50]
        );
        assert_eq!(number(None, 0), 0);
    }

    fn filled_data(data: &str, actor: &str, identifier: &str) -> String {
        let mut row = crate::event::tests::row();
        row.event_data = data.to_owned();
        row.actor_id = actor.to_owned();
        row.identifier = identifier.to_owned();
        filled(&row).get().to_owned()
    }

    #[test]
    fn only_ids_that_are_missing_are_filled_in() {
        let sent = r#"{ "userId": "u1", "identifier": "", "n": 1.50 }"#;
        assert_eq!(filled_data(sent, "actor", "a@b.c"), sent);
        assert_eq!(
            filled_data(
                r#"{"n": 12345678901234567890.10, "identifier": null}"#,
                "actor",
                "a\"b"
            ),
            r#"{"identifier":"a\"b","n":12345678901234567890.10,"userId":"actor"}"#
        );
        assert_eq!(filled_data("{}", "", ""), "{}");
        assert_eq!(filled_data("{}", "actor", ""), r#"{"userId":"actor"}"#);
        assert_eq!(filled_data("[1]", "actor", ""), "[1]");
        assert_eq!(filled_data("no json", "actor", ""), r#""no json""#);
    }

    #[test]
    fn an_event_has_the_fields_the_plugin_reads() {
        let mut row = crate::event::tests::row();
        row.country.clear();
        let now = Millis(row.created_at.0 + 119_999);
        insta::assert_snapshot!(serde_json::to_string_pretty(&PluginEvent::of(&row, now)).unwrap());
    }
}
