//! Settling: an answered insert is a hint, counting is the proof.
//!
//! One question for all partitions counts what is there of the ranges answered since the last
//! one. Only what is complete moves the settled offset, and with it the watermark that readers
//! freeze their pages at; a range that is short sends its partition back to its settled offset,
//! where recovery does the rest. Reading and inserting never wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit_schema::row::Millis;
use audit_schema::{OffsetRange, TraceParent};
use audit_service::traces::{Span, SpanKind};
use chrono::Utc;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::PartitionId;
use crate::error::{InsertError, ReadError};
use crate::metrics;
use crate::store::{Store, Watermark};
use crate::traced::Traced;

/// How long it is paused after a slow round, at most.
const MOST_PAUSE: Duration = Duration::from_secs(1);

/// How often an idle partition's watermark is written down.
const IDLE: Duration = Duration::from_secs(5);

/// How far one partition has come.
#[derive(Debug)]
pub struct Progress {
    id: PartitionId,
    settled: watch::Sender<u64>,
    short: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Everything below it was answered.
    answered: u64,
    /// Of answered batches that are not readable yet, where each ends, and when Kafka took its first
    /// record; ascending.
    waiting: VecDeque<(u64, Millis)>,
    /// The spans of what was answered since it was last counted.
    traced: Traced,
    /// Where the log ended at some times, ascending.
    ends: VecDeque<(Millis, u64)>,
    complete_up_to: Millis,
    written: Option<(Watermark, Instant)>,
}

impl Progress {
    fn new(id: PartitionId) -> Self {
        Self {
            id,
            settled: watch::Sender::new(0),
            short: Notify::new(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Begins, or begins again, at a settled offset.
    pub fn begin(&self, settled: u64) {
        let mut state = self.state();
        state.answered = settled;
        state.waiting.clear();
        self.settled.send_replace(settled);
    }

    /// Says that everything below `end` was answered, last a batch whose first record Kafka took at
    /// `logged_at`, and in which span.
    pub fn answered(&self, end: u64, logged_at: Option<Millis>, span: Option<TraceParent>) {
        let mut state = self.state();
        state.answered = end;
        state.traced.note(span);
        // Bounded while nothing settles.
        if let Some(logged_at) = logged_at
            && state.waiting.len() < 64
        {
            state.waiting.push_back((end, logged_at));
        }
    }

    /// Says that the log ended at `end` when Kafka's clock had not reached `time` yet.
    pub fn log_ended(&self, time: Millis, end: u64) {
        let mut state = self.state();
        if state.ends.back().is_some_and(|(_, last)| *last == end) {
            // The same end at a later time says more than at an earlier one, unless the earlier
            // is the only one that can be reached soon.
            if state.ends.len() > 1 || *self.settled.borrow() >= end {
                state.ends.pop_back();
            }
        }
        state.ends.push_back((time, end));
        // Bounded while nothing settles: the oldest marks say the least.
        if state.ends.len() > 64 {
            state.ends.remove(1);
        }
    }

    /// The settled offset.
    pub fn settled(&self) -> u64 {
        *self.settled.borrow()
    }

    /// Every record Kafka took before it is readable.
    pub fn complete_up_to(&self) -> Millis {
        self.state().complete_up_to
    }

    /// Whether everything answered is settled.
    pub fn is_settled(&self) -> bool {
        self.settled() >= self.state().answered
    }

    /// Waits until everything below `offset` is settled.
    pub async fn reached(&self, offset: u64) {
        let mut settled = self.settled.subscribe();
        // The sender is in `self`: it cannot be gone.
        settled.wait_for(|settled| *settled >= offset).await.ok();
    }

    /// Waits until a range was found short.
    pub async fn short(&self) {
        self.short.notified().await;
    }

    fn open(&self) -> Option<OffsetRange> {
        OffsetRange::until(self.settled(), self.state().answered)
    }

    fn watermark(&self) -> Watermark {
        let settled = self.settled();
        let mut state = self.state();
        while let Some((time, end)) = state.ends.front().copied()
            && end <= settled
        {
            state.complete_up_to = state.complete_up_to.max(time);
            state.ends.pop_front();
        }
        Watermark {
            id: self.id,
            next_offset: settled,
            complete_up_to: state.complete_up_to,
        }
    }

    /// The watermark, if it is time to write it down.
    fn due(&self, now: Instant) -> Option<Watermark> {
        let watermark = self.watermark();
        let written = self.state().written;
        let due = written.is_none_or(|(before, at)| {
            watermark.next_offset != before.next_offset
                || (watermark.complete_up_to != before.complete_up_to
                    && now.duration_since(at) >= IDLE)
        });
        due.then_some(watermark)
    }
}

/// Settles the partitions of this process.
#[derive(Debug)]
pub struct Settler<S> {
    store: Arc<S>,
    partitions: Mutex<BTreeMap<PartitionId, Arc<Progress>>>,
    answered: Notify,
}

impl<S> Settler<S> {
    fn partitions(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Arc<Progress>>> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions of this process.
    pub fn held(&self) -> Vec<Arc<Progress>> {
        self.partitions().values().cloned().collect()
    }

    /// Lets a partition go, unless it was taken in again since.
    pub fn leave(&self, progress: &Arc<Progress>) {
        let mut partitions = self.partitions();
        if partitions
            .get(&progress.id)
            .is_some_and(|held| Arc::ptr_eq(held, progress))
        {
            partitions.remove(&progress.id);
        }
    }
}

impl<S: Store> Settler<S> {
    /// A settler without partitions.
    pub fn new(store: Arc<S>) -> Self {
        Self {
            store,
            partitions: Mutex::default(),
            answered: Notify::new(),
        }
    }

    /// Takes a partition in.
    pub fn enter(&self, id: PartitionId) -> Arc<Progress> {
        let progress = Arc::new(Progress::new(id));
        self.partitions().insert(id, Arc::clone(&progress));
        progress
    }

    /// Where it counts.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Says that there is something to settle.
    pub fn wake(&self) {
        self.answered.notify_one();
    }

    /// Counts what was answered and moves what is complete.
    pub async fn round(&self) -> Result<(), SettleError> {
        let open: Vec<_> = self
            .held()
            .into_iter()
            .filter_map(|progress| progress.open().map(|range| (progress, range)))
            .collect();
        if !open.is_empty() {
            let ranges: Vec<_> = open
                .iter()
                .map(|(progress, range)| (progress.id, *range))
                .collect();
            let mut traced = Traced::default();
            for (progress, _) in &open {
                let spans = std::mem::take(&mut progress.state().traced);
                traced.note(spans.places().iter().copied());
            }
            let span = Span::of_several("settle", SpanKind::Internal, traced.places());
            let found = span.within(self.store.count(&ranges)).await?;
            for (progress, range) in open {
                let (offsets, rows) = found
                    .iter()
                    .find(|found| found.id == progress.id)
                    .map_or((0, 0), |found| (found.offsets, found.rows));
                if rows > offsets {
                    metrics::doubled(rows.saturating_sub(offsets));
                    tracing::error!(
                        kafka.partition = progress.id.partition,
                        range = %range,
                        rows,
                        offsets,
                        "a range holds rows twice; `audit-consumer verify` names them"
                    );
                }
                if offsets == range.len() {
                    progress.settled.send_replace(range.end());
                } else {
                    metrics::short();
                    tracing::warn!(
                        kafka.partition = progress.id.partition,
                        range = %range,
                        found = offsets,
                        "an answered range is not there whole; recovering it"
                    );
                    progress.short.notify_one();
                }
            }
        }
        self.write_watermarks().await
    }

    async fn write_watermarks(&self) -> Result<(), SettleError> {
        let now = Instant::now();
        let held = self.held();
        let due: Vec<_> = held
            .iter()
            .filter_map(|progress| progress.due(now))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.store.write_watermarks(&due).await?;
        for progress in held {
            if let Some(watermark) = due.iter().find(|watermark| watermark.id == progress.id) {
                let mut state = progress.state();
                state.written = Some((*watermark, now));
                while let Some((end, logged_at)) = state.waiting.front().copied()
                    && end <= watermark.next_offset
                {
                    state.waiting.pop_front();
                    // The clocks may differ; then it took no time.
                    let took = Utc::now().timestamp_millis().saturating_sub(logged_at.0);
                    let took = u64::try_from(took).unwrap_or(0);
                    metrics::readable_seconds(Duration::from_millis(took));
                }
            }
        }
        Ok(())
    }

    /// Settles until `shutdown`, at most once every `interval` and, while ClickHouse is quick, with at most a third of its
    /// time spent on it.
    pub async fn run(
        &self,
        interval: Duration,
        shutdown: CancellationToken,
    ) -> Result<(), SettleError> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.answered.notified() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            let started = Instant::now();
            match self.round().await {
                Ok(()) => {}
                Err(
                    SettleError::Read(ReadError::Unavailable(error))
                    | SettleError::Insert(InsertError::InDoubt(error)),
                ) => {
                    // A watermark that is not written stays behind; the next round writes it.
                    tracing::warn!(error = %error, "clickhouse did not answer; settling again");
                    self.wake();
                }
                Err(refused) => return Err(refused),
            }
            let spent = started.elapsed();
            metrics::settle_seconds(spent);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause(interval, spent)) => {}
            }
        }
    }
}

/// How long to wait after a round: until `interval` after its beginning, and so long that no more than a
/// third of the time is spent, but not for what a ClickHouse that stood still took to answer.
fn pause(interval: Duration, spent: Duration) -> Duration {
    let rest = interval.saturating_sub(spent);
    rest.max(spent.saturating_mul(2).min(MOST_PAUSE))
}

/// Why nothing could be settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// Counting failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Writing the watermarks failed.
    #[error(transparent)]
    Insert(#[from] InsertError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let progress = Progress::new(PartitionId {
            incarnation: 1,
            partition: 0,
        });
        progress.begin(10);
        progress
    }

    #[test]
    fn a_partition_is_complete_up_to_the_time_its_settled_end_was_seen() {
        let progress = progress();
        progress.log_ended(Millis(100), 10);
        assert_eq!(progress.watermark().complete_up_to, Millis(100));
        progress.log_ended(Millis(200), 12);
        assert_eq!(progress.watermark().complete_up_to, Millis(100));
        progress.settled.send_replace(12);
        assert_eq!(progress.watermark().complete_up_to, Millis(200));
    }

    #[test]
    fn a_round_that_took_long_does_not_put_off_the_next_for_long() {
        let (short, long) = (Duration::from_millis(5), Duration::from_secs(30));
        assert_eq!(pause(short, Duration::ZERO), short);
        let hundred = Duration::from_millis(100);
        assert_eq!(
            pause(hundred, hundred / 5),
            hundred * 4 / 5,
            "since it began"
        );
        assert_eq!(
            pause(short, Duration::from_millis(90)),
            Duration::from_millis(180)
        );
        assert_eq!(pause(short, long), MOST_PAUSE);
    }

    #[test]
    fn a_stuck_partition_keeps_its_earliest_mark_and_bounded_memory() {
        let progress = progress();
        for n in 0..1000 {
            progress.log_ended(Millis(n), 11 + u64::try_from(n).unwrap());
        }
        assert!(progress.state().ends.len() <= 64);
        progress.settled.send_replace(11);
        assert_eq!(progress.watermark().complete_up_to, Millis(0));
        progress.settled.send_replace(2000);
        assert_eq!(progress.watermark().complete_up_to, Millis(999));
    }
}
