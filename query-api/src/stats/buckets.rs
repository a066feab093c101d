//! Stretches of time as people count them: minutes, hours, days, weeks, months of a time zone.
//!
//! A bucket of an hour or less is that long; a day lasts from midnight to midnight of its zone, so
//! that it has 23 or 25 hours when the clocks change. Weeks begin on Monday.

use audit_schema::row::Millis;
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// How long a stretch of time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bucket {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Bucket {
    /// All there are, the shortest first.
    pub(crate) const ALL: [Self; 5] =
        [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month];

    /// The word it is asked for by.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// When the stretches begin that cover `from` to `to`, and when the last of them ends; `None`
    /// if there are more than `most`, or none.
    pub(crate) fn cover(
        self,
        zone: Tz,
        from: Millis,
        to: Millis,
        most: usize,
    ) -> Option<(Vec<Millis>, Millis)> {
        let mut next = self.begin(zone, from)?;
        let mut starts = Vec::new();
        while next < to {
            if starts.len() == most {
                return None;
            }
            starts.push(next);
            next = self.after(zone, next)?;
        }
        (!starts.is_empty()).then_some((starts, next))
    }

    /// The beginning of the stretch that `time` is in.
    fn begin(self, zone: Tz, time: Millis) -> Option<Millis> {
        let local = DateTime::<Utc>::from(time).with_timezone(&zone);
        let date = local.date_naive();
        match self {
            Self::Minute => Some(aligned(time, local, 60_000)),
            Self::Hour => Some(aligned(time, local, 3_600_000)),
            Self::Day => midnight(zone, date),
            Self::Week => {
                let days = u64::from(date.weekday().num_days_from_monday());
                midnight(zone, date.checked_sub_days(Days::new(days))?)
            }
            Self::Month => midnight(zone, date.with_day(1)?),
        }
    }

    /// The beginning of the stretch behind the one that begins at `start`.
    fn after(self, zone: Tz, start: Millis) -> Option<Millis> {
        let date = || {
            DateTime::<Utc>::from(start)
                .with_timezone(&zone)
                .date_naive()
        };
        match self {
            Self::Minute => Some(Millis(start.0.checked_add(60_000)?)),
            Self::Hour => Some(Millis(start.0.checked_add(3_600_000)?)),
            Self::Day => midnight(zone, date().checked_add_days(Days::new(1))?),
            Self::Week => midnight(zone, date().checked_add_days(Days::new(7))?),
            Self::Month => midnight(zone, date().checked_add_months(Months::new(1))?),
        }
    }
}

/// The last time at or before `time` whose local clock shows a whole number of `step`s.
fn aligned(time: Millis, local: DateTime<Tz>, step: i64) -> Millis {
    use chrono::Offset;
    let offset = i64::from(local.offset().fix().local_minus_utc()).saturating_mul(1_000);
    let over = time.0.saturating_add(offset).rem_euclid(step);
    Millis(time.0.saturating_sub(over))
}

/// When a day begins: at midnight, or where the clocks skip it, at the first time there is.
fn midnight(zone: Tz, date: NaiveDate) -> Option<Millis> {
    let mut local = date.and_time(NaiveTime::MIN);
    for _ in 0..=96 {
        if let Some(time) = zone.from_local_datetime(&local).earliest() {
            return Some(time.with_timezone(&Utc).into());
        }
        local = local.checked_add_signed(TimeDelta::minutes(15))?;
    }
    // A day that a zone skipped whole, as Samoa did: the next one begins there.
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Millis {
        DateTime::parse_from_rfc3339(text)
            .unwrap()
            .with_timezone(&Utc)
            .into()
    }

    fn shown(bucket: Bucket, zone: Tz, from: &str, to: &str) -> Vec<String> {
        let (starts, end) = bucket.cover(zone, at(from), at(to), 1_000).unwrap();
        let shown = |time: &Millis| {
            DateTime::<Utc>::from(*time)
                .with_timezone(&zone)
                .to_rfc3339()
        };
        starts.iter().chain([&end]).map(shown).collect()
    }

    #[test]
    fn days_are_those_of_the_zone_when_its_clocks_change() {
        let days = shown(
            Bucket::Day,
            chrono_tz::Europe::Vienna,
            "2026-03-28T12:00:00Z",
            "2026-03-30T00:00:00Z",
        );
        assert_eq!(
            days,
            [
                "2026-03-28T00:00:00+01:00",
                "2026-03-29T00:00:00+01:00",
                "2026-03-30T00:00:00+02:00",
                "2026-03-31T00:00:00+02:00",
            ]
        );
        let hours = shown(
            Bucket::Hour,
            chrono_tz::Europe::Vienna,
            "2026-10-25T00:10:00Z",
            "2026-10-25T02:00:00Z",
        );
        assert_eq!(
            hours,
            [
                "2026-10-25T02:00:00+02:00",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T03:00:00+01:00",
            ]
        );
    }

    #[test]
    fn a_zone_of_half_hours_has_its_own_hours() {
        let hours = shown(
            Bucket::Hour,
            chrono_tz::Asia::Kolkata,
            "2026-01-01T00:10:00Z",
            "2026-01-01T00:40:00Z",
        );
        assert_eq!(
            hours,
            [
                "2026-01-01T05:00:00+05:30",
                "2026-01-01T06:00:00+05:30",
                "2026-01-01T07:00:00+05:30"
            ]
        );
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let utc = chrono_tz::UTC;
        let weeks = shown(
            Bucket::Week,
            utc,
            "2026-11-25T00:00:00Z",
            "2026-12-01T00:00:00Z",
        );
        assert_eq!(weeks.first().unwrap(), "2026-11-23T00:00:00+00:00");
        assert_eq!(weeks.len(), 3);
        let months = shown(
            Bucket::Month,
            utc,
            "2026-01-31T00:00:00Z",
            "2026-03-01T00:00:00Z",
        );
        assert_eq!(
            months,
            [
                "2026-01-01T00:00:00+00:00",
                "2026-02-01T00:00:00+00:00",
                "2026-03-01T00:00:00+00:00"
            ]
        );
    }

    #[test]
    fn too_many_stretches_and_none_at_all_are_not_covered() {
        let cover = |from, to| Bucket::Day.cover(chrono_tz::UTC, at(from), at(to), 2);
        assert!(cover("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z").is_some());
        assert!(cover("2026-01-01T00:00:00Z", "2026-01-03T00:00:01Z").is_none());
        assert!(cover("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z").is_none());
    }

    proptest! {
        #[test]
        fn stretches_follow_one_another_and_cover_the_range(
            from in 0_i64..10_000_000_000_000, len in 1_i64..100_000_000_000,
            zone in prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec()),
            bucket in prop::sample::select(Bucket::ALL.to_vec()),
        ) {
            let (from, to) = (Millis(from), Millis(from + len));
            if let Some((starts, end)) = bucket.cover(zone, from, to, 500) {
                prop_assert!(starts[0] <= from && to <= end);
                prop_assert!(starts.iter().chain([&end]).is_sorted_by(|a, b| a < b));
                prop_assert!(*starts.last().unwrap() < to);
            }
        }
    }
}
