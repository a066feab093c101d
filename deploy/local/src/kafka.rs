//! `audit-local kafka`: a real Apache Kafka from its released jars: one broker that is its own controller, or one of a
//! cluster of several.
//!
//! Promises: when it says it is ready, the broker answers and has joined its cluster; data and identity stay in the folder
//! through restarts, whatever the ports; topics are never created by chance.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{child, data_folder, fetch, guard};

const PROPERTIES: &str = include_str!("../kafka/server.properties");

/// How long a server may take to answer; 3 to 4 s are usual of the broker, 1 s of ZooKeeper.
const START: Duration = Duration::from_secs(60);
/// How long the broker may take to close its logs.
const STOP: Duration = Duration::from_secs(20);
/// How long one question may take.
const ASK: Duration = Duration::from_secs(2);
/// How long to wait before the next question.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// `audit-local kafka`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the topics are kept.
    #[arg(long)]
    data: PathBuf,
    /// The broker's port; 0 takes a free one.
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// The controller's port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    controller_port: u16,
    /// The number of this broker in a cluster of several.
    #[arg(long, default_value_t = 1)]
    node: u32,
    /// The controllers of a cluster of several, the same for each of its brokers: 1@127.0.0.1:19091,2@127.0.0.1:19092,…
    #[arg(long, value_delimiter = ',', conflicts_with = "controller_port")]
    voters: Vec<Voter>,
    /// The port to tell clients instead of the broker's own: that of a proxy.
    #[arg(long, hide = true)]
    advertise: Option<u16>,
    /// A property of the broker, `name=value`, that is added to ours or replaces one; `{port}` and `{controller}` in
    /// it are filled in.
    #[arg(long, hide = true, value_name = "NAME=VALUE")]
    property: Vec<String>,
    /// A login by SCRAM-SHA-512 that a new cluster knows from the start, `name=password`.
    #[arg(long, hide = true, value_name = "NAME=PASSWORD")]
    scram: Option<Login>,
    /// Die with this process, which must be our parent.
    #[arg(long, hide = true)]
    die_with_parent: Option<u32>,
}

/// A name and its password.
#[derive(Debug, Clone)]
struct Login {
    name: String,
    password: String,
}

impl FromStr for Login {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, password) = text
            .split_once('=')
            .context("it is written as NAME=PASSWORD")?;
        Ok(Self {
            name: name.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// A controller of a cluster: `node@address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Voter {
    node: u32,
    address: SocketAddr,
}

impl FromStr for Voter {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (node, address) = text
            .split_once('@')
            .context("it is written as NODE@ADDRESS:PORT")?;
        Ok(Self {
            node: node.parse()?,
            address: address.parse()?,
        })
    }
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.address)
    }
}

/// Runs the broker until SIGTERM or SIGINT.
pub fn run(options: &Options, cache: &Path) -> anyhow::Result<()> {
    if let Some(parent) = options.die_with_parent {
        guard::die_with_parent(parent)?;
    }
    let (folder, _lock) = data_folder::claim(&options.data)?;
    fetch::check_java()?;
    let jars = fetch::kafka_jars(cache)?;
    // One thread: the broker dies with the thread that starts it, which so is the main thread.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(supervise(options, &folder, &jars))
}

async fn supervise(options: &Options, folder: &Path, jars: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let class_path = format!("{}/*", jars.display());
    let port = free_port(options.port)?;
    let properties = configure(folder, port, options)?;
    if !folder.join("log/meta.properties").exists() {
        let cluster_id = cluster_id(&options.voters);
        format(
            &class_path,
            &properties,
            &cluster_id,
            options.scram.as_ref(),
        )
        .await?;
    }
    let mut broker = java(&class_path, "kafka.Kafka")?
        .arg(&properties)
        .spawn()
        .context("cannot start the broker")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // In its own list of brokers it is once it has joined.
    let joined = async || Ok(brokers(address).await?.contains(&i64::from(options.node)));
    tokio::select! {
        answered = answers("the broker", joined) => answered?,
        ended = broker.wait() => bail!("the broker ended while starting ({})", ended?),
        _ = terminate.recv() => return stop(broker).await,
        _ = interrupt.recv() => return stop(broker).await,
    }
    tracing::info!(%address, "Apache Kafka is ready");
    println!("{}", serde_json::json!({ "ready": address.to_string() }));
    tokio::select! {
        ended = broker.wait() => bail!("the broker ended by itself ({})", ended?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop(broker).await
}

pub(crate) async fn stop(mut broker: tokio::process::Child) -> anyhow::Result<()> {
    tracing::info!("stopping");
    let status = child::terminate(&mut broker, STOP).await?;
    tracing::info!("it ended ({status})");
    Ok(())
}

/// A Java program of the jars, tied to our life, that says what it says on our stderr: stdout is for the ready line.
pub(crate) fn java(class_path: &str, class: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("guard")
        .arg(std::process::id().to_string())
        .args(["--", "java", "-Xmx512m", "-Xms128m", "-XX:+UseSerialGC"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        // These two warn at every first start and at every end of a broker that is alone.
        .args(
            ["controller.QuorumController", "clients.NetworkClient"]
                .map(|name| format!("-Dorg.slf4j.simpleLogger.log.org.apache.kafka.{name}=error")),
        )
        .args(["-cp", class_path, class])
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// What a new cluster is known by. Each broker of several makes the same, out of what all are told.
fn cluster_id(voters: &[Voter]) -> String {
    if voters.is_empty() {
        return BASE64_URL_SAFE_NO_PAD.encode(Uuid::now_v7());
    }
    let mut digest = Sha256::new();
    for voter in voters {
        digest.update(voter.to_string());
    }
    let digest: [u8; 32] = digest.finalize().into();
    let (id, _) = digest.split_at(size_of::<Uuid>());
    BASE64_URL_SAFE_NO_PAD.encode(id)
}

/// Gives the folder an identity, once: clients know a new cluster by its new one.
async fn format(
    class_path: &str,
    properties: &Path,
    cluster_id: &str,
    scram: Option<&Login>,
) -> anyhow::Result<()> {
    let scram = scram.map(|Login { name, password }| {
        format!("--add-scram=SCRAM-SHA-512=[name={name},password={password}]")
    });
    let output = java(class_path, "kafka.tools.StorageTool")?
        .args(["format", "--cluster-id", cluster_id, "--config"])
        .arg(properties)
        .args(scram)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "the broker's folder cannot be formatted ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn configure(folder: &Path, port: u16, options: &Options) -> anyhow::Result<PathBuf> {
    let voters = if options.voters.is_empty() {
        let port = free_port(options.controller_port)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        vec![Voter {
            node: options.node,
            address,
        }]
    } else {
        options.voters.clone()
    };
    let own = voters
        .iter()
        .find(|voter| voter.node == options.node)
        .with_context(|| format!("broker {} is none of the voters", options.node))?;
    // A cluster keeps three copies and goes on while two are there.
    let copies = voters.len().min(3);
    let path = folder.join("server.properties");
    let text = [&[PROPERTIES.to_owned()], options.property.as_slice()]
        .concat()
        .join("\n")
        .replace("{node}", &options.node.to_string())
        .replace(
            "{voters}",
            &voters
                .iter()
                .map(Voter::to_string)
                .collect::<Vec<_>>()
                .join(","),
        )
        .replace("{controller}", &own.address.to_string())
        .replace("{port}", &port.to_string())
        .replace(
            "{advertised}",
            &options.advertise.unwrap_or(port).to_string(),
        )
        .replace("{copies}", &copies.to_string())
        .replace("{in_sync}", &copies.min(2).to_string())
        .replace("{folder}", &folder.join("log").display().to_string());
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The port asked for, or a free one that is given to nobody else: Kafka cannot choose, for it must tell
/// clients where it is.
///
/// A free one is below those that Linux gives to outgoing connections (`net.ipv4.ip_local_port_range`):
/// of those one may be taken before Kafka, which needs seconds to start, listens on it.
pub(crate) fn free_port(port: u16) -> anyhow::Result<u16> {
    const FREE: Range<u32> = 10_000..32_000;
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    if port != 0 {
        bind(port).with_context(|| format!("port {port} is taken"))?;
        return Ok(port);
    }
    // Processes beside each other begin far from each other.
    let first = std::process::id().wrapping_mul(1_009);
    for _ in FREE {
        let next = first.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FREE.start + next % (FREE.end - FREE.start))?;
        if bind(port).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {FREE:?} is free")
}

/// Waits until `question` is answered with yes. One that comes while a server starts may be taken and never answered, so
/// each is given up after a while and asked anew.
pub(crate) async fn answers(
    what: &str,
    question: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !matches!(tokio::time::timeout(ASK, question()).await, Ok(Ok(true))) {
        ensure!(
            begin.elapsed() < START,
            "{what} did not answer within {START:?}"
        );
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(())
}

/// Asks for the cluster's metadata, of no topic, and returns the numbers of its brokers. An open port is not enough: the
/// broker opens it before it has joined.
async fn brokers(address: SocketAddr) -> anyhow::Result<Vec<i64>> {
    #[rustfmt::skip]
    const METADATA_V4: [u8; 19] = [
        0, 0, 0, 15, // the size of what follows
        0, 3, 0, 4,  // the request `Metadata`, version 4
        0, 0, 0, 1,  // its number, repeated in the answer
        255, 255,    // no client id
        0, 0, 0, 0,  // no topics
        0,           // do not create any
    ];
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&METADATA_V4).await?;
    // Size, number and throttle time of the answer come before the list and its length.
    for _ in 0..3 {
        stream.read_i32().await?;
    }
    let mut brokers = Vec::new();
    for _ in 0..stream.read_i32().await? {
        brokers.push(i64::from(stream.read_i32().await?));
        skip_text(&mut stream).await?;
        stream.read_i32().await?;
        skip_text(&mut stream).await?;
    }
    Ok(brokers)
}

/// Reads over a text of the protocol: its length, which is negative if there is none, and its bytes.
async fn skip_text(stream: &mut TcpStream) -> anyhow::Result<()> {
    let length = stream.read_i16().await?;
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut text).await?;
    Ok(())
}
