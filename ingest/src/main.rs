//! The command `audit-ingest`: reads its arguments and wires the service.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use audit_ingest::{Config, drain, run};
use audit_schema::ProjectId;
use audit_service::admin::healthcheck;
use audit_service::keys::{Grant, Scope, create_key};
use audit_service::{tasks, telemetry};
use clap::{Args, Parser, Subcommand};

const AFTER_HELP: &str = "\
Environment: AUDIT_INGEST_<SECTION>__<KEY> overrides the key of config.toml's section, such as
AUDIT_INGEST_HTTP__LISTEN=0.0.0.0:4601 or AUDIT_INGEST_KAFKA__BROKERS=kafka:9092.";

/// Takes events over HTTP and gives them to Kafka.
///
/// Settings come from the compiled-in defaults, then --config, then the environment.
#[derive(Parser)]
#[command(name = "audit-ingest", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the API until SIGTERM or SIGINT.
    Run {
        /// A TOML file that overrides defaults.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Sends what an instance left in its spool to Kafka, and ends when the spool is empty.
    ///
    /// For an instance that will not come back: one that is started again does so itself. Each
    /// event is stored once, also if Kafka had it already.
    Drain {
        /// A TOML file that overrides defaults, as for `run`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The folder of the spool; without it, that of the configuration.
        #[arg(long, value_name = "FOLDER")]
        spool: Option<PathBuf>,
    },
    /// Asks the instance that runs here with this configuration whether it is ready; exit code 1
    /// and the reason if not.
    Healthcheck {
        /// A TOML file that overrides defaults, as for `run`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Manages API keys.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Makes a key and prints it, once. A running service takes it within a second.
    ///
    /// To revoke a key, delete its entry from the file.
    Create(CreateKey),
}

#[derive(Args)]
struct CreateKey {
    /// The project whose events the key may touch: a-z, 0-9, '-' and '_'.
    #[arg(long)]
    project: ProjectId,
    /// A name for the key, the only one of its project.
    #[arg(long)]
    name: String,
    /// What the key may be used for: write, read or admin. Better Auth's plugin needs write and
    /// read.
    #[arg(long = "scope", value_name = "SCOPE", default_values = ["write", "read"])]
    scopes: Vec<Scope>,
    /// The key then reads only events of that organization; needs --scope read.
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// The file of API keys; created if there is none.
    #[arg(long, value_name = "FILE", default_value = "keys.toml")]
    file: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run { config } => {
            let config = Config::load(config.as_deref())?;
            let metrics = telemetry::init(&config.telemetry).context("telemetry")?;
            let ended = tasks::until_signal(|shutdown| run(config, metrics, shutdown)).await;
            Ok(exit_code(ended.map_err(anyhow::Error::new)))
        }
        Command::Drain { config, spool } => {
            let config = Config::load(config.as_deref())?;
            telemetry::init(&config.telemetry).context("telemetry")?;
            let configured = config.kafka.spool.as_ref().map(|spool| &spool.folder);
            let folder = spool.or(configured.cloned()).unwrap_or_default();
            let draining = async |shutdown| {
                drain(config, &folder, shutdown).await.map(|events| {
                    println!(
                        "{events} events of the spool {} are in Kafka",
                        folder.display()
                    );
                })
            };
            let ended = tasks::until_signal(draining).await;
            Ok(exit_code(ended.map_err(anyhow::Error::new)))
        }
        Command::Healthcheck { config } => {
            healthcheck(&Config::load(config.as_deref())?.admin).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Keys {
            command: KeysCommand::Create(new),
        } => {
            let grant = Grant {
                name: &new.name,
                scopes: &new.scopes,
                organization: new.organization.as_deref(),
            };
            let key = create_key(&new.file, &new.project, grant)?;
            println!("{key}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended badly");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
