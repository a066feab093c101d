//! Whether events flow: how far each partition is readable, how long nothing moved, and how long
//! it took from each moment of harm until events published after it were readable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many partitions the topic has.
pub(crate) const PARTITIONS: usize = 6;

/// A moment after which events are waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    /// When an event published after it was readable.
    pub(crate) flow: Option<Instant>,
    /// When in every partition an event published after it was readable.
    pub(crate) full_flow: Option<Instant>,
}

#[derive(Debug, Default)]
struct Partition {
    /// Everything below is readable.
    watermark: i64,
    /// Acknowledged events that are not readable, by offset, and when they were published.
    waiting: BTreeMap<i64, Instant>,
    /// When the latest readable event was published.
    fresh: Option<Instant>,
}

/// The longest time in which something did not happen, while it should.
#[derive(Debug)]
pub(crate) struct Stall {
    /// When it last happened; `None` when it need not happen.
    last: Option<Instant>,
    longest: Option<(Duration, Instant)>,
}

impl Stall {
    fn begin(now: Instant) -> Self {
        Self {
            last: Some(now),
            longest: None,
        }
    }

    fn happens(&mut self, now: Instant) {
        let Some(last) = self.last.as_mut() else {
            return;
        };
        let began = std::mem::replace(last, now);
        let stalled = now.duration_since(began);
        if self.longest.is_none_or(|(longest, _)| stalled > longest) {
            self.longest = Some((stalled, began));
        }
    }

    fn end(&mut self, now: Instant) {
        self.happens(now);
        self.last = None;
    }

    /// How long it was, and when it began.
    pub(crate) fn longest(&self) -> Option<(Duration, Instant)> {
        self.longest
    }
}

/// What is known of the flow.
#[derive(Debug)]
pub(crate) struct Flow {
    partitions: [Partition; PARTITIONS],
    marks: Vec<Mark>,
    /// Of the watermark moving.
    pub(crate) reading: Stall,
    /// Of Kafka acknowledging events.
    pub(crate) publishing: Stall,
}

impl Flow {
    /// Publishing begins.
    pub(crate) fn begin(now: Instant) -> Self {
        Self {
            partitions: Default::default(),
            marks: Vec::new(),
            reading: Stall::begin(now),
            publishing: Stall::begin(now),
        }
    }

    /// Publishing ends.
    pub(crate) fn end(&mut self, now: Instant) {
        self.reading.end(now);
        self.publishing.end(now);
    }

    /// Kafka acknowledges events.
    pub(crate) fn acknowledges(&mut self, now: Instant) {
        self.publishing.happens(now);
    }

    /// Kafka has acknowledged this event.
    pub(crate) fn acknowledged(&mut self, partition: i32, offset: i64, published: Instant) {
        let partition = usize::try_from(partition).ok();
        if let Some(partition) = partition.and_then(|index| self.partitions.get_mut(index)) {
            partition.waiting.insert(offset, published);
        }
    }

    /// ClickHouse has these watermarks, by partition.
    pub(crate) fn readable(&mut self, watermarks: &[(usize, i64)], now: Instant) {
        let mut moves = false;
        for (index, watermark) in watermarks {
            let Some(partition) = self.partitions.get_mut(*index) else {
                continue;
            };
            moves |= *watermark > partition.watermark;
            partition.watermark = partition.watermark.max(*watermark);
            let rest = partition.waiting.split_off(&partition.watermark);
            let readable = std::mem::replace(&mut partition.waiting, rest);
            partition.fresh = partition.fresh.max(readable.into_values().max());
        }
        if moves {
            self.reading.happens(now);
        }
        let fresh = self.partitions.iter().map(|partition| partition.fresh);
        let (first, last) = (fresh.clone().max().flatten(), fresh.min().flatten());
        for mark in &mut self.marks {
            if first > Some(mark.at) {
                mark.flow.get_or_insert(now);
            }
            if last > Some(mark.at) {
                mark.full_flow.get_or_insert(now);
            }
        }
    }

    /// Waits for events published after `at`, and gives the mark's number.
    pub(crate) fn mark(&mut self, at: Instant) -> usize {
        self.marks.push(Mark {
            at,
            flow: None,
            full_flow: None,
        });
        self.marks.len() - 1
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Whether events flow in every partition again after all that was done.
    pub(crate) fn recovered(&self) -> bool {
        self.marks.iter().all(|mark| mark.full_flow.is_some())
    }

    /// How many records are readable.
    pub(crate) fn readable_records(&self) -> i64 {
        self.partitions
            .iter()
            .map(|partition| partition.watermark)
            .sum()
    }

    /// Whether every partition is readable up to these ends.
    pub(crate) fn passed(&self, ends: &[i64]) -> bool {
        let mut partitions = self.partitions.iter().zip(ends);
        partitions.all(|(partition, end)| partition.watermark >= *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(watermark: i64) -> Vec<(usize, i64)> {
        (0..PARTITIONS).map(|index| (index, watermark)).collect()
    }

    #[test]
    fn a_mark_is_reached_by_events_published_after_it() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut flow = Flow::begin(start);
        for partition in 0..6 {
            flow.acknowledged(partition, 0, after(1));
            flow.acknowledged(partition, 1, after(3));
        }
        let mark = flow.mark(after(2));
        flow.readable(&all(1), after(4));
        assert!(flow.marks()[mark].flow.is_none(), "published before");
        flow.readable(&[(3, 2)], after(5));
        assert_eq!(flow.marks()[mark].flow, Some(after(5)));
        assert!(!flow.recovered());
        flow.readable(&all(2), after(6));
        assert_eq!(flow.marks()[mark].full_flow, Some(after(6)));
        assert!(flow.recovered() && flow.passed(&[2; 6]) && !flow.passed(&[2, 2, 3]));
        assert_eq!(flow.readable_records(), 12);
    }

    #[test]
    fn the_longest_stall_is_that_while_publishing() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut flow = Flow::begin(start);
        flow.readable(&all(1), after(2));
        flow.readable(&all(1), after(4));
        flow.readable(&[(0, 2)], after(7));
        flow.readable(&all(3), after(8));
        let longest = Some((Duration::from_secs(5), after(2)));
        assert_eq!(flow.reading.longest(), longest);
        flow.end(after(10));
        flow.readable(&all(4), after(90));
        assert_eq!(flow.reading.longest(), longest);
    }
}
