//! Retention: what is old enough is taken away, so that nobody takes it for lost.
//!
//! Which offsets go is written down first, inside ClickHouse and from the very rows that go
//! (`audit_removed`), and then the rows go: a month as a whole where all of it goes, single rows
//! elsewhere. A run that dies in between is finished by the next one. ClickHouse's own `TTL` would
//! say nothing of what it took away, and take the two tables' months at different moments.
//!
//! A row is as old as its record in Kafka. Only what is settled goes: nothing that Kafka took after
//! the time up to which the log is complete, so no row comes in where rows go.

mod plan;
mod scheduled;
mod tables;

use std::collections::BTreeMap;
use std::fmt;

use audit_schema::clickhouse::WATERMARKS;
use audit_schema::row::Millis;
use clap::Args;
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

use crate::batch::Table;
use crate::config::{Config, Retention};
use crate::dead_letters::time;
use crate::error::ReadError;
use crate::incarnation::SourceRow;
use crate::metrics;
use crate::month::Month;
use crate::store::Store;
use crate::topic::{Topic, TopicError};
use crate::writer::Writer;

use plan::{Going, Removal, Rule};
use tables::Tables;

pub(crate) use scheduled::watch;

/// How many projects are named of each month.
const NAMED: usize = 10;

/// How to take away what is old enough.
#[derive(Debug, Clone, Args)]
pub struct Wanted {
    /// Do it; without this the command only says what it would do.
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// What was taken away, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// Month by month.
    pub removals: Vec<Removal>,
    /// How many rows go in all.
    pub rows: u64,
    /// How many bytes they take, as far as that can be known before they are gone.
    pub bytes: u64,
    /// Whether it was done.
    pub done: bool,
    /// Why nothing goes, or not all that is old enough.
    pub held_back: Option<String>,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (go, went) = if self.done {
            ("removed", "in all")
        } else {
            ("would go", "in all; --yes does it")
        };
        for removal in &self.removals {
            let Removal { rows, bytes, .. } = removal;
            let how = if removal.whole {
                ", the whole month"
            } else {
                ""
            };
            let (table, month) = (removal.table.name(), removal.month);
            write!(f, "{table} {month}: {rows} rows ({bytes} bytes) {go}{how}")?;
            let named = removal.projects.iter().filter(|of| !of.project.is_empty());
            for (number, Going { project, rows, .. }) in named.clone().take(NAMED).enumerate() {
                write!(
                    f,
                    "{} {project} {rows}",
                    if number == 0 { ":" } else { "," }
                )?;
            }
            match named.count().saturating_sub(NAMED) {
                0 => writeln!(f)?,
                more => writeln!(f, " and {more} projects more; --json names all")?,
            }
        }
        if let Some(reason) = &self.held_back {
            writeln!(f, "{reason}")?;
        }
        if self.removals.is_empty() {
            write!(f, "nothing is old enough to go")
        } else {
            write!(f, "{} rows ({} bytes) {went}", self.rows, self.bytes)
        }
    }
}

/// Why not all was taken away that is old enough. What is written down stays so, and the rows that
/// are still there count as stored; the command can be run again.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The topic's registration cannot be read.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// No topic is registered.
    #[error("topic {0} is not registered: `audit-consumer migrate` does it")]
    Unregistered(String),
    /// ClickHouse's clock cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// ClickHouse did not do it.
    #[error("clickhouse did not do it; run it again: what is done stays done")]
    ClickHouse(#[from] clickhouse::error::Error),
    /// Something else changed the table meanwhile.
    #[error(
        "{table} of {month} was to lose {expected} rows, but has {found} now: something else \
         changes it, such as `refill`; run it again"
    )]
    Changed {
        /// The table.
        table: &'static str,
        /// The month.
        month: Month,
        /// How many rows there are.
        found: u64,
        /// How many were found before.
        expected: u64,
    },
    /// A delete did not take its rows away.
    #[error(
        "{left} rows of {table} of {month} are still there ({}); system.mutations says more; run it \
         again",
        if .reason.is_empty() {
            "the delete was taken back, or passed over parts of a restored backup that were not \
             attached anew"
        } else {
            reason
        }
    )]
    NotDeleted {
        /// The table.
        table: &'static str,
        /// The month.
        month: Month,
        /// How many rows are left.
        left: u64,
        /// What ClickHouse says.
        reason: String,
    },
}

/// Takes away what is old enough by the configuration, or says what it would take away.
pub async fn retention(config: &Config, wanted: &Wanted) -> Result<Removed, RetentionError> {
    let writer = Writer::new(&config.clickhouse, config.batch.in_flight);
    let client = writer.client().clone();
    run(config, &writer, client, wanted.yes).await
}

/// The same through `client`.
async fn run(
    config: &Config,
    writer: &Writer,
    client: Client,
    yes: bool,
) -> Result<Removed, RetentionError> {
    let mut removed = Removed {
        removals: Vec::new(),
        rows: 0,
        bytes: 0,
        done: false,
        held_back: None,
    };
    if config.retention.shortest().is_none() {
        let reason = "all is kept for ever: [retention] says nothing else";
        removed.held_back = Some(reason.to_owned());
        return Ok(removed);
    }
    let topic = Topic::new(config, client.clone());
    let registered = topic.registered().await?;
    let Some(registered) = registered else {
        return Err(RetentionError::Unregistered(topic.name().to_owned()));
    };
    // A clock that is ahead would take away what is not old yet, so two have to say so.
    let clock = writer.clock(registered.id(0)).await?;
    let now = clock.min(chrono::Utc::now().into());
    let complete_up_to = match complete_up_to(&registered, &client).await? {
        Ok(complete_up_to) => complete_up_to,
        Err(reason) => {
            removed.held_back = Some(reason);
            return Ok(removed);
        }
    };
    removed.held_back = held_back(&config.retention, now, complete_up_to);
    let tables = Tables::new(client, &config.clickhouse);
    let rules = [
        (
            Table::Events,
            plan::rules_of_events(&config.retention, now, complete_up_to),
        ),
        (
            Table::DeadLetters,
            plan::rules_of_dead_letters(&config.retention, now, complete_up_to),
        ),
    ];
    for (table, rules) in &rules {
        if yes {
            tables.sync(table.name()).await?;
        }
        let removals = planned(&tables, *table, rules, complete_up_to).await?;
        for (number, removal) in (1..).zip(&removals) {
            if yes {
                tracing::info!(
                    table = table.name(),
                    month = %removal.month,
                    rows = removal.rows,
                    number,
                    of = removals.len(),
                    "writing down what goes, and removing it"
                );
                tables.record(removal, rules, now).await?;
                tables.remove(removal, rules).await?;
                metrics::retention_removed(*table, removal.rows);
                tracing::warn!(
                    table = table.name(),
                    month = %removal.month,
                    rows = removal.rows,
                    whole = removal.whole,
                    "retention removed rows"
                );
            }
            removed.rows = removed.rows.saturating_add(removal.rows);
            removed.bytes = removed.bytes.saturating_add(removal.bytes);
        }
        removed.removals.extend(removals);
    }
    removed.done = yes;
    Ok(removed)
}

async fn planned(
    tables: &Tables,
    table: Table,
    rules: &[Rule],
    complete_up_to: Millis,
) -> Result<Vec<Removal>, RetentionError> {
    let mut going = Vec::new();
    for rule in rules {
        going.extend(tables.going(table, rule).await?);
    }
    if going.is_empty() {
        return Ok(Vec::new());
    }
    let held = tables.held(table).await?;
    Ok(plan::plan(table, &held, going, complete_up_to))
}

/// What is said if the log is not complete up to where all that is old enough ends.
fn held_back(config: &Retention, now: Millis, complete_up_to: Millis) -> Option<String> {
    let shortest = config.shortest()?;
    (now.earlier_by(shortest) > complete_up_to).then(|| {
        format!(
            "the log is complete up to {} only, so nothing goes that came later; is the consumer \
             running?",
            time(complete_up_to)
        )
    })
}

#[derive(Debug, Row, Deserialize)]
struct CompleteRow {
    partition: u32,
    complete: Millis,
}

/// The time before which every record is settled, of all partitions of the topic's present life; or
/// why there is none.
async fn complete_up_to(
    registered: &SourceRow,
    client: &Client,
) -> Result<Result<Millis, String>, RetentionError> {
    let sql = format!(
        "SELECT partition, max(complete_up_to) AS complete FROM {WATERMARKS} \
         WHERE incarnation = {} GROUP BY partition",
        registered.incarnation
    );
    let rows: Vec<CompleteRow> = client.query_raw(&sql).fetch_all().await?;
    let complete: BTreeMap<u32, Millis> = rows
        .into_iter()
        .filter(|row| row.complete > Millis::default())
        .map(|row| (row.partition, row.complete))
        .collect();
    let unknown = (0..registered.partitions).find(|partition| !complete.contains_key(partition));
    Ok(match (unknown, complete.values().min()) {
        (None, Some(complete)) => Ok(*complete),
        (unknown, _) => Err(format!(
            "nothing goes: it is not known up to when partition {} is complete; is the consumer \
             running?",
            unknown.unwrap_or(0)
        )),
    })
}
