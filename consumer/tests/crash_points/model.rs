//! What Kafka's group and ClickHouse hold, and what is on its way to them.

use std::collections::HashSet;

use audit_consumer::batch::Table;
use audit_consumer::offsets::Commit;
use audit_consumer::recovery::LATE_LIMIT;
use audit_schema::OffsetRange;
use audit_schema::row::Millis;
use tokio::time::Instant;

use crate::schedule::{Schedule, Without};

/// An insert on its way, or being stored.
#[derive(Debug, Clone)]
pub(crate) struct Underway {
    pub(crate) table: Table,
    pub(crate) offsets: Vec<u64>,
    pub(crate) token: String,
    /// The time of ClickHouse's that it carries.
    pub(crate) clock: Millis,
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

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) schedule: Schedule,
    pub(crate) began: Instant,
    /// Steps taken, by member.
    pub(crate) steps: [usize; 2],
    pub(crate) rows: Vec<u64>,
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
    pub(crate) fn clock(&self, at: Instant) -> Millis {
        let elapsed = i64::try_from(at.duration_since(self.began).as_millis()).unwrap();
        Millis(1_700_000_000_000 + elapsed + self.clock_moved)
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
        self.clock(now) > insert.clock.later_by(LATE_LIMIT) && !self.without(Without::LateLimit)
    }

    /// Stores an insert that was let in, if its token is new.
    pub(crate) fn store(&mut self, insert: &Underway) {
        let fresh = self.tokens.insert((insert.table, insert.token.clone()));
        if fresh || self.without(Without::Tokens) {
            self.rows.extend(&insert.offsets);
        }
    }

    /// ClickHouse dies, and what is inside it: what has arrived and is not stored.
    pub(crate) fn clickhouse_dies(&mut self) {
        let now = Instant::now();
        self.underway.retain(|insert| insert.arrives > now);
    }

    /// The broker takes a commit; a copy that is still on its way comes behind it.
    pub(crate) fn take(&mut self, commit: Commit) {
        self.commit = Some(commit);
        if let Some(copy) = self.copy.take_if(|copy| copy.life == self.life) {
            self.commit = Some(copy.commit);
        }
    }

    pub(crate) fn present(&self, range: OffsetRange) -> Vec<u64> {
        let rows = self.rows.iter().copied();
        rows.filter(|row| range.contains(*row)).collect()
    }
}
