//! A batch: the rows of one range of offsets, written by one insert.
//!
//! A batch grows by whole records in the order of their offsets; a gap is an error, so every
//! offset between its ends is in it, as an event or as a dead letter. It never crosses a month,
//! because an insert over two table partitions would be stored as two parts and could be stored
//! by half.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use audit_schema::dead_letter::{ABSENT, DEAD_LETTERS, DUPLICATE, DeadLetter, SKIPPED};
use audit_schema::row::{EVENTS, EventColumns, Millis};
use audit_schema::{OffsetRange, Position, wire};
use uuid::Uuid;

use crate::month;

/// One partition in one life of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// Which life of the topic; from 1.
    pub incarnation: u32,
    /// The partition; from 0.
    pub partition: u32,
}

impl PartitionId {
    fn position(self, offset: u64) -> Position {
        Position {
            incarnation: self.incarnation,
            partition: self.partition,
            offset,
        }
    }
}

/// One Kafka record, as it is read.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: u64,
    /// When Kafka took it.
    pub logged_at: Millis,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The version it says its value is of.
    pub version: Option<&'a [u8]>,
    /// Whether its event may be in the topic already.
    pub maybe_delivered: bool,
}

/// Which of the two tables a row goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Records that cannot become events; written first.
    DeadLetters,
    /// Events.
    Events,
}

impl Table {
    /// The name it is read by.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadLetters => DEAD_LETTERS,
            Self::Events => EVENTS,
        }
    }
}

/// Why a record cannot be the next one of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNext {
    /// Offsets before it are missing.
    #[error("offset {found} came where {expected} was expected")]
    Gap {
        /// The offset that has to come next.
        expected: u64,
        /// The offset that came.
        found: u64,
    },
    /// It was logged in another month: the batch has to be written first.
    #[error("the record was logged in another month")]
    OtherMonth,
}

/// An event that may be stored already.
#[derive(Debug)]
struct Suspect {
    row: usize,
    key: Vec<u8>,
    value: Vec<u8>,
    logged_at: Millis,
}

/// An event by its full primary key: a repeated report carries the same id and time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventKey {
    /// Whose it is.
    pub project: String,
    /// When it happened.
    pub created_at: Millis,
    /// Its id.
    pub id: Uuid,
}

/// The rows of one range.
#[derive(Debug)]
pub struct Batch {
    id: PartitionId,
    first: u64,
    next: u64,
    events: EventColumns,
    letters: Vec<DeadLetter>,
    suspects: Vec<Suspect>,
    /// Rows of `events` that turned out to be repeated; they are dead letters instead. Ascending.
    repeated: Vec<usize>,
    bytes: usize,
    last_logged_at: Option<Millis>,
    /// The month of all its records, known from the first.
    month: Option<Range<Millis>>,
    opened: Instant,
}

impl Batch {
    /// An empty batch whose first offset will be `first`.
    pub fn new(id: PartitionId, first: u64) -> Self {
        Self {
            id,
            first,
            next: first,
            events: EventColumns::default(),
            letters: Vec::new(),
            suspects: Vec::new(),
            repeated: Vec::new(),
            bytes: 0,
            last_logged_at: None,
            month: None,
            opened: Instant::now(),
        }
    }

    /// Takes the next record: as an event if it is one, as a dead letter otherwise.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), NotNext> {
        if record.offset != self.next {
            return Err(NotNext::Gap {
                expected: self.next,
                found: record.offset,
            });
        }
        if let Some(month) = &self.month
            && !month.contains(&record.logged_at)
        {
            return Err(NotNext::OtherMonth);
        }
        self.open();
        match wire::decode(record.value, record.version) {
            Ok(event) => {
                if record.maybe_delivered {
                    self.suspects.push(Suspect {
                        row: self.events.len(),
                        key: record.key.to_vec(),
                        value: record.value.to_vec(),
                        logged_at: record.logged_at,
                    });
                }
                self.events
                    .push(&event, self.id.position(record.offset), record.logged_at);
            }
            Err(error) => self.letters.push(DeadLetter {
                position: self.id.position(record.offset),
                last_offset: record.offset,
                kind: error.kind(),
                reason: error.to_string(),
                key: record.key.to_vec(),
                value: record.value.to_vec(),
                logged_at: record.logged_at,
            }),
        }
        self.bytes = self.bytes.saturating_add(record.value.len());
        self.last_logged_at = Some(record.logged_at);
        self.month
            .get_or_insert_with(|| month::around(record.logged_at));
        self.next = self.next.saturating_add(1);
        Ok(())
    }

    /// Takes offsets that Kafka holds no record for: a transaction marker, or a record that is
    /// gone. They become one dead letter, logged at `logged_at` if nothing else tells.
    pub fn push_absent(&mut self, absent: OffsetRange, logged_at: Millis) -> Result<(), NotNext> {
        let reason = "Kafka holds no record at this offset: a transaction marker, or a record gone";
        self.push_run(absent, (ABSENT, reason), logged_at)
    }

    /// Takes offsets that a person gave up at `logged_at`, and why. They become one dead letter.
    pub fn push_skipped(
        &mut self,
        skipped: OffsetRange,
        reason: &str,
        logged_at: Millis,
    ) -> Result<(), NotNext> {
        self.push_run(skipped, (SKIPPED, reason), logged_at)
    }

    fn push_run(
        &mut self,
        run: OffsetRange,
        (kind, reason): (&'static str, &str),
        logged_at: Millis,
    ) -> Result<(), NotNext> {
        if run.first() != self.next {
            return Err(NotNext::Gap {
                expected: self.next,
                found: run.first(),
            });
        }
        self.open();
        self.letters.push(DeadLetter {
            position: self.id.position(run.first()),
            last_offset: run.last(),
            kind,
            reason: reason.to_owned(),
            key: Vec::new(),
            value: Vec::new(),
            logged_at: self.last_logged_at.unwrap_or(logged_at),
        });
        let logged_at = *self.last_logged_at.get_or_insert(logged_at);
        self.month.get_or_insert_with(|| month::around(logged_at));
        self.next = run.end();
        Ok(())
    }

    /// The age of a batch counts from its first record.
    fn open(&mut self) {
        if self.next == self.first {
            self.opened = Instant::now();
        }
    }

    /// The partition it belongs to.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The offsets it covers; `None` while it is empty.
    pub fn range(&self) -> Option<OffsetRange> {
        OffsetRange::until(self.first, self.next)
    }

    /// The offset that has to come next.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// How many bytes of records it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many rows it holds.
    pub fn rows(&self) -> usize {
        self.events.len().saturating_add(self.letters.len())
    }

    /// When its first record came.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// The events as columns.
    pub fn events(&self) -> &EventColumns {
        &self.events
    }

    /// The dead letters.
    pub fn letters(&self) -> &[DeadLetter] {
        &self.letters
    }

    /// The rows of one table that this batch writes.
    pub fn rows_of(&self, table: Table) -> Vec<usize> {
        match table {
            Table::DeadLetters => (0..self.letters.len()).collect(),
            Table::Events => (0..self.events.len())
                .filter(|row| self.repeated.binary_search(row).is_err())
                .collect(),
        }
    }

    /// The first offset a row stands for.
    pub fn offset(&self, table: Table, row: usize) -> Option<u64> {
        match table {
            Table::DeadLetters => self.letters.get(row).map(|letter| letter.position.offset),
            Table::Events => self.events.offsets().get(row).copied(),
        }
    }

    /// Whether an event of it may be stored already.
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// The keys of the events that may be stored already.
    pub fn suspects(&self) -> Vec<EventKey> {
        let mut suspects = self.suspects.iter().map(|suspect| suspect.row).peekable();
        (0..)
            .zip(self.keys())
            .filter(|(row, _)| suspects.next_if_eq(row).is_some())
            .map(|(_, key)| key)
            .collect()
    }

    fn keys(&self) -> impl Iterator<Item = EventKey> {
        let keys = self.events.primary_keys();
        keys.map(|(project, created_at, id)| EventKey {
            project: project.to_owned(),
            created_at,
            id,
        })
    }

    /// Makes dead letters of the events that are repeated: those that `stored` gives the offset
    /// of a stored first copy for, and those whose first copy is earlier in this batch.
    pub fn resolve_suspects(&mut self, stored: &HashMap<EventKey, u64>) {
        let mut seen: HashMap<EventKey, u64> = HashMap::new();
        for (key, offset) in self.keys().zip(self.events.offsets()) {
            seen.entry(key).or_insert(*offset);
        }
        let keys = self.suspects();
        for (suspect, key) in std::mem::take(&mut self.suspects).into_iter().zip(keys) {
            let Some(offset) = self.offset(Table::Events, suspect.row) else {
                continue;
            };
            let earlier = seen.get(&key).filter(|first| **first < offset);
            let Some(first) = stored.get(&key).or(earlier) else {
                continue;
            };
            self.letters.push(DeadLetter {
                position: self.id.position(offset),
                last_offset: offset,
                kind: DUPLICATE,
                reason: format!(
                    "event {} is stored at incarnation {}, partition {}, offset {first}",
                    key.id, self.id.incarnation, self.id.partition
                ),
                key: suspect.key,
                value: suspect.value,
                logged_at: suspect.logged_at,
            });
            self.repeated.push(suspect.row);
        }
        self.repeated.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_schema::{Event, EventType};
    use chrono::{DateTime, Utc};

    const ID: PartitionId = PartitionId {
        incarnation: 1,
        partition: 0,
    };

    fn value(id: Option<&str>) -> Vec<u8> {
        let builder = Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN);
        let builder = match id {
            Some(id) => builder.id(id.parse().unwrap()),
            None => builder,
        };
        wire::encode(&builder.build().unwrap()).unwrap()
    }

    fn record(offset: u64, value: &[u8]) -> Record<'_> {
        Record {
            offset,
            logged_at: Millis(1_700_000_000_000),
            key: b"k",
            value,
            version: None,
            maybe_delivered: false,
        }
    }

    #[test]
    fn a_gap_is_an_error() {
        let mut batch = Batch::new(ID, 5);
        let value = value(None);
        batch.push(&record(5, &value)).unwrap();
        assert_eq!(
            batch.push(&record(7, &value)),
            Err(NotNext::Gap {
                expected: 6,
                found: 7
            })
        );
        assert_eq!(batch.range(), OffsetRange::new(5, 5));
    }

    #[test]
    fn a_record_that_is_no_event_keeps_its_bytes() {
        let mut batch = Batch::new(ID, 0);
        batch.push(&record(0, b"\x00garbage\xff")).unwrap();
        batch.push(&record(1, b"")).unwrap();
        assert_eq!(batch.rows_of(Table::Events).len(), 0);
        assert_eq!(batch.letters()[0].value, b"\x00garbage\xff");
        assert_eq!(batch.letters()[1].kind, "malformed");
    }

    #[test]
    fn a_batch_ends_with_the_month() {
        let mut batch = Batch::new(ID, 0);
        let value = value(None);
        let at = |offset, time: &str| Record {
            logged_at: time.parse::<DateTime<Utc>>().unwrap().into(),
            ..record(offset, &value)
        };
        batch.push(&at(0, "2026-01-31T23:59:59.999Z")).unwrap();
        batch.push(&at(1, "2026-01-01T00:00:00Z")).unwrap();
        for other in ["2026-02-01T00:00:00Z", "2025-12-31T23:59:59.999Z"] {
            assert_eq!(batch.push(&at(2, other)), Err(NotNext::OtherMonth));
        }
    }

    #[test]
    fn absent_offsets_are_one_dead_letter() {
        let mut batch = Batch::new(ID, 3);
        batch
            .push_absent(OffsetRange::new(3, 9).unwrap(), Millis(1))
            .unwrap();
        assert_eq!(batch.range(), OffsetRange::new(3, 9));
        let letter = &batch.letters()[0];
        let offsets = OffsetRange::new(letter.position.offset, letter.last_offset);
        assert_eq!(offsets, OffsetRange::new(3, 9));
    }

    #[test]
    fn a_repeated_event_is_a_dead_letter_that_names_the_first() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let value = value(Some(id));
        let mut batch = Batch::new(ID, 0);
        let again = |offset| Record {
            maybe_delivered: true,
            ..record(offset, &value)
        };
        batch.push(&again(0)).unwrap();
        batch.push(&again(1)).unwrap();
        batch.resolve_suspects(&HashMap::new());
        assert_eq!(batch.rows_of(Table::Events), [0]);
        assert_eq!(batch.letters()[0].kind, "duplicate");
        assert!(batch.letters()[0].reason.contains("offset 0"));

        let mut batch = Batch::new(ID, 7);
        batch.push(&again(7)).unwrap();
        let stored = batch.suspects().into_iter().map(|key| (key, 2)).collect();
        batch.resolve_suspects(&stored);
        assert!(batch.rows_of(Table::Events).is_empty());
        assert!(batch.letters()[0].reason.contains("offset 2"));
    }

    #[test]
    fn only_an_event_that_may_be_repeated_is_held_against_others() {
        let value = value(Some("01890a5d-ac96-774b-bcce-b302099a8057"));
        let mut batch = Batch::new(ID, 0);
        batch.push(&record(0, &value)).unwrap();
        batch.push(&record(1, &value)).unwrap();
        assert!(!batch.has_suspects());
        assert_eq!(batch.rows_of(Table::Events), [0, 1]);
    }
}
