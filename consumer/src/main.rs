//! `audit-consumer`: Kafka to ClickHouse, exactly once.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use audit_consumer::config::{Config, DEFAULTS};
use audit_consumer::verify::verify;
use clap::{Parser, Subcommand};

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
    /// Check that every offset is stored exactly once; exit code 1 if not.
    Verify {
        /// Print one JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Print the annotated defaults.
    Config,
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
        Command::Verify { json } => {
            let config = load()?;
            let client = audit_schema::clickhouse::connect(config.clickhouse.address());
            let verdicts = verify(&client, |verdict| {
                if !json {
                    println!("{verdict}");
                }
            })
            .await
            .context("the tables cannot be read; `audit-consumer migrate` makes them")?;
            if json {
                println!("{}", serde_json::to_string_pretty(&verdicts)?);
            }
            if !verdicts.iter().all(audit_consumer::verify::Verdict::holds) {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Config => print!("{DEFAULTS}"),
    }
    Ok(ExitCode::SUCCESS)
}
