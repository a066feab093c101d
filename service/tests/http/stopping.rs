//! What clients see of a service that was asked to stop: a restart must cost none of them a request.

use std::net::SocketAddr;
use std::time::Duration;

use audit_service::http::{self, Connections, Http};
use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::stand::settings;

const REQUEST: &[u8] = b"GET /here HTTP/1.1\r\nhost: x\r\n\r\n";

/// A service with one route, for as long as this lives.
struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    closing: CancellationToken,
    server: JoinSet<std::io::Result<()>>,
}

async fn serve(stay_open: Duration) -> Served {
    let limits = Http {
        stay_open,
        ..settings()
    };
    let listener = TcpListener::bind(limits.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/here", get(async || "here"));
    let app = http::finish(routes, &limits);
    let connections: Connections = limits.connections().unwrap();
    let (shutdown, closing) = (CancellationToken::new(), connections.closing.clone());
    let mut server = JoinSet::new();
    server.spawn(http::serve(listener, app, connections, shutdown.clone()));
    Served {
        address,
        shutdown,
        closing,
        server,
    }
}

/// A connection that was asked once and is kept.
async fn kept(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nhere") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    assert!(!String::from_utf8_lossy(&answer).contains("connection: close"));
    stream
}

/// Asks, and reads until the connection is closed.
async fn ask(mut stream: TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_service_that_stays_open_answers_and_each_answer_ends_its_connection() {
    let served = serve(Duration::from_secs(600)).await;
    let kept = kept(served.address).await;
    served.shutdown.cancel();
    let answer = ask(kept, REQUEST).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // One that comes only now, and one that asks for what there is not.
    for (path, status) in [("/here", "HTTP/1.1 200"), ("/there", "HTTP/1.1 404")] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let stream = TcpStream::connect(served.address).await.unwrap();
        let answer = ask(stream, request.as_bytes()).await;
        assert!(answer.starts_with(status), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    assert!(!served.closing.is_cancelled());
}

#[tokio::test]
async fn when_it_has_been_open_long_enough_streams_are_told_and_nothing_new_is_taken() {
    let mut served = serve(Duration::from_millis(20)).await;
    let mut idle = kept(served.address).await;
    served.shutdown.cancel();
    served.closing.cancelled().await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    served.server.join_next().await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}
