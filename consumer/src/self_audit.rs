//! The running consumer audits its own partitions, all the time and at little cost.
//!
//! What settling counts is right when it is counted; this finds what goes wrong later, by a disk or
//! by hand. It walks below the settled offset of the partitions this member has, one question
//! after the other with a pause between them that is at least [`SHARE`] times as long. At the end
//! it follows the settled offset, until it is time to begin again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit_schema::OffsetRange;
use clickhouse::error::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit::{Auditor, End, Finding, STEP};
use crate::batch::PartitionId;
use crate::config::Audit;
use crate::metrics;
use crate::settle::Settler;

/// At most one part in so many of the time is spent asking.
const SHARE: u32 = 20;

/// How long a question may take before it is asked again later.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many ranges of each kind are named.
const NAMED: usize = 20;

/// Audits what `settler` holds until `shutdown`.
pub(crate) async fn run<S>(
    auditor: Auditor,
    settler: Arc<Settler<S>>,
    config: Audit,
    shutdown: CancellationToken,
) {
    let mut walks: BTreeMap<PartitionId, Walk> = BTreeMap::new();
    let mut last = None;
    let mut pause = config.interval;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let settled: BTreeMap<PartitionId, u64> = settler
            .held()
            .iter()
            .map(|progress| (progress.id(), progress.settled()))
            .collect();
        walks.retain(|id, _| {
            let held = settled.contains_key(id);
            if !held {
                // Its next owner finds the same.
                metrics::audited(id.partition, 0, (0, 0));
            }
            held
        });
        for id in settled.keys() {
            walks.entry(*id).or_default();
        }
        let Some((id, settled)) = next_of(&walks, &settled, last, config.again) else {
            continue;
        };
        last = Some(id);
        let started = Instant::now();
        if let Some(walk) = walks.get_mut(&id) {
            let stepped = tokio::time::timeout(PATIENCE, walk.step(&auditor, id, settled));
            let stepped = tokio::select! {
                () = shutdown.cancelled() => return,
                stepped = stepped => stepped.unwrap_or(Err(Error::TimedOut)),
            };
            if let Err(error) = stepped {
                tracing::debug!(error = %error, "clickhouse did not answer the audit");
            }
            metrics::audited(id.partition, walk.next.unwrap_or(0), walk.wrong());
        }
        pause = config.interval.max(started.elapsed().saturating_mul(SHARE));
    }
}

/// The partition behind `last`, in turn, of which there is something to look at, and its settled
/// offset.
fn next_of(
    walks: &BTreeMap<PartitionId, Walk>,
    settled: &BTreeMap<PartitionId, u64>,
    last: Option<PartitionId>,
    again: Duration,
) -> Option<(PartitionId, u64)> {
    let wanting = |(id, walk): (&PartitionId, &Walk)| {
        let settled = settled.get(id).copied().unwrap_or(0);
        walk.wants(settled, again).then_some((*id, settled))
    };
    let behind = |id: &PartitionId| last.is_none_or(|last| *id > last);
    walks
        .iter()
        .filter(|(id, _)| behind(id))
        .find_map(wanting)
        .or_else(|| walks.iter().find_map(wanting))
}

/// The walk over one partition.
#[derive(Debug)]
struct Walk {
    /// Where it goes on; `None` before it has begun.
    next: Option<u64>,
    began: Instant,
    /// How many offsets were missing and how many rows doubled when last seen, of each `STEP`
    /// offsets, as far as any were.
    wrong: BTreeMap<u64, (u64, u64)>,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            next: None,
            began: Instant::now(),
            wrong: BTreeMap::new(),
        }
    }
}

impl Walk {
    /// Whether there is something to look at.
    fn wants(&self, settled: u64, again: Duration) -> bool {
        settled > 0
            && (self.next.is_none_or(|next| next < settled) || self.began.elapsed() >= again)
    }

    /// How many offsets are missing, and how many rows doubled.
    fn wrong(&self) -> (u64, u64) {
        self.wrong.values().fold((0, 0), |sum, wrong| {
            (
                u64::saturating_add(sum.0, wrong.0),
                u64::saturating_add(sum.1, wrong.1),
            )
        })
    }

    /// Looks at the next range below `settled`; from the beginning if there is none.
    async fn step(
        &mut self,
        auditor: &Auditor,
        id: PartitionId,
        settled: u64,
    ) -> Result<(), Error> {
        let next = if let Some(next) = self.next.filter(|next| *next < settled) {
            next
        } else {
            let lowest = auditor.end(id, End::Lowest).await?.unwrap_or(settled);
            self.began = Instant::now();
            self.wrong.retain(|block, _| *block >= lowest / STEP);
            lowest
        };
        let Some(range) = part(next, settled) else {
            self.next = Some(next);
            return Ok(());
        };
        let (_, finding) = auditor.look(id, range, NAMED).await?;
        self.found(id, range, &finding);
        self.next = Some(range.end());
        Ok(())
    }

    fn found(&mut self, id: PartitionId, range: OffsetRange, finding: &Finding) {
        let block = range.first() / STEP;
        // It goes on in a block it has begun, or sees it anew.
        let anew = self.next != Some(range.first()) || range.first().is_multiple_of(STEP);
        let mut wrong = self
            .wrong
            .remove(&block)
            .filter(|_| !anew)
            .unwrap_or((0, 0));
        wrong.0 = wrong.0.saturating_add(finding.missing);
        wrong.1 = wrong.1.saturating_add(finding.doubled);
        if wrong != (0, 0) {
            self.wrong.insert(block, wrong);
        }
        if !finding.is_clean() {
            tracing::error!(
                kafka.partition = id.partition,
                incarnation = id.incarnation,
                range = %range,
                found = %finding,
                "settled offsets are not stored once each any more; `audit-consumer verify` names \
                 all of them"
            );
        }
    }
}

/// What to look at next, within one block of `STEP` offsets.
fn part(next: u64, settled: u64) -> Option<OffsetRange> {
    let block_end = (next / STEP).saturating_add(1).saturating_mul(STEP);
    OffsetRange::until(next, settled.min(block_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Duration = Duration::from_secs(3600);

    fn id(partition: u32) -> PartitionId {
        PartitionId {
            incarnation: 1,
            partition,
        }
    }

    fn finding(missing: u64, doubled: u64) -> Finding {
        Finding {
            missing,
            doubled,
            ..Finding::default()
        }
    }

    #[test]
    fn what_is_seen_again_replaces_what_was_seen() {
        let mut walk = Walk::default();
        let (first, second) = (part(5, 20).unwrap(), part(20, STEP * 3).unwrap());
        assert_eq!((first.end(), second.end()), (20, STEP));
        for (missing, wrong) in [(1, (3, 1)), (0, (2, 1))] {
            walk.next = None;
            walk.found(id(0), first, &finding(missing, 1));
            walk.next = Some(first.end());
            walk.found(id(0), second, &finding(2, 0));
            assert_eq!(walk.wrong(), wrong);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn partitions_take_turns_and_begin_again() {
        let walks = BTreeMap::from([(id(0), Walk::default()), (id(1), Walk::default())]);
        let settled = BTreeMap::from([(id(0), 7), (id(1), 9)]);
        let next = |last| next_of(&walks, &settled, last, AGAIN);
        assert_eq!(next(None), Some((id(0), 7)));
        assert_eq!(next(Some(id(0))), Some((id(1), 9)));
        assert_eq!(next(Some(id(1))), Some((id(0), 7)));

        let done = Walk {
            next: Some(7),
            ..Walk::default()
        };
        assert!(!done.wants(7, AGAIN));
        assert!(done.wants(8, AGAIN));
        tokio::time::advance(AGAIN).await;
        assert!(done.wants(7, AGAIN));
        assert!(!done.wants(0, AGAIN));
    }
}
