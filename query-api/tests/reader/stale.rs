//! Cursors that belong to another question, another caller or another time are refused, and the
//! refusal says what to do.

use std::time::Duration;

use audit_query_api::Config;

use crate::stand::{ACME, O1_OF_ACME, OTHER, Stand, T, event};

/// An API whose cursors are signed with `secret`.
fn signing(secret: &str) -> impl FnOnce(&mut Config) {
    move |config| config.cursors.secret = secret.to_owned().into()
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

async fn is_stale(stand: &Stand, project: &str, path: &str) {
    let answer = stand.refused(project, path, "stale_cursor").await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("start again without it"), "{message}");
}

#[tokio::test]
async fn a_cursor_is_good_for_one_question_of_one_caller_and_no_other() {
    let stand = Stand::with("stale", signing(SECRET)).await;
    let events = (0..10).map(|_| event(ACME, T).build().unwrap());
    stand.fill(&events.collect::<Vec<_>>()).await;
    let path = "/v1/audit-logs?limit=2&userId=u1&from=-90000d";
    let page = stand.get(ACME, path).await;
    let text = |name: &str| page[name].as_str().unwrap().to_owned();
    let (cursor, as_of) = (text("nextCursor"), text("asOf"));
    let next = format!("{path}&cursor={cursor}");
    assert_eq!(stand.get(ACME, &next).await["offset"], 2);

    let other = |parameters: &str| format!("/v1/audit-logs?{parameters}&cursor={cursor}");
    for path in [
        other("userId=u2&from=-90000d"),
        other("userId=u1&from=-90001d"),
        other("userId=u1"),
        other("userId=u1&from=-90000d&order=asc"),
        other("userId=u1&from=-90000d&not.data.a=b"),
    ] {
        is_stale(&stand, ACME, &path).await;
    }
    for (project, path) in [(OTHER, path), (O1_OF_ACME, path)] {
        is_stale(&stand, project, &next).await;
        is_stale(&stand, project, &format!("{path}&asOf={as_of}")).await;
    }
    // A cursor of a key of one organization is no cursor of the whole project.
    let page = stand.get(O1_OF_ACME, path).await;
    let cursor = page["nextCursor"].as_str().unwrap();
    is_stale(&stand, ACME, &format!("{path}&cursor={cursor}")).await;
    let whole = format!("{path}&organizationId=o1&cursor={cursor}");
    is_stale(&stand, ACME, &whole).await;
}

#[tokio::test]
async fn a_cursor_is_good_wherever_the_secret_is_known_and_until_it_is_old() {
    let stand = Stand::with("stale_secret", signing(SECRET)).await;
    let events = (0..10).map(|_| event(ACME, T).build().unwrap());
    stand.fill(&events.collect::<Vec<_>>()).await;
    let path = "/v1/audit-logs?limit=2";
    let page = stand.get(ACME, path).await;
    let text = |name: &str| page[name].as_str().unwrap().to_owned();
    let next = format!("{path}&cursor={}", text("nextCursor"));
    let frozen = format!("{path}&offset=2&asOf={}", text("asOf"));

    let same = Stand::at("stale_secret", signing(SECRET));
    let other = Stand::at("stale_secret", signing("another-0123456789abcdef01234567"));
    let none = Stand::at("stale_secret", |_| ());
    let old = Stand::at("stale_secret", |config| {
        signing(SECRET)(config);
        config.cursors.max_age = Duration::from_nanos(1);
    });
    // The next millisecond is later than the page.
    let begun = chrono::Utc::now().timestamp_millis();
    while chrono::Utc::now().timestamp_millis() == begun {
        tokio::task::yield_now().await;
    }
    for path in [next, frozen] {
        assert_eq!(same.get(ACME, &path).await["offset"], 2);
        for stand in [&other, &none, &old] {
            is_stale(stand, ACME, &path).await;
        }
    }
}
