//! An event in the table `audit_events`: the one list of its columns, for insert and for select.
//!
//! [`EventColumns`] takes events apart into columns, one contiguous buffer each, and gives any
//! choice of its rows as a block of ClickHouse's Native format. [`EventRow`] is the same list,
//! row by row, for reading. Every fact is derived here, once; the server interprets nothing.

use std::net::{IpAddr, Ipv6Addr};

use chrono::{DateTime, Utc};
use clickhouse::error::Error;
use clickhouse::native::builder::BlockBuilder;
use clickhouse::native::encode::{Encode, ValueWriter};
use clickhouse::native::{Block, DataTypeNode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::facts::Facts;
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

impl Encode for Millis {
    fn produces() -> DataTypeNode {
        #[expect(
            clippy::expect_used,
            reason = "a constant type name; every insert test reads it"
        )]
        DataTypeNode::new("DateTime64(3, 'UTC')").expect("a type ClickHouse knows")
    }

    fn encode(
        &self,
        writer: &mut ValueWriter<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(writer.write_fixed(&self.0.to_le_bytes())?)
    }
}

/// A value of one column, and how many of them are kept together.
trait Cell {
    type Ref<'a>: Encode;
    type Column: Default;

    fn push(column: &mut Self::Column, value: Self::Ref<'_>);
    fn at(column: &Self::Column, row: usize) -> Option<Self::Ref<'_>>;
}

/// Texts end to end in one buffer.
#[derive(Debug, Default)]
pub struct TextColumn {
    bytes: String,
    ends: Vec<usize>,
}

impl Cell for String {
    type Ref<'a> = &'a str;
    type Column = TextColumn;

    fn push(column: &mut TextColumn, value: &str) {
        column.bytes.push_str(value);
        column.ends.push(column.bytes.len());
    }

    fn at(column: &TextColumn, row: usize) -> Option<&str> {
        let start = match row.checked_sub(1) {
            Some(before) => *column.ends.get(before)?,
            None => 0,
        };
        column.bytes.get(start..*column.ends.get(row)?)
    }
}

macro_rules! plain_cells {
    ($($cell:ty),*) => {
        $(impl Cell for $cell {
            type Ref<'a> = $cell;
            type Column = Vec<$cell>;

            fn push(column: &mut Vec<$cell>, value: $cell) {
                column.push(value);
            }

            fn at(column: &Vec<$cell>, row: usize) -> Option<$cell> {
                column.get(row).copied()
            }
        })*
    };
}

plain_cells!(Uuid, Ipv6Addr, Millis, u32, u64);

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

            /// One row as it will be read, except that it was not sent yet.
            pub fn row(&self, row: usize) -> Option<EventRow> {
                Some(EventRow {
                    $($name: <$cell as Cell>::at(&self.$name, row)?.into(),)*
                    ingested_at: Millis::default(),
                })
            }

            /// The chosen rows as one block to insert, sent at `ingested_at`.
            ///
            /// # Errors
            /// If no row is chosen, or one that does not exist.
            pub fn block(&self, rows: &[usize], ingested_at: Millis) -> Result<Block, Error> {
                let mut builder = BlockBuilder::new();
                $(builder
                    .upsert_column::<<$cell as Cell>::Ref<'_>>(stringify!($name))
                    .map_err(|error| Error::Other(error.into()))?
                    .add_all(rows.iter().filter_map(|row| <$cell as Cell>::at(&self.$name, *row)))
                    .map_err(Error::Other)?;)*
                builder
                    .upsert_column::<Millis>("ingested_at")
                    .map_err(|error| Error::Other(error.into()))?
                    .add_all(rows.iter().map(|_| ingested_at))
                    .map_err(Error::Other)?;
                builder.build().map_err(|error| Error::Other(error.into()))
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

    /// The full primary key of a row: project, time, id.
    pub fn primary_key(&self, row: usize) -> Option<(&str, Millis, Uuid)> {
        Some((
            String::at(&self.project_id, row)?,
            Millis::at(&self.created_at, row)?,
            Uuid::at(&self.event_id, row)?,
        ))
    }
}
