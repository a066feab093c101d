//! Servers that one test has to itself: killed, and started again on the same port and data.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};

use crate::process::{Process, ready, wait_until};
use crate::stack::local;
use crate::world::World;

/// A broker, an engine or a ZooKeeper; it dies with the thread that starts it. Its data outlives its deaths.
pub struct Server {
    what: &'static str,
    /// What it is started with beside its data and its port.
    pub arguments: Vec<String>,
    /// The environment it is started in.
    pub environment: Vec<(String, String)>,
    /// What it is started by, as in `nice -n 10`; nothing at first.
    pub started_by: Vec<String>,
    logs: PathBuf,
    starts: usize,
    port: u16,
    // The process ends before the folder of its data.
    process: Option<Process>,
    data: PathBuf,
    /// Removed in the end.
    _own: tempfile::TempDir,
}

impl Server {
    /// An engine that is still to be started.
    pub fn engine(world: &World) -> anyhow::Result<Self> {
        Self::new("engine", world.logs())
    }

    /// The same on data in `folder`, which stays.
    pub fn engine_on(world: &World, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut engine = Self::engine(world)?;
        folder.clone_into(&mut engine.data);
        Ok(engine)
    }

    /// A broker that is still to be started, with its logs in `logs`.
    pub fn kafka(logs: &Path) -> anyhow::Result<Self> {
        Self::new("kafka", logs)
    }

    /// A ZooKeeper that is still to be started, with its logs in `logs`.
    pub fn zookeeper(logs: &Path) -> anyhow::Result<Self> {
        Self::new("zookeeper", logs)
    }

    fn new(what: &'static str, logs: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(logs)?;
        let own = tempfile::tempdir()?;
        Ok(Self {
            what,
            arguments: Vec::new(),
            environment: Vec::new(),
            started_by: Vec::new(),
            logs: logs.to_owned(),
            starts: 0,
            port: free_port()?,
            process: None,
            data: own.path().to_owned(),
            _own: own,
        })
    }

    /// Where it listens, whenever it runs.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The folder of its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The running process.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        let what = self.what;
        let process = self.process.as_mut();
        process.with_context(|| format!("the {what} does not run"))
    }

    /// Starts it, without waiting for it to answer.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut arguments = vec![self.what.to_owned(), "--data".to_owned()];
        arguments.push(self.data.display().to_string());
        arguments.extend(match self.what {
            "engine" => ["--listen".to_owned(), self.address()],
            _ => ["--port".to_owned(), self.port.to_string()],
        });
        arguments.extend(self.arguments.iter().cloned());
        arguments.push("--die-with-parent".to_owned());
        arguments.push(std::process::id().to_string());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = local(&arguments)?;
        if let Some((program, first)) = self.started_by.split_first() {
            let mut outer = Command::new(program);
            outer.args(first).arg(command.get_program()).args(arguments);
            if let Some(folder) = command.get_current_dir() {
                outer.current_dir(folder);
            }
            command = outer;
        }
        command.envs(self.environment.iter().cloned());
        self.starts += 1;
        let log = format!("{}-{}-{}.log", self.what, self.port, self.starts);
        self.process = Some(Process::start(&mut command, &self.logs.join(log))?);
        Ok(())
    }

    /// Waits until it answers.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let what = self.what;
        self.process()?.says(what, ready).await.map(drop)
    }

    /// Starts it and waits until it answers.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        self.start()?;
        self.ready().await
    }

    /// SIGKILL, and until nothing of it is left at its port.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process()?.kill()?;
        self.process = None;
        let port = self.port;
        wait_until("the port to be free again", async || {
            Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        })
        .await
        .map(drop)
    }
}

/// Ports below those that Linux gives to outgoing connections (`net.ipv4.ip_local_port_range`): of
/// those one may be taken before a server, which needs seconds to start, listens on it.
const PORTS: Range<u32> = 10_000..32_000;

/// A port that nothing listens on, and that this process gives to nobody else.
pub fn free_port() -> anyhow::Result<u16> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Processes beside each other begin far from each other.
    let first = std::process::id().wrapping_mul(1_009);
    for _ in PORTS {
        let next = first.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + next % (PORTS.end - PORTS.start))?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}
