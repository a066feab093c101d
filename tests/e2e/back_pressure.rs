//! A ClickHouse that stands still: what is held is bounded, nothing is given away, all is caught up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use audit_tests::world::World;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::deaths::{SHORT_SESSION, own_engine};

/// Longer than a session: a consumer that waits is not taken for dead.
const STALL: Duration = Duration::from_secs(8);

/// What a consumer may hold beside what it takes at rest: of each of its three partitions a batch
/// being written and one being filled, each up to twice 2 MB and three times as large as columns,
/// 32 MiB fetched ahead, and what the allocator keeps.
const HELD: u64 = 128 << 20;

/// How much is published meanwhile, at least.
const PUBLISHED: u64 = 3 * HELD;

pub(crate) async fn a_clickhouse_that_stands_still_costs_neither_memory_nor_partitions(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut engine = own_engine(&world).await?;
    world.migrate()?;
    world.set("AUDIT_CONSUMER_BATCH__MAX_BYTES", "2000000");
    world.set("AUDIT_CONSUMER_KAFKA__SESSION_TIMEOUT", SHORT_SESSION);
    let consumer = world.consumer().await?;
    let mut ids = world.publish(1000).await?;
    world.holds_exactly(&ids).await?;
    let at_rest = consumer.resident()?;

    engine.process()?.freeze()?;
    let (mut published, started) = (0_u64, Instant::now());
    while published < PUBLISHED || started.elapsed() < STALL {
        ids.extend(world.publish(2000).await?);
        published += large_records(&world, 16)?;
    }
    let held = consumer.resident()?.saturating_sub(at_rest);
    ensure!(
        held < HELD,
        "{held} bytes are held of {published} published"
    );
    engine.process()?.thaw()?;

    world.ends_with(&ids).await?;
    let given_away = consumer.printed().contains("partition handed back");
    ensure!(!given_away, "a partition was given away");
    let held = consumer.peak()?.saturating_sub(at_rest);
    ensure!(held < HELD, "{held} bytes were held when it caught up");
    Ok(())
}

/// Publishes records that are too large to be events, and says how many bytes.
fn large_records(world: &World, records: usize) -> anyhow::Result<u64> {
    let producer: BaseProducer = world.kafka().create()?;
    let large = vec![b'x'; 900 * 1024];
    for number in 0..records {
        let key = number.to_string();
        let record = BaseRecord::to(&world.topic).payload(&large).key(&key);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(u64::try_from(records * large.len())?)
}
