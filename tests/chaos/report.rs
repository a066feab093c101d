//! The one JSON document that a run ends with.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::compare::{Found, Named};
use crate::field::Field;
use crate::flow::{Mark, Stall};
use crate::schedule::{Kind, Step};
use crate::traffic::Books;

/// A step that was done, with its marks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) step: Step,
    pub(crate) applied: Mark,
    pub(crate) lifted: Mark,
}

impl Done {
    /// Until when its harm lasted.
    fn over(&self) -> Option<Instant> {
        Some(self.applied.full_flow?.max(self.lifted.full_flow?))
    }

    /// Whether no other harm was done from when it began until all flowed again.
    fn alone(&self, all: &[Self]) -> bool {
        let Some(over) = self.over() else {
            return false;
        };
        let others = all.iter().filter(|other| other.step != self.step);
        others.clone().all(|other| {
            let ended = other.over().is_some_and(|ended| ended < self.applied.at);
            ended || other.applied.at > over
        })
    }
}

/// All that a run has shown.
pub(crate) struct Shown<'a> {
    pub(crate) seed: u64,
    pub(crate) minutes: f64,
    pub(crate) rate: u64,
    pub(crate) start: Instant,
    pub(crate) field: &'a Field,
    pub(crate) books: &'a Books,
    pub(crate) done: &'a [Done],
    pub(crate) found: &'a Found,
    /// Whether events flowed in every partition in time after the last harm.
    pub(crate) flowed_again: bool,
    /// How long counting took to pass the end of every log; `None` if it did not in time.
    pub(crate) drained_after: Option<Duration>,
}

impl Shown<'_> {
    /// Whether all promises were kept.
    pub(crate) fn holds(&self) -> bool {
        self.found.holds() && self.flowed_again && self.drained_after.is_some()
    }
}

/// The document in one line.
pub(crate) fn summary(shown: &Shown<'_>) -> String {
    let Shown { books, found, .. } = shown;
    let tally = shown.field.tally();
    format!(
        "{}: {} kills; {} events acknowledged, {} lost, {} doubled, {} unknown; {} dead letters \
         expected, {} missing, {} doubled, {} unknown; {} complaints of verify{}{}",
        if shown.holds() { "HOLDS" } else { "BROKEN" },
        tally.kills(),
        books.acknowledged.len(),
        found.lost.count,
        found.doubled.count,
        found.unknown.count,
        found.letters_expected,
        found.letters_missing.count,
        found.letters_doubled.count,
        found.letters_unknown.count,
        found.verify_complaints.len(),
        if shown.flowed_again {
            ""
        } else {
            "; events DID NOT FLOW again"
        },
        if shown.drained_after.is_some() {
            ""
        } else {
            "; NOT all was counted"
        },
    )
}

/// The document.
pub(crate) fn document(shown: &Shown<'_>) -> Value {
    let Shown { books, found, .. } = shown;
    let tally = shown.field.tally();
    let did = shown.field.proxy.did();
    let stall = |stall: &Stall| {
        let (length, began) = stall.longest()?;
        let at = began.duration_since(shown.start);
        Some(json!({ "seconds": seconds(length), "atSecond": seconds(at) }))
    };
    json!({
        "holds": shown.holds(),
        "seed": shown.seed,
        "minutes": shown.minutes,
        "eventsPerSecond": shown.rate,
        "date": Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        "machine": machine(),
        "events": {
            "published": books.published,
            "acknowledged": books.acknowledged.len(),
            "unacknowledged": books.unacknowledged.len(),
            "stored": found.stored,
            "lost": found.lost.count,
            "doubled": found.doubled.count,
            "unknown": found.unknown.count,
        },
        "deadLetters": {
            "expected": found.letters_expected,
            "found": found.letters_there,
            "missing": found.letters_missing.count,
            "doubled": found.letters_doubled.count,
            "unknown": found.letters_unknown.count,
        },
        "named": named(found),
        "verify": { "verdicts": found.verdicts, "complaints": found.verify_complaints },
        "kills": {
            "all": tally.kills(),
            "consumers": tally.consumers_killed,
            "engines": tally.engines_killed,
            "brokers": tally.brokers_killed,
        },
        "consumersGaveUp": tally.consumers_ended,
        "consumersStoppedBadly": tally.ended_badly,
        "proxy": {
            "passed": did.passed,
            "answered500": did.answered_500,
            "lostAnswers": did.lost_answers,
            "cutBodies": did.cut_bodies,
            "falseOks": did.false_oks,
            "delayed": did.delayed,
            "doubled": did.doubled,
        },
        "longestStall": stall(&books.flow.reading),
        "longestWithoutAcknowledgement": stall(&books.flow.publishing),
        "flowedAgain": shown.flowed_again,
        "drainedAfterSeconds": shown.drained_after.map(seconds),
        "faults": faults(shown.done),
    })
}

fn named(found: &Found) -> Value {
    let each = [
        ("lost", &found.lost),
        ("doubled", &found.doubled),
        ("unknown", &found.unknown),
        ("lettersMissing", &found.letters_missing),
        ("lettersDoubled", &found.letters_doubled),
        ("lettersUnknown", &found.letters_unknown),
    ];
    let named = each
        .into_iter()
        .filter(|(_, Named { count, .. })| *count > 0);
    named
        .map(|(what, named)| (what.to_owned(), json!(named.first)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Per kind of harm: how often, and how long until events flowed again.
fn faults(done: &[Done]) -> Value {
    let mut kinds: BTreeMap<Kind, Vec<&Done>> = BTreeMap::new();
    for one in done {
        kinds.entry(one.step.kind).or_default().push(one);
    }
    let since = |mark: Mark, when: Option<Instant>| Some(when?.duration_since(mark.at));
    let flow = |done: &Done| since(done.applied, done.applied.flow);
    let full = |done: &Done| since(done.applied, done.applied.full_flow);
    let lifted = |done: &Done| since(done.lifted, done.lifted.flow);
    let lifted_full = |done: &Done| since(done.lifted, done.lifted.full_flow);
    kinds
        .into_iter()
        .map(|(kind, all)| {
            let times = |time: &dyn Fn(&Done) -> Option<Duration>| {
                spread(all.iter().filter_map(|done| time(done)).collect())
            };
            let alone: Vec<&Done> = all.iter().copied().filter(|one| one.alone(done)).collect();
            let alone_full = spread(alone.iter().filter_map(|one| full(one)).collect());
            let alone_lifted = spread(alone.iter().filter_map(|one| lifted_full(one)).collect());
            let fault = json!({
                "times": all.len(),
                "untilFlow": times(&flow),
                "untilFullFlow": times(&full),
                "fromLiftUntilFlow": times(&lifted),
                "fromLiftUntilFullFlow": times(&lifted_full),
                "timesAlone": alone.len(),
                "aloneUntilFullFlow": alone_full,
                "aloneFromLiftUntilFullFlow": alone_lifted,
            });
            (kind.to_string(), fault)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The longest and the median, in seconds; nothing of no times.
fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    match (times.last(), times.get(times.len().saturating_sub(1) / 2)) {
        (Some(longest), Some(median)) => {
            json!({ "longest": seconds(*longest), "median": seconds(*median) })
        }
        _ => Value::Null,
    }
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<u64>().ok());
    json!({ "cores": cores, "memoryGiB": kilobytes.map(|k| (k + (1 << 19)) >> 20) })
}
