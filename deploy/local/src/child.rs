//! Our own sub-commands as child processes: started, waited for, stopped.
//!
//! A child says when it is ready, and where, in one line on stdout: `{"ready":"…"}`. Its stderr is passed on to ours, and
//! its last lines are kept for the error, should it end instead.
//!
//! It has a process group of its own, so Ctrl-C reaches the parent alone, which then stops its children in order. It dies
//! with the **thread** that spawned it (see [`crate::guard`]): call [`Child::spawn`] from the main thread only.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::task::JoinSet;

/// How many lines of a child's stderr an error shows.
const TAIL: usize = 20;

/// A running sub-command.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: tokio::process::Child,
    stdout: Lines<BufReader<ChildStdout>>,
    tail: Arc<Mutex<VecDeque<String>>>,
    /// Passes stderr on.
    passing: JoinSet<()>,
}

impl Child {
    /// Starts `program name arguments… --die-with-parent OUR_PID`; `program` is `audit-local`. From the main thread only.
    pub fn spawn(
        program: &Path,
        name: &'static str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .arg(name)
            .args(arguments)
            .arg("--die-with-parent")
            .arg(std::process::id().to_string())
            // A server's clock is UTC, and the engine takes its time zone from here.
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {} {name}", program.display()))?;
        let stdout = process.stdout.take().context("a child without stdout")?;
        let stderr = process.stderr.take().context("a child without stderr")?;
        let tail = Arc::new(Mutex::new(VecDeque::with_capacity(TAIL)));
        let mut passing = JoinSet::new();
        let kept = Arc::clone(&tail);
        passing.spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == TAIL {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Ok(Self {
            name,
            process,
            stdout: BufReader::new(stdout).lines(),
            tail,
            passing,
        })
    }

    /// Waits until the child says that it is ready, and returns where.
    pub async fn ready(&mut self, limit: Duration) -> anyhow::Result<String> {
        let name = self.name;
        let line = match tokio::time::timeout(limit, self.stdout.next_line()).await {
            Ok(line) => line.with_context(|| format!("{name} cannot be read"))?,
            Err(_) => bail!("{name} was not ready after {limit:?}:\n{}", self.tail()),
        };
        let Some(line) = line else {
            let status = self.ended().await?;
            bail!("{name} did not start ({status}):\n{}", self.tail());
        };
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        match said.get("ready").and_then(serde_json::Value::as_str) {
            Some(place) => Ok(place.to_owned()),
            None => bail!("{name} said {line:?} instead of being ready"),
        }
    }

    /// Waits for the child to end, which it should not do unasked.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.process.wait().await?;
        // The last lines are still on their way.
        while self.passing.join_next().await.is_some() {}
        Ok(status)
    }

    /// The last lines of the child's stderr.
    pub fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let tail: Vec<&str> = tail.iter().map(String::as_str).collect();
        tail.join("\n")
    }

    /// The child's process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Asks the child to end and returns how it did; kills it after `limit`.
    pub async fn stop(mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        terminate(&mut self.process, limit).await
    }

    /// Kills the child at once, by signal 9.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }
}

/// Sends SIGTERM, waits, and kills after `limit`.
pub(crate) async fn terminate(
    process: &mut tokio::process::Child,
    limit: Duration,
) -> anyhow::Result<ExitStatus> {
    let pid = process
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::TERM).context("cannot stop a child")?;
    }
    if let Ok(status) = tokio::time::timeout(limit, process.wait()).await {
        return Ok(status?);
    }
    tracing::warn!("a child did not end within {limit:?} and is killed");
    process.kill().await?;
    Ok(process.wait().await?)
}
