//! Erase: taking a person's data out of what is stored, and keeping it out.
//!
//! Rows and positions stay, so the audit, totals and cursors stay true; what the rows say of the
//! person is emptied (`audit_schema::erasure` says what that is).
//!
//! 1. **Register** who is erased. Consumers ask for the registry between reading ClickHouse's clock
//!    and each insert that carries it, so an insert that carries a later time has seen it.
//! 2. **Outwait** every insert that carries an earlier one: by the late limit, and by what
//!    ClickHouse still runs. From here on nothing of the person is stored any more.
//! 3. **Rewrite** what is stored, by mutations, until nothing is found.
//! 4. **Record** it as an event, whose id is the erasure's: it is stored once, however often it is
//!    published.
//! 5. **Forget** the values. Until here the registry holds them, so that an erasure which was cut off
//!    goes on with all it had found, and so that they are in no mutation's text, which ClickHouse
//!    keeps.

use std::collections::BTreeSet;
use std::fmt;

use audit_schema::dead_letter::DEAD_LETTERS;
use audit_schema::erasure::ERASURES;
use audit_schema::row::{EVENTS, Millis};
use audit_schema::{Event, EventData, EventType, ProjectId, wire};
use chrono::{SecondsFormat, Utc};
use clap::Args;
use rdkafka::error::KafkaError;
use serde::Serialize;
use uuid::Uuid;

use crate::alone::{WayOutError, outwait};
use crate::batch::PartitionId;
use crate::config::Config;
use crate::erasures::{Erasures, Kind, Registered, new_salt, person};
use crate::publish::Publisher;
use crate::store::Store;
use crate::topic::Topic;
use crate::writer::Writer;

mod stored;

use stored::Stored;

/// Most identifiers of one person: ClickHouse looks for at most 255 texts at once.
const MOST_IDENTIFIERS: usize = 200;

/// How many types are named.
const TYPES: usize = 10;

/// How often rows are looked for again that should be gone.
const ROUNDS: usize = 3;

/// Whom to erase.
#[derive(Debug, Clone, Args)]
pub struct Erase {
    /// The project in which they are erased.
    #[arg(long)]
    pub project: ProjectId,
    /// The id of the user.
    #[arg(long, value_name = "ID", value_parser = name)]
    pub user: String,
    /// An e-mail address or name of theirs, beside those in their events: for sign-ins that failed,
    /// which know no user. Can be repeated.
    #[arg(long = "identifier", value_name = "E-MAIL", value_parser = name)]
    pub identifiers: Vec<String>,
    /// Why, and who says so. It is kept, so it should not name the person.
    #[arg(long)]
    pub reason: String,
    /// Do it; without this the command only says what it would do.
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// A text that can stand for somebody: `unknown` stands for everybody who is.
fn name(text: &str) -> Result<String, String> {
    match text {
        "" | "unknown" => Err("this is nobody in particular".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// An e-mail address or name of the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identifier {
    /// It, in small letters.
    pub identifier: String,
    /// How many events have it that are theirs, or nobody's.
    pub events: u64,
    /// How many events of other users have it, which stay.
    pub events_of_others: u64,
}

/// How many events of a type there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfType {
    /// The type.
    pub event_type: String,
    /// How many.
    pub events: u64,
}

/// What was erased, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Erased {
    /// The project.
    pub project: ProjectId,
    /// Which erasure: the id of its event; `None` if nothing was done.
    pub erasure: Option<String>,
    /// Whether it goes on with one that was cut off.
    pub resumed: bool,
    /// How many events.
    pub events: u64,
    /// How many dead letters.
    pub dead_letters: u64,
    /// Their identifiers: those given, and those in their events.
    pub identifiers: Vec<Identifier>,
    /// The most frequent types of the events.
    pub types: Vec<OfType>,
    /// How many events of others have the user's id or an identifier as a text in their data. They
    /// are not touched.
    pub events_that_mention: u64,
    /// Kafka keeps the records until then, if it keeps them as configured.
    pub in_kafka_until: String,
}

impl fmt::Display for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, letters) = (self.events, self.dead_letters);
        writeln!(
            f,
            "project {}: {events} events and {letters} dead letters {}",
            self.project,
            match &self.erasure {
                Some(erasure) => format!("erased; erasure {erasure}"),
                None => "would be erased; --yes does it".to_owned(),
            }
        )?;
        if self.resumed {
            writeln!(f, "  it goes on with an erasure that was cut off")?;
        }
        for found in &self.identifiers {
            write!(
                f,
                "  identifier {}: {} events",
                found.identifier, found.events
            )?;
            match found.events_of_others {
                0 => writeln!(f)?,
                others => writeln!(f, "; {others} of other users stay")?,
            }
        }
        for of in &self.types {
            writeln!(f, "  type {}: {} events", of.event_type, of.events)?;
        }
        if self.events_that_mention > 0 {
            writeln!(
                f,
                "  {} events of others name the person in their data, which stays",
                self.events_that_mention
            )?;
        }
        write!(
            f,
            "  kafka keeps the records until {}; exports and backups have them as well",
            self.in_kafka_until
        )
    }
}

/// Erases a person, or says what would be erased.
pub async fn erase(config: &Config, wanted: &Erase) -> Result<Erased, WayOutError> {
    let writer = Writer::new(&config.clickhouse, config.batch.in_flight);
    let topic = Topic::new(config, writer.client().clone());
    let incarnation = topic.check().await?;
    let id = |partition| PartitionId {
        incarnation,
        partition,
    };
    let engine = config.clickhouse.options().engine;
    let (project, user) = (wanted.project.as_str(), wanted.user.as_str());
    let stored = Stored::new(&writer, &engine, project, user);

    let cut_off = stored.cut_off().await?;
    let salt = writer.erasures().await?.salt(project).map(str::to_owned);
    let mut person = Person {
        id: cut_off
            .first()
            .map_or_else(Uuid::now_v7, |row| row.erasure_id),
        salt: salt.unwrap_or_else(new_salt),
        identifiers: identifiers(&wanted.identifiers, &cut_off, stored.identifiers().await?)
            .map_err(WayOutError::TooManyIdentifiers)?,
        erased_at: writer.clock(id(0)).await?,
        events: 0,
        dead_letters: 0,
    };
    let mut erased = look(&stored, wanted, &person).await?;
    let in_kafka_until = Utc::now() + config.topic.retention;
    erased.in_kafka_until = in_kafka_until.to_rfc3339_opts(SecondsFormat::Secs, true);
    if let Some(first) = cut_off.first() {
        erased.resumed = true;
        (erased.events, erased.dead_letters) = (first.events, first.dead_letters);
    }
    if !wanted.yes {
        return Ok(erased);
    }
    (person.events, person.dead_letters) = (erased.events, erased.dead_letters);
    let event = person.event(wanted).map_err(WayOutError::Unrecordable)?;
    stored.register(&person.rows(wanted)).await?;
    let mut registered = Vec::new();
    for id in (0..topic.partitions().await?).map(id) {
        registered.push((id, writer.latest_clock(id).await?));
    }
    for (id, clock) in registered {
        outwait(&writer, id, Some(clock)).await?;
    }
    rewrite(&stored, wanted, &person).await?;
    publish(&topic, &event)
        .await
        .map_err(WayOutError::Unrecorded)?;
    stored.forget(person.id).await?;
    stored.mutated(ERASURES).await?;
    tracing::warn!(
        project,
        erasure = %person.id,
        events = person.events,
        dead_letters = person.dead_letters,
        reason = wanted.reason,
        "`audit-consumer erase` erased the personal data of a user"
    );
    erased.erasure = Some(person.id.to_string());
    Ok(erased)
}

/// Who is erased, and what was found of them.
struct Person {
    /// The erasure.
    id: Uuid,
    salt: String,
    /// In small letters.
    identifiers: Vec<String>,
    erased_at: Millis,
    events: u64,
    dead_letters: u64,
}

impl Person {
    /// What is registered: a row for each value.
    fn rows(&self, wanted: &Erase) -> Vec<Registered> {
        let project = wanted.project.as_str();
        let row = |(kind, value): (Kind, &str)| Registered {
            erasure_id: self.id,
            project_id: project.to_owned(),
            kind: kind.as_str().to_owned(),
            person: person(&self.salt, project, kind, value),
            salt: self.salt.clone(),
            value: value.to_owned(),
            erased_at: self.erased_at,
            reason: wanted.reason.clone(),
            events: self.events,
            dead_letters: self.dead_letters,
        };
        let identifiers = self.identifiers.iter();
        let identifiers = identifiers.map(|value| (Kind::Identifier, value.as_str()));
        std::iter::once((Kind::User, wanted.user.as_str()))
            .chain(identifiers)
            .map(row)
            .collect()
    }

    /// What letters may have in their bytes.
    fn values(&self, wanted: &Erase) -> Vec<String> {
        let identifiers = self.identifiers.iter().cloned();
        std::iter::once(wanted.user.clone())
            .chain(identifiers)
            .collect()
    }

    /// The event that records the erasure.
    fn event(&self, wanted: &Erase) -> Result<Event<'static>, String> {
        let (salt, project) = (&self.salt, wanted.project.as_str());
        let person = person(salt, project, Kind::User, &wanted.user);
        let data = serde_json::json!({
            "person": person,
            "events": self.events,
            "deadLetters": self.dead_letters,
            "identifiers": self.identifiers.len(),
            "reason": wanted.reason,
        });
        let event = EventData::of(&data).and_then(|data| {
            Event::builder(wanted.project.clone(), EventType::USER_DATA_ERASED)
                .id(self.id.into())
                .event_key(person)
                .event_display_name("the personal data of a user was erased")
                .event_data(data)
                .build()
        });
        let event = event.map_err(|error| error.to_string())?;
        match wire::encode(&event) {
            Ok(_) => Ok(event),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// All that is known of a person's identifiers, in small letters; how many, if they are too many.
fn identifiers(
    given: &[String],
    cut_off: &[Registered],
    in_events: Vec<String>,
) -> Result<Vec<String>, usize> {
    let registered = cut_off
        .iter()
        .filter(|row| row.kind == Kind::Identifier.as_str());
    let identifiers: BTreeSet<String> = given
        .iter()
        .chain(registered.map(|row| &row.value))
        .map(|value| value.to_ascii_lowercase())
        .chain(in_events)
        .collect();
    if identifiers.len() > MOST_IDENTIFIERS {
        return Err(identifiers.len());
    }
    Ok(identifiers.into_iter().collect())
}

/// How many events these are.
fn total(types: &[OfType]) -> u64 {
    types
        .iter()
        .fold(0, |sum, of| sum.saturating_add(of.events))
}

/// Looks at what is stored of a person.
async fn look(stored: &Stored<'_>, wanted: &Erase, person: &Person) -> Result<Erased, WayOutError> {
    let (identifiers, at) = (&person.identifiers, person.erased_at);
    let mut types = stored.types(identifiers, at).await?;
    let events = total(&types);
    types.truncate(TYPES);
    let registry = Erasures::of(&person.rows(wanted));
    let letters = stored.letters(&registry, person.values(wanted)).await?;
    Ok(Erased {
        project: wanted.project.clone(),
        erasure: None,
        resumed: false,
        events,
        dead_letters: u64::try_from(letters.len()).unwrap_or(u64::MAX),
        identifiers: stored.counts(identifiers).await?,
        types,
        events_that_mention: stored.mentions(identifiers, at).await?,
        in_kafka_until: String::new(),
    })
}

/// Empties what is stored of a person, until nothing is found.
async fn rewrite(stored: &Stored<'_>, wanted: &Erase, person: &Person) -> Result<(), WayOutError> {
    let registry = Erasures::of(&person.rows(wanted));
    for round in 0..=ROUNDS {
        // Also those of an erasure that was cut off.
        stored.mutated(EVENTS).await?;
        stored.mutated(DEAD_LETTERS).await?;
        let types = stored.types(&person.identifiers, person.erased_at).await?;
        let letters = stored.letters(&registry, person.values(wanted)).await?;
        if types.is_empty() && letters.is_empty() {
            break;
        }
        if round == ROUNDS {
            return Err(WayOutError::NotErased {
                events: total(&types),
                letters: letters.len(),
            });
        }
        if !types.is_empty() {
            stored.rewrite_events(person.id, person.erased_at).await?;
        }
        stored.rewrite_letters(&letters).await?;
    }
    Ok(())
}

/// Publishes an event, marked as one that may have been published before.
async fn publish(topic: &Topic, event: &Event<'_>) -> Result<(), KafkaError> {
    let (key, value) = (wire::key(event), wire::encode(event).unwrap_or_default());
    let publisher = Publisher::new(topic)?;
    let sent = publisher.publish(None, &key, &value)?;
    sent.delivered().await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_those_given_found_and_registered_once_each() {
        let given = ["Ann@B.c".to_owned(), "ann".to_owned()];
        let all = identifiers(&given, &[], vec!["ann@b.c".to_owned(), "x".to_owned()]).unwrap();
        assert_eq!(all, ["ann", "ann@b.c", "x"]);
        let many = (0..=MOST_IDENTIFIERS).map(|n| n.to_string()).collect();
        assert!(identifiers(&[], &[], many).is_err());
    }

    #[test]
    fn the_event_of_an_erasure_names_nobody() {
        let wanted = Erase {
            project: "acme".parse().unwrap(),
            user: "user-1".to_owned(),
            identifiers: Vec::new(),
            reason: "asked for by letter; Ana".to_owned(),
            yes: true,
            json: false,
        };
        let person = Person {
            id: Uuid::now_v7(),
            salt: new_salt(),
            identifiers: vec!["ann@b.c".to_owned()],
            erased_at: Millis(1),
            events: 3,
            dead_letters: 1,
        };
        let event = person.event(&wanted).unwrap();
        assert_eq!(event.id.as_uuid(), person.id);
        let value = String::from_utf8(wire::encode(&event).unwrap()).unwrap();
        assert!(
            !value.contains("user-1") && !value.contains("ann@b.c"),
            "{value}"
        );
        let long = Erase {
            reason: "x".repeat(wire::MAX_EVENT_BYTES),
            ..wanted
        };
        assert!(person.event(&long).is_err());
    }
}
