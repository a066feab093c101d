//! Kafka and the engine that all tests share, in a folder of their own and on free ports.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Process, program, ready, root};

/// A running Kafka and a running engine.
pub struct Stack {
    /// Where Kafka listens.
    pub brokers: String,
    /// The engine's address.
    pub clickhouse: String,
    /// Where logs are kept.
    pub logs: PathBuf,
    // In this order they end: the engine before the folder of its data.
    _processes: Vec<Process>,
    _data: tempfile::TempDir,
}

impl Stack {
    /// Starts both. From the main thread: they die with the thread that starts them.
    pub fn start() -> anyhow::Result<Self> {
        let logs = root().join("target/e2e");
        if logs.exists() {
            std::fs::remove_dir_all(&logs)?;
        }
        std::fs::create_dir_all(&logs)?;
        let data = tempfile::tempdir()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let fetched = local(&["fetch"])?.status()?;
        anyhow::ensure!(fetched.success(), "what the stack needs cannot be fetched");
        let kafka = start(&logs, "kafka", &data.path().join("kafka"), &["--port", "0"])?;
        let engine = engine(&logs, &data.path().join("engine"), "127.0.0.1:0")?;
        let (brokers, clickhouse) = runtime.block_on(async {
            let brokers = kafka.says("Kafka", ready).await?;
            let clickhouse = engine.says("the engine", ready).await?;
            anyhow::Ok((brokers, clickhouse))
        })?;
        Ok(Self {
            brokers,
            clickhouse,
            logs,
            _processes: vec![engine, kafka],
            _data: data,
        })
    }
}

/// `audit-local` with `arguments`, dying with this process.
pub(crate) fn local(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(program("audit-local")?);
    command.current_dir(root()).args(arguments);
    Ok(command)
}

fn start(logs: &Path, what: &str, data: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = local(&[what])?;
    command
        .arg("--data")
        .arg(data)
        .args(arguments)
        .arg("--die-with-parent")
        .arg(std::process::id().to_string());
    Process::start(&mut command, &logs.join(format!("{what}.log")))
}

/// An engine; it dies with the thread that starts it.
pub fn engine(logs: &Path, data: &Path, listen: &str) -> anyhow::Result<Process> {
    start(logs, "engine", data, &["--listen", listen])
}
