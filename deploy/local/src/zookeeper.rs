//! `audit-local zookeeper`: a real Apache ZooKeeper from its released jars, for a test of the replicated tables. Nothing of
//! the product needs it.
//!
//! Promises: when it says it is ready, it answers; it dies with what started it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::kafka::{answers, free_port, java, stop};
use crate::{data_folder, fetch, guard};

/// `audit-local zookeeper`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where its data is kept.
    #[arg(long)]
    data: PathBuf,
    /// Its port; 0 takes a free one.
    #[arg(long, default_value_t = 2181)]
    port: u16,
    /// Die with this process, which must be our parent.
    #[arg(long)]
    die_with_parent: Option<u32>,
}

/// Runs it until SIGTERM or SIGINT.
pub fn run(options: &Options, cache: &Path) -> anyhow::Result<()> {
    if let Some(parent) = options.die_with_parent {
        guard::die_with_parent(parent)?;
    }
    let (folder, _lock) = data_folder::claim(&options.data)?;
    fetch::check_java()?;
    let jars = fetch::zookeeper_jars(cache)?;
    // One thread: it dies with the thread that starts it, which so is the main thread.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(supervise(options, &folder, &jars))
}

async fn supervise(options: &Options, folder: &Path, jars: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let port = free_port(options.port)?;
    let config = folder.join("zoo.cfg");
    let text = format!(
        "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
         4lw.commands.whitelist=srvr\n",
        folder.join("data").display()
    );
    std::fs::write(&config, text)?;
    let class_path = format!("{}/*", jars.display());
    let class = "org.apache.zookeeper.server.ZooKeeperServerMain";
    let mut server = java(&class_path, class)?
        .arg(&config)
        .spawn()
        .context("cannot start ZooKeeper")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    tokio::select! {
        answered = answers("ZooKeeper", || serves(address)) => answered?,
        ended = server.wait() => bail!("ZooKeeper ended while starting ({})", ended?),
        _ = terminate.recv() => return stop(server).await,
        _ = interrupt.recv() => return stop(server).await,
    }
    println!("{}", serde_json::json!({ "ready": address.to_string() }));
    tokio::select! {
        ended = server.wait() => bail!("ZooKeeper ended by itself ({})", ended?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop(server).await
}

/// `ruok` is answered as soon as the port is open, while sessions are still turned away; `srvr`
/// names the mode only once they are taken.
async fn serves(address: SocketAddr) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.contains("Mode: "))
}
