//! What a record costs the consumer between Kafka's client and ClickHouse: taking it into a batch,
//! and sending that batch as an insert.
//!
//! `cargo bench -p audit-consumer` prints rows per CPU-second of this thread, once for events as a
//! Better Auth server sends them and once for plain ones. The insert goes to a thread that reads it
//! and answers, which is not counted; Kafka's client is not there at all.
#![expect(
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking, and its counts are small"
)]

use std::io::{Read, Write};
use std::net::TcpListener;

use audit_consumer::batch::{Batch, PartitionId, Record, Table};
use audit_consumer::config::{Config, DEFAULTS};
use audit_consumer::store::{Insert, Store, Turn};
use audit_consumer::writer::Writer;
use audit_schema::row::Millis;
use audit_schema::{Event, EventData, EventType, Location, wire};
use serde_json::json;

/// Rows of one batch.
const ROWS: usize = 50_000;

/// Batches of one measurement.
const BATCHES: u64 = 40;

/// Different records; they are taken again and again.
const POOL: u32 = 5_000;

/// The least of so many measurements counts: what is beside them only ever adds.
const RUNS: u64 = 5;

fn main() {
    let address = answering();
    let mut config: Config =
        audit_service::config::load("consumer", DEFAULTS, None).expect("the defaults");
    config.clickhouse.url = format!("http://{address}");
    let writer = Writer::new(&config.clickhouse, 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (name, event) in [
        ("full", full as fn(u32) -> Event<'static>),
        ("plain", plain),
    ] {
        let values: Vec<Vec<u8>> = (0..POOL)
            .map(|number| wire::encode(&event(number)).expect("a small event"))
            .collect();
        let bytes: usize = values.iter().map(Vec::len).sum();
        let (mut taking, mut sending) = (f64::MAX, f64::MAX);
        for _ in 0..RUNS {
            let (mut taken, mut sent) = (0.0, 0.0);
            for _ in 0..BATCHES {
                let before = cpu_seconds();
                let batch = take(&values);
                let between = cpu_seconds();
                runtime.block_on(send(&writer, &batch));
                taken += between - before;
                sent += cpu_seconds() - between;
            }
            taking = taken.min(taking);
            sending = sent.min(sending);
        }
        let rows = (ROWS as u64 * BATCHES) as f64;
        println!(
            "{name}: {} bytes; {:.0} rows per CPU-second: {:.0} ns taken, {:.0} ns sent",
            bytes / values.len(),
            rows / (taking + sending),
            taking / rows * 1e9,
            sending / rows * 1e9,
        );
    }
}

/// A batch of these records.
fn take(values: &[Vec<u8>]) -> Batch {
    let id = PartitionId {
        incarnation: 1,
        partition: 0,
    };
    let mut batch = Batch::new(id, 0);
    for (offset, value) in (0..).zip(values.iter().cycle().take(ROWS)) {
        batch
            .push(&Record {
                offset,
                logged_at: Millis(1_700_000_000_000),
                key: b"bench/user",
                value,
                version: Some(wire::VERSION.as_bytes()),
                maybe_delivered: false,
                trace_parent: None,
            })
            .expect("the next one");
    }
    assert!(batch.letters().is_empty(), "all are events");
    batch
}

/// Sends it, as its partition would.
async fn send(writer: &Writer, batch: &Batch) {
    let turn = Turn {
        ingested_at: Millis(1_700_000_000_000),
        place: None,
    };
    let rows = batch.rows_of(Table::Events);
    let insert = Insert {
        table: Table::Events,
        batch,
        rows: &rows,
        token: "a token",
    };
    writer.insert(turn, insert).await.expect("an answer");
}

/// What this thread has used so far.
fn cpu_seconds() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = told.split(' ').next().and_then(|word| word.parse().ok());
    nanos.map_or(0.0, |nanos: f64| nanos / 1e9)
}

/// The address of a server that reads inserts and says that they are stored.
fn answering() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port");
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let (mut buffer, mut tail) = (vec![0_u8; 1 << 20], Vec::<u8>::new());
            while let Ok(read @ 1..) = connection.read(&mut buffer) {
                tail.extend(buffer.iter().take(read));
                tail.drain(..tail.len().saturating_sub(7));
                // The end of a chunked body.
                if tail == *b"\r\n0\r\n\r\n" {
                    tail.clear();
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    connection.write_all(answer).expect("an open connection");
                }
            }
        }
    });
    address
}

/// An event as the plugin of a Better Auth server sends it.
fn full(number: u32) -> Event<'static> {
    let user = format!("user-{:05}", number.wrapping_mul(7_919) % 1_000);
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/130.0.0.0 Safari/537.36";
    Event::builder("bench".parse().expect("a project"), kind(number))
        .event_key(user.clone())
        .event_display_name("Signed in via passkey")
        .location(Location {
            ip_address: "192.0.2.7".parse().ok(),
            city: "Berlin".into(),
            country: "Germany".into(),
            country_code: "DE".into(),
        })
        .event_data(
            EventData::of(&json!({
                "userId": user,
                "userEmail": format!("{user}@example.com"),
                "userName": "Ann Example",
                "sessionId": format!("session-{number:012}"),
                "loginMethod": "passkey",
                "userAgent": agent,
                "triggeredBy": user,
                "triggerContext": "user",
            }))
            .expect("an object"),
        )
        .build()
        .expect("an event")
}

/// An event of an application of its own.
fn plain(number: u32) -> Event<'static> {
    let user = format!("user-{:05}", number.wrapping_mul(7_919) % 1_000);
    Event::builder("bench".parse().expect("a project"), kind(number))
        .event_key(user.clone())
        .user_id(user)
        .session_id(format!("session-{number:012}"))
        .location(Location {
            ip_address: "192.0.2.7".parse().ok(),
            ..Location::default()
        })
        .event_data(EventData::of(&json!({ "loginMethod": "passkey" })).expect("an object"))
        .build()
        .expect("an event")
}

fn kind(number: u32) -> EventType<'static> {
    match number % 20 {
        0..7 => EventType::new("session_created").expect("a name"),
        7..14 => EventType::USER_SIGNED_IN,
        14..17 => EventType::USER_SIGNED_OUT,
        17..19 => EventType::USER_SIGN_IN_FAILED,
        _ => EventType::new("organization_member_added").expect("a name"),
    }
}
