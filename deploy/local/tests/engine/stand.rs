//! What the tests stand on: the shared engine, a database for each test, waiting for facts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use audit_local::child::Child;
use audit_local::data_folder;
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

/// The first start may have to fetch the library.
pub(crate) const START: Duration = Duration::from_secs(600);
/// Nothing takes this long on any machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Address of the shared engine.
static SHARED: LazyLock<Result<String, String>> = LazyLock::new(|| {
    let (say, said) = mpsc::channel();
    // A child dies with the thread that spawned it, so this one stays for as long as the tests.
    std::thread::spawn(move || {
        if let Err(error) = keep(&say) {
            eprintln!("the shared engine: {error:#}");
        }
    });
    said.recv().map_err(|_| "its errors are above".to_owned())
});

/// Runs the shared engine and says where it is.
fn keep(say: &mpsc::Sender<String>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let folder = data("shared")?;
        let mut engine = engine(folder.path(), &[])?;
        say.send(engine.ready(START).await?)?;
        engine.ended().await?;
        Ok(())
    })
}

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_audit-local"))
}

/// A data folder, removed in the end; those of runs that were killed are removed by the next.
pub(crate) fn data(name: &str) -> anyhow::Result<tempfile::TempDir> {
    const PREFIX: &str = "engine-under-test-";
    static SWEPT: LazyLock<()> = LazyLock::new(|| {
        let Ok(entries) = std::fs::read_dir(env!("CARGO_TARGET_TMPDIR")) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let ours = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
            let idle = ours && path.join("lock").exists() && data_folder::claim(&path).is_ok();
            if idle && std::fs::remove_dir_all(&path).is_err() {
                eprintln!("cannot remove {}", path.display());
            }
        }
    });
    LazyLock::force(&SWEPT);
    Ok(tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{name}-"))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// The cache folder of the repository.
pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache")
}

/// Starts an engine of one's own. It dies with the test's thread.
pub(crate) fn engine(folder: &Path, more: &[&str]) -> anyhow::Result<Child> {
    let mut arguments = vec![
        "--cache".into(),
        cache().into_os_string(),
        "--data".into(),
        folder.as_os_str().to_owned(),
    ];
    arguments.extend(["--listen", "127.0.0.1:0"].map(Into::into));
    arguments.extend(more.iter().map(Into::into));
    Child::spawn(program(), "engine", arguments)
}

/// Address of the shared engine.
pub(crate) fn url() -> anyhow::Result<&'static str> {
    SHARED
        .as_deref()
        .map_err(|error| anyhow::anyhow!("the engine did not start: {error}"))
}

/// A client of a new database of the shared engine.
pub(crate) async fn database(name: &str) -> anyhow::Result<Client> {
    database_at(url()?, name).await
}

/// A client of a new database.
pub(crate) async fn database_at(url: &str, name: &str) -> anyhow::Result<Client> {
    let client = Client::default().with_url(url);
    client
        .query(&format!("CREATE DATABASE {name}"))
        .execute()
        .await?;
    Ok(client.with_database(name))
}

/// A row of [`events`].
#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) id: u64,
    pub(crate) text: String,
}

impl Event {
    pub(crate) fn new(id: u64, text: &str) -> Self {
        let text = text.to_owned();
        Self { id, text }
    }
}

/// Creates a table of [`Event`]s that deduplicates by token and refuses the id 13.
pub(crate) async fn events(client: &Client) -> anyhow::Result<()> {
    client
        .query(
            "CREATE TABLE events (id UInt64, text String, CONSTRAINT lucky CHECK id != 13)
             ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100",
        )
        .execute()
        .await?;
    Ok(())
}

/// All rows of [`events`], in order.
pub(crate) async fn stored(client: &Client) -> anyhow::Result<Vec<Event>> {
    Ok(client
        .query("SELECT ?fields FROM events ORDER BY id")
        .fetch_all()
        .await?)
}

/// Waits until a query that counts says `wanted`.
pub(crate) async fn wait_until(client: &Client, sql: &str, wanted: u64) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let count: u64 = client.query(sql).fetch_one().await?;
        if count == wanted {
            return Ok(());
        }
        ensure!(begin.elapsed() < LIMIT, "still {count}: {sql}");
        tokio::task::yield_now().await;
    }
}

/// Waits until `look` finds something.
pub(crate) async fn wait_for<T>(
    what: &str,
    look: impl Fn() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begin = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(10));
    loop {
        again.tick().await;
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(begin.elapsed() < LIMIT, "waited in vain: {what}");
    }
}

/// Waits until a data folder is free.
pub(crate) async fn wait_until_free(folder: &Path) -> anyhow::Result<(PathBuf, File)> {
    wait_for("the folder is free", || Ok(data_folder::claim(folder).ok())).await
}

/// The text of an error the engine answered.
pub(crate) fn refused<T>(answer: clickhouse::error::Result<T>) -> anyhow::Result<String> {
    match answer.err().context("it was not refused")? {
        clickhouse::error::Error::BadResponse(text) => Ok(text),
        error => Err(error.into()),
    }
}
