//! How far Kafka's clock is from this machine's, as far as confirmations show it.
//!
//! `completeUpTo` of readers relies on Kafka's clock not being behind.

use std::time::Duration;

/// By how much Kafka's clock is at least ahead of this machine's, in milliseconds, negative if it is
/// behind: it said `taken_at` of an event that was confirmed at `heard`, `took` after it was published.
/// 0 as long as both clocks may be the same.
pub(crate) fn clock_ahead(taken_at: i64, heard: i64, took: Duration) -> i64 {
    let took = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
    // Kafka's time is in whole milliseconds, cut off.
    let earliest = heard.saturating_sub(took).saturating_sub(1);
    taken_at.saturating_sub(taken_at.clamp(earliest, heard.max(earliest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind_by_what_the_way_of_an_event_does_not_explain() {
        let took = Duration::from_millis(100);
        for (taken_at, ahead) in [(800, -99), (899, 0), (950, 0), (1_000, 0), (1_300, 300)] {
            assert_eq!(clock_ahead(taken_at, 1_000, took), ahead, "{taken_at}");
        }
    }
}
