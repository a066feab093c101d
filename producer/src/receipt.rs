//! The promise that a published event is durable, and what becomes of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::Refused;

/// How a published event is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// All in-sync replicas of Kafka have it.
    Stored(Stored),
    /// Kafka did not take it in time; it is on disk, and is sent when Kafka takes events again.
    Spooled,
}

/// Where Kafka stored an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The partition; from 0.
    pub partition: i32,
    /// The offset in it; from 0. Negative where Kafka found, at a repetition, that it had the
    /// event already: then it does not say where.
    pub offset: i64,
}

/// The promise that one published event is durable.
///
/// It resolves, on any runtime, to what happened: the event is [`Published`] or [`Refused`]. It may
/// be dropped: the event travels on. Without a spool it stays open for as long as Kafka is away.
#[derive(Debug)]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Refused(Refused),
    UnderWay(oneshot::Receiver<Answer>),
}

pub(crate) type Answer = Result<Published, Refused>;

impl Receipt {
    pub(crate) fn refused(reason: Refused) -> Self {
        Self(State::Refused(reason))
    }

    /// A receipt, and what resolves it.
    pub(crate) fn under_way() -> (Self, oneshot::Sender<Answer>) {
        let (answer, receiver) = oneshot::channel();
        (Self(State::UnderWay(receiver)), answer)
    }
}

impl Future for Receipt {
    type Output = Result<Published, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Refused(reason) => Poll::Ready(Err(reason.clone())),
            // The sender is lost only with an event that was published while the producer closed.
            State::UnderWay(receiver) => Pin::new(receiver)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(Refused::Closed))),
        }
    }
}
