//! The consumer's promise under real deaths: every acknowledged event is there once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::Signal;

use audit_tests::process::{address, ready, wait_until};
use audit_tests::stack::engine;
use audit_tests::world::World;

use crate::deaths::SHORT_SESSION;

pub(crate) async fn a_consumer_killed_again_and_again_loses_and_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.set("AUDIT_CONSUMER_KAFKA__SESSION_TIMEOUT", SHORT_SESSION);
    world.migrate()?;
    let mut ids = world.publish(2000).await?;
    for round in 1..=3_usize {
        let mut consumer = world.consumer().await?;
        // Killed in the middle of its work: what it writes is still coming.
        ids.extend(world.publish(2000).await?);
        world.stored(round * 1500).await?;
        consumer.kill()?;
        ids.extend(world.publish(500).await?);
    }
    let _last = world.consumer().await?;
    world.holds_exactly(&ids).await
}

pub(crate) async fn a_backlog_of_many_batches_is_drained(world: Arc<World>) -> anyhow::Result<()> {
    world.migrate()?;
    // Batches that fill up at once: their partition is paused and read on again and again.
    world.set("AUDIT_CONSUMER_BATCH__MAX_ROWS", "20");
    let ids = world.publish(10_000).await?;
    let _consumer = world.consumer().await?;
    world.holds_exactly(&ids).await?;
    let batches = "SELECT uniqExact(source_partition, ingested_at) FROM audit_events";
    let batches: usize = world.sql(batches).await?.parse()?;
    ensure!(batches >= 10_000 / 40, "{batches} inserts");
    Ok(())
}

pub(crate) async fn a_killed_engine_loses_and_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let mut running = engine(world.logs(), data.path(), "127.0.0.1:0")?;
    let url = running.says("the engine", ready).await?;
    world.use_engine(&url);
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let address = url.strip_prefix("http://").context("a URL")?.to_owned();
    let mut ids = Vec::new();
    for round in 1..=3_usize {
        ids.extend(world.publish(3000).await?);
        world.stored(round * 1000).await?;
        running.kill()?;
        // Published while there is no engine.
        ids.extend(world.publish(500).await?);
        // Nothing else takes the port on loopback meanwhile; the new one has it again.
        running = engine(world.logs(), data.path(), &address)?;
    }
    world.ends_with(&ids).await
}

pub(crate) async fn members_that_come_and_go_lose_and_double_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let mut staying = world.consumer().await?;
    let mut ids = world.publish(1000).await?;
    for _ in 0..2 {
        let coming = world.consumer().await?;
        let joined = |line: &str| line.contains("partition starts").then_some(());
        ids.extend(world.publish(1000).await?);
        coming.says("a partition of its own", joined).await?;
        ids.extend(world.publish(1000).await?);
        ensure!(
            staying.stop(Signal::TERM).await?,
            "a consumer that is asked to stop ends well"
        );
        ids.extend(world.publish(1000).await?);
        staying = coming;
    }
    world.holds_exactly(&ids).await
}

pub(crate) async fn offsets_moved_by_hand_change_nothing(world: Arc<World>) -> anyhow::Result<()> {
    world.migrate()?;
    let mut ids = Vec::new();
    for offset in [Offset::Beginning, Offset::End] {
        let mut consumer = world.consumer().await?;
        ids.extend(world.publish(500).await?);
        world.stored(ids.len()).await?;
        ensure!(consumer.stop(Signal::TERM).await?);
        ids.extend(world.publish(500).await?);
        commit(&world, offset)?;
    }
    let _consumer = world.consumer().await?;
    world.holds_exactly(&ids).await
}

/// Commits the beginning or the end of each partition for the group, as an operator's tool does.
fn commit(world: &World, offset: Offset) -> anyhow::Result<()> {
    let tool: BaseConsumer = world.kafka().set("group.id", &world.topic).create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..3 {
        let (start, end) =
            tool.fetch_watermarks(&world.topic, partition, Duration::from_secs(10))?;
        let at = if offset == Offset::Beginning {
            start
        } else {
            end
        };
        list.add_partition_offset(&world.topic, partition, Offset::Offset(at))?;
    }
    tool.commit(&list, CommitMode::Sync)?;
    Ok(())
}

pub(crate) async fn a_record_that_is_no_event_becomes_a_dead_letter_with_its_bytes(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let producer: BaseProducer = world.kafka().set("message.max.bytes", "2000000").create()?;
    // As large as the topic takes: key, lengths and the head of the batch need the rest.
    let large = vec![b'x'; (1 << 20) - 80];
    let garbage: [&[u8]; 6] = [
        b"",
        b"not json",
        b"\x00\xff\xfe\x80",
        br#"{"eventType":"x"}"#,
        b"{\"id\":\"\\u0000\"}",
        &large,
    ];
    for value in garbage {
        let record = BaseRecord::<[u8], [u8]>::to(&world.topic)
            .payload(value)
            .key(b"k\xff".as_slice());
        producer.send(record).map_err(|(error, _)| error)?;
        // Each in a batch of its own, or the large one would not fit.
        producer.flush(Duration::from_secs(20))?;
    }
    let ids = {
        let next = rdkafka::message::OwnedHeaders::new().insert(rdkafka::message::Header {
            key: "audit-version",
            value: Some("2"),
        });
        let future = BaseRecord::<[u8], [u8]>::to(&world.topic)
            .payload(b"{}".as_slice())
            .headers(next);
        producer.send(future).map_err(|(error, _)| error)?;
        producer.flush(Duration::from_secs(20))?;
        world.publish(10).await?
    };
    world.holds_exactly(&ids).await?;
    wait_until("seven dead letters", async || {
        let letters = world.sql("SELECT count() FROM audit_dead_letters").await?;
        Ok((letters == "7").then_some(()))
    })
    .await?;
    let kinds = world
        .sql("SELECT kind, count() FROM audit_dead_letters GROUP BY kind ORDER BY kind")
        .await?;
    ensure!(
        kinds == "malformed\t5\ntoo_large\t1\nunsupported_version\t1",
        "{kinds}"
    );
    let bytes = "SELECT count() FROM audit_dead_letters WHERE record_value = unhex('00fffe80') \
                 AND record_key = unhex('6bff') AND reason != ''";
    ensure!(world.sql(bytes).await? == "1");
    let bytes = "SELECT max(length(record_value)) FROM audit_dead_letters";
    ensure!(world.sql(bytes).await? == large.len().to_string());
    Ok(())
}

pub(crate) async fn transaction_markers_are_written_down_as_absent(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let producer: BaseProducer = world
        .kafka()
        .set("transactional.id", &world.topic)
        .create()?;
    let limit = Duration::from_secs(20);
    producer.init_transactions(limit)?;
    // A marker between records, one at the end of the log, and one after another.
    for records in [2, 1, 0] {
        producer.begin_transaction()?;
        for _ in 0..records.max(1) {
            let record = BaseRecord::<[u8], [u8]>::to(&world.topic)
                .payload(b"in a transaction".as_slice())
                .partition(0);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(limit)?;
        if records == 0 {
            producer.abort_transaction(limit)?;
        } else {
            producer.commit_transaction(limit)?;
        }
    }
    // Four records and three markers: offsets 0 to 6, the last one a marker.
    wait_until("offset 6 to be settled", async || {
        let next = "SELECT max(next_offset) FROM audit_watermarks WHERE partition = 0";
        Ok((world.sql(next).await? == "7").then_some(()))
    })
    .await?;
    let absent = "SELECT source_offset, source_offset_last FROM audit_dead_letters \
                  WHERE kind = 'absent' ORDER BY source_offset";
    let absent = world.sql(absent).await?;
    ensure!(absent == "2\t2\n4\t4\n6\t6", "{absent}");
    Ok(())
}

pub(crate) async fn a_topic_created_anew_is_not_taken_for_the_old_one(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let old = world.publish(50).await?;
    world.holds_exactly(&old).await?;
    ensure!(consumer.stop(Signal::TERM).await?);

    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    for deleted in admin
        .delete_topics(&[&world.topic], &AdminOptions::new())
        .await?
    {
        deleted.map_err(|(_, code)| anyhow::anyhow!("not deleted: {code}"))?;
    }
    wait_until("the topic to be made anew", async || {
        world.migrate()?;
        Ok(Some(()))
    })
    .await?;
    let new = world.publish(200).await?;
    let mut confused = world.consumer().await?;
    let stopped = |line: &str| line.contains("the topic is not the one").then_some(());
    confused
        .says("that the topic is another one", stopped)
        .await?;
    ensure!(confused.stop(Signal::TERM).await?);
    let rows = world.sql("SELECT count() FROM audit_events").await?;
    ensure!(rows == "50", "{rows}");

    // Once an operator has said so, the new life is consumed from its beginning.
    wait_until("the group to be empty", async || {
        world.run("audit-consumer", &["migrate", "--new-incarnation"])?;
        Ok(Some(()))
    })
    .await?;
    let _consumer = world.consumer().await?;
    world.holds_exactly(&[old, new].concat()).await
}

pub(crate) async fn a_row_taken_away_and_one_put_twice_are_found(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    // Audited by the running consumer as often as it can.
    world.set("AUDIT_CONSUMER_AUDIT__INTERVAL", "10ms");
    world.set("AUDIT_CONSUMER_AUDIT__AGAIN", "0s");
    let consumer = world.consumer().await?;
    let admin = consumer
        .says("the admin port", address("admin port is open"))
        .await?;
    let ids = world.publish(300).await?;
    world.holds_exactly(&ids).await?;
    world.run("audit-consumer", &["verify"])?;
    let metric = async |name: &str| -> anyhow::Result<Option<u64>> {
        let url = format!("http://{admin}/metrics");
        let metrics = world.http().get(url).send().await?.text().await?;
        let start = format!("{name}{{partition=\"0\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&start));
        Ok(found.map(str::parse).transpose()?)
    };
    let rows = "SELECT count() FROM audit_events WHERE source_partition = 0";
    let rows: u64 = world.sql(rows).await?.parse()?;
    wait_until(
        "the audit to come to the end of the partition",
        async || {
            let at = metric("audit_consumer_verified_offset").await?;
            Ok(at.filter(|at| *at == rows))
        },
    )
    .await?;
    for name in ["missing_offsets", "doubled_rows"] {
        let wrong = metric(&format!("audit_consumer_{name}")).await?;
        ensure!(wrong == Some(0), "{name}: {wrong:?}");
    }
    world.broken_on_purpose();

    let inner = "source_partition = 0 AND source_offset";
    world
        .sql(&format!(
            "ALTER TABLE audit_events DELETE WHERE {inner} IN (7, 8, 12) \
             SETTINGS mutations_sync = 1"
        ))
        .await?;
    world
        .sql(&format!(
            "INSERT INTO audit_events SELECT * REPLACE now64(3) AS ingested_at \
             FROM audit_events WHERE {inner} = 9 SETTINGS insert_deduplicate = 0"
        ))
        .await?;
    wait_until("the running consumer to have found both", async || {
        let missing = metric("audit_consumer_missing_offsets").await?;
        let doubled = metric("audit_consumer_doubled_rows").await?;
        Ok((missing == Some(3) && doubled == Some(1)).then_some(()))
    })
    .await?;
    let found = |arguments: &[&str]| world.run("audit-consumer", arguments).unwrap_err();
    let lines = found(&["verify"]).to_string();
    ensure!(lines.contains("3 MISSING, first [7-8, 12]"), "{lines}");
    ensure!(lines.contains("1 DOUBLED, first [9]"), "{lines}");
    let json = found(&["verify", "--json", "--partition", "0", "--from", "8"]).to_string();
    ensure!(json.contains("\"missing\": 2,"), "{json}");
    ensure!(json.contains("\"outcome\": \"broken\""), "{json}");
    Ok(())
}
