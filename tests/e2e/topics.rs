//! A topic that is not what it was, or not what it has to be.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::Signal;

use audit_schema::EventId;
use audit_tests::process::{Process, wait_until};
use audit_tests::world::{PARTITIONS, World, event};

fn admin(world: &World) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    Ok(world.kafka().create()?)
}

pub(crate) async fn a_topic_without_the_brokers_clock_is_refused_with_the_command_that_mends_it(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let admin = admin(&world)?;
    let topic = NewTopic::new(&world.topic, PARTITIONS, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "CreateTime");
    for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
        made.map_err(|(_, code)| anyhow::anyhow!("not made: {code}"))?;
    }
    for command in ["migrate", "run"] {
        let refused = world.run("audit-consumer", &[command]).unwrap_err();
        let refused = refused.to_string();
        let complaint =
            "message.timestamp.type=CreateTime must be message.timestamp.type=LogAppendTime";
        ensure!(refused.contains(complaint), "{refused}");
        let mends = format!(
            "kafka-configs --bootstrap-server {} --alter",
            world.brokers()
        );
        ensure!(refused.contains(&mends), "{refused}");
    }
    // The command, as far as it is not about where Kafka is.
    let refused = world.run("audit-consumer", &["migrate"]).unwrap_err();
    let refused = refused.to_string();
    let settings = refused
        .split_once("--add-config ")
        .and_then(|(_, rest)| rest.split('`').next())
        .context("settings to add")?;
    let settings = settings
        .split(',')
        .map(|setting| setting.split_once('=').context("a setting"))
        .collect::<anyhow::Result<HashMap<_, _>>>()?;
    let mut mended = AlterConfig::new(ResourceSpecifier::Topic(&world.topic));
    mended.entries = settings;
    for altered in admin.alter_configs([&mended], &AdminOptions::new()).await? {
        altered.map_err(|(_, code)| anyhow::anyhow!("not altered: {code}"))?;
    }
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let ids = world.publish(100).await?;
    world.ends_with(&ids).await
}

pub(crate) async fn records_that_expired_unread_stop_their_partition_alone(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish(300).await?;
    world.ends_with(&ids).await?;
    ensure!(consumer.stop(Signal::TERM).await?);
    let watermark = "SELECT max(next_offset) FROM audit_watermarks WHERE partition = 0";
    let settled: i64 = world.sql(watermark).await?.parse()?;

    let events = (0..300).map(|number| event("acme", &format!("user-{number}")));
    let unread = world.publish_all(events).await?;
    let mut gone = TopicPartitionList::new();
    let last = Offset::Offset(settled + 10);
    gone.add_partition_offset(&world.topic, 0, last)?;
    admin(&world)?
        .delete_records(&gone, &AdminOptions::new())
        .await?;

    let consumer = world.consumer().await?;
    let alarm = |line: &str| {
        line.contains("records expired before they were read")
            .then_some(())
    };
    consumer.says("that records are lost", alarm).await?;
    let others = unread.iter().filter(|(_, stored)| stored.partition != 0);
    ids.extend(others.map(|(id, _)| *id));
    world.holds_exactly(&ids).await?;
    let stays: i64 = world.sql(watermark).await?.parse()?;
    ensure!(
        stays == settled,
        "the watermark went from {settled} to {stays}"
    );
    world.audit()
}

/// Deletes the topic and makes it anew.
async fn make_anew(world: &World) -> anyhow::Result<()> {
    for deleted in admin(world)?
        .delete_topics(&[&world.topic], &AdminOptions::new())
        .await?
    {
        deleted.map_err(|(_, code)| anyhow::anyhow!("not deleted: {code}"))?;
    }
    wait_until("the topic to be made anew", async || {
        Ok(world.migrate().ok())
    })
    .await
}

/// The consumer says that the topic is another one, stores nothing of it until an operator has
/// registered it, and then all.
async fn ends_with_two_lives(
    world: &World,
    mut confused: Process,
    old: &[EventId],
    new: &[EventId],
) -> anyhow::Result<()> {
    let stopped = |line: &str| line.contains("the topic is not the one").then_some(());
    confused
        .says("that the topic is another one", stopped)
        .await?;
    world.holds_exactly(old).await?;
    confused.kill()?;
    // The group is in use until the broker has missed the dead member for a session.
    wait_until("the group to be empty", async || {
        world.run("audit-consumer", &["migrate", "--new-incarnation"])?;
        Ok(Some(()))
    })
    .await?;
    let _consumer = world.consumer().await?;
    world.ends_with(&[old, new].concat()).await
}

pub(crate) async fn a_topic_created_anew_while_it_is_consumed_is_not_taken_for_the_old_one(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let consumer = world.consumer().await?;
    let old = world.publish(200).await?;
    world.ends_with(&old).await?;
    make_anew(&world).await?;
    let new = world.publish(50).await?;
    ends_with_two_lives(&world, consumer, &old, &new).await
}

pub(crate) async fn a_topic_created_anew_and_longer_behind_the_consumers_back_is_not_taken_for_the_old_one(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let consumer = world.consumer().await?;
    let old = world.publish(100).await?;
    world.ends_with(&old).await?;
    // It never sees the topic missing: when it looks again every offset is there.
    consumer.freeze()?;
    make_anew(&world).await?;
    let new = world.publish(400).await?;
    consumer.thaw()?;
    ends_with_two_lives(&world, consumer, &old, &new).await
}
