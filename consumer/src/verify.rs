//! Verify: every offset of every partition is in exactly one of the two tables, or was taken away
//! by retention, which says so.
//!
//! What is below the settled offset was counted before and has to be there. Above it an insert
//! may be under way, so a hole there is only told to be one when it stays after the consumer has
//! had time to settle it. A partition begins at its lowest offset that is stored or was taken
//! away; if Kafka can be asked, nothing that its log still has may lie below that.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use audit_schema::OffsetRange;
use clickhouse::error::Error;
use serde::Serialize;

use crate::audit::{Auditor, Extent, Finding, Run, STEP};
use crate::batch::PartitionId;
use crate::topic::Logs;

use crate::offsets::Bounds;

/// How often the settled offset is asked for while it is waited for.
const AGAIN: Duration = Duration::from_millis(200);

/// What to look at, and how.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Only this life of the topic.
    pub incarnation: Option<u32>,
    /// Only this partition.
    pub partition: Option<u32>,
    /// From this offset on.
    pub from: u64,
    /// How many ranges of each kind are named per partition.
    pub named: usize,
    /// How long the consumer has to settle what is found missing above the settled offset.
    pub patience: Duration,
}

impl Scope {
    fn has(&self, id: PartitionId) -> bool {
        self.incarnation.is_none_or(|only| only == id.incarnation)
            && self.partition.is_none_or(|only| only == id.partition)
    }
}

/// How far a walk over the tables has come.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The partition it is at.
    pub id: PartitionId,
    /// The offset it goes on from.
    pub next: u64,
    /// How many offsets of all partitions it has behind it.
    pub done: u64,
    /// How many there are.
    pub of: u64,
    /// Since it began.
    pub after: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = u128::from(self.done).saturating_mul(1000) / self.after.as_millis().max(1);
        let left = u128::from(self.of.saturating_sub(self.done)) / rate.max(1);
        write!(
            f,
            "{} of {} offsets, {rate}/s, {left} s left; at incarnation {} partition {} offset {}",
            self.done, self.of, self.id.incarnation, self.id.partition, self.next
        )
    }
}

/// What follows from a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Every offset is there once.
    Holds,
    /// It cannot be said yet.
    Unknown,
    /// An offset is missing, or is there twice.
    Broken,
}

/// What is to be said of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Which life of the topic.
    pub incarnation: u32,
    /// The partition.
    pub partition: u32,
    /// What follows.
    pub outcome: Outcome,
    /// The offsets that were looked at: from the first …
    pub first: u64,
    /// … up to, not including, this one.
    pub end: u64,
    /// The settled offset.
    pub settled_offset: u64,
    /// How many rows there are; a dead letter counts once for each offset it stands for.
    pub rows: u64,
    /// How many offsets have none because retention took it away.
    pub removed: u64,
    /// What is wrong.
    #[serde(flatten)]
    pub finding: Finding,
    /// How many offsets dead letters stand for, by kind, in the whole partition.
    pub dead_letters: BTreeMap<String, u64>,
    /// Where Kafka's log begins and ends, if it could be asked.
    pub log: Option<Run>,
    /// Why it cannot be said whether every offset is there once.
    pub unknown: Option<String>,
}

impl Verdict {
    fn of(extent: Extent, first: u64, log: Option<Bounds>) -> Self {
        Self {
            incarnation: extent.id.incarnation,
            partition: extent.id.partition,
            outcome: Outcome::Holds,
            first,
            end: first,
            settled_offset: extent.settled,
            rows: 0,
            removed: 0,
            finding: Finding::default(),
            dead_letters: BTreeMap::new(),
            log: log.map(|log| Run {
                first: log.start,
                last: log.end,
            }),
            unknown: None,
        }
    }

    /// Whether every offset is there once.
    pub fn holds(&self) -> bool {
        self.outcome == Outcome::Holds
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "incarnation {} partition {}: offsets {} to {}, {} rows, {}",
            self.incarnation,
            self.partition,
            self.first,
            self.end.saturating_sub(1),
            self.rows,
            self.finding
        )?;
        if self.removed > 0 {
            write!(f, ", {} removed by retention", self.removed)?;
        }
        for (kind, offsets) in &self.dead_letters {
            write!(f, ", {offsets} {kind}")?;
        }
        match &self.unknown {
            Some(reason) => write!(f, ", UNKNOWN: {reason}"),
            None => Ok(()),
        }
    }
}

/// Audits every partition in `scope`. `step` is told how far it is, `each` every verdict as soon
/// as it is known. `logs` asks Kafka about the newest life of the topic, if it can be asked.
pub async fn verify(
    auditor: &Auditor,
    scope: Scope,
    logs: impl AsyncFnOnce() -> Option<Logs>,
    mut step: impl FnMut(Step),
    mut each: impl FnMut(&Verdict),
) -> Result<Vec<Verdict>, Error> {
    let started = Instant::now();
    let extents = auditor.extents().await?;
    // In this order: what is stored was in the log before.
    let logs = logs().await;
    let walks: Vec<Walk> = extents
        .into_iter()
        .filter(|extent| scope.has(extent.id))
        .map(|extent| Walk::new(extent, scope, logs.as_ref()))
        .collect();
    let of = walks.iter().fold(0_u64, |sum, walk| {
        sum.saturating_add(walk.range.map_or(0, OffsetRange::len))
    });
    let mut verdicts = Vec::new();
    let mut before = 0_u64;
    for walk in walks {
        let first = walk.range.map_or(0, OffsetRange::first);
        let verdict = walk
            .go(auditor, scope, |next| {
                step(Step {
                    id: walk.extent.id,
                    next,
                    done: before.saturating_add(next.saturating_sub(first)),
                    of,
                    after: started.elapsed(),
                });
            })
            .await?;
        before = before.saturating_add(walk.range.map_or(0, OffsetRange::len));
        each(&verdict);
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// The walk over one partition.
#[derive(Debug, Clone, Copy)]
struct Walk {
    extent: Extent,
    log: Option<Bounds>,
    /// What has to be there, as far as that can be known.
    range: Option<OffsetRange>,
}

impl Walk {
    fn new(extent: Extent, scope: Scope, logs: Option<&Logs>) -> Self {
        let log = logs.and_then(|logs| logs.of(extent.id));
        let stored = extent.stored;
        // Without a row, and if none was taken away, nobody but the log knows where the partition
        // began.
        let lowest = stored.map_or(extent.settled, OffsetRange::first);
        let lowest = extent.removed_from.map_or(lowest, |from| lowest.min(from));
        let first = log.map_or(lowest, |log| lowest.min(log.start));
        let end = stored.map_or(0, OffsetRange::end).max(extent.settled);
        Self {
            extent,
            log,
            range: OffsetRange::until(first.max(scope.from), end),
        }
    }

    async fn go(
        &self,
        auditor: &Auditor,
        scope: Scope,
        mut at: impl FnMut(u64),
    ) -> Result<Verdict, Error> {
        let Extent { id, settled, .. } = self.extent;
        let first = self.range.map_or(settled, OffsetRange::first);
        let mut verdict = Verdict::of(self.extent, first, self.log);
        verdict.dead_letters = auditor.letters(id).await?;
        if let Some(range) = self.range {
            verdict.end = range.end();
            let mut next = range.first();
            while let Some(part) = part(next, settled, range.end()) {
                at(next);
                let (mut counted, mut finding) = auditor.look(id, part, scope.named).await?;
                if finding.missing > 0 && part.end() > settled {
                    verdict.settled_offset = patient(auditor, id, part.end(), scope).await?;
                    (counted, finding) = auditor.look(id, part, scope.named).await?;
                    if finding.missing > 0 && verdict.settled_offset < part.end() {
                        verdict.unknown = Some(format!(
                            "{} of the offsets {part} are not there, but nothing says that they \
                             were written: the settled offset is {}; is the consumer running?",
                            finding.missing, verdict.settled_offset
                        ));
                        finding = Finding {
                            missing: 0,
                            missing_ranges: Vec::new(),
                            ..finding
                        };
                    }
                }
                verdict.rows = verdict.rows.saturating_add(counted.rows);
                verdict.removed = verdict.removed.saturating_add(counted.removed());
                verdict.finding.add(finding, scope.named);
                next = part.end();
            }
            at(next);
        }
        if let Some(log) = self.log.filter(|log| log.end < verdict.end) {
            verdict.unknown = Some(format!(
                "the log ends at {} already: the topic is not the one that is stored",
                log.end
            ));
        }
        verdict.outcome = if !verdict.finding.is_clean() {
            Outcome::Broken
        } else if verdict.unknown.is_some() {
            Outcome::Unknown
        } else {
            Outcome::Holds
        };
        Ok(verdict)
    }
}

/// What to look at next: not over the settled offset, which divides what is certain.
fn part(next: u64, settled: u64, end: u64) -> Option<OffsetRange> {
    let end = if next < settled {
        settled.min(end)
    } else {
        end
    };
    OffsetRange::until(next, end.min(next.saturating_add(STEP)))
}

/// Waits until everything below `end` is settled, as long as `scope` allows, and gives the
/// settled offset.
async fn patient(auditor: &Auditor, id: PartitionId, end: u64, scope: Scope) -> Result<u64, Error> {
    let since = Instant::now();
    loop {
        let settled = auditor.settled(id).await?;
        if settled >= end || since.elapsed() >= scope.patience {
            return Ok(settled);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: PartitionId = PartitionId {
        incarnation: 1,
        partition: 0,
    };

    const SCOPE: Scope = Scope {
        incarnation: None,
        partition: None,
        from: 0,
        named: 20,
        patience: Duration::ZERO,
    };

    fn walked(stored: Option<(u64, u64)>, settled: u64, log: Option<(u64, u64)>) -> Option<String> {
        walked_with(stored, None, settled, log)
    }

    fn walked_with(
        stored: Option<(u64, u64)>,
        removed_from: Option<u64>,
        settled: u64,
        log: Option<(u64, u64)>,
    ) -> Option<String> {
        let extent = Extent {
            id: ID,
            stored: stored.and_then(|(first, last)| OffsetRange::new(first, last)),
            removed_from,
            settled,
        };
        let logs = log.map(|(start, end)| Logs::new(1, vec![Bounds { start, end }]));
        let walk = Walk::new(extent, SCOPE, logs.as_ref());
        walk.range.map(|range| range.to_string())
    }

    #[test]
    fn what_is_settled_or_in_the_log_has_to_be_stored() {
        assert_eq!(walked(None, 0, None), None);
        assert_eq!(walked(Some((5, 9)), 0, None).unwrap(), "5-9");
        assert_eq!(walked(Some((5, 9)), 20, None).unwrap(), "5-19");
        assert_eq!(walked(Some((5, 9)), 10, Some((3, 50))).unwrap(), "3-9");
        assert_eq!(walked(Some((5, 9)), 10, Some((7, 50))).unwrap(), "5-9");
        assert_eq!(walked(None, 4, Some((1, 50))).unwrap(), "1-3");
        assert_eq!(walked(None, 4, Some((4, 50))), None);
    }

    #[test]
    fn what_retention_took_away_is_walked_over_as_well() {
        let walked = |stored, removed_from| walked_with(stored, removed_from, 20, None).unwrap();
        assert_eq!(walked(Some((5, 9)), Some(2)), "2-19");
        assert_eq!(walked(Some((5, 9)), Some(7)), "5-19");
        assert_eq!(walked(None, Some(3)), "3-19");
    }

    #[test]
    fn a_walk_stops_at_the_settled_offset() {
        let mut next = 0;
        let mut ends = Vec::new();
        while let Some(part) = part(next, STEP + 5, 2 * STEP) {
            next = part.end();
            ends.push(next);
        }
        assert_eq!(ends, [STEP, STEP + 5, 2 * STEP]);
    }
}
