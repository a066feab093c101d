//! Losses are audited: what had to be dropped is counted, and reported as an event.
//!
//! Counted is by project, type and reason. The report goes out when Kafka takes events again, as
//! an event [`AUDIT_EVENTS_LOST`](EventType::AUDIT_EVENTS_LOST) of the project whose events they
//! were, once. With a spool the counts outlive the process: they are kept in its folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use audit_schema::{Actor, Event, EventData, EventId, EventType, Outcome, ProjectId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Most counts kept apart; what is beyond is counted as of the type `other`.
const MAX_COUNTS: usize = 1_000;

const FILE: &str = "lost.json";

/// Which losses are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    project_id: ProjectId,
    event_type: String,
    reason: String,
}

/// Losses of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    #[serde(flatten)]
    kind: Kind,
    events: u64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    /// The id of the report, and so its time: one that is sent again is stored once.
    report: Option<EventId>,
}

/// What was lost and is not reported yet.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    open: BTreeMap<Kind, Count>,
    /// Reports on their way; they do not change any more.
    reporting: Vec<Count>,
    file: Option<PathBuf>,
    changed: bool,
}

impl Losses {
    /// No losses, or those that an earlier process noted in `folder`.
    pub(crate) fn open(folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| folder.join(FILE));
        let mut losses = Self {
            file,
            ..Self::default()
        };
        let Some(file) = &losses.file else {
            return losses;
        };
        let noted = match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice::<Vec<Count>>(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return losses,
            Err(error) => Err(error),
        };
        match noted {
            Ok(counts) => {
                for count in counts {
                    match count.report {
                        Some(_) => losses.reporting.push(count),
                        None => drop(losses.open.insert(count.kind.clone(), count)),
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, file = %file.display(), "losses noted by an earlier process cannot be read");
            }
        }
        losses
    }

    /// Counts one event.
    pub(crate) fn count(&mut self, event: &Event<'_>, reason: &str, now: DateTime<Utc>) {
        let mut kind = Kind {
            project_id: event.project_id.clone(),
            event_type: event.event_type.as_str().to_owned(),
            reason: reason.to_owned(),
        };
        if self.open.len() >= MAX_COUNTS && !self.open.contains_key(&kind) {
            "other".clone_into(&mut kind.event_type);
        }
        let count = self.open.entry(kind.clone()).or_insert(Count {
            kind,
            events: 0,
            first_at: now,
            last_at: now,
            report: None,
        });
        count.events = count.events.saturating_add(1);
        count.last_at = now;
        self.changed = true;
    }

    /// Whether something is to be reported.
    pub(crate) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The reports that an earlier process may have sent.
    pub(crate) fn inherited(&self) -> Vec<Event<'static>> {
        self.reporting.iter().filter_map(report).collect()
    }

    /// Closes the counts, and gives their reports. They are kept until
    /// [`reported`](Self::reported).
    pub(crate) fn take_reports(&mut self) -> Vec<Event<'static>> {
        let mut reports = Vec::new();
        for (_, mut count) in std::mem::take(&mut self.open) {
            count.report = Some(EventId::new());
            reports.extend(report(&count));
            self.reporting.push(count);
        }
        self.changed = true;
        reports
    }

    /// These reports are durable.
    pub(crate) fn reported(&mut self, ids: &[EventId]) {
        self.reporting
            .retain(|count| count.report.is_none_or(|id| !ids.contains(&id)));
        self.changed |= !ids.is_empty();
    }

    /// These reports were refused: what they say is reported later.
    pub(crate) fn reopen(&mut self, ids: &[EventId]) {
        let refused = |count: &mut Count| count.report.is_some_and(|id| ids.contains(&id));
        for mut count in self.reporting.extract_if(.., refused) {
            count.report = None;
            let since = self.open.entry(count.kind.clone()).or_insert(Count {
                events: 0,
                ..count.clone()
            });
            since.events = since.events.saturating_add(count.events);
            since.first_at = since.first_at.min(count.first_at);
            since.last_at = since.last_at.max(count.last_at);
            self.changed = true;
        }
    }

    /// What has to be written to the file, if anything changed since the last call.
    pub(crate) fn take_note(&mut self) -> Option<Note> {
        let file = self.file.clone().filter(|_| self.changed)?;
        self.changed = false;
        let counts: Vec<&Count> = self.open.values().chain(&self.reporting).collect();
        // Texts, numbers and times cannot fail to serialize.
        let text = serde_json::to_vec_pretty(&counts).unwrap_or_default();
        Some(Note { file, text })
    }
}

/// The state of the losses, to be written without holding anybody up.
pub(crate) struct Note {
    file: PathBuf,
    text: Vec<u8>,
}

impl Note {
    /// Replaces the file whole.
    pub(crate) fn write(self) -> io::Result<()> {
        let new = self.file.with_extension("json.new");
        std::fs::write(&new, self.text)?;
        std::fs::rename(new, self.file)
    }
}

fn report(count: &Count) -> Option<Event<'static>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data<'a> {
        event_type: &'a str,
        reason: &'a str,
        count: u64,
        first_at: DateTime<Utc>,
        last_at: DateTime<Utc>,
    }
    let Kind {
        project_id,
        event_type,
        reason,
    } = &count.kind;
    let data = EventData::of(&Data {
        event_type,
        reason,
        count: count.events,
        first_at: count.first_at,
        last_at: count.last_at,
    });
    Event::builder(project_id.clone(), EventType::AUDIT_EVENTS_LOST)
        .id(count.report?)
        .event_key("audit_events_lost")
        .event_display_name(format!("{} events {event_type} were lost", count.events))
        .actor(Actor {
            id: "audit-producer".into(),
            kind: "system".into(),
        })
        .outcome(Outcome::Failure)
        .event_data(data.ok()?)
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(project: &str, name: &'static str) -> Event<'static> {
        let name = EventType::new(name).unwrap();
        Event::builder(project.parse().unwrap(), name)
            .build()
            .unwrap()
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    #[test]
    fn losses_are_reported_to_the_project_whose_they_were() {
        let mut losses = Losses::default();
        losses.count(&event("acme", "user_signed_in"), "spool_full", at(0));
        losses.count(&event("acme", "user_signed_in"), "spool_full", at(5));
        losses.count(&event("other", "user_signed_in"), "buffer_full", at(7));
        let reports = losses.take_reports();
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[0].project_id.as_str(), "acme");
        assert_eq!(
            reports[0].event_data.get(),
            r#"{"eventType":"user_signed_in","reason":"spool_full","count":2,"firstAt":"2023-11-14T22:13:20Z","lastAt":"2023-11-14T22:13:25Z"}"#
        );
        assert!(!losses.has_open());
    }

    #[test]
    fn losses_outlive_the_process_and_keep_the_id_of_their_report() {
        let folder = tempfile::tempdir().unwrap();
        let mut losses = Losses::open(Some(folder.path()));
        losses.count(&event("acme", "a"), "spool_full", at(0));
        let sent = losses.take_reports();
        losses.count(&event("acme", "b"), "spool_full", at(1));
        losses.take_note().unwrap().write().unwrap();
        assert!(losses.take_note().is_none());

        let mut next = Losses::open(Some(folder.path()));
        let again = next.inherited();
        assert_eq!(
            (again[0].id, again[0].created_at),
            (sent[0].id, sent[0].created_at)
        );
        assert_eq!(again[0].event_data.get(), sent[0].event_data.get());
        assert!(next.has_open());
        next.reported(&[again[0].id]);
        next.take_note().unwrap().write().unwrap();
        assert!(Losses::open(Some(folder.path())).inherited().is_empty());
    }

    #[test]
    fn many_types_do_not_grow_the_counts_without_end() {
        let mut losses = Losses::default();
        for number in 0..2 * MAX_COUNTS {
            let name = EventType::new(format!("type.{number}")).unwrap();
            let event = Event::builder("acme".parse().unwrap(), name)
                .build()
                .unwrap();
            losses.count(&event, "spool_full", at(0));
        }
        let reports = losses.take_reports();
        assert_eq!(reports.len(), MAX_COUNTS + 1);
        let other = reports
            .iter()
            .find(|r| r.event_data.get().contains("\"other\""));
        assert!(other.unwrap().event_data.get().contains("\"count\":1000"));
    }
}
