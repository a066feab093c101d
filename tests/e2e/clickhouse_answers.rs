//! What a network and a load balancer do to an insert: every event is there once all the same.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;

use audit_schema::EventId;
use audit_tests::fault_proxy::{Did, Fault, FaultProxy, Mode};
use audit_tests::process::wait_until;
use audit_tests::world::World;

/// Publishes events whose insert is held back in the proxy from then on.
pub(crate) async fn hold_an_insert(
    world: &World,
    proxy: &FaultProxy,
) -> anyhow::Result<Vec<EventId>> {
    proxy.set(Fault::of(Mode::Hold).times(1));
    let ids = world.publish_of("somebody", 20).await?;
    let held = wait_until("an insert to be held back", async || {
        Ok((proxy.held() == 1).then_some(()))
    });
    held.await?;
    Ok(ids)
}

/// Puts a proxy between the consumers that are started from now on and ClickHouse.
pub(crate) fn between(world: &World) -> anyhow::Result<FaultProxy> {
    let proxy = FaultProxy::start(&world.clickhouse())?;
    world.set("AUDIT_CONSUMER_CLICKHOUSE__URL", &proxy.url());
    Ok(proxy)
}

/// Does `mode` to three inserts of a consumer that gives up on an insert after two seconds.
async fn harm(world: &World, mode: Mode, done: fn(Did) -> usize) -> anyhow::Result<()> {
    world.migrate()?;
    let proxy = between(world)?;
    world.set("AUDIT_CONSUMER_CLICKHOUSE__INSERT_TIMEOUT", "2s");
    let _consumer = world.consumer().await?;
    let mut ids = world.publish(200).await?;
    world.holds_exactly(&ids).await?;

    proxy.set(Fault::of(mode).times(3));
    ids.extend(world.publish(200).await?);
    ids.extend(world.publish(200).await?);
    world.holds_exactly(&ids).await?;
    // What is late comes as well, and finds that it is not wanted any more.
    let harmed = wait_until("the harm to be done", async || {
        let all = done(proxy.did()) >= 3 && proxy.under_way() == 0;
        Ok(all.then_some(()))
    });
    harmed.await?;
    ids.extend(world.publish(200).await?);
    world.ends_with(&ids).await
}

pub(crate) async fn inserts_answered_500_are_made_up_for(world: Arc<World>) -> anyhow::Result<()> {
    harm(&world, Mode::Answer500, |did| did.answered_500).await
}

pub(crate) async fn an_insert_whose_answer_is_lost_is_not_repeated(
    world: Arc<World>,
) -> anyhow::Result<()> {
    harm(&world, Mode::LoseAnswer, |did| did.lost_answers).await
}

pub(crate) async fn an_insert_cut_half_way_is_made_up_for(world: Arc<World>) -> anyhow::Result<()> {
    harm(&world, Mode::CutBody, |did| did.cut_bodies).await
}

pub(crate) async fn an_insert_answered_but_not_made_is_noticed(
    world: Arc<World>,
) -> anyhow::Result<()> {
    harm(&world, Mode::FalseOk, |did| did.false_oks).await
}

pub(crate) async fn an_insert_that_arrives_half_a_minute_later_does_no_harm(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let late = Mode::Delay(Duration::from_secs(30));
    harm(&world, late, |did| did.delayed).await
}

pub(crate) async fn an_insert_that_arrives_twice_does_no_harm(
    world: Arc<World>,
) -> anyhow::Result<()> {
    harm(&world, Mode::Twice, |did| did.doubled).await
}

pub(crate) async fn an_insert_held_back_until_its_owner_is_replaced_does_no_harm(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let proxy = between(&world)?;
    // A successor of the same name is given the partitions at once, while the insert is in time.
    world.set("AUDIT_CONSUMER_KAFKA__INSTANCE", "the-one");
    let mut owner = world.consumer().await?;
    let mut ids = world.publish(200).await?;
    world.holds_exactly(&ids).await?;

    ids.extend(hold_an_insert(&world, &proxy).await?);
    owner.kill()?;
    ids.extend(world.publish_of("somebody", 20).await?);
    let _successor = world.consumer().await?;
    world.holds_exactly(&ids).await?;

    proxy.release();
    let arrived = wait_until("the insert to arrive", async || {
        Ok((proxy.did().released == 1).then_some(()))
    });
    arrived.await?;
    ensure!(proxy.held() == 0);
    ids.extend(world.publish_of("somebody", 20).await?);
    world.ends_with(&ids).await
}
