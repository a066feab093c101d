//! The group's offsets in the hands of others: ClickHouse is the authority, a commit is a hint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
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
struct Intruder {
    client: Arc<BaseConsumer>,
    leave: Arc<AtomicBool>,
    /// Takes part in the group's life.
    thread: Option<JoinHandle<()>>,
}

impl Intruder {
    async fn joins(world: &World) -> anyhow::Result<Self> {
        let elsewhere = format!("{}.elsewhere", world.topic);
        let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
        let topic = NewTopic::new(&elsewhere, 1, TopicReplication::Fixed(1));
        for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
            made.map_err(|(_, code)| anyhow::anyhow!("not made: {code}"))?;
        }
        let client: BaseConsumer = world
            .kafka()
            .set("group.id", &world.topic)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .create()?;
        client.subscribe(&[&elsewhere])?;
        let (client, leave) = (Arc::new(client), Arc::new(AtomicBool::new(false)));
        let (polled, left) = (Arc::clone(&client), Arc::clone(&leave));
        let thread = std::thread::spawn(move || {
            while !left.load(Ordering::Relaxed) {
                polled.poll(Duration::from_millis(50));
            }
        });
        let intruder = Self {
            client,
            leave,
            thread: Some(thread),
        };
        wait_until("an intruder to be a member", async || {
            Ok((intruder.client.assignment()?.count() > 0).then_some(()))
        })
        .await?;
        Ok(intruder)
    }

    /// Commits for every partition of the world's topic.
    fn commit(&self, world: &World, at: fn((i64, i64)) -> i64) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let limit = Duration::from_secs(10);
            let bounds = self
                .client
                .fetch_watermarks(&world.topic, partition, limit)?;
            list.add_partition_offset(&world.topic, partition, Offset::Offset(at(bounds)))?;
        }
        let committed = self.client.commit(&list, CommitMode::Sync);
        committed.context("a commit of a member is taken")
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed by it.
            thread.join().ok();
        }
    }
}

pub(crate) async fn offsets_moved_while_the_consumer_runs_change_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish(300).await?;
    world.holds_exactly(&ids).await?;
    let intruder = Intruder::joins(&world).await?;
    let commit = |at| intruder.commit(&world, at);
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
