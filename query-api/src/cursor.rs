//! A reader's place in a walk, sealed so that a client can keep it.
//!
//! A walk shows the events that were readable when it began. That set is exact, because it is
//! said in positions: per partition, the offset below which everything was readable. An event that
//! becomes readable later has a higher offset, whatever its time, so no page and no total of the
//! walk can change. [`Cursors`] turns a place and its set into text: versioned, signed with
//! HMAC-SHA256, bound to the project and the filter it was made for, and of a limited age.

use std::time::Duration;

use audit_schema::row::{EventRow, Millis};
use audit_schema::{Position, ProjectId};
use audit_service::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::filter::Filter;

/// The layout of what is signed. Another layout is another number.
const VERSION: u8 = 1;

/// Bytes of the signature.
const SIGNATURE: usize = 32;

/// More partitions than this were never frozen.
const MAX_PARTITIONS: u64 = 65_536;

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

/// What all pages of a walk have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) set: FrozenSet,
    /// How many events it has, once that was counted to the end.
    pub(crate) total: Option<u64>,
}

/// Where one event stands among all others: newest first, and no two at one place, even if they
/// share time and id.
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
    /// Behind it: the older events.
    Older,
    /// Before it: the newer events.
    Newer,
}

/// A place in a walk, and which way the next page lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) direction: Direction,
    /// The event next to the page; it is not in it.
    pub(crate) place: Place,
    /// How many events of the walk are before the page (older) or before the place (newer).
    pub(crate) offset: u64,
    pub(crate) walk: Walk,
}

/// What a sealed text stands for; its second byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind(u8);

impl Kind {
    const OLDER: Self = Self(1);
    const NEWER: Self = Self(2);
    const SET: Self = Self(3);
}

/// Seals and opens the cursors of this service.
#[derive(Clone)]
pub(crate) struct Cursors {
    key: Hmac<Sha256>,
    max_age: Duration,
}

impl Cursors {
    /// Cursors signed with `secret`, good for `max_age` from the time their walk began.
    pub(crate) fn new(secret: &[u8], max_age: Duration) -> Self {
        // Hashed, a secret of any length fits into one block, as HMAC wants it.
        let mut block = [0; 64];
        for (place, byte) in block.iter_mut().zip(Sha256::digest(secret)) {
            *place = byte;
        }
        Self {
            key: Hmac::new(&block.into()),
            max_age,
        }
    }

    /// The text of a cursor in a walk through `filter`.
    pub(crate) fn seal(&self, cursor: &Cursor, filter: &Filter) -> String {
        let kind = match cursor.direction {
            Direction::Older => Kind::OLDER,
            Direction::Newer => Kind::NEWER,
        };
        let mut bytes = head(kind, filter.hash(), &cursor.walk.set);
        put(&mut bytes, unsigned(cursor.place.created_at));
        bytes.extend(cursor.place.event_id.as_bytes());
        put_position(&mut bytes, cursor.place.position);
        put(&mut bytes, cursor.offset);
        let total = cursor.walk.total.map_or(0, |total| total.saturating_add(1));
        put(&mut bytes, total);
        self.signed(bytes)
    }

    /// The cursor that was sealed for `filter`, unless it is too old at `now`.
    pub(crate) fn open(
        &self,
        text: &str,
        filter: &Filter,
        now: Millis,
    ) -> Result<Cursor, ApiError> {
        self.opened(text, filter.hash(), now)
            .ok_or(ApiError::StaleCursor)
    }

    /// The text of a frozen set, good for every filter of `project`.
    pub(crate) fn seal_set(&self, set: &FrozenSet, project: &ProjectId) -> String {
        self.signed(head(Kind::SET, of_project(project), set))
    }

    /// The frozen set that was sealed for `project`, unless it is too old at `now`.
    pub(crate) fn open_set(
        &self,
        text: &str,
        project: &ProjectId,
        now: Millis,
    ) -> Result<FrozenSet, ApiError> {
        let opened = || {
            let bytes = self.verified(text)?;
            let mut bytes = Unread(&bytes);
            let (kind, set) = bytes.head(of_project(project))?;
            (kind == Kind::SET && bytes.0.is_empty() && self.is_young(&set, now)).then_some(set)
        };
        opened().ok_or(ApiError::StaleCursor)
    }

    fn opened(&self, text: &str, binding: [u8; 32], now: Millis) -> Option<Cursor> {
        let bytes = self.verified(text)?;
        let mut bytes = Unread(&bytes);
        let (kind, set) = bytes.head(binding)?;
        let direction = match kind {
            Kind::OLDER => Direction::Older,
            Kind::NEWER => Direction::Newer,
            _ => return None,
        };
        let cursor = Cursor {
            direction,
            place: Place {
                created_at: bytes.millis()?,
                event_id: Uuid::from_bytes(bytes.array()?),
                position: bytes.position()?,
            },
            offset: bytes.number()?,
            walk: Walk {
                total: bytes.number()?.checked_sub(1),
                set,
            },
        };
        (bytes.0.is_empty() && self.is_young(&cursor.walk.set, now)).then_some(cursor)
    }

    fn is_young(&self, set: &FrozenSet, now: Millis) -> bool {
        let age = now.0.saturating_sub(set.frozen_at.0);
        i64::try_from(self.max_age.as_millis()).map_or(true, |max_age| age <= max_age)
    }

    fn signed(&self, mut bytes: Vec<u8>) -> String {
        let signature: [u8; SIGNATURE] = self.signature(&bytes).finalize().into_bytes().into();
        bytes.extend(signature);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn verified(&self, text: &str) -> Option<Vec<u8>> {
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let signature = bytes.split_off(bytes.len().checked_sub(SIGNATURE)?);
        self.signature(&bytes).verify_slice(&signature).ok()?;
        Some(bytes)
    }

    fn signature(&self, bytes: &[u8]) -> Hmac<Sha256> {
        self.key.clone().chain_update(bytes)
    }
}

/// What a frozen set is bound to: the filter that asks for all of the project.
fn of_project(project: &ProjectId) -> [u8; 32] {
    Filter::new(project.clone()).hash()
}

fn head(kind: Kind, binding: [u8; 32], set: &FrozenSet) -> Vec<u8> {
    let mut bytes = vec![VERSION, kind.0];
    bytes.extend(binding);
    put(&mut bytes, unsigned(set.frozen_at));
    let complete = set
        .complete_up_to
        .map_or(0, |time| unsigned(time).saturating_add(1));
    put(&mut bytes, complete);
    put(
        &mut bytes,
        u64::try_from(set.ends.len()).unwrap_or(u64::MAX),
    );
    for end in &set.ends {
        put_position(&mut bytes, *end);
    }
    bytes
}

/// Times before 1970 cannot be stored.
fn unsigned(time: Millis) -> u64 {
    u64::try_from(time.0).unwrap_or(0)
}

fn put_position(bytes: &mut Vec<u8>, position: Position) {
    put(bytes, position.incarnation.into());
    put(bytes, position.partition.into());
    put(bytes, position.offset);
}

/// Adds a number in LEB128: seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = (number & 0x7f).to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// What is left of the bytes of a cursor.
struct Unread<'a>(&'a [u8]);

impl Unread<'_> {
    fn head(&mut self, binding: [u8; 32]) -> Option<(Kind, FrozenSet)> {
        let [version, kind] = self.array()?;
        if version != VERSION || self.array()? != binding {
            return None;
        }
        let frozen_at = self.millis()?;
        let complete = self.number()?.checked_sub(1);
        let partitions = self.number()?;
        if partitions > MAX_PARTITIONS {
            return None;
        }
        let ends = (0..partitions)
            .map(|_| self.position())
            .collect::<Option<_>>()?;
        let complete_up_to = complete.map(i64::try_from).transpose().ok()?.map(Millis);
        let set = FrozenSet {
            frozen_at,
            complete_up_to,
            ends,
        };
        Some((Kind(kind), set))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position {
            incarnation: self.number()?.try_into().ok()?,
            partition: self.number()?.try_into().ok()?,
            offset: self.number()?,
        })
    }

    fn millis(&mut self) -> Option<Millis> {
        self.number()?.try_into().ok().map(Millis)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits.checked_shl(shift)?;
            if shifted >> shift != bits {
                return None;
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::USER_ID;
    use proptest::prelude::*;

    const NOW: Millis = Millis(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn cursors() -> Cursors {
        Cursors::new(b"secret", DAY)
    }

    fn filter(project: &str, user: &str) -> Filter {
        Filter::new(project.parse().unwrap())
            .with(&USER_ID, vec![user.into()])
            .unwrap()
    }

    fn position(incarnation: u32, partition: u32, offset: u64) -> Position {
        Position {
            incarnation,
            partition,
            offset,
        }
    }

    fn set(partitions: u32, offset: u64) -> FrozenSet {
        FrozenSet {
            frozen_at: NOW,
            complete_up_to: Some(Millis(NOW.0 - 1)),
            ends: (0..partitions).map(|p| position(1, p, offset)).collect(),
        }
    }

    fn cursor(set: FrozenSet) -> Cursor {
        Cursor {
            direction: Direction::Older,
            place: Place {
                created_at: Millis(NOW.0 - 5),
                event_id: Uuid::from_u128(7),
                position: position(1, 5, 9),
            },
            offset: 50,
            walk: Walk {
                set,
                total: Some(123),
            },
        }
    }

    fn is_stale<T>(opened: &Result<T, ApiError>) -> bool {
        matches!(opened, Err(ApiError::StaleCursor))
    }

    #[test]
    fn a_cursor_of_six_partitions_is_shorter_than_400_characters() {
        let mut longest = cursor(set(6, u64::MAX));
        longest.place.position = position(u32::MAX, u32::MAX, u64::MAX);
        longest.offset = u64::MAX;
        longest.walk.total = Some(u64::MAX - 1);
        for end in &mut longest.walk.set.ends {
            end.incarnation = u32::MAX;
        }
        let text = cursors().seal(&longest, &filter("acme", "u"));
        assert!(text.len() < 400, "{}", text.len());
    }

    #[test]
    fn a_cursor_of_another_filter_project_secret_or_age_is_stale() {
        let ours = filter("acme", "u");
        let text = cursors().seal(&cursor(set(6, 10)), &ours);
        assert!(cursors().open(&text, &ours, NOW).is_ok());
        assert!(is_stale(&cursors().open(&text, &filter("acme", "v"), NOW)));
        assert!(is_stale(&cursors().open(&text, &filter("other", "u"), NOW)));
        assert!(is_stale(&Cursors::new(b"?", DAY).open(&text, &ours, NOW)));
        let at = |age| cursors().open(&text, &ours, Millis(NOW.0 + age));
        assert!(at(86_400_000).is_ok());
        assert!(is_stale(&at(86_400_001)));
    }

    #[test]
    fn a_cursor_of_another_version_is_stale() {
        let ours = filter("acme", "u");
        let mut bytes = head(Kind::OLDER, ours.hash(), &set(1, 10));
        bytes[0] = VERSION + 1;
        let text = cursors().signed(bytes);
        assert!(is_stale(&cursors().open(&text, &ours, NOW)));
    }

    #[test]
    fn a_frozen_set_is_no_cursor_and_belongs_to_its_project() {
        let (ours, other) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let text = cursors().seal_set(&set(6, 10), &ours);
        assert_eq!(cursors().open_set(&text, &ours, NOW).unwrap(), set(6, 10));
        assert!(is_stale(&cursors().open_set(&text, &other, NOW)));
        let all = Filter::new(ours.clone());
        assert!(is_stale(&cursors().open(&text, &all, NOW)));
        let text = cursors().seal(&cursor(set(6, 10)), &all);
        assert!(is_stale(&cursors().open_set(&text, &ours, NOW)));
    }

    prop_compose! {
        fn any_position()(incarnation: u32, partition: u32, offset: u64) -> Position {
            position(incarnation, partition, offset)
        }
    }

    prop_compose! {
        fn any_cursor()(
            older: bool,
            created_at in 0_i64..10_413_791_999_999,
            id: u128,
            position in any_position(),
            offset: u64,
            total in prop::option::of(0..u64::MAX),
            complete in prop::option::of(0_i64..10_413_791_999_999),
            ends in prop::collection::vec(any_position(), 0..20),
        ) -> Cursor {
            Cursor {
                direction: if older { Direction::Older } else { Direction::Newer },
                place: Place {
                    created_at: Millis(created_at),
                    event_id: Uuid::from_u128(id),
                    position,
                },
                offset,
                walk: Walk {
                    set: FrozenSet {
                        frozen_at: NOW,
                        complete_up_to: complete.map(Millis),
                        ends,
                    },
                    total,
                },
            }
        }
    }

    proptest! {
        #[test]
        fn a_cursor_is_opened_as_it_was_sealed(sealed in any_cursor()) {
            let ours = filter("acme", "u");
            let text = cursors().seal(&sealed, &ours);
            prop_assert_eq!(cursors().open(&text, &ours, NOW).unwrap(), sealed);
        }

        #[test]
        fn a_changed_cursor_is_stale(sealed in any_cursor(), place: prop::sample::Index, bit in 0..8_u8) {
            let ours = filter("acme", "u");
            let text = cursors().seal(&sealed, &ours);
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            bytes[place.index(text.len() * 3 / 4)] ^= 1 << bit;
            let changed = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert!(is_stale(&cursors().open(&changed, &ours, NOW)));
            let cut = text.get(..place.index(text.len())).unwrap();
            prop_assert!(is_stale(&cursors().open(cut, &ours, NOW)));
        }

        #[test]
        fn no_text_is_a_panic(text in "[A-Za-z0-9_=-]{0,300}|.*", bytes: Vec<u8>) {
            let ours = filter("acme", "u");
            prop_assert!(is_stale(&cursors().open(&text, &ours, NOW)));
            // Behind a good signature, too.
            let mut signed = head(Kind::OLDER, ours.hash(), &set(0, 0));
            signed.extend(bytes);
            drop(cursors().open(&cursors().signed(signed), &ours, NOW));
        }
    }
}
