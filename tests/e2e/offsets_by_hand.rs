//! The group's offsets in the hands of others: ClickHouse is the authority, a commit is a hint.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::Signal;

use audit_tests::process::wait_until;
use audit_tests::world::{PARTITIONS, World};

pub(crate) async fn a_group_deleted_by_hand_changes_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish(500).await?;
    world.stored(200).await?;
    ensure!(consumer.stop(Signal::TERM).await?);
    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    let deleted = admin
        .delete_groups(&[&world.topic], &AdminOptions::new())
        .await?;
    for group in deleted {
        group.map_err(|(_, code)| anyhow::anyhow!("not deleted: {code}"))?;
    }
    ids.extend(world.publish(500).await?);
    let _consumer = world.consumer().await?;
    world.ends_with(&ids).await
}

/// A member of the group that reads nothing of the world's topic. The broker checks that who
/// commits is a member, not that it was given the partition: it can commit anything.
async fn intruder(world: &World) -> anyhow::Result<BaseConsumer> {
    let elsewhere = format!("{}.elsewhere", world.topic);
    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    let topic = NewTopic::new(&elsewhere, 1, TopicReplication::Fixed(1));
    for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
        made.map_err(|(_, code)| anyhow::anyhow!("not made: {code}"))?;
    }
    let intruder: BaseConsumer = world
        .kafka()
        .set("group.id", &world.topic)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .create()?;
    intruder.subscribe(&[&elsewhere])?;
    wait_until("to be a member", async || {
        // What it is given is told by polling.
        if let Some(Err(error)) = intruder.poll(Duration::from_millis(10)) {
            return Err(error.into());
        }
        Ok((intruder.assignment()?.count() > 0).then_some(()))
    })
    .await?;
    Ok(intruder)
}

pub(crate) async fn offsets_moved_while_the_consumer_runs_change_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish(300).await?;
    world.holds_exactly(&ids).await?;
    let intruder = intruder(&world).await?;
    let commit = |at: fn((i64, i64)) -> i64| {
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let limit = Duration::from_secs(10);
            let bounds = intruder.fetch_watermarks(&world.topic, partition, limit)?;
            list.add_partition_offset(&world.topic, partition, Offset::Offset(at(bounds)))?;
        }
        let committed = intruder.commit(&list, CommitMode::Sync);
        committed.context("a commit of a member is taken")
    };
    // To the earliest, to the latest, back by some, and beyond what there is.
    let places: [fn((i64, i64)) -> i64; 4] = [
        |(start, _)| start,
        |(_, end)| end,
        |(start, end)| (end - 20).max(start),
        |(_, end)| end + 1000,
    ];
    for place in places {
        let before = ids.len();
        ids.extend(world.publish(300).await?);
        // Between its inserts.
        world.stored(before + 1).await?;
        commit(place)?;
        // Its successor finds the foreign commit, or one of its own after it.
        consumer.kill()?;
        commit(place)?;
        consumer = world.consumer().await?;
        ids.extend(world.publish(300).await?);
        commit(place)?;
        world.holds_exactly(&ids).await?;
    }
    world.ends_with(&ids).await
}
