//! `audit-local engine`: the real ClickHouse engine behind ClickHouse's HTTP interface, on one machine, without a server.
//!
//! Promises: the `clickhouse` crate and curl cannot tell it from a server in what this product uses, acknowledged rows
//! survive kill -9, and what the engine cannot do is refused in words. What that is stands in the README.
//!
//! The path of a request: `http` reads it (`request`), `statement` says which way through the library it takes, `run`
//! takes it (`library`), `format` says how its output may be cut, `exception` how errors are told.

mod analyst;
mod exception;
mod format;
mod http;
mod lexer;
mod library;
mod request;
mod run;
mod statement;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::http::HeaderValue;
use axum::serve::ListenerExt as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};

use crate::{data_folder, fetch, guard};
use http::Server;
use library::Engine;
use request::Passwords;

/// How long requests may take to finish once we are asked to stop.
const FINISH: Duration = Duration::from_secs(20);
/// How long queries may take to end once they are killed.
const ABORT: Duration = Duration::from_secs(5);

const CONFIG: &str = include_str!("../engine/config.xml");
const USERS: &str = include_str!("../engine/users.xml");
/// What the user may do beside that when there is a cluster.
const CLUSTER_GRANTS: &str = "\
    <query>GRANT CLUSTER ON *.*</query>\
    <query>GRANT READ, WRITE ON REMOTE</query>\
    <query>GRANT TABLE ENGINE ON Distributed</query>";

/// `audit-local engine`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the tables are kept.
    #[arg(long)]
    data: PathBuf,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8123")]
    listen: SocketAddr,
    /// The engine library, instead of the one that is fetched.
    #[arg(long)]
    library: Option<PathBuf>,
    /// A file with the password of the user `default`; without one there is no password.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// A file with the password of the user `analyst`, who can only read; without one there is no password, and no such
    /// user if `default` has one.
    #[arg(long)]
    analyst_password_file: Option<PathBuf>,
    /// Who may do what, as ClickHouse's users.xml says it, instead of what is built in. `{analyst}` in it stands for the
    /// settings profile of the user `analyst`.
    #[arg(long)]
    users: Option<PathBuf>,
    /// Bytes of memory all queries may use together.
    #[arg(long, default_value_t = 2_000_000_000)]
    max_memory: u64,
    /// How many statements run at a time; the next wait.
    #[arg(long, default_value_t = 32)]
    max_queries: usize,
    /// How many bytes of rows one insert may bring.
    #[arg(long, default_value_t = 512 << 20)]
    max_insert_bytes: u64,
    /// A file of further elements of the engine's configuration, `<zookeeper>` and the like, with which
    /// it may make replicated and distributed tables.
    #[arg(long, hide = true)]
    cluster: Option<PathBuf>,
    /// Die with this process, which must be our parent.
    #[arg(long, hide = true)]
    die_with_parent: Option<u32>,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(options: Options, cache: &Path) -> anyhow::Result<()> {
    if let Some(parent) = options.die_with_parent {
        guard::die_with_parent(parent)?;
    }
    let read = |file: &PathBuf| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    let password = |file: &Option<PathBuf>| -> anyhow::Result<Option<String>> {
        let text = file.as_ref().map(read).transpose()?;
        Ok(text.map(|text| text.trim().to_owned()))
    };
    let passwords = Passwords {
        default: password(&options.password_file)?,
        analyst: password(&options.analyst_password_file)?,
    };
    let users = options.users.as_ref().map(read).transpose()?;
    ensure!(
        options.listen.ip().is_loopback() || passwords.default.is_some(),
        "listening on {} without --password-file would let anybody in",
        options.listen
    );
    let (folder, _lock) = data_folder::claim(&options.data)?;
    let library = match options.library {
        Some(library) => library,
        None => fetch::engine_library(cache)?,
    };
    let users = users.as_deref().unwrap_or(USERS);
    let cluster = options.cluster.as_ref().map(read).transpose()?;
    let config = configure(&folder, users, options.max_memory, cluster.as_deref())?;
    let engine = Arc::new(Engine::open(&library, &folder.join("clickhouse"), &config)?);
    let server = Server {
        engine: Arc::clone(&engine),
        permits: Arc::new(Semaphore::new(options.max_queries)),
        max_queries: options.max_queries,
        max_insert_bytes: options.max_insert_bytes,
        passwords,
        time_zone: time_zone(&engine)?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Statements run on these; the engine's parser goes deep.
        .thread_stack_size(8 << 20)
        // Each statement takes one, and killing it another.
        .max_blocking_threads(2 * options.max_queries + 8)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(server, options.listen));
    runtime.shutdown_timeout(ABORT);
    match Arc::into_inner(engine) {
        Some(engine) => engine.close(),
        // The tables are as safe as with kill -9, but this is not how it should end.
        None => bail!("a statement did not end in time; the engine is left without closing it"),
    }
    tracing::info!("the engine is closed");
    ended
}

async fn serve(server: Server, listen: SocketAddr) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    // Without this every other small answer waits 40 ms for the other side's delayed acknowledgement.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let engine = Arc::clone(&server.engine);
    let (stopping, stopped) = oneshot::channel();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: running requests are finished first");
        // The receiver is gone only when serving is over.
        stopping.send(()).unwrap_or_default();
    };
    let serving = axum::serve(listener, http::router(server)).with_graceful_shutdown(stop);
    let late = async {
        // An error means that the signal never came; then this is never late.
        match stopped.await {
            Ok(()) => tokio::time::sleep(FINISH).await,
            Err(_) => std::future::pending().await,
        }
    };
    tracing::info!(%address, "the ClickHouse engine is ready");
    println!(
        "{}",
        serde_json::json!({ "ready": format!("http://{address}") })
    );
    tokio::select! {
        done = serving => done?,
        () = late => {
            tracing::warn!("requests still run after {FINISH:?} and are killed");
            if let Err(error) = run::kill_all(&engine) {
                tracing::warn!(%error, "cannot kill them");
            }
        }
    }
    Ok(())
}

/// Writes the configuration beside the data and returns its path.
fn configure(
    folder: &Path,
    users: &str,
    max_memory: u64,
    cluster: Option<&str>,
) -> anyhow::Result<PathBuf> {
    let users_file = folder.join("users.xml");
    let config = folder.join("config.xml");
    let grants = cluster.map_or("", |_| CLUSTER_GRANTS);
    let users = users
        .replace("{analyst}", &analyst::profile())
        .replace("{cluster}", grants);
    std::fs::write(&users_file, users)?;
    let text = CONFIG
        .replace("{cluster}", cluster.unwrap_or_default())
        .replace("{users}", &users_file.display().to_string())
        .replace("{memory}", &max_memory.to_string());
    std::fs::write(&config, text)?;
    Ok(config)
}

/// Asks the engine for its time zone, which also proves that it answers.
fn time_zone(engine: &Engine) -> anyhow::Result<HeaderValue> {
    let rows = engine
        .connect()
        .and_then(|mut connection| connection.run(b"SELECT timezone()", "TabSeparated", &[]))
        .map_err(|exception| anyhow::anyhow!("the engine does not answer: {exception}"))?;
    Ok(HeaderValue::from_bytes(rows.as_ref().trim_ascii())?)
}
