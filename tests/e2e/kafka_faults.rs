//! A leader that dies, a broker that is replaced, and a commit that comes late.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use audit_tests::kafka_proxy::KafkaProxy;
use audit_tests::process::{address, wait_until};
use audit_tests::server::{Server, free_port};
use audit_tests::world::World;

use crate::clickhouse_answers::{between, hold_an_insert};

/// Three brokers that keep three copies, and write while two are there.
async fn cluster(world: &World) -> anyhow::Result<Vec<Server>> {
    let voters = (1..=3)
        .map(|node| anyhow::Ok(format!("{node}@127.0.0.1:{}", free_port()?)))
        .collect::<anyhow::Result<Vec<_>>>()?
        .join(",");
    let mut brokers = Vec::new();
    for node in 1..=3 {
        let mut broker = Server::kafka(&world.logs().join(format!("broker-{node}")))?;
        let options = ["--node", &node.to_string(), "--voters", &voters];
        broker.arguments = options.map(ToOwned::to_owned).to_vec();
        broker.start()?;
        brokers.push(broker);
    }
    for broker in &mut brokers {
        broker.ready().await?;
    }
    let addresses: Vec<String> = brokers.iter().map(Server::address).collect();
    world.use_kafka(&addresses.join(","));
    world.set("AUDIT_CONSUMER_TOPIC__REPLICATION", "3");
    world.set("AUDIT_CONSUMER_TOPIC__MIN_INSYNC_REPLICAS", "2");
    Ok(brokers)
}

/// The partitions of all topics of which a broker has no copy that is up to date, as
/// `kafka-topics --describe --under-replicated-partitions` names them.
fn under_replicated(world: &World) -> anyhow::Result<Vec<String>> {
    let tool: BaseConsumer = world.kafka().create()?;
    let metadata = tool.fetch_metadata(None, Duration::from_secs(20))?;
    let mut behind = Vec::new();
    for topic in metadata.topics() {
        let partitions = topic.partitions().iter();
        let short = partitions.filter(|partition| partition.isr().len() < 3);
        behind.extend(short.map(|partition| format!("{}-{}", topic.name(), partition.id())));
    }
    Ok(behind)
}

/// How many copies of a record the topic asks for before it is acknowledged.
async fn in_sync(world: &World) -> anyhow::Result<Option<String>> {
    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    let topic = ResourceSpecifier::Topic(&world.topic);
    let described = admin
        .describe_configs([&topic], &AdminOptions::new())
        .await?;
    let resource = described.into_iter().next().context("the topic")?;
    let resource = resource.map_err(|code| anyhow::anyhow!("not described: {code}"))?;
    let entry = resource.get("min.insync.replicas");
    Ok(entry.and_then(|entry| entry.value.clone()))
}

/// The leader of partition 0.
fn leader(world: &World) -> anyhow::Result<usize> {
    let tool: BaseConsumer = world.kafka().create()?;
    let metadata = tool.fetch_metadata(Some(&world.topic), Duration::from_secs(20))?;
    let partitions = metadata.topics().first().context("the topic")?.partitions();
    let first = partitions.iter().find(|partition| partition.id() == 0);
    Ok(usize::try_from(first.context("partition 0")?.leader())?)
}

pub(crate) async fn the_leader_of_a_partition_killed_among_three_brokers_stops_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut brokers = cluster(&world).await?;
    world.migrate()?;
    ensure!(in_sync(&world).await?.as_deref() == Some("2"));
    let _consumer = world.consumer().await?;
    let mut ids = world.publish(500).await?;
    for _ in 0..2 {
        world.stored(ids.len() - 400).await?;
        let killed = leader(&world)? - 1;
        let (published, harmed) = tokio::join!(world.publish(500), brokers[killed].kill());
        harmed?;
        ids.extend(published?);
        // All of it is readable while that broker is dead.
        world.holds_exactly(&ids).await?;
        ensure!(leader(&world)? - 1 != killed);
        brokers[killed].run().await?;
    }
    world.ends_with(&ids).await
}

pub(crate) async fn a_broker_replaced_by_an_empty_one_loses_and_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut brokers = cluster(&world).await?;
    world.migrate()?;
    let consumer = world.consumer().await?;
    let metrics = consumer.says("the admin port", address("admin port is open"));
    let metrics = format!("http://{}/metrics", metrics.await?);
    let mut ids = world.publish(500).await?;

    // The leader of a partition goes with its disk, while events flow.
    let lost = leader(&world)? - 1;
    let (published, killed) = tokio::join!(world.publish(500), brokers[lost].kill());
    killed?;
    ids.extend(published?);
    world.holds_exactly(&ids).await?;
    ensure!(!under_replicated(&world)?.is_empty());
    // Nothing of ours tells: two copies are enough to go on.
    let told = world.http().get(metrics).send().await?.text().await?;
    for quiet in [
        "audit_consumer_server_up{server=\"kafka\"} 1",
        "audit_consumer_partition_stopped{partition=\"0\"} 0",
    ] {
        ensure!(told.contains(quiet), "{told}");
    }
    std::fs::remove_dir_all(brokers[lost].data())?;

    let (published, replaced) = tokio::join!(world.publish(500), brokers[lost].run());
    replaced?;
    ids.extend(published?);
    wait_until("every copy to be up to date", async || {
        Ok(under_replicated(&world)?.is_empty().then_some(()))
    })
    .await?;

    // Now another may go: what only it and the lost one had acknowledged is on the new one.
    let other = leader(&world)? - 1;
    let other = if other == lost { (lost + 1) % 3 } else { other };
    let (published, killed) = tokio::join!(world.publish(500), brokers[other].kill());
    killed?;
    ids.extend(published?);
    world.ends_with(&ids).await
}

pub(crate) async fn an_intent_that_lands_after_the_next_one_does_no_harm(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut kafka = Server::kafka(world.logs())?;
    let commits = KafkaProxy::start(&kafka.address())?;
    kafka.arguments = vec!["--advertise".to_owned(), commits.port().to_string()];
    kafka.run().await?;
    world.use_kafka(&commits.address());
    world.migrate()?;
    let inserts = between(&world)?;
    // A successor of the same name is given the partitions at once, while the insert is in time.
    world.set("AUDIT_CONSUMER_KAFKA__INSTANCE", "the-one");
    let mut consumer = world.consumer().await?;

    commits.hold_commit("v1|1|0-");
    let mut ids = world.publish_of("somebody", 10).await?;
    let held = wait_until("a commit to be held back", async || {
        Ok(commits.holds().then_some(()))
    });
    held.await?;
    world.holds_exactly(&ids).await?;

    ids.extend(hold_an_insert(&world, &inserts).await?);
    // Nobody who looks at the commit now knows of the insert, if the broker takes it.
    let answered = commits.deliver()?;
    consumer.kill()?;
    ids.extend(world.publish_of("somebody", 10).await?);
    let _successor = world.consumer().await?;
    world.holds_exactly(&ids).await?;
    inserts.release();
    let arrived = wait_until("the insert to arrive", async || {
        Ok((inserts.did().released == 1).then_some(()))
    });
    arrived.await?;
    ids.extend(world.publish_of("somebody", 10).await?);
    let ended = world.ends_with(&ids).await;
    ended.with_context(|| format!("the late commit was answered {answered}"))
}
