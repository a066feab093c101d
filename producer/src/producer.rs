//! The handle that events are published with.
//!
//! A caller's part is short and never waits: redact, encode, count, and put the event into a
//! bounded queue. All else is the [delivery thread's](crate::delivery).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use audit_schema::{Event, TraceParent, wire};
use chrono::Utc;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::config::ProducerConfig;
use crate::delivery::{Delivery, Shared, lock};
use crate::durability::{Durability, DurabilityRules};
use crate::error::{CheckError, CreateError, Refused};
use crate::lane::{Lane, Pending, Record};
use crate::lost::Losses;
use crate::metrics;
use crate::occupancy::Occupancy;
use crate::receipt::Receipt;
use crate::redaction::Redaction;
use crate::spool::Spool;

/// Publishes events. Clones share one connection, one buffer and one spool.
///
/// Call [`close`](Self::close) before the process ends. When the last clone is dropped, what is
/// not delivered goes to the spool, or is given up if there is none.
#[derive(Clone)]
pub struct Producer(Arc<Handle>);

struct Handle {
    queue: SyncSender<Box<Pending>>,
    shared: Arc<Shared>,
    redaction: Redaction,
    durability: DurabilityRules,
    closed: AtomicBool,
}

/// What Kafka had not confirmed when a producer was closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftBehind {
    /// Events in the spool: the next producer with its folder delivers them.
    pub spooled: u64,
    /// Events given up, because there is no spool or it took no more. Their receipts say
    /// [`GivenUp`](Refused::GivenUp).
    pub given_up: u64,
}

impl Producer {
    /// Makes a producer. It connects in the background, so brokers that are away are no error;
    /// what an earlier process left in the spool is delivered first.
    ///
    /// ```no_run
    /// use audit_producer::{Producer, ProducerConfig, SpoolConfig};
    ///
    /// let producer = Producer::new(&ProducerConfig {
    ///     brokers: "kafka:9092".into(),
    ///     spool: Some(SpoolConfig::at("/var/lib/auth/spool")),
    ///     ..Default::default()
    /// })?;
    /// # Ok::<(), audit_producer::CreateError>(())
    /// ```
    pub fn new(config: &ProducerConfig) -> Result<Self, CreateError> {
        let redaction = Redaction::load(&config.redaction)?;
        let trouble = Arc::default();
        let client = Client::new(config, Arc::clone(&trouble))?;
        let spool = match &config.spool {
            Some(spool) => Some((Spool::open(spool)?, spool.after)),
            None => None,
        };
        let (max_events, max_bytes) = (config.max_buffered_events, config.max_buffered_bytes);
        let occupancy = Arc::new(Occupancy::new(max_events, max_bytes));
        let folder = config.spool.as_ref().map(|spool| spool.folder.as_path());
        let shared = Arc::new(Shared {
            occupancy: occupancy.clone(),
            losses: Mutex::new(Losses::open(folder)),
            trouble,
            client: Mutex::new(client),
            settled: tokio::sync::Notify::new(),
            stop: Mutex::new(None),
        });
        let places = usize::try_from(max_events).unwrap_or(usize::MAX).max(1);
        let (queue, published) = mpsc::sync_channel(places);
        let lane = Lane::new(spool, occupancy);
        let delivery = Delivery::new(config.clone(), shared.clone(), published, lane);
        thread::Builder::new()
            .name("audit-producer".to_owned())
            .spawn(move || delivery.run())
            .map_err(CreateError::NoThread)?;
        Ok(Self(Arc::new(Handle {
            queue,
            shared,
            redaction,
            durability: DurabilityRules::new(&config.durability),
            closed: AtomicBool::new(false),
        })))
    }

    /// Takes `event` for delivery. It never waits and never fails; the receipt tells the rest.
    ///
    /// ```no_run
    /// # async fn delete(producer: audit_producer::Producer, event: audit_schema::Event<'_>) {
    /// // Audit and go on:
    /// drop(producer.publish(&event));
    /// // Audit or refuse:
    /// if let Err(refused) = producer.publish(&event).await {
    ///     println!("not done: {refused}");
    /// }
    /// # }
    /// ```
    pub fn publish(&self, event: &Event<'_>) -> Receipt {
        self.send(event, false)
    }

    /// Takes an event that may be in Kafka already, such as a client's retry. It must have the id
    /// and the time of the first attempt; then it is stored once.
    ///
    /// ```
    /// use audit_schema::{Event, EventId, EventType};
    ///
    /// // Kept with what it reports, so that both are repeated together after a crash.
    /// let id = EventId::new();
    /// let again = Event::builder("acme".parse()?, EventType::USER_BANNED).id(id).build()?;
    /// # let publish = |producer: audit_producer::Producer| {
    /// let receipt = producer.publish_maybe_delivered(&again);
    /// # };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish_maybe_delivered(&self, event: &Event<'_>) -> Receipt {
        self.send(event, true)
    }

    fn send(&self, event: &Event<'_>, maybe_delivered: bool) -> Receipt {
        let handle = &self.0;
        let durability = handle.durability.of(&event.event_type);
        let event = handle.redaction.apply(event);
        let value = match wire::encode(&event) {
            Ok(value) => value,
            Err(error) => return self.refuse(&event, durability, Refused::TooLarge(error)),
        };
        let record = Record {
            key: wire::key(&event).into_bytes(),
            value,
            maybe_delivered,
            trace_parent: event.trace_parent.filter(TraceParent::is_sampled),
        };
        let cost = record.cost();
        let occupancy = &handle.shared.occupancy;
        if handle.closed.load(Ordering::SeqCst) {
            return self.refuse(&event, durability, Refused::Closed);
        }
        if !occupancy.enter(cost) {
            return self.refuse(&event, durability, Refused::BufferFull);
        }
        let (receipt, answer) = Receipt::under_way();
        let pending = Box::new(Pending {
            record,
            durability,
            published: Instant::now(),
            answer: Some(answer),
        });
        let reason = match handle.queue.try_send(pending) {
            Ok(()) => return receipt,
            Err(TrySendError::Full(_)) => Refused::BufferFull,
            Err(TrySendError::Disconnected(_)) => Refused::Closed,
        };
        occupancy.leave(cost);
        self.refuse(&event, durability, reason)
    }

    fn refuse(&self, event: &Event<'_>, durability: Durability, reason: Refused) -> Receipt {
        metrics::ended(reason.outcome());
        // What is too large or too late is the caller's mistake, not a loss.
        if reason == Refused::BufferFull && durability != Durability::Require {
            let mut losses = lock(&self.0.shared.losses);
            losses.count(event, reason.outcome(), Utc::now());
        }
        Receipt::refused(reason)
    }

    /// Waits until Kafka has everything that was published so far and all of the spool, at most
    /// `timeout`; gives whether it came to that. Needs a Tokio runtime.
    ///
    /// ```no_run
    /// # async fn drained(producer: audit_producer::Producer) {
    /// while !producer.flush(std::time::Duration::from_secs(1)).await {
    ///     println!("{} events wait in memory, {} on disk", producer.in_memory(), producer.in_spool());
    /// }
    /// # }
    /// ```
    pub async fn flush(&self, timeout: Duration) -> bool {
        let shared = &self.0.shared;
        let settled = async {
            let mut notified = std::pin::pin!(shared.settled.notified());
            loop {
                notified.as_mut().enable();
                if shared.occupancy.is_empty() {
                    return;
                }
                notified.as_mut().await;
                notified.set(shared.settled.notified());
            }
        };
        tokio::time::timeout(timeout, settled).await.is_ok()
    }

    /// Takes nothing more, waits like [`flush`](Self::flush), then puts what is left into the
    /// spool, synced, or gives it up if there is none. Says how much that was. Needs a Tokio
    /// runtime.
    ///
    /// ```no_run
    /// # async fn stop(producer: audit_producer::Producer) {
    /// let left = producer.close(std::time::Duration::from_secs(5)).await;
    /// assert_eq!(left.given_up, 0);
    /// # }
    /// ```
    pub async fn close(&self, timeout: Duration) -> LeftBehind {
        self.0.closed.store(true, Ordering::SeqCst);
        self.flush(timeout).await;
        let (stop, stopped) = oneshot::channel();
        *lock(&self.0.shared.stop) = Some(stop);
        // Closed already: nothing is left.
        stopped.await.unwrap_or_default()
    }

    /// Asks the brokers for the topic, and waits up to `timeout` for the answer: it blocks the
    /// thread. `Ok` if Kafka takes events now.
    ///
    /// ```no_run
    /// # fn look(producer: audit_producer::Producer) {
    /// match producer.check(std::time::Duration::from_secs(2)) {
    ///     Ok(()) => println!("events reach kafka"),
    ///     Err(why) if why.is_misconfigured() => println!("mend this: {why}"),
    ///     Err(why) => println!("events wait: {why}"),
    /// }
    /// # }
    /// ```
    pub fn check(&self, timeout: Duration) -> Result<(), CheckError> {
        let client = lock(&self.0.shared.client).clone();
        client.check(timeout)
    }

    /// How many events wait in memory for Kafka's confirmation.
    pub fn in_memory(&self) -> usize {
        self.0.shared.occupancy.events()
    }

    /// How many events are in the spool and not confirmed by Kafka; some may be in memory too.
    pub fn in_spool(&self) -> u64 {
        self.0.shared.occupancy.in_spool()
    }

    /// Whether an event that is published now is refused, because memory or the spool is full.
    pub fn is_full(&self) -> bool {
        self.0.shared.occupancy.is_full()
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("in_memory", &self.in_memory())
            .field("in_spool", &self.in_spool())
            .finish_non_exhaustive()
    }
}
