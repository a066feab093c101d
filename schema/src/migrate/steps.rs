//! The numbered steps, and the statements of each for one server and for a cluster.

use crate::access::GRANTS;
use crate::clickhouse::{Engine, REMOVED, RETENTION_RUNS, SOURCES, WATERMARKS, local_table};
use crate::dead_letter::DEAD_LETTERS;
use crate::erasure::ERASURES;
use crate::event_type::{CATALOGUE, CatalogueEntry};
use crate::ocsf;
use crate::row::{EVENTS, LATE_LIMIT_SECONDS};

use super::Options;

/// One numbered step.
pub(super) struct Migration {
    pub(super) version: u32,
    makes: Makes,
    sql: &'static str,
}

/// What a step makes, as `{table}` of its statement.
#[derive(Clone, Copy)]
enum Makes {
    /// A table; in a cluster one on each shard, and one before them that reads all.
    Table(&'static str),
    /// A view of the tables that read all; its statement begins with `CREATE OR REPLACE VIEW`.
    View(&'static str),
}

const fn table(version: u32, name: &'static str, sql: &'static str) -> Migration {
    let makes = Makes::Table(name);
    Migration {
        version,
        makes,
        sql,
    }
}

const fn view(version: u32, name: &'static str, sql: &'static str) -> Migration {
    let makes = Makes::View(name);
    Migration {
        version,
        makes,
        sql,
    }
}

/// The text of a step.
macro_rules! sql {
    ($file:literal) => {
        include_str!(concat!("../../migrations/", $file, ".sql"))
    };
}

/// All steps, in their order. Once released, a step stays as it is.
pub(super) const MIGRATIONS: &[Migration] = &[
    table(1, EVENTS, sql!("0001_audit_events")),
    table(2, DEAD_LETTERS, sql!("0002_audit_dead_letters")),
    table(3, WATERMARKS, sql!("0003_audit_watermarks")),
    table(4, SOURCES, sql!("0004_audit_sources")),
    view(5, "audit_log", sql!("0005_audit_log")),
    view(6, "audit_sign_ins", sql!("0006_audit_sign_ins")),
    view(7, "audit_sessions", sql!("0007_audit_sessions")),
    view(8, "audit_accounts", sql!("0008_audit_accounts")),
    view(9, "audit_memberships", sql!("0009_audit_memberships")),
    view(
        10,
        "audit_security_events",
        sql!("0010_audit_security_events"),
    ),
    view(
        11,
        "audit_impersonations",
        sql!("0011_audit_impersonations"),
    ),
    view(12, "audit_hourly", sql!("0012_audit_hourly")),
    view(13, "audit_daily", sql!("0013_audit_daily")),
    view(14, ocsf::VIEW, sql!("0014_audit_ocsf")),
    table(15, GRANTS, sql!("0015_audit_grants")),
    table(16, REMOVED, sql!("0016_audit_removed")),
    table(17, RETENTION_RUNS, sql!("0017_audit_retention_runs")),
    table(18, ERASURES, sql!("0018_audit_erasures")),
];

/// The names of all views.
pub(crate) fn views() -> impl Iterator<Item = &'static str> {
    MIGRATIONS.iter().filter_map(|step| match step.makes {
        Makes::Table(_) => None,
        Makes::View(name) => Some(name),
    })
}

/// The expression for the category of `documented_type`: what the catalogue says.
fn category() -> String {
    let texts = |text: fn(&CatalogueEntry) -> &str| {
        let quoted = CATALOGUE.iter().map(|entry| format!("'{}'", text(entry)));
        quoted.collect::<Vec<_>>().join(", ")
    };
    format!(
        "transform(documented_type, [{}], [{}], '')",
        texts(|entry| entry.name),
        texts(|entry| entry.category.as_str())
    )
}

impl Migration {
    /// What this step does, such as `CREATE TABLE audit_events`.
    pub(super) fn name(&self) -> String {
        let (Makes::Table(name) | Makes::View(name)) = self.makes;
        let code = self.sql.lines().filter(|line| !line.starts_with("--"));
        let code = code.collect::<Vec<_>>().join(" ");
        let verb = code.split("{table}").next().unwrap_or_default();
        format!("{}{name}", verb.replace("IF NOT EXISTS ", ""))
    }

    /// The statements of this step, in order.
    pub(super) fn statements(&self, options: &Options) -> Vec<String> {
        let mut settings = "non_replicated_deduplication_window = 100000".to_owned();
        let (on_cluster, mut engine) = (options.engine.on_cluster(), "");
        if let Engine::Cluster(_) = &options.engine {
            engine = "Replicated";
            "replicated_deduplication_window = 100000, replicated_deduplication_window_seconds = 604800"
                .clone_into(&mut settings);
        }
        if options.fsync {
            settings.push_str(", fsync_after_insert = 1, fsync_part_directory = 1");
        }
        // Not by `{uuid}`: a replica that is added later, or on which the statement failed at first,
        // makes the table by a statement of its own, and has to find the others'.
        let zookeeper = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'";
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
            .replace("{late_limit}", &LATE_LIMIT_SECONDS.to_string())
            .replace("{category}", &category())
            .replace("{replica}", &replica(""));
        for version in ["next_offset", "registered_at", "rows"] {
            sql = sql.replace(&format!("{{replica_of {version}}}"), &replica(version));
        }
        let mut statements = vec![ocsf::fill(&sql)];
        if let (Engine::Cluster(cluster), Makes::Table(_)) = (&options.engine, self.makes) {
            // Replaced, because it does not follow when the table gets a column. It holds nothing.
            statements.push(format!(
                "CREATE OR REPLACE TABLE {name}{on_cluster} AS {made} \
                 ENGINE = Distributed('{cluster}', currentDatabase(), '{made}')"
            ));
        }
        statements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_numbered_in_order() {
        assert!(MIGRATIONS.iter().map(|step| step.version).eq(1..=18));
    }
}
