//! Walks show what was readable when they began: each event once, whatever arrives meanwhile.

use std::cell::RefCell;
use std::collections::BTreeSet;

use audit_schema::Event;
use serde_json::Value;
use tokio::sync::Notify;

use crate::stand::{ACME, Stand, T, event, ids};

/// The `number`th event: nearly all share a millisecond, some lie before and after it.
fn numbered(number: usize) -> Event<'static> {
    let millis = match number % 20 {
        7 => T + i64::try_from(number).unwrap(),
        8 => T - i64::try_from(number).unwrap(),
        _ => T,
    };
    let user = if number.is_multiple_of(3) { "u3" } else { "u1" };
    let key = if number.is_multiple_of(15) {
        "few"
    } else {
        "many"
    };
    let event = event(ACME, millis).user_id(user).event_key(key);
    event.build().unwrap()
}

/// The answers of a walk by cursor to its end.
async fn walk(stand: &Stand, filter: &str, limit: usize) -> Vec<Value> {
    onward(stand, filter, &[limit], &Notify::new()).await
}

/// The same, with pages that have one of `limits` after the other, and who is told of every
/// fourth.
pub(crate) async fn onward(
    stand: &Stand,
    filter: &str,
    limits: &[usize],
    asked: &Notify,
) -> Vec<Value> {
    let mut limits = limits.iter().cycle();
    let mut path = |cursor: &str| {
        let limit = limits.next().unwrap();
        format!("/v1/audit-logs?limit={limit}{filter}{cursor}")
    };
    let mut answers = vec![stand.get(ACME, &path("")).await];
    while let Some(cursor) = answers.last().unwrap()["nextCursor"].as_str() {
        if answers.len() % 4 == 1 {
            asked.notify_one();
        }
        let next = path(&format!("&cursor={cursor}"));
        answers.push(stand.get(ACME, &next).await);
    }
    answers
}

pub(crate) fn all_ids(answers: &[Value]) -> Vec<String> {
    answers.iter().flat_map(ids).collect()
}

fn in_order(answers: &[Value]) -> bool {
    let times = answers
        .iter()
        .flat_map(|answer| answer["events"].as_array().unwrap())
        .map(|event| event["createdAt"].as_str().unwrap());
    times.is_sorted_by(|newer, older| newer >= older)
}

#[tokio::test]
async fn a_walk_shows_each_event_of_its_set_once_while_a_writer_goes_on() {
    let stand = Stand::new("walks").await;
    let written: Vec<_> = (0..1_000).map(numbered).collect();
    stand.fill(&written).await;
    let written = RefCell::new(written);

    let asked = Notify::new();
    let writer = async {
        loop {
            // Each insert is a part of the table, and hundreds of them make every query slow.
            asked.notified().await;
            let first = written.borrow().len();
            let more: Vec<_> = (first..first + 25).map(numbered).collect();
            stand.insert(u64::try_from(first).unwrap(), &more).await;
            written.borrow_mut().extend(more);
            let count = written.borrow().len();
            stand.settle(u64::try_from(count).unwrap()).await;
        }
    };
    let reader = async {
        for (filter, limit) in [("&eventKey=few", 1), ("", 7), ("", 50), ("", 100)] {
            let answers = onward(&stand, filter, &[limit], &asked).await;
            let first = &answers[0];
            let total = first["total"].as_u64().unwrap();
            assert_eq!(first["totalRelation"], "eq");
            let mut offset = 0;
            for answer in &answers {
                assert_eq!(answer["total"], total);
                assert_eq!(answer["offset"], offset);
                assert_eq!(answer["completeUpTo"], first["completeUpTo"]);
                offset += u64::try_from(ids(answer).len()).unwrap();
            }
            assert!(in_order(&answers));
            // What is readable is a prefix of the log, so its size says which events it has.
            let written = written.borrow();
            let asked = written
                .iter()
                .filter(|event| filter.is_empty() || event.event_key == "few");
            let expected: BTreeSet<_> = asked
                .take(usize::try_from(total).unwrap())
                .map(|event| event.id.to_string())
                .collect();
            let seen = all_ids(&answers);
            assert_eq!(seen.len(), expected.len());
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    };
    tokio::select! {
        () = reader => {}
        () = writer => {}
    }
    assert!(written.borrow().len() > 1_000, "the writer went on");
}

#[tokio::test]
async fn a_walk_back_shows_the_same_events_at_the_same_offsets() {
    let stand = Stand::new("walk_back").await;
    let written: Vec<_> = (0..500).map(numbered).collect();
    stand.fill(&written).await;
    let there = walk(&stand, "", 7).await;
    stand
        .insert(500, &(500..600).map(numbered).collect::<Vec<_>>())
        .await;
    stand.settle(600).await;

    let mut back = vec![there.last().unwrap().clone()];
    while let Some(cursor) = back.last().unwrap()["prevCursor"].as_str() {
        let path = format!("/v1/audit-logs?limit=7&cursor={cursor}");
        let answer = stand.get(ACME, &path).await;
        back.push(answer);
    }
    back.reverse();
    assert_eq!(all_ids(&back), all_ids(&there));
    let offsets = |answers: &[Value]| -> Vec<_> {
        answers
            .iter()
            .map(|a| a["offset"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(offsets(&back), offsets(&there));
    assert!(back[0]["nextCursor"].is_string());
}

#[tokio::test]
async fn reports_of_one_id_at_one_time_are_each_on_one_page() {
    let stand = Stand::new("one_id").await;
    let (some, twins) = (numbered(1), numbered(2));
    let mut events = vec![twins; 13];
    events.extend([some.clone(), some, numbered(3), numbered(7), numbered(8)]);
    stand.fill(&events).await;
    let positions = |answers: &[Value]| -> Vec<String> {
        let events = answers
            .iter()
            .flat_map(|answer| answer["events"].as_array().unwrap());
        events.map(|event| event["position"].to_string()).collect()
    };
    for limit in [1, 4] {
        let by_cursor = positions(&walk(&stand, "", limit).await);
        assert_eq!(by_cursor.len(), 18);
        assert_eq!(by_cursor.iter().collect::<BTreeSet<_>>().len(), 18);
        let mut by_offset = Vec::new();
        for offset in (0..18).step_by(limit) {
            let path = format!("/v1/audit-logs?limit={limit}&offset={offset}");
            by_offset.extend(positions(&[stand.get(ACME, &path).await]));
        }
        assert_eq!(by_offset, by_cursor);
    }
}

#[tokio::test]
async fn events_are_shown_once_they_are_counted() {
    let stand = Stand::new("counted").await;
    let empty = stand.get(ACME, "/v1/audit-logs").await;
    assert_eq!(
        (&empty["total"], &empty["totalRelation"]),
        (&0.into(), &"eq".into())
    );
    assert!(empty["completeUpTo"].is_null() && empty["nextCursor"].is_null());

    let events: Vec<_> = (0..20).map(numbered).collect();
    stand.insert(0, &events).await;
    let last = format!("/v1/audit-logs/{}", events[19].id);
    for (settled, paths) in [(0_u64, 404), (13, 404), (20, 200)] {
        stand.settle(settled).await;
        let answer = stand.get(ACME, "/v1/audit-logs").await;
        assert_eq!(answer["total"], settled);
        let seen: BTreeSet<_> = ids(&answer).into_iter().collect();
        let readable = &events[..usize::try_from(settled).unwrap()];
        assert_eq!(seen, readable.iter().map(|e| e.id.to_string()).collect());
        assert_eq!(stand.ask(ACME, &last).await.0, paths);
        let plugin = stand
            .get(ACME, "/events/organization?organizationId=o1")
            .await;
        assert_eq!(plugin["total"], settled);
    }
}

#[tokio::test]
async fn pages_by_offset_are_of_one_set_if_they_say_which() {
    let stand = Stand::new("as_of").await;
    stand
        .fill(&(0..100).map(numbered).collect::<Vec<_>>())
        .await;
    let first = stand.get(ACME, "/v1/audit-logs?limit=30").await;
    stand
        .insert(
            100,
            &(100..150)
                .map(|_| event(ACME, T + 9_999).build().unwrap())
                .collect::<Vec<_>>(),
        )
        .await;
    stand.settle(150).await;

    let as_of = first["asOf"].as_str().unwrap();
    let mut seen = ids(&first);
    for offset in [30, 60, 90] {
        let path = format!("/v1/audit-logs?limit=30&offset={offset}&asOf={as_of}");
        let answer = stand.get(ACME, &path).await;
        assert_eq!(
            (&answer["total"], &answer["asOf"]),
            (&100.into(), &first["asOf"])
        );
        assert_eq!(answer["offset"], offset);
        seen.extend(ids(&answer));
    }
    assert_eq!(seen.len(), 100);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 100);

    // It freezes the set for another filter, too, and a cursor of such a page keeps it.
    let path = format!("/v1/audit-logs?userId=u1&limit=5&offset=5&asOf={as_of}");
    let answer = stand.get(ACME, &path).await;
    assert_eq!(answer["total"], 66);
    let path = format!(
        "/v1/audit-logs?userId=u1&cursor={}",
        answer["prevCursor"].as_str().unwrap()
    );
    let answer = stand.get(ACME, &path).await;
    assert_eq!(
        (&answer["total"], &answer["offset"]),
        (&66.into(), &0.into())
    );
    assert_eq!(ids(&answer).len(), 5);
    // Without it, the page is of what is readable now.
    let now = stand.get(ACME, "/v1/audit-logs?offset=30").await;
    assert_eq!(now["total"], 150);
}
