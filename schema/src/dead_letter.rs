//! A record that cannot become an event: stored with its bytes and the reason, never dropped.

use clickhouse::error::Error;

use crate::Position;
use crate::native::{Block, put_text};
use crate::row::{Cell, Millis};

/// The table of dead letters.
pub const DEAD_LETTERS: &str = "audit_dead_letters";

/// Kind of a letter whose event was stored before, at a lower offset.
pub const DUPLICATE: &str = "duplicate";

/// Kind of a letter for offsets at which Kafka holds no record.
pub const ABSENT: &str = "absent";

/// Kind of a letter for offsets that a person gave up, because their records cannot be read.
pub const SKIPPED: &str = "skipped";

/// Kinds of a letter whose record is no event as it is: those of
/// [`DecodeError`](crate::wire::DecodeError).
pub const UNDECODABLE: [&str; 3] = ["malformed", "unsupported_version", "too_large"];

/// Every kind.
pub const KINDS: [&str; 6] = [
    "malformed",
    "unsupported_version",
    "too_large",
    DUPLICATE,
    ABSENT,
    SKIPPED,
];

/// One record that is not an event, or a run of offsets without a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its position; the first one, if it stands for a run.
    pub position: Position,
    /// The last offset it stands for; higher than its position's only for absent and skipped ones.
    pub last_offset: u64,
    /// What is wrong, in one word; one of [`KINDS`].
    pub kind: &'static str,
    /// What is wrong, in a sentence.
    pub reason: String,
    /// The record's key.
    pub key: Vec<u8>,
    /// The record's value.
    pub value: Vec<u8>,
    /// When Kafka took it.
    pub logged_at: Millis,
}

/// Dead letters as one block to insert, sent at `ingested_at`.
///
/// # Errors
/// If there are none.
pub fn block(letters: &[&DeadLetter], ingested_at: Millis) -> Result<Block<'static>, Error> {
    let mut block = Block::of(letters.len())?;
    let mut numbers = |name, number: fn(&DeadLetter) -> u64| {
        let values = letters.iter().flat_map(|l| number(l).to_le_bytes());
        block.column(name, u64::TYPE, values.collect());
    };
    numbers("source_offset", |l| l.position.offset);
    numbers("source_offset_last", |l| l.last_offset);
    let mut places = |name, number: fn(&DeadLetter) -> u32| {
        let values = letters.iter().flat_map(|l| number(l).to_le_bytes());
        block.column(name, u32::TYPE, values.collect());
    };
    places("source_incarnation", |l| l.position.incarnation);
    places("source_partition", |l| l.position.partition);
    // Keys and values are any bytes, which a String may hold.
    let mut texts = |name, text: fn(&DeadLetter) -> &[u8]| {
        let mut values = Vec::new();
        for letter in letters {
            put_text(&mut values, text(letter));
        }
        block.column(name, String::TYPE, values.into());
    };
    texts("kind", |l| l.kind.as_bytes());
    texts("reason", |l| l.reason.as_bytes());
    texts("record_key", |l| &l.key);
    texts("record_value", |l| &l.value);
    let logged_at = letters.iter().flat_map(|l| l.logged_at.0.to_le_bytes());
    block.column("logged_at", Millis::TYPE, logged_at.collect());
    let sent_at = ingested_at.0.to_le_bytes().repeat(letters.len());
    block.column("ingested_at", Millis::TYPE, sent_at.into());
    Ok(block)
}
