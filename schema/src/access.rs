//! Who may do what, on a server that keeps users and roles: a role for each service, one for
//! analysts, and what bounds an analyst.
//!
//! These statements are no numbered migration. They are made on demand, on tables of any version,
//! and again after each migration, because a new view has to be opened. All can be repeated: roles
//! and their members stay, and so do limits that an operator changed. What lets in comes last,
//! after what bounds, so that half of them is too little and never too much.
//!
//! An analyst reads views, which read the tables as the user [`VIEWER`], whom nobody can be. A
//! policy shows that user the projects that whoever asks was granted in `audit_grants`. Analysts
//! have no right to the table itself: with one, the functions that read its indexes and projections
//! (`mergeTreeIndex`, `mergeTreeTextIndex`, …) show every project, as they ask for the right
//! and not for the policy (tried on ClickHouse 26.7.2).
//!
//! In a cluster there are the roles of services only. A shard does not see as whom a view reads, so
//! it would apply no policy.

use crate::clickhouse::{
    Address, Engine, REMOVED, RETENTION_RUNS, SOURCES, WATERMARKS, connect, local_table,
};
use crate::dead_letter::DEAD_LETTERS;
use crate::erasure::ERASURES;
use crate::migrate::{MigrateError, plain, views};
use crate::row::EVENTS;

/// The table of grants: which analyst may read which project.
pub const GRANTS: &str = "audit_grants";

/// The role of those who ask in SQL; also the name of their settings profile and quota.
pub const ANALYST: &str = "audit_analyst";

/// The user as whom views read; also the name of the policy. It cannot log in.
pub const VIEWER: &str = "audit_viewer";

/// The role of the query API.
pub const READER: &str = "audit_reader";

/// The role of the consumer, but for `migrate`.
pub const WRITER: &str = "audit_writer";

/// One setting of an analyst's queries.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The setting's name.
    pub setting: &'static str,
    /// Its value.
    pub value: u64,
    /// Whether an analyst may lower it, to no less than 1: 0 often means no limit.
    pub lowers: bool,
}

const fn fixed(setting: &'static str, value: u64) -> Limit {
    Limit {
        setting,
        value,
        lowers: false,
    }
}

const fn at_most(setting: &'static str, value: u64) -> Limit {
    Limit {
        setting,
        value,
        lowers: true,
    }
}

/// What bounds the queries of an analyst: seconds, bytes, rows, queries.
pub const LIMITS: [Limit; 12] = [
    // 2, not 1: clients set formats and the like beside each query, and may.
    fixed("readonly", 2),
    fixed("allow_ddl", 0),
    // Behind the pages (1) and files (10) of the query API, and the audit of the consumer (10).
    fixed("priority", 20),
    // Reading this log is on record.
    fixed("log_queries", 1),
    at_most("max_threads", 4),
    at_most("max_execution_time", 60),
    at_most("max_memory_usage", 2_000_000_000),
    at_most("max_rows_to_read", 2_000_000_000),
    at_most("max_bytes_to_read", 200_000_000_000),
    at_most("max_result_rows", 1_000_000),
    at_most("max_result_bytes", 1_000_000_000),
    at_most("max_concurrent_queries_for_user", 4),
];

impl Limit {
    /// The setting with its value and bounds, as a settings profile has it.
    fn constraint(&self) -> String {
        let Self { setting, value, .. } = self;
        if self.lowers {
            format!("{setting} = {value} MIN 1 MAX {value}")
        } else {
            format!("{setting} = {value} CONST")
        }
    }
}

/// All statements, in order. `database` and the cluster's name must be plain words.
pub fn statements(database: &str, engine: &Engine) -> Vec<String> {
    let on = engine.on_cluster();
    let mut statements = vec![format!("CREATE ROLE IF NOT EXISTS {WRITER}, {READER}{on}")];
    let grants = [
        (WRITER, writer_grants(database, engine)),
        (READER, reader_grants(database, engine)),
    ];
    statements
        .extend(grants.map(|(role, grants)| format!("GRANT{on} {} TO {role}", grants.join(", "))));
    if *engine == Engine::SingleNode {
        statements.extend(analyst_statements(database));
    }
    statements
}

fn analyst_statements(database: &str) -> Vec<String> {
    let views: Vec<&str> = views().collect();
    let limits = LIMITS.map(|limit| limit.constraint()).join(", ");
    let select = |tables: &[&str]| {
        let names = tables.iter().chain(&views);
        let names = names.map(|name| format!("SELECT ON {database}.{name}"));
        names.collect::<Vec<_>>().join(", ")
    };
    // A hash that no password is known for, since a server may refuse users without one.
    let nobody = "0".repeat(64);
    let mut statements = vec![
        format!("CREATE ROLE IF NOT EXISTS {ANALYST}"),
        format!(
            "CREATE USER IF NOT EXISTS {VIEWER} IDENTIFIED WITH sha256_hash BY '{nobody}' HOST NONE"
        ),
        // Whoever has no policy that lets in would see nothing if the server is configured so.
        format!(
            "CREATE ROW POLICY OR REPLACE audit_everybody ON {database}.{EVENTS} \
             USING 1 AS PERMISSIVE TO ALL"
        ),
        format!(
            "CREATE ROW POLICY OR REPLACE {VIEWER} ON {database}.{EVENTS} \
             USING project_id IN (SELECT project_id FROM {database}.{GRANTS} \
             WHERE user_name = currentUser()) AS RESTRICTIVE TO {VIEWER}"
        ),
        format!("CREATE SETTINGS PROFILE IF NOT EXISTS {ANALYST} SETTINGS {limits} TO {ANALYST}"),
        format!(
            "CREATE QUOTA IF NOT EXISTS {ANALYST} KEYED BY user_name \
             FOR INTERVAL 1 hour MAX queries = 2000, execution_time = 3600 TO {ANALYST}"
        ),
        // No dead letters: their bytes belong to no project that could be told.
        format!(
            "GRANT {} TO {VIEWER}",
            select(&[EVENTS, GRANTS, WATERMARKS, SOURCES])
        ),
    ];
    statements.extend(views.iter().map(|view| {
        format!("ALTER TABLE {database}.{view} MODIFY DEFINER = {VIEWER} SQL SECURITY DEFINER")
    }));
    statements.push(format!(
        "GRANT {} TO {ANALYST}",
        select(&[WATERMARKS, SOURCES])
    ));
    statements
}

/// Rights to read tables, in a cluster the whole and what a shard has of it.
fn select(database: &str, tables: &[&str], engine: &Engine) -> Vec<String> {
    let mut grants = Vec::new();
    for table in tables {
        grants.push(format!("SELECT ON {database}.{table}"));
        let part = local_table(table, engine);
        if part != *table {
            grants.push(format!("SELECT ON {database}.{part}"));
        }
    }
    grants
}

/// What `run` without `retention.run_every`, `verify`, `skip`, `refill` and `dead-letters` do.
fn writer_grants(database: &str, engine: &Engine) -> Vec<String> {
    let mut grants = select(
        database,
        &[EVENTS, DEAD_LETTERS, WATERMARKS, SOURCES, REMOVED, ERASURES],
        engine,
    );
    // Whether an insert may still land.
    grants.push("SELECT ON system.processes".to_owned());
    // The state of the server as metrics.
    for table in ["disks", "parts", "mutations"] {
        grants.push(format!("SELECT ON system.{table}"));
    }
    for table in [EVENTS, DEAD_LETTERS, WATERMARKS] {
        let part = local_table(table, engine);
        grants.push(format!("INSERT ON {database}.{part}"));
    }
    if let Engine::Cluster(_) = engine {
        // A replica is asked when it has fetched what the others have.
        for table in [EVENTS, DEAD_LETTERS, WATERMARKS, SOURCES, ERASURES] {
            let part = local_table(table, engine);
            grants.push(format!("SYSTEM SYNC REPLICA ON {database}.{part}"));
        }
    }
    grants
}

/// What the query API asks.
fn reader_grants(database: &str, engine: &Engine) -> Vec<String> {
    select(
        database,
        &[EVENTS, WATERMARKS, SOURCES, RETENTION_RUNS],
        engine,
    )
}

/// Makes the roles and what belongs to them, on tables that [`crate::migrate::migrate`] made.
pub async fn apply(address: Address<'_>, engine: &Engine) -> Result<(), MigrateError> {
    plain(address.database)?;
    if let Engine::Cluster(cluster) = engine {
        plain(cluster)?;
    }
    // Servers that share their users by Keeper would else make each of them several times.
    let once = "ignore_on_cluster_for_replicated_access_entities_queries";
    let client = connect(address).with_setting(once, "1");
    for statement in statements(address.database, engine) {
        let made = client.query_raw(&statement).execute().await;
        made.map_err(MigrateError::Access)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_of_one_server() {
        insta::assert_snapshot!(statements("audit", &Engine::SingleNode).join(";\n\n"));
    }

    #[test]
    fn the_access_of_a_cluster() {
        let cluster = Engine::Cluster("audit".into());
        insta::assert_snapshot!(statements("audit", &cluster).join(";\n\n"));
    }

    #[test]
    fn what_bounds_an_analyst_is_made_before_what_lets_in() {
        let statements = analyst_statements("audit");
        let (last, before) = statements.split_last().unwrap();
        assert!(last.starts_with("GRANT") && last.ends_with("TO audit_analyst"));
        assert!(
            !before
                .iter()
                .any(|s| s.starts_with("GRANT") && s.ends_with("TO audit_analyst"))
        );
    }
}
