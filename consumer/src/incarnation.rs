//! Incarnations: the lives of the topic, and how one ends and another begins.
//!
//! A topic deleted and created anew under the same name reuses offsets, so its life is part of
//! every position. Kafka's name cannot tell two lives apart, the records can: the time Kafka took a
//! record at is compared with the stored row, or with what retention has written down of it.
//!
//! A new life is read from the beginning of the log, so a topic whose records are stored already
//! cannot begin one: they would be stored a second time. One that was given more partitions has to,
//! because its events changed partition; its new life goes on where the old one ends.

use audit_schema::OffsetRange;
use audit_schema::dead_letter::{ABSENT, DEAD_LETTERS, SKIPPED};
use audit_schema::row::{EVENTS, Millis};
use clickhouse::Row;
use clickhouse::error::Error;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::alone::{in_use, outwait};
use crate::batch::PartitionId;
use crate::error::{InsertError, ReadError};
use crate::holes;
use crate::offsets::{Commit, Declared};
use crate::removed;
use crate::store::{Store, Watermark};
use crate::stored;
use crate::topic::{Topic, TopicError, look_from};
use crate::writer::Writer;

#[derive(Debug, Row, Serialize, Deserialize)]
pub(crate) struct SourceRow {
    topic: String,
    pub(crate) incarnation: u32,
    pub(crate) partitions: u32,
    /// Where each partition begins in this life.
    begins: Vec<u64>,
    registered_at: Millis,
}

impl SourceRow {
    pub(crate) fn id(&self, partition: u32) -> PartitionId {
        PartitionId {
            incarnation: self.incarnation,
            partition,
        }
    }

    /// The first offset of a partition that belongs to this life.
    pub(crate) fn begin(&self, partition: u32) -> u64 {
        let place = usize::try_from(partition).unwrap_or(usize::MAX);
        self.begins.get(place).copied().unwrap_or(0)
    }
}

#[derive(Debug, Row, Deserialize)]
struct StoredRow {
    offset: u64,
    logged_at: Millis,
}

/// What the record at the highest stored offset of a partition says of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Compared {
    /// Nothing: there is no row, and there never was.
    NothingStored,
    /// Nothing: Kafka does not have that record any more.
    Expired,
    /// It is the stored one.
    Same,
    /// It is not, or there is none.
    Differs(String),
}

/// What becomes of a life when another one is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It has hardly begun: it is the new one.
    Stays,
    /// The topic is another one, which is read from its beginning.
    BeginsAnew,
    /// The topic was given more partitions: those it had go on where they are.
    GoesOn,
    /// The topic is the same, by these partitions.
    Refused(Vec<u32>),
}

fn unread(error: ReadError) -> TopicError {
    match error {
        ReadError::Unavailable(error) | ReadError::Refused(error) => TopicError::ClickHouse(error),
        other @ ReadError::OtherShard(_) => TopicError::ClickHouse(Error::Other(other.into())),
    }
}

/// Decides by what was found of each partition, and how many there were and are.
fn decide(compared: &[Compared], (before, now): (u32, u32)) -> Verdict {
    let same: Vec<u32> = (0..)
        .zip(compared)
        .filter(|(_, found)| **found == Compared::Same)
        .map(|(partition, _)| partition)
        .collect();
    let differs = compared
        .iter()
        .any(|found| matches!(found, Compared::Differs(_)));
    if differs || now < before {
        // A topic is not another one in parts.
        return if same.is_empty() {
            Verdict::BeginsAnew
        } else {
            Verdict::Refused(same)
        };
    }
    if now > before {
        Verdict::GoesOn
    } else if !same.is_empty() {
        Verdict::Refused(same)
    } else if compared.contains(&Compared::Expired) {
        Verdict::BeginsAnew
    } else {
        Verdict::Stays
    }
}

impl Topic {
    /// Registers the topic's life, if none is registered or `anew` asks for another one.
    pub async fn register(&self, anew: bool) -> Result<u32, TopicError> {
        let known = self.registered().await?;
        let (incarnation, begins) = match known {
            Some(known) if !anew => return Ok(known.incarnation),
            Some(known) => match self.end(&known).await? {
                None => return Ok(known.incarnation),
                Some(begins) => (known.incarnation.saturating_add(1), begins),
            },
            None => (1, Vec::new()),
        };
        let partitions = self.partitions().await?;
        let begin = |partition| {
            let begin = begins.iter().find(|(of, _)| *of == partition);
            begin.map_or(0, |(_, begin)| *begin)
        };
        let row = SourceRow {
            topic: self.name().to_owned(),
            incarnation,
            partitions,
            begins: (0..partitions).map(begin).collect(),
            registered_at: chrono::Utc::now().into(),
        };
        if !begins.is_empty() {
            let watermarks: Vec<_> = begins
                .iter()
                .map(|(partition, next_offset)| Watermark {
                    id: row.id(*partition),
                    next_offset: *next_offset,
                    complete_up_to: Millis::default(),
                })
                .collect();
            let written = self.writer().write_watermarks(&watermarks).await;
            written.map_err(|error| match error {
                InsertError::InDoubt(error) | InsertError::Refused(error) => {
                    TopicError::ClickHouse(error)
                }
            })?;
        }
        let shard = self.shards.of(0);
        let mut insert = shard
            .durable(shard.asked().1.clone())
            .insert::<SourceRow>(&self.sources)
            .await
            .map_err(TopicError::ClickHouse)?;
        insert.write(&row).await.map_err(TopicError::ClickHouse)?;
        insert.end().await.map_err(TopicError::ClickHouse)?;
        if anew {
            tracing::warn!(
                topic = row.topic,
                incarnation,
                goes_on_at = ?begins,
                "`audit-consumer migrate --new-incarnation` registered another life of the topic"
            );
        }
        self.declare_untouched(&row, begins).await;
        Ok(incarnation)
    }

    fn writer(&self) -> Writer {
        Writer::new(&self.config.clickhouse, 1)
    }

    /// Ends a life, if the topic is not in it any more, and gives where the partitions of the next
    /// one begin that do not begin with their log. `None`: it stays.
    async fn end(&self, known: &SourceRow) -> Result<Option<Vec<(u32, u64)>>, TopicError> {
        let members = in_use(&self.config, self)
            .await
            .map_err(|e| self.kafka(e))?;
        if !members.is_empty() {
            let members = members.join(", ");
            return Err(self.unfinished(format!(
                "the group is in use by {members}; stop these consumers first"
            )));
        }
        let partitions = self.partitions().await?;
        let mut compared = Vec::new();
        for partition in 0..known.partitions.min(partitions) {
            let id = known.id(partition);
            compared.push(match self.compare(id).await? {
                Compared::NothingStored => self.compare_settled(id).await?,
                found => found,
            });
        }
        match decide(&compared, (known.partitions, partitions)) {
            Verdict::Refused(partitions) => Err(TopicError::Unchanged {
                topic: self.name().to_owned(),
                partitions,
            }),
            Verdict::Stays => {
                tracing::warn!(
                    topic = self.name(),
                    incarnation = known.incarnation,
                    "nothing is stored of the registered life of the topic: it is the new one"
                );
                Ok(None)
            }
            Verdict::BeginsAnew => Ok(Some(Vec::new())),
            Verdict::GoesOn => {
                let mut begins = Vec::new();
                for partition in 0..known.partitions {
                    begins.push((partition, self.stored_end(known.id(partition)).await?));
                }
                Ok(Some(begins))
            }
        }
    }

    /// Without a row the settled offset still tells a log that is shorter.
    async fn compare_settled(&self, id: PartitionId) -> Result<Compared, TopicError> {
        let settled = self.writer().settled(id).await.map_err(unread)?;
        let end = self.bounds(id.partition).await?.end;
        Ok(match settled.filter(|settled| *settled > end) {
            Some(settled) => Compared::Differs(format!(
                "offset {settled} was settled, but the log ends at {end}"
            )),
            None => Compared::NothingStored,
        })
    }

    fn unfinished(&self, reason: String) -> TopicError {
        TopicError::Unfinished {
            topic: self.name().to_owned(),
            reason,
        }
    }

    /// The offset below which everything of a partition is stored, and from which on nothing is.
    async fn stored_end(&self, id: PartitionId) -> Result<u64, TopicError> {
        let writer = self.writer();
        outwait(&writer, id, None).await.map_err(unread)?;
        let settled = writer.settled(id).await.map_err(unread)?;
        let from = match settled {
            Some(settled) => settled,
            None => self.bounds(id.partition).await?.start,
        };
        let highest = writer.highest(id, from).await.map_err(unread)?;
        let Some(stored) = highest.and_then(|highest| OffsetRange::new(from, highest)) else {
            return Ok(from);
        };
        let missing = holes::missing(&writer, id, stored).await.map_err(unread)?;
        match missing.first() {
            None => Ok(stored.end()),
            Some(hole) => Err(self.unfinished(format!(
                "offsets {} of partition {} are in neither table, but later ones are; delete the \
                 rows of incarnation {} and this partition from offset {} on: the next life stores \
                 them again",
                holes::named(&missing),
                id.partition,
                id.incarnation,
                hole.first()
            ))),
        }
    }

    /// Commits for the group that nothing of a new life is under way, which only its registration
    /// knows for sure. Without it the first start outwaits inserts that nobody sent.
    async fn declare_untouched(&self, source: &SourceRow, begins: Vec<(u32, u64)>) {
        let mut settings = self.client_config();
        settings.set("group.id", &self.config.kafka.group);
        let (topic, incarnation) = (source.topic.clone(), source.incarnation);
        let partitions = source.partitions;
        let committed = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = settings.create()?;
            let mut list = TopicPartitionList::new();
            for partition in 0..partitions {
                let begin = begins.iter().find(|(known, _)| *known == partition);
                let untouched = Commit {
                    next: begin.map_or(0, |(_, offset)| *offset),
                    declared: Declared::Nothing,
                };
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                let mut element = list.add_partition(&topic, partition);
                let next = i64::try_from(untouched.next).unwrap_or(i64::MAX);
                element.set_offset(Offset::Offset(next))?;
                element.set_metadata(untouched.metadata(incarnation));
            }
            consumer.commit(&list, CommitMode::Sync)
        });
        if let Ok(Err(error)) = committed.await {
            tracing::info!(error = %error, "the group is in use: its first start takes a while longer");
        }
    }

    pub(crate) async fn registered(&self) -> Result<Option<SourceRow>, TopicError> {
        let sql = format!(
            "SELECT topic, incarnation, partitions, begins, registered_at FROM {} \
             WHERE topic = {{topic:String}} ORDER BY incarnation DESC, registered_at DESC LIMIT 1",
            self.sources
        );
        let topic = self.name();
        let limit = self.config.clickhouse.read_timeout;
        let (shard, tables) = (self.shards.of(0), [self.sources.as_str()]);
        let asked = shard.ask(&tables, limit, |client| async move {
            let asked = client.query_raw(&sql).param("topic", topic);
            asked.fetch_optional::<SourceRow>().await
        });
        asked.await.map_err(TopicError::ClickHouse)
    }

    /// Compares the record at the highest stored offset with its row, or with what is written down
    /// of a row that retention took away. `Some` says what differs.
    ///
    /// A record that expired, or a partition without rows, says nothing.
    pub async fn differs(&self, id: PartitionId) -> Result<Option<String>, TopicError> {
        Ok(match self.compare(id).await? {
            Compared::Differs(reason) => Some(reason),
            Compared::NothingStored | Compared::Expired | Compared::Same => None,
        })
    }

    async fn compare(&self, id: PartitionId) -> Result<Compared, TopicError> {
        // The highest offset is found in the order of positions, and its row by that offset.
        let source = stored::of(id);
        let highest = |table: &str, records: &str| {
            format!(
                "SELECT source_offset AS offset, logged_at FROM {table} WHERE {source} \
                 AND source_offset = (SELECT source_offset FROM {table} WHERE {source}{records} \
                 ORDER BY source_incarnation DESC, source_partition DESC, source_offset DESC \
                 LIMIT 1)"
            )
        };
        let records = format!(" AND kind NOT IN ('{ABSENT}', '{SKIPPED}')");
        let sql = format!(
            "SELECT offset, logged_at FROM ({} UNION ALL {} UNION ALL {}) \
             ORDER BY offset DESC LIMIT 1",
            highest(EVENTS, ""),
            highest(DEAD_LETTERS, &records),
            removed::highest(id)
        );
        let stored = self
            .client
            .query_raw(&sql)
            .fetch_optional::<StoredRow>()
            .await
            .map_err(TopicError::ClickHouse)?;
        let Some(stored) = stored else {
            return Ok(Compared::NothingStored);
        };
        let (settings, topic) = (self.client_config(), self.name().to_owned());
        let looked = tokio::task::spawn_blocking(move || {
            record_time(&settings, &topic, id.partition, stored.offset)
        });
        let found = looked
            .await
            .unwrap_or(Err(KafkaError::Canceled))
            .map_err(|e| self.kafka(e))?;
        Ok(match found {
            Found::Expired => Compared::Expired,
            Found::At(time) if time == stored.logged_at => Compared::Same,
            Found::At(time) => Compared::Differs(format!(
                "offset {} was logged at {} ms, but its row says {} ms",
                stored.offset, time.0, stored.logged_at.0
            )),
            Found::BehindTheEnd(end) => Compared::Differs(format!(
                "offset {} is stored, but the log ends at {end}",
                stored.offset
            )),
        })
    }
}

/// What Kafka has at an offset.
#[derive(Debug)]
enum Found {
    At(Millis),
    Expired,
    BehindTheEnd(u64),
}

/// When Kafka took the record at an offset. Blocks.
fn record_time(
    settings: &ClientConfig,
    topic: &str,
    partition: u32,
    offset: u64,
) -> Result<Found, KafkaError> {
    let look = look_from(settings, topic, partition, offset)?;
    Ok(if offset < look.start {
        Found::Expired
    } else if offset >= look.end {
        Found::BehindTheEnd(look.end)
    } else {
        match look.first {
            Some((first, time)) if first == offset => Found::At(time),
            // The record itself is gone; a later one does not tell.
            _ => Found::Expired,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Compared::{Expired, NothingStored, Same};

    #[test]
    fn an_unchanged_topic_does_not_begin_anew() {
        assert_eq!(
            decide(&[NothingStored, Same], (2, 2)),
            Verdict::Refused(vec![1])
        );
        assert_eq!(decide(&[Same, Expired], (2, 2)), Verdict::Refused(vec![0]));
    }

    #[test]
    fn a_topic_that_differs_begins_anew_unless_it_does_in_parts_only() {
        let differs = || Compared::Differs("shorter".to_owned());
        assert_eq!(
            decide(&[differs(), NothingStored], (2, 2)),
            Verdict::BeginsAnew
        );
        assert_eq!(decide(&[differs()], (1, 6)), Verdict::BeginsAnew);
        assert_eq!(
            decide(&[differs(), Same], (2, 2)),
            Verdict::Refused(vec![1])
        );
        assert_eq!(decide(&[NothingStored], (3, 1)), Verdict::BeginsAnew);
    }

    #[test]
    fn a_topic_with_more_partitions_goes_on() {
        assert_eq!(decide(&[Same, NothingStored], (2, 3)), Verdict::GoesOn);
    }

    #[test]
    fn a_life_without_a_row_is_the_new_one() {
        assert_eq!(
            decide(&[NothingStored, NothingStored], (2, 2)),
            Verdict::Stays
        );
        assert_eq!(
            decide(&[NothingStored, Expired], (2, 2)),
            Verdict::BeginsAnew
        );
    }
}
