//! Files: whole or visibly cut, of one frozen set, and gone on with where they were cut.

use std::collections::BTreeSet;

use audit_schema::{Event, EventId};
use axum::body::to_bytes;
use serde_json::Value;

use crate::slowness::LIMIT;
use crate::stand::{ACME, OTHER, Stand, T, event, get};

/// More than one stretch of the reader.
const MANY: usize = 12_000;

fn numbered(number: usize) -> Event<'static> {
    let project = if number.is_multiple_of(10) {
        OTHER
    } else {
        ACME
    };
    // Thousands share a millisecond.
    let millis = T + i64::try_from(number / 5_000).unwrap();
    event(project, millis)
        .user_id(format!("u{}", number % 3))
        .build()
        .unwrap()
}

async fn filled(name: &str) -> (Stand, Vec<Event<'static>>) {
    let stand = Stand::new(name).await;
    let events: Vec<_> = (0..MANY).map(numbered).collect();
    stand.fill(&events).await;
    (stand, events)
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Event<'static>>) -> BTreeSet<String> {
    events
        .into_iter()
        .map(|event| event.id.to_string())
        .collect()
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn ids_of(lines: &[Value]) -> Vec<String> {
    let ids = lines.iter().filter_map(|line| line["id"].as_str());
    ids.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_file_has_each_event_once_and_says_that_it_is_whole() {
    let (stand, events) = filled("export_whole").await;
    let ours = events
        .iter()
        .filter(|event| event.project_id.as_str() == ACME);
    let (head, bytes, well) = stand.file(ACME, "/v1/audit-logs/export").await;
    assert!(well);
    assert_eq!(head["content-type"], "application/x-ndjson");
    let name = head["content-disposition"].to_str().unwrap();
    assert!(
        name.starts_with("attachment; filename=\"audit-logs-acme-20"),
        "{name}"
    );
    assert!(name.ends_with("Z.ndjson\""), "{name}");
    let mut lines = lines(&bytes);
    let end = lines.pop().unwrap();
    assert_eq!(end["export"]["complete"], true);
    assert_eq!(end["export"]["events"], 10_800);
    assert_eq!(end["export"]["asOf"], head["audit-as-of"].to_str().unwrap());
    let seen = ids_of(&lines);
    assert_eq!(seen.len(), 10_800);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), ids(ours));
    assert!(lines.is_sorted_by(|a, b| a["createdAt"].as_str() >= b["createdAt"].as_str()));
    // One event is what the list shows of it.
    let listed = stand.get(ACME, "/v1/audit-logs?limit=1").await;
    assert_eq!(listed["events"][0], lines[0]);
}

#[tokio::test]
async fn every_format_has_what_a_filter_matches() {
    let (stand, events) = filled("export_formats").await;
    let ours = |event: &&Event<'_>| event.project_id.as_str() == ACME && event.user_id == "u1";
    let count = events.iter().filter(ours).count();
    let path = |format| format!("/v1/audit-logs/export?userId=u1&order=asc&format={format}");
    let (_, ndjson, _) = stand.file(ACME, &path("ndjson")).await;
    assert_eq!(lines(&ndjson).len(), count + 1);
    let (head, csv, _) = stand.file(ACME, &path("csv")).await;
    assert!(
        head["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/csv")
    );
    let csv = String::from_utf8(csv).unwrap();
    assert_eq!(csv.lines().count(), count + 2);
    assert!(
        csv.lines()
            .last()
            .unwrap()
            .starts_with(&format!("\"#complete\",\"{count}\",\"\","))
    );
    let (head, parquet, _) = stand.file(ACME, &path("parquet")).await;
    assert_eq!(head["content-type"], "application/vnd.apache.parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
}

#[tokio::test]
async fn a_file_that_was_cut_goes_on_after_its_last_whole_event() {
    let (stand, _) = filled("export_cut").await;
    for (more, order) in (MANY as u64..).zip(["desc", "asc"]) {
        let path = format!("/v1/audit-logs/export?order={order}");
        let (head, whole, _) = stand.file(ACME, &path).await;
        let as_of = head["audit-as-of"].to_str().unwrap().to_owned();
        // What arrives in between is not in it.
        stand.insert(more, &[numbered(1)]).await;
        stand.settle(more + 1).await;
        for cut in [whole.len() / 7, whole.len() / 2, whole.len() - 10] {
            let begun = &whole[..cut];
            let end = begun.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
            let last: Value = lines(&begun[..end]).pop().unwrap();
            let at = |name: &str| last["position"][name].to_string();
            let after = [at("incarnation"), at("partition"), at("offset")].join("-");
            let path = format!("{path}&asOf={as_of}&after={after}");
            let (_, rest, well) = stand.file(ACME, &path).await;
            assert!(well);
            assert!([&begun[..end], &rest].concat() == whole, "{order} {cut}");
        }
    }
}

#[tokio::test]
async fn a_file_goes_on_only_as_it_began() {
    let (stand, _) = filled("export_foreign").await;
    let path = "/v1/audit-logs/export?userId=u1";
    let (head, bytes, _) = stand.file(ACME, path).await;
    let as_of = head["audit-as-of"].to_str().unwrap().to_owned();
    let first = &lines(&bytes)[0];
    let at = |name: &str| first["position"][name].to_string();
    let after = [at("incarnation"), at("partition"), at("offset")].join("-");
    for (project, parameters, code) in [
        (ACME, format!("userId=u1&after={after}"), "invalid"),
        (
            ACME,
            format!("userId=u2&asOf={as_of}&after={after}"),
            "invalid",
        ),
        (
            ACME,
            format!("userId=u1&asOf={as_of}&after=1-0-999999"),
            "invalid",
        ),
        (ACME, format!("userId=u1&asOf={as_of}&after=x"), "invalid"),
        (
            ACME,
            format!("userId=u1&asOf=x&after={after}"),
            "stale_cursor",
        ),
        (
            OTHER,
            format!("userId=u1&asOf={as_of}&after={after}"),
            "stale_cursor",
        ),
        (ACME, "format=xlsx".to_owned(), "invalid"),
        (ACME, "limit=10".to_owned(), "invalid"),
    ] {
        let path = format!("/v1/audit-logs/export?{parameters}");
        stand.refused(project, &path, code).await;
    }
}

#[tokio::test]
async fn a_file_of_nothing_is_whole_and_has_nowhere_to_go_on() {
    let stand = Stand::new("export_nothing").await;
    // Stored, and not readable yet.
    stand.insert(0, &[numbered(1)]).await;
    let (head, bytes, well) = stand.file(ACME, "/v1/audit-logs/export").await;
    assert!(well);
    assert_eq!(lines(&bytes)[0]["export"]["events"], 0);
    let as_of = head["audit-as-of"].to_str().unwrap();
    let path = format!("/v1/audit-logs/export?asOf={as_of}&after=1-0-0");
    stand.refused(ACME, &path, "invalid").await;
}

#[tokio::test]
async fn a_file_has_each_report_of_one_id_at_one_time_once() {
    let stand = Stand::new("export_reports").await;
    let ids: Vec<_> = (0..MANY / 3).map(|_| EventId::new()).collect();
    let report = |number: usize| event(ACME, T).id(ids[number / 3]).build().unwrap();
    stand.fill(&(0..MANY).map(report).collect::<Vec<_>>()).await;
    for order in ["desc", "asc"] {
        let path = format!("/v1/audit-logs/export?order={order}");
        let (_, bytes, well) = stand.file(ACME, &path).await;
        assert!(well);
        let mut lines = lines(&bytes);
        assert_eq!(lines.pop().unwrap()["export"]["events"], MANY);
        let position = |line: &Value| line["position"].to_string();
        let seen: BTreeSet<_> = lines.iter().map(position).collect();
        assert_eq!(seen.len(), MANY, "{order}");
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_keeps_no_other_waiting_and_can_go_on() {
    let stand = Stand::with("export_stopped", |config| {
        config.queries.bulk_at_once = 1;
    })
    .await;
    let events: Vec<_> = (0..MANY).map(numbered).collect();
    stand.fill(&events).await;
    let path = "/v1/audit-logs/export";
    let stopped = stand.send(get(ACME, path)).await;
    let other = tokio::time::timeout(LIMIT, stand.file(ACME, path)).await;
    let (_, other, _) = other.expect("the one turn is given on");
    let bytes = to_bytes(stopped.into_body(), usize::MAX).await.unwrap();
    let events = |file: &[u8]| {
        let mut lines = lines(file);
        assert_eq!(lines.pop().unwrap()["export"]["complete"], true);
        lines
    };
    assert!(events(&bytes) == events(&other));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_does_not_look_whole() {
    let stand = Stand::with("export_broken", |config| {
        config.queries.bulk_time = std::time::Duration::from_millis(700);
    })
    .await;
    let events: Vec<_> = (0..MANY).map(numbered).collect();
    stand.fill(&events).await;
    // The older half of the table takes forever.
    stand.slow_below(T + 2).await;
    let (_, bytes, well) = stand.file(ACME, "/v1/audit-logs/export").await;
    assert!(!well);
    assert!(!String::from_utf8(bytes).unwrap().contains("complete"));
}

#[tokio::test]
async fn there_are_only_so_many_files_at_once_and_pages_do_not_wait_for_them() {
    let (stand, _) = filled("export_places").await;
    let mut open = Vec::new();
    // Nobody reads them: after their first events they wait for their clients.
    for _ in 0..8 {
        open.push(stand.send(get(ACME, "/v1/audit-logs/export")).await);
        assert_eq!(open.last().unwrap().status(), 200);
    }
    let refused = stand.send(get(ACME, "/v1/audit-logs/export")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "10");
    assert_eq!(stand.get(ACME, "/v1/audit-logs").await["total"], 10_800);
    open.pop();
    assert_eq!(
        stand
            .send(get(ACME, "/v1/audit-logs/export"))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn an_answer_is_compressed_as_its_reader_likes_it() {
    let (stand, _) = filled("export_compressed").await;
    for (accepted, format, encoding) in [
        ("gzip", "ndjson", Some("gzip")),
        ("zstd, gzip;q=0.5", "csv", Some("zstd")),
        ("gzip", "parquet", None),
        ("br", "ndjson", None),
    ] {
        let mut request = get(ACME, &format!("/v1/audit-logs/export?format={format}"));
        request
            .headers_mut()
            .insert("accept-encoding", accepted.parse().unwrap());
        let answer = stand.send(request).await;
        let given = answer.headers().get("content-encoding");
        assert_eq!(
            given.map(|given| given.to_str().unwrap()),
            encoding,
            "{accepted} {format}"
        );
    }
}
