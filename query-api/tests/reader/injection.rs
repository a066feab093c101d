//! A text that means something to SQL, to ClickHouse, to HTTP or to JSON means nothing here, in
//! whatever place it is given.

use std::collections::BTreeSet;

use audit_schema::row::Millis;
use chrono::Utc;

use crate::isolation::attempts;
use crate::random_filters::{Trial, identities, identity};
use crate::reference::Question;
use crate::stand::{ACME, encoded};

/// What a filter is named, each with and without `not.`.
const FILTERS: [&str; 19] = [
    "userId",
    "actorId",
    "identifier",
    "eventKey",
    "sessionId",
    "requestId",
    "city",
    "organizationId",
    "eventType",
    "category",
    "outcome",
    "country",
    "ip",
    "userAgent",
    "q",
    "data.plan",
    "from",
    "to",
    "order",
];

/// What says which page; it is not part of a question.
const PAGING: [&str; 4] = ["limit", "offset", "cursor", "asOf"];

/// The questions that have `text` in the place of a value or in that of a name.
fn with_value_or_name(text: &str) -> Vec<Question> {
    let as_value = FILTERS.into_iter().flat_map(|name| {
        let value = text.to_owned();
        let plain = vec![(name.to_owned(), value.clone())];
        let negated = vec![(format!("not.{name}"), value)];
        [Question(plain), Question(negated)]
    });
    let names = [
        text.to_owned(),
        format!("not.{text}"),
        format!("data.{text}"),
        format!("not.data.{text}"),
        format!("data.plan.{text}"),
        format!("userId{text}"),
        format!("{text}userId"),
    ];
    let as_name = names.map(|name| Question(vec![(name, "pro".to_owned())]));
    as_value.chain(as_name).collect()
}

/// Whether an answer is a refusal that says why, or shows nothing but `own`. A server's error is
/// neither.
fn is_harmless(status: u16, answer: &serde_json::Value, own: &BTreeSet<String>) -> bool {
    if status == 200 {
        identities(answer).iter().all(|event| own.contains(event))
    } else {
        (400..500).contains(&status) && answer["error"]["message"].is_string()
    }
}

#[tokio::test]
async fn a_nasty_text_is_harmless_in_the_place_of_every_value_and_name() {
    let trial = Trial::new("injection_texts").await;
    let before = trial.stand.contents().await;
    for text in attempts() {
        for question in with_value_or_name(&text) {
            let now = Millis::from(Utc::now());
            let expected = trial.reference.answer(ACME, None, &question, now);
            let path = format!("/v1/audit-logs?{question}&limit=100");
            let (status, answer) = trial.stand.ask(ACME, &path).await;
            // A question without a meaning is refused, never answered with something else.
            assert!(expected.is_ok() || status == 400, "{path}: {answer}");
            let own = expected.unwrap_or_default().into_iter();
            let own = own.map(identity).collect();
            assert!(
                is_harmless(status.as_u16(), &answer, &own),
                "{path}: {answer}"
            );
        }
    }
    assert_eq!(trial.stand.contents().await, before);
}

#[tokio::test]
async fn a_nasty_text_is_harmless_in_the_place_of_a_page_and_of_an_id() {
    let trial = Trial::new("injection_pages").await;
    let before = trial.stand.contents().await;
    let everything = Question(Vec::new());
    let own = trial.reference.answer(ACME, None, &everything, Millis(0));
    let own: BTreeSet<_> = own.unwrap().into_iter().map(identity).collect();
    for text in attempts() {
        let text = encoded(&text);
        let pages = PAGING.map(|name| format!("/v1/audit-logs?{name}={text}"));
        let ids = [
            format!("/v1/audit-logs/{text}"),
            format!("/v1/audit-logs/01890a5d-ac96-774b-bcce-b302099a8057{text}"),
        ];
        for path in pages.iter().chain(&ids) {
            let (status, answer) = trial.stand.ask(ACME, path).await;
            assert!(
                is_harmless(status.as_u16(), &answer, &own),
                "{path}: {answer}"
            );
        }
    }
    assert_eq!(trial.stand.contents().await, before);
}
