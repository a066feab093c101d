//! The ways out: what an operator does when something needs a person.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use audit_schema::Event;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::Signal;
use serde_json::{Value, json};

use audit_tests::process::{Process, wait_until};
use audit_tests::world::World;

/// Runs a command that has to be refused, and gives what it says.
pub(crate) fn refused(world: &World, arguments: &[&str]) -> anyhow::Result<String> {
    match world.run("audit-consumer", arguments) {
        Ok(printed) => anyhow::bail!("{arguments:?} was not refused: {printed}"),
        Err(error) => Ok(error.to_string()),
    }
}

fn documents(printed: &str) -> anyhow::Result<Vec<Value>> {
    let lines = printed.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

/// Where the log of partition 0 begins and ends.
fn bounds(world: &World) -> anyhow::Result<(i64, i64)> {
    let tool: BaseConsumer = world.kafka().create()?;
    Ok(tool.fetch_watermarks(&world.topic, 0, Duration::from_secs(10))?)
}

/// How many members the group has.
fn members(world: &World) -> anyhow::Result<usize> {
    let tool: BaseConsumer = world.kafka().create()?;
    let groups = tool.fetch_group_list(Some(&world.topic), Duration::from_secs(10))?;
    Ok(groups
        .groups()
        .iter()
        .map(|group| group.members().len())
        .sum())
}

/// Stops a consumer, and waits until the group knows.
pub(crate) async fn stop(world: &World, consumer: &mut Process) -> anyhow::Result<()> {
    ensure!(consumer.stop(Signal::TERM).await?);
    wait_until("the group to be empty", async || {
        Ok((members(world)? == 0).then_some(()))
    })
    .await
}

/// Makes the records of partition 0 below `offset` expire.
pub(crate) async fn expire(world: &World, offset: i64) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.topic, 0, Offset::Offset(offset))?;
    admin.delete_records(&list, &AdminOptions::new()).await?;
    Ok(())
}

pub(crate) async fn lost_records_are_skipped_on_purpose_and_written_down(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let stored = world.publish(60).await?;
    world.holds_exactly(&stored).await?;
    let skip = |to: &str, more: &[&str]| {
        let arguments = [
            "skip",
            "--partition",
            "0",
            "--to",
            to,
            "--reason",
            "a test; Ana",
        ];
        arguments
            .iter()
            .chain(more)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let run = |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        world.run("audit-consumer", &arguments)
    };
    let refused = |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&world, &arguments)
    };
    // What Kafka still has is not given up.
    stop(&world, &mut consumer).await?;
    let (_, away_from) = bounds(&world)?;
    world.publish(60).await?;
    let (_, gone_below) = bounds(&world)?;
    let to = gone_below.to_string();
    let said = refused(&skip(&to, &["--yes"]))?;
    ensure!(
        said.contains("kafka still has records from offset 0 on"),
        "{said}"
    );
    let said = refused(&skip("1000000", &["--yes"]))?;
    ensure!(said.contains("the log ends at offset"), "{said}");

    expire(&world, gone_below).await?;
    let late = world.publish(60).await?;
    let mut stopped = world.consumer().await?;
    let names_it = format!("`audit-consumer skip --to {gone_below}`");
    stopped
        .says("the way out", |line| line.contains(&names_it).then_some(()))
        .await?;
    let said = refused(&skip(&to, &["--yes"]))?;
    ensure!(said.contains("is in use by audit-consumer"), "{said}");
    stop(&world, &mut stopped).await?;

    // What would be done, what is done, and that it is done once.
    let printed = run(&skip(&to, &["--json"]))?;
    let planned: Value = serde_json::from_str(&printed)?;
    ensure!(planned["recorded"] == false, "{planned}");
    ensure!(
        planned["ranges"] == json!([[away_from, gone_below - 1]]),
        "{planned}"
    );
    let letters = "SELECT source_offset, source_offset_last, kind, reason FROM audit_dead_letters";
    ensure!(
        world.sql(letters).await?.is_empty(),
        "a dry run writes nothing"
    );
    let printed = run(&skip(&to, &["--yes", "--json"]))?;
    let done: Value = serde_json::from_str(&printed)?;
    ensure!(
        done["recorded"] == true && done["ranges"] == planned["ranges"],
        "{done}"
    );
    let again = run(&skip(&to, &["--yes"]))?;
    ensure!(again.contains("nothing to skip"), "{again}");
    let written = world.sql(letters).await?;
    let expected = format!("{away_from}\t{}\tskipped\ta test; Ana", gone_below - 1);
    ensure!(written == expected, "{written}");

    // The partition goes on behind it by itself, and every offset is in one table.
    let mut consumer = world.consumer().await?;
    let goes_on = async |from: i64| {
        let (_, end) = bounds(&world)?;
        let events = "SELECT count() FROM audit_events WHERE source_partition = 0";
        let question = format!("{events} AND source_offset >= {from}");
        answers(&world, &question, &(end - from).to_string()).await
    };
    goes_on(gone_below).await?;
    world.stored(stored.len() + late.len()).await?;
    world.run("audit-consumer", &["verify"])?;
    stop(&world, &mut consumer).await?;

    // Records that Kafka says it has, when that is asked for.
    world.publish(30).await?;
    let (_, given_up_below) = bounds(&world)?;
    let more = ["--even-if-kafka-has-them", "--yes"];
    run(&skip(&given_up_below.to_string(), &more))?;
    let _consumer = world.consumer().await?;
    world.publish(30).await?;
    goes_on(given_up_below).await
}

pub(crate) async fn rows_taken_away_are_put_back_once(world: Arc<World>) -> anyhow::Result<()> {
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish(300).await?;
    send(&world, b"not json", &OwnedHeaders::new())?;
    // Sent twice: the second copy is a dead letter, also when it is read again.
    let event = audit_tests::world::event("acme", "user-1");
    let producer = world.producer()?;
    ids.push(event.id);
    producer.publish(&event).await?;
    producer.publish_maybe_delivered(&event).await?;
    ids.extend(world.publish(30).await?);
    world.holds_exactly(&ids).await?;
    let everything = "SELECT count(), sum(cityHash64(*)) \
                      FROM (SELECT * EXCEPT ingested_at FROM audit_events)";
    let letters = "SELECT source_partition, source_offset, kind, record_value \
                   FROM audit_dead_letters ORDER BY ALL";
    let settled = "SELECT sum(next) FROM (SELECT max(next_offset) AS next FROM audit_watermarks \
                   GROUP BY partition)";
    let records = (ids.len() + 2).to_string();
    wait_until("every record to be settled", async || {
        Ok((world.sql(settled).await? == records).then_some(()))
    })
    .await?;
    let before = (world.sql(everything).await?, world.sql(letters).await?);
    let of_both = format!(
        "SELECT source_partition FROM audit_events WHERE event_id = '{}'",
        event.id
    );
    let partition = world.sql(&of_both).await?;
    let refill = async |more: &[&str]| {
        let (world, partition) = (Arc::clone(&world), partition.clone());
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let run = move || {
            let mut arguments = vec!["refill", "--partition", &partition, "--from", "0", "--json"];
            arguments.extend(more.iter().map(String::as_str));
            world.run("audit-consumer", &arguments)
        };
        let printed = tokio::task::spawn_blocking(run).await??;
        anyhow::Ok(serde_json::from_str::<Value>(&printed)?)
    };
    let nothing = refill(&["--yes"]).await?;
    ensure!(
        nothing["missing"] == 0 && nothing["done"] == false,
        "{nothing}"
    );

    // A run, single rows, rows at the beginning, and the dead letters.
    for rows in [
        "audit_events DELETE WHERE source_offset BETWEEN 5 AND 25",
        "audit_events DELETE WHERE (source_offset < 2 OR source_offset % 7 = 3)",
        "audit_dead_letters DELETE WHERE source_offset > 0",
    ] {
        let settings = "SETTINGS mutations_sync = 1";
        let delete = format!("ALTER TABLE {rows} AND source_partition = {partition} {settings}");
        world.sql(&delete).await?;
    }
    let found = refused(&world, &["verify"])?;
    ensure!(found.contains("MISSING"), "{found}");
    let said = refill(&["--yes"]).await.unwrap_err().to_string();
    ensure!(said.contains("is in use by audit-consumer"), "{said}");
    stop(&world, &mut consumer).await?;
    let planned = refill(&[]).await.unwrap_err().to_string();
    ensure!(planned.contains("\"done\": false"), "{planned}");

    // A consumer that joins meanwhile takes the partition over, or gets others: both go on.
    let meanwhile = async {
        wait_until("the command to be in the group", async || {
            Ok((members(&world)? == 1).then_some(()))
        })
        .await?;
        world.consumer().await
    };
    let (overtaken, consumer) = tokio::join!(refill(&["--yes"]), meanwhile);
    let mut consumer = consumer?;
    if let Err(refused) = overtaken {
        let said = refused.to_string();
        ensure!(said.contains("took the partition over"), "{said}");
    }
    stop(&world, &mut consumer).await?;

    let done = refill(&["--yes"]).await?;
    ensure!(
        done["stored"] == done["missing"] && done["gone"] == 0,
        "{done}"
    );
    let nothing = refill(&["--yes"]).await?;
    ensure!(nothing["missing"] == 0, "{nothing}");
    let after = (world.sql(everything).await?, world.sql(letters).await?);
    ensure!(before == after, "{before:?}\n{after:?}");
    let kinds = ["malformed\tnot json", "duplicate\t"];
    ensure!(
        kinds.iter().all(|kind| after.1.contains(kind)),
        "{}",
        after.1
    );

    // The consumer goes on where it was.
    let _consumer = world.consumer().await?;
    ids.extend(world.publish(30).await?);
    world.holds_exactly(&ids).await
}

pub(crate) async fn a_replayed_dead_letter_is_one_row_however_often(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let event = audit_tests::world::event("acme", "user-1");
    send_unreadable(&world, &event)?;
    let count = async |question: &str, wanted: &str| answers(&world, question, wanted).await;
    count("SELECT count() FROM audit_dead_letters", "3").await?;

    let listed = world.run(
        "audit-consumer",
        &[
            "dead-letters",
            "list",
            "--json",
            "--bytes",
            "--kind",
            "malformed",
        ],
    )?;
    let mut letters = documents(&listed)?;
    ensure!(letters.len() == 2, "{listed}");
    // As they are they still cannot be read.
    let said = refused(&world, &["dead-letters", "replay", "--yes"])?;
    ensure!(said.matches("not replayed").count() == 3, "{said}");

    for (number, letter) in letters.iter_mut().enumerate() {
        letter["value"] = json!({
            "projectId": "acme", "eventType": "user_signed_in", "eventKey": format!("key-{number}"),
        });
    }
    let lines: Vec<String> = letters.iter().map(ToString::to_string).collect();
    let file = world.logs().join("repaired.ndjson");
    std::fs::write(&file, lines.join("\n"))?;
    let file = file.display().to_string();
    let replay = ["dead-letters", "replay", "--repaired", &file, "--json"];
    let replayed = |more: &[&str]| {
        let arguments: Vec<&str> = replay.iter().chain(more).copied().collect();
        documents(&world.run("audit-consumer", &arguments)?)
    };
    let outcomes = |replayed: &[Value]| -> Vec<String> {
        let outcome = |one: &Value| one["outcome"].as_str().unwrap_or_default().to_owned();
        replayed.iter().map(outcome).collect()
    };
    let planned = replayed(&[])?;
    ensure!(
        outcomes(&planned) == ["wouldPublish", "wouldPublish"],
        "{planned:?}"
    );
    count("SELECT count() FROM audit_events", "0").await?;

    // Twice, before the first is stored or after: one row each.
    let first = replayed(&["--yes"])?;
    ensure!(outcomes(&first) == ["published", "published"], "{first:?}");
    let own = event.id.to_string();
    ensure!(first[1]["eventId"] == own.as_str(), "{first:?}");
    let second = replayed(&["--yes"])?;
    count("SELECT count() FROM audit_events", "2").await?;
    let third = replayed(&["--yes"])?;
    ensure!(
        outcomes(&third) == ["storedAlready", "storedAlready"],
        "{third:?}"
    );
    let published = second
        .iter()
        .filter(|one| one["outcome"] == "published")
        .count();
    let letters = (3 + published).to_string();
    count("SELECT count() FROM audit_dead_letters", &letters).await?;
    let rows = "SELECT event_id, event_key, toUnixTimestamp64Milli(created_at) FROM audit_events \
                ORDER BY event_key";
    let rows = world.sql(rows).await?;
    let expected = [
        format!(
            "{}\tkey-0\t",
            first[0]["eventId"].as_str().unwrap_or_default()
        ),
        format!("{own}\tkey-1\t{}", event.created_at.timestamp_millis()),
    ];
    ensure!(
        rows.lines()
            .zip(&expected)
            .all(|(row, start)| row.starts_with(start)),
        "{rows}"
    );

    // And once more as the client repeats it: that is the event it was told of.
    world.producer()?.publish_maybe_delivered(&event).await?;
    let repeated = (4 + published).to_string();
    count("SELECT count() FROM audit_dead_letters", &repeated).await?;
    count("SELECT count() FROM audit_events", "2").await
}

/// Waits until a question is answered so.
async fn answers(world: &World, question: &str, wanted: &str) -> anyhow::Result<()> {
    wait_until(&format!("{question} = {wanted}"), async || {
        Ok((world.sql(question).await? == wanted).then_some(()))
    })
    .await
}

/// Three records that are no event: one of which nothing can be read, one with the id of `event`,
/// and `event` in a version that is not known.
fn send_unreadable(world: &World, event: &Event<'_>) -> anyhow::Result<()> {
    let sound = serde_json::to_value(event)?;
    let mut nameless = sound.clone();
    nameless
        .as_object_mut()
        .context("an object")?
        .remove("eventType");
    send(world, b"{\"eventType\":", &OwnedHeaders::new())?;
    send(world, nameless.to_string().as_bytes(), &OwnedHeaders::new())?;
    let next = OwnedHeaders::new().insert(Header {
        key: "audit-version",
        value: Some("2"),
    });
    send(world, sound.to_string().as_bytes(), &next)?;
    Ok(())
}

/// Puts a record into the topic, with the key that the events of `user-1` have.
pub(crate) fn send(world: &World, value: &[u8], headers: &OwnedHeaders) -> anyhow::Result<()> {
    let producer: BaseProducer = world.kafka().set("partitioner", "murmur2").create()?;
    let record = BaseRecord::<[u8], [u8]>::to(&world.topic)
        .key(b"acme/user-1".as_slice())
        .payload(value)
        .headers(headers.clone());
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(Duration::from_secs(20))?;
    Ok(())
}

pub(crate) async fn an_unchanged_topic_begins_no_new_life(world: Arc<World>) -> anyhow::Result<()> {
    world.migrate()?;
    let begin = ["migrate", "--new-incarnation"];
    let lives = "SELECT count() FROM audit_sources FINAL";
    // Nothing is stored of the first life: it is the new one already.
    world.run("audit-consumer", &begin)?;
    ensure!(world.sql(lives).await? == "1");
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish(100).await?;
    world.holds_exactly(&ids).await?;
    let said = refused(&world, &begin)?;
    ensure!(
        said.contains("the group is in use by audit-consumer"),
        "{said}"
    );
    stop(&world, &mut consumer).await?;
    let said = refused(&world, &begin)?;
    ensure!(
        said.contains("is the one whose records are stored"),
        "{said}"
    );
    ensure!(world.sql(lives).await? == "1");

    // With more partitions it does, and goes on where it was: nothing is stored twice.
    ids.extend(world.publish(50).await?);
    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    let more = NewPartitions::new(&world.topic, 5);
    for made in admin
        .create_partitions([&more], &AdminOptions::new())
        .await?
    {
        made.map_err(|(_, code)| anyhow::anyhow!("not made: {code}"))?;
    }
    wait_until("five partitions", async || {
        let tool: BaseConsumer = world.kafka().create()?;
        let known = tool.fetch_metadata(Some(&world.topic), Duration::from_secs(10))?;
        let partitions = known.topics().iter().map(|topic| topic.partitions().len());
        Ok((partitions.sum::<usize>() == 5).then_some(()))
    })
    .await?;
    let said = refused(&world, &["run"])?;
    ensure!(
        said.contains("`audit-consumer migrate --new-incarnation`"),
        "{said}"
    );
    world.run("audit-consumer", &begin)?;
    ensure!(world.sql(lives).await? == "2");
    // What lies before it is stored, though none of its own rows are.
    let fill = ["refill", "--partition", "0", "--from", "0", "--yes"];
    let nothing = world.run("audit-consumer", &fill)?;
    ensure!(nothing.contains("nothing to fill"), "{nothing}");
    let _consumer = world.consumer().await?;
    ids.extend(world.publish(100).await?);
    world.holds_exactly(&ids).await
}
