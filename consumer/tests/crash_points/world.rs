//! The model of Kafka's group and ClickHouse: it does to each step what the schedule says.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

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

use crate::model::{Copy, Model, Replica, Underway};
use crate::schedule::{Fault, Frozen, REPLICA_FAULTS, Replaced, Schedule, Without};

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
        let replicas = vec![Replica::default(); 1 + schedule.more_replicas];
        Self {
            model: Arc::new(Mutex::new(Model {
                schedule,
                began: Instant::now(),
                steps: [0; 2],
                rows: Vec::new(),
                replicas,
                asked: [0; 2],
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
        let owner = model.owner;
        model.asked[owner] = 0;
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

    /// Asks one replica; what it fails to answer goes to the next one.
    async fn read<T>(
        &self,
        effect: impl FnOnce(&mut Model, usize) -> Option<T>,
    ) -> Result<T, ReadError> {
        let member = self.member;
        let of_replica = self
            .next_fault()
            .filter(|fault| REPLICA_FAULTS.contains(fault));
        let answer = self
            .step(|model| {
                let asked = model.asked[member];
                if of_replica.is_some() {
                    model.goes_away(asked, of_replica == Some(Fault::ReplicaDies));
                }
                let there = model.answers(asked);
                there.then(|| effect(model, asked)).flatten()
            })
            .await
            .flatten();
        answer.ok_or_else(|| {
            self.model.lock().unwrap().turn(member);
            ReadError::Unavailable(Error::TimedOut)
        })
    }

    /// What happens at the next step.
    fn next_fault(&self) -> Option<Fault> {
        let model = self.model.lock().unwrap();
        let next = model.steps[self.member] + 1;
        model.schedule.fault(self.member, next)
    }

    /// Asks one replica for rows, which has fetched what the others have.
    async fn read_rows<T>(
        &self,
        effect: impl FnOnce(&Model, Vec<u64>) -> T,
    ) -> Result<T, ReadError> {
        self.read(|model, asked| {
            let rows = model.fetched(asked)?;
            Some(effect(model, rows))
        })
        .await
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
    async fn clock(&self, _: PartitionId) -> Result<Millis, ReadError> {
        self.read(|model, asked| Some(model.clock(asked, Instant::now())))
            .await
    }

    async fn latest_clock(&self, _: PartitionId) -> Result<Millis, ReadError> {
        self.read(|model, _| {
            let all = 0..model.replicas.len();
            let answers = all.clone().all(|replica| model.answers(replica));
            let clocks = all.map(|replica| model.clock(replica, Instant::now()));
            clocks.max().filter(|_| answers)
        })
        .await
    }

    async fn turn(&self, id: PartitionId) -> Result<Turn, ReadError> {
        Ok(Turn {
            ingested_at: self.clock(id).await?,
            place: None,
        })
    }

    async fn insert(&self, turn: Turn, insert: Insert<'_>) -> Result<(), InsertError> {
        let fault = self.begin_step().await;
        self.meet(fault).await;
        let now = Instant::now();
        let offsets = insert.rows.iter();
        let at = self.model.lock().unwrap().asked[self.member];
        let sent = Underway {
            at,
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
        let there = self.model.lock().unwrap().arrive(&sent, fault);
        let answer = match fault {
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
                | Fault::Slow
                | Fault::ReplicaDies
                | Fault::ReplicaStandsStill,
            ) => Err(InsertError::InDoubt(Error::TimedOut)),
            _ if !there => Err(InsertError::InDoubt(Error::TimedOut)),
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
        };
        if answer.is_err() {
            self.model.lock().unwrap().turn(self.member);
        }
        answer
    }

    async fn may_land(&self, _: PartitionId, clock: Millis) -> Result<bool, ReadError> {
        self.read(|model, asked| {
            if model.without(Without::Waiting) {
                return Some(false);
            }
            let looked_at = if model.without(Without::EachReplica) {
                asked..asked + 1
            } else {
                0..model.replicas.len()
            };
            let late = looked_at.clone().all(|replica| {
                let now = model.clock(replica, Instant::now());
                model.answers(replica) && now > clock.later_by(LATE_LIMIT)
            });
            let running = model
                .underway
                .iter()
                .any(|insert| insert.let_in && looked_at.contains(&insert.at));
            Some(!late || (running && !model.without(Without::Running)))
        })
        .await
    }

    async fn present(&self, _: PartitionId, range: OffsetRange) -> Result<Vec<u64>, ReadError> {
        self.read_rows(|model, mut present| {
            if model.without(Without::ReadBack) {
                return (range.first()..range.end()).collect();
            }
            present.retain(|row| range.contains(*row));
            present.sort_unstable();
            present.dedup();
            present
        })
        .await
    }

    async fn highest(&self, _: PartitionId, from: u64) -> Result<Option<u64>, ReadError> {
        self.read_rows(|_, rows| rows.into_iter().filter(|row| *row >= from).max())
            .await
    }

    async fn settled(&self, _: PartitionId) -> Result<Option<u64>, ReadError> {
        self.read(|model, _| Some(model.settled)).await
    }

    async fn count(&self, ranges: &[(PartitionId, OffsetRange)]) -> Result<Vec<Found>, ReadError> {
        self.read_rows(|model, all| {
            let found = ranges.iter().map(|(id, range)| {
                let rows = all.iter().copied().filter(|row| range.contains(*row));
                let different: HashSet<u64> = rows.clone().collect();
                let believed = model.without(Without::Count) || model.without(Without::ReadBack);
                Found {
                    id: *id,
                    offsets: if believed {
                        range.len()
                    } else {
                        different.len() as u64
                    },
                    rows: rows.count() as u64,
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
