//! Import: events of a file, published under their own ids and times.
//!
//! They take the way of all events, through Kafka and the consumer, so order, storing once and
//! `verify` hold for them as well. What is stored already is looked up first, by the full primary
//! key, and is not published, so that a file can be imported again for the price of reading it; what
//! is still on its way meets its first copy in the consumer, because both have one key, and so one
//! partition, and the second becomes a dead letter of kind `duplicate`.
//!
//! Memory is bounded: a chunk of the file is read ahead, and at most 2,000 events are on their way
//! to Kafka.

mod dashboard;
mod fields;
mod file;
mod form;
mod lines;
mod own_export;
mod report;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use audit_producer::{Redaction, RedactionError};
use audit_schema::row::Millis;
use audit_schema::{Event, ProjectId, wire};
use audit_service::telemetry::with_causes;
use clap::{Args, ValueEnum};
use rdkafka::error::KafkaError;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use self::report::{Imported, Refused, Step, Stopped};

use self::file::{Chunk, Told};
use self::form::Form;
use crate::batch::EventKey;
use crate::config::Config;
use crate::error::ReadError;
use crate::publish::{Publisher, UnderWay};
use crate::topic::{Topic, TopicError};
use crate::writer::Writer;

/// Most events on their way to Kafka.
const UNDER_WAY: usize = 2_000;

/// In which format a file holds events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// Told by its first line.
    Auto,
    /// Our own: `GET /v1/audit-logs/export?format=ndjson`.
    Export,
    /// Better Auth's: answers of the dashboard's `GET /events/*`, a JSON document a line.
    Dashboard,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Export => "export",
            Self::Dashboard => "dashboard",
        }
    }
}

/// What to import.
#[derive(Debug, Clone, Args)]
pub struct Import {
    /// The file; `-` reads standard input.
    pub file: PathBuf,
    /// Whose events they are. What the file says of projects does not count.
    #[arg(long)]
    pub project: ProjectId,
    /// The format of the file.
    #[arg(long, value_enum, default_value = "auto")]
    pub format: Format,
    /// Leave out the lines before this one, as the progress and the report of an import that was
    /// stopped say it.
    #[arg(long, value_name = "LINE", default_value_t = 1)]
    pub from_line: u64,
    /// Do it; without this the command only says what it would do.
    #[arg(long)]
    pub yes: bool,
    /// How many refused events to name.
    #[arg(long, default_value_t = 20)]
    pub named: usize,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// Why an import did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be opened.
    #[error("{} cannot be read", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// It is not clear what has to be removed from events.
    #[error(transparent)]
    Redaction(#[from] RedactionError),
    /// The topic is not as it has to be.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Kafka's client cannot be set up.
    #[error("kafka's client cannot be set up")]
    Kafka(#[from] KafkaError),
}

/// An event of the file, as a record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prepared {
    id: EventKey,
    event_type: String,
    key: String,
    value: Vec<u8>,
}

impl Prepared {
    fn of(event: &Event<'_>) -> Result<Self, String> {
        Ok(Self {
            id: EventKey {
                project: event.project_id.to_string(),
                created_at: Millis::from(event.created_at),
                id: event.id.as_uuid(),
            },
            event_type: event.event_type.to_string(),
            key: wire::key(event),
            value: wire::encode(event).map_err(|error| error.to_string())?,
        })
    }
}

/// Publishes the events of a file, or says what would be published; `progress` is told how far it
/// is. Once it has begun, whatever stops it is part of the report, with the line to go on from.
pub async fn import(
    config: &Config,
    wanted: &Import,
    shutdown: CancellationToken,
    mut progress: impl FnMut(Step),
) -> Result<Imported, ImportError> {
    let redaction = Redaction::load(&config.import.redaction)?;
    let form = Form::new(wanted.format, wanted.project.clone(), redaction);
    let unreadable = |error| ImportError::File(wanted.file.clone(), error);
    let (input, size) = file::open(&wanted.file).map_err(unreadable)?;
    let writer = Writer::new(&config.clickhouse, config.batch.in_flight);
    let topic = Topic::new(config, writer.client().clone());
    topic.check().await?;
    let log = Log {
        writer,
        publisher: wanted.yes.then(|| Publisher::new(&topic)).transpose()?,
    };

    let (started, mut next_line) = (Instant::now(), wanted.from_line.max(1));
    let mut imported = Imported::none_of(wanted.project.to_string(), wanted.yes);
    let mut told = file::read(input, form, next_line).map_err(unreadable)?;
    let stopped = loop {
        let chunk = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Some("it was asked to stop".to_owned()),
            told = told.recv() => match told {
                Some(Told::Chunk(chunk)) => chunk,
                Some(Told::End(cut)) => {
                    imported.cut = cut.map(str::to_owned);
                    break None;
                }
                Some(Told::Failed(error)) => break Some(format!("the file: {error}")),
                None => break Some("the thread that reads the file panicked".to_owned()),
            },
        };
        let (behind, bytes) = (chunk.next_line, chunk.bytes);
        match log.take(chunk, wanted.named, &mut imported).await {
            Ok(()) => next_line = next_line.max(behind),
            Err(stop) => {
                next_line = next_line.max(stop.line.unwrap_or_default());
                break Some(stop.reason);
            }
        }
        progress(Step {
            events: imported.events,
            next_line,
            bytes,
            size,
            after: started.elapsed(),
        });
    };
    imported.stopped = stopped.map(|reason| Stopped {
        reason,
        from_line: next_line,
    });
    if wanted.yes {
        tracing::info!(
            project = imported.project,
            events = imported.events,
            published = imported.new,
            refused = imported.refused,
            stopped = imported
                .stopped
                .as_ref()
                .map(|stopped| stopped.reason.as_str()),
            "`audit-consumer import` published events of a file"
        );
    }
    Ok(imported)
}

/// Why an import cannot go on, and the first line that is not dealt with if it is known.
struct Stop {
    line: Option<u64>,
    reason: String,
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self {
            line: None,
            reason: with_causes(&error),
        }
    }
}

/// The log that the events go to.
struct Log {
    writer: Writer,
    /// `None` if it is only to be said what would be done.
    publisher: Option<Publisher>,
}

impl Log {
    /// Looks up the events of a chunk, and publishes those that are not stored.
    async fn take(&self, chunk: Chunk, named: usize, imported: &mut Imported) -> Result<(), Stop> {
        let keys: Vec<EventKey> = chunk
            .events
            .iter()
            .map(|(_, event)| event.id.clone())
            .collect();
        let mut known: HashSet<EventKey> = self.writer.stored(&keys).await?;
        imported.format = chunk.format;
        imported.refuse(chunk.refused, named);
        for events in chunk.events.chunks(UNDER_WAY) {
            let mut new = Vec::new();
            for (line, event) in events {
                imported.count(event);
                if known.insert(event.id.clone()) {
                    new.push((*line, event));
                } else {
                    imported.stored_already = imported.stored_already.saturating_add(1);
                }
            }
            self.publish(new, imported).await?;
        }
        Ok(())
    }

    /// Publishes events, and waits until Kafka has all of them.
    async fn publish(
        &self,
        events: Vec<(u64, &Prepared)>,
        imported: &mut Imported,
    ) -> Result<(), Stop> {
        let mut under_way: Vec<(u64, Result<UnderWay, KafkaError>)> = Vec::new();
        for (line, event) in events {
            let Some(publisher) = &self.publisher else {
                imported.new = imported.new.saturating_add(1);
                continue;
            };
            let sent = publisher.publish(None, &event.key, &event.value);
            let failed = sent.is_err();
            under_way.push((line, sent));
            if failed {
                break;
            }
        }
        let mut stop = None;
        for (line, sent) in under_way {
            let delivered = match sent {
                Ok(under_way) => under_way.delivered().await,
                Err(error) => Err(error),
            };
            match delivered {
                Ok(_) => imported.new = imported.new.saturating_add(1),
                // Behind it there may be some that Kafka has: they are looked up again.
                Err(error) => {
                    stop.get_or_insert_with(|| Stop {
                        line: Some(line),
                        reason: format!("line {line}: kafka did not confirm its event: {error}"),
                    });
                }
            }
        }
        stop.map_or(Ok(()), Err)
    }
}
