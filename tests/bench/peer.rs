//! The peer: ClickHouse's own Kafka engine, with a materialized view that fills a table like ours.
//!
//! The view derives every column that the consumer derives, in SQL, from the same records; its table
//! is a copy of ours, projections, indexes and constraint included. It is set up as well as we know
//! how: the records are parsed as rows, and the event data once, into a tuple. It promises each
//! record at least once.

use std::time::Duration;

use audit_schema::{EventType, SecurityVerdict};
use audit_tests::world::World;

use crate::events::MIX;

/// What the view needs to know of the event data. All of it is read in one pass.
const FACTS: &str = "userId String, userid String, acceptedById String, inviteeId String, \
    identifier String, userEmail String, memberEmail String, inviteeEmail String, \
    userName String, triggeredBy String, triggerContext String, organizationId String, \
    sessionId String, userAgent String";

/// The columns of a record.
const RECORD: &str = "id UUID, projectId String, createdAt Int64, eventType String, \
    eventKey String, eventDisplayName String, userId String, organizationId String, \
    identifier String, actor Tuple(id String, type String), outcome String, sessionId String, \
    requestId String, userAgent String, \
    location Tuple(ipAddress String, city String, country String, countryCode String), \
    eventData String";

/// A Kafka table, its view and the table that is filled, in a database of their own.
pub(crate) struct Peer {
    database: String,
}

impl Peer {
    /// Begins to read the topic of `world`, whose tables are there, into the database `database`, which
    /// must not be there. What it has read is written once so much time has passed.
    pub(crate) async fn start(
        world: &World,
        database: &str,
        flush: Duration,
    ) -> anyhow::Result<Self> {
        let (brokers, topic, ours) = (world.brokers(), &world.topic, &world.database);
        for statement in [
            format!("CREATE DATABASE {database}"),
            format!("CREATE TABLE {database}.audit_events AS {ours}.audit_events"),
            format!(
                "CREATE TABLE {database}.records ({RECORD}) ENGINE = Kafka SETTINGS \
                 kafka_broker_list = '{brokers}', kafka_topic_list = '{topic}', \
                 kafka_group_name = '{database}', kafka_format = 'JSONEachRow', \
                 kafka_num_consumers = 2, kafka_max_block_size = 65536, \
                 kafka_flush_interval_ms = {}",
                flush.as_millis()
            ),
            view(database),
        ] {
            world.sql(&statement).await?;
        }
        Ok(Self {
            database: database.to_owned(),
        })
    }

    /// The table it fills.
    pub(crate) fn table(&self) -> String {
        format!("{}.audit_events", self.database)
    }

    /// Takes all of it away. The view goes first, or the table would be written to while it goes.
    pub(crate) async fn end(self, world: &World) -> anyhow::Result<()> {
        let database = &self.database;
        for statement in [
            format!("DROP TABLE {database}.to_table SYNC"),
            format!("DROP TABLE {database}.records SYNC"),
            format!("DROP DATABASE {database} SYNC"),
        ] {
            world.sql(&statement).await?;
        }
        Ok(())
    }
}

/// The view, which says of every column where it comes from.
fn view(database: &str) -> String {
    let documented = |name: &str| {
        let kind = EventType::new(name).ok()?;
        let entry = kind.documented(SecurityVerdict::default())?;
        Some((format!("'{name}'"), format!("'{}'", entry.name)))
    };
    let (sent, documented): (Vec<_>, Vec<_>) =
        MIX.iter().filter_map(|(name, _)| documented(name)).unzip();
    let (sent, documented) = (sent.join(", "), documented.join(", "));
    // Of several spellings the first that is given counts.
    let first = |stated: &str, spellings: &[&str]| {
        let spellings: Vec<_> = spellings.iter().map(|s| format!("facts.{s}")).collect();
        format!(
            "if({stated} != '', {stated}, \
             arrayFirst(value -> value NOT IN ('', 'unknown'), [{}]))",
            spellings.join(", ")
        )
    };
    format!(
        "CREATE MATERIALIZED VIEW {database}.to_table TO {database}.audit_events AS WITH \
         JSONExtract(eventData, 'Tuple({FACTS})') AS facts SELECT \
         projectId AS project_id, id AS event_id, eventType AS event_type, \
         transform(eventType, [{sent}], [{documented}], '') AS documented_type, \
         eventKey AS event_key, eventDisplayName AS event_display_name, {} AS user_id, \
         {} AS organization_id, {} AS identifier, {} AS actor_id, {} AS actor_type, \
         multiIf(outcome != '', outcome, eventType = 'user_sign_in_failed', 'failure', 'success') \
         AS outcome, {} AS session_id, requestId AS request_id, \
         toIPv6OrDefault(location.ipAddress) AS ip_address, location.city AS city, \
         location.country AS country, location.countryCode AS country_code, {} AS user_agent, \
         eventData AS event_data, fromUnixTimestamp64Milli(createdAt, 'UTC') AS created_at, \
         assumeNotNull(_timestamp_ms) AS logged_at, nowInBlock64(3) AS ingested_at, \
         toUInt32(1) AS source_incarnation, toUInt32(_partition) AS source_partition, \
         toUInt64(_offset) AS source_offset FROM {database}.records",
        first("userId", &["userId", "userid", "acceptedById", "inviteeId"]),
        first("organizationId", &["organizationId"]),
        first(
            "identifier",
            &[
                "identifier",
                "userEmail",
                "memberEmail",
                "inviteeEmail",
                "userName"
            ]
        ),
        first("actor.id", &["triggeredBy"]),
        first("actor.type", &["triggerContext"]),
        first("sessionId", &["sessionId"]),
        first("userAgent", &["userAgent"]),
    )
}
