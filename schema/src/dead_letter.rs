//! A record that cannot become an event: stored with its bytes and the reason, never dropped.

use clickhouse::error::Error;
use clickhouse::native::builder::BlockBuilder;
use clickhouse::native::encode::{Encode, ValueWriter};
use clickhouse::native::{Block, DataTypeNode};

use crate::Position;
use crate::row::Millis;

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

/// Any bytes, in a `String` column.
struct Bytes<'a>(&'a [u8]);

impl Encode for Bytes<'_> {
    fn produces() -> DataTypeNode {
        DataTypeNode::String
    }

    fn encode(
        &self,
        writer: &mut ValueWriter<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(writer.write_string(self.0)?)
    }
}

/// Dead letters as one block to insert, sent at `ingested_at`.
///
/// # Errors
/// If there are none.
pub fn block(letters: &[&DeadLetter], ingested_at: Millis) -> Result<Block, Error> {
    let mut builder = BlockBuilder::new();
    column(
        &mut builder,
        "source_incarnation",
        letters.iter().map(|l| l.position.incarnation),
    )?;
    column(
        &mut builder,
        "source_partition",
        letters.iter().map(|l| l.position.partition),
    )?;
    column(
        &mut builder,
        "source_offset",
        letters.iter().map(|l| l.position.offset),
    )?;
    column(
        &mut builder,
        "source_offset_last",
        letters.iter().map(|l| l.last_offset),
    )?;
    column(&mut builder, "kind", letters.iter().map(|l| l.kind))?;
    column(
        &mut builder,
        "reason",
        letters.iter().map(|l| l.reason.as_str()),
    )?;
    column(
        &mut builder,
        "record_key",
        letters.iter().map(|l| Bytes(&l.key)),
    )?;
    column(
        &mut builder,
        "record_value",
        letters.iter().map(|l| Bytes(&l.value)),
    )?;
    column(
        &mut builder,
        "logged_at",
        letters.iter().map(|l| l.logged_at),
    )?;
    column(
        &mut builder,
        "ingested_at",
        letters.iter().map(|_| ingested_at),
    )?;
    builder.build().map_err(|error| Error::Other(error.into()))
}

fn column<T: Encode>(
    builder: &mut BlockBuilder,
    name: &str,
    values: impl Iterator<Item = T>,
) -> Result<(), Error> {
    builder
        .upsert_column::<T>(name)
        .map_err(|error| Error::Other(error.into()))?
        .add_all(values)
        .map_err(Error::Other)?;
    Ok(())
}
