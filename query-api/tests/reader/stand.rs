//! What the tests stand on: one engine, and for each test a database, events in it, and the API.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, mpsc};

use audit_query_api::{Config, QueryApi, router};
use audit_schema::clickhouse::{Address, Engine, connect};
use audit_schema::migrate::{Options, migrate};
use audit_schema::row::{EVENTS, EventColumns, Millis};
use audit_schema::{Event, EventBuilder, EventId, EventType, Position, native};
use audit_service::http;
use audit_service::keys::{ApiKeys, NewKey, Scope, add_key};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use chrono::{DateTime, Utc};
use clickhouse::Client;
use futures_util::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// The project most tests are about, and the one whose events must never be seen there.
pub(crate) const ACME: &str = "acme";
pub(crate) const OTHER: &str = "other";

/// Whoever asks as this has a key of [`ACME`] that reaches one organization only.
pub(crate) const O1_OF_ACME: &str = "acme-o1";

/// Partitions of the topic.
const PARTITIONS: u64 = 6;

/// A time some events share.
pub(crate) const T: i64 = 1_700_000_000_123;

/// Address of the engine all tests share.
static ENGINE: LazyLock<String> = LazyLock::new(|| {
    // What the API logs stands beside the test that failed.
    tracing_subscriber::fmt().with_test_writer().init();
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("audit-local");
    assert!(
        program.exists(),
        "{} is missing: cargo build -p audit-local",
        program.display()
    );
    let (say, said) = mpsc::channel();
    // The engine dies with the thread that started it, so this one stays for as long as the tests.
    std::thread::spawn(move || run_engine(&program, &say));
    said.recv()
        .expect("the engine did not start; its errors are above")
});

fn run_engine(program: &Path, say: &mpsc::Sender<String>) {
    let pid = std::process::id().to_string();
    let mut engine = Command::new(program)
        // The engine library lies in the folder `.cache` of the repository.
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["--log", "warn", "engine", "--listen", "127.0.0.1:0"])
        .args(["--die-with-parent", &pid, "--data"])
        .arg(data_folder(&pid))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(engine.stdout.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        say.send(line["ready"].as_str().unwrap().to_owned())
            .unwrap();
    }
    engine.wait().unwrap();
}

/// A folder of this process; those of processes that are gone are removed.
fn data_folder(pid: &str) -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("query-api-engine");
    std::fs::create_dir_all(&all).unwrap();
    for folder in std::fs::read_dir(&all).unwrap() {
        let folder = folder.unwrap();
        if !Path::new("/proc").join(folder.file_name()).exists() {
            std::fs::remove_dir_all(folder.path()).unwrap();
        }
    }
    all.join(pid)
}

/// The key of a project, or of an organization of it such as `acme-o1`.
pub(crate) fn key(of: &str) -> String {
    format!("{of}-0123456789abcdef0123456789abcdef")
}

/// One test's database and API.
pub(crate) struct Stand {
    pub(crate) app: Router,
    pub(crate) client: Client,
}

impl Stand {
    /// Empty tables in a new database.
    pub(crate) async fn new(database: &str) -> Self {
        Self::with(database, |_| ()).await
    }

    /// The same, configured otherwise.
    pub(crate) async fn with(database: &str, configure: impl FnOnce(&mut Config)) -> Self {
        let address = Address::open(&ENGINE, database);
        let options = Options {
            engine: Engine::SingleNode,
            fsync: false,
        };
        migrate(address, &options, false, |_| ()).await.unwrap();
        Self::at(database, configure)
    }

    /// Another API on a database that is there.
    pub(crate) fn at(database: &str, configure: impl FnOnce(&mut Config)) -> Self {
        let address = Address::open(&ENGINE, database);
        let mut config = Config::load(None).unwrap();
        ENGINE.clone_into(&mut config.clickhouse.url);
        database.clone_into(&mut config.clickhouse.database);
        config.rate_limit.requests = u32::MAX;
        config.http.access_log = false;
        configure(&mut config);
        Self {
            app: app(&config),
            client: connect(address),
        }
    }

    /// Stores events, the first of them as number `first` of the log.
    pub(crate) async fn insert(&self, first: u64, events: &[Event<'_>]) {
        let mut columns = EventColumns::default();
        for (number, event) in (first..).zip(events) {
            columns.push(event, position(number), event.created_at.into());
        }
        let rows: Vec<_> = (0..events.len()).collect();
        let block = columns.block(&rows, Utc::now().into()).unwrap();
        let insert = native::insert(&self.client, EVENTS);
        block.send(insert).await.unwrap();
    }

    /// Says that the first `count` events of the log are readable.
    pub(crate) async fn settle(&self, count: u64) {
        let sql = format!(
            "INSERT INTO audit_watermarks SELECT 1, number, \
             intDiv({count} + {PARTITIONS} - 1 - number, {PARTITIONS}), \
             fromUnixTimestamp64Milli({} + number), now64(3) FROM numbers({PARTITIONS})",
            T + i64::try_from(count).unwrap()
        );
        self.client.query_raw(&sql).execute().await.unwrap();
    }

    /// Registers a life of the topic.
    pub(crate) async fn register(&self, incarnation: u32, partitions: u32) {
        let sql = format!(
            "INSERT INTO audit_sources SELECT 'audit.events.v1', {incarnation}, {partitions}, [], now64(3)"
        );
        self.client.query_raw(&sql).execute().await.unwrap();
    }

    /// Makes every row that was created before `millis` take a tenth of a second to be read.
    pub(crate) async fn slow_below(&self, millis: i64) {
        let slow = format!(
            "CREATE VIEW {EVENTS} AS SELECT * FROM kept WHERE \
             if(created_at < fromUnixTimestamp64Milli({millis}, 'UTC'), sleepEachRow(0.1), 0) = 0"
        );
        for sql in [format!("RENAME TABLE {EVENTS} TO kept"), slow] {
            self.client.query_raw(&sql).execute().await.unwrap();
        }
    }

    /// Stores events as the whole log, readable.
    pub(crate) async fn fill(&self, events: &[Event<'_>]) {
        self.insert(0, events).await;
        self.settle(u64::try_from(events.len()).unwrap()).await;
    }

    /// How many rows each table has, and a sum of what is in them.
    pub(crate) async fn contents(&self) -> Vec<(String, u64, u64)> {
        let sql = "SELECT name FROM system.tables \
                   WHERE database = currentDatabase() AND engine != 'View' ORDER BY name";
        let tables: Vec<String> = self.client.query_raw(sql).fetch_all().await.unwrap();
        let mut contents = Vec::new();
        for table in tables {
            let sql = format!("SELECT count(), sum(cityHash64(*)) FROM {table}");
            let (rows, sum) = self.client.query_raw(&sql).fetch_one().await.unwrap();
            contents.push((table, rows, sum));
        }
        contents
    }

    /// Asks as `project`, whatever comes of it.
    pub(crate) async fn ask(&self, project: &str, path: &str) -> (StatusCode, Value) {
        ask(&self.app, &key(project), path).await
    }

    /// The answer to any request, as it comes.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.app.clone().oneshot(request).await.unwrap()
    }

    /// Asks as `project` for a file, and gives the head of the answer and its bytes; whether they
    /// ended well.
    pub(crate) async fn file(&self, project: &str, path: &str) -> (HeaderMap, Vec<u8>, bool) {
        let answer = self.send(get(project, path)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let (head, mut body) = (
            answer.headers().clone(),
            answer.into_body().into_data_stream(),
        );
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) => bytes.extend(chunk),
                Err(_) => return (head, bytes, false),
            }
        }
        (head, bytes, true)
    }

    /// Asks as `project` for what has to be refused, with 400 and this code.
    pub(crate) async fn refused(&self, project: &str, path: &str, code: &str) -> Value {
        let (status, answer) = self.ask(project, path).await;
        assert_eq!(
            (status.as_u16(), &answer["error"]["code"]),
            (400, &code.into()),
            "{project} {path}"
        );
        answer
    }

    /// Asks as `project` for what there is.
    pub(crate) async fn get(&self, project: &str, path: &str) -> Value {
        let (status, answer) = self.ask(project, path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }
}

/// The routes with everything a server adds to them.
pub(crate) fn app(config: &Config) -> Router {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    for (of, project, scope, organization) in [
        (ACME, ACME, Scope::Read, None),
        (OTHER, OTHER, Scope::Read, None),
        (O1_OF_ACME, ACME, Scope::Read, Some("o1")),
        ("acme-o2", ACME, Scope::Read, Some("o2")),
        ("other-o1", OTHER, Scope::Read, Some("o1")),
        ("writer", "writer", Scope::Write, None),
    ] {
        let new = NewKey {
            name: of,
            scopes: &[scope],
            organization,
            key: &key(of),
        };
        add_key(&path, &project.parse().unwrap(), new).unwrap();
    }
    let keys = ApiKeys::open(&path).unwrap();
    http::finish(
        router(QueryApi::new(config, keys, None, CancellationToken::new())),
        &config.http,
    )
}

/// A GET with the key of `project`.
pub(crate) fn get(project: &str, path: &str) -> Request<Body> {
    let request = Request::get(path).header("x-api-key", key(project));
    request.body(Body::empty()).unwrap()
}

pub(crate) async fn ask(app: &Router, key: &str, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path)
        .header("x-api-key", key)
        .header("x-request-id", "r1")
        .body(Body::empty())
        .unwrap();
    let answer = app.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

/// Where the `number`th event of the log lies.
pub(crate) fn position(number: u64) -> Position {
    Position {
        incarnation: 1,
        partition: u32::try_from(number % PARTITIONS).unwrap(),
        offset: number / PARTITIONS,
    }
}

/// The start of an event of `project` at `millis`, of the user `u1` in the organization `o1`.
pub(crate) fn event(project: &str, millis: i64) -> EventBuilder {
    Event::builder(project.parse().unwrap(), EventType::USER_SIGNED_IN)
        .id(EventId::new())
        .created_at(DateTime::<Utc>::from(Millis(millis)))
        .event_key("u1")
        .user_id("u1")
        .organization_id("o1")
}

/// The ids of the events of an answer, in its order.
pub(crate) fn ids(answer: &Value) -> Vec<String> {
    let events = answer["events"].as_array().unwrap().iter();
    events
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect()
}

/// A text as the value of a parameter.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
