//! Reads are events of the log: each once, by whom, and what was asked; also across a Kafka that is
//! away and a death of the query API.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_tests::process::wait_until;
use audit_tests::world::{Key, Service, World};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::reading::total_is;
use crate::spool::own_kafka;

/// Asks under a request id, and gives status and text.
async fn ask(
    world: &World,
    url: &str,
    key: &str,
    request: &str,
) -> anyhow::Result<(StatusCode, String)> {
    let asked = world.http().get(url).header("x-api-key", key);
    let answer = asked.header("x-request-id", request).send().await?;
    Ok((answer.status(), answer.text().await?))
}

/// Takes a file away under a request id; it has to be whole, with so many events.
async fn export(
    world: &World,
    api: &Service,
    key: &Key,
    request: &str,
    events: usize,
) -> anyhow::Result<()> {
    let url = format!("{}/v1/audit-logs/export?userId=u1", api.url);
    let (status, file) = ask(world, &url, &key.secret, request).await?;
    let end: Value = serde_json::from_str(file.lines().last().context("a line")?)?;
    ensure!(
        status == StatusCode::OK
            && end["export"]["complete"] == true
            && end["export"]["events"] == events,
        "{status} {end}"
    );
    ensure!(file.lines().count() == events + 1);
    Ok(())
}

/// Waits until the read of this request can be read, and gives it.
async fn recorded(world: &World, api: &Service, by: &Key, request: &str) -> anyhow::Result<Value> {
    let url = format!("{}/v1/audit-logs?requestId={request}", api.url);
    wait_until(&format!("the record of {request}"), async || {
        let answer = world.get(&url, by).await?;
        Ok((answer["total"] == 1).then(|| answer["events"][0].clone()))
    })
    .await
}

pub(crate) async fn reads_are_events_of_the_log_and_refused_ones_are_not(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["read", "write"])?;
    let other = world.key("other", &["read"])?;
    let auditor = world.key("acme", &["read"])?;
    let _consumer = world.consumer().await?;
    let ids = world.publish_of("u1", 3).await?;
    // Looking through the API would be recorded as well.
    world.settled().await?;
    world.set("AUDIT_QUERY_API_AUDIT__READS", "true");
    let api = world.query_api().await?;
    let id = ids.first().context("an event")?.to_string();

    // What is refused comes first: its record would be there before those of what follows.
    for (path, secret, status) in [
        ("/v1/audit-logs?limit=0", key.secret.as_str(), 400),
        ("/v1/audit-logs/export?format=xlsx", &key.secret, 400),
        ("/v1/audit-logs/tail?limit=1", &key.secret, 400),
        ("/v1/audit-logs/stats?bucket=moon", &key.secret, 400),
        ("/v1/audit-logs/nothing", &key.secret, 404),
        ("/v1/audit-logs/export", "nobody", 401),
    ] {
        let (answered, _) = ask(&world, &format!("{}{path}", api.url), secret, "refused").await?;
        ensure!(answered == status, "{path}: {answered}");
    }
    let questions = [
        (
            "list",
            "?userId=u1&userId=u2&limit=2",
            json!({"userId": ["u1", "u2"], "limit": ["2"]}),
        ),
        ("get", &format!("/{id}"), json!({"id": [id]})),
        ("stats", "/stats?bucket=day", json!({"bucket": ["day"]})),
        (
            "tail",
            "/tail?eventType=user_*",
            json!({"eventType": ["user_*"]}),
        ),
        (
            "export",
            "/export?format=csv&userId=u1",
            json!({"format": ["csv"], "userId": ["u1"]}),
        ),
    ];
    let questions =
        questions.map(|(name, path, asked)| (name, format!("/v1/audit-logs{path}"), asked));
    let plugin = "/events/user?userId=u1&limit=5";
    let plugin = (
        "plugin_user",
        plugin.to_owned(),
        json!({"userId": ["u1"], "limit": ["5"]}),
    );
    for (name, path, asked) in questions.into_iter().chain([plugin]) {
        let url = format!("{}{path}", api.url);
        // Only the head: the answer of a live reader has no end.
        let answer = world.http().get(url).header("x-api-key", &key.secret);
        let answer = answer.header("x-request-id", name).send().await?;
        ensure!(answer.status() == StatusCode::OK, "{path}");
        let event = recorded(&world, &api, &auditor, name).await?;
        let kind = if name == "export" {
            "audit_log_exported"
        } else {
            "audit_log_read"
        };
        ensure!(
            event["eventType"] == kind
                && event["projectId"] == "acme"
                && event["actor"] == json!({"id": "read-write", "type": "api_key"})
                && event["requestId"] == name
                && event["eventData"]["operation"] == name
                && event["eventData"]["question"] == asked,
            "{event}"
        );
    }
    // All that was recorded of this key is there, and it is these.
    world.settled().await?;
    let requests = world
        .sql(
            "SELECT request_id FROM audit_events WHERE actor_id = 'read-write' ORDER BY request_id",
        )
        .await?;
    let requests: Vec<&str> = requests.lines().collect();
    ensure!(
        requests == ["export", "get", "list", "plugin_user", "stats", "tail"],
        "{requests:?}"
    );
    let seen = world
        .get(&format!("{}/v1/audit-logs", api.url), &other)
        .await?;
    ensure!(seen["total"] == 0, "{seen}");
    Ok(())
}

/// Whether a file in the folder has this text.
fn holds(folder: &Path, text: &str) -> anyhow::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds(&path, text)?
        } else {
            let bytes = std::fs::read(path)?;
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) async fn a_file_taken_away_while_kafka_is_away_is_recorded_once_it_is_back(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut kafka = own_kafka(&world).await?;
    let key = world.key("acme", &["read"])?;
    let consumer = world.consumer().await?;
    let folder = world.logs().join("spool");
    let name = "AUDIT_QUERY_API_KAFKA__SPOOL__FOLDER";
    world.set(name, &folder.display().to_string());
    let mut api = world.query_api().await?;
    world.publish_of("u1", 500).await?;
    total_is(&world, &api.url, &key, 500).await?;

    kafka.kill().await?;
    // Nobody starts Kafka before these are answered: they do not wait for it.
    for request in ["before-death", "after-death"] {
        export(&world, &api, &key, request, 500).await?;
        wait_until("the record to be in the spool", async || {
            Ok(holds(&folder, request)?.then_some(()))
        })
        .await?;
        api.process.kill()?;
        api = world.query_api().await?;
    }
    export(&world, &api, &key, "third-life", 500).await?;
    kafka.run().await?;
    for request in ["before-death", "after-death", "third-life"] {
        let event = recorded(&world, &api, &key, request).await?;
        ensure!(event["eventType"] == "audit_log_exported", "{event}");
    }
    world.settled().await?;
    let rows = world
        .sql("SELECT count(), uniqExact(request_id) FROM audit_events WHERE actor_id = 'read'")
        .await?;
    ensure!(rows == "3\t3", "{rows}");
    // The Kafka is this test's own and ends with it, so the table is looked over before.
    world.audit()?;
    world.broken_on_purpose();
    drop(consumer);
    Ok(())
}
