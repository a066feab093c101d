//! Migrations: the numbered steps that make our tables and change them.
//!
//! Each is one SQL file, compiled in, whose statement can be repeated, and is written down in
//! `audit_migrations` when it is done: a migration that dies anywhere, and two at the same time, end
//! as one that was left alone. What differs between one server and a cluster is filled into the same
//! files: [`Engine`] says which. What a step may change is in the README.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use clickhouse::error::Error;
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

use crate::clickhouse::{Address, Engine, connect};
use crate::row::Millis;

mod steps;

use steps::MIGRATIONS;
pub(crate) use steps::views;

/// The table of steps: which were applied, and when.
const STEPS: &str = "audit_migrations";

/// How to make the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// For which kind of ClickHouse.
    pub engine: Engine,
    /// Whether an insert is on disk when it is answered, so that it survives a power cut.
    pub fsync: bool,
}

/// A step, and when it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its number; 0 makes the database and the table of steps itself.
    pub version: u32,
    /// What it does, such as `CREATE TABLE audit_events`.
    pub name: String,
    /// When it was first applied, on the clock of ClickHouse; `None` if it was not yet.
    pub applied_at: Option<DateTime<Utc>>,
    /// What is sent to ClickHouse, in this order; each can be repeated.
    pub statements: Vec<String>,
}

/// Why the tables could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The tables were made by a newer version of this program.
    #[error(
        "the tables are at version {found}, this program knows {known}: install the newer version"
    )]
    Newer {
        /// The version of the tables.
        found: u32,
        /// The highest version of this program.
        known: u32,
    },
    /// The name of a database or cluster is not a plain word.
    #[error("{0:?} cannot name a database or cluster: use letters, digits and '_'")]
    Name(String),
    /// ClickHouse did not do it.
    #[error("clickhouse did not take migration {version}; it can be repeated")]
    ClickHouse {
        /// The step that failed; 0 is the list of steps itself.
        version: u32,
        /// What it said.
        #[source]
        source: Error,
    },
    /// ClickHouse did not make the roles.
    #[error(
        "clickhouse did not make the roles: the user needs ACCESS MANAGEMENT and all it grants WITH \
         GRANT OPTION, and the server a place for roles (access_control_path); \
         clickhouse.access = false leaves them out"
    )]
    Access(#[source] Error),
}

/// Refuses a name that cannot stand in a statement as it is.
pub(crate) fn plain(name: &str) -> Result<(), MigrateError> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain && !name.is_empty() {
        Ok(())
    } else {
        Err(MigrateError::Name(name.to_owned()))
    }
}

impl MigrateError {
    fn at(version: u32) -> impl FnOnce(Error) -> Self {
        move |source| Self::ClickHouse { version, source }
    }
}

#[derive(Debug, Row, Deserialize)]
struct Count {
    rows: u64,
}

#[derive(Debug, Row, Deserialize)]
struct AppliedRow {
    version: u32,
    first: Millis,
}

/// The steps of one database, and what tells and writes down which of them were applied.
struct Steps<'a> {
    /// Speaks to the server before the database is there.
    server: Client,
    database: &'a str,
    known: Vec<Step>,
}

impl<'a> Steps<'a> {
    fn new(address: Address<'a>, options: &Options) -> Result<Self, MigrateError> {
        plain(address.database)?;
        if let Engine::Cluster(cluster) = &options.engine {
            plain(cluster)?;
        }
        let first = Step {
            version: 0,
            name: format!("CREATE TABLE {STEPS}"),
            applied_at: None,
            statements: first_statements(address.database, &options.engine),
        };
        let others = MIGRATIONS.iter().map(|migration| Step {
            version: migration.version,
            name: migration.name(),
            applied_at: None,
            statements: migration.statements(options),
        });
        Ok(Self {
            server: connect(Address {
                database: "default",
                ..address
            }),
            database: address.database,
            known: std::iter::once(first).chain(others).collect(),
        })
    }

    /// Which steps were applied, and when first.
    async fn applied(&self) -> Result<BTreeMap<u32, DateTime<Utc>>, Error> {
        let there = self
            .server
            .query("SELECT count() AS rows FROM system.tables WHERE database = ? AND name = ?")
            .bind(self.database)
            .bind(STEPS)
            .fetch_one::<Count>();
        if there.await?.rows == 0 {
            return Ok(BTreeMap::new());
        }
        let rows = self
            .server
            .query_raw(&format!(
                "SELECT version, min(applied_at) AS first FROM `{}`.{STEPS} GROUP BY version",
                self.database
            ))
            .fetch_all::<AppliedRow>();
        let rows = rows.await?.into_iter();
        Ok(rows.map(|row| (row.version, row.first.into())).collect())
    }

    /// The same, unless a newer program has been here.
    async fn applied_by_us(&self) -> Result<BTreeMap<u32, DateTime<Utc>>, MigrateError> {
        let applied = self.applied().await.map_err(MigrateError::at(0))?;
        let known = self.known.last().map_or(0, |last| last.version);
        match applied.keys().max() {
            Some(found) if *found > known => Err(MigrateError::Newer {
                found: *found,
                known,
            }),
            _ => Ok(applied),
        }
    }

    /// Sends the statements of a step, each of which may have been sent before, and writes it down.
    async fn apply(&self, client: &Client, step: &Step) -> Result<(), Error> {
        for statement in &step.statements {
            client.query_raw(statement).execute().await?;
        }
        self.server
            .query(&format!(
                "INSERT INTO `{}`.{STEPS} (version, name) VALUES (?, ?)",
                self.database
            ))
            .bind(step.version)
            .bind(&step.name)
            .execute()
            .await
    }
}

/// The statements of step 0. The first release had no names.
fn first_statements(database: &str, engine: &Engine) -> Vec<String> {
    let on_cluster = engine.on_cluster();
    let replicated = match engine {
        Engine::SingleNode => "ReplacingMergeTree",
        // One table for all shards: each server of the cluster knows what was applied.
        Engine::Cluster(_) => {
            "ReplicatedReplacingMergeTree('/clickhouse/tables/all/{database}/{table}', \
             '{shard}_{replica}')"
        }
    };
    vec![
        format!("CREATE DATABASE IF NOT EXISTS `{database}`{on_cluster}"),
        format!(
            "CREATE TABLE IF NOT EXISTS `{database}`.{STEPS}{on_cluster} (version UInt32, \
             applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = {replicated} \
             ORDER BY version COMMENT 'The numbered changes of the tables that were made'"
        ),
        format!(
            "ALTER TABLE `{database}`.{STEPS}{on_cluster} \
             ADD COLUMN IF NOT EXISTS name String COMMENT 'What it does'"
        ),
    ]
}

/// Every step this program knows, with those marked that were applied; changes nothing.
///
/// # Errors
/// As [`migrate`], which would refuse or fail there.
pub async fn plan(address: Address<'_>, options: &Options) -> Result<Vec<Step>, MigrateError> {
    let mut steps = Steps::new(address, options)?;
    let applied = steps.applied_by_us().await?;
    for step in &mut steps.known {
        step.applied_at = applied.get(&step.version).copied();
    }
    Ok(steps.known)
}

/// Makes the database and its tables, as far as they are not there, and calls `each` with every
/// step that it has applied. Can be repeated at any time, and run beside another one.
///
/// With `repeat` the steps that were applied are applied again: a server that was added to a
/// cluster gets its tables so.
///
/// # Errors
/// When a newer program has been here, before anything is changed; when a name is no word; when
/// ClickHouse refuses a statement or does not answer.
pub async fn migrate(
    address: Address<'_>,
    options: &Options,
    repeat: bool,
    mut each: impl FnMut(&Step),
) -> Result<(), MigrateError> {
    let steps = Steps::new(address, options)?;
    let in_database = connect(address);
    for step in &steps.known {
        // Asked again before each: what another one did meanwhile is not done after it, which
        // could bring back an older view.
        let applied = steps.applied_by_us().await?;
        if applied.contains_key(&step.version) && !repeat {
            continue;
        }
        let client = match step.version {
            0 => &steps.server,
            _ => &in_database,
        };
        let applied = steps.apply(client, step).await;
        applied.map_err(MigrateError::at(step.version))?;
        each(step);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(engine: Engine, fsync: bool) -> String {
        let options = Options { engine, fsync };
        let address = Address::open("http://127.0.0.1:8123", "audit");
        let steps = Steps::new(address, &options).unwrap().known.into_iter();
        steps
            .map(|step| {
                let statements = step.statements.join(";\n\n");
                format!("-- {}: {}\n{statements};\n", step.version, step.name)
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn the_migrations_of_one_server() {
        insta::assert_snapshot!(all(Engine::SingleNode, false));
    }

    #[test]
    fn the_migrations_of_a_cluster() {
        insta::assert_snapshot!(all(Engine::Cluster("audit".into()), true));
    }
}
