//! Months of the calendar, in UTC: both tables are partitioned by the month Kafka took a record in.

use std::fmt;
use std::ops::Range;

use audit_schema::row::Millis;
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime, Utc};
use serde::{Serialize, Serializer};

/// A month as ClickHouse's `toYYYYMM` says it, such as `202611`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(pub u32);

impl Month {
    /// From its first millisecond to that of the next; of what is no month, nothing at the end of
    /// time.
    pub(crate) fn range(self) -> Range<Millis> {
        let year = i32::try_from(self.0 / 100).unwrap_or(i32::MAX);
        let first = NaiveDate::from_ymd_opt(year, self.0 % 100, 1);
        first.map_or(Millis(i64::MAX)..Millis(i64::MAX), from_first)
    }
}

/// The month of a time, from its first millisecond to that of the next.
pub(crate) fn around(time: Millis) -> Range<Millis> {
    let day = DateTime::<Utc>::from(time).date_naive();
    from_first(day.with_day(1).unwrap_or(day))
}

/// When the day of a time begins.
pub(crate) fn day_begin(time: Millis) -> Millis {
    let day = DateTime::<Utc>::from(time).date_naive();
    day.and_time(NaiveTime::MIN).and_utc().into()
}

fn from_first(first: NaiveDate) -> Range<Millis> {
    let next = first.checked_add_months(Months::new(1)).unwrap_or(first);
    let begin = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc().into();
    begin(first)..begin(next)
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        text.parse::<DateTime<Utc>>().unwrap().into()
    }

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let december = at("2026-12-01T00:00:00Z")..at("2027-01-01T00:00:00Z");
        assert_eq!(Month(202_612).range(), december);
        assert_eq!(around(at("2026-12-31T23:59:59.999Z")), december);
        assert_eq!(Month(202_402).range().end, at("2024-03-01T00:00:00Z"));
        assert_eq!(Month(0).range().end, Millis(i64::MAX));
        assert_eq!(Month(202_602).to_string(), "2026-02");
    }
}
