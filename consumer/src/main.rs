//! `audit-consumer`: Kafka to ClickHouse, exactly once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use audit_consumer::audit::Auditor;
use audit_consumer::config::{Config, DEFAULTS};
use audit_consumer::topic::Topic;
use audit_consumer::verify::{Outcome, Scope, Step, Verdict};
use clap::{Args, Parser, Subcommand};

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
    Migrate {
        /// Register another life of the topic: it was deleted and created anew on purpose.
        #[arg(long)]
        new_incarnation: bool,
    },
    /// Check that every offset is stored exactly once; exit code 1 if not, 2 if that cannot be
    /// said.
    ///
    /// It can be stopped at any time; what it says of its progress on stderr is where
    /// --incarnation, --partition and --from let it go on.
    Verify(Verify),
    /// Print the annotated defaults.
    Config,
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

async fn verify(config: &Config, options: &Verify) -> anyhow::Result<ExitCode> {
    let client = audit_schema::clickhouse::connect(config.clickhouse.address());
    let topic = Topic::new(config, client.clone());
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
    let mut told = Duration::ZERO;
    let progress = |step: Step| {
        if step.after.saturating_sub(told) >= PROGRESS {
            told = step.after;
            eprintln!("{step}");
        }
    };
    let each = |verdict: &Verdict| {
        if !options.json {
            println!("{verdict}");
        }
    };
    let verdicts =
        audit_consumer::verify::verify(&Auditor::of_all(client), scope, logs, progress, each)
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
    match arguments.command {
        Command::Run => {
            let config = load()?;
            audit_service::tasks::until_signal(|shutdown| audit_consumer::serve(config, shutdown))
                .await?;
        }
        Command::Migrate { new_incarnation } => {
            let config = load()?;
            audit_service::telemetry::init(&config.telemetry)?;
            audit_consumer::migrate(&config, new_incarnation).await?;
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
        Command::Config => print!("{DEFAULTS}"),
    }
    Ok(ExitCode::SUCCESS)
}
