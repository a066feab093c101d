//! What Kafka's group and ClickHouse hold, and what is on its way to them.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use audit_consumer::batch::Table;
use audit_consumer::offsets::Commit;
use audit_consumer::recovery::LATE_LIMIT;
use audit_schema::row::Millis;
use tokio::time::Instant;

use crate::schedule::{Fault, Schedule, Without};

/// An insert on its way, or being stored.
#[derive(Debug, Clone)]
pub(crate) struct Underway {
    pub(crate) table: Table,
    pub(crate) offsets: Vec<u64>,
    pub(crate) token: String,
    /// The time of ClickHouse's that it carries.
    pub(crate) clock: Millis,
    /// The replica it is sent to.
    pub(crate) at: usize,
    /// When it is all there.
    pub(crate) arrives: Instant,
    /// When it is stored, once it is let in.
    pub(crate) stored: Instant,
    pub(crate) let_in: bool,
}

/// A copy of a commit that the broker has not seen yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copy {
    pub(crate) life: usize,
    pub(crate) commit: Commit,
}

/// One server that has the tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replica {
    /// Which of the rows it has: places in the model's.
    has: BTreeSet<usize>,
    /// Until when it does not answer.
    pub(crate) away: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) schedule: Schedule,
    pub(crate) began: Instant,
    /// Steps taken, by member.
    pub(crate) steps: [usize; 2],
    /// What is stored by any replica, in the order in which it was.
    pub(crate) rows: Vec<u64>,
    pub(crate) replicas: Vec<Replica>,
    /// Which replica each member asks.
    pub(crate) asked: [usize; 2],
    pub(crate) tokens: HashSet<(Table, String)>,
    pub(crate) underway: Vec<Underway>,
    /// How far ClickHouse's clock was moved, in milliseconds.
    pub(crate) clock_moved: i64,
    pub(crate) commit: Option<Commit>,
    pub(crate) copy: Option<Copy>,
    pub(crate) settled: Option<u64>,
    /// Who has the partition: an index of `steps`.
    pub(crate) owner: usize,
    /// The owner's membership.
    pub(crate) life: usize,
}

impl Model {
    /// What the clock of a replica shows: each is a second behind the one before.
    pub(crate) fn clock(&self, replica: usize, at: Instant) -> Millis {
        let elapsed = i64::try_from(at.duration_since(self.began).as_millis()).unwrap();
        let behind = i64::try_from(replica).unwrap() * 1000;
        Millis(1_700_000_000_000 + elapsed + self.clock_moved - behind)
    }

    /// Whether a replica answers.
    pub(crate) fn answers(&self, replica: usize) -> bool {
        let away = self.replicas[replica].away;
        away.is_none_or(|until| until <= Instant::now())
    }

    /// The member's replica failed: it asks the next one from now on.
    pub(crate) fn turn(&mut self, member: usize) {
        self.asked[member] = (self.asked[member] + 1) % self.replicas.len();
    }

    /// The rows that a replica has once it has fetched what the others have; `None` if it does
    /// not answer, or if nobody that answers has something.
    pub(crate) fn fetched(&mut self, replica: usize) -> Option<Vec<u64>> {
        if !self.answers(replica) {
            return None;
        }
        if !self.without(Without::Sync) {
            let reachable = (0..self.replicas.len()).filter(|other| self.answers(*other));
            let reachable: BTreeSet<usize> = reachable
                .flat_map(|other| self.replicas[other].has.iter().copied())
                .collect();
            if reachable.len() < self.rows.len() {
                return None;
            }
            self.replicas[replica].has = reachable;
        }
        let has = self.replicas[replica].has.iter();
        Some(has.map(|place| self.rows[*place]).collect())
    }

    /// Stores rows at a replica, and at another one: a majority. The third has to fetch them.
    pub(crate) fn store_at(&mut self, replica: usize, rows: &[u64], quorum: bool) {
        let places = self.rows.len()..self.rows.len() + rows.len();
        self.rows.extend(rows);
        let other = (replica + self.replicas.len() - 1) % self.replicas.len();
        self.replicas[replica].has.extend(places.clone());
        if quorum {
            self.replicas[other].has.extend(places);
        }
    }

    pub(crate) fn without(&self, guard: Without) -> bool {
        self.schedule.without == Some(guard)
    }

    /// Lets arrive and be stored what has been on its way long enough.
    pub(crate) fn catch_up(&mut self) {
        let now = Instant::now();
        let mut underway = std::mem::take(&mut self.underway);
        underway.retain_mut(|insert| {
            if insert.arrives > now {
                return true;
            }
            if !insert.let_in {
                if self.is_late(insert, insert.arrives) {
                    return false;
                }
                insert.let_in = true;
            }
            if insert.stored > now {
                return true;
            }
            self.store(insert);
            false
        });
        self.underway = underway;
    }

    /// Whether the server refuses an insert that arrives now.
    pub(crate) fn is_late(&self, insert: &Underway, now: Instant) -> bool {
        self.clock(insert.at, now) > insert.clock.later_by(LATE_LIMIT)
            && !self.without(Without::LateLimit)
    }

    /// Stores an insert that was let in, if its token is new.
    pub(crate) fn store(&mut self, insert: &Underway) {
        let fresh = self.tokens.insert((insert.table, insert.token.clone()));
        if fresh || self.without(Without::Tokens) {
            self.store_at(insert.at, &insert.offsets, true);
        }
    }

    /// An insert reaches its replica, or not, as its fault says. Says whether the replica was there.
    pub(crate) fn arrive(&mut self, sent: &Underway, fault: Option<Fault>) -> bool {
        let (now, at) = (Instant::now(), sent.at);
        let soon = now + LATE_LIMIT - Duration::from_secs(1);
        let arriving = |arrives| Underway {
            arrives,
            stored: arrives,
            ..sent.clone()
        };
        self.catch_up();
        if !self.answers(at) {
            return false;
        }
        let late = self.is_late(sent, now);
        match fault {
            Some(Fault::NotDone) => {}
            Some(Fault::Half | Fault::OnlyToken | Fault::OnlyRows) if late => {}
            Some(Fault::Half) => {
                let half = sent.offsets.len() / 2;
                self.store_at(at, &sent.offsets[..half], true);
                self.dies(at);
            }
            Some(Fault::OnlyToken) => {
                self.tokens.insert((sent.table, sent.token.clone()));
            }
            Some(Fault::OnlyRows) => {
                self.store_at(at, &sent.offsets, true);
                self.dies(at);
            }
            Some(Fault::Late | Fault::OkButLate | Fault::DiesLate) => {
                self.underway.push(arriving(soon));
            }
            Some(Fault::TooLate | Fault::DiesTooLate) => {
                self.underway.push(arriving(now + LATE_LIMIT * 2));
            }
            Some(Fault::Slow | Fault::DiesSlow) => self.underway.push(Underway {
                stored: now + LATE_LIMIT * 4,
                ..sent.clone()
            }),
            Some(Fault::Twice) => self.underway.extend([sent.clone(), arriving(soon)]),
            Some(Fault::ReplicaDies) => {
                if !late && self.tokens.insert((sent.table, sent.token.clone())) {
                    self.store_at(at, &sent.offsets, false);
                }
                self.goes_away(at, true);
            }
            Some(Fault::ReplicaStandsStill) => {
                self.goes_away(at, false);
                self.underway.push(Underway {
                    stored: now + LATE_LIMIT * 4,
                    ..sent.clone()
                });
            }
            _ => self.underway.push(sent.clone()),
        }
        self.catch_up();
        true
    }

    /// A replica stops answering for four times the limit, dead or standing still.
    pub(crate) fn goes_away(&mut self, replica: usize, dead: bool) {
        if dead {
            self.dies(replica);
        }
        self.replicas[replica].away = Some(Instant::now() + LATE_LIMIT * 4);
    }

    /// A server dies, and what is inside it: what has arrived and is not stored.
    pub(crate) fn dies(&mut self, replica: usize) {
        let now = Instant::now();
        self.underway
            .retain(|insert| insert.at != replica || insert.arrives > now);
    }

    /// The broker takes a commit; a copy that is still on its way comes behind it.
    pub(crate) fn take(&mut self, commit: Commit) {
        self.commit = Some(commit);
        if let Some(copy) = self.copy.take_if(|copy| copy.life == self.life) {
            self.commit = Some(copy.commit);
        }
    }
}
