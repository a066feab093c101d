//! A backup that is restored, and tables that are made again from Kafka alone, by the lines of the
//! runbook.

use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_schema::EventId;
use audit_tests::process::{program, root, wait_until};
use audit_tests::server::Server;
use audit_tests::world::{Key, PARTITIONS, World, event};
use rdkafka::message::OwnedHeaders;
use serde_json::Value;

use crate::deaths::own_engine;
use crate::erasure::erase;
use crate::recipes::{bash, blocks, printed};
use crate::retention::json;
use crate::ways_out::{expire, refused, send, stop};

const RUNBOOK: &str = include_str!("../../deploy/README.md");

/// An engine that may write backups, beside its data.
async fn engine_with_backups(world: &World) -> anyhow::Result<Server> {
    let folder = world.logs().join("backups");
    std::fs::create_dir_all(&folder)?;
    let place = world.logs().join("backups.xml");
    let allowed = folder.display();
    std::fs::write(
        &place,
        format!("<backups><allowed_path>{allowed}</allowed_path></backups>"),
    )?;
    let users = std::fs::read_to_string(root().join("deploy/local/engine/users.xml"))?;
    let users = users.replace("{cluster}", "<query>GRANT BACKUP ON *.*</query>");
    let who = world.logs().join("users.xml");
    std::fs::write(&who, users)?;
    let mut engine = Server::engine(world)?;
    for (name, file) in [("--cluster", &place), ("--users", &who)] {
        engine.arguments.push(name.to_owned());
        engine.arguments.push(file.display().to_string());
    }
    engine.run().await?;
    world.use_engine(&engine.url());
    Ok(engine)
}

/// Takes the engine and its data away, and puts an empty one in its place.
async fn lose(engine: &mut Server) -> anyhow::Result<()> {
    engine.kill().await?;
    std::fs::remove_dir_all(engine.data())?;
    engine.run().await
}

/// Runs blocks of the runbook to their end, and gives the lines they print.
async fn runbook(world: &World, block: &str, backup: &str) -> anyhow::Result<Vec<String>> {
    let consumer = program("audit-consumer")?;
    let programs = consumer.parent().context("its folder")?.display();
    let block = format!("PATH={programs}:$PATH\n{block}");
    let mut bash = bash(&block);
    bash.envs(world.settings())
        .env("CLICKHOUSE", world.clickhouse())
        .env("DATABASE", &world.database)
        .env("BACKUP", backup);
    tokio::task::spawn_blocking(move || printed(bash, &block)).await?
}

/// Waits until so many rows of the project `short` are old enough to go.
async fn old_enough(world: &World, rows: u64) -> anyhow::Result<()> {
    wait_until("rows to be old enough", async || {
        let planned = json(world, &["retention", "--json"])?;
        Ok((planned["rows"] == rows).then_some(()))
    })
    .await
}

/// Publishes 20 events that retention is to take away.
async fn publish_short(world: &World) -> anyhow::Result<()> {
    let short = (0..20).map(|number| event("short", &format!("user-{number}")));
    world.publish_all(short).await?;
    world.settled().await?;
    old_enough(world, 20).await
}

/// Erases a user, whose events stay, and adds the event of the erasure.
async fn erased(world: &Arc<World>, user: &str, ids: &mut Vec<EventId>) -> anyhow::Result<String> {
    let done = erase(world, user, &["--yes"]).await?;
    let id = done["erasure"].as_str().context("an id")?.to_owned();
    ids.push(id.parse()?);
    world.stored(ids.len()).await?;
    Ok(id)
}

/// How many events a user has.
async fn events_of(world: &World, user: &str) -> anyhow::Result<String> {
    let question = format!("SELECT count() FROM audit_events WHERE user_id = '{user}'");
    world.sql(&question).await
}

/// Goes on with a walk, and checks that it saw as many events as its first page promised.
async fn walks_on(world: &World, url: &str, key: &Key, mut page: Value) -> anyhow::Result<()> {
    let total = page["total"].clone();
    let mut seen = std::collections::BTreeSet::new();
    loop {
        for event in page["events"].as_array().context("events")? {
            let id = event["id"].as_str().context("an id")?;
            ensure!(seen.insert(id.to_owned()), "{id} twice");
        }
        ensure!(page["total"] == total, "{page}");
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        let next = format!("{url}/v1/audit-logs?limit=100&cursor={cursor}");
        page = world.get(&next, key).await?;
    }
    ensure!(total == seen.len(), "{total} promised, {} seen", seen.len());
    Ok(())
}

pub(crate) async fn a_restored_backup_holds_every_event_after_refill(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let blocks = blocks(RUNBOOK, "Backup and restore");
    let [(_, write), (_, restore), (_, check)] = blocks.as_slice() else {
        anyhow::bail!("the runbook has other blocks: {blocks:?}");
    };
    world.set("AUDIT_CONSUMER_RETENTION__PROJECTS__SHORT", "1s");
    let mut engine = engine_with_backups(&world).await?;
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish(300).await?;
    ids.extend(world.publish_of("alice", 10).await?);
    ids.extend(world.publish_of("bob", 10).await?);
    publish_short(&world).await?;
    world.run("audit-consumer", &["retention", "--yes"])?;
    let (shortly, erasure) =
        tokio::join!(publish_short(&world), erased(&world, "alice", &mut ids),);
    shortly?;
    erasure?;
    let key = world.key("acme", &["read"])?;
    let api = world.query_api().await?;
    let first = format!("{}/v1/audit-logs?limit=100", api.url);
    let first = world.get(&first, &key).await?;

    // While events flow, and retention takes rows away between its statements.
    let second = "sql \"BACKUP TABLE";
    let meanwhile = format!("audit-consumer retention --yes\n{second}");
    let meanwhile = write.replace(second, &meanwhile);
    ensure!(meanwhile != *write);
    let (published, written) = tokio::join!(world.publish(300), runbook(&world, &meanwhile, ""));
    ids.extend(published?);
    let backup = written?.pop().context("the name of the backup")?;
    // What the backup does not know of.
    ids.extend(world.publish(200).await?);
    world.stored(ids.len()).await?;
    let after = erased(&world, "bob", &mut ids).await?;
    world.settled().await?;

    stop(&world, &mut consumer).await?;
    lose(&mut engine).await?;
    ids.extend(world.publish(50).await?);
    runbook(&world, restore, &backup).await?;
    let _consumer = world.consumer().await?;
    world.settled().await?;
    // They are back, and known to be on their way out.
    old_enough(&world, 20).await?;
    let said = runbook(&world, check, &backup).await?;
    ensure!(said.iter().any(|line| line.starts_with(&after)), "{said:?}");
    ensure!(events_of(&world, "alice").await? == "0");
    ensure!(events_of(&world, "bob").await? == "10");
    erased(&world, "bob", &mut ids).await?;
    ensure!(events_of(&world, "bob").await? == "0");
    walks_on(&world, &api.url, &key, first).await?;
    world.ends_with(&ids).await
}

/// All there is, but for when it was sent.
async fn contents(world: &World) -> anyhow::Result<(String, String)> {
    let events = "SELECT count(), sum(cityHash64(*)) FROM \
                  (SELECT * EXCEPT ingested_at FROM audit_events)";
    let letters = "SELECT source_partition, source_offset, kind, record_value \
                   FROM audit_dead_letters ORDER BY ALL";
    Ok((world.sql(events).await?, world.sql(letters).await?))
}

async fn back_up(world: &World, moment: &str) -> anyhow::Result<()> {
    world.settled().await?;
    let database = &world.database;
    let statement = format!("BACKUP DATABASE {database} TO File('{moment}')");
    world.sql(&statement).await.map(drop)
}

/// Restores each of these tables as it was at a moment.
async fn restore_from(world: &World, tables: [(&str, &str); 3]) -> anyhow::Result<()> {
    let (database, http) = (&world.database, world.http());
    let except = tables.map(|(table, _)| format!("{database}.{table}"));
    let mut statements = vec![
        format!("DROP DATABASE {database} SYNC"),
        format!(
            "RESTORE DATABASE {database} EXCEPT TABLES {} FROM File('first')",
            except.join(", ")
        ),
    ];
    statements.extend(
        tables.map(|(table, from)| format!("RESTORE TABLE {database}.{table} FROM File('{from}')")),
    );
    for statement in statements {
        let answer = http.post(world.clickhouse()).body(statement).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{}", answer.text().await?);
    }
    Ok(())
}

pub(crate) async fn tables_backed_up_at_different_moments_are_made_whole(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let _engine = engine_with_backups(&world).await?;
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish_of("user-1", 20).await?;
    back_up(&world, "first").await?;
    // Sent twice: the second copy is told by the first, which only one backup has not.
    let twice = event("acme", "user-1");
    let producer = world.producer()?;
    ids.push(twice.id);
    producer.publish(&twice).await?;
    send(&world, b"not json", &OwnedHeaders::new())?;
    ids.extend(world.publish_of("user-1", 20).await?);
    back_up(&world, "second").await?;
    producer.publish_maybe_delivered(&twice).await?;
    ids.extend(world.publish_of("user-1", 20).await?);
    back_up(&world, "third").await?;
    producer.publish_maybe_delivered(&twice).await?;
    ids.extend(world.publish_of("user-1", 20).await?);
    world.settled().await?;
    let before = contents(&world).await?;
    ensure!(before.1.matches("duplicate").count() == 2, "{}", before.1);

    for [events, letters, watermarks] in [
        ["first", "second", "third"],
        ["second", "third", "first"],
        ["third", "first", "second"],
    ] {
        stop(&world, &mut consumer).await?;
        restore_from(
            &world,
            [
                ("audit_events", events),
                ("audit_dead_letters", letters),
                ("audit_watermarks", watermarks),
            ],
        )
        .await?;
        world.run("audit-consumer", &["refill", "--yes"])?;
        consumer = world.consumer().await?;
        world.settled().await?;
        let after = contents(&world).await?;
        ensure!(after == before, "{events}: {after:?}\n{before:?}");
        world.audit()?;
    }
    world.ends_with(&ids).await
}

pub(crate) async fn tables_that_are_lost_come_back_from_kafka(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let blocks = blocks(RUNBOOK, "Rebuilding from Kafka");
    let [(_, make), (_, check)] = blocks.as_slice() else {
        anyhow::bail!("the runbook has other blocks: {blocks:?}");
    };
    let mut engine = own_engine(&world).await?;
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    // All in partition 0, so that only one is refilled.
    let events = (0..100).map(|_| event("acme", "user-2"));
    let published = world.publish_all(events).await?;
    world.settled().await?;
    stop(&world, &mut consumer).await?;
    // Some are not in Kafka any more.
    expire(&world, 10).await?;
    let kept = published
        .into_iter()
        .filter(|(_, at)| at.partition == 0 && at.offset >= 10);
    let mut ids: Vec<EventId> = kept.map(|(id, _)| id).collect();
    ensure!(ids.len() == 90, "{} are left", ids.len());

    lose(&mut engine).await?;
    ids.extend(world.publish_of("user-2", 30).await?);
    runbook(&world, make, "").await?;
    let mut consumer = world.consumer().await?;
    world.settled().await?;
    world.holds_exactly(&ids).await?;
    let said = runbook(&world, check, "").await?;
    ensure!(said.len() == usize::try_from(PARTITIONS)?, "{said:?}");

    // A consumer that does not know of it goes on where it was.
    consumer.freeze()?;
    lose(&mut engine).await?;
    runbook(&world, make, "").await?;
    consumer.thaw()?;
    ids.extend(world.publish_of("user-2", 30).await?);
    world.stored(30).await?;
    world.settled().await?;
    let said = refused(&world, &["verify"])?;
    ensure!(said.contains("MISSING"), "{said}");
    stop(&world, &mut consumer).await?;
    world.run("audit-consumer", &["refill", "--yes"])?;
    let _consumer = world.consumer().await?;
    world.ends_with(&ids).await
}
