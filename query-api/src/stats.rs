//! `/v1/audit-logs/stats`: how many events there are in each stretch of time, for charts.

mod buckets;

use std::collections::BTreeMap;

use audit_schema::row::Millis;
use audit_service::ApiError;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Serialize;

use crate::QueryApi;
use crate::caller::Caller;
use crate::cursor::FrozenSet;
use crate::event::rfc3339;
use crate::filter::Filter;
use crate::query_string::QueryString;
use crate::reader::{By, Counts, Histogram};
pub(crate) use buckets::Bucket;

/// Parameters beside those of the filter.
const PARAMETERS: [&str; 5] = ["bucket", "timeZone", "by", "top", "asOf"];

/// Most stretches of time in one answer: a day has 1440 minutes.
pub(crate) const MAX_BUCKETS: usize = 1_500;

/// How many values are told apart, unless the request says otherwise; and the most.
pub(crate) const DEFAULT_TOP: u64 = 10;
pub(crate) const MAX_TOP: u64 = 50;

/// What is counted if no `from` is given: this long before the end.
const DEFAULT_SPAN_MILLIS: i64 = 86_400_000;

/// What a chart shows.
struct Chart {
    bucket: Bucket,
    zone: Tz,
    by: Option<(By, usize)>,
    as_of: Option<String>,
}

impl Chart {
    fn take(query: &mut QueryString) -> Result<Self, ApiError> {
        let bucket = query.take_word("bucket", Bucket::ALL, Bucket::as_str)?;
        let zone = match query.take_one("timeZone")? {
            None => Tz::UTC,
            Some(name) => name.parse().map_err(|_| {
                let reason = "is no time zone of the IANA database; write Europe/Vienna or UTC";
                ApiError::invalid("timeZone", reason)
            })?,
        };
        let by = query.take_word("by", By::ALL, By::as_str)?;
        let top = query.take_number("top", 1..=MAX_TOP, "")?;
        if top.is_some() && by.is_none() {
            return Err(ApiError::invalid(
                "top",
                "needs by, the field whose values are counted",
            ));
        }
        let top = usize::try_from(top.unwrap_or(DEFAULT_TOP)).unwrap_or(usize::MAX);
        Ok(Self {
            bucket: bucket.unwrap_or(Bucket::Hour),
            zone,
            by: by.map(|by| (by, top)),
            as_of: query.take_one("asOf")?,
        })
    }

    /// The stretches of time that `filter` asks for in `set`.
    fn histogram(&self, filter: &Filter, set: &FrozenSet) -> Result<Histogram, ApiError> {
        let (from, to) = filter.range(set.frozen_at);
        let to = to.unwrap_or(Millis(set.frozen_at.0.saturating_add(1)));
        let from = from.unwrap_or(Millis(to.0.saturating_sub(DEFAULT_SPAN_MILLIS).max(0)));
        if from >= to {
            return Err(ApiError::invalid("from", "must be before to"));
        }
        let covered = self.bucket.cover(self.zone, from, to, MAX_BUCKETS);
        let (starts, end) = covered.ok_or_else(|| {
            let reason = format!(
                "makes more than {MAX_BUCKETS} of this range; take a longer one or a shorter range"
            );
            ApiError::invalid("bucket", reason)
        })?;
        Ok(Histogram {
            starts,
            end,
            by: self.by,
        })
    }
}

/// `GET /v1/audit-logs/stats`
pub(crate) async fn count_audit_logs(
    State(api): State<QueryApi>,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = QueryString::parse(raw.as_deref())?;
    let read = api.recorder().read("stats", &query);
    let chart = Chart::take(&mut query)?;
    let filter = Filter::take(caller.reach.clone(), &mut query)?;
    Filter::refuse_rest(&query, &PARAMETERS)?;

    let now = Millis::from(Utc::now());
    let named = api.frozen_as_of(chart.as_of.as_deref(), filter.reach(), now)?;
    let reading = api.reader().admit(&caller).await?;
    let set = reading.named_or_now(named).await?;
    let histogram = chart.histogram(&filter, &set)?;
    let counts = reading.counts(&filter, &set, &histogram).await?;
    let removed_before = reading.removed_before(filter.reach()).await?;
    api.recorder().record(&caller, read);
    let as_of = api.cursors().seal_set(&set, filter.reach());
    let stats = stats(&chart, &histogram, counts, as_of, &set, removed_before);
    Ok(Json(stats).into_response())
}

/// Counts of events for a chart.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    /// The word for the length of a stretch.
    bucket: &'static str,
    /// The zone the stretches are of.
    time_zone: &'static str,
    /// The field whose values are counted.
    by: Option<&'static str>,
    /// Every stretch of the range, in order, those without events included.
    buckets: Vec<BucketCount>,
    /// The most frequent values over all stretches, the most frequent first.
    values: Vec<ValueCount>,
    /// How many events there are in all stretches.
    total: u64,
    /// The set that was counted, for other questions about the same set.
    as_of: String,
    /// Every event that Kafka took before this time is in the set; null if nobody knows.
    complete_up_to: Option<String>,
    /// What Kafka took before this time was removed by retention, or is about to be; null if nothing
    /// was.
    removed_before: Option<String>,
}

/// One stretch of time.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BucketCount {
    /// When it begins, in the zone.
    start: String,
    /// When it ends, in the zone; the next one begins then.
    end: String,
    /// How many events were created in it, within `from` and `to`.
    count: u64,
    /// How many of them have each of `values`; what is missing to `count` has other values.
    #[schemars(with = "BTreeMap<String, u64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<BTreeMap<String, u64>>,
}

/// One value, and how many events have it.
#[derive(JsonSchema, Serialize)]
pub(crate) struct ValueCount {
    /// Empty if the events have none.
    value: String,
    count: u64,
}

fn stats(
    chart: &Chart,
    histogram: &Histogram,
    counts: Counts,
    as_of: String,
    set: &FrozenSet,
    removed_before: Option<Millis>,
) -> Stats {
    let shown = |time: Millis| {
        let local = DateTime::<Utc>::from(time).with_timezone(&chart.zone);
        local.to_rfc3339_opts(SecondsFormat::Secs, true)
    };
    let ends = histogram.starts.iter().skip(1).chain([&histogram.end]);
    let stretches = histogram.starts.iter().zip(ends);
    let mut total = 0_u64;
    let buckets = stretches
        .zip(&counts.buckets)
        .map(|((start, end), bucket)| {
            total = total.saturating_add(bucket.all);
            let values = counts.values.iter().zip(&bucket.values);
            let values = values.map(|((value, _), count)| (value.clone(), *count));
            BucketCount {
                start: shown(*start),
                end: shown(*end),
                count: bucket.all,
                values: chart.by.map(|_| values.collect()),
            }
        });
    let buckets = buckets.collect();
    let value = |(value, count)| ValueCount { value, count };
    Stats {
        bucket: chart.bucket.as_str(),
        time_zone: chart.zone.name(),
        by: chart.by.map(|(by, _)| by.as_str()),
        buckets,
        values: counts.values.into_iter().map(value).collect(),
        total,
        as_of,
        complete_up_to: set.complete_up_to.map(rfc3339),
        removed_before: removed_before.map(rfc3339),
    }
}
