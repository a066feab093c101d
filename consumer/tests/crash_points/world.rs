//! The model of Kafka's group and ClickHouse: it does to each step what the schedule says.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_consumer::batch::{EventKey, PartitionId};
use audit_consumer::error::{InsertError, PartitionError, ReadError};
use audit_consumer::offsets::{Bounds, Commit, Declared, Offsets};
use audit_consumer::recovery::LATE_LIMIT;
use audit_consumer::store::{Found, Insert, Store, Turn, Watermark};
use audit_schema::OffsetRange;
use audit_schema::row::Millis;
use clickhouse::error::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::{Copy, Model, Underway};
use crate::schedule::{Fault, Frozen, Replaced, Schedule, Without};

pub(crate) const ID: PartitionId = PartitionId {
    incarnation: 1,
    partition: 0,
};

/// How many records the log holds. Every fourth is no event.
pub(crate) const END: u64 = 8;

/// The model as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) model: Arc<Mutex<Model>>,
    pub(crate) died: Arc<Notify>,
    pub(crate) finished: Arc<Notify>,
    pub(crate) froze: Arc<Notify>,
    pub(crate) thaw: Arc<Notify>,
    /// Which member this is: an index of the model's steps.
    pub(crate) member: usize,
    life: usize,
}

impl World {
    pub(crate) fn new(schedule: Schedule) -> Self {
        let notify = || Arc::new(Notify::new());
        Self {
            model: Arc::new(Mutex::new(Model {
                schedule,
                began: Instant::now(),
                steps: [0; 2],
                rows: Vec::new(),
                tokens: HashSet::new(),
                underway: Vec::new(),
                clock_moved: 0,
                // The partition was idle when the log was empty.
                commit: Some(Commit {
                    next: 0,
                    declared: Declared::Nothing,
                }),
                copy: None,
                settled: None,
                owner: 0,
                life: 0,
            })),
            died: notify(),
            finished: notify(),
            froze: notify(),
            thaw: notify(),
            member: 0,
            life: 0,
        }
    }

    /// The same world as its next owner sees it: a process that was started again, a membership
    /// that was renewed, or, as `other`, a second member.
    pub(crate) fn next_life(&self, other: bool) -> Self {
        let mut model = self.model.lock().unwrap();
        model.life += 1;
        model.owner = if other { 1 } else { self.member };
        Self {
            member: model.owner,
            life: model.life,
            died: Arc::new(Notify::new()),
            ..self.clone()
        }
    }

    /// Counts a step, and stops before it if the member is to freeze there.
    async fn begin_step(&self) -> Option<Fault> {
        tokio::task::yield_now().await;
        let (fault, freezes) = {
            let mut model = self.model.lock().unwrap();
            model.steps[self.member] += 1;
            let step = model.steps[self.member];
            let frozen = model.schedule.frozen;
            let is = |at: fn(Frozen) -> usize| frozen.is_some_and(|frozen| at(frozen) == step);
            if self.member == 1 && is(|frozen| frozen.until) {
                self.thaw.notify_one();
            }
            let freezes = self.member == 0
                && (is(|frozen| frozen.before) || is(|frozen| frozen.before + frozen.steps));
            (model.schedule.fault(self.member, step), freezes)
        };
        if freezes {
            self.froze.notify_one();
            self.thaw.notified().await;
        }
        fault
    }

    /// Takes a step: applies its effect as its fault says. `None` is an answer that never came.
    async fn step<T>(&self, effect: impl FnOnce(&mut Model) -> T) -> Option<T> {
        let fault = self.begin_step().await;
        self.meet(fault).await;
        if fault == Some(Fault::NotDone) {
            return None;
        }
        let done = {
            let mut model = self.model.lock().unwrap();
            model.catch_up();
            effect(&mut model)
        };
        match fault {
            Some(Fault::DiesAfter) => {
                self.die().await;
                None
            }
            Some(Fault::AnswerLost) => None,
            _ => Some(done),
        }
    }

    /// What a fault does before a step, whatever step it is.
    async fn meet(&self, fault: Option<Fault>) {
        {
            let mut model = self.model.lock().unwrap();
            match fault {
                Some(Fault::DiesWithOffsets) => model.commit = None,
                Some(Fault::ClockBack) => model.clock_moved -= 60_000,
                Some(Fault::ClockForward) => model.clock_moved += 60_000,
                _ => {}
            }
        }
        if matches!(fault, Some(Fault::DiesBefore | Fault::DiesWithOffsets)) {
            self.die().await;
        }
    }

    /// Dies; a copy of a commit that is still on its way is taken before anyone looks.
    async fn die(&self) {
        {
            let mut model = self.model.lock().unwrap();
            if let Some(copy) = model.copy.take() {
                model.commit = Some(copy.commit);
            }
        }
        self.died.notify_one();
        std::future::pending::<()>().await;
    }

    async fn read<T>(&self, effect: impl FnOnce(&mut Model) -> T) -> Result<T, ReadError> {
        let answer = self.step(effect).await;
        answer.ok_or(ReadError::Unavailable(Error::TimedOut))
    }
}

impl Offsets for World {
    async fn committed(&self) -> Result<Option<Commit>, PartitionError> {
        loop {
            let answer = self
                .step(|model| {
                    let mut commit = model.commit;
                    if model.without(Without::Clock)
                        && let Some(Commit {
                            declared: Declared::Intent { clock, .. },
                            ..
                        }) = &mut commit
                    {
                        *clock = Millis::default();
                    }
                    commit
                })
                .await;
            if let Some(commit) = answer {
                return Ok(commit);
            }
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), PartitionError> {
        let fault = self.begin_step().await;
        self.meet(fault).await;
        let replaced = {
            let mut model = self.model.lock().unwrap();
            model.catch_up();
            // The broker refuses a dead member that was replaced. A live one it does not: that one
            // has lost its right in the callback that handed the partition back.
            let guard = match model.schedule.frozen.map(|frozen| frozen.replaced) {
                Some(Replaced::Alive) => Without::Right,
                _ => Without::Fence,
            };
            let replaced = self.life != model.life && !model.without(guard);
            if !replaced && fault != Some(Fault::NotDone) {
                model.take(commit);
            }
            if !replaced && fault == Some(Fault::SentTwice) {
                let life = self.life;
                model.copy = Some(Copy { life, commit });
            }
            replaced
        };
        if fault == Some(Fault::DiesAfter) {
            self.die().await;
        }
        let unsure = [Fault::NotDone, Fault::AnswerLost, Fault::SentTwice];
        if replaced {
            Err(PartitionError::Fenced)
        } else if fault.is_some_and(|fault| unsure.contains(&fault))
            && !self.model.lock().unwrap().without(Without::Renewal)
        {
            Err(PartitionError::MembershipInDoubt(None))
        } else {
            Ok(())
        }
    }

    async fn bounds(&self) -> Result<Bounds, PartitionError> {
        Ok(Bounds { start: 0, end: END })
    }
}

impl Store for World {
    async fn clock(&self) -> Result<Millis, ReadError> {
        self.read(|model| model.clock(Instant::now())).await
    }

    async fn turn(&self) -> Result<Turn, ReadError> {
        Ok(Turn {
            ingested_at: self.clock().await?,
            place: None,
        })
    }

    async fn insert(&self, turn: Turn, insert: Insert<'_>) -> Result<(), InsertError> {
        let fault = self.begin_step().await;
        self.meet(fault).await;
        let now = Instant::now();
        let soon = now + LATE_LIMIT - Duration::from_secs(1);
        let offsets = insert.rows.iter();
        let sent = Underway {
            table: insert.table,
            offsets: offsets
                .filter_map(|row| insert.batch.offset(insert.table, *row))
                .collect(),
            token: insert.token.to_owned(),
            clock: turn.ingested_at,
            arrives: now,
            stored: now,
            let_in: false,
        };
        let arriving = |arrives| Underway {
            arrives,
            stored: arrives,
            ..sent.clone()
        };
        {
            let mut model = self.model.lock().unwrap();
            model.catch_up();
            let late = model.is_late(&sent, now);
            match fault {
                Some(Fault::NotDone) => {}
                Some(Fault::Half | Fault::OnlyToken | Fault::OnlyRows) if late => {}
                Some(Fault::Half) => {
                    let half = sent.offsets.len() / 2;
                    model.rows.extend(&sent.offsets[..half]);
                    model.clickhouse_dies();
                }
                Some(Fault::OnlyToken) => {
                    model.tokens.insert((sent.table, sent.token.clone()));
                }
                Some(Fault::OnlyRows) => {
                    model.rows.extend(&sent.offsets);
                    model.clickhouse_dies();
                }
                Some(Fault::Late | Fault::OkButLate | Fault::DiesLate) => {
                    model.underway.push(arriving(soon));
                }
                Some(Fault::TooLate | Fault::DiesTooLate) => {
                    model.underway.push(arriving(now + LATE_LIMIT * 2));
                }
                Some(Fault::Slow | Fault::DiesSlow) => model.underway.push(Underway {
                    stored: now + LATE_LIMIT * 4,
                    ..sent.clone()
                }),
                Some(Fault::Twice) => model.underway.extend([sent.clone(), arriving(soon)]),
                _ => model.underway.push(sent.clone()),
            }
            model.catch_up();
        }
        match fault {
            Some(Fault::DiesAfter | Fault::DiesLate | Fault::DiesTooLate | Fault::DiesSlow) => {
                self.die().await;
                Ok(())
            }
            Some(
                Fault::NotDone
                | Fault::AnswerLost
                | Fault::Half
                | Fault::OnlyRows
                | Fault::Late
                | Fault::TooLate
                | Fault::Slow,
            ) => Err(InsertError::InDoubt(Error::TimedOut)),
            _ => {
                // Refused as too late, or taken.
                let model = self.model.lock().unwrap();
                if model.is_late(&sent, now) {
                    Err(InsertError::InDoubt(Error::BadResponse(
                        "Code: 469.".into(),
                    )))
                } else {
                    Ok(())
                }
            }
        }
    }

    async fn may_land(&self, _: PartitionId, clock: Millis) -> Result<bool, ReadError> {
        self.read(|model| {
            if model.without(Without::Waiting) {
                return false;
            }
            if model.clock(Instant::now()) <= clock.later_by(LATE_LIMIT) {
                return true;
            }
            let running = model.underway.iter().any(|insert| insert.let_in);
            running && !model.without(Without::Running)
        })
        .await
    }

    async fn present(&self, _: PartitionId, range: OffsetRange) -> Result<Vec<u64>, ReadError> {
        self.read(|model| {
            if model.without(Without::ReadBack) {
                return (range.first()..range.end()).collect();
            }
            let mut present = model.present(range);
            present.sort_unstable();
            present.dedup();
            present
        })
        .await
    }

    async fn highest(&self, _: PartitionId, from: u64) -> Result<Option<u64>, ReadError> {
        self.read(|model| model.rows.iter().copied().filter(|row| *row >= from).max())
            .await
    }

    async fn settled(&self, _: PartitionId) -> Result<Option<u64>, ReadError> {
        self.read(|model| model.settled).await
    }

    async fn count(&self, ranges: &[(PartitionId, OffsetRange)]) -> Result<Vec<Found>, ReadError> {
        self.read(|model| {
            let found = ranges.iter().map(|(id, range)| {
                let rows = model.present(*range);
                let different: HashSet<u64> = rows.iter().copied().collect();
                let believed = model.without(Without::Count) || model.without(Without::ReadBack);
                Found {
                    id: *id,
                    offsets: if believed {
                        range.len()
                    } else {
                        different.len() as u64
                    },
                    rows: rows.len() as u64,
                }
            });
            found.collect()
        })
        .await
    }

    async fn write_watermarks(&self, watermarks: &[Watermark]) -> Result<(), InsertError> {
        let next = watermarks[0].next_offset;
        let answer = self
            .step(|model| model.settled = model.settled.max(Some(next)))
            .await;
        if self.model.lock().unwrap().settled == Some(END) {
            self.finished.notify_one();
        }
        answer.ok_or(InsertError::InDoubt(Error::TimedOut))
    }

    async fn earlier(
        &self,
        _: PartitionId,
        _: &[EventKey],
        _: u64,
    ) -> Result<HashMap<EventKey, u64>, ReadError> {
        Ok(HashMap::new())
    }
}
