//! What was published against what is stored.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context;
use audit_tests::world::World;
use serde_json::Value;

use crate::traffic::{Books, Letter};

/// How many of each kind are named.
const NAMED: usize = 20;

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Rows of events.
    pub(crate) stored: usize,
    /// Events that were acknowledged and are not stored.
    pub(crate) lost: Named,
    /// Events that are in more than one row.
    pub(crate) doubled: Named,
    /// Events that are stored and were never published.
    pub(crate) unknown: Named,
    /// Dead letters that have to be there.
    pub(crate) letters_expected: usize,
    pub(crate) letters_there: usize,
    pub(crate) letters_missing: Named,
    pub(crate) letters_doubled: Named,
    /// Dead letters of records that were not garbage, or of another kind.
    pub(crate) letters_unknown: Named,
    /// What `audit-consumer verify` says of each partition.
    pub(crate) verdicts: Value,
    /// What is wrong with those.
    pub(crate) verify_complaints: Vec<String>,
}

/// So many, and the first of them.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) count: usize,
    pub(crate) first: Vec<String>,
}

impl Named {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(name());
        }
    }
}

impl Found {
    /// Whether everything is there once and nothing else is.
    pub(crate) fn holds(&self) -> bool {
        let wrong = [
            &self.lost,
            &self.doubled,
            &self.unknown,
            &self.letters_missing,
            &self.letters_doubled,
            &self.letters_unknown,
        ];
        wrong.iter().all(|named| named.count == 0) && self.verify_complaints.is_empty()
    }
}

/// Compares, when all is counted whose log ends at `ends`.
pub(crate) async fn compare(world: &World, books: &Books, ends: &[i64]) -> anyhow::Result<Found> {
    let rows = "SELECT event_id, count() FROM audit_events GROUP BY event_id";
    let rows = world.sql(rows).await?;
    let letters = "SELECT kind, hex(record_key), hex(SHA256(record_value)), count() \
                   FROM audit_dead_letters GROUP BY ALL";
    let letters = world.sql(letters).await?;
    let (verdicts, verify_complaints) = verify(world, ends)?;
    let mut found = Found {
        stored: 0,
        lost: Named::default(),
        doubled: Named::default(),
        unknown: Named::default(),
        letters_expected: books.letters.values().filter(|must| **must).count(),
        letters_there: 0,
        letters_missing: Named::default(),
        letters_doubled: Named::default(),
        letters_unknown: Named::default(),
        verdicts,
        verify_complaints,
    };
    compare_events(&mut found, books, &rows)?;
    compare_letters(&mut found, &books.letters, &letters)?;
    Ok(found)
}

fn compare_events(found: &mut Found, books: &Books, rows: &str) -> anyhow::Result<()> {
    let mut stored = HashMap::new();
    for row in rows.lines() {
        let (id, times) = row.split_once('\t').context("an id and how often")?;
        let times: usize = times.parse()?;
        found.stored += times;
        if times > 1 {
            found.doubled.add(|| format!("{id} ×{times}"));
        }
        stored.insert(id, times);
    }
    let mut published = HashSet::new();
    for id in &books.acknowledged {
        let id = id.to_string();
        if !stored.contains_key(id.as_str()) {
            found.lost.add(|| id.clone());
        }
        published.insert(id);
    }
    published.extend(books.unacknowledged.iter().map(ToString::to_string));
    for id in stored.keys().filter(|id| !published.contains(**id)) {
        found.unknown.add(|| (*id).to_owned());
    }
    Ok(())
}

fn compare_letters(
    found: &mut Found,
    letters: &BTreeMap<Letter, bool>,
    rows: &str,
) -> anyhow::Result<()> {
    let mut stored = HashSet::new();
    for row in rows.lines() {
        let mut columns = row.split('\t').map(str::to_owned);
        let mut column = || columns.next().context("four columns");
        let letter = (column()?, column()?, column()?);
        let times: usize = column()?.parse()?;
        // A producer that replaced its client has sent again what the old one did not confirm.
        let sent_again = letter.0 == "duplicate";
        match letters.get(&letter) {
            None if sent_again => {}
            None => found.letters_unknown.add(|| format!("{letter:?}")),
            Some(must) => found.letters_there += usize::from(*must),
        }
        if times > 1 && !sent_again {
            found.letters_doubled.add(|| format!("{letter:?} ×{times}"));
        }
        stored.insert(letter);
    }
    for (letter, _) in letters.iter().filter(|(_, must)| **must) {
        if !stored.contains(letter) {
            found.letters_missing.add(|| format!("{letter:?}"));
        }
    }
    Ok(())
}

/// What `verify` says, and what is wrong with it: it cannot know where the logs begin and end.
fn verify(world: &World, ends: &[i64]) -> anyhow::Result<(Value, Vec<String>)> {
    let output = world
        .command("audit-consumer", &["verify", "--json"])?
        .output()?;
    let verdicts: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("verify says nothing: {error}")
    })?;
    let mut complaints = Vec::new();
    if !output.status.success() {
        complaints.push(format!("verify ended with {}", output.status));
    }
    for (partition, end) in ends.iter().enumerate() {
        let all = verdicts.as_array().into_iter().flatten();
        let of = all.filter(|verdict| verdict["partition"] == partition);
        let spans: Vec<_> = of
            .map(|verdict| (&verdict["first"], &verdict["end"]))
            .collect();
        let right = match spans[..] {
            [] => *end == 0,
            [(first, last)] => *first == 0 && *last == *end,
            _ => false,
        };
        if !right {
            complaints.push(format!(
                "partition {partition} ends at {end}, not {spans:?}"
            ));
        }
    }
    Ok((verdicts, complaints))
}
