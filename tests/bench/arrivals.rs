//! Events that arrive at a rate, whatever becomes of them: an open loop on a thread of its own.
//!
//! Beside them comes an event every 50 ms of a project that has no others. These are looked for: a
//! page of them is short at any rate, and looking for them costs the same at any rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::ensure;
use audit_producer::Producer;
use audit_schema::{Event, EventType};
use audit_tests::world::World;

use crate::events::{Shape, renewed};

/// The project of the events that are looked for.
pub(crate) const PROBES: &str = "probes";

/// How often one of them comes.
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// How long Kafka has to take the rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// An event that is looked for.
pub(crate) struct Probe {
    pub(crate) id: String,
    /// When it was created, in milliseconds since 1970.
    pub(crate) created: i64,
    /// Before the call that published it.
    pub(crate) published: Instant,
}

/// Events that arrive until they are stopped.
pub(crate) struct Arrivals {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
    producer: Producer,
    /// The events that are looked for, as they are published.
    pub(crate) probes: Receiver<Probe>,
}

impl Arrivals {
    /// So many events a second of a project to the topic of `world`.
    pub(crate) fn start(world: &World, project: &str, rate: u64) -> anyhow::Result<Self> {
        let producer = world.producer()?;
        let mut pool = Shape::Full.pool();
        for event in &mut pool {
            event.project_id = project.parse()?;
        }
        let (send, probes) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, publisher) = (Arc::clone(&stop), producer.clone());
        let thread = std::thread::spawn(move || {
            let (started, mut next_probe, mut number) = (Instant::now(), Duration::ZERO, 0);
            while !stopped.load(Ordering::Relaxed) {
                let now = started.elapsed();
                let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
                // What should have been published by now, and has not been.
                while number < micros * rate / 1_000_000 {
                    drop(publisher.publish(renewed(&mut pool, number)));
                    number += 1;
                }
                if now >= next_probe {
                    let event = probe();
                    // Nobody looks for it any more once the receiver is gone.
                    send.send(Probe {
                        id: event.id.to_string(),
                        created: event.created_at.timestamp_millis(),
                        published: Instant::now(),
                    })
                    .ok();
                    drop(publisher.publish(&event));
                    next_probe += PROBE_EVERY;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            number
        });
        Ok(Self {
            stop,
            thread,
            producer,
            probes,
        })
    }

    /// Ends them and waits until Kafka has all. Gives how many there were, beside those that are
    /// looked for, and the latter that were not taken from the channel.
    pub(crate) async fn stop(self) -> anyhow::Result<(u64, Vec<Probe>)> {
        self.stop.store(true, Ordering::Relaxed);
        let events = self.thread.join();
        let events = events.map_err(|_| anyhow::anyhow!("the publishing thread panicked"))?;
        ensure!(self.producer.flush(PATIENCE).await, "Kafka takes too long");
        Ok((events, self.probes.try_iter().collect()))
    }
}

/// Each of another user, so that they come to all partitions.
fn probe() -> Event<'static> {
    let id = audit_schema::EventId::new();
    Event::builder(
        PROBES.parse().expect("a project"),
        EventType::USER_SIGNED_IN,
    )
    .id(id)
    .event_key(id.to_string())
    .build()
    .expect("an event")
}
