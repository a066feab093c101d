//! A bound in time: a moment, or a span before the moment a walk began.
//!
//! A relative bound stays relative in a filter, and so in the cursors bound to it: every page of a
//! walk is asked for with the same text, and resolved at the same moment, that of the frozen set.

use audit_schema::row::Millis;
use chrono::DateTime;
use serde::Serialize;

/// 2299-12-31T23:59:59.999Z, the last time the table can hold.
pub(crate) const LAST_MILLIS: i64 = 10_413_791_999_999;

/// The units of a relative bound, in milliseconds.
const UNITS: [(&str, i64); 5] = [
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// When a range of time begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Bound {
    /// At this time.
    At(Millis),
    /// This many milliseconds before the set was frozen.
    Before(i64),
}

impl Bound {
    /// Reads RFC 3339, milliseconds since 1970, or a span such as `-24h`. Events are kept to the
    /// millisecond, so a time between two counts as the later one, at either end.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
        let bound = if whole {
            text.parse().ok().map(|millis| Self::At(Millis(millis)))
        } else if text.starts_with('-') {
            span(digits).map(Self::Before)
        } else {
            DateTime::parse_from_rfc3339(text).ok().map(|time| {
                let begun = i64::from(time.timestamp_subsec_nanos() % 1_000_000 != 0);
                Self::At(Millis(time.timestamp_millis().saturating_add(begun)))
            })
        };
        match bound {
            Some(Self::At(time)) => Ok(Self::At(stored(time.0))),
            Some(before) => Ok(before),
            None => Err(
                "is no time; write 2026-01-31T12:00:00Z (a + as %2B), milliseconds \
                         since 1970, or a span before now such as -24h (s, m, h, d, w)"
                    .to_owned(),
            ),
        }
    }

    /// The time it means in a set that was frozen at `frozen_at`.
    pub(crate) fn resolve(self, frozen_at: Millis) -> Millis {
        match self {
            Self::At(time) => time,
            Self::Before(span) => stored(frozen_at.0.saturating_sub(span)),
        }
    }
}

fn span(text: &str) -> Option<i64> {
    let (unit, millis) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let count = text.strip_suffix(unit)?;
    let plain = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    plain.then_some(())?;
    count.parse::<i64>().ok()?.checked_mul(*millis)
}

/// The nearest time that the table can hold.
fn stored(millis: i64) -> Millis {
    Millis(millis.clamp(0, LAST_MILLIS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_as_the_millisecond_it_is_not_after() {
        let millis = |text| match Bound::parse(text).unwrap() {
            Bound::At(time) => time.0,
            Bound::Before(_) => panic!("{text} is relative"),
        };
        assert_eq!(millis("1700000000123"), 1_700_000_000_123);
        assert_eq!(millis("2023-11-14T22:13:20.123Z"), 1_700_000_000_123);
        assert_eq!(millis("2023-11-14T22:13:20.123000001Z"), 1_700_000_000_124);
        assert_eq!(millis("2023-11-14T23:13:20.1225+01:00"), 1_700_000_000_123);
        assert_eq!(millis("1969-01-01T00:00:00Z"), 0);
        assert_eq!(millis("-5"), 0);
        assert_eq!(millis("9999-12-31T23:59:59Z"), LAST_MILLIS);
    }

    #[test]
    fn a_span_is_before_the_time_the_set_was_frozen() {
        let at = |text| {
            Bound::parse(text)
                .unwrap()
                .resolve(Millis(1_700_000_000_123))
                .0
        };
        assert_eq!(at("-90s"), 1_700_000_000_123 - 90_000);
        assert_eq!(at("-24h"), 1_700_000_000_123 - 86_400_000);
        assert_eq!(at("-0d"), 1_700_000_000_123);
        assert_eq!(at("-2w"), 1_700_000_000_123 - 1_209_600_000);
        assert_eq!(at("-99999999w"), 0);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "yesterday",
            "-h",
            "24h",
            "-1.5h",
            "--1h",
            "-1y",
            "-+1h",
            "-99999999999999999999d",
            "99999999999999999999",
            "2026-01-31",
            "2026-01-31T12:00:00+01:00 ",
        ] {
            assert!(Bound::parse(text).is_err(), "{text}");
        }
    }
}
