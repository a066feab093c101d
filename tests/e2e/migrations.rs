//! Changing the tables while they are used, whatever happens to who changes them.

use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_schema::clickhouse::{Address, Engine, connect};
use audit_schema::migrate::{Options, Step, migrate, plan};
use clickhouse::Client;
use futures_util::future::try_join_all;
use serde_json::Value;

use audit_tests::world::World;

use crate::reading::readable;

const FIRST_RELEASE: &str = include_str!("../../schema/tests/first_release.sql");

/// One server, as all worlds have it.
const OPTIONS: Options = Options {
    engine: Engine::SingleNode,
    fsync: false,
};

/// A database beside that of the world.
struct Database {
    name: String,
    url: String,
}

impl Database {
    fn new(world: &World, name: &str) -> Self {
        Self {
            name: format!("{}_{name}", world.database),
            url: world.clickhouse(),
        }
    }

    fn address(&self) -> Address<'_> {
        Address::open(&self.url, &self.name)
    }

    fn client(&self) -> Client {
        connect(self.address())
    }

    async fn migrate(&self) -> anyhow::Result<()> {
        Ok(migrate(self.address(), &OPTIONS, false, |_| ()).await?)
    }

    /// Every statement of a migration from nothing, in order. The first ones make the database.
    async fn statements(&self) -> anyhow::Result<Vec<String>> {
        let written_down = |step: &Step| {
            let (database, version) = (&self.name, step.version);
            format!("INSERT INTO `{database}`.audit_migrations (version) VALUES ({version})")
        };
        let steps = plan(self.address(), &OPTIONS).await?.into_iter();
        Ok(steps
            .flat_map(|step| [step.statements.clone(), vec![written_down(&step)]].concat())
            .collect())
    }

    /// How everything in it was made, and which steps were written down.
    async fn tables(&self) -> anyhow::Result<String> {
        let made: Vec<String> = self
            .client()
            .query_raw(
                "SELECT create_table_query FROM system.tables \
                 WHERE database = currentDatabase() ORDER BY name",
            )
            .fetch_all()
            .await?;
        let steps = plan(self.address(), &OPTIONS).await?;
        let open = steps.iter().filter(|step| step.applied_at.is_none());
        let open: Vec<&str> = open.map(|step| step.name.as_str()).collect();
        ensure!(open.is_empty(), "not written down: {open:?}");
        Ok(made.join("\n").replace(&self.name, "audit"))
    }
}

/// The tables as one migration makes them that nobody disturbs.
async fn made_at_once(world: &World) -> anyhow::Result<String> {
    let database = Database::new(world, "undisturbed");
    database.migrate().await?;
    let tables = database.tables().await?;
    ensure!(
        tables.contains("CREATE TABLE audit.audit_events"),
        "{tables}"
    );
    Ok(tables)
}

pub(crate) async fn tables_end_the_same_wherever_their_migration_died(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let wanted = made_at_once(&world).await?;
    let all = Database::new(&world, "x").statements().await?.len();
    ensure!(all > 10, "{all} statements");
    for done in 0..all {
        let database = Database::new(&world, &format!("died_{done}"));
        for statement in database.statements().await?.iter().take(done) {
            let server = connect(Address {
                database: "default",
                ..database.address()
            });
            // The database is there when the first statement has made it.
            let client = if statement.contains(&database.name) {
                server
            } else {
                database.client()
            };
            client.query_raw(statement).execute().await?;
        }
        database.migrate().await?;
        let tables = database.tables().await?;
        ensure!(
            tables == wanted,
            "after {done} statements:\n{tables}\n{wanted}"
        );
    }
    Ok(())
}

pub(crate) async fn migrations_at_the_same_time_do_no_harm(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let wanted = made_at_once(&world).await?;
    let database = Database::new(&world, "together");
    try_join_all((0..4).map(|_| database.migrate())).await?;
    let tables = database.tables().await?;
    ensure!(tables == wanted, "{tables}\n{wanted}");
    Ok(())
}

/// Rows as the first release wrote them: 300 offsets in 3 partitions, every tenth a dead letter.
const FIRST_ROWS: [&str; 4] = [
    "INSERT INTO audit_events (project_id, event_id, event_type, documented_type, event_key, \
     event_display_name, user_id, organization_id, identifier, actor_id, actor_type, outcome, \
     session_id, request_id, ip_address, city, country, country_code, user_agent, event_data, \
     created_at, logged_at, ingested_at, source_incarnation, source_partition, source_offset) \
     SELECT 'acme', generateUUIDv7(), 'user_signed_in', 'user_signed_in', user, 'somebody', user, \
     'o1', concat(user, '@example.com'), user, 'user', 'success', 's', 'r', \
     toIPv6('192.0.2.7'), 'Turin', 'Italy', 'IT', 'curl/8', '{\"loginMethod\":\"passkey\"}', \
     now64(3) - INTERVAL number MINUTE, now64(3), now64(3), 1, number % 3, intDiv(number, 3) \
     FROM (SELECT number, concat('user-', toString(number % 7)) AS user FROM numbers(300)) \
     WHERE number % 10 != 0",
    "INSERT INTO audit_dead_letters (source_incarnation, source_partition, source_offset, \
     source_offset_last, kind, reason, record_key, record_value, logged_at, ingested_at) \
     SELECT 1, number % 3, intDiv(number, 3), intDiv(number, 3), 'malformed', 'no JSON', 'key', \
     'value', now64(3), now64(3) FROM numbers(300) WHERE number % 10 = 0",
    "INSERT INTO audit_watermarks (incarnation, partition, next_offset, complete_up_to, updated_at) \
     SELECT 1, number, 100, now64(3), now64(3) FROM numbers(3)",
    "INSERT INTO audit_sources (topic, incarnation, partitions, begins, registered_at) \
     VALUES ('{topic}', 1, 3, [0, 0, 0], now64(3))",
];

/// How many rows of each table there are, and a sum of what the first release stored in them.
async fn contents(world: &World) -> anyhow::Result<String> {
    let mut contents = Vec::new();
    for rows in FIRST_ROWS {
        let (_, rest) = rows.split_once("INTO ").context("a table")?;
        let (table, rest) = rest.split_once(" (").context("columns")?;
        let (columns, _) = rest.split_once(')').context("columns")?;
        let sum = format!("SELECT count(), sum(cityHash64({columns})) FROM {table}");
        contents.push(format!("{table}: {}", world.sql(&sum).await?));
    }
    Ok(contents.join("\n"))
}

pub(crate) async fn the_first_release_is_migrated_with_its_data(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let database = Database {
        name: world.database.clone(),
        url: world.clickhouse(),
    };
    let server = connect(Address {
        database: "default",
        ..database.address()
    });
    let made = format!("CREATE DATABASE {}", database.name);
    server.query_raw(&made).execute().await?;
    let rows = FIRST_ROWS.map(|rows| rows.replace("{topic}", &world.topic));
    let statements = FIRST_RELEASE.split(";\n").map(str::trim);
    for statement in statements.filter(|statement| !statement.is_empty()) {
        world.sql(statement).await?;
    }
    for rows in &rows {
        world.sql(rows).await?;
    }
    let before = contents(&world).await?;
    ensure!(before.contains("audit_events: 270\t"), "{before}");

    // The whole program, which also makes the topic.
    world.migrate()?;
    let after = contents(&world).await?;
    ensure!(after == before, "{after}\n{before}");
    let wanted = made_at_once(&world).await?;
    let tables = database.tables().await?;
    ensure!(tables == wanted, "{tables}\n{wanted}");
    // What was added later can be read: columns with their defaults, and views.
    let all = "SELECT name FROM system.tables WHERE database = currentDatabase()";
    for table in world.sql(all).await?.lines() {
        world
            .sql(&format!("SELECT * FROM {table} FORMAT Null"))
            .await?;
    }

    let key = world.key("acme", &["read"])?;
    let api = world.query_api().await?;
    for question in [
        "userId=user-3&eventType=user_signed_in&outcome=success",
        "userId=user-3&q=passkey&ip=192.0.2.0/24&country=IT",
    ] {
        let url = format!("{}/v1/audit-logs?{question}&limit=100", api.url);
        let page = world.get(&url, &key).await?;
        let stored = "SELECT count() FROM audit_events WHERE user_id = 'user-3'";
        let stored: u64 = world.sql(stored).await?.parse()?;
        ensure!(page["total"] == stored && stored > 30, "{stored} {page}");
        let events = page["events"].as_array().context("events")?;
        ensure!(events.len() as u64 == stored);
    }
    // The records of these rows were never in Kafka, which an audit would see.
    world.broken_on_purpose();
    Ok(())
}

/// What a newer version may add: columns with a default, also one that is derived.
const NEWER: [&str; 6] = [
    "ALTER TABLE audit_events ADD COLUMN newer LowCardinality(String) DEFAULT concat('of ', user_id) AFTER user_id",
    "ALTER TABLE audit_events ADD COLUMN newest String MATERIALIZED upper(user_id) FIRST",
    "ALTER TABLE audit_dead_letters ADD COLUMN newer String DEFAULT 'new'",
    "ALTER TABLE audit_watermarks ADD COLUMN newer String DEFAULT 'new'",
    "ALTER TABLE audit_sources ADD COLUMN newer String DEFAULT 'new'",
    "INSERT INTO audit_migrations (version, name) VALUES (4000000000, 'ALTER TABLE audit_events')",
];

pub(crate) async fn a_program_older_than_the_tables_goes_on_but_does_not_migrate_them(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    // A successor of the same name is given the partitions at once.
    world.set("AUDIT_CONSUMER_KAFKA__INSTANCE", "the-one");
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish(100).await?;
    world.stored(100).await?;
    for statement in NEWER {
        world.sql(statement).await?;
    }
    let tables = "SELECT sum(cityHash64(create_table_query)) FROM system.tables WHERE database = currentDatabase()";
    let before = world.sql(tables).await?;
    for command in [
        &["migrate"][..],
        &["migrate", "--plan"],
        &["migrate", "--repeat"],
    ] {
        let refused = world.run("audit-consumer", command).unwrap_err();
        let refused = refused.to_string();
        let says = "the tables are at version 4000000000, this program knows";
        ensure!(refused.contains(says), "{refused}");
    }
    ensure!(world.sql(tables).await? == before);

    // The one that runs, and one that is started.
    ids.extend(world.publish(100).await?);
    world.stored(200).await?;
    consumer.kill()?;
    let _successor = world.consumer().await?;
    ids.extend(world.publish(100).await?);
    world.ends_with(&ids).await?;
    let without = "SELECT countIf(newer != concat('of ', user_id) OR newest != upper(user_id)) FROM audit_events";
    let without = world.sql(without).await?;
    ensure!(without == "0", "{without} rows have no default");

    let key = world.key("acme", &["read"])?;
    let api = world.query_api().await?;
    let last = ids.last().context("an event")?.to_string();
    readable(&world, &api.url, &key, &last).await?;
    let page = world
        .get(&format!("{}/v1/audit-logs?userId=user-7", api.url), &key)
        .await?;
    ensure!(page["total"] == 3, "{page}");
    Ok(())
}

pub(crate) async fn a_plan_changes_nothing_and_says_what_there_is(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let planned = || -> anyhow::Result<Value> {
        let json = ["migrate", "--plan", "--json"];
        Ok(serde_json::from_str(&world.run("audit-consumer", &json)?)?)
    };
    let applied = |plan: &Value| {
        let steps = plan["steps"].as_array().cloned().unwrap_or_default();
        let applied = steps.iter().filter(|step| step["appliedAt"].is_string());
        (steps.len(), applied.count())
    };
    let before = planned()?;
    let (steps, done) = applied(&before);
    ensure!(steps >= 5 && done == 0, "{before}");
    ensure!(
        before["partitions"].is_null() && before["incarnation"].is_null(),
        "{before}"
    );
    ensure!(before == planned()?);
    let lines = world.run("audit-consumer", &["migrate", "--plan"])?;
    ensure!(
        lines.contains("1  CREATE TABLE audit_events: to be applied"),
        "{lines}"
    );

    // It says at the end what a plan says, and each step as it is applied.
    let output = world
        .command("audit-consumer", &["migrate", "--json"])?
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    let told = said
        .lines()
        .filter(|line| line.contains("a step of the tables is applied"));
    ensure!(told.count() == steps, "{said}");
    let after = planned()?;
    ensure!(applied(&after) == (steps, steps), "{after}");
    ensure!(
        after["partitions"] == 3 && after["incarnation"] == 1,
        "{after}"
    );
    ensure!(after == serde_json::from_slice::<Value>(&output.stdout)?);
    Ok(())
}
