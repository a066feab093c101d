//! Whatever a question asks, the API answers what the reference answers.
//!
//! `AUDIT_FILTER_CASES` says how many questions are asked, `AUDIT_FILTER_SEED` which ones. A question
//! that is answered otherwise is printed, and made smaller as long as it still is.

use std::sync::atomic::{AtomicU64, Ordering};

use audit_schema::Event;
use audit_schema::row::{EventRow, Millis};
use chrono::Utc;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::random_events::RandomEvents;
use crate::random_questions::questions;
use crate::reference::{Question, Reference};
use crate::stand::{ACME, OTHER, Stand};

/// How many ask at once.
const AT_ONCE: u64 = 4;

/// Whose key asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    /// Which key: see [`crate::stand::key`].
    pub(crate) key_of: &'static str,
    pub(crate) project: &'static str,
    /// The only organization it may see.
    pub(crate) organization: Option<&'static str>,
}

/// All whose answers are looked at.
pub(crate) fn askers() -> Vec<Asker> {
    let unrestricted = [ACME, OTHER].map(|project| Asker {
        key_of: project,
        project,
        organization: None,
    });
    unrestricted
        .into_iter()
        .chain(restricted_askers())
        .collect()
}

/// Keys that are restricted to one organization, which both projects have.
fn restricted_askers() -> Vec<Asker> {
    let of = |key_of, project, organization| Asker {
        key_of,
        project,
        organization: Some(organization),
    };
    vec![
        of("acme-o1", ACME, "o1"),
        of("acme-o2", ACME, "o2"),
        of("other-o1", OTHER, "o1"),
    ]
}

/// How the pages of an answer are turned.
#[derive(Debug, Clone, Copy)]
enum Turning {
    Cursor,
    /// By offset, each page of what is readable then.
    Offset,
    /// By offset, in the set of the first page.
    OffsetAsOf,
}

/// Which pages are looked at.
#[derive(Debug, Clone, Copy)]
struct Pages {
    limit: usize,
    count: usize,
    skip: usize,
    turning: Turning,
}

fn pages() -> impl Strategy<Value = Pages> {
    let turning = select(vec![Turning::Cursor, Turning::Offset, Turning::OffsetAsOf]);
    let skip = prop_oneof![3 => Just(0), 1 => 0..200_usize];
    let limit = prop_oneof![1..10_usize, 1..=100_usize];
    let count = prop_oneof![4 => Just(1), 1 => Just(2), 1 => Just(3_usize)];
    (limit, count, skip, turning).prop_map(|(limit, count, skip, turning)| Pages {
        limit,
        count,
        skip,
        turning,
    })
}

/// A table, and what should be answered from it.
pub(crate) struct Trial {
    pub(crate) stand: Stand,
    pub(crate) reference: Reference,
    readable: u64,
    /// Events that are stored and must not be seen yet.
    pub(crate) unsettled: Vec<Event<'static>>,
    seed: u64,
    refused: AtomicU64,
    with_events: AtomicU64,
}

impl Trial {
    pub(crate) async fn new(database: &str) -> Self {
        let trial = Self::unread(database).await;
        trial.settle().await;
        trial
    }

    /// The same before any of it is readable.
    pub(crate) async fn unread(database: &str) -> Self {
        let seed = setting("AUDIT_FILTER_SEED", 1);
        let now = Utc::now().timestamp_millis();
        let events = RandomEvents::new(seed, now);
        let stand = Stand::with(database, |config| {
            // How long a total takes is no matter here.
            config.queries.total_time = config.queries.time;
            config.streams.heartbeat = std::time::Duration::from_millis(20);
        })
        .await;
        let readable = u64::try_from(events.readable.len()).unwrap();
        let all = [events.readable.as_slice(), &events.unsettled].concat();
        stand.insert(0, &all).await;
        stand.settle(0).await;
        Self {
            stand,
            readable,
            reference: Reference {
                rows: events.rows(),
            },
            unsettled: events.unsettled,
            seed,
            refused: AtomicU64::new(0),
            with_events: AtomicU64::new(0),
        }
    }

    /// Makes those readable that are meant to be.
    pub(crate) async fn settle(&self) {
        self.stand.settle(self.readable).await;
    }

    /// Asks one question and compares.
    async fn ask(&self, asker: Asker, question: &Question, pages: Pages) -> Result<(), String> {
        let Asker {
            key_of,
            project,
            organization,
        } = asker;
        let now = Millis::from(Utc::now());
        let expected = self.reference.answer(project, organization, question, now);
        let path = format!("/v1/audit-logs?{question}&limit={}", pages.limit);
        let Ok(expected) = expected else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let (status, answer) = self.stand.ask(key_of, &path).await;
            let code = &answer["error"]["code"];
            return if status == 400 && code == "invalid" {
                Ok(())
            } else {
                Err(format!("{path}\nis invalid, but: {status} {answer}"))
            };
        };
        if !expected.is_empty() {
            self.with_events.fetch_add(1, Ordering::Relaxed);
        }
        let mut skip = pages.skip;
        let mut place = match pages.turning {
            Turning::Cursor if skip == 0 => String::new(),
            _ => format!("&offset={skip}"),
        };
        for _ in 0..pages.count {
            let path = format!("{path}{place}");
            let (status, answer) = self.stand.ask(key_of, &path).await;
            if status != 200 {
                return Err(format!("{path}\n{status} {answer}"));
            }
            compare(&expected, skip, pages.limit, &answer)
                .map_err(|difference| format!("{path}\n{difference}"))?;
            skip += pages.limit;
            place = match (pages.turning, answer["nextCursor"].as_str()) {
                (_, None) => break,
                (Turning::Cursor, Some(cursor)) => format!("&cursor={cursor}"),
                (Turning::Offset, _) => format!("&offset={skip}"),
                (Turning::OffsetAsOf, _) => {
                    let as_of = answer["asOf"].as_str().unwrap();
                    format!("&offset={skip}&asOf={as_of}")
                }
            };
        }
        Ok(())
    }

    /// Asks `cases` questions, each with all keys of one of `groups`.
    pub(crate) fn run(&self, runtime: &Runtime, cases: u64, groups: &[Vec<Asker>]) {
        std::thread::scope(|threads| {
            for number in 0..AT_ONCE {
                threads.spawn(move || self.run_part(runtime, number, cases / AT_ONCE, groups));
            }
        });
        let (refused, with_events) = (
            self.refused.load(Ordering::Relaxed),
            self.with_events.load(Ordering::Relaxed),
        );
        println!("{cases} questions: {refused} refused, {with_events} with events");
        assert!(
            with_events > cases / 3 && refused > cases / 100,
            "they ask for too little"
        );
    }

    fn run_part(&self, runtime: &Runtime, number: u64, cases: u64, groups: &[Vec<Asker>]) {
        let config = Config {
            cases: u32::try_from(cases).unwrap(),
            max_shrink_iters: 500,
            failure_persistence: None,
            ..Config::default()
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&number.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let case = (
            select(groups.to_vec()),
            questions(&self.reference.rows),
            pages(),
        );
        let outcome =
            TestRunner::new_with_rng(config, random).run(&case, |(askers, question, pages)| {
                for asker in askers {
                    let asked = runtime.block_on(self.ask(asker, &question, pages));
                    asked.map_err(TestCaseError::fail)?;
                }
                Ok(())
            });
        if let Err(failure) = outcome {
            panic!("AUDIT_FILTER_SEED={} {failure}", self.seed);
        }
    }
}

/// What tells an event from all others.
pub(crate) fn identity(row: &EventRow) -> String {
    let (partition, offset) = (row.source_partition, row.source_offset);
    format!("{} at {partition}/{offset}", row.event_id)
}

/// The same of the events of a page.
pub(crate) fn identities(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().unwrap().iter();
    events.map(identity_of).collect()
}

/// The same of an event that was answered.
pub(crate) fn identity_of(event: &Value) -> String {
    let (id, at) = (event["id"].as_str().unwrap(), &event["position"]);
    format!("{id} at {}/{}", at["partition"], at["offset"])
}

/// Says what of a page is not as expected, if something is.
fn compare(expected: &[&EventRow], skip: usize, limit: usize, page: &Value) -> Result<(), String> {
    let rows = expected.iter().skip(skip).take(limit);
    let rows: Vec<_> = rows.map(|row| identity(row)).collect();
    let events = identities(page);
    let total = (&page["total"], page["totalRelation"].as_str());
    let more = !rows.is_empty() && expected.len() > skip + rows.len();
    if rows == events
        && total == (&expected.len().into(), Some("eq"))
        && page["offset"] == skip
        && page["nextCursor"].is_string() == more
    {
        return Ok(());
    }
    Err(format!(
        "expected {} in all, more: {more}, from {skip}: {rows:#?}\nanswered {total:?}, \
         more: {}, from {}: {events:#?}",
        expected.len(),
        page["nextCursor"].is_string(),
        page["offset"]
    ))
}

fn setting(name: &str, default: u64) -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test tries is no configuration"
    )]
    let given = std::env::var(name);
    given.map_or(default, |number| number.parse().expect("a number"))
}

#[test]
fn any_filter_gives_what_the_reference_gives() {
    let runtime = Runtime::new().unwrap();
    let trial = runtime.block_on(Trial::new("random_filters"));
    let alone: Vec<_> = askers().into_iter().map(|asker| vec![asker]).collect();
    trial.run(&runtime, setting("AUDIT_FILTER_CASES", 2_000), &alone);
}
