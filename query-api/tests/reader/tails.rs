//! Live readers: each event once, in the order of the log, also across broken connections.

use std::time::Duration;

use audit_schema::Event;
use axum::body::BodyDataStream;
use futures_util::StreamExt;
use serde_json::Value;

use crate::stand::{ACME, OTHER, Stand, T, event, get};

/// The events of a live reader, as they come.
pub(crate) struct Reader {
    body: BodyDataStream,
    text: String,
    /// The last id there was.
    last: String,
}

impl Reader {
    pub(crate) async fn open(stand: &Stand, project: &str, path: &str, last: Option<&str>) -> Self {
        let mut request = get(project, path);
        if let Some(last) = last {
            request
                .headers_mut()
                .insert("last-event-id", last.parse().unwrap());
        }
        let answer = stand.send(request).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Self {
            body: answer.into_body().into_data_stream(),
            text: String::new(),
            last: String::new(),
        }
    }

    /// The next block of lines.
    pub(crate) async fn block(&mut self) -> String {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(id) = block.lines().find_map(|line| line.strip_prefix("id: ")) {
                    id.clone_into(&mut self.last);
                }
                return block;
            }
            let chunk = self.body.next().await.expect("the stream ended").unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event.
    async fn next(&mut self) -> Value {
        loop {
            let block = self.block().await;
            if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

fn numbered(number: usize) -> Event<'static> {
    let project = if number.is_multiple_of(4) {
        OTHER
    } else {
        ACME
    };
    let user = if number.is_multiple_of(3) { "u3" } else { "u1" };
    // Newer events are older in their own time.
    let millis = T - i64::try_from(number).unwrap();
    event(project, millis).user_id(user).build().unwrap()
}

fn expected(events: &[Event<'_>], of: impl Fn(&&Event<'_>) -> bool) -> Vec<String> {
    let mut ids: Vec<_> = events
        .iter()
        .filter(of)
        .map(|event| event.id.to_string())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn events_come_as_they_become_readable_and_no_others() {
    let stand = Stand::new("tail_live").await;
    let events: Vec<_> = (0..900).map(numbered).collect();
    stand.insert(0, &events[..300]).await;
    stand.settle(300).await;
    let mut reader = Reader::open(&stand, ACME, "/v1/audit-logs/tail?userId=u1", None).await;
    reader.block().await;
    stand.insert(300, &events[300..]).await;
    stand.settle(900).await;
    let wanted = expected(&events[300..], |event| {
        event.project_id.as_str() == ACME && event.user_id == "u1"
    });
    let mut seen = Vec::new();
    let mut offsets = std::collections::BTreeMap::new();
    for _ in 0..wanted.len() {
        let event = reader.next().await;
        let place = &event["position"];
        let offset = place["offset"].as_u64().unwrap();
        let before = offsets.insert(place["partition"].as_u64().unwrap(), offset);
        assert!(before.is_none_or(|before| before < offset), "{place}");
        seen.push(event["id"].as_str().unwrap().to_owned());
    }
    seen.sort();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_reader_that_comes_back_misses_none_and_gets_none_twice() {
    let stand = Stand::new("tail_resume").await;
    let events: Vec<_> = (0..2_400).map(numbered).collect();
    stand.settle(0).await;
    let path = "/v1/audit-logs/tail";
    let mut reader = Reader::open(&stand, ACME, path, None).await;
    reader.block().await;
    let mut last = reader.last.clone();
    let mut seen = Vec::new();
    let wanted = expected(&events, |event| event.project_id.as_str() == ACME);
    let mut written = 0;
    // It is torn away in the middle of blocks of events, again and again.
    for turn in [1, 7, 250, 1_000_000] {
        let more = if turn == 1_000_000 {
            events.len()
        } else {
            written + 600
        };
        stand.insert(written as u64, &events[written..more]).await;
        written = more;
        stand.settle(written as u64).await;
        let mut reader = Reader::open(&stand, ACME, path, Some(&last)).await;
        for _ in 0..turn.min(wanted.len() - seen.len()) {
            seen.push(reader.next().await["id"].as_str().unwrap().to_owned());
        }
        last.clone_from(&reader.last);
    }
    seen.sort();
    assert_eq!(seen, wanted);
    // What it has seen is also an address.
    let again = format!("{path}?lastEventId={last}");
    let mut reader = Reader::open(&stand, ACME, &again, None).await;
    reader.block().await;
    stand.insert(2_400, &[numbered(1)]).await;
    stand.settle(2_401).await;
    reader.next().await;
}

#[tokio::test]
async fn a_list_goes_on_live_without_a_gap() {
    let stand = Stand::new("tail_list").await;
    let events: Vec<_> = (0..60).map(numbered).collect();
    stand.fill(&events[..40]).await;
    let list = stand.get(ACME, "/v1/audit-logs?limit=100").await;
    stand.insert(40, &events[40..]).await;
    stand.settle(60).await;
    let path = format!(
        "/v1/audit-logs/tail?asOf={}",
        list["asOf"].as_str().unwrap()
    );
    let mut reader = Reader::open(&stand, ACME, &path, None).await;
    let mut seen = crate::stand::ids(&list);
    let wanted = expected(&events, |event| event.project_id.as_str() == ACME);
    while seen.len() < wanted.len() {
        seen.push(reader.next().await["id"].as_str().unwrap().to_owned());
    }
    seen.sort();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_quiet_log_says_now_and_then_that_the_connection_lives() {
    let stand = Stand::with("tail_quiet", |config| {
        config.streams.heartbeat = Duration::from_millis(10);
    })
    .await;
    stand.fill(&[numbered(0)]).await;
    let mut reader = Reader::open(&stand, ACME, "/v1/audit-logs/tail", None).await;
    let first = reader.block().await;
    assert!(
        first.contains("retry: 1000") && first.contains("id: "),
        "{first}"
    );
    for _ in 0..3 {
        let beat = reader.block().await;
        assert!(
            beat.lines()
                .all(|line| line.starts_with(':') || line.starts_with("id: ")),
            "{beat}"
        );
    }
}

#[tokio::test]
async fn the_last_id_of_a_quiet_log_is_as_young_as_its_heartbeat() {
    let max_age = Duration::from_secs(3);
    let stand = Stand::with("tail_age", |config| {
        config.streams.heartbeat = Duration::from_millis(50);
        config.cursors.max_age = max_age;
    })
    .await;
    stand.fill(&[numbered(1)]).await;
    let path = "/v1/audit-logs/tail";
    let begun = std::time::Instant::now();
    let mut reader = Reader::open(&stand, ACME, path, None).await;
    reader.block().await;
    let first = reader.last.clone();
    while begun.elapsed() <= max_age {
        reader.block().await;
    }
    Reader::open(&stand, ACME, path, Some(&reader.last)).await;
    let old = format!("{path}?lastEventId={first}");
    assert_eq!(stand.ask(ACME, &old).await.0, 400);
}

#[tokio::test]
async fn an_id_of_another_filter_or_project_is_stale() {
    let stand = Stand::new("tail_foreign").await;
    stand.fill(&[numbered(1)]).await;
    let mut reader = Reader::open(&stand, ACME, "/v1/audit-logs/tail", None).await;
    reader.block().await;
    let last = reader.last.clone();
    for (project, parameters, code) in [
        (OTHER, format!("lastEventId={last}"), "stale_cursor"),
        (
            ACME,
            format!("lastEventId={last}&userId=u1"),
            "stale_cursor",
        ),
        (ACME, "lastEventId=x".to_owned(), "stale_cursor"),
        (ACME, format!("asOf={last}"), "stale_cursor"),
        (ACME, "limit=1".to_owned(), "invalid"),
        (ACME, "order=asc".to_owned(), "invalid"),
    ] {
        let path = format!("/v1/audit-logs/tail?{parameters}");
        stand.refused(project, &path, code).await;
    }
}

#[tokio::test]
async fn there_are_only_so_many_live_readers() {
    let stand = Stand::with("tail_places", |config| config.streams.max_tails = 1).await;
    let open = Reader::open(&stand, ACME, "/v1/audit-logs/tail", None).await;
    assert_eq!(
        stand.send(get(ACME, "/v1/audit-logs/tail")).await.status(),
        429
    );
    drop(open);
    Reader::open(&stand, ACME, "/v1/audit-logs/tail", None).await;
}
