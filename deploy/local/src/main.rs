//! The commands of `audit-local`; each is a module of the library.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use audit_local::{engine, fetch, guard, kafka, up, zookeeper};
use audit_service::tasks::until_signal;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The audit log's stack on one machine.
#[derive(Parser)]
#[command(name = "audit-local", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where downloads are kept.
    #[arg(
        long,
        env = "AUDIT_LOCAL_CACHE",
        default_value = ".cache",
        global = true
    )]
    cache: PathBuf,
    /// What to log on stderr, as in `info` or `audit_local=debug`.
    #[arg(
        long,
        env = "AUDIT_LOCAL_LOG",
        default_value = "warn,audit_local=info",
        global = true
    )]
    log: EnvFilter,
}

#[derive(Subcommand)]
enum Command {
    /// The whole product: Kafka, the engine, and all services behind one address.
    Up(up::Options),
    /// The ClickHouse engine, served over HTTP.
    Engine(engine::Options),
    /// Apache Kafka, one broker.
    Kafka(kafka::Options),
    /// Apache ZooKeeper, for a test of replicated tables.
    #[command(hide = true)]
    Zookeeper(zookeeper::Options),
    /// Downloads what the other commands need; they do it themselves when it is missing.
    Fetch,
    /// Runs a command that dies with its parent.
    #[command(hide = true)]
    Guard(guard::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(cli.log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let done = match cli.command {
        Command::Up(options) => bring_up(options, &cli.cache),
        Command::Engine(options) => engine::run(options, &cli.cache),
        Command::Kafka(options) => kafka::run(&options, &cli.cache),
        Command::Zookeeper(options) => zookeeper::run(&options, &cli.cache),
        Command::Fetch => fetch::all(&cli.cache),
        Command::Guard(options) => guard::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("audit-local: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the stack until a signal. This thread, the main one, starts the children.
fn bring_up(options: up::Options, cache: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stopped = runtime.block_on(until_signal(async |shutdown| {
        let ended = up::run(options, cache, shutdown).await;
        ended.map_err(|error| std::io::Error::other(format!("{error:#}")))
    }));
    Ok(stopped?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
