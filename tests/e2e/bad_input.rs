//! Bad input: a stored event, or a refusal that says what to change; never a 500.

use std::sync::Arc;

use anyhow::ensure;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::reading::{readable, total_is};
use audit_tests::world::World;

pub(crate) async fn what_ingest_is_sent_is_stored_or_refused_with_a_reason(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write", "read"])?;
    let _consumer = world.consumer().await?;
    let (ingest, api) = (world.ingest().await?, world.query_api().await?);

    let nested = |levels: usize| {
        let data = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        format!(r#"{{"eventType":"x","eventData":{data}}}"#)
    };
    let controls: Vec<String> = (0_u8..0x20).map(|c| format!("\\u{c:04x}")).collect();
    let controls = controls.concat();
    let two_mebibytes = format!(
        r#"{{"eventType":"x","eventData":{{"x":"{}"}}}}"#,
        "y".repeat(2 << 20)
    );
    let too_large = format!(
        r#"{{"eventType":"x","eventData":{{"x":"{}"}}}}"#,
        "y".repeat(257 << 10)
    );
    let thousand_and_one = json!(vec![json!({"eventType": "x"}); 1001]).to_string();
    let taken = [
        r#"{"eventType":"x"}"#.to_owned(),
        format!(
            r#"{{"eventType":"x","eventDisplayName":"{controls}","eventData":{{"x":"{controls}"}}}}"#
        ),
        nested(100),
        r#"{"eventType":"x","createdAt":"1970-01-01T00:00:00Z"}"#.to_owned(),
        r#"{"eventType":"x","createdAt":1}"#.to_owned(),
        r#"{"eventType":"x","id":"f47ac10b-58cc-4372-a567-0e02b2c3d479","createdAt":1}"#.to_owned(),
        r#"{"eventType":"x","eventData":null,"userId":null}"#.to_owned(),
    ];
    let refused = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "7".to_owned(),
        "null".to_owned(),
        r#""x""#.to_owned(),
        "{}".to_owned(),
        r#"{"eventType":7}"#.to_owned(),
        r#"{"eventType":"x","eventData":[]}"#.to_owned(),
        r#"{"eventType":"x","unknownKey":1}"#.to_owned(),
        r#"{"eventType":"x","ipAddress":"999.1.1.1"}"#.to_owned(),
        r#"{"eventType":"x","createdAt":"9999-01-01T00:00:00Z"}"#.to_owned(),
        r#"{"eventType":"x","createdAt":"yesterday"}"#.to_owned(),
        r#"{"eventType":"x","id":"f47ac10b-58cc-4372-a567-0e02b2c3d479"}"#.to_owned(),
        r#"{"eventType":"x","id":"no"}"#.to_owned(),
        r#"{"eventType":"x","outcome":"maybe"}"#.to_owned(),
        nested(101),
        nested(20_000),
        too_large,
        two_mebibytes,
        thousand_and_one,
    ];
    let send = async |path: &str, body: &str, key: &str| {
        let request = world
            .http()
            .post(format!("{}{path}", ingest.url))
            .header("content-type", "application/json")
            .header("x-api-key", key)
            .body(body.to_owned());
        let answer = request.send().await?;
        let status = answer.status();
        anyhow::Ok((status, answer.text().await?))
    };
    let mut ids = Vec::new();
    for body in &taken {
        let (status, answer) = send("/v1/events", body, &key.secret).await?;
        let start: String = body.chars().take(80).collect();
        ensure!(status == StatusCode::OK, "{start}: {status} {answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        ids.push(answer["results"][0]["id"].as_str().unwrap().to_owned());
    }
    for body in &refused {
        let (status, answer) = send("/v1/events", body, &key.secret).await?;
        let start: String = body.chars().take(80).collect();
        ensure!(status.is_client_error(), "{start}: {status} {answer}");
        ensure!(answer.contains("message"), "{start}: {status} {answer}");
        // The plugin's endpoint is more lenient, but never breaks either.
        let (status, answer) = send("/events/track", body, &key.secret).await?;
        ensure!(!status.is_server_error(), "{start}: {status} {answer}");
    }
    for wrong in ["", "wrong", "Bearer", "\u{7f}x"] {
        let (status, answer) = send("/v1/events", &taken[0], wrong).await.unwrap_or((
            // A header that cannot be sent at all.
            StatusCode::UNAUTHORIZED,
            "unauthorized".to_owned(),
        ));
        ensure!(
            status == StatusCode::UNAUTHORIZED,
            "{wrong:?}: {status} {answer}"
        );
    }
    for id in &ids {
        readable(&world, &api.url, &key, id).await?;
    }
    let stored = readable(&world, &api.url, &key, &ids[1]).await?;
    let controls: String = (0_u8..0x20).map(char::from).collect();
    ensure!(stored["eventDisplayName"] == controls, "{stored}");
    ensure!(stored["eventData"]["x"] == controls, "{stored}");
    Ok(())
}

pub(crate) async fn what_the_query_api_is_asked_is_answered_or_refused_with_a_reason(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write", "read"])?;
    let _consumer = world.consumer().await?;
    let api = world.query_api().await?;
    world.publish(5).await?;
    let list = format!("{}/v1/audit-logs", api.url);
    total_is(&world, &api.url, &key, 5).await?;
    let page = world
        .get(&format!("{list}?limit=1&userId=user-1"), &key)
        .await?;
    let other = world.get(&format!("{list}?limit=1"), &key).await?;
    ensure!(page["total"] == 1 && other["total"] == 5, "{page} {other}");
    let cursor = other["nextCursor"].as_str().unwrap();

    let long = "x".repeat(10_000);
    let refused = [
        "limit=0".to_owned(),
        "limit=-1".to_owned(),
        "limit=1000".to_owned(),
        "limit=abc".to_owned(),
        "limit=".to_owned(),
        "limit=1&limit=2".to_owned(),
        "offset=-1".to_owned(),
        "offset=99999999999999999999".to_owned(),
        "from=tomorrow".to_owned(),
        "to=9999999999999999999".to_owned(),
        "limmit=1".to_owned(),
        "eventType=".to_owned(),
        "cursor=abc".to_owned(),
        format!("cursor={cursor}&userId=user-1"),
        format!("cursor={cursor}x"),
        format!("userId={long}"),
        "userId=%ff".to_owned(),
    ];
    for query in &refused {
        let url = format!("{list}?{query}");
        let (status, answer) = world.ask(Method::GET, &url, &key.secret, None).await?;
        let start: String = query.chars().take(80).collect();
        ensure!(
            status == StatusCode::BAD_REQUEST,
            "{start}: {status} {answer}"
        );
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        ensure!(
            !message.is_empty() && answer["error"]["requestId"].is_string(),
            "{answer}"
        );
    }
    for query in [
        "userId=%00",
        "userId=%01%02%1f",
        "identifier='--",
        "userId=%F0%9F%98%80",
    ] {
        let page = world.get(&format!("{list}?{query}"), &key).await?;
        ensure!(page["total"] == 0, "{query}: {page}");
    }
    for path in ["/v1/audit-logs/no-id", "/v1/nothing", "/events/nothing"] {
        let url = format!("{}{path}", api.url);
        let (status, answer) = world.ask(Method::GET, &url, &key.secret, None).await?;
        ensure!(status.is_client_error(), "{path}: {status} {answer}");
        ensure!(answer["error"]["message"].is_string(), "{path}: {answer}");
    }
    Ok(())
}

pub(crate) async fn ten_thousand_idle_connections_keep_nobody_waiting(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write"])?;
    let ingest = world.ingest().await?;
    let address = ingest.url.trim_start_matches("http://");
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        idle.push(TcpStream::connect(address).await?);
    }
    // Half a head, and a body that does not come.
    for stream in &mut idle[..200] {
        stream.write_all(b"POST /events/track HTT").await?;
    }
    for stream in &mut idle[200..400] {
        let head = format!(
            "POST /events/track HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 1000\r\n\r\n",
            key.secret
        );
        stream.write_all(head.as_bytes()).await?;
    }
    let url = format!("{}/events/track", ingest.url);
    let event = json!({"eventType": "user_signed_in"});
    let (status, answer) = world
        .ask(Method::POST, &url, &key.secret, Some(&event))
        .await?;
    ensure!(status == StatusCode::OK, "{answer}");
    let mut refused = String::new();
    idle[200].read_to_string(&mut refused).await?;
    ensure!(refused.starts_with("HTTP/1.1 408"), "{refused}");
    Ok(())
}
