//! Retention: what is old goes, and nobody takes it for lost.

use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_tests::fault_proxy::{Fault, FaultProxy, Mode};
use audit_tests::process::wait_until;
use audit_tests::world::{PARTITIONS, World, event};
use rdkafka::message::OwnedHeaders;
use serde_json::Value;

use crate::ways_out::{refused, send, stop};

/// Makes rows of a table look as if Kafka had taken them so many days ago.
async fn age(world: &World, table: &str, days: u32, rows: &str) -> anyhow::Result<()> {
    let moved = format!(
        "INSERT INTO {table} SELECT * REPLACE (logged_at - INTERVAL {days} DAY AS logged_at, \
         now64(3) AS ingested_at) FROM {table} WHERE {rows}"
    );
    let fresh = "logged_at > now() - INTERVAL 1 DAY SETTINGS mutations_sync = 1";
    let left = format!("ALTER TABLE {table} DELETE WHERE {rows} AND {fresh}");
    world.sql(&moved).await?;
    world.sql(&left).await.map(drop)
}

pub(crate) fn json(world: &World, arguments: &[&str]) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(
        &world.run("audit-consumer", arguments)?,
    )?)
}

/// How many offsets retention took away, as `verify` says; it has to hold.
fn verified(world: &World) -> anyhow::Result<u64> {
    let verdicts = json(world, &["verify", "--json"])?;
    let verdicts = verdicts.as_array().context("verdicts")?;
    let removed = verdicts.iter().map(|verdict| verdict["removed"].as_u64());
    removed.sum::<Option<u64>>().context("removed")
}

/// The rows that stay.
const TO_STAY: &str = "SELECT count() FROM audit_events WHERE project_id = 'legal' OR logged_at > \
                       now() - INTERVAL if(project_id = 'short', 20, 60) DAY";

/// How many rows are written down, each once: what was cut off is there again with what was left.
const RECORDED: &str = "SELECT sum(most) FROM (SELECT max(rows) AS most FROM audit_retention_runs \
                        GROUP BY table_name, project_id, month)";

/// 300 events of three projects and a dead letter, as if Kafka had taken some of them long ago: 200
/// days, a whole month to go; 100 days, one with a project that keeps its own; and 40 days, one of
/// which only a project that keeps less goes.
async fn fill(world: &World) -> anyhow::Result<()> {
    let mut consumer = world.consumer().await?;
    // First: the last record of a partition is compared with Kafka's.
    send(world, b"not json", &OwnedHeaders::new())?;
    let events = (0..300).map(|number| {
        let project = ["acme", "short", "legal"][number % 3];
        event(project, &format!("user-{}", number % 30))
    });
    world.publish_all(events).await?;
    world.settled().await?;
    let incomplete = format!(
        "SELECT {PARTITIONS} - count() FROM (SELECT partition FROM audit_watermarks \
         GROUP BY partition HAVING max(complete_up_to) > toDateTime64(0, 3))"
    );
    wait_until("every partition to be complete up to a time", async || {
        Ok((world.sql(&incomplete).await? == "0").then_some(()))
    })
    .await?;
    stop(world, &mut consumer).await?;
    for (days, rows) in [
        (200, "source_offset < 10 AND project_id != 'legal'"),
        (100, "source_offset BETWEEN 10 AND 19"),
        (40, "source_offset BETWEEN 20 AND 29"),
    ] {
        age(world, "audit_events", days, rows).await?;
    }
    age(world, "audit_dead_letters", 100, "true").await
}

/// What a dry run says.
async fn planned(world: &World, goes: u64) -> anyhow::Result<()> {
    let contents = async || {
        let events = "SELECT project_id, event_id, logged_at FROM audit_events ORDER BY ALL";
        let letters = "SELECT source_offset, logged_at FROM audit_dead_letters ORDER BY ALL";
        anyhow::Ok((world.sql(events).await?, world.sql(letters).await?))
    };
    let before = contents().await?;
    let planned = json(world, &["retention", "--json"])?;
    ensure!(
        planned["done"] == false && planned["rows"] == goes,
        "{planned}"
    );
    let how: Vec<_> = planned["removals"]
        .as_array()
        .context("removals")?
        .iter()
        .map(|removal| {
            let projects = removal["projects"].as_array().map_or(0, Vec::len);
            (
                removal["table"].as_str(),
                removal["whole"].as_bool(),
                projects,
            )
        })
        .collect();
    let expected = [
        (Some("audit_events"), Some(true), 2),
        (Some("audit_events"), Some(false), 2),
        (Some("audit_events"), Some(false), 1),
        (Some("audit_dead_letters"), Some(true), 1),
    ];
    ensure!(how == expected, "{planned}");
    ensure!(contents().await? == before, "a dry run changes nothing");
    Ok(())
}

/// Ends retention twice between writing down what goes and taking it away: before the first month is
/// dropped, and before the first rows are deleted. Gives how many rows went.
async fn cut_off(world: &World) -> anyhow::Result<u64> {
    let engine = world.clickhouse();
    let proxy = FaultProxy::start(&engine)?;
    world.use_engine(&proxy.url());
    let mut gone = Vec::new();
    for removes in ["max_partition_size_to_drop", "mutations_sync"] {
        proxy.set(Fault::of(Mode::Answer500).on(move |request| request.target.contains(removes)));
        let said = refused(world, &["retention", "--yes"])?;
        ensure!(said.contains("run it again"), "{said}");
        gone.push(verified(world)?);
    }
    world.use_engine(&engine);
    let recorded: u64 = world.sql(RECORDED).await?.parse()?;
    ensure!(gone[0] == 0 && gone[1] > 0, "{gone:?}");
    ensure!(
        recorded > gone[1],
        "{recorded} are written down, {gone:?} are gone"
    );
    Ok(gone[1])
}

pub(crate) async fn what_is_old_goes_and_verify_tells_it_from_what_is_lost(
    world: Arc<World>,
) -> anyhow::Result<()> {
    for (name, value) in [
        ("KEEP", "60d"),
        ("DEAD_LETTERS", "60d"),
        ("PROJECTS__SHORT", "20d"),
        ("PROJECTS__LEGAL", "forever"),
    ] {
        world.set(&format!("AUDIT_CONSUMER_RETENTION__{name}"), value);
    }
    world.migrate()?;
    fill(&world).await?;
    let stays = world.sql(TO_STAY).await?;
    let goes = 301 - stays.parse::<u64>()?;
    planned(&world, goes).await?;

    // What is written down and still there counts as stored, and goes with the next run.
    let gone = cut_off(&world).await?;
    let done = json(&world, &["retention", "--yes", "--json"])?;
    ensure!(
        done["done"] == true && done["rows"] == goes - gone,
        "{done}"
    );
    ensure!(verified(&world)? == goes);
    ensure!(world.sql("SELECT count() FROM audit_events").await? == stays);
    ensure!(world.sql(TO_STAY).await? == stays);
    let said = world.run("audit-consumer", &["retention", "--yes"])?;
    ensure!(said.contains("nothing is old enough"), "{said}");
    ensure!(world.sql(RECORDED).await? == goes.to_string());
    let said = world.run("audit-consumer", &["verify"])?;
    ensure!(said.contains("removed by retention"), "{said}");

    // A row beside them that is lost is missing, and that one alone is put back.
    let lost = "ALTER TABLE audit_events DELETE WHERE source_partition = 1 AND source_offset = \
                (SELECT min(source_offset) FROM audit_events WHERE source_partition = 1) \
                SETTINGS mutations_sync = 1";
    world.sql(lost).await?;
    let said = refused(&world, &["verify"])?;
    ensure!(said.contains("1 MISSING"), "{said}");
    for partition in 0..PARTITIONS {
        let partition = partition.to_string();
        let filled = json(
            &world,
            &[
                "refill",
                "--partition",
                &partition,
                "--from",
                "0",
                "--yes",
                "--json",
            ],
        )?;
        ensure!(filled["stored"] == u64::from(partition == "1"), "{filled}");
    }
    ensure!(verified(&world)? == goes);

    let _consumer = world.consumer().await?;
    world.publish(30).await?;
    world.settled().await?;
    ensure!(verified(&world)? == goes);
    Ok(())
}

pub(crate) async fn a_partition_whose_rows_are_all_gone_goes_on_and_is_not_stored_again(
    world: Arc<World>,
) -> anyhow::Result<()> {
    // The running consumer does it by itself.
    world.set("AUDIT_CONSUMER_RETENTION__PROJECTS__ACME", "1s");
    world.set("AUDIT_CONSUMER_RETENTION__RUN_EVERY", "200ms");
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let all_gone = async || {
        wait_until("every event to be removed", async || {
            let left = world.sql("SELECT count() FROM audit_events").await?;
            Ok((left == "0").then_some(()))
        })
        .await
    };
    world.publish(60).await?;
    world.settled().await?;
    all_gone().await?;
    ensure!(verified(&world)? == 60);
    stop(&world, &mut consumer).await?;
    // What was written down of the rows tells that the topic is the same.
    let said = refused(&world, &["migrate", "--new-incarnation"])?;
    ensure!(
        said.contains("is the one whose records are stored"),
        "{said}"
    );

    let mut consumer = world.consumer().await?;
    world.publish(30).await?;
    world.settled().await?;
    all_gone().await?;
    stop(&world, &mut consumer).await?;
    ensure!(verified(&world)? == 90);
    Ok(())
}
