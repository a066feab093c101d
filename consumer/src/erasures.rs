//! Erasures: who was erased, as hashes, and what becomes of records that name them.
//!
//! Kafka still has the records of a person who was erased, spools may have more, and letters are
//! replayed. So every insert empties what it stores of such a person, if that happened or was taken
//! by Kafka before the erasure. A person may come back: what is later than both is stored as it is.
//!
//! The registry has no names. Whoever has it can ask whether somebody is in it, which is its
//! purpose, so its hashes are a guard against reading it by chance, not against a guess.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use audit_schema::ProjectId;
use audit_schema::dead_letter::{DUPLICATE, DeadLetter};
use audit_schema::erasure::{ERASED_REASON, erase};
use audit_schema::row::{EventColumns, Millis};
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What of a person a row of the registry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Their id.
    User,
    /// An e-mail address or a name, in small letters (ASCII).
    Identifier,
}

impl Kind {
    /// The word it is stored as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Identifier => "identifier",
        }
    }
}

/// One row of the registry.
#[derive(Debug, Clone, Row, Serialize, Deserialize)]
pub struct Registered {
    /// Which erasure.
    #[serde(with = "clickhouse::serde::uuid")]
    pub erasure_id: Uuid,
    /// In which project.
    pub project_id: String,
    /// What it is a hash of.
    pub kind: String,
    /// The hash.
    pub person: String,
    /// What it was salted with.
    pub salt: String,
    /// What it is a hash of, while the erasure is at work.
    pub value: String,
    /// What is earlier is erased.
    pub erased_at: Millis,
    /// Why, and by whom.
    pub reason: String,
    /// How many events there were to erase.
    pub events: u64,
    /// How many dead letters there were to erase.
    pub dead_letters: u64,
}

fn digest(salt: &str, project: &str, kind: Kind, value: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [salt, project, kind.as_str()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(value);
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// The hash that stands for a person in a project.
pub(crate) fn person(salt: &str, project: &str, kind: Kind, value: &str) -> String {
    hex(&digest(salt, project, kind, value))
}

/// A salt that nobody had before.
pub(crate) fn new_salt() -> String {
    hex(&rand::random::<[u8; 16]>())
}

/// The erasures of one project.
#[derive(Debug, Default)]
struct OfProject {
    /// Nothing that is later is touched.
    newest: Millis,
    /// By salt and hash when they were erased. A second salt is there only if two first erasures of
    /// the project ran at once.
    salts: HashMap<String, HashMap<String, Millis>>,
}

impl OfProject {
    fn is_erased(&self, project: &str, kind: Kind, value: &str, at: Millis) -> bool {
        let of = |(salt, persons): (&String, &HashMap<String, Millis>)| {
            persons
                .get(&person(salt, project, kind, value))
                .is_some_and(|erased_at| at < *erased_at)
        };
        !value.is_empty() && self.salts.iter().any(of)
    }

    fn is_user(&self, project: &str, value: &str, at: Millis) -> bool {
        self.is_erased(project, Kind::User, value, at)
    }

    fn is_identifier(&self, project: &str, value: &str, at: Millis) -> bool {
        let value = value.to_ascii_lowercase();
        self.is_erased(project, Kind::Identifier, &value, at)
    }
}

/// The registry, as it was read.
#[derive(Debug, Default)]
pub struct Erasures {
    rows: u64,
    projects: HashMap<String, OfProject>,
}

impl Erasures {
    /// The registry that has these rows.
    pub fn of(rows: &[Registered]) -> Self {
        let mut projects: HashMap<String, OfProject> = HashMap::new();
        for row in rows {
            let project = projects.entry(row.project_id.clone()).or_default();
            project.newest = project.newest.max(row.erased_at);
            let persons = project.salts.entry(row.salt.clone()).or_default();
            let erased_at = persons.entry(row.person.clone()).or_default();
            *erased_at = row.erased_at.max(*erased_at);
        }
        Self {
            rows: u64::try_from(rows.len()).unwrap_or(u64::MAX),
            projects,
        }
    }

    /// How many rows it has: it only grows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The salt of a project that has erasures.
    pub(crate) fn salt(&self, project: &str) -> Option<&str> {
        let salts = &self.projects.get(project)?.salts;
        salts.keys().map(String::as_str).min()
    }

    /// These events without what they say of people who were erased; `None` if they say nothing of
    /// them.
    pub fn erased(&self, events: &EventColumns) -> Option<EventColumns> {
        let is_early = |project: &str, at: Millis| {
            let of = self.projects.get(project);
            of.filter(|of| at < of.newest)
        };
        let mut times = events.times();
        if self.projects.is_empty()
            || !times.any(|(project, created_at, logged_at)| {
                is_early(project, created_at.min(logged_at)).is_some()
            })
        {
            return None;
        }
        let (mut erased, mut found) = (EventColumns::default(), false);
        for mut row in events.rows() {
            let (project, at) = (row.project_id.clone(), row.created_at.min(row.logged_at));
            if let Some(of) = is_early(&project, at) {
                found |= erase(
                    &mut row,
                    |value| of.is_user(&project, value, at),
                    |value| of.is_identifier(&project, value, at),
                );
            }
            erased.push_read(&row);
        }
        found.then_some(erased)
    }

    /// This dead letter, without its bytes if they name somebody who was erased.
    pub fn letter<'a>(&self, letter: &'a DeadLetter) -> Cow<'a, DeadLetter> {
        if !self.names(&letter.key, &letter.value, letter.logged_at) {
            return Cow::Borrowed(letter);
        }
        Cow::Owned(DeadLetter {
            reason: match letter.kind {
                DUPLICATE => letter.reason.clone(),
                _ => ERASED_REASON.to_owned(),
            },
            key: Vec::new(),
            value: Vec::new(),
            ..letter.clone()
        })
    }

    /// Whether a record that is no event names somebody who was erased. Its key says in which
    /// project; one that says none is looked at for all.
    pub fn names(&self, key: &[u8], value: &[u8], logged_at: Millis) -> bool {
        if self.projects.is_empty() || (key.is_empty() && value.is_empty()) {
            return false;
        }
        let key = String::from_utf8_lossy(key);
        let (project, name) = key.split_once('/').unwrap_or((&key, ""));
        let any_project = project.parse::<ProjectId>().is_err();
        let at = logged_at.min(created_at(value).unwrap_or(logged_at));
        let of = self.projects.iter().filter(|(erased_in, erased)| {
            (any_project || *erased_in == project) && at < erased.newest
        });
        let mut of = of.peekable();
        if of.peek().is_none() {
            return false;
        }
        let mut words = words(&String::from_utf8_lossy(value));
        words.extend([name.to_owned(), key.clone().into_owned()]);
        of.any(|(project, of)| {
            words
                .iter()
                .any(|word| of.is_user(project, word, at) || of.is_identifier(project, word, at))
        })
    }
}

/// When an event happened, if its bytes can be read so far.
fn created_at(value: &[u8]) -> Option<Millis> {
    #[derive(Deserialize)]
    struct Stated {
        #[serde(rename = "createdAt")]
        created_at: i64,
    }
    let stated = serde_json::from_slice::<Stated>(value).ok()?;
    Some(Millis(stated.created_at))
}

/// What may be a name in bytes of any kind: what stands between quotes, as JSON means it, and what
/// stands between blanks and punctuation.
fn words(text: &str) -> HashSet<String> {
    let between = |c: char| c.is_whitespace() || c.is_control() || "\"'\\{}[](),;<>=&".contains(c);
    let mut words: HashSet<String> = text
        .split(between)
        .flat_map(|word| [word, word.trim_matches(':')])
        .map(str::to_owned)
        .collect();
    let (mut last, mut escaped) = (None, false);
    for (place, c) in text.char_indices() {
        if c == '"' && !escaped {
            let quoted = last.and_then(|last| text.get(last..=place));
            words.extend(quoted.and_then(|text| serde_json::from_str::<String>(text).ok()));
            last = Some(place);
        }
        escaped = c == '\\' && !escaped;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_schema::{Event, EventType, Position};

    const ERASED_AT: i64 = 1_700_000_000_000;

    fn registry() -> Erasures {
        let row = |kind: Kind, value| Registered {
            erasure_id: Uuid::nil(),
            project_id: "acme".into(),
            kind: kind.as_str().into(),
            person: person("salt", "acme", kind, value),
            salt: "salt".into(),
            value: String::new(),
            erased_at: Millis(ERASED_AT),
            reason: "asked for; Ana".into(),
            events: 0,
            dead_letters: 0,
        };
        Erasures::of(&[
            row(Kind::User, "u1"),
            row(Kind::Identifier, "a@b.c"),
            row(Kind::Identifier, "ann \u{e9}"),
        ])
    }

    /// Events of these projects and users, which happened and were logged at these times.
    fn events(of: &[(&'static str, &'static str, i64, i64)]) -> EventColumns {
        let mut columns = EventColumns::default();
        for (offset, (project, user, created_at, logged_at)) in (0..).zip(of) {
            let event = Event::builder(project.parse().unwrap(), EventType::USER_SIGNED_IN)
                .created_at(Millis(*created_at).into())
                .event_key(*user)
                .user_id(*user);
            let position = Position {
                incarnation: 1,
                partition: 0,
                offset,
            };
            columns.push(&event.build().unwrap(), position, Millis(*logged_at));
        }
        columns
    }

    fn users(columns: &EventColumns) -> Vec<String> {
        columns.rows().map(|row| row.user_id).collect()
    }

    #[test]
    fn what_happened_or_was_taken_before_the_erasure_is_erased_and_no_later_event() {
        let (before, after) = (ERASED_AT - 1, ERASED_AT);
        let columns = events(&[
            ("acme", "u1", before, before),
            // From a spool that drains late, and from a clock that is ahead.
            ("acme", "u1", before, after),
            ("acme", "u1", after, before),
            ("acme", "u1", after, after),
            ("acme", "u2", before, before),
            ("other", "u1", before, before),
        ]);
        let erased = registry().erased(&columns).unwrap();
        assert_eq!(users(&erased), ["", "", "", "u1", "u2", "u1"]);
        let (was, is): (Vec<_>, Vec<_>) = (columns.rows().collect(), erased.rows().collect());
        assert_eq!(was[3..], is[3..]);
        assert_eq!(columns.offsets(), erased.offsets());
    }

    #[test]
    fn events_that_name_nobody_who_was_erased_are_not_copied() {
        let others = events(&[("acme", "u2", 1, 1), ("acme", "u1", ERASED_AT, ERASED_AT)]);
        assert!(registry().erased(&others).is_none());
        assert!(
            Erasures::default()
                .erased(&events(&[("acme", "u1", 1, 1)]))
                .is_none()
        );
    }

    #[test]
    fn a_record_names_a_person_in_quotes_between_blanks_and_in_its_key() {
        let names =
            |key: &str, value: &str| registry().names(key.as_bytes(), value.as_bytes(), Millis(1));
        for value in [
            r#"{"userId":"u1""#,
            r#"{"userId": u1}"#,
            r#"{"name":"\u0041nn \u00e9"}"#,
            r#"{"inner":"{\"email\":\"A@b.C\"}"}"#,
            "who=u1&what=x",
            "text with a@b.c in it",
            r#"cut", "a@b.c", "x"#,
        ] {
            assert!(names("acme/x", value), "{value}");
            assert!(names("no project", value), "{value}");
            assert!(!names("other/x", value), "{value}");
        }
        assert!(names("acme/u1", "\u{0}"));
        for others in [r#"{"userId":"u12"}"#, "", "u", r#"{"a@b.cc":1}"#] {
            assert!(!names("acme/u2", others), "{others}");
        }
    }

    #[test]
    fn a_record_that_came_later_is_kept_unless_it_says_that_it_happened_before() {
        let names = |value: &str| registry().names(b"acme/u1", value.as_bytes(), Millis(ERASED_AT));
        assert!(!names("garbage"));
        assert!(names(r#"{"createdAt":1600000000000,"typo":1}"#));
    }

    #[test]
    fn a_letter_loses_its_bytes_and_what_quotes_them() {
        let mut letter = DeadLetter {
            position: Position {
                incarnation: 1,
                partition: 0,
                offset: 7,
            },
            last_offset: 7,
            kind: "malformed",
            reason: "not an event: unknown field `u1`".into(),
            key: b"acme/u1".to_vec(),
            value: b"{\"u1\":1}".to_vec(),
            logged_at: Millis(1),
        };
        let erased = registry().letter(&letter).into_owned();
        assert_eq!(erased.reason, ERASED_REASON);
        assert!(erased.key.is_empty() && erased.value.is_empty());
        assert_eq!(
            (erased.position, erased.kind),
            (letter.position, letter.kind)
        );
        letter.logged_at = Millis(ERASED_AT);
        assert_eq!(*registry().letter(&letter), letter);
    }

    #[test]
    fn a_hash_is_one_of_its_project_and_kind() {
        let of = |project, kind| person("s", project, kind, "x");
        assert_ne!(of("a", Kind::User), of("b", Kind::User));
        assert_ne!(of("a", Kind::User), of("a", Kind::Identifier));
        assert_ne!(new_salt(), new_salt());
        assert_eq!(new_salt().len(), 32);
    }
}
