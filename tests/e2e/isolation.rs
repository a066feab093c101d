//! A project sees only its own events, on every endpoint, whatever it sends.

use std::sync::Arc;

use anyhow::ensure;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::reading::readable;
use audit_tests::world::World;

pub(crate) async fn a_project_sees_only_its_own_events(world: Arc<World>) -> anyhow::Result<()> {
    world.migrate()?;
    let (ours, theirs) = (
        world.key("ours", &["write", "read"])?,
        world.key("theirs", &["write", "read"])?,
    );
    let reader = world.key("theirs", &["read"])?;
    let writer = world.key("theirs", &["write"])?;
    let _consumer = world.consumer().await?;
    let (ingest, api) = (world.ingest().await?, world.query_api().await?);

    // The same user, organization and ids in both projects.
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let track = format!("{}/v1/events", ingest.url);
    for key in [&ours, &theirs] {
        let events = json!([
            {"id": id, "eventType": "user_signed_in", "eventKey": "u", "userId": "u",
             "organizationId": "o", "identifier": "u@example.com",
             "eventDisplayName": key.project.as_str()},
            {"eventType": "user_signed_out", "eventKey": "u", "userId": "u",
             "organizationId": "o", "eventDisplayName": key.project.as_str()},
        ]);
        let (status, answer) = world
            .ask(Method::POST, &track, &key.secret, Some(&events))
            .await?;
        ensure!(status == StatusCode::OK, "{answer}");
        for result in answer["results"].as_array().unwrap() {
            readable(&world, &api.url, key, result["id"].as_str().unwrap()).await?;
        }
    }

    let questions = [
        "/v1/audit-logs",
        "/v1/audit-logs?userId=u",
        "/v1/audit-logs?organizationId=o",
        "/v1/audit-logs?identifier=u@example.com",
        "/v1/audit-logs?eventType=user_signed_in",
        "/v1/audit-logs?userId=u'%20OR%201=1%20--%20",
        "/v1/audit-logs?userId=%5C%27)%20OR%20project_id%3D%27ours",
        "/events/user?userId=u&limit=50&offset=0",
        "/events/organization?organizationId=o&limit=50&offset=0",
        "/events/activity?organizationIds=o&limit=50&offset=0",
        "/events/activity?organizationIds=o&projectId=ours&limit=50",
        "/events/user?userId=u&projectId=ours",
    ];
    for question in questions {
        let answer = world
            .get(&format!("{}{question}", api.url), &theirs)
            .await?;
        for event in answer["events"].as_array().unwrap() {
            ensure!(event["projectId"] == "theirs", "{question}: {event}");
        }
        let text = answer.to_string();
        ensure!(!text.contains("\"ours\""), "{question}: {text}");
    }
    let event = world
        .get(&format!("{}/v1/audit-logs/{id}", api.url), &theirs)
        .await?;
    ensure!(
        event["projectId"] == "theirs" && event["eventDisplayName"] == "theirs",
        "{event}"
    );

    // A cursor of the other project is refused, and so is a project in a request.
    let page = world
        .get(&format!("{}/v1/audit-logs?limit=1", api.url), &ours)
        .await?;
    let cursor = page["nextCursor"].as_str().unwrap();
    let url = format!("{}/v1/audit-logs?limit=1&cursor={cursor}", api.url);
    let (status, answer) = world.ask(Method::GET, &url, &theirs.secret, None).await?;
    ensure!(status == StatusCode::BAD_REQUEST, "{answer}");
    let url = format!("{}/v1/audit-logs?projectId=ours", api.url);
    let (status, answer) = world.ask(Method::GET, &url, &theirs.secret, None).await?;
    ensure!(status == StatusCode::BAD_REQUEST, "{answer}");
    let forged = json!({"eventType": "x", "projectId": "ours"});
    let (status, answer) = world
        .ask(Method::POST, &track, &theirs.secret, Some(&forged))
        .await?;
    ensure!(status == StatusCode::BAD_REQUEST, "{answer}");

    // Scopes: a key does what it is for.
    let (status, _) = world
        .ask(
            Method::POST,
            &track,
            &reader.secret,
            Some(&json!({"eventType": "x"})),
        )
        .await?;
    ensure!(status == StatusCode::FORBIDDEN);
    let url = format!("{}/v1/audit-logs", api.url);
    let (status, _) = world.ask(Method::GET, &url, &writer.secret, None).await?;
    ensure!(status == StatusCode::FORBIDDEN);
    let (status, answer): (_, Value) = world.ask(Method::GET, &url, "wrong", None).await?;
    ensure!(status == StatusCode::UNAUTHORIZED, "{answer}");
    ensure!(answer["error"]["code"] == "unauthorized", "{answer}");
    Ok(())
}
