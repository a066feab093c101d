//! What the tests stand on: one engine, and for each test a database with events in it.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, mpsc};

use audit_schema::clickhouse::{Address, Engine, connect};
use audit_schema::migrate::{Options, migrate};
use audit_schema::row::{EVENTS, EventColumns, Millis};
use audit_schema::{Position, native, wire};
use audit_tests::process::ready;
use audit_tests::stack::engine;
use chrono::{DateTime, Utc};
use clickhouse::Client;
use serde_json::{Value, json};
use uuid::Uuid;

/// The project most tests are about.
pub(crate) const ACME: &str = "acme";

/// When the stories of the tests begin: 2026-03-02T10:00:00Z, a Monday.
pub(crate) const T: i64 = 1_772_445_600_000;

/// Every request of one run of a real Better Auth server.
const CAPTURE: &str = include_str!("../../schema/tests/fixtures/capture.ndjson");

/// Address of the engine all tests share.
static ENGINE: LazyLock<String> = LazyLock::new(|| {
    let (say, said) = mpsc::channel();
    // The engine dies with the thread that started it, so this one stays for as long as the tests.
    std::thread::spawn(move || {
        let data = data_folder();
        std::fs::create_dir_all(&data).unwrap();
        let engine = engine(&data, &data.join("engine"), "127.0.0.1:0").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        say.send(runtime.block_on(engine.says("the engine", ready)).unwrap())
            .unwrap();
        loop {
            std::thread::park();
        }
    });
    said.recv()
        .expect("the engine did not start; its errors are above")
});

/// A folder of this process; those of processes that are gone are removed.
fn data_folder() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sql-engine");
    std::fs::create_dir_all(&all).unwrap();
    for folder in std::fs::read_dir(&all).unwrap() {
        let folder = folder.unwrap();
        if !Path::new("/proc").join(folder.file_name()).exists() {
            std::fs::remove_dir_all(folder.path()).unwrap();
        }
    }
    all.join(std::process::id().to_string())
}

/// One test's database.
pub(crate) struct Stand {
    pub(crate) client: Client,
}

impl Stand {
    /// Empty tables and the views in a new database.
    pub(crate) async fn new(database: &str) -> Self {
        let address = Address::open(&ENGINE, database);
        let options = Options {
            engine: Engine::SingleNode,
            fsync: false,
        };
        migrate(address, &options, false, |_| {}).await.unwrap();
        Self {
            client: connect(address),
        }
    }

    /// Stores wire records, decoded and derived as the consumer does it, as the whole log.
    pub(crate) async fn fill(&self, records: &[Value]) {
        let values: Vec<_> = records.iter().map(Value::to_string).collect();
        self.store(&values).await;
    }

    /// The same, of records as they are written.
    pub(crate) async fn store(&self, values: &[String]) {
        let mut columns = EventColumns::default();
        for (offset, value) in (0..).zip(values) {
            let event = wire::decode(value.as_bytes(), Some(wire::VERSION.as_bytes()))
                .unwrap_or_else(|error| panic!("{error}: {value}"));
            let position = Position {
                incarnation: 1,
                partition: 0,
                offset,
            };
            columns.push(&event, position, event.created_at.into());
        }
        let rows: Vec<_> = (0..values.len()).collect();
        let block = columns.block(&rows, Millis::from(Utc::now())).unwrap();
        block
            .send(native::insert(&self.client, EVENTS))
            .await
            .unwrap();
    }

    /// The rows of a query, each an object.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Value> {
        let client = self.client.clone();
        let mut answer = client
            .with_setting("output_format_json_quote_64bit_integers", "0")
            .query_raw(sql)
            .fetch_bytes("JSONEachRow")
            .unwrap_or_else(|error| panic!("{error}: {sql}"));
        let bytes = answer.collect().await;
        let bytes = bytes.unwrap_or_else(|error| panic!("{error}: {sql}"));
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// An event of [`ACME`] as a wire record: what a plugin reports, `seconds` after [`T`].
pub(crate) fn sent(seconds: i64, event_type: &str, key: &str, data: Value) -> Value {
    let mut record = json!({
        "id": Uuid::now_v7(),
        "projectId": ACME,
        "createdAt": T + 1000 * seconds,
        "eventType": event_type,
        "eventKey": key,
        "eventDisplayName": event_type,
    });
    record["eventData"] = data;
    record
}

/// `record` with more members at its top, such as `outcome` or `location`.
pub(crate) fn with(mut record: Value, more: Value) -> Value {
    let Value::Object(more) = more else {
        panic!("{more} is no object");
    };
    record.as_object_mut().unwrap().extend(more);
    record
}

/// What a real Better Auth server reported, an event each second from [`T`] on.
pub(crate) fn captured() -> Vec<Value> {
    let requests = CAPTURE.lines();
    let requests = requests.map(|line| serde_json::from_str::<Value>(line).unwrap());
    (0..)
        .zip(requests.filter(|request| request["method"] == "POST"))
        .map(|(seconds, request)| {
            let body = &request["body"];
            let text = |name: &str| body[name].as_str().unwrap();
            let record = sent(
                seconds,
                text("eventType"),
                text("eventKey"),
                body["eventData"].clone(),
            );
            with(
                record,
                json!({"eventDisplayName": body["eventDisplayName"]}),
            )
        })
        .collect()
}

/// The time `seconds` after [`T`], as the engine writes it.
pub(crate) fn at(seconds: i64) -> String {
    let time: DateTime<Utc> = Millis(T + 1000 * seconds).into();
    time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}
