//! The source: reads records from Kafka and fills one batch per partition.
//!
//! It runs on a thread of its own, because that thread is where librdkafka calls back when
//! partitions are given and taken. Batching is group commit: a batch is handed over when it is
//! due *and* its partition is ready for it; until then it grows, up to a limit at which the
//! partition is paused. So memory is bounded, and a slow ClickHouse makes larger batches.
//!
//! Kafka's own idea of where to read is never used: every partition is read from the offset its
//! loop asks for, and every record has to be the next one. A record that is missing is looked for
//! again by a reader of its own; what that does not find either is absent (a transaction marker, or
//! gone), which is written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_schema::row::Millis;
use audit_schema::{OffsetRange, TraceParent, wire};
use audit_service::traces;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, NotNext, PartitionId, Record};
use crate::config;
use crate::error::PartitionError;
use crate::group::{Event, GroupContext};
use crate::partition::Command;
use crate::topic::{self, Topic};

mod reading;

use reading::Reading;

/// How many records are read before anything else is looked at.
const BURST: usize = 512;

/// How long to wait for a record while batches wait to become due.
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// How long to wait for a record while there is nothing else to do.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// How long a question to the broker may hold up reading.
const ANSWER: Duration = Duration::from_secs(5);

/// Reads records and fills batches.
pub struct Source {
    consumer: Arc<BaseConsumer<GroupContext>>,
    /// The settings of a reader that takes a second look.
    settings: ClientConfig,
    topic: Arc<str>,
    incarnation: u32,
    limits: config::Batch,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
    /// By partition; there are few, and each record looks for its own.
    reading: BTreeMap<u32, Reading>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// A source that reads a life of `topic` through a subscribed `consumer`.
    pub fn new(
        consumer: Arc<BaseConsumer<GroupContext>>,
        topic: &Topic,
        incarnation: u32,
        limits: config::Batch,
        (commands, events): (
            mpsc::UnboundedReceiver<Command>,
            mpsc::UnboundedSender<Event>,
        ),
    ) -> Self {
        Self {
            consumer,
            settings: topic.client_config(),
            topic: topic.name().into(),
            incarnation,
            limits,
            commands,
            events,
            reading: BTreeMap::new(),
        }
    }

    /// Reads until `shutdown`, then hands over what is held, for at most `budget`; or until
    /// `given_up`, and then nothing more. Blocks.
    pub fn run(
        mut self,
        shutdown: &CancellationToken,
        given_up: &CancellationToken,
        budget: Duration,
    ) {
        let mut stop_by = None;
        while !given_up.is_cancelled() {
            if shutdown.is_cancelled() {
                let stop_by = *stop_by.get_or_insert_with(|| Instant::now() + budget);
                let held = self
                    .reading
                    .values()
                    .any(|r| r.batch.range().is_some() || !r.ready);
                if !held || Instant::now() >= stop_by {
                    return;
                }
            }
            self.read(stop_by.is_some());
            for event in self.consumer.context().said() {
                if let Event::Revoked { partition } = &event {
                    self.reading.remove(partition);
                }
                // The receiver outlives the source, unless the process is ending anyway.
                self.events.send(event).ok();
            }
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command);
            }
            let partitions: Vec<u32> = self.reading.keys().copied().collect();
            for partition in partitions {
                self.hand_over(partition, stop_by.is_some());
                if stop_by.is_none() {
                    self.seek(partition);
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Read {
                partition,
                from,
                batches,
            } => {
                let id = PartitionId {
                    incarnation: self.incarnation,
                    partition,
                };
                self.reading
                    .insert(partition, Reading::begin(id, from, batches));
            }
            Command::Ready { partition } => {
                if let Some(reading) = self.reading.get_mut(&partition) {
                    reading.ready = true;
                }
            }
            Command::LogEnds { partition, at } => self.look_for_trailing_hole(partition, at),
        }
    }

    /// Reads a burst of records, or waits a moment for the first.
    fn read(&mut self, stopping: bool) {
        let consumer = Arc::clone(&self.consumer);
        let busy = stopping
            || self
                .reading
                .values()
                .any(|r| r.batch.range().is_some() || r.seek);
        let mut wait = if busy { BUSY_WAIT } else { IDLE_WAIT };
        for _ in 0..BURST {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => self.take(&message, stopping),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.end_of(partition),
                Some(Err(error)) => self.failed(&error),
            }
            wait = Duration::ZERO;
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, stopping: bool) {
        if self.consumer.context().is_other_topic() {
            return;
        }
        let Some(reading) = u32::try_from(message.partition())
            .ok()
            .and_then(|partition| self.reading.get_mut(&partition))
        else {
            return;
        };
        let offset = offset(message);
        // What was fetched before a seek, or is not wanted any more.
        if reading.seek || reading.closed || stopping || offset < reading.batch.next_offset() {
            reading.seek |= reading.closed || stopping;
            return;
        }
        let record = record(message);
        match reading.batch.push(&record) {
            Ok(()) if !full(&reading.batch, &self.limits) => return,
            Ok(()) => {}
            Err(NotNext::OtherMonth) => {
                reading.closed = true;
                reading.seek = true;
            }
            Err(NotNext::Gap { found, .. }) => {
                let partition = reading.id.partition;
                self.look_again(partition, found, record.logged_at);
                return;
            }
        }
        self.close_full(message.partition());
    }

    /// Ends a batch that may not grow, and pauses its partition.
    fn close_full(&mut self, partition: i32) {
        let Some(reading) = u32::try_from(partition)
            .ok()
            .and_then(|partition| self.reading.get_mut(&partition))
        else {
            return;
        };
        reading.closed |= full(&reading.batch, &self.limits);
        if reading.closed
            && let Err(error) = self.consumer.pause(&one(&self.topic, reading.id.partition))
        {
            tracing::warn!(error = %error, "a partition could not be paused");
        }
    }

    /// Hands a batch over if it is due and wanted.
    fn hand_over(&mut self, partition: u32, stopping: bool) {
        let Some(reading) = self.reading.get_mut(&partition) else {
            return;
        };
        if !reading.ready || reading.batch.range().is_none() {
            return;
        }
        let batch = &reading.batch;
        let due = reading.closed
            || stopping
            || batch.opened().elapsed() >= self.limits.interval
            || batch.rows() >= self.limits.max_rows
            || batch.bytes() >= self.limits.max_bytes;
        if !due {
            return;
        }
        let next = Batch::new(reading.id, batch.next_offset());
        let batch = std::mem::replace(&mut reading.batch, next);
        reading.ready = false;
        // What was fetched while the partition was paused is read again.
        reading.seek |= reading.closed;
        reading.closed = false;
        if reading.batches.try_send(batch).is_err() {
            // The loop is gone; it asks anew if it starts again.
            self.reading.remove(&partition);
        }
    }

    /// Moves reading to where it has to go on.
    fn seek(&mut self, partition: u32) {
        let Some(reading) = self.reading.get_mut(&partition) else {
            return;
        };
        if !reading.seek || reading.closed {
            return;
        }
        let next = i64::try_from(reading.batch.next_offset()).unwrap_or(i64::MAX);
        let id = i32::try_from(partition).unwrap_or(i32::MAX);
        let moved = self
            .consumer
            .resume(&one(&self.topic, partition))
            .and_then(|()| {
                self.consumer
                    .seek(&self.topic, id, Offset::Offset(next), ANSWER)
            });
        match moved {
            Ok(()) => {
                reading.seek = false;
                reading.end_seen = None;
            }
            // The assignment is not in place yet, or a seek is under way: the next round tries.
            Err(error) => {
                tracing::debug!(kafka.partition = partition, error = %error, "seek waits");
            }
        }
    }

    /// Kafka says that there is nothing behind what was read.
    fn end_of(&mut self, partition: i32) {
        let Some(reading) = u32::try_from(partition)
            .ok()
            .and_then(|partition| self.reading.get_mut(&partition))
        else {
            return;
        };
        if !reading.seek && !reading.closed {
            reading.end_seen = Some(reading.batch.next_offset());
        }
    }

    /// A log that ends behind what was read, of which Kafka said that nothing follows, ends with markers.
    fn look_for_trailing_hole(&mut self, partition: u32, end: u64) {
        let reading = self.reading.get_mut(&partition);
        if reading.is_some_and(|reading| reading.lacks_its_end(end)) {
            self.look_again(partition, end, chrono::Utc::now().into());
        }
    }

    /// Records from the next offset to before `until` did not come. Reads there once more, and
    /// writes down as absent what Kafka does not hold; the rest is read again.
    fn look_again(&mut self, partition: u32, until: u64, logged_at: Millis) {
        let Some(reading) = self.reading.get_mut(&partition) else {
            return;
        };
        reading.seek = true;
        let from = reading.batch.next_offset();
        let look = match topic::look_from(&self.settings, &self.topic, partition, from) {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!(kafka.partition = partition, error = %error, "no second look yet");
                return;
            }
        };
        if look.start > from {
            self.reading.remove(&partition);
            let (missing, log_start) = (from, look.start);
            let error = PartitionError::Lost { missing, log_start };
            self.events
                .send(Event::Unreadable { partition, error })
                .ok();
            return;
        }
        let found = look.first.map_or(look.end, |(offset, _)| offset);
        let Some(range) = OffsetRange::until(from, until.min(found)) else {
            return;
        };
        tracing::error!(
            kafka.partition = partition,
            range = %range,
            "kafka holds no records at these offsets; written down as absent"
        );
        if let Err(error) = reading.batch.push_absent(range, logged_at) {
            tracing::error!(error = %error, "an absent range does not follow what was read");
        }
        self.close_full(i32::try_from(partition).unwrap_or(i32::MAX));
    }

    /// An error that belongs to no record.
    fn failed(&mut self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.stop_out_of_range();
            }
            Some(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition,
            ) => {
                tracing::warn!(error = %error, "kafka does not know the topic");
                self.events.send(Event::TopicInQuestion).ok();
            }
            _ => tracing::warn!(error = %error, "kafka could not be read"),
        }
    }

    /// Stops the partitions whose next offset Kafka does not have.
    fn stop_out_of_range(&mut self) {
        let mut unreadable = Vec::new();
        for (partition, reading) in &self.reading {
            let id = i32::try_from(*partition).unwrap_or(i32::MAX);
            let Ok((start, end)) = self.consumer.fetch_watermarks(&self.topic, id, ANSWER) else {
                continue;
            };
            let (start, end) = (
                u64::try_from(start).unwrap_or(0),
                u64::try_from(end).unwrap_or(0),
            );
            let next = reading.batch.next_offset();
            if next < start {
                let error = PartitionError::Lost {
                    missing: next,
                    log_start: start,
                };
                unreadable.push((*partition, error));
            } else if next > end {
                let reason = format!("offset {next} is next, but the log ends at {end}");
                unreadable.push((*partition, PartitionError::OtherTopic { reason }));
            }
        }
        for (partition, error) in unreadable {
            self.reading.remove(&partition);
            self.events
                .send(Event::Unreadable { partition, error })
                .ok();
        }
    }
}

/// Whether a batch may not grow any more.
fn full(batch: &Batch, limits: &config::Batch) -> bool {
    batch.rows() >= limits.most_rows() || batch.bytes() >= limits.most_bytes()
}

/// The offset of a record.
pub(crate) fn offset(message: &BorrowedMessage<'_>) -> u64 {
    u64::try_from(message.offset()).unwrap_or(u64::MAX)
}

/// A record as a batch takes it.
pub(crate) fn record<'a>(message: &'a BorrowedMessage<'_>) -> Record<'a> {
    let (mut version, mut maybe_delivered, mut trace_parent) = (None, false, None);
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        match header.key {
            wire::VERSION_HEADER if version.is_none() => {
                version = Some(header.value.unwrap_or_default());
            }
            wire::MAYBE_DELIVERED_HEADER => maybe_delivered = true,
            wire::TRACE_PARENT_HEADER if traces::are_on() => {
                trace_parent = TraceParent::parse(header.value.unwrap_or_default());
            }
            _ => {}
        }
    }
    Record {
        offset: offset(message),
        logged_at: Millis(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().unwrap_or_default(),
        value: message.payload().unwrap_or_default(),
        version,
        maybe_delivered,
        trace_parent: trace_parent.filter(TraceParent::is_sampled),
    }
}

/// A list of one partition.
fn one(topic: &str, partition: u32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, i32::try_from(partition).unwrap_or(i32::MAX));
    list
}
