//! Every kind of walk, there and back, while a writer goes on: both orders, all sizes of pages and
//! changes of them, filters of event data and of relative times.

use std::cell::Cell;
use std::collections::BTreeSet;

use audit_schema::{Event, EventData};
use chrono::Utc;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::stand::{ACME, Stand, T, event, ids};
use crate::walks::{all_ids, onward};

/// Events of the same millisecond, and those of yesterday.
const OLD: usize = 2_000;
const RECENT: i64 = 800;

const DAY: i64 = 86_400_000;

/// One of thousands that share a millisecond, but for a few.
fn old(number: usize) -> Event<'static> {
    let millis = match number % 50 {
        7 => T + i64::try_from(number).unwrap(),
        8 => T - i64::try_from(number).unwrap(),
        _ => T,
    };
    let data = json!({ "lot": number % 80, "deep": { "tags": ["all", number % 3] } });
    let data = EventData::of(&data).unwrap();
    event(ACME, millis).event_data(data).build().unwrap()
}

/// The walk back from `last` to the start, in the order of its answers.
async fn back(stand: &Stand, filter: &str, limits: &[usize], last: &Value) -> Vec<Value> {
    let mut limits = limits.iter().cycle();
    let mut answers = vec![last.clone()];
    while let Some(cursor) = answers.last().unwrap()["prevCursor"].as_str() {
        let limit = limits.next().unwrap();
        let path = format!("/v1/audit-logs?limit={limit}{filter}&cursor={cursor}");
        answers.push(stand.get(ACME, &path).await);
    }
    answers.reverse();
    answers
}

/// Checks that the answers, one behind the other, say of themselves what they are; and gives how
/// many events there are.
fn says_where_it_is(answers: &[Value]) -> usize {
    let first = &answers[0];
    assert_eq!(first["totalRelation"], "eq");
    let mut offset = 0;
    for answer in answers {
        assert_eq!(answer["offset"], offset);
        for name in ["total", "asOf", "completeUpTo"] {
            assert_eq!(answer[name], first[name], "{name}");
        }
        offset += ids(answer).len();
    }
    assert_eq!(first["total"], offset);
    offset
}

#[tokio::test]
async fn every_kind_of_walk_shows_its_set_once_there_and_back_and_by_offset() {
    let stand = Stand::new("walk_kinds").await;
    let mut written: Vec<_> = (0..OLD).map(old).collect();
    // Some of yesterday: in each walk through them, a day before now passes over many of them.
    let now = Utc::now().timestamp_millis();
    let recent = (0..RECENT).map(|number| {
        let event = event(ACME, now - DAY + number * 50);
        event.user_id("recent").build().unwrap()
    });
    written.extend(recent);
    stand.fill(&written).await;

    let (asked, count) = (Notify::new(), Cell::new(written.len()));
    let writer = async {
        loop {
            asked.notified().await;
            let first = count.get();
            let more: Vec<_> = (first..first + 10).map(old).collect();
            stand.insert(u64::try_from(first).unwrap(), &more).await;
            count.set(first + more.len());
            stand.settle(u64::try_from(count.get()).unwrap()).await;
        }
    };
    let reader = async {
        for (filter, limits) in [
            ("&userId=recent&from=-24h", [7, 100].as_slice()),
            ("", &[100]),
            ("", &[50, 100, 7]),
            ("&data.lot=7", &[1]),
            ("&data.lot=7&data.lot=9&not.data.deep.tags=1", &[7]),
            ("&data.deep.tags=all&not.data.deep.tags=0", &[100, 50]),
        ] {
            for order in ["&order=desc", "&order=asc"] {
                let filter = format!("{filter}{order}");
                let there = onward(&stand, &filter, limits, &asked).await;
                let total = says_where_it_is(&there);
                assert!(total > 0, "{filter}");
                let seen = all_ids(&there);
                let once: BTreeSet<_> = seen.iter().collect();
                assert_eq!(once.len(), total, "{filter}");

                let there_again = back(&stand, &filter, limits, there.last().unwrap()).await;
                assert_eq!(says_where_it_is(&there_again), total, "{filter}");
                assert_eq!(all_ids(&there_again), seen, "{filter}");

                let as_of = there[0]["asOf"].as_str().unwrap();
                for page in there.iter().step_by(3) {
                    let (limit, offset) = (&page["limit"], &page["offset"]);
                    let path = format!(
                        "/v1/audit-logs?limit={limit}&offset={offset}{filter}&asOf={as_of}"
                    );
                    let by_offset = stand.get(ACME, &path).await;
                    for name in ["events", "total", "offset"] {
                        assert_eq!(by_offset[name], page[name], "{name} of {path}");
                    }
                }
            }
        }
    };
    tokio::select! {
        () = reader => {}
        () = writer => {}
    }
    assert!(count.get() > written.len(), "the writer went on");
}
