//! How far all is readable, told truly while a partition is stuck.

use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_tests::process::{address, wait_until};
use audit_tests::world::World;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::Signal;
use serde_json::Value;

/// A time as the API tells it, in SQL.
fn text(time: &str) -> String {
    format!("concat(replaceOne(toString({time}), ' ', 'T'), 'Z')")
}

/// What a partition's watermark says: its settled offset, and the time it is complete up to.
async fn watermark(world: &World, partition: u32) -> anyhow::Result<(u64, String)> {
    let sql = format!(
        "SELECT max(w.next_offset), {} \
         FROM audit_watermarks AS w WHERE partition = {partition}",
        text("max(w.complete_up_to)")
    );
    let row = world.sql(&sql).await?;
    let (offset, time) = row.split_once('\t').context("two columns")?;
    Ok((offset.parse()?, time.to_owned()))
}

/// ClickHouse's time, as text that sorts.
async fn now(world: &World) -> anyhow::Result<String> {
    let sql = format!("SELECT {}", text("now64(3, 'UTC')"));
    world.sql(&sql).await
}

/// Takes the records of partition 0 out of the log, as if they had expired, and gives its end.
async fn expire(world: &World) -> anyhow::Result<u64> {
    let tool: BaseConsumer = world.kafka().create()?;
    let (_, end) = tool.fetch_watermarks(&world.topic, 0, std::time::Duration::from_secs(10))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.topic, 0, Offset::Offset(end))?;
    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    admin.delete_records(&list, &AdminOptions::new()).await?;
    Ok(u64::try_from(end)?)
}

pub(crate) async fn a_partition_that_is_stuck_holds_its_watermark_and_no_other(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["read"])?;
    let api = world.query_api().await?;
    let complete = async || -> anyhow::Result<String> {
        let page = world
            .get(&format!("{}/v1/audit-logs", api.url), &key)
            .await?;
        let time = page["completeUpTo"].as_str().context("a time")?;
        Ok(time.to_owned())
    };

    let mut consumer = world.consumer().await?;
    world.publish(300).await?;
    let published = now(&world).await?;
    wait_until("the first events to be readable", async || {
        let page = world
            .get(&format!("{}/v1/audit-logs", api.url), &key)
            .await?;
        let complete = page["completeUpTo"].as_str().unwrap_or_default().to_owned();
        Ok((page["total"] == 300 && complete > published).then_some(()))
    })
    .await?;
    ensure!(consumer.stop(Signal::TERM).await?);

    // While no member has it, a partition is complete up to when it last was.
    let (settled, stuck) = watermark(&world, 0).await?;
    let lost = now(&world).await?;
    world.publish(300).await?;
    let end = expire(&world).await?;
    ensure!(end > settled, "partition 0 got events");
    ensure!(stuck < lost, "{stuck} {lost}");
    let unowned = complete().await?;
    ensure!(unowned < lost, "{unowned} {lost}");

    // The others go on, and are complete beyond what is published now.
    let consumer = world.consumer().await?;
    let stopped = |line: &str| line.contains("records expired before").then_some(());
    consumer.says("that a partition stopped", stopped).await?;
    world.publish(300).await?;
    let later = now(&world).await?;
    for partition in [1, 2] {
        wait_until("the other partitions to go on", async || {
            let (_, time) = watermark(&world, partition).await?;
            Ok((time > later).then_some(()))
        })
        .await?;
    }
    ensure!(watermark(&world, 0).await? == (settled, stuck.clone()));
    let told = complete().await?;
    ensure!(told == stuck, "{told} is told, {stuck} is true");

    // Whoever watches the consumer sees which one, why, and for how long.
    let admin = consumer
        .says("the admin port", address("admin port is open"))
        .await?;
    let ask = async |path: &str| -> anyhow::Result<String> {
        let url = format!("http://{admin}{path}");
        Ok(world.http().get(url).send().await?.text().await?)
    };
    wait_until("the consumer to tell of it", async || {
        let told: Value = serde_json::from_str(&ask("/watermarks").await?)?;
        let partition = |number: usize| &told["partitions"][number];
        let waits = |number: usize| partition(number)["oldestUnreadableSeconds"].as_f64();
        let reason = partition(0)["stopped"].as_str().unwrap_or_default();
        let found = reason.contains("records expired")
            && told["completeUpTo"] == *stuck
            && partition(0)["settledOffset"] == settled
            && partition(0)["logEnd"].as_u64() > Some(end)
            && waits(0) > Some(0.0)
            && [1, 2].into_iter().all(|number| waits(number) == Some(0.0))
            && partition(1)["stopped"].is_null();
        Ok(found.then_some(()))
    })
    .await?;
    let metrics = ask("/metrics").await?;
    let age = "audit_consumer_oldest_unreadable_seconds{partition=\"0\"} ";
    let age = metrics.lines().find_map(|line| line.strip_prefix(age));
    ensure!(age.context("an age")?.parse::<f64>()? > 0.0);
    Ok(())
}
