//! What a client of any of our HTTP APIs sees.

use std::time::Duration;

use audit_service::http::{self, Http, RequestId};
use audit_service::keys::{Identity, Scope};
use audit_service::{ApiError, auth};
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::stand::{KEY, readers, settings};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: u8,
}

fn app() -> Router {
    let keys = readers(&[("reader", None, KEY)]);
    let who =
        get(|Extension(caller): Extension<Identity>| async move { caller.project.to_string() });
    let reads = Router::new().route("/who", who);
    let writes = Router::new().route("/write", get(async || ()));
    let routes = auth::require(reads, keys.clone(), Scope::Read, None)
        .merge(auth::require(writes, keys, Scope::Write, None))
        .route(
            "/id",
            get(|Extension(id): Extension<RequestId>| async move { id.as_str().to_owned() }),
        )
        .route(
            "/page",
            get(|Query(page): Query<Page>| async move { page.limit.to_string() }),
        )
        .route(
            "/number/{n}",
            get(|Path(n): Path<u8>| async move { n.to_string() }),
        )
        .route(
            "/echo",
            post(|Json(body): Json<Value>| async move { Json(body) }),
        )
        .route(
            "/own",
            get(|| async { (StatusCode::BAD_REQUEST, Json(json!({"results": []}))) }),
        )
        .route("/panic", get(|| async { assert_eq!("the", "secret") }))
        .route("/hang", get(std::future::pending::<()>))
        .route(
            "/broken",
            get(|| async { Err::<(), _>(ApiError::internal("the secret")) }),
        )
        .route(
            "/busy",
            get(|| async {
                let retry_after = Duration::from_secs(7);
                ApiError::Unavailable {
                    reason: "the store is away",
                    retry_after,
                }
            }),
        );
    http::finish(routes, &settings())
}

async fn send(request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let answer = app().oneshot(request).await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = to_bytes(answer.into_body(), 65_536).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    (
        status,
        headers,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

async fn ask(path: &str) -> (StatusCode, HeaderMap, Value) {
    send(Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post_json(body: impl Into<Body>) -> (StatusCode, HeaderMap, Value) {
    let request = Request::post("/echo").header("content-type", "application/json");
    send(request.body(body.into()).unwrap()).await
}

fn code(body: &Value) -> &str {
    body["error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no error: {body}"))
}

#[tokio::test]
async fn every_refusal_of_the_framework_has_our_shape() {
    for (path, status, expected) in [
        ("/nothing", 404, "not_found"),
        ("/page", 400, "invalid"),
        ("/page?limit=x", 400, "invalid"),
        ("/page?limit=1&more=2", 400, "invalid"),
        ("/number/x", 400, "invalid"),
        ("/number/%ff", 400, "invalid"),
        ("/echo", 405, "method_not_allowed"),
    ] {
        let (answered, headers, body) = ask(path).await;
        assert_eq!(
            (answered.as_u16(), code(&body)),
            (status, expected),
            "{path}"
        );
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(
            body["error"]["requestId"],
            headers["x-request-id"].to_str().unwrap()
        );
        assert!(
            body["error"]["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
    assert_eq!(ask("/echo").await.1["allow"], "POST");
    for (body, expected) in [("{", "invalid"), ("", "invalid")] {
        assert_eq!(code(&post_json(body).await.2), expected);
    }
    let text = send(Request::post("/echo").body("{}".into()).unwrap()).await;
    assert_eq!(
        (text.0.as_u16(), code(&text.2)),
        (415, "unsupported_media_type")
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_declared_or_not() {
    let large = format!("\"{}\"", "x".repeat(1_000));
    let chunks = large
        .as_bytes()
        .chunks(100)
        .map(|c| Ok::<_, std::io::Error>(c.to_vec()));
    let undeclared = Body::from_stream(Chunks(chunks.collect::<Vec<_>>().into_iter()));
    for body in [Body::from(large.clone()), undeclared] {
        let (status, _, answer) = post_json(body).await;
        assert_eq!((status.as_u16(), code(&answer)), (413, "too_large"));
        assert_eq!(
            answer["error"]["message"],
            "too large; at most 1000 bytes are taken"
        );
    }
    let fits = format!("\"{}\"", "x".repeat(998));
    assert_eq!(post_json(fits).await.0, StatusCode::OK);
}

/// A body that comes in chunks, without a length.
struct Chunks(std::vec::IntoIter<Result<Vec<u8>, std::io::Error>>);

impl futures_util::Stream for Chunks {
    type Item = Result<Vec<u8>, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

#[tokio::test]
async fn what_went_wrong_inside_never_leaves() {
    for path in ["/panic", "/broken"] {
        let (status, _, body) = ask(path).await;
        assert_eq!((status.as_u16(), code(&body)), (500, "internal"), "{path}");
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}

#[tokio::test]
async fn an_answer_of_our_own_is_left_as_it_is() {
    let (status, _, body) = ask("/own").await;
    assert_eq!(
        (status, body),
        (StatusCode::BAD_REQUEST, json!({"results": []}))
    );
}

#[tokio::test]
async fn a_caller_needs_a_key_with_the_scope() {
    let with_key = |path: &str| {
        Request::get(path)
            .header("x-api-key", KEY)
            .body(Body::empty())
            .unwrap()
    };
    assert_eq!(send(with_key("/who")).await.2, "acme");
    assert_eq!(code(&send(with_key("/write")).await.2), "forbidden");
    let (status, headers, body) = ask("/who").await;
    assert_eq!((status.as_u16(), code(&body)), (401, "unauthorized"));
    assert_eq!(headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_is_replaced() {
    let with_id = |id: &str| {
        Request::get("/id")
            .header("x-request-id", id)
            .body(Body::empty())
            .unwrap()
    };
    let (_, headers, body) = send(with_id("req-1")).await;
    assert_eq!(
        (headers["x-request-id"].to_str().unwrap(), body),
        ("req-1", json!("req-1"))
    );
    for strange in ["", "a b", &"x".repeat(129)] {
        let (_, headers, _) = send(with_id(strange)).await;
        let made: uuid::Uuid = headers["x-request-id"].to_str().unwrap().parse().unwrap();
        assert_eq!(made.get_version_num(), 7);
    }
}

#[tokio::test]
async fn an_answer_is_never_cached_or_sniffed_and_says_when_to_try_again() {
    let (status, headers, body) = ask("/busy").await;
    assert_eq!((status.as_u16(), code(&body)), (503, "unavailable"));
    assert_eq!(body["error"]["message"], "the store is away; try again");
    assert_eq!(headers["retry-after"], "7");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_answered() {
    let (status, headers, body) = ask("/hang").await;
    assert_eq!((status.as_u16(), code(&body)), (503, "unavailable"));
    assert_eq!(headers["retry-after"], "1");
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_server_stops() {
    let shutdown = CancellationToken::new();
    let entered = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let leave = shutdown.clone();
    let signal = entered.clone();
    let slow = get(move || async move {
        signal.add_permits(1);
        leave.cancelled().await;
        "done"
    });
    let app = http::finish(Router::new().route("/slow", slow), &settings());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = settings().connections().unwrap();
    let server = http::serve(listener, app, connections, shutdown.clone());
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        entered.acquire().await.unwrap().forget();
        shutdown.cancel();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (stopped, answer) = tokio::join!(server, client);
    assert!(stopped.is_ok());
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"),
        "{answer}"
    );
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_sends_too_much_still_reads_why() {
    let shutdown = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let generous = Http {
        max_body_bytes: 1_048_576,
        max_bodies_bytes: 1_048_576,
        ..settings()
    };
    let echo = post(|Json(body): Json<Value>| async move { Json(body) });
    let app = http::finish(Router::new().route("/echo", echo), &generous);
    let connections = settings().connections().unwrap();
    let server = http::serve(listener, app, connections, shutdown.clone());
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = vec![b' '; 2 * 1_048_576];
        let head = format!(
            "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        shutdown.cancel();
        answer
    };
    let (_, answer) = tokio::join!(server, client);
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("too_large"),
        "{answer}"
    );
}
