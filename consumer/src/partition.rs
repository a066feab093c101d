//! One partition: the loop that makes every offset of it end in exactly one table.
//!
//! The path of a batch is `write`: declare its range (the commit), insert it under a token of its
//! own, and say that it was answered; settling counts it later. Everything that can go wrong on the
//! way ends in `look`, which finds out what is missing when nothing is on its way any more.
//!
//! At any time at most one insert of a partition is without an outcome, whoever sent it, and the
//! last commit says which: the broker refuses the commit of a replaced member, and a live member
//! lost its right to commit before the partition was handed on. So a successor knows what to wait
//! for, and for how long.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use audit_schema::OffsetRange;
use audit_schema::row::Millis;
use audit_service::traces::{self, Span, SpanKind};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::batch::{Batch, PartitionId, Table};
use crate::error::{InsertError, PartitionError, ReadError};
use crate::metrics;
use crate::offsets::{Commit, Declared, Offsets};
use crate::recovery::{Plan, plan};
use crate::settle::{Progress, Settler};
use crate::store::{Insert, Store, token_prefix};

/// How many offsets are looked at together when a partition starts.
const WINDOW: u64 = 100_000;

/// How often an insert in doubt is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What a partition asks of the source.
#[derive(Debug)]
pub enum Command {
    /// Read the partition from `from` on, and hand batches to `batches`: the first when it is due,
    /// each further one after a [`Command::Ready`].
    Read {
        /// The partition.
        partition: u32,
        /// The first offset.
        from: u64,
        /// Where the batches go.
        batches: mpsc::Sender<Batch>,
    },
    /// The partition can take another batch.
    Ready {
        /// The partition.
        partition: u32,
    },
    /// The log was seen to end at `at`, so that a hole at its end can be told from no records.
    LogEnds {
        /// The partition.
        partition: u32,
        /// The offset the next record will get.
        at: u64,
    },
}

/// Where a partition starts, and how far what is stored may have holes.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// Where to begin reading: everything below is stored.
    from: u64,
    /// Nothing is stored from here on.
    end: u64,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// It was answered.
    Answered,
    /// Something before it was found short: the partition starts again.
    StartAgain,
}

/// The loop of one partition, from assignment until it is taken away.
pub struct Partition<O, S> {
    id: PartitionId,
    offsets: O,
    store: Arc<S>,
    settler: Arc<Settler<S>>,
    progress: Arc<Progress>,
    source: mpsc::UnboundedSender<Command>,
    /// The commit that stands.
    commit: Commit,
    /// No insert of this partition that anyone sent carries a later time of ClickHouse's.
    clock: Millis,
    idle: Duration,
}

impl<O, S> fmt::Debug for Partition<O, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("id", &self.id)
            .field("commit", &self.commit)
            .finish_non_exhaustive()
    }
}

impl<O: Offsets, S: Store> Partition<O, S> {
    /// A partition that was just assigned. After `idle` without a batch its position is committed
    /// without a range, so that tools which watch the group read a lag of 0.
    pub fn new(
        id: PartitionId,
        offsets: O,
        settler: Arc<Settler<S>>,
        store: Arc<S>,
        source: mpsc::UnboundedSender<Command>,
        idle: Duration,
    ) -> Self {
        Self {
            id,
            offsets,
            progress: settler.enter(id),
            settler,
            store,
            source,
            commit: Commit {
                next: 0,
                declared: Declared::Nothing,
            },
            clock: Millis::default(),
            idle,
        }
    }

    /// Consumes until the partition is taken away, or something needs a person.
    pub async fn run(mut self) -> PartitionError {
        loop {
            let started = match self.start().await {
                Ok(start) => self.follow(start).await,
                Err(error) => Err(error),
            };
            match started {
                Ok(()) => {
                    tracing::warn!(
                        kafka.partition = self.id.partition,
                        "starting again at the settled offset"
                    );
                }
                Err(error) => return error,
            }
        }
    }

    /// Finds out up to where everything is stored, and waits for what may still land behind it:
    /// what the last commit declares, or, without a commit of ours, anything sent until now.
    async fn start(&mut self) -> Result<Start, PartitionError> {
        let settled = self.ask(|| self.store.settled(self.id)).await?;
        let committed = self.offsets.committed().await?;
        let bounds = self.offsets.bounds().await?;
        let declared_end = committed.map_or(0, Commit::end).min(bounds.end);
        let declared = committed.map(|commit| commit.declared);
        self.clock = match declared {
            Some(Declared::Intent { clock, .. }) => clock,
            _ => self.ask(|| self.store.latest_clock(self.id)).await?,
        };
        let mut from = settled.unwrap_or(bounds.start);
        let mut waited = false;
        let end = loop {
            let may_land = self
                .ask(|| self.store.may_land(self.id, self.clock))
                .await?;
            let highest = self.ask(|| self.store.highest(self.id, from)).await?;
            let stored_end = highest.map_or(from, |highest| highest.saturating_add(1));
            if stored_end > bounds.end {
                return Err(PartitionError::OtherTopic {
                    reason: format!(
                        "offsets below {stored_end} are stored, but the log ends at {}",
                        bounds.end
                    ),
                });
            }
            from = self.first_missing(from, stored_end).await?;
            // A commit of ours says how far a predecessor had come: if that is all there, nothing
            // is on its way.
            let all_there = declared.is_some() && from >= stored_end.max(declared_end);
            if all_there || !may_land {
                break stored_end;
            }
            if !waited {
                tracing::info!(
                    kafka.partition = self.id.partition,
                    from,
                    committed = ?committed,
                    "waiting for what a predecessor may have sent"
                );
                waited = true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        if from < bounds.start {
            return Err(PartitionError::Lost {
                missing: from,
                log_start: bounds.start,
            });
        }
        if let Some(commit) = committed {
            self.commit = commit;
        }
        self.progress.begin(from);
        tracing::info!(
            kafka.partition = self.id.partition,
            incarnation = self.id.incarnation,
            settled = ?settled,
            committed = ?committed,
            from,
            in_doubt_until = end,
            "partition starts"
        );
        Ok(Start { from, end })
    }

    /// The first offset from `from` on that is not stored, or `end`.
    async fn first_missing(&self, mut from: u64, end: u64) -> Result<u64, PartitionError> {
        while let Some(window) = OffsetRange::until(from, end.min(from.saturating_add(WINDOW))) {
            let present = self.ask(|| self.store.present(self.id, window)).await?;
            let there = (window.first()..window.end())
                .zip(&present)
                .take_while(|(want, have)| want == *have)
                .count();
            from = from.saturating_add(u64::try_from(there).unwrap_or(u64::MAX));
            if from < window.end() {
                break;
            }
        }
        Ok(from)
    }

    /// Writes batch after batch, until something is found short.
    async fn follow(&mut self, start: Start) -> Result<(), PartitionError> {
        let (sender, mut batches) = mpsc::channel(1);
        self.tell(Command::Read {
            partition: self.id.partition,
            from: start.from,
            batches: sender,
        })?;
        loop {
            tokio::select! {
                () = self.progress.short() => return Ok(()),
                batch = batches.recv() => {
                    let batch = batch.ok_or(PartitionError::Fenced)?;
                    let span = insert_span(&batch);
                    if span.within(self.write(batch, start)).await? == Written::StartAgain {
                        return Ok(());
                    }
                    self.tell(Command::Ready { partition: self.id.partition })?;
                }
                () = tokio::time::sleep(self.idle), if self.commit.declared != Declared::Nothing => {
                    if self.progress.is_settled() {
                        self.commit = Commit {
                            next: self.progress.settled(),
                            declared: Declared::Nothing,
                        };
                        self.offsets.commit(self.commit).await?;
                    }
                }
            }
        }
    }

    fn tell(&self, command: Command) -> Result<(), PartitionError> {
        self.source
            .send(command)
            .map_err(|_| PartitionError::Fenced)
    }

    /// Declares and inserts a batch, and makes sure where the outcome is unknown.
    async fn write(&mut self, mut batch: Batch, start: Start) -> Result<Written, PartitionError> {
        let Some(range) = batch.range() else {
            return Ok(Written::Answered);
        };
        if batch.has_suspects() {
            // Everything before is counted first: a replay then finds the same, and decides alike.
            tokio::select! {
                () = self.progress.reached(range.first()) => {}
                () = self.progress.short() => return Ok(Written::StartAgain),
            }
            let keys = batch.suspects();
            let stored = self
                .ask(|| self.store.earlier(self.id, &keys, range.first()))
                .await?;
            batch.resolve_suspects(&stored);
        }
        if self.progress.is_settled() {
            // All that was sent before is there: a clock that was set back need not catch up.
            self.clock = Millis::default();
        }
        for table in [Table::DeadLetters, Table::Events] {
            let mut rows = batch.rows_of(table);
            if range.first() < start.end {
                rows = self.missing(&batch, range, table, rows).await?;
            }
            while !rows.is_empty() {
                if self.insert(&batch, range, table, &rows).await? {
                    break;
                }
                rows = self.missing(&batch, range, table, rows).await?;
                metrics::recovered(rows.len());
            }
        }
        metrics::batch(&batch);
        tracing::debug!(
            kafka.partition = self.id.partition,
            range = %range,
            batch.rows = batch.rows(),
            batch.bytes = batch.bytes(),
            "batch answered"
        );
        self.progress
            .answered(range.end(), batch.first_logged_at(), traces::current());
        self.settler.wake();
        Ok(Written::Answered)
    }

    /// One insert, sent only under an accepted commit that declares it. Says whether it was
    /// answered cleanly.
    async fn insert(
        &mut self,
        batch: &Batch,
        range: OffsetRange,
        table: Table,
        rows: &[usize],
    ) -> Result<bool, PartitionError> {
        // The clock is read before the commit, so that an accepted commit of a member proves that
        // it read its clock before it was replaced.
        let turn = self.ask(|| self.store.turn(self.id)).await?;
        // A clock that was set back does not make what was sent before land any sooner.
        self.clock = self.clock.max(turn.ingested_at);
        self.commit = Commit {
            next: range.first(),
            declared: Declared::Intent {
                range,
                clock: self.clock,
            },
        };
        self.offsets.commit(self.commit).await?;
        let token = format!("{}{range}:{}", token_prefix(self.id), Uuid::now_v7());
        let insert = Insert {
            table,
            batch,
            rows,
            token: &token,
        };
        match self.store.insert(turn, insert).await {
            Ok(()) => Ok(true),
            Err(InsertError::InDoubt(error)) => {
                metrics::in_doubt();
                tracing::warn!(
                    kafka.partition = self.id.partition,
                    token,
                    error = %error,
                    "the outcome of an insert is unknown; looking"
                );
                Ok(false)
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Which of these rows are not stored, and will not be by anything that was sent before.
    async fn missing(
        &self,
        batch: &Batch,
        range: OffsetRange,
        table: Table,
        rows: Vec<usize>,
    ) -> Result<Vec<usize>, PartitionError> {
        let wanted: Vec<u64> = rows
            .iter()
            .filter_map(|row| batch.offset(table, *row))
            .collect();
        loop {
            let may_land = self
                .ask(|| self.store.may_land(self.id, self.clock))
                .await?;
            let present = self.ask(|| self.store.present(self.id, range)).await?;
            match plan(&wanted, &present, may_land) {
                Plan::Done => return Ok(Vec::new()),
                Plan::LookAgain => tokio::time::sleep(LOOK_AGAIN).await,
                Plan::Insert(places) => {
                    let rows = places.iter().filter_map(|place| rows.get(*place).copied());
                    return Ok(rows.collect());
                }
            }
        }
    }

    /// Asks ClickHouse until it answers.
    async fn ask<T, F>(&self, question: impl Fn() -> F) -> Result<T, PartitionError>
    where
        F: Future<Output = Result<T, ReadError>>,
    {
        let mut pause = Backoff::default();
        loop {
            match question().await {
                Ok(answer) => return Ok(answer),
                Err(ReadError::Unavailable(error)) => {
                    tracing::warn!(
                        kafka.partition = self.id.partition,
                        error = %error,
                        "clickhouse did not answer; asking again"
                    );
                    pause.wait().await;
                }
                Err(refused) => return Err(refused.into()),
            }
        }
    }
}

impl<O, S> Drop for Partition<O, S> {
    fn drop(&mut self) {
        self.settler.leave(&self.progress);
    }
}

/// The write of a batch, linked to the reports of its events.
fn insert_span(batch: &Batch) -> Span {
    let span = Span::of_several("insert", SpanKind::Consumer, batch.traced().places());
    span.say("messaging.system", "kafka");
    let partition = i64::from(batch.id().partition);
    span.say("messaging.destination.partition.id", partition);
    let rows = i64::try_from(batch.rows()).unwrap_or(i64::MAX);
    span.say("messaging.batch.message_count", rows);
    span
}

/// Waits that grow from 100 ms to 1 s: a ClickHouse that is back is noticed soon.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    async fn wait(&mut self) {
        let wait = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(self.0));
        self.0 = self.0.saturating_add(1);
        tokio::time::sleep(wait.min(Duration::from_secs(1))).await;
    }
}
