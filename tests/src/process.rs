//! Processes of ours: started with their output in a file, watched, stopped, killed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until `look` finds something. Not a sleep: it ends with what it waits for.
pub async fn wait_until<T, F>(what: &str, look: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut again = tokio::time::interval(LOOK_AGAIN);
    let mut last = None;
    while Instant::now() < deadline {
        again.tick().await;
        match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.context(format!("waited in vain for {what}"))),
        None => bail!("waited in vain for {what}"),
    }
}

/// Where the programs of this workspace are built to.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // A test lies in `deps` beside the programs, a program among them.
    let folder = test
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("this program lies in target")?;
    let program = folder.join(name);
    if !program.is_file() {
        bail!(
            "{} is not built; `cargo build --workspace` builds it",
            program.display()
        );
    }
    Ok(program)
}

/// What runs the program `started`, and ends it when this process ends, however that ends.
pub fn guarded(started: impl AsRef<OsStr>) -> anyhow::Result<Command> {
    let mut command = Command::new(program("audit-local")?);
    command.args(["guard", &std::process::id().to_string(), "--"]);
    command.arg(started);
    Ok(command)
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests is in the root")
        .to_owned()
}

/// A process that is killed when it is dropped, and dies with this one.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} does not start", command.get_program().display()))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of which `find` makes something.
    pub async fn says<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let said = wait_until(what, async || Ok(self.printed().lines().find_map(&find))).await;
        said.with_context(|| format!("{} says:\n{}", self.log.display(), self.printed()))
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self
            .child
            .stdin
            .as_mut()
            .context("a process with an input")?;
        writeln!(stdin, "{line}")?;
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// SIGSTOP, also to all below it, such as the Java of a broker: it stands still until it is
    /// thawed.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// The memory it has, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory it has had, in bytes.
    pub fn peak(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM:")
    }

    /// From now on its peak is that of what comes.
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(self.proc("clear_refs"), "5")?)
    }

    fn memory(&self, what: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        Ok(kilobytes.context("a size in /proc")?.parse::<u64>()? << 10)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.id().as_raw_nonzero()))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        for process in descendants(self.id())?.into_iter().chain([self.id()]) {
            kill_process(process, signal)?;
        }
        Ok(())
    }

    /// SIGKILL, and until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and until it has ended; says whether it ended well.
    pub async fn stop(&mut self, signal: Signal) -> anyhow::Result<bool> {
        kill_process(self.id(), signal)?;
        let deadline = Instant::now() + PATIENCE;
        let mut again = tokio::time::interval(LOOK_AGAIN);
        while Instant::now() < deadline {
            again.tick().await;
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
        }
        bail!("{} does not stop", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The processes below `parent`, all the way down.
pub fn descendants(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut found = vec![parent];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let parent = parent.as_raw_nonzero();
        for thread in std::fs::read_dir(format!("/proc/{parent}/task"))? {
            let children = thread?.path().join("children");
            for child in std::fs::read_to_string(children)
                .unwrap_or_default()
                .split_whitespace()
            {
                found.extend(Pid::from_raw(child.parse()?));
            }
        }
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

/// The `ready` of a line such as `{"ready":"127.0.0.1:9092"}`.
pub fn ready(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(line.get("ready")?.as_str()?.to_owned())
}

/// The `address` of a JSON log line with this message.
pub fn address(message: &'static str) -> impl Fn(&str) -> Option<String> {
    move |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let said = line.get("message")?.as_str()? == message;
        said.then(|| Some(line.get("address")?.as_str()?.to_owned()))?
    }
}
