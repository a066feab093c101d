//! `audit-query-api`: serves reads of the log.

use std::path::PathBuf;

use anyhow::Context;
use audit_query_api::{Config, run};
use audit_service::admin::healthcheck;
use audit_service::tasks::until_signal;
use clap::{Parser, Subcommand};

/// Serves filtered, paginated reads of the log.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the API until SIGTERM or SIGINT.
    Run {
        /// A TOML file whose keys overwrite the defaults; the environment overwrites both.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Asks the instance that runs here with this configuration whether it is ready; exit code 1
    /// and the reason if not.
    Healthcheck {
        /// A TOML file, as for `run`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run { config } => {
            let config = Config::load(config.as_deref())?;
            until_signal(|shutdown| run(config, shutdown))
                .await
                .context("audit-query-api stopped")
        }
        Command::Healthcheck { config } => {
            Ok(healthcheck(&Config::load(config.as_deref())?.admin).await?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
