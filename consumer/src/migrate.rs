//! Migrate: makes the tables, the topic and its registration, as far as they are not there.

use std::fmt;

use audit_schema::migrate::Step;
use chrono::SecondsFormat;
use clap::Args;
use serde::Serialize;

use crate::RunError;
use crate::config::Config;
use crate::error::is_refusal;
use crate::topic::{Topic, TopicError};
use crate::writer::Writer;

/// What to make.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command")]
pub struct Migrate {
    /// Only say what would be done and which steps were applied when.
    #[arg(long, conflicts_with_all = ["new_incarnation", "repeat"])]
    pub plan: bool,
    /// Apply the steps that were applied again, which changes nothing where they were: for a
    /// server that was added to the cluster.
    #[arg(long)]
    pub repeat: bool,
    /// Register another life of the topic: it was deleted and created anew on purpose, or was
    /// given more partitions. Stop all consumers of the group first. A topic whose records are
    /// stored is refused, because they would be stored a second time.
    #[arg(long)]
    pub new_incarnation: bool,
    /// Print one JSON document, with the statements of each step, instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// What there is, or would be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migrated {
    /// The database.
    pub database: String,
    /// The steps that make its tables; those without a time were not applied yet.
    pub steps: Vec<Step>,
    /// The topic.
    pub topic: String,
    /// How many partitions it has; `None` if it is not there.
    pub partitions: Option<u32>,
    /// Its registered life; `None` if there is none.
    pub incarnation: Option<u32>,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "database {}:", self.database)?;
        for step in &self.steps {
            let state = step.applied_at.map_or("to be applied".to_owned(), |at| {
                let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
                format!("applied at {at}")
            });
            writeln!(f, "{:>5}  {}: {state}", step.version, step.name)?;
        }
        let topic = &self.topic;
        match (self.partitions, self.incarnation) {
            (None, _) => write!(f, "topic {topic}: to be made and registered"),
            (Some(partitions), None) => {
                write!(
                    f,
                    "topic {topic}: {partitions} partitions, to be registered"
                )
            }
            (Some(partitions), Some(incarnation)) => {
                write!(
                    f,
                    "topic {topic}: {partitions} partitions, incarnation {incarnation}"
                )
            }
        }
    }
}

/// Makes the tables, the topic and its registration, or says what it would make.
pub async fn migrate(config: &Config, wanted: &Migrate) -> Result<Migrated, RunError> {
    let (address, options) = (config.clickhouse.address(), config.clickhouse.options());
    let writer = Writer::new(&config.clickhouse, config.batch.in_flight);
    let topic = Topic::new(config, writer.client().clone());
    if wanted.plan {
        let steps = audit_schema::migrate::plan(address, &options).await?;
        return Ok(planned(config, &topic, steps).await?);
    }
    let each = |step: &Step| {
        tracing::info!(
            version = step.version,
            name = step.name,
            database = config.clickhouse.database,
            "a step of the tables is applied"
        );
    };
    audit_schema::migrate::migrate(address, &options, wanted.repeat, each).await?;
    if config.clickhouse.access {
        audit_schema::access::apply(address, &options.engine).await?;
        tracing::info!("roles, policies and limits are made");
    }
    let created = topic.create().await?;
    let incarnation = topic.register(wanted.new_incarnation).await?;
    topic.check().await?;
    tracing::info!(
        topic = config.kafka.topic,
        created,
        incarnation,
        "topic is made"
    );
    let steps = audit_schema::migrate::plan(address, &options).await?;
    Ok(planned(config, &topic, steps).await?)
}

/// What there is of the topic beside the steps. One that has to be changed is an error, as it is
/// when it is migrated.
async fn planned(config: &Config, topic: &Topic, steps: Vec<Step>) -> Result<Migrated, TopicError> {
    let partitions = match topic.partitions().await {
        Ok(partitions) => Some(partitions),
        Err(TopicError::Unknown(_)) => None,
        Err(error) => return Err(error),
    };
    let incarnation = match topic.registered().await {
        Ok(registered) => registered.map(|life| life.incarnation),
        // The tables are not there yet.
        Err(TopicError::ClickHouse(error)) if is_refusal(&error) => None,
        Err(error) => return Err(error),
    };
    if partitions.is_some() && incarnation.is_some() {
        topic.check().await?;
    }
    Ok(Migrated {
        database: config.clickhouse.database.clone(),
        steps,
        topic: topic.name().to_owned(),
        partitions,
        incarnation,
    })
}
