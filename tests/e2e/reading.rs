//! Reading while others write: pages that are stable, and names that are found.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use audit_tests::process::wait_until;
use audit_tests::world::{Key, World, event};

/// Waits until an event can be read through the API, and gives it.
pub(crate) async fn readable(
    world: &World,
    api: &str,
    key: &Key,
    id: &str,
) -> anyhow::Result<Value> {
    let url = format!("{api}/v1/audit-logs/{id}");
    wait_until("an event to be readable", async || {
        let (status, answer) = world.ask(Method::GET, &url, &key.secret, None).await?;
        Ok((status == StatusCode::OK).then_some(answer))
    })
    .await
}

/// Whether an event of the plugin has the columns of its contract.
pub(crate) fn is_stored_as_sent(event: &Value, body: &Value) -> anyhow::Result<()> {
    let data = &body["eventData"];
    let first = |names: &[&str]| {
        let said = |value: &&Value| value.is_string() && **value != "unknown" && **value != "";
        names
            .iter()
            .map(|name| &data[*name])
            .find(said)
            .cloned()
            .unwrap_or(Value::Null)
    };
    let sent_type = body["eventType"].as_str().context("a type")?;
    let actor = if sent_type.starts_with("security_") {
        Value::Null
    } else {
        first(&["triggeredBy"])
    };
    for (column, sent) in [
        (&event["eventType"], body["eventType"].clone()),
        (&event["eventData"], data.clone()),
        (&event["eventKey"], body["eventKey"].clone()),
        (&event["eventDisplayName"], body["eventDisplayName"].clone()),
        (
            &event["userId"],
            first(&["userId", "userid", "acceptedById", "inviteeId"]),
        ),
        (
            &event["identifier"],
            first(&[
                "identifier",
                "userEmail",
                "memberEmail",
                "inviteeEmail",
                "userName",
            ]),
        ),
        (&event["organizationId"], first(&["organizationId"])),
        (&event["sessionId"], first(&["sessionId"])),
        (&event["userAgent"], first(&["userAgent"])),
        (&event["actor"]["id"], actor),
        (&event["actor"]["type"], first(&["triggerContext"])),
        (
            &event["location"]["ipAddress"],
            body.get("ipAddress").cloned().unwrap_or_default(),
        ),
    ] {
        ensure!(*column == sent, "{column} is not {sent}: {event}");
    }
    Ok(())
}

/// Waits until the key reads a total.
pub(crate) async fn total_is(
    world: &World,
    url: &str,
    key: &Key,
    total: u64,
) -> anyhow::Result<()> {
    wait_until(&format!("{total} events to be readable"), async || {
        let page = world
            .get(&format!("{url}/v1/audit-logs?limit=1"), key)
            .await?;
        Ok((page["total"] == total).then_some(()))
    })
    .await
}

pub(crate) async fn a_walk_by_cursor_sees_each_event_once_while_others_arrive(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write", "read"])?;
    let _consumer = world.consumer().await?;
    let api = world.query_api().await?;
    let before: HashSet<String> = world
        .publish(500)
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    let list = format!("{}/v1/audit-logs", api.url);
    total_is(&world, &api.url, &key, 500).await?;

    let producer = world.producer()?;
    let mut seen = Vec::new();
    let mut page = world.get(&format!("{list}?limit=7"), &key).await?;
    loop {
        ensure!(
            page["total"] == 500 && page["totalRelation"] == "eq",
            "{page}"
        );
        let events = page["events"].as_array().context("events")?;
        seen.extend(
            events
                .iter()
                .map(|event| event["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        producer.publish(&event("acme", "late")).await?;
        page = world
            .get(&format!("{list}?limit=7&cursor={cursor}"), &key)
            .await?;
    }
    ensure!(seen.len() == 500, "{} events seen", seen.len());
    ensure!(seen.into_iter().collect::<HashSet<_>>() == before);
    Ok(())
}

pub(crate) async fn an_event_is_found_under_both_its_names(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write", "read"])?;
    let _consumer = world.consumer().await?;
    let (ingest, api) = (world.ingest().await?, world.query_api().await?);
    let events = json!([
        {"eventType": "user_created", "userId": "u1"},
        {"eventType": "user_signed_up", "userId": "u2"},
        {"eventType": "security_signal", "eventData": {"type": "geo_blocked", "action": "blocked"}},
        {"eventType": "invoice.paid", "userId": "u1"},
    ]);
    let url = format!("{}/v1/events", ingest.url);
    let (_, answer) = world
        .ask(Method::POST, &url, &key.secret, Some(&events))
        .await?;
    for result in answer["results"].as_array().context("results")? {
        readable(
            &world,
            &api.url,
            &key,
            result["id"].as_str().context("an id")?,
        )
        .await?;
    }
    for (query, total) in [
        ("eventType=user_signed_up", 2),
        ("eventType=user_created", 2),
        ("eventType=security_geo_blocked", 1),
        ("eventType=security_signal", 1),
        ("eventType=invoice.paid,user_created", 3),
        ("eventType=invoice.paid&eventType=user_created&userId=u1", 2),
        ("eventType=user_banned", 0),
    ] {
        let page = world
            .get(&format!("{}/v1/audit-logs?{query}", api.url), &key)
            .await?;
        ensure!(page["total"] == total, "{query}: {page}");
        ensure!(
            page["events"].as_array().is_some_and(|e| e.len() == total),
            "{query}: {page}"
        );
    }
    let sent = world
        .get(
            &format!(
                "{}/v1/audit-logs?userId=u1&eventType=user_signed_up",
                api.url
            ),
            &key,
        )
        .await?;
    ensure!(sent["events"][0]["eventType"] == "user_created", "{sent}");
    ensure!(
        sent["events"][0]["documentedType"] == "user_signed_up",
        "{sent}"
    );
    Ok(())
}
