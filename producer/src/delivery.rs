//! The thread that owns Kafka's client, the lane and its spool.
//!
//! One thread, so that order needs no locks and no caller ever waits for a disk or a broker. A
//! round takes what was published, writes what has to be on disk, gives the client what is next,
//! and hears what became of the rest; a round in which nothing is under way sleeps until an
//! event comes.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use audit_schema::{EventId, wire};
use chrono::Utc;
use tokio::sync::{Notify, oneshot};

use crate::client::{Client, NotTaken};
use crate::clock::clock_ahead;
use crate::config::ProducerConfig;
use crate::durability::Durability;
use crate::error::{CheckError, Refused};
use crate::lane::{Lane, Pending, Record};
use crate::lost::{Losses, Note};
use crate::metrics;
use crate::occupancy::Occupancy;
use crate::producer::LeftBehind;
use crate::receipt::Answer;
use crate::trouble::Trouble;

/// How long a round waits while events are under way.
const ROUND: Duration = Duration::from_millis(1);
/// How long the thread sleeps while nothing is under way, before it listens to the client.
const IDLE: Duration = Duration::from_millis(50);
/// Most events taken in one round, and so most written at once.
const MAX_TAKEN: usize = 4_096;
/// How long to wait before the first new client, and most before another.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long Kafka may confirm nothing before it is asked whether it answers at all.
const SILENCE: Duration = Duration::from_secs(60);
/// How often figures are set, losses noted and a broken client looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How often losses are reported at most.
const REPORT: Duration = Duration::from_secs(10);

/// What the thread shares with the producer's handles.
pub(crate) struct Shared {
    pub(crate) occupancy: Arc<Occupancy>,
    pub(crate) losses: Mutex<Losses>,
    pub(crate) trouble: Arc<Trouble>,
    /// The client of the moment.
    pub(crate) client: Mutex<Client>,
    /// Told when nothing is under way.
    pub(crate) settled: Notify,
    /// Asks the thread to end.
    pub(crate) stop: Mutex<Option<oneshot::Sender<LeftBehind>>>,
}

/// Locks what no thread holds for longer than a few instructions.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much of what was published a round took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// More waits.
    Some,
    /// All there was.
    All,
    /// All there will be: nobody can publish any more.
    Last,
}

/// See the [module](self).
pub(crate) struct Delivery {
    config: ProducerConfig,
    shared: Arc<Shared>,
    queue: Receiver<Box<Pending>>,
    lane: Lane,
    client: Client,
    /// When a client that was replaced may send, and how long the next one waits.
    resume_at: Option<Instant>,
    back_off: Duration,
    /// When Kafka last confirmed something, or was last known to have nothing to confirm.
    heard: Instant,
    looked: Instant,
    /// How many entries may be read back from disk now; grows with time.
    allowance: Allowance,
    reports: Vec<(EventId, oneshot::Receiver<Answer>)>,
    reported: Option<Instant>,
    spool_failed: bool,
}

impl Delivery {
    pub(crate) fn new(
        config: ProducerConfig,
        shared: Arc<Shared>,
        queue: Receiver<Box<Pending>>,
        lane: Lane,
    ) -> Self {
        let now = Instant::now();
        let rate = config.spool.as_ref().map_or(1, |spool| spool.drain_rate);
        let client = lock(&shared.client).clone();
        Self {
            client,
            config,
            shared,
            queue,
            lane,
            resume_at: None,
            back_off: BACK_OFF.0,
            heard: now,
            looked: now,
            allowance: Allowance::new(rate, now),
            reports: Vec::new(),
            reported: None,
            spool_failed: false,
        }
    }

    /// Delivers until the last handle is gone or the producer is closed.
    pub(crate) fn run(mut self) {
        let inherited = lock(&self.shared.losses).inherited();
        self.publish_reports(&inherited, true);
        loop {
            let taken = self.take();
            let now = Instant::now();
            self.lane.tick(now);
            self.commit(now);
            self.read_back(now);
            self.send(now);
            self.listen(now, taken);
            self.look(now);
            let stop = lock(&self.shared.stop).take();
            if stop.is_some() || taken == Taken::Last {
                let left = self.end();
                if let Some(stop) = stop {
                    // Whoever closed the producer may have stopped waiting.
                    stop.send(left).ok();
                }
                return;
            }
        }
    }

    /// Takes what was published; sleeps if there is nothing to do.
    fn take(&mut self) -> Taken {
        let mut next = if self.lane.is_empty() {
            self.queue.recv_timeout(IDLE).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            })
        } else {
            self.queue.try_recv()
        };
        let now = Instant::now();
        for _ in 1..MAX_TAKEN {
            match next {
                Ok(pending) => self.lane.accept(pending, now),
                Err(TryRecvError::Empty) => return Taken::All,
                Err(TryRecvError::Disconnected) => return Taken::Last,
            }
            next = self.queue.try_recv();
        }
        if let Ok(pending) = next {
            self.lane.accept(pending, now);
        }
        Taken::Some
    }

    fn commit(&mut self, now: Instant) {
        let written = self.lane.commit(now);
        self.spool_did(written);
        let lost = self.lane.take_lost();
        count_lost(&self.shared, &lost);
    }

    /// Brings back what waits on disk alone, at most as fast as is allowed.
    fn read_back(&mut self, now: Instant) {
        if self.resume_at.is_some() {
            return;
        }
        while self.lane.has_unread() && self.allowance.take(now) {
            match self.lane.read_back(now) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.spool_did(Err(error)),
            }
        }
    }

    /// Gives the client what is next.
    fn send(&mut self, now: Instant) {
        if self.resume_at.is_some_and(|at| now < at) {
            return;
        }
        self.resume_at = None;
        while let Some((number, record)) = self.lane.next_unsent() {
            match self.client.send(number, record) {
                Ok(()) => self.lane.sent(),
                Err(NotTaken::Full) => return,
                Err(NotTaken::Broken(error)) => return self.replace_client(&error.to_string()),
            }
        }
    }

    /// Hears what became of events.
    fn listen(&mut self, now: Instant, taken: Taken) {
        // With more to take there is no time to wait; with nothing under way nothing to wait for.
        if taken != Taken::Some && !self.lane.is_empty() {
            std::thread::sleep(ROUND);
        }
        let mut failed = None;
        for report in self.client.reports() {
            match report.outcome {
                Ok(stored) => {
                    if let Some(published) = self.lane.confirmed(report.number, stored) {
                        metrics::stored(published.elapsed());
                        if let Some(taken_at) = report.taken_at_ms {
                            let heard = Utc::now().timestamp_millis();
                            let ahead = clock_ahead(taken_at, heard, published.elapsed());
                            metrics::kafka_clock_ahead(ahead);
                        }
                    }
                    self.heard = now;
                }
                Err(error) => failed = Some(error),
            }
        }
        if self.heard == now {
            self.back_off = BACK_OFF.0;
            self.shared.trouble.over();
            let noted = self.lane.note_confirmed();
            self.spool_did(noted.map(|()| false));
            self.report_losses(now);
        }
        if let Some(error) = failed {
            let code = error.rdkafka_error_code();
            let reason = code.map_or_else(|| error.to_string(), |code| code.to_string());
            if let Some(code) = code {
                let topic = &self.config.topic;
                let why = CheckError::of(code, topic, &reason);
                self.shared.trouble.meet(why);
            }
            self.replace_client(&reason);
        }
        if self.lane.is_empty() {
            self.shared.settled.notify_waiters();
        }
    }

    /// What is done about once a second.
    fn look(&mut self, now: Instant) {
        if now.saturating_duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        if let Some(reason) = self.client.fatal_error() {
            self.replace_client(&reason);
        }
        self.look_for_silence(now);
        self.look_at_reports();
        // They are reported when Kafka confirms something, which it does not with nothing under way.
        if self.lane.is_empty() {
            self.report_losses(now);
        }
        note_losses(&self.shared);
        metrics::buffered(self.shared.occupancy.events());
        if let (Some(on_disk), Some(spool)) = (self.lane.on_disk(), &self.config.spool) {
            metrics::spool(&on_disk, spool.max_bytes);
        }
    }

    /// A client that confirms nothing although the brokers answer is replaced.
    fn look_for_silence(&mut self, now: Instant) {
        if !self.lane.has_sent() {
            self.heard = now;
        }
        if now.saturating_duration_since(self.heard) < SILENCE {
            return;
        }
        self.heard = now;
        match self.client.check(LOOK) {
            Ok(()) => self.replace_client("it confirms nothing although the brokers answer"),
            Err(why) => self.shared.trouble.meet(why),
        }
    }

    /// Makes a new client after a pause, and sends again what the old one did not confirm.
    fn replace_client(&mut self, reason: &str) {
        tracing::warn!(reason, "kafka's client is replaced");
        metrics::replaced();
        self.client.purge();
        // The confirmations that are here already.
        for report in self.client.reports() {
            if let Ok(stored) = report.outcome {
                self.lane.confirmed(report.number, stored);
            }
        }
        self.lane.rewind();
        let now = Instant::now();
        self.resume_at = now.checked_add(self.back_off);
        self.back_off = self.back_off.saturating_mul(2).min(BACK_OFF.1);
        match Client::new(&self.config, self.shared.trouble.clone()) {
            Ok(client) => {
                self.client = client.clone();
                *lock(&self.shared.client) = client;
            }
            // The same settings made a client before.
            Err(error) => tracing::error!(%error, "there is no new client"),
        }
    }

    /// Says once that the spool cannot be written or read, and once that it can.
    fn spool_did(&mut self, done: io::Result<bool>) {
        match done {
            Ok(wrote) => {
                if wrote && std::mem::take(&mut self.spool_failed) {
                    tracing::info!("the spool can be used again");
                }
            }
            Err(error) if self.spool_failed => tracing::debug!(%error, "the spool still fails"),
            Err(error) => {
                self.spool_failed = true;
                tracing::error!(%error, "the spool cannot be used: events wait in memory");
            }
        }
    }

    /// Publishes what was lost.
    fn report_losses(&mut self, now: Instant) {
        let due = self
            .reported
            .is_none_or(|last| now.saturating_duration_since(last) >= REPORT);
        if !due || !lock(&self.shared.losses).has_open() {
            return;
        }
        self.reported = Some(now);
        let reports = lock(&self.shared.losses).take_reports();
        self.publish_reports(&reports, false);
    }

    fn publish_reports(&mut self, reports: &[audit_schema::Event<'_>], maybe_delivered: bool) {
        let now = Instant::now();
        for report in reports {
            tracing::error!(project = %report.project_id, data = report.event_data.get(), "events were lost");
            // A report is far smaller than an event may be.
            let Ok(value) = wire::encode(report) else {
                continue;
            };
            let record = Record {
                key: wire::key(report).into_bytes(),
                value,
                maybe_delivered,
                trace_parent: None,
            };
            let (answer, receiver) = oneshot::channel();
            self.reports.push((report.id, receiver));
            self.shared.occupancy.enter_anyway(record.cost());
            let durability = Durability::Require;
            self.lane.accept(
                Box::new(Pending {
                    record,
                    durability,
                    published: now,
                    answer: Some(answer),
                }),
                now,
            );
        }
    }

    /// Forgets losses whose report is durable.
    fn look_at_reports(&mut self) {
        let (mut durable, mut refused) = (Vec::new(), Vec::new());
        self.reports
            .retain_mut(|(id, answer)| match answer.try_recv() {
                Ok(Ok(_)) => {
                    durable.push(*id);
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {
                    refused.push(*id);
                    false
                }
            });
        let mut losses = lock(&self.shared.losses);
        losses.reported(&durable);
        losses.reopen(&refused);
    }

    /// Puts what is left on disk, and says how much it was.
    fn end(mut self) -> LeftBehind {
        while let Ok(pending) = self.queue.try_recv() {
            self.lane.accept(pending, Instant::now());
        }
        self.commit(Instant::now());
        let Self { lane, shared, .. } = self;
        let (spooled, given_up) = lane.close(Instant::now());
        count_lost(&shared, &given_up);
        note_losses(&shared);
        let given_up = u64::try_from(given_up.len()).unwrap_or(u64::MAX);
        if given_up > 0 {
            tracing::error!(
                events = given_up,
                "events that kafka did not confirm are given up"
            );
        }
        LeftBehind { spooled, given_up }
    }
}

/// Counts events that were dropped.
fn count_lost(shared: &Shared, lost: &[(Box<Pending>, Refused)]) {
    let now = Utc::now();
    for (pending, reason) in lost {
        metrics::ended(reason.outcome());
        // What was encoded here can be decoded.
        if pending.durability != Durability::Require
            && let Ok(event) = wire::decode(&pending.record.value, None)
        {
            lock(&shared.losses).count(&event, reason.outcome(), now);
        }
    }
}

/// Notes on disk what was lost, if that changed.
fn note_losses(shared: &Shared) {
    let note = lock(&shared.losses).take_note();
    if let Some(Err(error)) = note.map(Note::write) {
        tracing::error!(%error, "losses cannot be noted");
    }
}

/// So many steps per second, none saved up for longer than a tenth of one.
struct Allowance {
    per_step: Duration,
    due: Instant,
}

impl Allowance {
    const BURST: Duration = Duration::from_millis(100);

    fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_step: Duration::from_secs(1) / per_second.max(1),
            due: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        if let Some(earliest) = now.checked_sub(Self::BURST) {
            self.due = self.due.max(earliest);
        }
        let allowed = self.due <= now;
        if allowed {
            self.due += self.per_step;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use audit_schema::{Event, EventType};

    use super::*;

    #[test]
    fn what_was_lost_is_reported_though_no_event_follows() {
        let config = ProducerConfig {
            brokers: "127.0.0.1:1".into(),
            ..ProducerConfig::default()
        };
        let trouble = Arc::default();
        let client = Client::new(&config, Arc::clone(&trouble)).unwrap();
        let occupancy = Arc::new(Occupancy::new(1, 1));
        let shared = Arc::new(Shared {
            occupancy: occupancy.clone(),
            losses: Mutex::default(),
            trouble,
            client: Mutex::new(client),
            settled: Notify::new(),
            stop: Mutex::new(None),
        });
        let (_queue, published) = std::sync::mpsc::sync_channel(1);
        let lane = Lane::new(None, occupancy);
        let mut delivery = Delivery::new(config, shared.clone(), published, lane);
        let project = "acme".parse().unwrap();
        let event = Event::builder(project, EventType::USER_SIGNED_IN);
        let event = event.build().unwrap();
        lock(&shared.losses).count(&event, "spool_full", Utc::now());
        delivery.look(delivery.looked + LOOK);
        let (_, report) = delivery.lane.next_unsent().unwrap();
        let report = wire::decode(&report.value, None).unwrap();
        assert_eq!(report.event_type, EventType::AUDIT_EVENTS_LOST);
    }
}
