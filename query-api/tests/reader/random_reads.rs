//! Files, charts and live readers give what the list gives, to every key.

use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use audit_schema::row::Millis;
use chrono::Utc;
use futures_util::future::join_all;

use crate::random_filters::{Asker, Trial, askers, identity, identity_of};
use crate::random_questions::questions;
use crate::reference::Question;
use crate::tails::Reader;

/// How many questions every key asks, of each kind of read.
const QUESTIONS: usize = 40;

/// The same questions at every run.
fn sampled(trial: &Trial) -> Vec<Question> {
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let strategy = questions(&trial.reference.rows);
    let mut one = || strategy.new_tree(&mut runner).unwrap();
    (0..QUESTIONS).map(|_| one().current()).collect()
}

impl Question {
    fn without(&self, name: &str) -> Self {
        let others = self.0.iter().filter(|(other, _)| other != name);
        Self(others.cloned().collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }
}

impl Trial {
    /// What tells the events apart that `asker` should get, in their order; `None` if the question
    /// is invalid.
    fn expected(&self, asker: Asker, question: &Question) -> Option<Vec<String>> {
        let now = Millis::from(Utc::now());
        let Asker {
            project,
            organization,
            ..
        } = asker;
        let rows = self.reference.answer(project, organization, question, now);
        Some(rows.ok()?.into_iter().map(identity).collect())
    }
}

#[tokio::test]
async fn a_file_has_what_the_reference_gives() {
    let trial = Trial::new("random_exports").await;
    for question in sampled(&trial) {
        for asker in askers() {
            let path = format!("/v1/audit-logs/export?{question}");
            let Some(expected) = trial.expected(asker, &question) else {
                let (status, answer) = trial.stand.ask(asker.key_of, &path).await;
                assert_eq!(status, 400, "{path}: {answer}");
                continue;
            };
            let (_, bytes, well) = trial.stand.file(asker.key_of, &path).await;
            assert!(well, "{path}");
            let text = String::from_utf8(bytes).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            let mut lines: Vec<Value> = lines.collect();
            let end = lines.pop().unwrap();
            assert_eq!(end["export"]["events"], expected.len(), "{path} {asker:?}");
            let events: Vec<_> = lines.iter().map(identity_of).collect();
            assert_eq!(events, expected, "{path} {asker:?}");
        }
    }
}

#[tokio::test]
async fn a_chart_counts_what_the_reference_gives() {
    let trial = Trial::new("random_stats").await;
    let (mut charts, mut counted) = (0, 0);
    for question in sampled(&trial) {
        let mut question = question.without("order");
        // All of time, in months.
        for (bound, value) in [("from", "0"), ("to", "2040-01-01T00:00:00Z")] {
            if !question.has(bound) {
                question.0.push((bound.into(), value.into()));
            }
        }
        for asker in askers() {
            let path = format!("/v1/audit-logs/stats?{question}&bucket=month&by=userId&top=50");
            let (status, answer) = trial.stand.ask(asker.key_of, &path).await;
            match trial.expected(asker, &question) {
                None => assert_eq!(status, 400, "{path}: {answer}"),
                // A range that is no range, or one of more months than a chart has.
                Some(_) if status == 400 => {
                    let message = answer["error"]["message"].as_str().unwrap();
                    let of_range = message.starts_with("from: ") || message.starts_with("bucket: ");
                    assert!(of_range, "{path}: {message}");
                }
                Some(expected) => {
                    assert_eq!(answer["total"], expected.len(), "{path} {asker:?}");
                    let of = |values: &Value| -> u64 {
                        let values = values.as_array().unwrap().iter();
                        values.map(|value| value["count"].as_u64().unwrap()).sum()
                    };
                    assert_eq!(
                        of(&answer["values"]),
                        expected.len() as u64,
                        "{path} {asker:?}"
                    );
                    assert_eq!(
                        of(&answer["buckets"]),
                        expected.len() as u64,
                        "{path} {asker:?}"
                    );
                    charts += 1;
                    counted += expected.len();
                }
            }
        }
    }
    assert!(charts > QUESTIONS && counted > 0);
}

#[tokio::test]
async fn a_live_reader_gets_what_the_reference_gives_and_nothing_else() {
    let trial = Trial::unread("random_tails").await;
    let mut begun = Vec::new();
    for asker in askers() {
        let list = trial.stand.get(asker.key_of, "/v1/audit-logs").await;
        assert_eq!(list["total"], 0);
        begun.push(list["asOf"].as_str().unwrap().to_owned());
    }
    trial.settle().await;
    for question in sampled(&trial) {
        let question = question.without("order");
        let readers = askers().into_iter().zip(&begun);
        join_all(readers.map(|(asker, as_of)| read_live(&trial, asker, &question, as_of))).await;
    }
}

async fn read_live(trial: &Trial, asker: Asker, question: &Question, as_of: &str) {
    let path = format!("/v1/audit-logs/tail?{question}&asOf={as_of}");
    let Some(mut expected) = trial.expected(asker, question) else {
        let (status, answer) = trial.stand.ask(asker.key_of, &path).await;
        assert_eq!(status, 400, "{path}: {answer}");
        return;
    };
    let mut reader = Reader::open(&trial.stand, asker.key_of, &path, None).await;
    let mut events = Vec::new();
    // A heartbeat, which the first block is one of, does not come while there are events to send.
    let mut beats = 0;
    while events.len() < expected.len() || beats < 2 {
        let block = reader.block().await;
        match block.lines().find_map(|line| line.strip_prefix("data: ")) {
            Some(data) => events.push(identity_of(&serde_json::from_str(data).unwrap())),
            None => beats += 1,
        }
        assert!(events.len() <= expected.len(), "{path} {asker:?}: {block}");
    }
    events.sort();
    expected.sort();
    assert_eq!(events, expected, "{path} {asker:?}");
}
