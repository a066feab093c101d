//! What retention asks of the tables, and does to them.
//!
//! In a cluster it asks all shards through the plain names, and changes the tables of all of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use audit_schema::clickhouse::{Engine, REMOVED, RETENTION_RUNS, local_table};
use audit_schema::dead_letter::{ABSENT, SKIPPED};
use audit_schema::row::Millis;
use clickhouse::error::Error;
use clickhouse::query::Query;
use clickhouse::{Client, Row};
use humantime_serde::re::humantime;
use serde::{Deserialize, Serialize};

use super::RetentionError;
use super::plan::{Going, Held, Removal, Rule, Whose};
use crate::batch::Table;
use crate::config::ClickHouse;
use crate::month::Month;
use crate::removed::CHUNK;

/// How often a delete that is under way is looked at, at most.
const LOOK: Duration = Duration::from_millis(200);

/// At most one part in so many of the time is spent looking.
const SHARE: u32 = 10;

/// How long nothing may be seen to work on a delete whose rows are still there: a replica that lags
/// shows both late.
const IDLE: Duration = Duration::from_secs(10);

/// How often it is said how far a delete has come.
const PROGRESS: Duration = Duration::from_secs(5);

#[derive(Debug, Row, Deserialize)]
struct HeldRow {
    month: u32,
    rows: u64,
}

#[derive(Debug, Row, Deserialize)]
struct BytesRow {
    month: String,
    bytes: u64,
}

#[derive(Debug, Row, Deserialize)]
struct GoingRow {
    month: u32,
    project: String,
    rows: u64,
}

#[derive(Debug, Row, Deserialize)]
struct RowsRow {
    rows: u64,
}

#[derive(Debug, Row, Deserialize)]
struct OldestRow {
    oldest: Millis,
}

#[derive(Debug, Row, Deserialize)]
struct MutationsRow {
    running: u64,
    parts: i64,
    failed: String,
}

#[derive(Debug, Row, Serialize)]
struct RunRow<'a> {
    table_name: &'a str,
    project_id: &'a str,
    month: u32,
    removed_before: Millis,
    kept_for: String,
    whole: bool,
    rows: u64,
    recorded_at: Millis,
}

/// The tables, as retention sees them.
#[derive(Clone)]
pub(super) struct Tables {
    client: Client,
    engine: Engine,
    database: String,
}

impl Tables {
    pub(super) fn new(client: Client, config: &ClickHouse) -> Self {
        Self {
            client,
            engine: config.options().engine,
            database: config.database.clone(),
        }
    }

    /// A table of the server's own, of one replica of each shard.
    fn system(&self, table: &str) -> String {
        match &self.engine {
            Engine::SingleNode => format!("system.{table}"),
            Engine::Cluster(cluster) => format!("cluster('{cluster}', system.{table})"),
        }
    }

    /// Makes each replica have what any has of a table: what one lacks would go and not be written
    /// down, or be taken for lost.
    pub(super) async fn sync(&self, table: &str) -> Result<(), Error> {
        match self.engine.sync(&local_table(table, &self.engine)) {
            Some(sync) => self.client.query_raw(&sync).execute().await,
            None => Ok(()),
        }
    }

    /// The months of a table; known without reading a row.
    pub(super) async fn held(&self, table: Table) -> Result<Vec<Held>, Error> {
        let rows = format!(
            "SELECT toYYYYMM(logged_at) AS month, count() AS rows FROM {} \
             GROUP BY toYYYYMM(logged_at)",
            table.name()
        );
        let rows: Vec<HeldRow> = self.client.query_raw(&rows).fetch_all().await?;
        let bytes = format!(
            "SELECT partition_id AS month, sum(bytes_on_disk) AS bytes FROM {} \
             WHERE active AND database = {{database:String}} AND table = {{table:String}} \
             GROUP BY partition_id",
            self.system("parts")
        );
        let bytes = self
            .client
            .query_raw(&bytes)
            .param("database", &self.database)
            .param("table", local_table(table.name(), &self.engine));
        let bytes: Vec<BytesRow> = bytes.fetch_all().await?;
        let bytes: HashMap<u32, u64> = bytes
            .into_iter()
            .filter_map(|row| Some((row.month.parse().ok()?, row.bytes)))
            .collect();
        let held = rows.into_iter().map(|row| Held {
            month: Month(row.month),
            rows: row.rows,
            bytes: bytes.get(&row.month).copied().unwrap_or(0),
        });
        Ok(held.collect())
    }

    /// What a rule finds, by month and project.
    pub(super) async fn going(&self, table: Table, rule: &Rule) -> Result<Vec<Going>, Error> {
        let project = match table {
            Table::Events => "toString(project_id)",
            Table::DeadLetters => "''",
        };
        let rules = std::slice::from_ref(rule);
        let sql = format!(
            "SELECT toYYYYMM(logged_at) AS month, {project} AS project, count() AS rows \
             FROM {} WHERE {} GROUP BY month, project",
            table.name(),
            condition(table, rules)
        );
        let rows: Vec<GoingRow> = bind(self.client.query_raw(&sql), table, rules)
            .fetch_all()
            .await?;
        let going = rows.into_iter().map(|row| Going {
            month: Month(row.month),
            project: row.project,
            rows: row.rows,
            before: rule.before,
            kept_for: rule.keep,
        });
        Ok(going.collect())
    }

    /// When Kafka took the oldest row of a table; `None` if there is none.
    pub(super) async fn oldest(&self, table: Table) -> Result<Option<Millis>, Error> {
        let sql = format!(
            "SELECT min(logged_at) AS oldest FROM {} HAVING count() > 0",
            table.name()
        );
        let row: Option<OldestRow> = self.client.query_raw(&sql).fetch_optional().await?;
        Ok(row.map(|row| row.oldest))
    }

    /// Writes down what goes, before it does: first the offsets of these very rows, then of whom
    /// they are. Writing it down twice changes nothing.
    pub(super) async fn record(
        &self,
        removal: &Removal,
        rules: &[Rule],
        now: Millis,
    ) -> Result<(), Error> {
        let table = removal.table;
        let rows = format!(
            "FROM {} WHERE {}",
            table.name(),
            in_month(removal.month, table, rules)
        );
        let source = "source_incarnation, source_partition";
        let offsets = match table {
            Table::Events => format!(
                "SELECT {source}, intDiv(source_offset, {CHUNK}) AS chunk, \
                 groupBitmapState(source_offset), maxState((source_offset, logged_at)) {rows}"
            ),
            // A letter may stand for a run of offsets, at which Kafka had nothing.
            Table::DeadLetters => format!(
                "SELECT {source}, intDiv(offset, {CHUNK}) AS chunk, groupBitmapState(offset), \
                 maxStateIf((offset, logged_at), kind NOT IN ('{ABSENT}', '{SKIPPED}')) \
                 FROM (SELECT {source}, kind, logged_at, \
                 arrayJoin(range(source_offset, source_offset_last + 1)) AS offset {rows})"
            ),
        };
        let sql = format!(
            "INSERT INTO {} (incarnation, partition, chunk, offsets, last) \
             {offsets} GROUP BY {source}, chunk",
            local_table(REMOVED, &self.engine)
        );
        let insert = bind(self.client.query_raw(&sql), table, rules);
        insert.execute().await?;
        self.sync(REMOVED).await?;
        let runs = local_table(RETENTION_RUNS, &self.engine);
        let mut insert = self.client.insert::<RunRow<'_>>(&runs).await?;
        for going in &removal.projects {
            insert
                .write(&RunRow {
                    table_name: table.name(),
                    project_id: &going.project,
                    month: going.month.0,
                    removed_before: going.before,
                    kept_for: humantime::format_duration(going.kept_for).to_string(),
                    whole: removal.whole,
                    rows: going.rows,
                    recorded_at: now,
                })
                .await?;
        }
        insert.end().await
    }

    /// Takes away what was written down, if it is still all that this would take away.
    pub(super) async fn remove(
        &self,
        removal: &Removal,
        rules: &[Rule],
    ) -> Result<(), RetentionError> {
        let (table, month) = (removal.table, removal.month);
        let found = if removal.whole {
            self.rows(table, month, None).await?
        } else {
            self.rows(table, month, Some(rules)).await?
        };
        if found != removal.rows {
            return Err(RetentionError::Changed {
                table: table.name(),
                month,
                found,
                expected: removal.rows,
            });
        }
        let local = local_table(table.name(), &self.engine);
        let alter = format!("ALTER TABLE {local}{}", self.engine.on_cluster());
        if removal.whole {
            let sql = format!("{alter} DROP PARTITION {}", month.0);
            // A month of more than 50 GB is not dropped without this.
            let drop = self
                .client
                .query_raw(&sql)
                .with_setting("max_partition_size_to_drop", "0");
            return Ok(drop.execute().await?);
        }
        let sql = format!(
            "{alter} DELETE IN PARTITION {} WHERE {}",
            month.0,
            condition(table, rules)
        );
        let delete = bind(self.client.query_raw(&sql), table, rules);
        delete.with_setting("mutations_sync", "0").execute().await?;
        self.deleted(removal, rules).await
    }

    /// Waits until the rows of a removal are gone. What is counted decides; the list of mutations
    /// says whether waiting is of use.
    async fn deleted(&self, removal: &Removal, rules: &[Rule]) -> Result<(), RetentionError> {
        let (table, month) = (removal.table, removal.month);
        let mutations = format!(
            "SELECT countIf(NOT is_done) AS running, sumIf(parts_to_do, NOT is_done) AS parts, \
             anyIf(latest_fail_reason, NOT is_done AND latest_fail_reason != '') AS failed \
             FROM {} WHERE database = {{database:String}} AND table = {{table:String}}",
            self.system("mutations")
        );
        let (mut said, mut worked_on) = (Instant::now(), Instant::now());
        loop {
            let looked = Instant::now();
            let asked = self
                .client
                .query_raw(&mutations)
                .param("database", &self.database)
                .param("table", local_table(table.name(), &self.engine));
            let mutations: MutationsRow = asked.fetch_one().await?;
            // In this order: a mutation that is done has taken its rows away.
            let left = self.rows(table, month, Some(rules)).await?;
            if left == 0 {
                return Ok(());
            }
            if mutations.running > 0 {
                worked_on = looked;
            }
            if worked_on.elapsed() >= IDLE || !mutations.failed.is_empty() {
                return Err(RetentionError::NotDeleted {
                    table: table.name(),
                    month,
                    left,
                    reason: mutations.failed,
                });
            }
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                tracing::info!(
                    table = table.name(),
                    month = %month,
                    rows = left,
                    parts = mutations.parts,
                    "rows are being deleted; so many are left, in so many parts of the table"
                );
            }
            tokio::time::sleep(LOOK.max(looked.elapsed().saturating_mul(SHARE))).await;
        }
    }

    /// How many rows a month has, or how many of them the rules find.
    async fn rows(&self, table: Table, month: Month, rules: Option<&[Rule]>) -> Result<u64, Error> {
        let condition = match rules {
            Some(rules) => in_month(month, table, rules),
            None => of_month(month),
        };
        let sql = format!(
            "SELECT count() AS rows FROM {} WHERE {condition}",
            table.name()
        );
        let query = bind(self.client.query_raw(&sql), table, rules.unwrap_or(&[]));
        let row: RowsRow = query.fetch_one().await?;
        Ok(row.rows)
    }
}

fn of_month(month: Month) -> String {
    format!("toYYYYMM(logged_at) = {}", month.0)
}

fn in_month(month: Month, table: Table, rules: &[Rule]) -> String {
    format!("{} AND ({})", of_month(month), condition(table, rules))
}

/// The condition of the rows that go by any of the rules; [`bind`] fills it in.
fn condition(table: Table, rules: &[Rule]) -> String {
    let rule = |(number, rule): (usize, &Rule)| {
        let before =
            format!("logged_at < fromUnixTimestamp64Milli({{before_{number}:Int64}}, 'UTC')");
        let whose = match (table, &rule.whose) {
            (Table::DeadLetters, _) => return before,
            (Table::Events, Whose::Of(_)) => "IN",
            (Table::Events, Whose::AllBut(_)) => "NOT IN",
        };
        format!("(project_id {whose} {{projects_{number}:Array(String)}} AND {before})")
    };
    let rules: Vec<String> = rules.iter().enumerate().map(rule).collect();
    rules.join(" OR ")
}

fn bind(mut query: Query, table: Table, rules: &[Rule]) -> Query {
    for (number, rule) in rules.iter().enumerate() {
        query = query.param(&format!("before_{number}"), rule.before.0);
        if table == Table::Events {
            let (Whose::Of(projects) | Whose::AllBut(projects)) = &rule.whose;
            let projects: Vec<String> = projects.iter().map(ToString::to_string).collect();
            query = query.param(&format!("projects_{number}"), projects);
        }
    }
    query
}
