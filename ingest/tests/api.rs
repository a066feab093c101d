//! The endpoints against a real producer and librdkafka's mock cluster.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::sync::LazyLock;
use std::time::Duration;

use audit_ingest::{Ingest, router};
use audit_producer::{Producer, ProducerConfig, SpoolConfig};
use audit_service::http::{Http, finish};
use audit_service::keys::{ApiKeys, NewKey, Scope, add_key};
use audit_service::tls::Tls;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

const WRITER: &str = "writer-0123456789abcdef0123456789abcdef";
const READER: &str = "reader-0123456789abcdef0123456789abcdef";
const MIB: usize = 1_048_576;

/// One mock cluster for all tests: its first delivery takes a second.
static KAFKA: LazyLock<Producer> = LazyLock::new(|| {
    let mock = [
        ("test.mock.num.brokers", "1"),
        ("allow.auto.create.topics", "true"),
    ];
    let properties = mock
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    Producer::new(&ProducerConfig {
        properties,
        ..ProducerConfig::default()
    })
    .unwrap()
});

fn app(producer: Producer, confirm_timeout: Duration) -> Router {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let project = "acme".parse().unwrap();
    for (name, scopes, key) in [
        ("writer", &[Scope::Write][..], WRITER),
        ("reader", &[Scope::Read][..], READER),
    ] {
        let new = NewKey {
            name,
            scopes,
            organization: None,
            key,
        };
        add_key(&path, &project, new).unwrap();
    }
    let keys = ApiKeys::open(&path).unwrap();
    let limits = Http {
        listen: "127.0.0.1:0".parse().unwrap(),
        max_connections: 100,
        max_requests: 100,
        max_body_bytes: MIB,
        max_bodies_bytes: 16 * MIB,
        body_timeout: Duration::from_secs(60),
        request_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        stay_open: Duration::ZERO,
        cors_origins: Vec::new(),
        access_log: false,
        tls: Tls::default(),
    };
    finish(
        router(Ingest {
            producer,
            keys,
            confirm_timeout,
        }),
        &limits,
    )
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn send(app: Router, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let answer = app.oneshot(request).await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = to_bytes(answer.into_body(), 16 * MIB).await.unwrap();
    (status, headers, serde_json::from_slice(&body).unwrap())
}

fn to(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header("x-request-id", "request-1");
    request
        .header("x-api-key", WRITER)
        .body(body.into())
        .unwrap()
}

/// The status and the body of an answer, new ids masked.
async fn answer(path: &str, body: impl Into<Body>) -> Value {
    let app = app(KAFKA.clone(), Duration::from_secs(30));
    let (status, _, body) = send(app, to(path, body)).await;
    let mut answer = json!({ "status": status.as_u16(), "body": body });
    mask(&mut answer);
    answer
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "id" && value != GIVEN_ID {
                    assert!(value.as_str().is_some_and(|id| id.len() == 36), "{value}");
                    *value = json!("[id]");
                }
                mask(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

const GIVEN_ID: &str = "0193a4a0-0000-7000-8000-000000000001";

fn nested(levels: usize) -> String {
    let (open, close) = (r#"{"a":"#.repeat(levels), "}".repeat(levels));
    format!(r#"{{"eventType":"t","eventData":{open}1{close}}}"#)
}

fn of_size(bytes: usize) -> String {
    json!({ "eventType": "t", "eventData": { "x": "y".repeat(bytes) } }).to_string()
}

fn every_control_character() -> String {
    let text: String = (0..0x20)
        .chain([0x7f, 0x2028, 0xfeff])
        .filter_map(char::from_u32)
        .collect();
    let event = json!({ "eventType": "t", "eventKey": text, "eventData": { &text: text } });
    let json = event.to_string();
    assert!(json.contains(r"\u0000"), "{json}");
    json
}

#[tokio::test]
async fn answers_to_the_plugin() {
    let plugins = r#"{"eventType":"user_signed_in","eventData":{"userId":"u"},"eventKey":"u","eventDisplayName":"Signed in","ipAddress":"192.0.2.1","city":null}"#;
    let mut answers = Vec::new();
    for (name, body) in [
        ("a plugin's event", plugins.to_owned()),
        (
            "unknown fields and wrong types",
            r#"{"eventType":"t","x":1,"eventKey":5}"#.to_owned(),
        ),
        (
            "an address that is none",
            r#"{"eventType":"t","ipAddress":"localhost"}"#.to_owned(),
        ),
        ("every control character", every_control_character()),
        ("100 levels", nested(100)),
        ("101 levels", nested(101)),
        ("malformed JSON", r#"{"eventType":"#.to_owned()),
        ("no object", "[]".to_owned()),
        ("an empty body", String::new()),
        ("no type", r#"{"eventData":{}}"#.to_owned()),
        ("a type of two words", r#"{"eventType":"a b"}"#.to_owned()),
        ("257 KiB", of_size(257 * 1_024)),
        ("2 MiB", of_size(2 * MIB)),
    ] {
        answers.push(json!({ "given": name, "answer": answer("/events/track", body).await }));
    }
    insta::assert_json_snapshot!(answers);
}

#[tokio::test]
async fn answers_to_one_event() {
    let mut answers = Vec::new();
    for (name, body) in [
        ("only a type", json!({"eventType": "t"})),
        ("an id", json!({"eventType": "t", "id": GIVEN_ID})),
        (
            "the first millisecond",
            json!({"eventType": "t", "createdAt": "1970-01-01T00:00:00Z"}),
        ),
        (
            "the year 9999",
            json!({"eventType": "t", "createdAt": "9999-01-01T00:00:00Z"}),
        ),
        (
            "the year 2299",
            json!({"eventType": "t", "createdAt": "2299-01-01T00:00:00Z"}),
        ),
        (
            "a random id without a time",
            json!({"eventType": "t", "id": "f47ac10b-58cc-4372-a567-0e02b2c3d479"}),
        ),
        ("an unknown field", json!({"eventType": "t", "userID": "u"})),
        ("a project", json!({"eventType": "t", "projectId": "other"})),
        (
            "a wrong type",
            json!({"eventType": "t", "actor": {"id": 5}}),
        ),
        (
            "an address that is none",
            json!({"eventType": "t", "ipAddress": "256.0.0.1"}),
        ),
        (
            "an unknown outcome",
            json!({"eventType": "t", "outcome": "ok"}),
        ),
        (
            "a time that is none",
            json!({"eventType": "t", "createdAt": "yesterday"}),
        ),
        ("no type", json!({"eventKey": "u"})),
        (
            "event data that is no object",
            json!({"eventType": "t", "eventData": [1]}),
        ),
    ] {
        let answer = answer("/v1/events", body.to_string()).await;
        answers.push(json!({ "given": name, "answer": answer }));
    }
    for (name, body) in [
        ("every control character", every_control_character()),
        ("100 levels", nested(100)),
        ("101 levels", nested(101)),
        ("257 KiB", of_size(257 * 1_024)),
    ] {
        answers.push(json!({ "given": name, "answer": answer("/v1/events", body).await }));
    }
    insta::assert_json_snapshot!(answers);
}

#[tokio::test]
async fn answers_to_many_events() {
    let events = |count: usize| json!(vec![json!({"eventType": "t"}); count]).to_string();
    let mixed = json!([
        {"eventType": "t"}, {"eventType": "t", "x": 1}, 5, {"eventType": "t", "id": GIVEN_ID}
    ]);
    let mut answers = Vec::new();
    for (name, body) in [
        ("good and bad ones", mixed.to_string()),
        ("bad ones", json!([{}, {"eventType": 1}]).to_string()),
        ("an empty array", "[]".to_owned()),
        ("1001 events", events(1_001)),
        ("text", "\"t\"".to_owned()),
        ("malformed JSON", r#"[{"eventType":"t"}"#.to_owned()),
        ("2 MiB", format!("[{}]", of_size(2 * MIB))),
    ] {
        answers.push(json!({ "given": name, "answer": answer("/v1/events", body).await }));
    }
    insta::assert_json_snapshot!(answers);
    let thousand = answer("/v1/events", events(1_000)).await;
    assert_eq!(thousand["status"], 200);
    let results = thousand["body"]["results"].as_array().unwrap();
    assert!(
        results
            .iter()
            .enumerate()
            .all(|(index, result)| result["index"] == index)
    );
    assert_eq!(results.len(), 1_000);
}

#[tokio::test]
async fn a_key_with_the_scope_write_is_needed() {
    let app = app(KAFKA.clone(), Duration::from_secs(30));
    for path in ["/events/track", "/v1/events"] {
        let with = |key: Option<&str>| {
            let request = key
                .iter()
                .fold(Request::post(path), |r, key| r.header("x-api-key", *key));
            request.body(Body::from(r#"{"eventType":"t"}"#)).unwrap()
        };
        for (key, expected, code) in [
            (None, 401, "unauthorized"),
            (Some("wrong"), 401, "unauthorized"),
            (Some(READER), 403, "forbidden"),
        ] {
            let (status, _, body) = send(app.clone(), with(key)).await;
            assert_eq!(
                (status.as_u16(), body["error"]["code"].as_str()),
                (expected, Some(code))
            );
        }
        let (status, _, _) = send(app.clone(), with(Some(WRITER))).await;
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn nobody_is_identified_without_a_key() {
    let app = app(KAFKA.clone(), Duration::from_secs(30));
    let request = Request::get("/identify/some-visitor")
        .body(Body::empty())
        .unwrap();
    let (status, headers, body) = send(app, request).await;
    assert_eq!((status, body), (StatusCode::OK, Value::Null));
    assert_eq!(headers["content-type"], "application/json");
}

#[tokio::test]
async fn there_are_no_signing_keys() {
    let app = app(KAFKA.clone(), Duration::from_secs(30));
    let request = Request::get("/api/auth/jwks").body(Body::empty()).unwrap();
    let (status, _, body) = send(app, request).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"keys": []})));
}

#[tokio::test]
async fn while_kafka_is_away_an_answer_means_that_the_event_is_in_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let away = ProducerConfig {
        brokers: nobody(),
        spool: Some(SpoolConfig {
            after: Duration::from_millis(1),
            ..SpoolConfig::at(folder.path())
        }),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&away).unwrap();
    let app = app(producer.clone(), Duration::from_secs(30));
    for (path, body) in [
        ("/events/track", json!({"eventType": "t"})),
        (
            "/v1/events",
            json!([{"eventType": "t"}, {"eventType": "t"}]),
        ),
    ] {
        let (status, _, _) = send(app.clone(), to(path, body.to_string())).await;
        assert_eq!(status, StatusCode::OK);
    }
    let left = producer.close(Duration::ZERO).await;
    assert_eq!((left.spooled, left.given_up), (3, 0));
}

#[tokio::test]
async fn what_is_not_durable_in_time_is_unavailable() {
    let away = ProducerConfig {
        brokers: nobody(),
        ..ProducerConfig::default()
    };
    let app = app(Producer::new(&away).unwrap(), Duration::from_millis(50));
    let mut answers = Vec::new();
    for (path, body) in [
        ("/events/track", json!({"eventType": "t"})),
        ("/v1/events", json!({"eventType": "t"})),
        (
            "/v1/events",
            json!([{"eventType": "t"}, {"eventType": "t", "x": 1}]),
        ),
    ] {
        let (status, headers, body) = send(app.clone(), to(path, body.to_string())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers["retry-after"], "1");
        answers.push(body);
    }
    insta::assert_json_snapshot!(answers);
}

#[tokio::test]
async fn a_full_buffer_is_answered_at_once() {
    let full = ProducerConfig {
        brokers: nobody(),
        max_buffered_events: 1,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&full).unwrap();
    let filler = audit_schema::Event::builder(
        "acme".parse().unwrap(),
        audit_schema::EventType::USER_SIGNED_IN,
    );
    drop(producer.publish(&filler.build().unwrap()));
    // A broken test waits for the minute of the request's limit.
    let app = app(producer, Duration::from_secs(30));
    let started = std::time::Instant::now();
    let (status, _, _) = send(app, to("/events/track", r#"{"eventType":"t"}"#)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(started.elapsed() < Duration::from_secs(30));
}
