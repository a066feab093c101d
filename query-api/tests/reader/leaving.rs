//! Clients that leave before they have their answer: the engine does not go on for them.

use std::net::SocketAddr;
use std::time::Duration;

use audit_query_api::Config;
use audit_schema::Event;
use audit_service::http;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::stand::{ACME, Stand, T, event, key};

/// Longer than any wait of these tests: nothing but the leaving ends a query.
const LONG: Duration = Duration::from_secs(60);

/// Rows, and seconds that each takes to be read: more than [`LONG`] for all of them.
const MANY: usize = 1_000;
const SLOW: f64 = 0.1;

fn events() -> Vec<Event<'static>> {
    let events = (0..MANY).map(|_| event(ACME, T).build().unwrap());
    events.collect()
}

/// One place in each lane, and limits that do not end a query.
fn patient(config: &mut Config) {
    config.queries.at_once = 1;
    config.queries.bulk_at_once = 1;
    config.queries.wait = Duration::from_secs(20);
    config.queries.time = LONG;
    config.queries.bulk_time = LONG;
    config.queries.total_time = LONG;
    config.http.request_timeout = LONG;
}

/// The stand's API behind a socket, for as long as this lives.
struct Served {
    address: SocketAddr,
    _server: JoinSet<std::io::Result<()>>,
}

impl Served {
    async fn of(stand: &Stand) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Config::load(None).unwrap().http.connections().unwrap();
        let mut server = JoinSet::new();
        server.spawn(http::serve(
            listener,
            stand.app.clone(),
            connections,
            CancellationToken::new(),
        ));
        Self {
            address,
            _server: server,
        }
    }

    /// A client that has asked and not read.
    async fn ask(&self, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\nx-api-key: {}\r\n\r\n",
            key(ACME)
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client
    }
}

/// What a client read until `text` came.
async fn read_until(client: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let mut bytes = [0; 4_096];
        let count = client.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the answer ended: {read}");
        read.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    read
}

#[tokio::test]
async fn the_queries_of_a_list_end_when_its_client_leaves() {
    let stand = Stand::with("leaving_list", patient).await;
    stand.fill(&events()).await;
    stand.slow(SLOW).await;
    let served = Served::of(&stand).await;
    let client = served.ask("/v1/audit-logs").await;
    // The page, and its total.
    stand.until_reading(2).await;
    drop(client);
    stand.until_reading(0).await;
    // And its place is free.
    stand.quick().await;
    assert_eq!(stand.get(ACME, "/v1/audit-logs").await["total"], MANY);
}

#[tokio::test]
async fn the_query_of_a_chart_ends_when_its_client_leaves() {
    let stand = Stand::with("leaving_stats", patient).await;
    stand.fill(&events()).await;
    stand.slow(SLOW).await;
    let served = Served::of(&stand).await;
    let path = "/v1/audit-logs/stats?bucket=day&from=1700000000000&to=1700000001000";
    for path in [path.to_owned(), format!("{path}&by=userId")] {
        let client = served.ask(&path).await;
        stand.until_reading(1).await;
        drop(client);
        stand.until_reading(0).await;
    }
    stand.quick().await;
    assert_eq!(stand.get(ACME, path).await["total"], MANY);
}

#[tokio::test]
async fn the_query_of_a_file_ends_when_its_client_leaves() {
    let stand = Stand::with("leaving_export", |config| {
        patient(config);
        config.streams.max_exports = 1;
    })
    .await;
    stand.fill(&events()).await;
    stand.slow(SLOW).await;
    let served = Served::of(&stand).await;
    let mut client = served.ask("/v1/audit-logs/export").await;
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    stand.until_reading(1).await;
    drop(client);
    stand.until_reading(0).await;
    stand.quick().await;
    let (_, bytes, well) = stand.file(ACME, "/v1/audit-logs/export").await;
    assert!(well);
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.lines().count(), MANY + 1);
}

#[tokio::test]
async fn the_query_of_a_live_reader_ends_when_its_client_leaves() {
    let stand = Stand::with("leaving_tail", |config| {
        patient(config);
        config.streams.max_tails = 1;
    })
    .await;
    stand.settle(0).await;
    stand.insert(0, &events()).await;
    stand.slow(SLOW).await;
    let served = Served::of(&stand).await;
    let mut client = served.ask("/v1/audit-logs/tail").await;
    let begun = read_until(&mut client, "retry: ").await;
    assert!(begun.starts_with("HTTP/1.1 200 OK"), "{begun}");
    stand.settle(u64::try_from(MANY).unwrap()).await;
    stand.until_reading(1).await;
    drop(client);
    stand.until_reading(0).await;
    // Its places are free, in the lane and among the live readers.
    stand.quick().await;
    let (_, _, well) = stand.file(ACME, "/v1/audit-logs/export").await;
    assert!(well);
    let mut client = served.ask("/v1/audit-logs/tail").await;
    let begun = read_until(&mut client, "retry: ").await;
    assert!(begun.starts_with("HTTP/1.1 200 OK"), "{begun}");
}
