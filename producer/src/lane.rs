//! The one lane that all events of a producer travel in, and its order.
//!
//! A lane is a window in memory, and behind it, while there is more than memory holds, a part
//! that is on disk alone. Events enter at the end, go to Kafka from the front, and leave when
//! Kafka confirmed them. Three rules keep order and durability, whatever happens when:
//!
//! - **Nothing overtakes.** While events wait on disk alone, new ones go behind them, to disk.
//! - **The spool is in the order of publication.** Before an event is written, everything before
//!   it that Kafka did not confirm is written, so that the next process sends it first.
//! - **What may have been sent is sent again flagged,** by this process or by the next.
//!
//! The lane knows neither Kafka nor time: it is told what was sent, confirmed and lost, and when
//! it is. So its tests can let it die anywhere.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_schema::TraceParent;
use tokio::sync::oneshot;

use crate::durability::Durability;
use crate::error::Refused;
use crate::occupancy::Occupancy;
use crate::receipt::{Answer, Published, Stored};
use crate::spool::{Kept, Spool};

/// Most places in the window. A place whose event is confirmed stays until all before it are, so
/// one partition without a leader lets them grow in number; each is 32 bytes.
const MAX_PLACES: usize = 1 << 20;

/// What an event costs beside its record, in bytes.
const OVERHEAD: usize = 256;

/// How long the spool is left alone after it could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// What Kafka gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) maybe_delivered: bool,
    /// The trace it is reported in; the spool does not keep it.
    pub(crate) trace_parent: Option<TraceParent>,
}

impl Record {
    /// What it counts against the limit of bytes.
    pub(crate) fn cost(&self) -> usize {
        let record = self.key.len().saturating_add(self.value.len());
        record.saturating_add(OVERHEAD)
    }
}

/// An event that is not yet confirmed.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) record: Record,
    pub(crate) durability: Durability,
    pub(crate) published: Instant,
    /// `None` once the receipt is resolved.
    pub(crate) answer: Option<oneshot::Sender<Answer>>,
}

impl Pending {
    pub(crate) fn resolve(&mut self, answer: Answer) {
        if let Some(receipt) = self.answer.take() {
            // Nobody may be waiting.
            receipt.send(answer).ok();
        }
    }
}

/// A place in the window.
#[derive(Debug)]
struct Place {
    /// `None` once Kafka confirmed the event.
    pending: Option<Box<Pending>>,
    /// Where it is in the spool.
    sequence: Option<u64>,
}

/// See the [module](self).
pub(crate) struct Lane {
    window: VecDeque<Place>,
    /// The number of the window's first place; numbers go up by one, for ever.
    first: u64,
    /// The first place that Kafka's client does not have.
    unsent: u64,
    /// The first place that was not considered for the spool.
    unspooled: u64,
    spool: Option<Spooling>,
    occupancy: Arc<Occupancy>,
    /// Events that were dropped since somebody last looked, and why.
    lost: Vec<(Box<Pending>, Refused)>,
}

/// The spool, and what is on its way into it.
struct Spooling {
    spool: Spool,
    after: Duration,
    /// Events that are to be on disk alone, until the next commit.
    writing: Vec<Pending>,
    /// Where `unspooled` was at the last commit.
    committed: u64,
    must_sync: bool,
    appended: bool,
    /// Whether the last entry had no room.
    is_full: bool,
    /// When it may be written again, after it could not be.
    closed_until: Option<Instant>,
    /// Everything below this sequence is confirmed.
    confirmed: Option<u64>,
}

/// What the lane says of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnDisk {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) corrupt_regions: u64,
    pub(crate) corrupt_entries: u64,
    pub(crate) oldest_ms: Option<u64>,
}

impl Lane {
    /// An empty lane, or one with what an earlier process left in the spool, which events go to
    /// that Kafka does not take for so long.
    pub(crate) fn new(spool: Option<(Spool, Duration)>, occupancy: Arc<Occupancy>) -> Self {
        if let Some((spool, _)) = &spool {
            occupancy.spool_has(spool.entries(), spool.has_unread());
        }
        Self {
            window: VecDeque::new(),
            first: 0,
            unsent: 0,
            unspooled: 0,
            spool: spool.map(|(spool, after)| Spooling {
                spool,
                after,
                writing: Vec::new(),
                committed: 0,
                must_sync: false,
                appended: false,
                is_full: false,
                closed_until: None,
                confirmed: None,
            }),
            occupancy,
            lost: Vec::new(),
        }
    }

    /// Takes an event that was counted in; it is answered for at the next
    /// [`commit`](Self::commit) at the earliest.
    pub(crate) fn accept(&mut self, pending: Box<Pending>, now: Instant) {
        let no_place = self.window.len() >= MAX_PLACES;
        let crowded = no_place || self.occupancy.is_used(3);
        let all_on_disk = (crowded || self.has_unread()) && self.spool_window(now);
        if !no_place && !all_on_disk && !self.has_unread() {
            self.window.push_back(Place {
                pending: Some(pending),
                sequence: None,
            });
            return;
        }
        let may_go_to_disk = all_on_disk && pending.durability != Durability::BestEffort;
        let Some(spooling) = &mut self.spool else {
            return self.refuse(pending, Refused::BufferFull);
        };
        if may_go_to_disk && spooling.append(&pending, Kept::OnDisk).is_some() {
            spooling.writing.push(*pending);
            // Before it is counted out of memory, so that it is never nowhere.
            self.occupancy.spool_has(spooling.spool.entries(), true);
        } else {
            self.refuse(pending, Refused::SpoolFull);
        }
    }

    fn refuse(&mut self, mut pending: Box<Pending>, reason: Refused) {
        self.occupancy.leave(pending.record.cost());
        pending.resolve(Err(reason.clone()));
        self.lost.push((pending, reason));
    }

    /// Does what time asks for: events that Kafka did not take in time go to the spool, and while
    /// there are such, all others too.
    pub(crate) fn tick(&mut self, now: Instant) {
        let Some(spooling) = &self.spool else { return };
        let oldest = self
            .oldest()
            .map(|since| now.saturating_duration_since(since));
        if oldest.is_some_and(|age| age >= spooling.after) || spooling.spool.has_unread() {
            self.spool_window(now);
        }
    }

    /// Appends everything in the window that is not in the spool. Gives whether the spool has all
    /// of it.
    fn spool_window(&mut self, now: Instant) -> bool {
        let Some(spooling) = &mut self.spool else {
            return false;
        };
        if spooling.closed_until.is_some_and(|until| now < until) {
            return false;
        }
        let skip = usize::try_from(self.unspooled.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for place in self.window.iter_mut().skip(skip) {
            if let Some(pending) = &place.pending
                && pending.durability != Durability::BestEffort
                && place.sequence.is_none()
            {
                let Some(sequence) = spooling.append(pending, Kept::InMemory) else {
                    return false;
                };
                place.sequence = Some(sequence);
            }
            self.unspooled = self.unspooled.max(self.first).saturating_add(1);
        }
        true
    }

    /// Writes what was appended, and answers for it. Gives whether there was anything. After an
    /// error nothing of it is in the spool, and the spool is left alone for a second.
    pub(crate) fn commit(&mut self, now: Instant) -> io::Result<bool> {
        let Some(spooling) = &mut self.spool else {
            return Ok(false);
        };
        if !spooling.appended {
            return spooling.spool.tick().map(|()| false);
        }
        let from = spooling.committed.max(self.first);
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let written = spooling.spool.commit(spooling.must_sync);
        spooling.appended = false;
        spooling.must_sync = false;
        let writing = std::mem::take(&mut spooling.writing);
        if written.is_ok() {
            spooling.committed = self.unspooled;
            for pending in self.window.iter_mut().skip(skip) {
                if let (Some(pending), Some(_)) = (&mut pending.pending, pending.sequence) {
                    pending.resolve(Ok(Published::Spooled));
                }
            }
            for mut pending in writing {
                self.occupancy.leave(pending.record.cost());
                pending.resolve(Ok(Published::Spooled));
            }
        } else {
            spooling.closed_until = now.checked_add(WRITE_AGAIN);
            spooling.is_full = true;
            self.unspooled = from;
            for place in self.window.iter_mut().skip(skip) {
                place.sequence = None;
            }
            for pending in writing {
                self.refuse(Box::new(pending), Refused::SpoolFull);
            }
        }
        self.note_occupancy();
        written.map(|()| true)
    }

    /// Tells the handles of the lane what they cannot count themselves.
    fn note_occupancy(&self) {
        let Some(spooling) = &self.spool else { return };
        let spool = &spooling.spool;
        self.occupancy.spool_has(spool.entries(), self.has_unread());
        let refuses = spooling.is_full && (self.has_unread() || self.occupancy.is_used(4));
        self.occupancy.spool_refuses(refuses);
    }

    /// Reads one event back from disk, if there is one and memory has room.
    pub(crate) fn read_back(&mut self, now: Instant) -> io::Result<bool> {
        let Some(spooling) = &mut self.spool else {
            return Ok(false);
        };
        let crowded = self.occupancy.is_used(2) || self.window.len() >= MAX_PLACES;
        if crowded || spooling.appended {
            return Ok(false);
        }
        let Some(entry) = spooling.spool.next()? else {
            return Ok(false);
        };
        let record = Record {
            key: entry.key,
            value: entry.value,
            maybe_delivered: entry.maybe_delivered,
            trace_parent: None,
        };
        self.occupancy.enter_anyway(record.cost());
        self.window.push_back(Place {
            pending: Some(Box::new(Pending {
                record,
                durability: Durability::Spool,
                published: now,
                answer: None,
            })),
            sequence: Some(entry.sequence),
        });
        let end = self.end();
        self.unspooled = end;
        if let Some(spooling) = &mut self.spool {
            spooling.committed = end;
        }
        self.note_occupancy();
        Ok(true)
    }

    /// The next event for Kafka's client, and its number.
    pub(crate) fn next_unsent(&mut self) -> Option<(u64, &Record)> {
        loop {
            let index = usize::try_from(self.unsent.checked_sub(self.first)?).ok()?;
            if self.window.get(index)?.pending.is_some() {
                let pending = self.window.get(index)?.pending.as_ref()?;
                return Some((self.unsent, &pending.record));
            }
            self.unsent = self.unsent.saturating_add(1);
        }
    }

    /// Kafka's client has the event that [`next_unsent`](Self::next_unsent) gave.
    pub(crate) fn sent(&mut self) {
        self.unsent = self.unsent.saturating_add(1);
    }

    /// Kafka's client has nothing any more: all that is not confirmed is sent again, flagged.
    pub(crate) fn rewind(&mut self) {
        let sent = usize::try_from(self.unsent.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for place in self.window.iter_mut().take(sent) {
            if let Some(pending) = &mut place.pending {
                pending.record.maybe_delivered = true;
            }
        }
        self.unsent = self.first;
    }

    /// Kafka has this event. Gives when it was published, if it was not known to be confirmed.
    pub(crate) fn confirmed(&mut self, number: u64, stored: Stored) -> Option<Instant> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let mut pending = self.window.get_mut(index)?.pending.take()?;
        self.occupancy.leave(pending.record.cost());
        pending.resolve(Ok(Published::Stored(stored)));
        while let Some(place) = self.window.front()
            && place.pending.is_none()
        {
            if let (Some(spooling), Some(sequence)) = (&mut self.spool, place.sequence) {
                spooling.confirmed = sequence.checked_add(1);
            }
            self.window.pop_front();
            self.first = self.first.saturating_add(1);
        }
        self.unsent = self.unsent.max(self.first);
        self.unspooled = self.unspooled.max(self.first);
        Some(pending.published)
    }

    /// Notes on disk what is confirmed.
    pub(crate) fn note_confirmed(&mut self) -> io::Result<()> {
        let Some(spooling) = &mut self.spool else {
            return Ok(());
        };
        let Some(below) = spooling.confirmed.take() else {
            return Ok(());
        };
        let noted = spooling.spool.confirm(below);
        self.note_occupancy();
        noted
    }

    /// Ends the lane: what is in memory goes to the spool, synced, or is given up. Gives how many
    /// events are left in the spool, and what was given up.
    pub(crate) fn close(mut self, now: Instant) -> (u64, Vec<(Box<Pending>, Refused)>) {
        if let Some(spooling) = &mut self.spool {
            spooling.closed_until = None;
            spooling.must_sync = true;
        }
        self.spool_window(now);
        let written = self.commit(now).and_then(|_| self.note_confirmed());
        if let Err(error) = written {
            tracing::error!(%error, "the spool cannot be written");
        }
        let mut given_up = Vec::new();
        for place in self.window {
            if let (Some(mut pending), None) = (place.pending, place.sequence) {
                pending.resolve(Err(Refused::GivenUp));
                given_up.push((pending, Refused::GivenUp));
            }
        }
        let left = self.spool.map_or(0, |spooling| spooling.spool.entries());
        (left, given_up)
    }

    /// Events dropped since the last call.
    pub(crate) fn take_lost(&mut self) -> Vec<(Box<Pending>, Refused)> {
        std::mem::take(&mut self.lost)
    }

    /// When the oldest event in memory that Kafka does not have was published.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        Some(self.window.front()?.pending.as_ref()?.published)
    }

    /// Whether events wait on disk alone.
    pub(crate) fn has_unread(&self) -> bool {
        let unread =
            |spooling: &Spooling| spooling.spool.has_unread() || !spooling.writing.is_empty();
        self.spool.as_ref().is_some_and(unread)
    }

    /// Whether Kafka's client has events that are not confirmed.
    pub(crate) fn has_sent(&self) -> bool {
        self.unsent > self.first
    }

    /// Whether nothing waits, in memory or on disk.
    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty() && !self.has_unread()
    }

    pub(crate) fn on_disk(&self) -> Option<OnDisk> {
        let spool = &self.spool.as_ref()?.spool;
        Some(OnDisk {
            entries: spool.entries(),
            bytes: spool.bytes(),
            corrupt_regions: spool.corrupt(),
            corrupt_entries: spool.corrupt_entries(),
            oldest_ms: spool.oldest_ms(),
        })
    }

    fn end(&self) -> u64 {
        let len = u64::try_from(self.window.len()).unwrap_or(u64::MAX);
        self.first.saturating_add(len)
    }
}

impl Spooling {
    fn append(&mut self, pending: &Pending, kept: Kept) -> Option<u64> {
        let Record {
            key,
            value,
            maybe_delivered,
            trace_parent: _,
        } = &pending.record;
        let appended = self.spool.append(kept, *maybe_delivered, key, value);
        self.is_full = appended.is_err();
        let sequence = appended.ok()?;
        self.appended = true;
        self.must_sync |= pending.durability == Durability::Require;
        Some(sequence)
    }
}
