//! Clocks that jump: every event is there once, whatever time it is.

use std::sync::Arc;

use anyhow::ensure;

use audit_tests::clock::Clock;
use audit_tests::process::wait_until;
use audit_tests::world::World;

use crate::clickhouse_answers::{between, hold_an_insert};
use crate::deaths::own_engine;

const HOUR: i64 = 3600;

/// An hour forwards, back again, and back by another hour.
const JUMPS: [i64; 3] = [HOUR, 0, -HOUR];

pub(crate) async fn a_clock_of_clickhouse_that_jumps_loses_and_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut engine = own_engine(&world).await?;
    let clock = Clock::of(engine.process()?.id()).await?;
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let mut ids = world.publish(300).await?;
    for jump in JUMPS {
        // While inserts are under way.
        clock.show(jump)?;
        ids.extend(world.publish(300).await?);
        world.holds_exactly(&ids).await?;
    }
    let ahead = "SELECT dateDiff('minute', now(), max(ingested_at)) FROM audit_events";
    let ahead: i64 = world.sql(ahead).await?.parse()?;
    ensure!(ahead >= 100, "the clock did not jump: {ahead} minutes");
    world.ends_with(&ids).await
}

pub(crate) async fn a_clock_of_clickhouse_set_back_under_an_insert_in_doubt_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut engine = own_engine(&world).await?;
    let clock = Clock::of(engine.process()?.id()).await?;
    world.migrate()?;
    let proxy = between(&world)?;
    world.set("AUDIT_CONSUMER_KAFKA__INSTANCE", "the-one");
    let mut owner = world.consumer().await?;
    let mut ids = world.publish(200).await?;
    world.holds_exactly(&ids).await?;

    ids.extend(hold_an_insert(&world, &proxy).await?);
    owner.kill()?;
    // By this clock what is held back is in time for another hour.
    clock.show(-HOUR)?;
    let successor = world.consumer().await?;
    let starts = |line: &str| line.contains("partition starts").then_some(());
    successor.says("a partition", starts).await?;
    proxy.release();
    let arrived = wait_until("the insert to arrive", async || {
        Ok((proxy.did().released == 1).then_some(()))
    });
    arrived.await?;
    clock.show(0)?;
    ids.extend(world.publish_of("somebody", 20).await?);
    world.ends_with(&ids).await
}

pub(crate) async fn a_clock_of_the_consumer_that_jumps_loses_and_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    world.set("AUDIT_CONSUMER_KAFKA__INSTANCE", "the-one");
    let mut ids = world.publish(300).await?;
    let mut consumer = world.consumer().await?;
    let clock = Clock::of(consumer.id()).await?;
    for jump in JUMPS {
        clock.show(jump)?;
        ids.extend(world.publish(300).await?);
        world.holds_exactly(&ids).await?;
    }
    consumer.kill()?;
    ids.extend(world.publish(300).await?);
    let _successor = world.consumer().await?;
    world.ends_with(&ids).await
}
