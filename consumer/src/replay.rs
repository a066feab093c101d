//! Replay: publishing dead letters again after what was wrong with them is mended.
//!
//! The event becomes a new record, marked `audit-maybe-delivered`; the old offset stays a dead
//! letter. A letter becomes at most one row, however often it is replayed: its event has the same
//! id every time (`repair` says which), and goes to the letter's own partition, where the consumer
//! looks for an earlier copy. An event with that id and project that is stored already, in any life
//! of the topic, is not published again. That look comes first; the consumer's decides what is
//! still under way.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use audit_schema::Position;
use audit_schema::dead_letter::{KINDS, UNDECODABLE};
use audit_schema::row::EVENTS;
use clap::Args;
use clickhouse::{Client, Row};
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::alone::WayOutError;
use crate::config::Config;
use crate::dead_letters::{Letter, Letters, Selection};
use crate::error::ReadError;
use crate::publish::{Publisher, UnderWay};
use crate::repair::{Prepared, Repaired, prepare};
use crate::topic::Topic;

/// What to replay.
#[derive(Debug, Clone, Args)]
pub struct Replay {
    /// Which letters, with the bytes they have.
    #[command(flatten)]
    pub selection: Selection,
    /// Replay the letters named in this file instead, with the values it gives; `-` reads standard
    /// input. One JSON document per line, as `dead-letters list --json --bytes` prints them, with
    /// `value` repaired: an event as an object, or as text. Its `id` can be left away.
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["kind", "incarnation", "partition", "from", "to", "limit"])]
    pub repaired: Option<PathBuf>,
    /// Do it; without this the command only says what it would do.
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON document per letter instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// What became of one letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "outcome",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Outcome {
    /// It would be published.
    WouldPublish {
        /// The event's id.
        event_id: String,
    },
    /// Kafka has it.
    Published {
        /// The event's id.
        event_id: String,
        /// Where: the partition.
        new_partition: i32,
        /// Where: the offset.
        new_offset: i64,
    },
    /// Its event is in the table: nothing to do.
    StoredAlready {
        /// The event's id.
        event_id: String,
    },
    /// It is no event as it is.
    Refused {
        /// Why.
        reason: String,
    },
    /// Kafka may have it or not: replay it again.
    Undelivered {
        /// Why.
        reason: String,
    },
}

/// One letter, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Which life of the topic.
    pub incarnation: u32,
    /// The partition.
    pub partition: u32,
    /// The offset, which stays a dead letter.
    pub offset: u64,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Replayed {
    /// Whether nothing is left to be done for it.
    pub fn is_well(&self) -> bool {
        !matches!(
            self.outcome,
            Outcome::Refused { .. } | Outcome::Undelivered { .. }
        )
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "incarnation {} partition {} offset {}: ",
            self.incarnation, self.partition, self.offset
        )?;
        match &self.outcome {
            Outcome::WouldPublish { event_id } => {
                write!(f, "would be published as event {event_id}; --yes does it")
            }
            Outcome::Published {
                event_id,
                new_partition,
                new_offset,
            } => write!(
                f,
                "published as event {event_id} at partition {new_partition} offset {new_offset}"
            ),
            Outcome::StoredAlready { event_id } => {
                write!(f, "event {event_id} is stored already")
            }
            Outcome::Refused { reason } => write!(f, "not replayed: {reason}"),
            Outcome::Undelivered { reason } => {
                write!(f, "kafka did not confirm it, replay it again: {reason}")
            }
        }
    }
}

/// A letter to replay.
struct Item<'a> {
    position: Position,
    /// `None` if there is none at that position.
    letter: Option<Letter>,
    repaired: Option<&'a RawValue>,
}

/// Publishes letters, or says what would be published; `each` is told of every letter.
pub async fn replay(
    config: &Config,
    replay: &Replay,
    repaired: Option<Vec<Repaired>>,
    mut each: impl FnMut(&Replayed),
) -> Result<(), WayOutError> {
    let client = audit_schema::clickhouse::connect(config.clickhouse.address());
    let topic = Topic::new(config, client.clone());
    topic.check().await?;
    let republisher = Republisher {
        publisher: Publisher::new(&topic)?,
        partitions: topic.partitions().await?,
        topic: topic.name(),
        client: &client,
        yes: replay.yes,
    };
    if let Some(repaired) = repaired {
        for line in repaired {
            let item = republisher.named(&line).await?;
            republisher.replay(vec![item], &mut each).await?;
        }
        return Ok(());
    }
    if let Some(kind) = &replay.selection.kind
        && !UNDECODABLE.contains(&kind.as_str())
    {
        return Err(WayOutError::NotReplayable(kind.clone()));
    }
    let mut letters = Letters::new(&client, replay.selection.clone(), &UNDECODABLE, true);
    loop {
        let page = letters.page().await?;
        if page.is_empty() {
            return Ok(());
        }
        let as_they_are = page.into_iter().map(|letter| Item {
            position: letter.position,
            letter: Some(letter),
            repaired: None,
        });
        republisher.replay(as_they_are.collect(), &mut each).await?;
    }
}

#[derive(Debug, Row, Deserialize)]
struct StoredRow {
    project: String,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
}

/// Publishes letters to the topic.
struct Republisher<'a> {
    publisher: Publisher,
    partitions: u32,
    topic: &'a str,
    client: &'a Client,
    yes: bool,
}

impl Republisher<'_> {
    /// The letter that a repaired line names.
    async fn named<'a>(&self, line: &'a Repaired) -> Result<Item<'a>, ReadError> {
        let position = Position {
            incarnation: line.incarnation,
            partition: line.partition,
            offset: line.offset,
        };
        let selection = Selection {
            incarnation: Some(line.incarnation),
            partition: Some(line.partition),
            from: Some(line.offset),
            to: Some(line.offset.saturating_add(1)),
            ..Selection::default()
        };
        let mut letters = Letters::new(self.client, selection, &KINDS, true);
        Ok(Item {
            position,
            letter: letters.page().await?.into_iter().next(),
            repaired: Some(&line.value),
        })
    }

    async fn replay(
        &self,
        items: Vec<Item<'_>>,
        each: &mut impl FnMut(&Replayed),
    ) -> Result<(), WayOutError> {
        let prepared: Vec<_> = items
            .iter()
            .map(|item| match &item.letter {
                Some(letter) => prepare(self.topic, letter, item.repaired),
                None => Err("there is no dead letter at this position".to_owned()),
            })
            .collect();
        let stored = self.stored(prepared.iter().flatten()).await?;
        let mut under_way = Vec::new();
        for (item, prepared) in items.iter().zip(prepared) {
            let sent = match prepared {
                Err(reason) => Sent::Ended(Outcome::Refused { reason }),
                Ok(event) if stored.contains(&(event.project.clone(), event.id.as_uuid())) => {
                    let event_id = event.id.to_string();
                    Sent::Ended(Outcome::StoredAlready { event_id })
                }
                Ok(event) if !self.yes => {
                    let event_id = event.id.to_string();
                    Sent::Ended(Outcome::WouldPublish { event_id })
                }
                Ok(event) => self.send(item.position, &event),
            };
            under_way.push((item.position, sent));
        }
        for (position, sent) in under_way {
            let replayed = Replayed {
                incarnation: position.incarnation,
                partition: position.partition,
                offset: position.offset,
                outcome: sent.outcome().await,
            };
            if let Outcome::Published { event_id, .. } = &replayed.outcome {
                tracing::info!(
                    kafka.partition = position.partition,
                    offset = position.offset,
                    event_id,
                    "`audit-consumer dead-letters replay` published a dead letter again"
                );
            }
            each(&replayed);
        }
        Ok(())
    }

    /// Sends an event to the partition of its letter, or to one that follows from it if the topic
    /// has become smaller.
    fn send(&self, letter: Position, event: &Prepared) -> Sent {
        let partition = letter.partition.checked_rem(self.partitions).unwrap_or(0);
        match self
            .publisher
            .publish(Some(partition), &event.key, &event.value)
        {
            Ok(delivery) => Sent::UnderWay(event.id.to_string(), delivery),
            Err(error) => Sent::Ended(undelivered(&error)),
        }
    }

    /// Which of these events are in the table, by project and id.
    async fn stored<'a>(
        &self,
        events: impl Iterator<Item = &'a Prepared> + Clone,
    ) -> Result<HashSet<(String, Uuid)>, ReadError> {
        let sql = format!(
            "SELECT DISTINCT project_id AS project, event_id AS id FROM {EVENTS} \
             WHERE (project_id, event_id) IN (SELECT arrayJoin(arrayZip( \
             {{projects:Array(String)}}, {{ids:Array(UUID)}})))"
        );
        let projects: Vec<&str> = events.clone().map(|event| event.project.as_str()).collect();
        let ids: Vec<String> = events.map(|event| event.id.to_string()).collect();
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let asked = self.client.query_raw(&sql).param("projects", projects);
        let rows = asked.param("ids", ids).fetch_all::<StoredRow>().await;
        let rows = rows.map_err(ReadError::Unavailable)?;
        Ok(rows.into_iter().map(|row| (row.project, row.id)).collect())
    }
}

/// What was done about a letter so far.
enum Sent {
    Ended(Outcome),
    UnderWay(String, UnderWay),
}

impl Sent {
    async fn outcome(self) -> Outcome {
        match self {
            Self::Ended(outcome) => outcome,
            Self::UnderWay(event_id, under_way) => match under_way.delivered().await {
                Ok(delivered) => Outcome::Published {
                    event_id,
                    new_partition: delivered.partition,
                    new_offset: delivered.offset,
                },
                Err(error) => undelivered(&error),
            },
        }
    }
}

fn undelivered(error: &KafkaError) -> Outcome {
    Outcome::Undelivered {
        reason: error.to_string(),
    }
}
