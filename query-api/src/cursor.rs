//! A reader's place in a walk, sealed so that a client can keep it.
//!
//! A walk shows the events that were readable when it began. That set is exact, because it is
//! said in positions: per partition, the offset below which everything was readable. An event that
//! becomes readable later has a higher offset, whatever its time, so no page and no total of the
//! walk can change. [`Cursors`] turns a place and its set into text: versioned, signed with
//! HMAC-SHA256, bound to the filter it was made for and what its key reaches, and of a limited age.

mod bytes;

use std::time::Duration;

use audit_schema::Position;
use audit_schema::row::{EventRow, Millis};
use audit_service::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::filter::{Filter, Reach};
use bytes::{Kind, Sealed, Unread};

/// Bytes of the signature.
const SIGNATURE: usize = 32;

/// The events a walk is about: those below an offset of each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrozenSet {
    /// When it was frozen.
    pub(crate) frozen_at: Millis,
    /// Every event that Kafka took before this time is in it; `None` if nobody knows.
    pub(crate) complete_up_to: Option<Millis>,
    /// The first position of each partition that is not in it.
    pub(crate) ends: Vec<Position>,
}

impl FrozenSet {
    /// The first offset of a position's partition that is not in it.
    pub(crate) fn end_beside(&self, at: &Position) -> u64 {
        let same = |p: &&Position| (p.incarnation, p.partition) == (at.incarnation, at.partition);
        self.ends.iter().find(same).map_or(0, |end| end.offset)
    }

    /// Adds everything of the row's partition up to the row.
    pub(crate) fn pass(&mut self, row: &EventRow) {
        let last = Place::of(row).position;
        self.reach(Position {
            offset: last.offset.saturating_add(1),
            ..last
        });
    }

    /// Adds everything of `other`.
    pub(crate) fn widen(&mut self, other: &Self) {
        other.ends.iter().for_each(|end| self.reach(*end));
    }

    /// Adds everything of a partition below `end`.
    fn reach(&mut self, end: Position) {
        let same =
            |p: &&mut Position| (p.incarnation, p.partition) == (end.incarnation, end.partition);
        match self.ends.iter_mut().find(same) {
            Some(found) => found.offset = found.offset.max(end.offset),
            None => self.ends.push(end),
        }
    }
}

/// What all pages of a walk have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) set: FrozenSet,
    /// How many events it has, once that was counted to the end.
    pub(crate) total: Option<u64>,
}

/// Where one event stands among all others: by time, and no two at one place, even if they share
/// time and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) created_at: Millis,
    pub(crate) event_id: Uuid,
    pub(crate) position: Position,
}

impl Place {
    /// The place of a row.
    pub(crate) fn of(row: &EventRow) -> Self {
        Self {
            created_at: row.created_at,
            event_id: row.event_id,
            position: Position {
                incarnation: row.source_incarnation,
                partition: row.source_partition,
                offset: row.source_offset,
            },
        }
    }
}

/// Which way a page lies from its cursor's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Behind it, in the order of the walk.
    Onward,
    /// Before it.
    Back,
}

/// A place in a walk, and which way the next page lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) direction: Direction,
    /// The event next to the page; it is not in it.
    pub(crate) place: Place,
    /// How many events of the walk are before the page (onward) or before the place (back).
    pub(crate) offset: u64,
    pub(crate) walk: Walk,
}

/// Seals and opens the cursors of this service.
#[derive(Clone)]
pub(crate) struct Cursors {
    /// What they are signed with.
    key: Hmac<Sha256>,
    /// What they may be signed with as well.
    also_accepted: Option<Hmac<Sha256>>,
    max_age: Duration,
}

impl Cursors {
    /// Cursors signed with `secret`, good for `max_age` from the time their walk began.
    pub(crate) fn new(secret: &[u8], max_age: Duration) -> Self {
        Self {
            key: key_of(secret),
            also_accepted: None,
            max_age,
        }
    }

    /// The same, which also open what `secret` has signed: one secret follows another without a
    /// walk that ends early.
    pub(crate) fn also_accepting(mut self, secret: &[u8]) -> Self {
        self.also_accepted = Some(key_of(secret));
        self
    }

    /// The text of a cursor in a walk through `filter`.
    pub(crate) fn seal(&self, cursor: &Cursor, filter: &Filter) -> String {
        let kind = match cursor.direction {
            Direction::Onward => Kind::Onward,
            Direction::Back => Kind::Back,
        };
        let mut bytes = Sealed::new(kind, filter.hash(), &cursor.walk.set);
        bytes.put_millis(cursor.place.created_at);
        bytes.put_id(cursor.place.event_id);
        bytes.put_position(cursor.place.position);
        bytes.put(cursor.offset);
        let total = cursor.walk.total.map_or(0, |total| total.saturating_add(1));
        bytes.put(total);
        self.signed(bytes.into())
    }

    /// The cursor that was sealed for `filter`, unless it is too old at `now`.
    pub(crate) fn open(
        &self,
        text: &str,
        filter: &Filter,
        now: Millis,
    ) -> Result<Cursor, ApiError> {
        let opened = || {
            let bytes = self.verified(text)?;
            let mut bytes = Unread::of(&bytes);
            let (kind, set) = bytes.head(filter.hash())?;
            let direction = match kind {
                Kind::Onward => Direction::Onward,
                Kind::Back => Direction::Back,
                Kind::Set | Kind::Arrivals => return None,
            };
            let cursor = Cursor {
                direction,
                place: Place {
                    created_at: bytes.millis()?,
                    event_id: bytes.id()?,
                    position: bytes.position()?,
                },
                offset: bytes.number()?,
                walk: Walk {
                    total: bytes.number()?.checked_sub(1),
                    set,
                },
            };
            (bytes.is_empty() && self.is_young(&cursor.walk.set, now)).then_some(cursor)
        };
        opened().ok_or(ApiError::StaleCursor)
    }

    /// The text of a frozen set, good for every filter of what a key reaches.
    pub(crate) fn seal_set(&self, set: &FrozenSet, reach: &Reach) -> String {
        self.signed(Sealed::new(Kind::Set, of_reach(reach), set).into())
    }

    /// The frozen set that was sealed for `reach`, unless it is too old at `now`.
    pub(crate) fn open_set(
        &self,
        text: &str,
        reach: &Reach,
        now: Millis,
    ) -> Result<FrozenSet, ApiError> {
        self.open_kind(Kind::Set, text, of_reach(reach), now)
    }

    /// The text of how far a reader of arrivals has come in what matches the filter with this hash.
    pub(crate) fn seal_arrivals(&self, seen: &FrozenSet, filter: [u8; 32]) -> String {
        self.signed(Sealed::new(Kind::Arrivals, filter, seen).into())
    }

    /// How far a reader of arrivals has come, unless it left too long before `now`.
    pub(crate) fn open_arrivals(
        &self,
        text: &str,
        filter: [u8; 32],
        now: Millis,
    ) -> Result<FrozenSet, ApiError> {
        self.open_kind(Kind::Arrivals, text, filter, now)
    }

    fn open_kind(
        &self,
        wanted: Kind,
        text: &str,
        binding: [u8; 32],
        now: Millis,
    ) -> Result<FrozenSet, ApiError> {
        let opened = || {
            let bytes = self.verified(text)?;
            let mut bytes = Unread::of(&bytes);
            let (kind, set) = bytes.head(binding)?;
            (kind == wanted && bytes.is_empty() && self.is_young(&set, now)).then_some(set)
        };
        opened().ok_or(ApiError::StaleCursor)
    }

    fn is_young(&self, set: &FrozenSet, now: Millis) -> bool {
        let age = now.0.saturating_sub(set.frozen_at.0);
        i64::try_from(self.max_age.as_millis()).map_or(true, |max_age| age <= max_age)
    }

    fn signed(&self, mut bytes: Vec<u8>) -> String {
        let signature = self.key.clone().chain_update(&bytes);
        let signature: [u8; SIGNATURE] = signature.finalize().into_bytes().into();
        bytes.extend(signature);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn verified(&self, text: &str) -> Option<Vec<u8>> {
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let signature = bytes.split_off(bytes.len().checked_sub(SIGNATURE)?);
        let mut keys = [Some(&self.key), self.also_accepted.as_ref()]
            .into_iter()
            .flatten();
        let signed_with = |key: &Hmac<Sha256>| {
            let expected = key.clone().chain_update(&bytes);
            expected.verify_slice(&signature).is_ok()
        };
        keys.any(signed_with).then_some(bytes)
    }
}

fn key_of(secret: &[u8]) -> Hmac<Sha256> {
    // Hashed, a secret of any length fits into one block, as HMAC wants it.
    let mut block = [0; 64];
    for (place, byte) in block.iter_mut().zip(Sha256::digest(secret)) {
        *place = byte;
    }
    Hmac::new(&block.into())
}

/// What a frozen set is bound to: the filter that asks for all that a key reaches.
fn of_reach(reach: &Reach) -> [u8; 32] {
    Filter::new(reach.clone()).hash()
}

#[cfg(test)]
mod tests;
