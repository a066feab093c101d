//! Who may do what, on a server that keeps users and roles: a role for each service, one for
//! analysts, and what bounds an analyst.
//!
//! These statements are no numbered migration. They are made on demand, on tables of any version,
//! and again after each migration, because a new view has to be granted. All can be repeated: roles
//! and their members stay, and so do limits that an operator changed. What lets in comes last,
//! after what bounds, so that half of them is too little and never too much.
//!
//! One policy serves all projects: an analyst sees the rows of a project who has the role
//! [`PROJECT_ROLE`] + its id. The engine makes a constant of those roles before it reads, so
//! the primary key finds the project's rows as if it had been asked for.

use super::{Address, Engine, MIGRATIONS, Makes, MigrateError, SOURCES, WATERMARKS};
use super::{connect, local_table, plain};
use crate::dead_letter::DEAD_LETTERS;
use crate::row::EVENTS;

/// The role of those who ask in SQL; also the name of their settings profile, quota and policy.
pub const ANALYST: &str = "audit_analyst";

/// The role of the query API.
pub const READER: &str = "audit_reader";

/// The role of the consumer, but for `migrate`.
pub const WRITER: &str = "audit_writer";

/// What the name of a role begins with that opens a project to an analyst; the id follows.
pub const PROJECT_ROLE: &str = "audit_project_";

/// One setting of an analyst's queries.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The setting's name.
    pub setting: &'static str,
    /// Its value; also the highest one if it may be lowered.
    pub value: u64,
    /// Whether an analyst may lower it. To no less than 1, because 0 often means no limit.
    pub lowers: bool,
}

const fn fixed(setting: &'static str, value: u64) -> Limit {
    let lowers = false;
    Limit {
        setting,
        value,
        lowers,
    }
}

const fn at_most(setting: &'static str, value: u64) -> Limit {
    let lowers = true;
    Limit {
        setting,
        value,
        lowers,
    }
}

/// What bounds the queries of an analyst: seconds, bytes, rows, queries.
pub const LIMITS: [Limit; 12] = [
    // 2, not 1: clients set formats and the like beside each query, and may.
    fixed("readonly", 2),
    fixed("allow_ddl", 0),
    // Behind the pages (1) and files (10) of the query API, and the audit of the consumer (10).
    fixed("priority", 20),
    // Whoever may read this log is on record.
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

/// The condition of the policy: the row's project is among those whose roles the user has.
pub fn granted_projects() -> String {
    let after = PROJECT_ROLE.len() + 1;
    format!(
        "has(arrayMap(role -> substring(role, {after}), \
         arrayFilter(role -> startsWith(role, '{PROJECT_ROLE}'), enabledRoles())), project_id)"
    )
}

/// All statements, in order. `database` and the cluster's name must be plain words.
pub fn statements(database: &str, engine: &Engine) -> Vec<String> {
    let on = engine.on_cluster();
    let mut statements = vec![format!(
        "CREATE ROLE IF NOT EXISTS {WRITER}, {READER}, {ANALYST}{on}"
    )];
    // A policy binds where rows are read from, which is a shard's own table; views lead there, too.
    let rows = local_table(EVENTS, engine);
    // Without this one, whoever has no policy would see nothing if the server is configured so.
    statements.push(format!(
        "CREATE ROW POLICY OR REPLACE audit_everybody{on} ON {database}.{rows} \
         USING 1 AS PERMISSIVE TO ALL"
    ));
    statements.push(format!(
        "CREATE ROW POLICY OR REPLACE {ANALYST}{on} ON {database}.{rows} \
         USING {} AS RESTRICTIVE TO {ANALYST}",
        granted_projects()
    ));
    let limits: Vec<String> = LIMITS.iter().map(Limit::constraint).collect();
    statements.push(format!(
        "CREATE SETTINGS PROFILE IF NOT EXISTS {ANALYST}{on} SETTINGS {} TO {ANALYST}",
        limits.join(", ")
    ));
    statements.push(format!(
        "CREATE QUOTA IF NOT EXISTS {ANALYST}{on} KEYED BY user_name \
         FOR INTERVAL 1 hour MAX queries = 2000, execution_time = 3600 TO {ANALYST}"
    ));
    for (role, grants) in [
        (WRITER, writer_grants(database, engine)),
        (READER, reader_grants(database, engine)),
        (ANALYST, analyst_grants(database, engine)),
    ] {
        statements.push(format!("GRANT{on} {} TO {role}", grants.join(", ")));
    }
    statements
}

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

/// A table, and in a cluster also what a shard has of it.
fn whole_and_part(database: &str, table: &str, engine: &Engine) -> Vec<String> {
    let mut names = vec![format!("{database}.{table}")];
    let part = local_table(table, engine);
    if part != table {
        names.push(format!("{database}.{part}"));
    }
    names
}

fn select(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let names = names.into_iter();
    names.map(|name| format!("SELECT ON {name}")).collect()
}

/// What `run`, `verify`, `skip`, `refill` and `dead-letters` do.
fn writer_grants(database: &str, engine: &Engine) -> Vec<String> {
    let read = [EVENTS, DEAD_LETTERS, WATERMARKS, SOURCES];
    let read = read
        .iter()
        .flat_map(|table| whole_and_part(database, table, engine));
    // Whether an insert of its partition may still land.
    let mut grants = select(read.chain(["system.processes".to_owned()]));
    for table in [EVENTS, DEAD_LETTERS, WATERMARKS] {
        let table = local_table(table, engine);
        grants.push(format!("INSERT ON {database}.{table}"));
    }
    grants
}

/// What the query API asks.
fn reader_grants(database: &str, engine: &Engine) -> Vec<String> {
    let read = [EVENTS, WATERMARKS, SOURCES];
    select(
        read.iter()
            .flat_map(|table| whole_and_part(database, table, engine)),
    )
}

/// The events of a shard, all views, and how far all is readable; no dead letters, whose bytes
/// belong to no project that could be told.
///
/// In a cluster the table before the shards is left to the operator: a shard knows who asks only
/// if the cluster has a secret, and without it would show everything.
fn analyst_grants(database: &str, engine: &Engine) -> Vec<String> {
    let views = MIGRATIONS.iter().filter_map(|migration| {
        matches!(migration.makes, Makes::View(_)).then(|| migration.makes.name())
    });
    let tables = [WATERMARKS, SOURCES];
    let tables = tables
        .iter()
        .flat_map(|table| whole_and_part(database, table, engine));
    let events = format!("{database}.{}", local_table(EVENTS, engine));
    select(
        std::iter::once(events)
            .chain(tables)
            .chain(views.map(|view| format!("{database}.{view}"))),
    )
}

/// Makes the roles and what belongs to them, on tables that [`super::migrate`] made.
pub async fn apply(address: Address<'_>, engine: &Engine) -> Result<(), MigrateError> {
    plain(address.database)?;
    if let Engine::Cluster(cluster) = engine {
        plain(cluster)?;
    }
    let client = connect(address)
        // Servers that share their users by Keeper would else make each of them several times.
        .with_setting(
            "ignore_on_cluster_for_replicated_access_entities_queries",
            "1",
        );
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
        let statements = statements("audit", &Engine::SingleNode);
        let grant = statements.iter().position(|s| s.starts_with("GRANT"));
        let bound = statements.iter().rposition(|s| s.starts_with("CREATE"));
        assert!(bound < grant && bound.is_some());
    }

    #[test]
    fn no_view_reads_as_somebody_else() {
        for migration in MIGRATIONS {
            let sql = migration.sql.to_ascii_uppercase();
            assert!(
                !sql.contains("SQL SECURITY") && !sql.contains("DEFINER"),
                "{} would pass by the policies of its reader",
                migration.makes.name()
            );
        }
    }
}
