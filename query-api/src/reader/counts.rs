//! How many events there are in each stretch of time, and of each value.

use std::time::Instant;

use audit_schema::row::Millis;
use clickhouse::Row;
use serde::Deserialize;

use super::{Admitted, ApiError, Filter, FrozenSet, Query, metrics, refusal};

/// What events are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    EventType,
    UserId,
    ActorId,
    OrganizationId,
    Country,
    Outcome,
}

impl By {
    /// All there are.
    pub(crate) const ALL: [Self; 6] = [
        Self::EventType,
        Self::UserId,
        Self::ActorId,
        Self::OrganizationId,
        Self::Country,
        Self::Outcome,
    ];

    /// The word it is asked for by: the parameter that finds the events of a value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::EventType => "eventType",
            Self::UserId => "userId",
            Self::ActorId => "actorId",
            Self::OrganizationId => "organizationId",
            Self::Country => "country",
            Self::Outcome => "outcome",
        }
    }

    /// The value of an event, a text; empty if it has none.
    fn value(self) -> &'static str {
        match self {
            Self::EventType => "if(documented_type = '', event_type, documented_type)",
            Self::UserId => "user_id",
            Self::ActorId => "actor_id",
            Self::OrganizationId => "organization_id",
            Self::Country => "if(country_code = '', country, country_code)",
            Self::Outcome => "outcome",
        }
    }
}

/// What to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// When each bucket begins, in order; there is at least one.
    pub(crate) starts: Vec<Millis>,
    /// When the last one ends.
    pub(crate) end: Millis,
    /// By what, and how many values are given at most.
    pub(crate) by: Option<(By, usize)>,
}

/// How many events there are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Of each bucket.
    pub(crate) buckets: Vec<Bucket>,
    /// Of the most frequent values over all buckets, the most frequent first.
    pub(crate) values: Vec<(String, u64)>,
}

/// How many events there are in one stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) all: u64,
    /// Of each value, in the order of [`Counts::values`].
    pub(crate) values: Vec<u64>,
}

#[derive(Debug, Row, Deserialize)]
struct ValueCount {
    value: String,
    events: u64,
}

#[derive(Debug, Row, Deserialize)]
struct BucketCount {
    start: i64,
    place: u64,
    events: u64,
}

impl Admitted<'_> {
    /// Counts the events of `filter` in `set`.
    pub(crate) async fn counts(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        histogram: &Histogram,
    ) -> Result<Counts, ApiError> {
        let begun = Instant::now();
        let values = match histogram.by {
            Some((by, most)) => self.values(filter, set, histogram, by, most).await?,
            None => Vec::new(),
        };
        let rows = self.buckets(filter, set, histogram, &values).await?;
        metrics::queried("counts", begun.elapsed());
        Ok(counts(histogram, values, &rows))
    }

    async fn values(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        histogram: &Histogram,
        by: By,
        most: usize,
    ) -> Result<Vec<(String, u64)>, ApiError> {
        let columns = format!("toString({}) AS value, count() AS events", by.value());
        let rest = format!("{IN_TIME} GROUP BY value ORDER BY events DESC, value LIMIT {most}");
        let query = in_time(self.select(&columns, filter, set, &rest), histogram);
        let rows = query.fetch_all::<ValueCount>().await.map_err(refusal)?;
        Ok(rows
            .into_iter()
            .map(|row| (row.value, row.events))
            .collect())
    }

    async fn buckets(
        &self,
        filter: &Filter,
        set: &FrozenSet,
        histogram: &Histogram,
        values: &[(String, u64)],
    ) -> Result<Vec<BucketCount>, ApiError> {
        let value = histogram.by.map_or("''", |(by, _)| by.value());
        let columns = format!(
            "roundDown(toUnixTimestamp64Milli(created_at), {{starts:Array(Int64)}}) AS start, \
             toUInt64(indexOf({{values:Array(String)}}, toString({value}))) AS place, \
             count() AS events"
        );
        let rest = format!("{IN_TIME} GROUP BY start, place");
        let starts: Vec<_> = histogram.starts.iter().map(|start| start.0).collect();
        let values: Vec<_> = values.iter().map(|(value, _)| value).collect();
        // One row for each bucket and value, and one for the rest of the bucket.
        let rows = starts.len().saturating_mul(values.len().saturating_add(1));
        in_time(self.select(&columns, filter, set, &rest), histogram)
            .param("starts", starts)
            .param("values", values)
            .with_setting("max_result_rows", rows.to_string())
            .fetch_all()
            .await
            .map_err(refusal)
    }
}

const IN_TIME: &str = " AND created_at >= fromUnixTimestamp64Milli({first:Int64}, 'UTC') \
    AND created_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC')";

fn in_time(query: Query, histogram: &Histogram) -> Query {
    let first = histogram.starts.first().map_or(0, |start| start.0);
    query.param("first", first).param("end", histogram.end.0)
}

/// The counts of all buckets, those without events included.
fn counts(histogram: &Histogram, values: Vec<(String, u64)>, rows: &[BucketCount]) -> Counts {
    let empty = Bucket {
        all: 0,
        values: vec![0; values.len()],
    };
    let mut buckets = vec![empty; histogram.starts.len()];
    for row in rows {
        let place = histogram.starts.binary_search(&Millis(row.start)).ok();
        let Some(bucket) = place.and_then(|place| buckets.get_mut(place)) else {
            continue;
        };
        bucket.all = bucket.all.saturating_add(row.events);
        let value = row.place.checked_sub(1).map(usize::try_from);
        if let Some(count) = value.and_then(|place| bucket.values.get_mut(place.ok()?)) {
            *count = row.events;
        }
    }
    Counts { buckets, values }
}
