//! An event in the table `audit_events`: the one list of its columns, for insert and for select.
//!
//! [`EventColumns`] takes events apart into columns, one contiguous buffer each, and gives any
//! choice of its rows as a block of ClickHouse's Native format. Texts are kept as they are sent, so
//! that all rows together are a block without being copied. [`EventRow`] is the same list,
//! row by row, for reading. Every fact is derived here, once; the server interprets nothing.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use chrono::{DateTime, Utc};
use clickhouse::error::Error;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::facts::Facts;
use crate::native::{Block, put_text, texts};
use crate::{Event, Position};

/// The table of events.
pub const EVENTS: &str = "audit_events";

/// How many seconds after it was sent ClickHouse still takes an insert: the constraint `in_time` of
/// both tables.
pub const LATE_LIMIT_SECONDS: u64 = 5;

/// A time as the table holds it: milliseconds since 1970, `DateTime64(3, 'UTC')`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// The time `span` before this one.
    #[must_use]
    pub fn earlier_by(self, span: std::time::Duration) -> Self {
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(span))
    }

    /// The time `span` after this one.
    #[must_use]
    pub fn later_by(self, span: std::time::Duration) -> Self {
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(span))
    }
}

impl From<DateTime<Utc>> for Millis {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis())
    }
}

impl From<Millis> for DateTime<Utc> {
    fn from(millis: Millis) -> Self {
        DateTime::from_timestamp_millis(millis.0).unwrap_or_default()
    }
}

/// A value of one column, how many of them are kept together, and how they are sent.
pub(crate) trait Cell {
    type Ref<'a>;
    type Column: Default;

    /// Its type as ClickHouse names it. What the table holds as `LowCardinality(String)` is sent as
    /// `String`, too.
    const TYPE: &'static str;

    fn lent(&self) -> Self::Ref<'_>;
    fn push(column: &mut Self::Column, value: Self::Ref<'_>);
    fn values(column: &Self::Column) -> impl Iterator<Item = Self::Ref<'_>>;
    /// The values of these rows, or of all, as they are sent.
    fn sent<'a>(column: &'a Self::Column, rows: Option<&[usize]>) -> Cow<'a, [u8]>;
}

/// Texts end to end, each behind its length: as they are sent.
#[derive(Debug, Default)]
pub struct TextColumn(Vec<u8>);

impl Cell for String {
    type Ref<'a> = &'a str;
    type Column = TextColumn;

    const TYPE: &'static str = "String";

    fn lent(&self) -> &str {
        self
    }

    #[inline]
    fn push(column: &mut TextColumn, value: &str) {
        put_text(&mut column.0, value.as_bytes());
    }

    fn values(column: &TextColumn) -> impl Iterator<Item = &str> {
        texts(&column.0).map(|text| str::from_utf8(text.bytes()).unwrap_or_default())
    }

    fn sent<'a>(column: &'a TextColumn, rows: Option<&[usize]>) -> Cow<'a, [u8]> {
        let Some(rows) = rows else {
            return Cow::Borrowed(&column.0);
        };
        let written = texts(&column.0).map(|text| text.written);
        Cow::Owned(chosen(written, rows).flatten().copied().collect())
    }
}

/// The values of these rows, which ascend.
fn chosen<T>(values: impl Iterator<Item = T>, rows: &[usize]) -> impl Iterator<Item = T> {
    let mut rows = rows.iter().copied().peekable();
    let mut values = (0..).zip(values);
    std::iter::from_fn(move || {
        let wanted = rows.next()?;
        let found = values.find(|(row, _)| *row == wanted)?;
        Some(found.1)
    })
}

macro_rules! plain_cells {
    ($($cell:ty as $kind:literal, $bytes:expr;)*) => {
        $(impl Cell for $cell {
            type Ref<'a> = $cell;
            type Column = Vec<$cell>;

            const TYPE: &'static str = $kind;

            fn lent(&self) -> $cell {
                *self
            }

            #[inline]
            fn push(column: &mut Vec<$cell>, value: $cell) {
                column.push(value);
            }

            fn values(column: &Vec<$cell>) -> impl Iterator<Item = $cell> {
                column.iter().copied()
            }

            fn sent<'a>(column: &'a Vec<$cell>, rows: Option<&[usize]>) -> Cow<'a, [u8]> {
                let bytes: fn($cell) -> _ = $bytes;
                Cow::Owned(match rows {
                    None => column.iter().copied().flat_map(bytes).collect(),
                    Some(rows) => chosen(column.iter().copied(), rows).flat_map(bytes).collect(),
                })
            }
        })*
    };
}

plain_cells! {
    Uuid as "UUID", |id| {
        // Two halves, each with its lowest byte first.
        let (high, low) = id.as_u64_pair();
        let mut bytes = [0_u8; 16];
        let (first, second) = bytes.split_at_mut(8);
        first.copy_from_slice(&high.to_le_bytes());
        second.copy_from_slice(&low.to_le_bytes());
        bytes
    };
    Ipv6Addr as "IPv6", |address| address.octets();
    Millis as "DateTime64(3, 'UTC')", |time| time.0.to_le_bytes();
    u32 as "UInt32", u32::to_le_bytes;
    u64 as "UInt64", u64::to_le_bytes;
}

macro_rules! event_columns {
    ($($(#[$meta:meta])* $name:ident: $cell:ty),* $(,)?) => {
        /// One event as it is read from the table.
        #[derive(Debug, Clone, PartialEq, clickhouse::Row, Deserialize, Serialize)]
        pub struct EventRow {
            $($(#[$meta])* pub $name: $cell,)*
            /// When the consumer sent the row, on ClickHouse's clock.
            pub ingested_at: Millis,
        }

        /// Events taken apart into columns, in the order of their offsets.
        #[derive(Debug, Default)]
        pub struct EventColumns {
            $($name: <$cell as Cell>::Column,)*
        }

        /// What one event brings into each column.
        struct NewRow<'a> {
            $($name: <$cell as Cell>::Ref<'a>,)*
        }

        impl EventColumns {
            fn push_row(&mut self, row: NewRow<'_>) {
                $(<$cell as Cell>::push(&mut self.$name, row.$name);)*
            }

            /// Adds a row as it was read, except that it was not sent yet.
            pub fn push_read(&mut self, row: &EventRow) {
                self.push_row(NewRow {
                    $($name: <$cell as Cell>::lent(&row.$name),)*
                });
            }

            /// The rows as they will be read, except that they were not sent yet.
            pub fn rows(&self) -> impl Iterator<Item = EventRow> {
                $(let mut $name = <$cell as Cell>::values(&self.$name);)*
                std::iter::from_fn(move || {
                    Some(EventRow {
                        $($name: $name.next()?.into(),)*
                        ingested_at: Millis::default(),
                    })
                })
            }

            /// The chosen rows, which ascend, as one block to insert, sent at `ingested_at`.
            ///
            /// # Errors
            /// If no row is chosen, or one that does not exist.
            pub fn block(&self, rows: &[usize], ingested_at: Millis) -> Result<Block<'_>, Error> {
                if rows.last().is_some_and(|last| *last >= self.len()) {
                    return Err(Error::Other("a row that does not exist was chosen".into()));
                }
                if !rows.is_sorted_by(|a, b| a < b) {
                    return Err(Error::Other("the chosen rows do not ascend".into()));
                }
                let mut block = Block::of(rows.len())?;
                let choice = (rows.len() < self.len()).then_some(rows);
                $(block.column(
                    stringify!($name),
                    <$cell as Cell>::TYPE,
                    <$cell as Cell>::sent(&self.$name, choice),
                );)*
                let sent_at = ingested_at.0.to_le_bytes().repeat(rows.len());
                block.column("ingested_at", Millis::TYPE, sent_at.into());
                Ok(block)
            }
        }
    };
}

event_columns! {
    /// Whose it is.
    project_id: String,
    /// Its identity.
    #[serde(with = "clickhouse::serde::uuid")]
    event_id: Uuid,
    /// What happened, as it was sent.
    event_type: String,
    /// What happened, as it is documented; empty if it is not.
    documented_type: String,
    /// What it happened to, as it was sent.
    event_key: String,
    /// A sentence for people.
    event_display_name: String,
    /// The user it is about.
    user_id: String,
    /// The organization it is about.
    organization_id: String,
    /// E-mail address or name of the user it is about.
    identifier: String,
    /// Who did it.
    actor_id: String,
    /// In which role.
    actor_type: String,
    /// How it ended.
    outcome: String,
    /// The session it happened in.
    session_id: String,
    /// The request it happened in.
    request_id: String,
    /// The client's address, IPv4 mapped; `::` if not given.
    ip_address: Ipv6Addr,
    /// The client's city.
    city: String,
    /// The client's country.
    country: String,
    /// The client's country, ISO 3166-1 alpha-2.
    country_code: String,
    /// The client's user agent.
    user_agent: String,
    /// Everything, as it was sent: a JSON object.
    event_data: String,
    /// When it happened, at the source.
    created_at: Millis,
    /// When Kafka took it.
    logged_at: Millis,
    /// Its position: which life of the topic.
    source_incarnation: u32,
    /// Its position: the partition.
    source_partition: u32,
    /// Its position: the offset.
    source_offset: u64,
}

/// A fact the event states itself comes before one read from its data.
fn or_derived<'a>(stated: &'a str, derived: &'a str) -> &'a str {
    if stated.is_empty() { derived } else { stated }
}

impl EventColumns {
    /// Adds one event as the last row.
    pub fn push(&mut self, event: &Event<'_>, position: Position, logged_at: Millis) {
        let facts = Facts::of(&event.event_data);
        let event_type = event.event_type.as_str();
        // In the plugin's security events `triggeredBy` names a check, not a person.
        let triggered_by = if event_type.starts_with("security_") {
            ""
        } else {
            facts.actor_id()
        };
        self.push_row(NewRow {
            project_id: event.project_id.as_str(),
            event_id: event.id.as_uuid(),
            event_type,
            documented_type: event
                .event_type
                .documented(facts.verdict())
                .map_or("", |entry| entry.name),
            event_key: &event.event_key,
            event_display_name: &event.event_display_name,
            user_id: or_derived(&event.user_id, facts.user_id()),
            organization_id: or_derived(&event.organization_id, facts.organization_id()),
            identifier: or_derived(&event.identifier, facts.identifier()),
            actor_id: or_derived(&event.actor.id, triggered_by),
            actor_type: or_derived(&event.actor.kind, facts.actor_type()),
            outcome: event
                .outcome
                .unwrap_or_else(|| facts.outcome(event_type))
                .as_str(),
            session_id: or_derived(&event.session_id, facts.session_id()),
            request_id: &event.request_id,
            ip_address: match event.location.ip_address {
                Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
                Some(IpAddr::V6(v6)) => v6,
                None => Ipv6Addr::UNSPECIFIED,
            },
            city: &event.location.city,
            country: &event.location.country,
            country_code: &event.location.country_code,
            user_agent: or_derived(&event.user_agent, facts.user_agent()),
            event_data: event.event_data.get(),
            created_at: event.created_at.into(),
            logged_at,
            source_incarnation: position.incarnation,
            source_partition: position.partition,
            source_offset: position.offset,
        });
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.source_offset.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.source_offset.is_empty()
    }

    /// The offset of each row, ascending.
    pub fn offsets(&self) -> &[u64] {
        &self.source_offset
    }

    /// Of each row the project, when it happened, and when Kafka took it.
    pub fn times(&self) -> impl Iterator<Item = (&str, Millis, Millis)> {
        String::values(&self.project_id)
            .zip(Millis::values(&self.created_at))
            .zip(Millis::values(&self.logged_at))
            .map(|((project, created_at), logged_at)| (project, created_at, logged_at))
    }

    /// The full primary key of each row: project, time, id.
    pub fn primary_keys(&self) -> impl Iterator<Item = (&str, Millis, Uuid)> {
        String::values(&self.project_id)
            .zip(Millis::values(&self.created_at))
            .zip(Uuid::values(&self.event_id))
            .map(|((project, created_at), id)| (project, created_at, id))
    }
}
