//! What one client, or many, can do to a service: real sockets, real limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use audit_service::http::{self, Http, LimitedBody};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::stand::settings;

/// Long enough that only a broken test reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn limits() -> Http {
    Http {
        max_connections: 20_000,
        max_bodies_bytes: 2_000,
        body_timeout: PATIENCE,
        request_timeout: PATIENCE,
        write_timeout: PATIENCE,
        ..settings()
    }
}

async fn serve(limits: &Http, routes: Router) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind(limits.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let app = http::finish(routes, limits);
    let serving = http::serve(
        listener,
        app,
        limits.connections().unwrap(),
        shutdown.clone(),
    );
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    drop(tokio::spawn(serving));
    (address, shutdown)
}

fn length() -> Router {
    Router::new().route(
        "/length",
        post(async |body: LimitedBody| body.bytes.len().to_string()),
    )
}

async fn connect(address: SocketAddr, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream
}

/// Reads until the connection is closed.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    answer
}

fn head(length: usize) -> String {
    format!(
        "POST /length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_body_that_never_comes_is_refused_and_its_connection_closed() {
    let limits = Http {
        body_timeout: Duration::from_millis(50),
        ..limits()
    };
    let (address, _) = serve(&limits, length()).await;
    let half = "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    let answer = rest(connect(address, half).await).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"too_slow\""), "{answer}");
}

#[tokio::test]
async fn bodies_under_way_have_room_for_so_many_bytes_and_the_next_is_told_to_come_back() {
    let (address, _) = serve(&limits(), length()).await;
    let mut waiting = Vec::new();
    let mut refused = None;
    // Two of them have the room of all; when they have it shows by a third that is refused.
    while refused.is_none() {
        waiting.push(connect(address, &head(1_000)).await);
        let mut stream = connect(address, &format!("{}{}", head(1_000), "x".repeat(1_000))).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(waiting.len() < 100, "{answer}");
        refused = Some(answer).filter(|answer| answer.starts_with("HTTP/1.1 429"));
    }
    assert!(refused.unwrap().contains("retry-after: 1"));
    // Those that have room are answered when their bodies come, and leave it to others.
    let mut first = waiting.remove(0);
    first.write_all(&[b'x'; 1_000]).await.unwrap();
    assert!(rest(first).await.ends_with("1000"));
    drop(waiting);
    let mut answer = String::new();
    while !answer.starts_with("HTTP/1.1 200") {
        let again = connect(address, &format!("{}{}", head(1_000), "x".repeat(1_000))).await;
        answer = rest(again).await;
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_has_the_room_of_the_largest() {
    let narrow = Http {
        max_bodies_bytes: 1_000,
        ..limits()
    };
    let (address, _) = serve(&narrow, length()).await;
    let chunked = "POST /length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let sent = format!("{chunked}3\r\nabc\r\n0\r\n\r\n");
    assert!(
        rest(connect(address, &sent).await)
            .await
            .contains("\r\n\r\n3")
    );
    let large = format!("{chunked}3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1_001));
    assert!(
        rest(connect(address, &large).await)
            .await
            .starts_with("HTTP/1.1 413")
    );
}

#[tokio::test]
async fn more_requests_than_are_answered_at_once_are_told_to_come_back() {
    let (entered, mut has_entered) = mpsc::channel(1);
    let release = CancellationToken::new();
    let held = release.clone();
    let wait = get(move || {
        let (entered, held) = (entered.clone(), held.clone());
        async move {
            entered.send(()).await.unwrap();
            held.cancelled().await;
        }
    });
    let one = Http {
        max_requests: 1,
        ..limits()
    };
    let (address, _) = serve(&one, Router::new().route("/wait", wait)).await;
    let request = "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let first = connect(address, request).await;
    has_entered.recv().await.unwrap();
    let answer = rest(connect(address, request).await).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    release.cancel();
    assert!(rest(first).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_request_half_sent_when_the_service_is_asked_to_stop_is_answered() {
    let (address, shutdown) = serve(&limits(), length()).await;
    let mut stream = connect(address, &format!("{}ab", head(4))).await;
    // The service has it when another one on a later connection is answered.
    assert!(
        rest(connect(address, &format!("{}x", head(1))).await)
            .await
            .ends_with('1')
    );
    shutdown.cancel();
    stream.write_all(b"cd").await.unwrap();
    assert!(rest(stream).await.ends_with('4'));
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_an_endless_answer_is_cut_off() {
    let (answering, mut answers) = mpsc::channel(1);
    let endless = get(async move || {
        answering.send(()).await.unwrap();
        let held = answering.clone();
        let chunks = futures_util::stream::repeat_with(move || {
            let _held = &held;
            Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16_384]))
        });
        Body::from_stream(chunks)
    });
    let limits = Http {
        write_timeout: Duration::from_millis(50),
        ..limits()
    };
    let routes = Router::new().route("/endless", endless);
    let (address, shutdown) = serve(&limits, routes).await;
    let client = connect(address, "GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answers.recv().await, Some(()));
    // The service ends when its last connection has: the client is there still, and nobody holds
    // the route or the answer any more.
    shutdown.cancel();
    let left = tokio::time::timeout(PATIENCE, answers.recv()).await;
    assert_eq!(left, Ok(None));
    drop(client);
}
