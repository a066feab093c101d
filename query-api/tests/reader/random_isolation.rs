//! A key sees its project, or its organization, and nothing else, whatever it asks.

use std::collections::BTreeSet;

use audit_schema::row::{EventRow, Millis};
use tokio::runtime::Runtime;

use crate::random_filters::{Asker, Trial, askers, identities, identity};
use crate::reference::Question;
use crate::stand::ids;

/// How many questions every key asks.
const QUESTIONS: u64 = 100;

impl Trial {
    /// All that `asker` may see.
    fn seen_by(&self, asker: Asker) -> Vec<&EventRow> {
        let everything = Question(Vec::new());
        let Asker {
            project,
            organization,
            ..
        } = asker;
        let answer = self
            .reference
            .answer(project, organization, &everything, Millis(0));
        answer.unwrap()
    }
}

#[test]
fn what_one_key_asks_is_answered_to_each_from_its_own_events() {
    let runtime = Runtime::new().unwrap();
    let trial = runtime.block_on(Trial::new("random_isolation"));
    trial.run(&runtime, QUESTIONS, &[askers()]);
}

#[tokio::test]
async fn an_id_is_found_with_the_keys_that_may_see_its_event() {
    let trial = Trial::new("random_ids").await;
    let every_id = trial.reference.rows.iter().map(|row| row.event_id);
    let every_id: BTreeSet<_> = every_id.step_by(5).collect();
    for asker in askers() {
        let seen = trial.seen_by(asker);
        for id in &every_id {
            let path = format!("/v1/audit-logs/{id}");
            let (status, event) = trial.stand.ask(asker.key_of, &path).await;
            let newest = seen.iter().find(|row| row.event_id == *id);
            let Some(newest) = newest else {
                assert_eq!(status, 404, "{path} {asker:?}: {event}");
                continue;
            };
            assert_eq!(status, 200, "{path} {asker:?}: {event}");
            assert_eq!(event["projectId"], asker.project);
            assert_eq!(event["position"]["offset"], newest.source_offset, "{path}");
        }
    }
}

#[tokio::test]
async fn an_event_that_is_not_settled_is_not_found() {
    let trial = Trial::new("random_unsettled").await;
    for event in &trial.unsettled {
        for asker in askers() {
            let settled = trial.seen_by(asker);
            let settled = settled.iter().any(|row| row.event_id == event.id.as_uuid());
            let path = format!("/v1/audit-logs/{}", event.id);
            let (status, answer) = trial.stand.ask(asker.key_of, &path).await;
            let expected = if settled { 200 } else { 404 };
            assert_eq!(status, expected, "{path} {asker:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn what_one_key_was_given_shows_another_nothing_new() {
    let trial = Trial::new("random_swaps").await;
    for giver in askers() {
        let page = trial
            .stand
            .get(giver.key_of, "/v1/audit-logs?limit=5")
            .await;
        assert_eq!(ids(&page).len(), 5);
        for taker in askers() {
            let own: BTreeSet<_> = trial.seen_by(taker).into_iter().map(identity).collect();
            for (name, given) in [("cursor", "nextCursor"), ("asOf", "asOf")] {
                let given = page[given].as_str().unwrap();
                let path = format!("/v1/audit-logs?limit=100&{name}={given}");
                let (status, answer) = trial.stand.ask(taker.key_of, &path).await;
                if status == 200 {
                    assert_eq!(giver.project, taker.project, "{path}");
                    let shown: BTreeSet<_> = identities(&answer).into_iter().collect();
                    assert!(shown.is_subset(&own), "{path} {taker:?}: {answer}");
                } else {
                    let code = &answer["error"]["code"];
                    assert_eq!(code, "stale_cursor", "{path} {taker:?}: {answer}");
                    assert_ne!(giver.key_of, taker.key_of);
                }
            }
        }
    }
}
