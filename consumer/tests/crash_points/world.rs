//! The model of Kafka's group and ClickHouse: it does to each step what the schedule says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_consumer::batch::{EventKey, PartitionId, Table};
use audit_consumer::error::{InsertError, PartitionError, ReadError};
use audit_consumer::offsets::{Bounds, Commit, Declared, Offsets};
use audit_consumer::recovery::LATE_LIMIT;
use audit_consumer::store::{Found, Insert, Store, Turn, Watermark};
use audit_schema::OffsetRange;
use audit_schema::row::Millis;
use clickhouse::error::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) const ID: PartitionId = PartitionId {
    incarnation: 1,
    partition: 0,
};

/// How many records the log holds. Every fourth is no event.
pub(crate) const END: u64 = 8;

/// What happens to one step. What has no meaning for a step leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies before the step has an effect.
    DiesBefore,
    /// The process dies after the step had its effect.
    DiesAfter,
    /// The process dies, and the group's offsets are deleted.
    DiesWithOffsets,
    /// It has its effect, but no answer comes.
    AnswerLost,
    /// It has no effect, and no answer comes.
    NotDone,
    /// ClickHouse dies: an insert is stored by half, and no answer comes.
    Half,
    /// An insert is answered and its token kept, but no row is stored.
    OnlyToken,
    /// ClickHouse dies: an insert is stored, its token is not kept, and no answer comes.
    OnlyRows,
    /// No answer comes, and the insert lands nine seconds later.
    Late,
    /// No answer comes, and the insert arrives when the server refuses it.
    TooLate,
}

pub(crate) const FAULTS: [Fault; 10] = [
    Fault::DiesBefore,
    Fault::DiesAfter,
    Fault::DiesWithOffsets,
    Fault::AnswerLost,
    Fault::NotDone,
    Fault::Half,
    Fault::OnlyToken,
    Fault::OnlyRows,
    Fault::Late,
    Fault::TooLate,
];

/// Which guard is taken out, to see that the model notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    Nothing,
    /// Whatever is asked for is said to be there.
    ReadBack,
    /// Tokens do not stop a repeated insert.
    Tokens,
    /// The broker takes every commit.
    Fence,
    /// The server takes an insert however late.
    LateLimit,
    /// Counting believes every answer.
    Count,
}

/// An insert on its way.
#[derive(Debug, Clone)]
struct Underway {
    table: Table,
    offsets: Vec<u64>,
    token: String,
    sent: Instant,
    lands: Instant,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) steps: usize,
    faults: BTreeMap<usize, Fault>,
    without: Without,
    pub(crate) rows: Vec<u64>,
    tokens: HashSet<(Table, String)>,
    underway: Vec<Underway>,
    commit: Option<Commit>,
    settled: Option<u64>,
    /// Who has the partition; from 1.
    member: usize,
    frozen: Option<Frozen>,
}

/// The first member stops before one of its steps, and goes on before one of the second's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frozen {
    pub(crate) before: usize,
    pub(crate) until: usize,
}

impl Model {
    /// Lets land what has been on its way long enough.
    pub(crate) fn catch_up(&mut self) {
        let now = Instant::now();
        let (landed, underway) = self.underway.drain(..).partition(|u| u.lands <= now);
        self.underway = underway;
        for insert in landed {
            self.land(&insert);
        }
    }

    /// Stores an insert that is not too late and whose token is new.
    fn land(&mut self, insert: &Underway) {
        let in_time = insert.lands.duration_since(insert.sent) < LATE_LIMIT;
        if !in_time && self.without != Without::LateLimit {
            return;
        }
        let fresh = self.tokens.insert((insert.table, insert.token.clone()));
        if fresh || self.without == Without::Tokens {
            self.rows.extend(&insert.offsets);
        }
    }
}

/// The model of Kafka's group and ClickHouse, as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) model: Arc<Mutex<Model>>,
    pub(crate) died: Arc<Notify>,
    pub(crate) finished: Arc<Notify>,
    pub(crate) froze: Arc<Notify>,
    pub(crate) thaw: Arc<Notify>,
    /// Which member this is; from 1.
    pub(crate) member: usize,
    began: Instant,
}

impl World {
    pub(crate) fn new(faults: &[(usize, Fault)], without: Without) -> Self {
        Self {
            model: Arc::new(Mutex::new(Model {
                steps: 0,
                faults: faults.iter().copied().collect(),
                without,
                rows: Vec::new(),
                tokens: HashSet::new(),
                underway: Vec::new(),
                // The partition was idle when the log was empty.
                commit: Some(Commit {
                    next: 0,
                    declared: Declared::Nothing,
                }),
                settled: None,
                member: 1,
                frozen: None,
            })),
            died: Arc::new(Notify::new()),
            finished: Arc::new(Notify::new()),
            froze: Arc::new(Notify::new()),
            thaw: Arc::new(Notify::new()),
            member: 1,
            began: Instant::now(),
        }
    }

    /// A world whose first member stops for a while.
    pub(crate) fn frozen(frozen: Frozen, without: Without) -> Self {
        let world = Self::new(&[], without);
        world.model.lock().unwrap().frozen = Some(frozen);
        world
    }

    /// The same world as the member sees it that the partition is given to now.
    pub(crate) fn successor(&self) -> Self {
        let mut model = self.model.lock().unwrap();
        model.member += 1;
        model.steps = 0;
        Self {
            member: model.member,
            ..self.clone()
        }
    }

    /// Counts a step, and stops before it if the member is to freeze there.
    async fn begin_step(&self) -> Option<Fault> {
        tokio::task::yield_now().await;
        let (fault, frozen) = {
            let mut model = self.model.lock().unwrap();
            if self.member == model.member {
                model.steps += 1;
            }
            let step = model.steps;
            let frozen = model.frozen.filter(|_| self.member == model.member);
            if self.member > 1 && frozen.is_some_and(|frozen| frozen.until == step) {
                self.thaw.notify_one();
            }
            let stops = self.member == 1 && frozen.is_some_and(|frozen| frozen.before == step);
            (model.faults.get(&step).copied(), stops)
        };
        if frozen {
            self.froze.notify_one();
            self.thaw.notified().await;
        }
        fault
    }

    /// Takes a step: applies its effect as its fault says. `None` is an answer that never came.
    async fn step<T>(&self, effect: impl FnOnce(&mut Model) -> T) -> Option<T> {
        let fault = self.begin_step().await;
        self.die_before(fault).await;
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

    async fn die_before(&self, fault: Option<Fault>) {
        if fault == Some(Fault::DiesWithOffsets) {
            self.model.lock().unwrap().commit = None;
        }
        if matches!(fault, Some(Fault::DiesBefore | Fault::DiesWithOffsets)) {
            self.die().await;
        }
    }

    async fn die(&self) {
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
            if let Some(commit) = self.step(|model| model.commit).await {
                return Ok(commit);
            }
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), PartitionError> {
        // Repeated unchanged until it is answered, as the real one does.
        loop {
            let mine = self.member;
            let answer = self
                .step(|model| {
                    // The broker refuses a replaced member, and a live one has lost the right.
                    let fenced = mine != model.member && model.without != Without::Fence;
                    if !fenced {
                        model.commit = Some(commit);
                    }
                    fenced
                })
                .await;
            match answer {
                Some(false) => return Ok(()),
                Some(true) => return Err(PartitionError::Fenced),
                None => {}
            }
        }
    }

    async fn bounds(&self) -> Result<Bounds, PartitionError> {
        Ok(Bounds { start: 0, end: END })
    }
}

impl Store for World {
    async fn turn(&self) -> Result<Turn, ReadError> {
        let began = self.began;
        let now = || i64::try_from(began.elapsed().as_millis()).unwrap();
        let ingested_at = self.read(|_| Millis(now())).await?;
        Ok(Turn {
            ingested_at,
            place: None,
        })
    }

    async fn insert(&self, turn: Turn, insert: Insert<'_>) -> Result<(), InsertError> {
        let fault = self.begin_step().await;
        let now = Instant::now();
        let mut underway = Underway {
            table: insert.table,
            offsets: insert
                .rows
                .iter()
                .filter_map(|row| insert.batch.offset(insert.table, *row))
                .collect(),
            token: insert.token.to_owned(),
            // The age of an insert counts from when its clock was read.
            sent: self.began + Duration::from_millis(u64::try_from(turn.ingested_at.0).unwrap()),
            lands: now,
        };
        self.die_before(fault).await;
        {
            let mut model = self.model.lock().unwrap();
            model.catch_up();
            match fault {
                Some(Fault::NotDone | Fault::DiesBefore | Fault::DiesWithOffsets) => {}
                Some(Fault::Half) => {
                    let half = underway.offsets.len() / 2;
                    model.rows.extend(&underway.offsets[..half]);
                    model.underway.clear();
                }
                Some(Fault::OnlyToken) => {
                    model
                        .tokens
                        .insert((underway.table, underway.token.clone()));
                }
                Some(Fault::OnlyRows) => {
                    let known = model
                        .tokens
                        .contains(&(underway.table, underway.token.clone()));
                    if !known || model.without == Without::Tokens {
                        model.rows.extend(&underway.offsets);
                    }
                    model.underway.clear();
                }
                Some(Fault::Late) => {
                    underway.lands = now + LATE_LIMIT - Duration::from_secs(1);
                    model.underway.push(underway);
                }
                Some(Fault::TooLate) => {
                    underway.lands = now + LATE_LIMIT * 2;
                    model.underway.push(underway);
                }
                None | Some(Fault::DiesAfter | Fault::AnswerLost) => model.land(&underway),
            }
        }
        match fault {
            None | Some(Fault::OnlyToken) => Ok(()),
            Some(Fault::DiesAfter) => {
                self.die().await;
                Ok(())
            }
            Some(_) => Err(InsertError::InDoubt(Error::TimedOut)),
        }
    }

    async fn present(&self, _: PartitionId, range: OffsetRange) -> Result<Vec<u64>, ReadError> {
        self.read(|model| {
            if model.without == Without::ReadBack {
                return (range.first()..range.end()).collect();
            }
            let mut present: Vec<u64> = model
                .rows
                .iter()
                .copied()
                .filter(|row| range.contains(*row))
                .collect();
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
            ranges
                .iter()
                .map(|(id, range)| {
                    let rows: Vec<u64> = model
                        .rows
                        .iter()
                        .copied()
                        .filter(|row| range.contains(*row))
                        .collect();
                    let different: HashSet<u64> = rows.iter().copied().collect();
                    let believed = matches!(model.without, Without::ReadBack | Without::Count);
                    Found {
                        id: *id,
                        offsets: if believed {
                            range.len()
                        } else {
                            different.len() as u64
                        },
                        rows: rows.len() as u64,
                    }
                })
                .collect()
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
