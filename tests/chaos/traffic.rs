//! The events of a run, published at a steady rate whatever happens, with garbage among them; and
//! the watch over how far they are readable.
//!
//! An event is *acknowledged* when its receipt said so, and must then be stored once. All others
//! may be stored, once. Some acknowledged events are published again, as a client does that takes
//! its answer for lost: the second one must become a dead letter.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use audit_producer::{Producer, ProducerConfig, Published, Refused, Stored};
use audit_schema::{Event, EventId, wire};
use audit_tests::world::{World, event};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::flow::Flow;

/// How long Kafka has to acknowledge what is under way when publishing ends.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

/// How often the watermarks are looked at, and how long ClickHouse may take to tell them.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_secs(1);

/// One record in this many milliseconds is garbage, and one event in these is published again.
const GARBAGE_EVERY: u64 = 1000;
const REPEAT_EVERY: u64 = 2000;
/// One garbage record in this many is large.
const LARGE_EVERY: usize = 20;

/// A dead letter as the table has it: kind, key, and SHA-256 of the value, in hexadecimal.
pub(crate) type Letter = (String, String, String);

/// What was published, and what is known of it.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) published: usize,
    pub(crate) acknowledged: Vec<EventId>,
    pub(crate) unacknowledged: Vec<EventId>,
    /// Dead letters that may be found; those whose record was acknowledged have to be.
    pub(crate) letters: BTreeMap<Letter, bool>,
    /// Whether all is published, and answered or given up.
    pub(crate) ended: bool,
    pub(crate) flow: Flow,
}

/// Publishing and watching, on a thread of its own.
pub(crate) struct Traffic {
    books: Arc<Mutex<Books>>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

struct Running {
    world: Arc<World>,
    books: Arc<Mutex<Books>>,
    stop: watch::Receiver<bool>,
    rate: u64,
}

impl Traffic {
    /// Begins to publish `rate` events a second.
    pub(crate) fn begin(world: Arc<World>, rate: u64) -> anyhow::Result<Self> {
        let books = Arc::new(Mutex::new(Books {
            published: 0,
            acknowledged: Vec::new(),
            unacknowledged: Vec::new(),
            letters: BTreeMap::new(),
            ended: false,
            flow: Flow::begin(Instant::now()),
        }));
        let (stop, stopped) = watch::channel(false);
        let running = Running {
            world,
            books: Arc::clone(&books),
            stop: stopped,
            rate,
        };
        let thread = std::thread::Builder::new()
            .name("traffic".to_owned())
            .spawn(move || running.run())?;
        Ok(Self {
            books,
            stop,
            thread,
        })
    }

    /// What is known so far.
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        locked(&self.books)
    }

    /// Whether it has ended unasked.
    pub(crate) fn failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends publishing; watching goes on.
    pub(crate) fn stop_publishing(&self) {
        self.stop.send_replace(true);
    }

    /// Ends it all.
    pub(crate) fn end(self) -> anyhow::Result<Books> {
        drop(self.stop);
        match self.thread.join() {
            Ok(ended) => ended?,
            Err(_) => bail!("the thread that publishes panicked"),
        }
        let books = Arc::into_inner(self.books).context("the books, of which nobody knows")?;
        Ok(books.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn locked(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    fn books(&self) -> MutexGuard<'_, Books> {
        locked(&self.books)
    }

    /// Publishes until it is stopped and watches until the [`Traffic`] is gone.
    fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let publish = async {
                tokio::try_join!(self.publish(), self.garbage())?;
                self.books().ended = true;
                anyhow::Ok(())
            };
            tokio::try_join!(publish, self.watch()).map(drop)
        })
    }

    async fn stopped(&self) {
        // Gone is stopped too.
        self.stop.clone().wait_for(|stop| *stop).await.ok();
    }

    fn producer(&self) -> anyhow::Result<Producer> {
        Ok(Producer::new(&ProducerConfig {
            brokers: self.world.brokers(),
            topic: self.world.topic.clone(),
            // Few lines, which say what becomes of sequence numbers and leaders when a broker dies.
            properties: BTreeMap::from([("debug".to_owned(), "eos,topic".to_owned())]),
            ..ProducerConfig::default()
        })?)
    }

    async fn publish(&self) -> anyhow::Result<()> {
        let producer = self.producer()?;
        let mut receipts = FuturesUnordered::new();
        let mut repeats = FuturesUnordered::new();
        let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / self.rate.max(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let repeat_every = usize::try_from(self.rate * REPEAT_EVERY / 1000)?.max(1);
        let mut stopped = std::pin::pin!(self.stopped());
        loop {
            tokio::select! {
                () = &mut stopped => break,
                _ = tick.tick() => {
                    let number = {
                        let mut books = self.books();
                        books.published += 1;
                        books.published
                    };
                    let event = event("acme", &format!("user-{}", number % 997));
                    let again = number % repeat_every == 0;
                    let now = Instant::now();
                    let receipt = producer.publish(&event);
                    receipts.push(async move { (event, again, now, receipt.await) });
                }
                Some((event, again, published, answer)) = receipts.next() => {
                    let acknowledged = answer.is_ok();
                    self.note(event.id, published, &answer);
                    if again && acknowledged {
                        repeats.push(repeated(producer.clone(), event));
                    }
                }
                Some((event, answer)) = repeats.next() => self.note_repeated(&event, answer.is_ok())?,
            }
        }
        self.books().flow.end(Instant::now());
        producer.close(LAST_ANSWERS).await;
        while let Some((event, _, published, answer)) = receipts.next().await {
            self.note(event.id, published, &answer);
        }
        while let Some((event, answer)) = repeats.next().await {
            self.note_repeated(&event, answer.is_ok())?;
        }
        Ok(())
    }

    fn note(&self, id: EventId, published: Instant, answer: &Result<Published, Refused>) {
        let mut books = self.books();
        match answer {
            Ok(durable) => {
                books.acknowledged.push(id);
                books.flow.acknowledges(Instant::now());
                // Kafka does not say where a record is that it had already taken.
                if let Published::Stored(Stored { partition, offset }) = *durable
                    && offset >= 0
                {
                    books.flow.acknowledged(partition, offset, published);
                }
            }
            Err(_) => books.unacknowledged.push(id),
        }
    }

    fn note_repeated(&self, event: &Event<'static>, acknowledged: bool) -> anyhow::Result<()> {
        let (key, value) = (wire::key(event), wire::encode(event)?);
        let letter = letter("duplicate", key.as_bytes(), &value);
        self.books().letters.insert(letter, acknowledged);
        Ok(())
    }

    async fn garbage(&self) -> anyhow::Result<()> {
        let producer: FutureProducer = self
            .world
            .kafka()
            .set("enable.idempotence", "true")
            .set("reconnect.backoff.max.ms", "1000")
            .set("message.timeout.ms", "300000")
            .create()?;
        let mut receipts = FuturesUnordered::new();
        let mut tick = tokio::time::interval(Duration::from_millis(GARBAGE_EVERY));
        let mut stopped = std::pin::pin!(self.stopped());
        let mut number = 0;
        loop {
            tokio::select! {
                () = &mut stopped => break,
                _ = tick.tick() => {
                    number += 1;
                    receipts.push(self.send_garbage(&producer, number));
                }
                Some((letter, acknowledged)) = receipts.next() => {
                    self.books().letters.insert(letter, acknowledged);
                }
            }
        }
        let rest = async {
            while let Some((letter, acknowledged)) = receipts.next().await {
                self.books().letters.insert(letter, acknowledged);
            }
        };
        // What is not answered by then stays noted as not acknowledged.
        tokio::time::timeout(LAST_ANSWERS, rest).await.ok();
        Ok(())
    }

    async fn send_garbage(&self, producer: &FutureProducer, number: usize) -> (Letter, bool) {
        let key = format!("garbage-{number}");
        let (kind, value, version) = match number {
            n if n % LARGE_EVERY == 0 => ("too_large", vec![b'x'; 900 * 1024], "1"),
            n if n % 3 == 0 => ("malformed", Vec::new(), "1"),
            n if n % 3 == 1 => (
                "malformed",
                format!("no JSON: {n} {{\u{0}").into_bytes(),
                "1",
            ),
            _ => ("unsupported_version", b"{}".to_vec(), "2"),
        };
        let letter = letter(kind, key.as_bytes(), &value);
        self.books().letters.insert(letter.clone(), false);
        let headers = OwnedHeaders::new().insert(Header {
            key: wire::VERSION_HEADER,
            value: Some(version),
        });
        let record = FutureRecord::to(&self.world.topic)
            .key(&key)
            .payload(&value)
            .headers(headers);
        let acknowledged = producer.send(record, Timeout::Never).await.is_ok();
        (letter, acknowledged)
    }

    async fn watch(&self) -> anyhow::Result<()> {
        let mut again = tokio::time::interval(LOOK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // An error: the sender, the whole run, is gone.
        while self.stop.has_changed().is_ok() {
            again.tick().await;
            let question = "SELECT partition, max(next_offset) FROM audit_watermarks \
                            GROUP BY partition";
            let told = tokio::time::timeout(LOOK, self.world.sql(question)).await;
            // While ClickHouse is away nothing is readable.
            if let Ok(Ok(told)) = told {
                let watermarks: Vec<(usize, i64)> = told
                    .lines()
                    .filter_map(|line| line.split_once('\t'))
                    .map(|(partition, next)| anyhow::Ok((partition.parse()?, next.parse()?)))
                    .collect::<anyhow::Result<_>>()?;
                self.books().flow.readable(&watermarks, Instant::now());
            }
        }
        Ok(())
    }
}

async fn repeated(
    producer: Producer,
    event: Event<'static>,
) -> (Event<'static>, Result<Published, Refused>) {
    let answer = producer.publish_maybe_delivered(&event).await;
    (event, answer)
}

fn letter(kind: &str, key: &[u8], value: &[u8]) -> Letter {
    (kind.to_owned(), hex(key), hex(&Sha256::digest(value)))
}

/// As ClickHouse's `hex` writes it.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        write!(text, "{byte:02X}").ok();
        text
    })
}
