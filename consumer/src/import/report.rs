//! What is said of an import: while it goes on, and in the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Format, Prepared};
use crate::dead_letters::time;

/// How many types are told apart; a file may make up as many as it has events.
const MOST_TYPES: usize = 200;

/// What cannot be an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The number of its line; from 1.
    pub line: u64,
    /// Its place among several in this line; from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(event) = self.event {
            write!(f, ", event {event}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Why an import ended before the file did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// What happened.
    pub reason: String,
    /// Where to go on: all events before this line are dealt with.
    pub from_line: u64,
}

/// What was imported, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// Whether it was done, or only said.
    pub done: bool,
    /// Whose events they are now.
    pub project: String,
    /// The format of the file; `auto` if none of its lines told it.
    pub format: Format,
    /// How many events the file has.
    pub events: u64,
    /// How many of them are not stored yet: published, or to be published.
    pub new: u64,
    /// How many are stored already, or are in the file twice.
    pub stored_already: u64,
    /// How many cannot be events; a line that cannot be read counts once.
    pub refused: u64,
    /// The first of these.
    pub refused_named: Vec<Refused>,
    /// How many events there are of each type.
    pub types: BTreeMap<String, u64>,
    /// How many there are of further types.
    pub other_types: u64,
    /// When the first of them happened …
    pub first: Option<String>,
    /// … and the last.
    pub last: Option<String>,
    /// What is missing in the file, if that can be known.
    pub cut: Option<String>,
    /// Why it ended before the file did.
    pub stopped: Option<Stopped>,
}

impl Imported {
    pub(super) fn none_of(project: String, done: bool) -> Self {
        Self {
            done,
            project,
            format: Format::Auto,
            events: 0,
            new: 0,
            stored_already: 0,
            refused: 0,
            refused_named: Vec::new(),
            types: BTreeMap::new(),
            other_types: 0,
            first: None,
            last: None,
            cut: None,
            stopped: None,
        }
    }

    /// Whether all of the file was taken, and the file is whole.
    pub fn is_well(&self) -> bool {
        self.refused == 0 && self.cut.is_none() && self.stopped.is_none()
    }

    /// Counts an event.
    pub(super) fn count(&mut self, event: &Prepared) {
        self.events = self.events.saturating_add(1);
        // Texts of one form, in UTC: they are in the order of time.
        let at = time(event.id.created_at);
        if self.first.as_ref().is_none_or(|first| at < *first) {
            self.first = Some(at.clone());
        }
        if self.last.as_ref().is_none_or(|last| at > *last) {
            self.last = Some(at);
        }
        let known = self.types.contains_key(&event.event_type);
        let events = if known || self.types.len() < MOST_TYPES {
            self.types.entry(event.event_type.clone()).or_default()
        } else {
            &mut self.other_types
        };
        *events = events.saturating_add(1);
    }

    /// Counts what was refused, and keeps up to `named` of it.
    pub(super) fn refuse(&mut self, refused: Vec<Refused>, named: usize) {
        let more = u64::try_from(refused.len()).unwrap_or(u64::MAX);
        self.refused = self.refused.saturating_add(more);
        let room = named.saturating_sub(self.refused_named.len());
        self.refused_named.extend(refused.into_iter().take(room));
    }
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, format) = (self.events, self.format.name());
        writeln!(
            f,
            "{what} events of format {format} for project {}",
            self.project
        )?;
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            writeln!(f, "from {first} to {last}")?;
        }
        for (name, events) in &self.types {
            writeln!(f, "  {events} {name}")?;
        }
        if self.other_types > 0 {
            writeln!(f, "  {} of other types", self.other_types)?;
        }
        let done = if self.done {
            "published"
        } else {
            "would be published; --yes does it"
        };
        writeln!(f, "{} stored already", self.stored_already)?;
        write!(f, "{} {done}", self.new)?;
        if self.refused > 0 {
            write!(f, "\n{} REFUSED, among them", self.refused)?;
        }
        for refused in &self.refused_named {
            write!(f, "\n  {refused}")?;
        }
        if let Some(cut) = &self.cut {
            write!(f, "\nINCOMPLETE: {cut}")?;
        }
        if let Some(Stopped { reason, from_line }) = &self.stopped {
            write!(
                f,
                "\nSTOPPED: {reason}; --from-line {from_line} goes on, or run it again"
            )?;
        }
        Ok(())
    }
}

/// How far an import has come.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// How many events were dealt with.
    pub events: u64,
    /// The line to go on from.
    pub next_line: u64,
    /// How many bytes of the file are behind it.
    pub bytes: u64,
    /// How many the file has, if that can be known.
    pub size: Option<u64>,
    /// Since it began.
    pub after: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second =
            |count: u64| u128::from(count).saturating_mul(1000) / self.after.as_millis().max(1);
        write!(
            f,
            "{} events, {}/s, {} ",
            self.events,
            per_second(self.events),
            mb(self.bytes)
        )?;
        if let Some(size) = self.size {
            let left = u128::from(size.saturating_sub(self.bytes));
            let left = left / per_second(self.bytes).max(1);
            write!(f, "of {} MB, {left} s left", mb(size))?;
        } else {
            write!(f, "MB")?;
        }
        write!(f, "; --from-line {} goes on from here", self.next_line)
    }
}

fn mb(bytes: u64) -> u64 {
    bytes / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_the_time_left_by_the_bytes_of_the_file() {
        let mut step = Step {
            events: 30_000,
            next_line: 30_001,
            bytes: 25_000_000,
            size: Some(100_000_000),
            after: Duration::from_secs(10),
        };
        assert_eq!(
            step.to_string(),
            "30000 events, 3000/s, 25 of 100 MB, 30 s left; --from-line 30001 goes on from here"
        );
        step.size = None;
        assert_eq!(
            step.to_string(),
            "30000 events, 3000/s, 25 MB; --from-line 30001 goes on from here"
        );
    }

    #[test]
    fn only_so_many_refused_lines_are_named() {
        let refused = |line| Refused {
            line,
            event: None,
            reason: "no".to_owned(),
        };
        let mut imported = Imported::none_of("acme".to_owned(), false);
        imported.refuse((1..=3).map(refused).collect(), 4);
        imported.refuse((4..=9).map(refused).collect(), 4);
        assert_eq!((imported.refused, imported.refused_named.len()), (9, 4));
        assert!(!imported.is_well());
    }
}
