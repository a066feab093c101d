//! `audit-consumer`: Kafka to ClickHouse, exactly once.

use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use audit_consumer::audit::Auditor;
use audit_consumer::config::{Config, DEFAULTS};
use audit_consumer::dead_letters::{self, List};
use audit_consumer::erase::{Erase, erase};
use audit_consumer::import::{self, Import, ImportError, import};
use audit_consumer::migrate::{Migrate, migrate};
use audit_consumer::refill::{Refill, refill};
use audit_consumer::repair::Repaired;
use audit_consumer::replay::{Replay, replay};
use audit_consumer::retention::{self, retention};
use audit_consumer::skip::{Skip, skip};
use audit_consumer::topic::Topic;
use audit_consumer::verify::{Outcome, Scope, Step, Verdict};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// Moves audit events from Kafka into ClickHouse, each exactly once.
///
/// Settings come from the built-in defaults (`audit-consumer config` prints them), the file given
/// with --config, and the environment: `AUDIT_CONSUMER_<SECTION>__<KEY>`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A TOML file that overrides the defaults.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consume until SIGTERM.
    Run,
    /// Make the tables, the topic and its registration; can be repeated.
    ///
    /// Consumers and readers can go on running. --plan shows before what it would do. It can be
    /// stopped at any time and run again, also twice at once.
    Migrate(Migrate),
    /// Give up records that cannot be read any more, so that a stopped partition goes on.
    ///
    /// For a partition that stopped with "the log begins at offset X, but offset Y was never
    /// stored": its records expired, or were lost, before they were read. What is missing below X
    /// is written down as dead letters of kind `skipped`, with your reason, and the partition goes
    /// on behind it when the consumers are started again. Nothing that is stored is touched. Stop
    /// all consumers of the group first. Can be repeated.
    Skip(Skip),
    /// Put back rows that are missing in the tables and that Kafka still has.
    ///
    /// For holes that `verify` finds: rows that were deleted by hand, or that a restored backup
    /// does not have. Exactly the missing offsets are read from Kafka again and stored; what is
    /// there is not doubled. Stop all consumers of the group first. Can be repeated. Exit code 1
    /// if something is still missing.
    Refill(Refill),
    /// Take away rows that are older than `[retention]` says, so that nobody takes them for lost.
    ///
    /// Says which months would go, and how many rows of which project; with --yes it does it. What
    /// goes is written down first, so `verify` goes on to hold, and `refill` does not bring it back.
    /// Consumers can go on running. Can be repeated, and finishes what a run before it did not.
    Retention(retention::Wanted),
    /// Look at records that could not become events, and publish them again.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Publish the events of a file: an export of this log, or of a Better Auth dashboard.
    ///
    /// Each keeps its id and time, and becomes one event of the project however often it is
    /// imported; what is stored already is not published again. Consumers can go on running. It can
    /// be stopped at any time; what it says of its progress on stderr is where --from-line lets it go
    /// on, and without that it finds out itself what is left to do. Exit code 1 if something was
    /// refused, if it was stopped, or if the file is not whole.
    Import(Import),
    /// Erase the personal data of a user, and keep it out.
    ///
    /// What events and dead letters say of the user is emptied; rows, positions and totals stay.
    /// What arrives later of what happened before is stored without it: consumers go on running.
    /// The erasure is an event of the log, `user_data_erased`. Can be repeated, and goes on where it
    /// was cut off. Kafka's log, exports and backups are not changed.
    Erase(Erase),
    /// Check that every offset is stored exactly once; exit code 1 if not, 2 if that cannot be
    /// said.
    ///
    /// It can be stopped at any time; what it says of its progress on stderr is where
    /// --incarnation, --partition and --from let it go on.
    Verify(Verify),
    /// Ask the consumer that runs here with this configuration whether it is ready; exit code 1
    /// and the reason if not.
    Healthcheck,
    /// Print the annotated defaults.
    Config,
}

#[derive(Debug, Subcommand)]
enum DeadLetters {
    /// List dead letters, in the order of their positions.
    List(List),
    /// Publish dead letters again, after what was wrong with them is mended.
    ///
    /// Without --repaired: those whose bytes this version can read, because it is newer or its
    /// limits have grown. With --repaired: those that you give a value for. Each becomes at most
    /// one event, however often it is replayed; the letter stays. Consumers can go on running.
    /// Exit code 1 if a letter was refused or not confirmed.
    Replay(Replay),
}

#[derive(Debug, Args)]
struct Verify {
    /// Print one JSON document instead of lines.
    #[arg(long)]
    json: bool,
    /// Check only this life of the topic.
    #[arg(long)]
    incarnation: Option<u32>,
    /// Check only this partition.
    #[arg(long)]
    partition: Option<u32>,
    /// Check only from this offset on.
    #[arg(long, requires = "partition", default_value_t = 0)]
    from: u64,
    /// How many ranges of missing and of doubled offsets to name of each partition.
    #[arg(long, default_value_t = 20)]
    named: usize,
    /// How long a running consumer has to settle what is not there yet.
    #[arg(long, default_value = "10s", value_parser = humantime_serde::re::humantime::parse_duration)]
    patience: Duration,
}

/// The exit code of a check that cannot say whether every offset is stored once.
const UNKNOWN: u8 = 2;

/// How long it is quiet about its progress, and how often it tells of it then.
const PROGRESS: Duration = Duration::from_secs(2);

/// Tells how far a long work is, given the time since it began.
fn progress() -> impl FnMut(Duration, &dyn Display) {
    let mut told = Duration::ZERO;
    move |after, step| {
        if after.saturating_sub(told) >= PROGRESS {
            told = after;
            eprintln!("{step}");
        }
    }
}

async fn verify(config: &Config, options: &Verify) -> anyhow::Result<ExitCode> {
    let client = audit_schema::clickhouse::connect(config.clickhouse.address());
    let topic = Topic::new(config, client);
    let scope = Scope {
        incarnation: options.incarnation,
        partition: options.partition,
        from: options.from,
        named: options.named,
        patience: options.patience,
    };
    let asked = async || anyhow::Ok(topic.logs(&topic.reader()?).await?);
    let logs = async || {
        let logs = asked().await;
        logs.inspect_err(|error| eprintln!("not compared with the log of kafka: {error:#}"))
            .ok()
    };
    let mut tell = progress();
    let progress = |step: Step| tell(step.after, &step);
    let each = |verdict: &Verdict| {
        if !options.json {
            println!("{verdict}");
        }
    };
    let verdicts = audit_consumer::verify::verify(
        &Auditor::new(&config.clickhouse),
        scope,
        logs,
        progress,
        each,
    )
    .await
    .context("the tables cannot be read; `audit-consumer migrate` makes them")?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&verdicts)?);
    }
    Ok(match verdicts.iter().map(|verdict| verdict.outcome).max() {
        None | Some(Outcome::Holds) => ExitCode::SUCCESS,
        Some(Outcome::Unknown) => UNKNOWN.into(),
        Some(Outcome::Broken) => ExitCode::FAILURE,
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let load = || -> anyhow::Result<Config> {
        let file = arguments.config.as_deref();
        Ok(audit_service::config::load("consumer", DEFAULTS, file)?)
    };
    // What a command did is logged, whoever ran it.
    let command = || {
        let config = load()?;
        audit_service::telemetry::init(&config.telemetry)?;
        anyhow::Ok(config)
    };
    match arguments.command {
        Command::Run => {
            let config = load()?;
            audit_service::tasks::until_signal(|shutdown| audit_consumer::serve(config, shutdown))
                .await?;
        }
        Command::Migrate(wanted) => {
            let config = command()?;
            print(&migrate(&config, &wanted).await?, wanted.json)?;
        }
        Command::Verify(options) => {
            return Ok(match load() {
                Ok(config) => verify(&config, &options).await,
                Err(error) => Err(error),
            }
            .unwrap_or_else(|error| {
                eprintln!("audit-consumer: {error:#}");
                UNKNOWN.into()
            }));
        }
        Command::Skip(wanted) => {
            let config = command()?;
            print(&skip(&config, &wanted).await?, wanted.json)?;
        }
        Command::Refill(wanted) => {
            let (config, mut told) = (command()?, Told::default());
            refill(&config, &wanted, |partition| {
                told.one(partition.holds(), || print(partition, wanted.json));
            })
            .await?;
            return told.exit_code();
        }
        Command::Import(wanted) => {
            let config = command()?;
            let (mut tell, mut imported) = (progress(), None);
            audit_service::tasks::until_signal(async |shutdown| {
                let step = |step: import::Step| tell(step.after, &step);
                imported = Some(import(&config, &wanted, shutdown, step).await?);
                Ok::<(), ImportError>(())
            })
            .await?;
            let imported = imported.context("the import did not end")?;
            print(&imported, wanted.json)?;
            if !imported.is_well() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Retention(wanted) => {
            let config = command()?;
            print(&retention(&config, &wanted).await?, wanted.json)?;
        }
        Command::Erase(wanted) => {
            let config = command()?;
            print(&erase(&config, &wanted).await?, wanted.json)?;
        }
        Command::DeadLetters(DeadLetters::List(list)) => {
            let client = audit_schema::clickhouse::connect(load()?.clickhouse.address());
            let mut printed = Ok(());
            dead_letters::list(&client, &list, |letter| {
                printed = print_line(letter, list.json);
                printed.is_ok()
            })
            .await?;
            // Whoever reads this may have seen enough.
            match printed {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
                _ => {}
            }
        }
        Command::DeadLetters(DeadLetters::Replay(wanted)) => {
            let config = command()?;
            let repaired = wanted.repaired.as_deref().map(read_repaired).transpose()?;
            let mut told = Told::default();
            replay(&config, &wanted, repaired, |letter| {
                told.one(letter.is_well(), || Ok(print_line(letter, wanted.json)?));
            })
            .await?;
            return told.exit_code();
        }
        Command::Healthcheck => audit_service::admin::healthcheck(&load()?.admin).await?,
        Command::Config => print!("{DEFAULTS}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What was said of things that are done one after the other: all are, even if nobody can read it.
#[derive(Default)]
struct Told {
    unprinted: Option<anyhow::Error>,
    ill: bool,
}

impl Told {
    fn one(&mut self, well: bool, print: impl FnOnce() -> anyhow::Result<()>) {
        self.ill |= !well;
        if self.unprinted.is_none() {
            self.unprinted = print().err();
        }
    }

    /// A failure if one of them is not well.
    fn exit_code(self) -> anyhow::Result<ExitCode> {
        match self.unprinted {
            Some(error) => Err(error),
            None if self.ill => Ok(ExitCode::FAILURE),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

/// Prints what was done: one JSON document, or lines.
fn print(report: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Prints one of many: a JSON document per line, or a line.
fn print_line(item: &(impl Serialize + Display), json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(item)?)
    } else {
        writeln!(out, "{item}")
    }
}

/// Reads repaired letters from a file, or from standard input for `-`.
fn read_repaired(file: &Path) -> anyhow::Result<Vec<Repaired>> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
    Repaired::parse(&text).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nobody_in_particular_is_not_erased() {
        let erase = |user| {
            [
                "audit-consumer",
                "erase",
                "--project",
                "acme",
                "--reason",
                "r; Ana",
                "--user",
                user,
            ]
        };
        assert!(Arguments::try_parse_from(erase("user-1")).is_ok());
        for nobody in ["", "unknown"] {
            assert!(Arguments::try_parse_from(erase(nobody)).is_err());
        }
    }

    #[test]
    fn records_are_not_given_up_without_a_reason() {
        let skip = ["audit-consumer", "skip", "--partition", "0", "--to", "7"];
        assert!(Arguments::try_parse_from(skip).is_err());
        let reason = ["--reason", "expired while we were away; Ana"];
        assert!(Arguments::try_parse_from(skip.into_iter().chain(reason)).is_ok());
    }
}
