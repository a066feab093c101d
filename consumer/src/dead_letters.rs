//! Dead letters as a person looks at them: chosen by kind and position, page by page.

use std::fmt;

use audit_schema::dead_letter::{DEAD_LETTERS, KINDS};
use audit_schema::row::Millis;
use audit_schema::{OffsetRange, Position};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use clap::builder::PossibleValuesParser;
use clickhouse::{Client, Row};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::ReadError;

/// How many letters are read together; each may have a value of 1 MiB.
const PAGE: u64 = 100;

/// Which letters.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Only letters of this kind.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    pub kind: Option<String>,
    /// Only letters of this life of the topic.
    #[arg(long)]
    pub incarnation: Option<u32>,
    /// Only letters of this partition.
    #[arg(long)]
    pub partition: Option<u32>,
    /// Only letters at this offset and above.
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// Only letters below this offset.
    #[arg(long, value_name = "OFFSET")]
    pub to: Option<u64>,
    /// At most so many letters, in the order of their positions.
    #[arg(long)]
    pub limit: Option<u64>,
}

/// How to list them.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Which.
    #[command(flatten)]
    pub selection: Selection,
    /// Also print the record's bytes. They may name people.
    #[arg(long)]
    pub bytes: bool,
    /// Print one JSON document per line; with --bytes they are what `replay --repaired` reads.
    #[arg(long)]
    pub json: bool,
}

/// One letter as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its position; the first one, if it stands for a run.
    pub position: Position,
    /// The last offset it stands for.
    pub last_offset: u64,
    /// Its kind.
    pub kind: String,
    /// What is wrong with the record.
    pub reason: String,
    /// When Kafka took the record.
    pub logged_at: Millis,
    /// The record's key.
    pub key: Vec<u8>,
    /// How many bytes its value has.
    pub bytes: u64,
    /// Its value, if it was asked for.
    pub value: Option<Vec<u8>>,
}

impl Serialize for Letter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("incarnation", &self.position.incarnation)?;
        map.serialize_entry("partition", &self.position.partition)?;
        map.serialize_entry("offset", &self.position.offset)?;
        map.serialize_entry("lastOffset", &self.last_offset)?;
        map.serialize_entry("kind", &self.kind)?;
        map.serialize_entry("reason", &self.reason)?;
        map.serialize_entry("loggedAt", &time(self.logged_at))?;
        map.serialize_entry("bytes", &self.bytes)?;
        if let Some(value) = &self.value {
            let shown = [
                ("key", "keyBase64", &self.key),
                ("value", "valueBase64", value),
            ];
            for (as_text, as_base64, bytes) in shown {
                match std::str::from_utf8(bytes) {
                    Ok(text) => map.serialize_entry(as_text, text)?,
                    Err(_) => map.serialize_entry(as_base64, &STANDARD.encode(bytes))?,
                }
            }
        }
        map.end()
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position {
            incarnation,
            partition,
            offset,
        } = self.position;
        write!(
            f,
            "incarnation {incarnation} partition {partition} offset {offset}"
        )?;
        if self.last_offset > offset {
            write!(f, " to {}", self.last_offset)?;
        }
        let (kind, at, bytes) = (&self.kind, time(self.logged_at), self.bytes);
        write!(f, ": {kind}, {at}, {bytes} bytes: {}", self.reason)?;
        if let Some(value) = &self.value {
            let (key, value) = (
                String::from_utf8_lossy(&self.key),
                String::from_utf8_lossy(value),
            );
            write!(f, "\n  key   {key:?}\n  value {value:?}")?;
        }
        Ok(())
    }
}

/// A time as people and machines read it: RFC 3339.
pub(crate) fn time(time: Millis) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[derive(Debug, Row, Deserialize)]
struct LetterRow {
    incarnation: u32,
    partition: u32,
    offset: u64,
    last_offset: u64,
    kind: String,
    reason: String,
    logged_at: i64,
    key: String,
    bytes: u64,
    value: String,
}

impl LetterRow {
    fn letter(self, with_bytes: bool) -> Letter {
        // ClickHouse encoded them.
        let bytes = |text: &str| STANDARD.decode(text).unwrap_or_default();
        Letter {
            position: Position {
                incarnation: self.incarnation,
                partition: self.partition,
                offset: self.offset,
            },
            last_offset: self.last_offset,
            kind: self.kind,
            reason: self.reason,
            logged_at: Millis(self.logged_at),
            key: bytes(&self.key),
            bytes: self.bytes,
            value: with_bytes.then(|| bytes(&self.value)),
        }
    }
}

/// Reads letters page by page, in the order of their positions.
#[derive(Debug)]
pub struct Letters<'a> {
    client: &'a Client,
    selection: Selection,
    kinds: &'a [&'a str],
    with_bytes: bool,
    /// Only letters whose bytes have one of these in them, unless it is empty.
    naming: Vec<String>,
    after: Option<Position>,
    left: u64,
}

impl<'a> Letters<'a> {
    /// The letters of `selection` that are of one of `kinds`.
    pub fn new(
        client: &'a Client,
        selection: Selection,
        kinds: &'a [&'a str],
        with_bytes: bool,
    ) -> Self {
        Self {
            client,
            left: selection.limit.unwrap_or(u64::MAX),
            selection,
            kinds,
            with_bytes,
            naming: Vec::new(),
            after: None,
        }
    }

    /// Of these only the letters that may have one of `values` in their bytes, written in small or
    /// large letters (ASCII), or as an escape of JSON. At most 255.
    pub(crate) fn naming(mut self, values: Vec<String>) -> Self {
        self.naming = values;
        self
    }

    /// The next page; empty when there are no more.
    pub async fn page(&mut self) -> Result<Vec<Letter>, ReadError> {
        let limit = self.left.min(PAGE);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let wanted = &self.selection;
        let equals = |column: &str, value: Option<u32>| {
            value
                .map(|value| format!(" AND {column} = {value}"))
                .unwrap_or_default()
        };
        let range = OffsetRange::until(wanted.from.unwrap_or(0), wanted.to.unwrap_or(u64::MAX));
        let Some(range) = range else {
            return Ok(Vec::new());
        };
        let after = self.after.map_or_else(String::new, |after| {
            format!(
                " AND (source_incarnation, source_partition, source_offset) > ({}, {}, {})",
                after.incarnation, after.partition, after.offset
            )
        });
        let value = if self.with_bytes {
            "base64Encode(record_value)"
        } else {
            "''"
        };
        let naming = if self.naming.is_empty() {
            ""
        } else {
            " AND (multiSearchAnyCaseInsensitive(concat(record_key, '\\n', record_value), \
             {naming:Array(String)}) OR position(record_value, '\\\\') > 0)"
        };
        let sql = format!(
            "SELECT source_incarnation AS incarnation, source_partition AS partition, \
             source_offset AS offset, source_offset_last AS last_offset, \
             toString(kind) AS kind, reason, \
             toUnixTimestamp64Milli(logged_at) AS logged_at, base64Encode(record_key) AS key, \
             length(record_value) AS bytes, {value} AS value FROM {DEAD_LETTERS} AS letters \
             WHERE letters.kind IN {{kinds:Array(String)}}{naming}{}{} \
             AND source_offset_last >= {} AND source_offset <= {}{after} \
             ORDER BY incarnation, partition, offset LIMIT {limit}",
            equals("source_incarnation", wanted.incarnation),
            equals("source_partition", wanted.partition),
            range.first(),
            range.last(),
        );
        let mut kinds = self.kinds.to_vec();
        if let Some(kind) = &wanted.kind {
            kinds.retain(|known| known == kind);
        }
        let mut asked = self.client.query_raw(&sql).param("kinds", kinds);
        if !naming.is_empty() {
            asked = asked.param("naming", &self.naming);
        }
        let rows = asked.fetch_all::<LetterRow>().await?;
        let letters: Vec<_> = rows
            .into_iter()
            .map(|row| row.letter(self.with_bytes))
            .collect();
        self.after = letters.last().map(|last| last.position).or(self.after);
        self.left = self
            .left
            .saturating_sub(u64::try_from(letters.len()).unwrap_or(u64::MAX));
        Ok(letters)
    }
}

/// Gives each letter to `each`, in the order of their positions, until it says no.
pub async fn list(
    client: &Client,
    list: &List,
    mut each: impl FnMut(&Letter) -> bool,
) -> Result<(), ReadError> {
    let mut letters = Letters::new(client, list.selection.clone(), &KINDS, list.bytes);
    loop {
        let page = letters.page().await?;
        if page.is_empty() || !page.iter().all(&mut each) {
            return Ok(());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn letter(kind: &str, value: &[u8]) -> Letter {
        Letter {
            position: Position {
                incarnation: 1,
                partition: 2,
                offset: 7,
            },
            last_offset: 7,
            kind: kind.to_owned(),
            reason: "not an event: no".to_owned(),
            logged_at: Millis(1_700_000_000_123),
            key: b"k".to_vec(),
            bytes: u64::try_from(value.len()).unwrap(),
            value: Some(value.to_vec()),
        }
    }

    #[test]
    fn bytes_are_text_where_they_are_and_base64_otherwise() {
        let json = |value: &[u8]| serde_json::to_value(letter("malformed", value)).unwrap();
        let text = json(b"{\"x\":1");
        assert_eq!(
            (&text["value"], &text["key"]),
            (&"{\"x\":1".into(), &"k".into())
        );
        assert_eq!(text["loggedAt"], "2023-11-14T22:13:20.123Z");
        let bytes = json(b"\x00\xff");
        assert_eq!(bytes["valueBase64"], "AP8=");
        assert!(bytes.get("value").is_none());
    }

    #[test]
    fn bytes_are_shown_only_when_they_were_asked_for() {
        let silent = Letter {
            value: None,
            ..letter("malformed", b"secret")
        };
        assert!(!silent.to_string().contains("secret"));
        let json = serde_json::to_value(&silent).unwrap();
        assert!(
            json.get("key").is_none() && json.get("value").is_none(),
            "{json}"
        );
    }
}
