//! What is signed of a cursor, byte for byte: version, kind, what it is bound to, the frozen set,
//! and for a place in a walk what follows it. Numbers are written in LEB128: seven bits a byte, the
//! lowest first.

use audit_schema::Position;
use audit_schema::row::Millis;
use uuid::Uuid;

use super::FrozenSet;

/// The layout of what is signed. Another layout is another number.
pub(super) const VERSION: u8 = 2;

/// More partitions than this were never frozen.
const MAX_PARTITIONS: u64 = 65_536;

/// What a sealed text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A page behind a place.
    Onward,
    /// A page before a place.
    Back,
    /// A frozen set.
    Set,
    /// How far a reader of arrivals has come.
    Arrivals,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Onward => 1,
            Self::Back => 2,
            Self::Set => 3,
            Self::Arrivals => 4,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        let all = [Self::Onward, Self::Back, Self::Set, Self::Arrivals];
        all.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// The bytes of a cursor, as they are written.
pub(super) struct Sealed(Vec<u8>);

impl Sealed {
    pub(super) fn new(kind: Kind, binding: [u8; 32], set: &FrozenSet) -> Self {
        let mut bytes = Self(vec![VERSION, kind.byte()]);
        bytes.0.extend(binding);
        bytes.put_millis(set.frozen_at);
        let complete = set.complete_up_to.map(unsigned);
        bytes.put(complete.map_or(0, |time| time.saturating_add(1)));
        bytes.put(u64::try_from(set.ends.len()).unwrap_or(u64::MAX));
        for end in &set.ends {
            bytes.put_position(*end);
        }
        bytes
    }

    pub(super) fn put_millis(&mut self, time: Millis) {
        self.put(unsigned(time));
    }

    pub(super) fn put_id(&mut self, id: Uuid) {
        self.0.extend(id.as_bytes());
    }

    pub(super) fn put_position(&mut self, position: Position) {
        self.put(position.incarnation.into());
        self.put(position.partition.into());
        self.put(position.offset);
    }

    pub(super) fn put(&mut self, mut number: u64) {
        loop {
            let [low, ..] = (number & 0x7f).to_le_bytes();
            number >>= 7;
            if number == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }
}

impl From<Sealed> for Vec<u8> {
    fn from(sealed: Sealed) -> Self {
        sealed.0
    }
}

/// Times before 1970 cannot be stored.
fn unsigned(time: Millis) -> u64 {
    u64::try_from(time.0).unwrap_or(0)
}

/// What is left of the bytes of a cursor.
pub(super) struct Unread<'a>(&'a [u8]);

impl<'a> Unread<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kind and the set, if they are bound to `binding`.
    pub(super) fn head(&mut self, binding: [u8; 32]) -> Option<(Kind, FrozenSet)> {
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
        Some((Kind::of(kind)?, set))
    }

    pub(super) fn id(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    pub(super) fn position(&mut self) -> Option<Position> {
        Some(Position {
            incarnation: self.number()?.try_into().ok()?,
            partition: self.number()?.try_into().ok()?,
            offset: self.number()?,
        })
    }

    pub(super) fn millis(&mut self) -> Option<Millis> {
        self.number()?.try_into().ok().map(Millis)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
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

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }
}
