//! One partition: the loop that makes every offset of it end in exactly one table.
//!
//! The path of a batch is `write`: declare its range (the commit), insert it under a token that
//! names exactly its offsets, and say that it was answered; settling counts it later. Everything
//! that can go wrong on the way ends in `recover`, which looks before it sends.
//!
//! Two owners of a partition can only ever hold the same range: the broker refuses the commit of
//! a replaced member, the server refuses an insert that is older than that commit can be, and a
//! live member lost its right to commit before the partition was handed on.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use audit_schema::OffsetRange;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::batch::{Batch, PartitionId, Table};
use crate::error::{InsertError, PartitionError, ReadError};
use crate::metrics;
use crate::offsets::{Commit, Declared, Offsets};
use crate::recovery::{FirstToken, LATE_LIMIT, LATE_MARGIN, Plan, plan};
use crate::settle::{Progress, Settler};
use crate::store::{Insert, Store};

/// How many offsets are looked at together when a partition starts.
const WINDOW: u64 = 100_000;

/// What a partition asks of the source.
#[derive(Debug)]
pub enum Command {
    /// Read the partition from `from` on, end a batch before each of `cuts`, and hand batches to
    /// `batches`: the first when it is due, each further one after a [`Command::Ready`].
    Read {
        /// The partition.
        partition: u32,
        /// The first offset.
        from: u64,
        /// Offsets at which a batch has to begin.
        cuts: Vec<u64>,
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

/// What is not known to be stored when a partition starts.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// Where to begin reading.
    from: u64,
    /// The range a predecessor declared: its token is known.
    intent: Option<OffsetRange>,
    /// Nothing from here on was sent by anyone.
    end: u64,
    /// No predecessor sends anything after this moment.
    since: Instant,
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
    /// The commit that stands, repeated as it is before each further insert of its range.
    commit: Commit,
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
            idle,
        }
    }

    /// Consumes until the partition is taken away, or something needs a person.
    pub async fn run(mut self) -> PartitionError {
        loop {
            let started = match self.start().await {
                Ok(doubt) => self.follow(doubt).await,
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

    /// Finds what is in doubt: everything from the settled offset up to the end of the declared
    /// range or the highest stored offset. What is there without a hole is settled on the spot.
    async fn start(&mut self) -> Result<Doubt, PartitionError> {
        let since = Instant::now();
        let settled = self.ask(|| self.store.settled(self.id)).await?;
        let committed = self.offsets.committed().await?;
        let bounds = self.offsets.bounds().await?;
        let mut from = settled.unwrap_or(bounds.start);
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
        let intent = match committed.map(|commit| commit.declared) {
            Some(Declared::Intent(range)) if range.end() <= bounds.end => Some(range),
            _ => None,
        };
        // Without a commit of ours nobody says how far a predecessor had come: all that is in the
        // log may be under way.
        let committed_end = committed.map_or(bounds.end, Commit::end).min(bounds.end);
        let end = stored_end.max(committed_end);

        while let Some(window) = OffsetRange::until(from, end.min(from.saturating_add(WINDOW))) {
            let present = self.ask(|| self.store.present(self.id, window)).await?;
            let hole = (window.first()..window.end())
                .zip(&present)
                .find(|(want, have)| want != *have);
            let missing = match hole {
                Some((missing, _)) => Some(missing),
                None => (window.first()..window.end()).nth(present.len()),
            };
            match missing {
                None => from = window.end(),
                Some(missing) => {
                    // The declared range is only recovered whole: its token names all of it.
                    let declared = intent.filter(|intent| intent.contains(missing));
                    from = declared.map_or(missing, |intent| intent.first().max(from));
                    break;
                }
            }
        }
        if from < bounds.start {
            return Err(PartitionError::Lost {
                missing: from,
                log_start: bounds.start,
            });
        }
        // What is found stands, and is repeated as it is before everything that is sent again.
        self.commit = committed
            .filter(|commit| commit.end() == end)
            .unwrap_or(Commit {
                next: from,
                declared: Declared::DoubtUntil(end),
            });
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
        Ok(Doubt {
            from,
            intent,
            end,
            since,
        })
    }

    /// Writes batch after batch, until something is found short.
    async fn follow(&mut self, doubt: Doubt) -> Result<(), PartitionError> {
        let mut cuts = vec![doubt.end];
        cuts.extend(
            doubt
                .intent
                .iter()
                .flat_map(|range| [range.first(), range.end()]),
        );
        let (sender, mut batches) = mpsc::channel(1);
        self.tell(Command::Read {
            partition: self.id.partition,
            from: doubt.from,
            cuts,
            batches: sender,
        })?;
        loop {
            tokio::select! {
                () = self.progress.short() => return Ok(()),
                batch = batches.recv() => {
                    let batch = batch.ok_or(PartitionError::Fenced)?;
                    if self.write(batch, doubt).await? == Written::StartAgain {
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

    /// Declares, inserts, and recovers where the outcome is unknown.
    async fn write(&mut self, mut batch: Batch, doubt: Doubt) -> Result<Written, PartitionError> {
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
        let first_token = format!("{}:{}:{range}", self.id.incarnation, self.id.partition);
        if range.first() < doubt.end {
            let token = if doubt.intent == Some(range) {
                FirstToken::Unanswered
            } else {
                FirstToken::Unknown
            };
            for table in [Table::DeadLetters, Table::Events] {
                self.recover(&batch, table, &first_token, (token, doubt.since))
                    .await?;
            }
        } else {
            self.commit = Commit {
                next: range.first(),
                declared: Declared::Intent(range),
            };
            for table in [Table::DeadLetters, Table::Events] {
                let rows = batch.rows_of(table);
                if rows.is_empty() {
                    continue;
                }
                let insert = Insert {
                    table,
                    batch: &batch,
                    rows: &rows,
                    token: &first_token,
                };
                if !self.insert(insert).await? {
                    let known = (FirstToken::Unanswered, Instant::now());
                    self.recover(&batch, table, &first_token, known).await?;
                }
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
        self.progress.answered(range.end());
        self.settler.wake();
        Ok(Written::Answered)
    }

    /// One insert, sent only under an accepted commit. Says whether it was answered cleanly.
    ///
    /// The clock is read before the commit: an insert that its sender was stopped behind is then
    /// older than the late limit when a successor looks.
    async fn insert(&self, insert: Insert<'_>) -> Result<bool, PartitionError> {
        let turn = self.ask(|| self.store.turn()).await?;
        self.offsets.commit(self.commit).await?;
        match self.store.insert(turn, insert).await {
            Ok(()) => Ok(true),
            Err(InsertError::InDoubt(error)) => {
                metrics::in_doubt();
                tracing::warn!(
                    kafka.partition = self.id.partition,
                    token = insert.token,
                    error = %error,
                    "the outcome of an insert is unknown; looking"
                );
                Ok(false)
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Makes the rows of one table of a batch be there once, however often it takes.
    async fn recover(
        &self,
        batch: &Batch,
        table: Table,
        first_token: &str,
        (mut token, mut last_sent): (FirstToken, Instant),
    ) -> Result<(), PartitionError> {
        let Some(range) = batch.range() else {
            return Ok(());
        };
        let rows = batch.rows_of(table);
        let wanted: Vec<u64> = rows
            .iter()
            .filter_map(|row| batch.offset(table, *row))
            .collect();
        let mut pause = Backoff::default();
        for attempt in 2_u64.. {
            let none_can_land = last_sent + LATE_LIMIT + LATE_MARGIN;
            let late_limit_passed = Instant::now() >= none_can_land;
            let present = self.ask(|| self.store.present(self.id, range)).await?;
            match plan(&wanted, &present, token, late_limit_passed) {
                Plan::Done => break,
                Plan::SameAgain => {
                    metrics::recovered("same_token");
                    let insert = Insert {
                        table,
                        batch,
                        rows: &rows,
                        token: first_token,
                    };
                    if self.insert(insert).await? {
                        token = FirstToken::Answered;
                    } else {
                        pause.wait().await;
                    }
                    last_sent = Instant::now();
                }
                Plan::OutwaitLateInserts => {
                    tracing::info!(
                        kafka.partition = self.id.partition,
                        range = %range,
                        "rows are missing; waiting until no earlier insert can land"
                    );
                    tokio::time::sleep_until(none_can_land).await;
                }
                Plan::OnlyMissing(missing) => {
                    metrics::recovered("new_token");
                    let token_of_missing =
                        format!("{first_token}/{attempt}:{:016x}", digest(&missing));
                    let rows: Vec<usize> = rows
                        .iter()
                        .zip(&wanted)
                        .filter(|(_, offset)| missing.binary_search(offset).is_ok())
                        .map(|(row, _)| *row)
                        .collect();
                    let insert = Insert {
                        table,
                        batch,
                        rows: &rows,
                        token: &token_of_missing,
                    };
                    if !self.insert(insert).await? {
                        pause.wait().await;
                    }
                    last_sent = Instant::now();
                    token = FirstToken::Answered;
                }
            }
        }
        Ok(())
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

/// Waits that grow from 100 ms to 5 s.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    async fn wait(&mut self) {
        let wait = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(self.0));
        self.0 = self.0.saturating_add(1);
        tokio::time::sleep(wait.min(Duration::from_secs(5))).await;
    }
}

/// FNV-1a over the offsets: a token names exactly the rows it carries.
/// Source: <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn digest(offsets: &[u64]) -> u64 {
    offsets
        .iter()
        .flat_map(|offset| offset.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}
