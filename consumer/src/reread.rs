//! Rereading: a reader of its own that fetches again what is missing in the tables.

use std::time::{Duration, Instant};

use audit_schema::OffsetRange;
use audit_schema::row::Millis;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::batch::{Batch, NotNext, PartitionId};
use crate::config;
use crate::source::record;
use crate::topic::{lone_reader, look_from};

/// How long Kafka may take for the next record.
const ANSWER: Duration = Duration::from_secs(15);

/// Holes that are this close are read together, with what lies between.
const NEAR: u64 = 1_000;

/// Reads a partition again, and commits nothing.
pub(crate) struct Reader {
    settings: ClientConfig,
    topic: String,
    id: PartitionId,
    consumer: BaseConsumer,
    /// The offset of the next record it gives; `None` before the first.
    at: Option<u64>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("id", &self.id)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader of one partition.
    pub(crate) fn new(
        settings: ClientConfig,
        topic: &str,
        id: PartitionId,
    ) -> Result<Self, KafkaError> {
        let consumer = lone_reader(&settings)?;
        Ok(Self {
            settings,
            topic: topic.to_owned(),
            id,
            consumer,
            at: None,
        })
    }

    /// A batch that begins with the first of `missing` and goes on as far as further ones are
    /// near, within the limits. Between them it has rows that are stored already. Blocks.
    pub(crate) fn read(
        &mut self,
        missing: &[OffsetRange],
        limits: &config::Batch,
    ) -> Result<Option<Batch>, KafkaError> {
        let Some(span) = near(missing) else {
            return Ok(None);
        };
        let mut batch = Batch::new(self.id, span.first());
        let mut last = Instant::now();
        self.seek(span.first())?;
        while span.contains(batch.next_offset())
            && batch.rows() < limits.max_rows
            && batch.bytes() < limits.max_bytes
        {
            let polled = self.consumer.poll(Duration::from_millis(100));
            let (found, logged_at) = match &polled {
                None if last.elapsed() < ANSWER => continue,
                None => {
                    let code = RDKafkaErrorCode::OperationTimedOut;
                    return Err(KafkaError::MessageConsumption(code));
                }
                Some(Ok(message)) => {
                    let record = record(message);
                    (record.offset, record.logged_at)
                }
                Some(Err(KafkaError::PartitionEOF(_))) => (span.end(), chrono::Utc::now().into()),
                Some(Err(error)) => return Err(error.clone()),
            };
            last = Instant::now();
            if found < batch.next_offset() {
                continue;
            }
            if let Some(gap) = OffsetRange::until(batch.next_offset(), found.min(span.end())) {
                let look = look_from(&self.settings, &self.topic, self.id.partition, gap.first())?;
                let nothing_until = look.first.map_or(look.end, |(first, _)| first);
                if nothing_until < gap.end() {
                    self.at = None;
                    self.seek(batch.next_offset())?;
                    continue;
                }
                absent(&mut batch, gap, missing, logged_at);
            }
            let Some(Ok(message)) = &polled else { continue };
            if !span.contains(found) {
                break;
            }
            match batch.push(&record(message)) {
                Ok(()) => self.at = Some(batch.next_offset()),
                Err(NotNext::OtherMonth | NotNext::Gap { .. }) => break,
            }
        }
        if self.at != Some(batch.next_offset()) {
            self.at = None;
        }
        Ok(batch.range().map(|_| batch))
    }

    /// Moves reading to `offset`, unless it is there.
    fn seek(&mut self, offset: u64) -> Result<(), KafkaError> {
        if self.at == Some(offset) {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            &self.topic,
            i32::try_from(self.id.partition).unwrap_or(i32::MAX),
            Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)),
        )?;
        self.consumer.assign(&list)?;
        self.at = Some(offset);
        Ok(())
    }
}

/// From the first of `missing` to the last that can be reached over near ones.
fn near(missing: &[OffsetRange]) -> Option<OffsetRange> {
    let (first, further) = missing.split_first()?;
    let mut last = first.last();
    for range in further {
        if range.first().saturating_sub(last) > NEAR {
            break;
        }
        last = range.last();
    }
    OffsetRange::new(first.first(), last)
}

/// Writes down that Kafka holds nothing in `gap`, in pieces of which each is missing or stored as
/// a whole.
fn absent(batch: &mut Batch, gap: OffsetRange, missing: &[OffsetRange], logged_at: Millis) {
    for piece in pieces(gap, missing) {
        if let Err(error) = batch.push_absent(piece, logged_at) {
            tracing::error!(error = %error, "an absent range does not follow what was read");
        }
    }
}

fn pieces(gap: OffsetRange, missing: &[OffsetRange]) -> Vec<OffsetRange> {
    let mut cuts: Vec<u64> = missing
        .iter()
        .flat_map(|range| [range.first(), range.end()])
        .filter(|cut| gap.first() < *cut && *cut < gap.end())
        .chain([gap.first(), gap.end()])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let ends = cuts.iter().skip(1);
    cuts.iter()
        .zip(ends)
        .filter_map(|(first, end)| OffsetRange::until(*first, *end))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> OffsetRange {
        OffsetRange::new(first, last).unwrap()
    }

    #[test]
    fn near_holes_are_read_together() {
        assert_eq!(near(&[]), None);
        let missing = [range(5, 9), range(20, 20), range(5000, 6000)];
        assert_eq!(near(&missing), Some(range(5, 20)));
        assert_eq!(near(&missing[2..]), Some(range(5000, 6000)));
    }

    #[test]
    fn a_gap_is_cut_where_missing_begins_and_ends() {
        let missing = [range(3, 5), range(8, 12)];
        assert_eq!(
            pieces(range(4, 9), &missing),
            [range(4, 5), range(6, 7), range(8, 9)]
        );
        assert_eq!(pieces(range(8, 12), &missing), [range(8, 12)]);
    }
}
