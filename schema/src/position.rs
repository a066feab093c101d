//! Where a record lies in Kafka, and arithmetic on offsets that cannot go wrong silently.

use std::fmt;

/// The place of one record: topic incarnation, partition, offset.
///
/// The incarnation is a small number registered per topic, so that a topic deleted and created
/// anew under the same name does not reuse the positions of its predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Which life of the topic; from 1.
    pub incarnation: u32,
    /// The partition; from 0.
    pub partition: u32,
    /// The offset in the partition; from 0.
    pub offset: u64,
}

/// A closed, never empty range `[first, last]` of offsets in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffsetRange {
    first: u64,
    last: u64,
}

impl OffsetRange {
    /// The range from `first` to `last`, both included; `None` if that is empty or its end has no
    /// successor.
    pub fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last && last < u64::MAX).then_some(Self { first, last })
    }

    /// The range from `start` up to, not including, `end`; `None` if that is empty.
    pub fn until(start: u64, end: u64) -> Option<Self> {
        Self::new(start, end.checked_sub(1)?)
    }

    /// The first offset in it.
    pub fn first(self) -> u64 {
        self.first
    }

    /// The last offset in it.
    pub fn last(self) -> u64 {
        self.last
    }

    /// The offset right behind it.
    pub fn end(self) -> u64 {
        // `new` refuses a last offset without a successor.
        self.last.saturating_add(1)
    }

    /// How many offsets it covers; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        self.end().saturating_sub(self.first)
    }

    /// Whether `offset` lies in it.
    pub fn contains(self, offset: u64) -> bool {
        (self.first..=self.last).contains(&offset)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_range_cannot_exist() {
        assert_eq!(OffsetRange::new(2, 1), None);
        assert_eq!(OffsetRange::until(3, 3), None);
        assert_eq!(OffsetRange::until(0, 0), None);
        assert_eq!(OffsetRange::new(0, u64::MAX), None);
    }

    #[test]
    fn a_range_includes_both_its_ends() {
        let range = OffsetRange::until(5, 8).unwrap();
        assert_eq!(
            (range.first(), range.last(), range.end(), range.len()),
            (5, 7, 8, 3)
        );
        assert!(range.contains(5) && range.contains(7) && !range.contains(8));
        assert_eq!(range.to_string(), "5-7");
    }
}
