//! An event on its whole way: sent over HTTP, through Kafka, into ClickHouse, and read again.

use std::sync::Arc;

use anyhow::ensure;
use audit_schema::CATALOGUE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::reading::is_stored_as_sent;
use audit_tests::world::{World, event};

/// The requests of a real Better Auth server.
const CAPTURE: &str = include_str!("../../schema/tests/fixtures/capture.ndjson");

pub(crate) async fn every_event_comes_back_with_the_columns_of_its_contract(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write", "read"])?;
    let _consumer = world.consumer().await?;
    let ingest = world.ingest().await?;
    let api = world.query_api().await?;

    let mut sent = Vec::new();
    for line in CAPTURE.lines() {
        let request: Value = serde_json::from_str(line)?;
        if request["method"] == "POST" {
            sent.push(request["body"].clone());
        }
    }
    for entry in CATALOGUE {
        sent.push(json!({
            "eventType": entry.name,
            "eventData": {"userId": "u", "triggeredBy": "boss", "organizationId": "o"},
            "eventKey": "u",
            "eventDisplayName": entry.name,
            "ipAddress": "203.0.113.9",
            "countryCode": "NZ",
        }));
    }
    let mut ids = Vec::new();
    for body in &sent {
        let url = format!("{}/events/track", ingest.url);
        let (status, answer) = world
            .ask(Method::POST, &url, &key.secret, Some(body))
            .await?;
        ensure!(status == StatusCode::OK, "{body}: {answer}");
        ids.push(answer["id"].as_str().unwrap().to_owned());
    }
    world.stored(sent.len()).await?;

    for (body, id) in sent.iter().zip(&ids) {
        let event = crate::reading::readable(&world, &api.url, &key, id).await?;
        ensure!(event["projectId"] == "acme", "{event}");
        is_stored_as_sent(&event, body)?;
    }
    let all = world
        .sql("SELECT count(), uniqExact(event_id) FROM audit_events")
        .await?;
    ensure!(all == format!("{0}\t{0}", sent.len()), "{all}");
    Ok(())
}

pub(crate) async fn a_retried_event_is_stored_once(world: Arc<World>) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write"])?;
    let _consumer = world.consumer().await?;
    let (first, second) = (world.ingest().await?, world.ingest().await?);
    let body = json!({
        "id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "eventType": "user_signed_in",
        "eventKey": "u1",
    });
    // In one batch, later, and through another instance.
    for ingest in [&first, &first, &second] {
        let url = format!("{}/v1/events", ingest.url);
        let (status, answer) = world
            .ask(Method::POST, &url, &key.secret, Some(&body))
            .await?;
        ensure!(status == StatusCode::OK, "{answer}");
    }
    world.stored(1).await?;
    let url = format!("{}/v1/events", second.url);
    world
        .ask(Method::POST, &url, &key.secret, Some(&body))
        .await?;
    audit_tests::process::wait_until("three dead letters", async || {
        let letters = world
            .sql("SELECT kind, reason FROM audit_dead_letters")
            .await?;
        let duplicates = letters
            .lines()
            .filter(|line| line.starts_with("duplicate\t"))
            .count();
        Ok((duplicates == 3).then_some(()))
    })
    .await?;
    ensure!(world.sql("SELECT count() FROM audit_events").await? == "1");
    Ok(())
}

pub(crate) async fn a_batch_is_answered_event_by_event(world: Arc<World>) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write"])?;
    let _consumer = world.consumer().await?;
    let ingest = world.ingest().await?;
    let url = format!("{}/v1/events", ingest.url);

    let many: Vec<Value> = (0..1000)
        .map(|n| json!({"eventType": "member_added", "eventKey": format!("o{n}")}))
        .collect();
    let (status, answer) = world
        .ask(Method::POST, &url, &key.secret, Some(&json!(many)))
        .await?;
    ensure!(status == StatusCode::OK, "{answer}");
    let results = answer["results"].as_array().unwrap();
    ensure!(
        results.len() == 1000 && results.iter().all(|r| r["id"].is_string()),
        "{answer}"
    );

    let mixed = json!([{"eventType": "ok"}, {"eventType": 7}, {"eventType": "a,b"}]);
    let (status, answer) = world
        .ask(Method::POST, &url, &key.secret, Some(&mixed))
        .await?;
    ensure!(status == StatusCode::OK, "{answer}");
    ensure!(answer["results"][0]["id"].is_string(), "{answer}");
    ensure!(answer["results"][1]["error"].is_object(), "{answer}");
    ensure!(answer["results"][2]["index"] == 2, "{answer}");

    let bad = json!({"eventType": ""});
    let (status, answer) = world
        .ask(Method::POST, &url, &key.secret, Some(&bad))
        .await?;
    ensure!(status == StatusCode::BAD_REQUEST, "{answer}");
    ensure!(answer["results"][0]["error"].is_object(), "{answer}");
    world.stored(1001).await
}

pub(crate) async fn the_producer_crate_reports_where_an_event_is(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let published = world
        .publish_all(std::iter::once(event("acme", "u1")))
        .await?;
    let (_, stored) = published[0];
    world.stored(1).await?;
    let place = world
        .sql("SELECT source_partition, source_offset FROM audit_events")
        .await?;
    ensure!(
        place == format!("{}\t{}", stored.partition, stored.offset),
        "{place} {stored:?}"
    );
    Ok(())
}
