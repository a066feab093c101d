//! From a published event to its receipt.
//!
//! Every event that librdkafka took carries a [`Delivery`], and librdkafka gives it back exactly
//! once: confirmed, failed, timed out or purged. So every receipt resolves, and the number of
//! events under way is exact.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::{Notify, oneshot};

use crate::error::PublishError;
use crate::metrics;

/// Where Kafka stored an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The partition; from 0.
    pub partition: i32,
    /// The offset in it; from 0.
    pub offset: i64,
}

/// The promise that one published event is durable.
///
/// It resolves when all in-sync replicas have the event, or when that is no longer to be expected.
/// It may be dropped: the event travels on.
#[derive(Debug)]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Refused(PublishError),
    UnderWay(oneshot::Receiver<Result<Stored, PublishError>>),
}

impl Receipt {
    pub(crate) fn refused(error: PublishError) -> Self {
        Self(State::Refused(error))
    }

    /// A receipt, and what resolves it.
    pub(crate) fn under_way() -> (Self, Box<Delivery>) {
        let (answer, receiver) = oneshot::channel();
        let delivery = Delivery {
            answer,
            published: Instant::now(),
        };
        (Self(State::UnderWay(receiver)), Box::new(delivery))
    }
}

impl Future for Receipt {
    type Output = Result<Stored, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Refused(error) => Poll::Ready(Err(error.clone())),
            State::UnderWay(receiver) => Pin::new(receiver).poll(cx).map(|answer| {
                // The sender is lost only with the whole client.
                answer.unwrap_or(Err(PublishError::Closed))
            }),
        }
    }
}

/// What an event under way carries.
#[derive(Debug)]
pub(crate) struct Delivery {
    answer: oneshot::Sender<Result<Stored, PublishError>>,
    published: Instant,
}

/// Receives librdkafka's reports.
#[derive(Default)]
pub(crate) struct Deliveries {
    under_way: AtomicUsize,
    none_under_way: Notify,
    failing: AtomicBool,
}

impl Deliveries {
    /// Counts an event in; whoever calls this sees to it that [`left`](Self::left) follows.
    pub(crate) fn entered(&self) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        metrics::buffered().increment(1);
    }

    /// Counts an event out.
    pub(crate) fn left(&self) {
        metrics::buffered().decrement(1);
        if self.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.none_under_way.notify_waiters();
        }
    }

    /// How many events are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Waits until no event is under way.
    pub(crate) async fn settled(&self) {
        let mut notified = std::pin::pin!(self.none_under_way.notified());
        loop {
            notified.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            notified.as_mut().await;
            notified.set(self.none_under_way.notified());
        }
    }

    /// Where every event ends that is not stored, refused or undelivered. The first of a row is
    /// logged; all are counted.
    pub(crate) fn not_stored(&self, error: &PublishError) {
        metrics::ended(error.outcome());
        let of_kafka = !matches!(error, PublishError::TooLarge(_) | PublishError::Closed);
        if of_kafka && !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "events do not reach kafka");
        }
    }

    fn stored(&self, published: Instant) {
        metrics::stored(published.elapsed());
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("events reach kafka again");
        }
    }
}

/// What a failure reported by librdkafka means for the caller.
pub(crate) fn publish_error(error: &KafkaError) -> PublishError {
    let code = error.rdkafka_error_code();
    let reason = code.map_or_else(|| error.to_string(), |code| code.to_string());
    match code {
        Some(RDKafkaErrorCode::QueueFull) => PublishError::BufferFull,
        Some(RDKafkaErrorCode::Fatal) => PublishError::Broken { reason },
        _ => PublishError::Undelivered { reason },
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, "librdkafka: {message}");
            }
            // A broker that has just started does not know its producers yet; it is asked again.
            _ if facility == "GETPID" => tracing::debug!(facility, "librdkafka: {message}"),
            _ => tracing::warn!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            tracing::error!(reason, "the kafka producer is broken");
        } else {
            // librdkafka logs these too.
            tracing::debug!(%error, reason, "librdkafka reports an error");
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let answer = match result {
            Ok(record) => {
                self.stored(delivery.published);
                Ok(Stored {
                    partition: record.partition(),
                    offset: record.offset(),
                })
            }
            Err((error, _)) => {
                let error = publish_error(error);
                self.not_stored(&error);
                Err(error)
            }
        };
        // Nobody may be waiting.
        delivery.answer.send(answer).ok();
        self.left();
    }
}
