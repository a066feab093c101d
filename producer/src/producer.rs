//! The producer: takes events at once, delivers them in the background.
//!
//! It promises that a record is in Kafka exactly once per call and in the order of the calls of
//! one event key (an idempotent client), and that a caller never waits for it: the buffer is
//! bounded, and when it is full the receipt says so at once. Delivery reports are polled by a
//! thread of its own, so receipts resolve on any runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit_schema::{Event, wire};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};

use crate::config::ProducerConfig;
use crate::delivery::{Deliveries, Receipt, publish_error};
use crate::error::{CheckError, CreateError, PublishError};

/// Publishes events. Clones share one connection and one buffer.
///
/// Call [`close`](Self::close) before the process ends: what is still buffered when the last clone
/// is dropped is given up.
#[derive(Clone)]
pub struct Producer {
    client: ThreadedProducer<Deliveries>,
    topic: Arc<str>,
    closed: Arc<AtomicBool>,
}

impl Producer {
    /// Makes a producer. It connects in the background, so brokers that are away are no error.
    pub fn new(config: &ProducerConfig) -> Result<Self, CreateError> {
        let client = ThreadedProducer::from_config_and_context(
            &config.client_config()?,
            Deliveries::default(),
        )?;
        Ok(Self {
            client,
            topic: config.topic.as_str().into(),
            closed: Arc::default(),
        })
    }

    /// Takes `event` for delivery. It never waits and never fails; the receipt tells the rest.
    pub fn publish(&self, event: &Event<'_>) -> Receipt {
        self.send(event, false)
    }

    /// Takes an event that may be in Kafka already: one whose receipt said
    /// [`Undelivered`](PublishError::Undelivered), or a client's retry. It must have the id and
    /// the time of the first attempt; then it is stored once.
    pub fn publish_maybe_delivered(&self, event: &Event<'_>) -> Receipt {
        self.send(event, true)
    }

    fn send(&self, event: &Event<'_>, maybe_delivered: bool) -> Receipt {
        self.deliveries().entered();
        // Read after the event was counted in: `close` sets it before it counts.
        let accepted = if self.closed.load(Ordering::SeqCst) {
            Err(PublishError::Closed)
        } else {
            self.enqueue(event, maybe_delivered)
        };
        accepted.unwrap_or_else(|error| {
            self.deliveries().left();
            self.deliveries().not_stored(&error);
            Receipt::refused(error)
        })
    }

    fn enqueue(&self, event: &Event<'_>, maybe_delivered: bool) -> Result<Receipt, PublishError> {
        let (key, value) = (wire::key(event), wire::encode(event)?);
        let header = |key, value| Header { key, value };
        let mut headers = OwnedHeaders::new_with_capacity(2)
            .insert(header(wire::VERSION_HEADER, Some(wire::VERSION)));
        if maybe_delivered {
            headers = headers.insert(header(wire::MAYBE_DELIVERED_HEADER, Some("1")));
        }
        let (receipt, delivery) = Receipt::under_way();
        let record = BaseRecord::with_opaque_to(&self.topic, delivery)
            .key(&key)
            .payload(&value)
            .headers(headers);
        match self.client.send(record) {
            Ok(()) => Ok(receipt),
            Err((error, _)) => Err(publish_error(&error)),
        }
    }

    /// Waits until every event published so far is stored or given up, at most `timeout`, and
    /// gives how many are still under way. Needs a Tokio runtime.
    pub async fn flush(&self, timeout: Duration) -> usize {
        let deliveries = self.deliveries();
        match tokio::time::timeout(timeout, deliveries.settled()).await {
            Ok(()) => 0,
            Err(_) => deliveries.under_way(),
        }
    }

    /// Takes nothing more, waits like [`flush`](Self::flush), then gives up what is left, and
    /// gives how many that were; their receipts say `Undelivered`.
    pub async fn close(&self, timeout: Duration) -> usize {
        self.closed.store(true, Ordering::SeqCst);
        let left = self.flush(timeout).await;
        if left > 0 {
            self.client.purge(PurgeConfig::default().queue().inflight());
        }
        left
    }

    /// Asks the brokers for the topic, and waits up to `timeout` for the answer: it blocks the
    /// thread. `Ok` if events can be delivered now.
    pub fn check(&self, timeout: Duration) -> Result<(), CheckError> {
        if let Some((_, reason)) = self.client.client().fatal_error() {
            return Err(CheckError::Broken(reason));
        }
        let unreachable = |error: KafkaError| CheckError::Unreachable(error.to_string());
        let metadata = self
            .client
            .client()
            .fetch_metadata(Some(&self.topic), timeout)
            .map_err(unreachable)?;
        let known = metadata
            .topics()
            .iter()
            .any(|topic| !topic.partitions().is_empty());
        if known {
            Ok(())
        } else {
            Err(CheckError::NoTopic(self.topic.to_string()))
        }
    }

    fn deliveries(&self) -> &Deliveries {
        self.client.context()
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}
