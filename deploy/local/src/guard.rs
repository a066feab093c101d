//! Children die with their parent, even when it is killed by signal 9 and can do nothing about it any more.
//!
//! The kernel does it (`PR_SET_PDEATHSIG`). Only a process can ask for that itself, so a command that is not ours is
//! started through `audit-local guard PARENT -- command`, which asks and then becomes the command; both outlive `exec`.
//!
//! **The kernel's parent is the thread that spawned the child, not its process.** Spawn from a thread that lives as long
//! as the children shall: the main thread (the body of `block_on` in `main` runs there, a spawned task does not).
//!
//! Linux only; elsewhere children outlive a parent that is killed by signal 9.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, parent_id};
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::Args;

/// `audit-local guard`.
#[derive(Debug, Args)]
pub struct Options {
    /// The process to die with; it must be the one that starts this.
    parent: u32,
    /// The command to become.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the command; returns only if that fails.
pub fn run(options: Options) -> anyhow::Result<()> {
    die_with_parent(options.parent)?;
    let mut words = options.command.into_iter();
    let program = words.next().context("no command is given")?;
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// Has this process killed when `parent`, which must be its parent, dies.
pub fn die_with_parent(parent: u32) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot tie this process to its parent")?;
    // The parent may have died before the line above; then nobody would tell us.
    ensure!(
        parent_id() == parent,
        "process {parent} is not, or no longer, the parent of this one"
    );
    Ok(())
}
