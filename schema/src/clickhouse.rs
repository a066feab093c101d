//! ClickHouse: how to reach it, and the migrations that make our tables.
//!
//! Migrations are numbered SQL files compiled in. Each is one statement that can be repeated, so
//! a migration that dies half way is mended by running it again. What differs between one server
//! and a cluster is filled into the same files: [`Engine`] says which.

use clickhouse::error::Error;
use clickhouse::sql::Identifier;
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

/// The table of watermarks: how far each partition is readable.
pub const WATERMARKS: &str = "audit_watermarks";

/// The table of sources: the lives of the topic.
pub const SOURCES: &str = "audit_sources";

/// Where ClickHouse is, and as whom to speak to it.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// Its HTTP interface, such as `http://127.0.0.1:8123`.
    pub url: &'a str,
    /// The database of our tables.
    pub database: &'a str,
    /// The user; empty for none.
    pub user: &'a str,
    /// The password; empty for none.
    pub password: &'a str,
}

/// A client with the settings that our promises rest on.
///
/// `async_insert` would acknowledge rows before they are stored, and is on by default since
/// ClickHouse 26.3.
pub fn connect(address: Address<'_>) -> Client {
    let mut client = Client::default()
        .with_url(address.url)
        .with_database(address.database)
        .with_setting("async_insert", "0");
    if !address.user.is_empty() {
        client = client.with_user(address.user);
    }
    if !address.password.is_empty() {
        client = client.with_password(address.password);
    }
    client
}

/// What kind of ClickHouse the tables are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// One server: `MergeTree`.
    SingleNode,
    /// A cluster of this name: `ReplicatedMergeTree` on each shard, `Distributed` before them.
    Cluster(String),
}

/// How to make the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// For which kind of ClickHouse.
    pub engine: Engine,
    /// Whether an insert is on disk when it is answered, so that it survives a power cut.
    pub fsync: bool,
}

/// One numbered step.
struct Migration {
    version: u32,
    makes: Makes,
    sql: &'static str,
}

/// What a step makes, as `{table}` of its statement.
#[derive(Clone, Copy)]
enum Makes {
    /// A table; in a cluster one on each shard, and one before them that reads all.
    Table(&'static str),
    /// A view of the tables that read all; its statement begins with `CREATE OR REPLACE VIEW`.
    #[expect(dead_code, reason = "no step makes one yet")]
    View(&'static str),
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        makes: Makes::Table(crate::row::EVENTS),
        sql: include_str!("../migrations/0001_audit_events.sql"),
    },
    Migration {
        version: 2,
        makes: Makes::Table(crate::dead_letter::DEAD_LETTERS),
        sql: include_str!("../migrations/0002_audit_dead_letters.sql"),
    },
    Migration {
        version: 3,
        makes: Makes::Table(WATERMARKS),
        sql: include_str!("../migrations/0003_audit_watermarks.sql"),
    },
    Migration {
        version: 4,
        makes: Makes::Table(SOURCES),
        sql: include_str!("../migrations/0004_audit_sources.sql"),
    },
    Migration {
        version: 50,
        makes: Makes::Table(crate::erasure::ERASURES),
        sql: include_str!("../migrations/0050_audit_erasures.sql"),
    },
];

/// The table that an insert of `table` goes to: a shard's own one in a cluster.
pub fn local_table(table: &str, engine: &Engine) -> String {
    match engine {
        Engine::SingleNode => table.to_owned(),
        Engine::Cluster(_) => format!("{table}_local"),
    }
}

impl Migration {
    /// The statements of this step, in order.
    fn statements(&self, options: &Options) -> Vec<String> {
        let mut settings = "non_replicated_deduplication_window = 100000".to_owned();
        let (mut on_cluster, mut engine) = (String::new(), "");
        if let Engine::Cluster(cluster) = &options.engine {
            on_cluster = format!(" ON CLUSTER '{cluster}'");
            engine = "Replicated";
            "replicated_deduplication_window = 100000, replicated_deduplication_window_seconds = 604800"
                .clone_into(&mut settings);
        }
        if options.fsync {
            settings.push_str(", fsync_after_insert = 1, fsync_part_directory = 1");
        }
        let zookeeper = "'/clickhouse/tables/{uuid}/{shard}', '{replica}'";
        let replica = |version: &str| match &options.engine {
            Engine::SingleNode if version.is_empty() => String::new(),
            Engine::SingleNode => format!("({version})"),
            Engine::Cluster(_) if version.is_empty() => format!("({zookeeper})"),
            Engine::Cluster(_) => format!("({zookeeper}, {version})"),
        };
        let (name, made) = match self.makes {
            Makes::Table(name) => (name, local_table(name, &options.engine)),
            Makes::View(name) => (name, name.to_owned()),
        };
        let mut sql = self
            .sql
            .replace("{table}", &made)
            .replace("{on_cluster}", &on_cluster)
            .replace("{engine}", engine)
            .replace("{settings}", &settings)
            .replace("{late_limit}", &crate::row::LATE_LIMIT_SECONDS.to_string())
            .replace("{replica}", &replica(""));
        for version in ["next_offset", "registered_at"] {
            sql = sql.replace(&format!("{{replica_of {version}}}"), &replica(version));
        }
        let mut statements = vec![sql];
        if let (Engine::Cluster(cluster), Makes::Table(_)) = (&options.engine, self.makes) {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {name}{on_cluster} AS {made} \
                 ENGINE = Distributed('{cluster}', currentDatabase(), '{made}')"
            ));
        }
        statements
    }
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
    #[error("clickhouse did not take migration {version}")]
    ClickHouse {
        /// The step that failed; 0 is the list of steps itself.
        version: u32,
        /// What it said.
        #[source]
        source: Error,
    },
}

#[derive(Debug, Row, Serialize, Deserialize)]
struct Applied {
    version: u32,
}

/// Makes the database and its tables, as far as they are not there, and returns the version
/// they are at. Can be repeated at any time.
pub async fn migrate(address: Address<'_>, options: &Options) -> Result<u32, MigrateError> {
    let word = |name: &str| {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plain && !name.is_empty() {
            Ok(())
        } else {
            Err(MigrateError::Name(name.to_owned()))
        }
    };
    word(address.database)?;
    if let Engine::Cluster(cluster) = &options.engine {
        word(cluster)?;
    }
    let step = |version| move |source| MigrateError::ClickHouse { version, source };

    let server = connect(Address {
        database: "default",
        ..address
    });
    let on_cluster = match &options.engine {
        Engine::SingleNode => String::new(),
        Engine::Cluster(cluster) => format!(" ON CLUSTER '{cluster}'"),
    };
    server
        .query(&format!("CREATE DATABASE IF NOT EXISTS ?{on_cluster}"))
        .bind(Identifier(address.database))
        .execute()
        .await
        .map_err(step(0))?;

    let client = connect(address);
    client
        .query(
            "CREATE TABLE IF NOT EXISTS audit_migrations (version UInt32, \
             applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = ReplacingMergeTree \
             ORDER BY version COMMENT 'The numbered changes of the tables that were made'",
        )
        .execute()
        .await
        .map_err(step(0))?;
    let found = client
        .query("SELECT max(version) AS version FROM audit_migrations")
        .fetch_one::<Applied>()
        .await
        .map_err(step(0))?
        .version;
    let known = MIGRATIONS.last().map_or(0, |last| last.version);
    if found > known {
        return Err(MigrateError::Newer { found, known });
    }
    for migration in MIGRATIONS.iter().filter(|m| m.version > found) {
        let failed = step(migration.version);
        for statement in migration.statements(options) {
            client
                .query_raw(&statement)
                .execute()
                .await
                .map_err(failed)?;
        }
        client
            .query("INSERT INTO audit_migrations (version) VALUES (?)")
            .bind(migration.version)
            .execute()
            .await
            .map_err(failed)?;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(engine: Engine, fsync: bool) -> String {
        let options = Options { engine, fsync };
        MIGRATIONS
            .iter()
            .flat_map(|m| m.statements(&options))
            .collect::<Vec<_>>()
            .join(";\n\n")
    }

    #[test]
    fn the_migrations_of_one_server() {
        insta::assert_snapshot!(all(Engine::SingleNode, false));
    }

    #[test]
    fn the_migrations_of_a_cluster() {
        insta::assert_snapshot!(all(Engine::Cluster("audit".into()), true));
    }

    #[test]
    fn the_versions_are_numbered_in_order() {
        assert!(MIGRATIONS.is_sorted_by(|a, b| a.version < b.version));
    }
}
