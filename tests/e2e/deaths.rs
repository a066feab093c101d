//! Processes that die or stand still: every acknowledged event is there once.

use std::sync::Arc;

use audit_tests::fault_proxy::{Fault, Mode};
use audit_tests::process::wait_until;
use audit_tests::server::Server;
use audit_tests::world::World;

use crate::clickhouse_answers::between;

/// As short as the broker takes by default: who waits for it to pass waits less.
pub(crate) const SHORT_SESSION: &str = "6s";

/// A broker of the world's own.
async fn own_kafka(world: &World) -> anyhow::Result<Server> {
    let mut kafka = Server::kafka(world.logs())?;
    kafka.run().await?;
    world.use_kafka(&kafka.address());
    Ok(kafka)
}

/// An engine of the world's own.
pub(crate) async fn own_engine(world: &World) -> anyhow::Result<Server> {
    let mut engine = Server::engine(world)?;
    engine.run().await?;
    world.use_engine(&engine.url());
    Ok(engine)
}

pub(crate) async fn a_killed_broker_loses_and_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut kafka = own_kafka(&world).await?;
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let mut ids = world.publish(1000).await?;
    for round in 1..=2_usize {
        world.stored(round * 500).await?;
        // Some of it is under way when the broker dies, and some comes while there is none.
        let harm = async {
            kafka.kill().await?;
            kafka.run().await
        };
        let (published, harmed) = tokio::join!(world.publish(1000), harm);
        harmed?;
        ids.extend(published?);
    }
    world.ends_with(&ids).await
}

pub(crate) async fn broker_and_engine_killed_at_once_lose_and_double_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut kafka = own_kafka(&world).await?;
    let mut engine = own_engine(&world).await?;
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let mut ids = world.publish(2000).await?;
    world.stored(500).await?;
    let harm = async {
        engine.kill().await?;
        kafka.kill().await?;
        kafka.start()?;
        engine.run().await?;
        kafka.ready().await
    };
    let (published, harmed) = tokio::join!(world.publish(1000), harm);
    harmed?;
    ids.extend(published?);
    world.ends_with(&ids).await
}

pub(crate) async fn consumer_and_engine_killed_at_once_lose_and_double_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut engine = own_engine(&world).await?;
    world.migrate()?;
    // Its successor has the partitions at once.
    world.set("AUDIT_CONSUMER_KAFKA__INSTANCE", "the-one");
    let mut ids = Vec::new();
    for round in 1..=3_usize {
        let mut consumer = world.consumer().await?;
        ids.extend(world.publish(2000).await?);
        world.stored(round * 1000).await?;
        engine.kill().await?;
        consumer.kill()?;
        engine.run().await?;
    }
    let _last = world.consumer().await?;
    world.ends_with(&ids).await
}

pub(crate) async fn members_that_join_and_die_all_the_time_lose_and_double_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.set("AUDIT_CONSUMER_KAFKA__SESSION_TIMEOUT", SHORT_SESSION);
    world.migrate()?;
    let _staying = world.consumer().await?;
    let coming_and_going = async {
        let mut ids = Vec::new();
        for _ in 0..4 {
            let mut coming = world.consumer().await?;
            let joined = |line: &str| line.contains("partition starts").then_some(());
            let (published, has_one) = tokio::join!(
                world.publish(500),
                coming.says("a partition of its own", joined)
            );
            has_one?;
            ids.extend(published?);
            // It dies with what was just published in its hands.
            ids.extend(world.publish(500).await?);
            coming.kill()?;
        }
        anyhow::Ok(ids)
    };
    let ids = coming_and_going.await?;
    world.ends_with(&ids).await
}

pub(crate) async fn a_member_that_wakes_up_while_its_successor_inserts_the_same_range_does_no_harm(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.set("AUDIT_CONSUMER_KAFKA__SESSION_TIMEOUT", SHORT_SESSION);
    world.migrate()?;
    let proxy = between(&world)?;
    let frozen = world.consumer().await?;
    let mut ids = world.publish(200).await?;
    world.holds_exactly(&ids).await?;

    let held = async |inserts| {
        let what = format!("{inserts} inserts to be held back");
        wait_until(&what, async || Ok((proxy.held() == inserts).then_some(()))).await
    };
    proxy.set(Fault::of(Mode::Hold));
    ids.extend(world.publish_of("somebody", 20).await?);
    held(1).await?;
    frozen.freeze()?;
    // Its session passes, and another member is given its partitions.
    let _successor = world.consumer().await?;
    held(2).await?;
    proxy.pass();
    frozen.thaw()?;
    proxy.release();
    let arrived = wait_until("both inserts to arrive", async || {
        Ok((proxy.did().released == 2).then_some(()))
    });
    arrived.await?;
    ids.extend(world.publish(200).await?);
    world.ends_with(&ids).await
}
