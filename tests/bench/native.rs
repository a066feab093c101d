//! The table and its rows as the consumer writes them: events taken apart into columns, a block of
//! ClickHouse's Native format for each insert.

use audit_schema::Event;
use audit_schema::Position;
use audit_schema::clickhouse::{Address, Engine, connect};
use audit_schema::migrate::{Options, migrate};
use audit_schema::native;
use audit_schema::row::{EVENTS, EventColumns, Millis};
use audit_tests::world::World;
use chrono::Utc;
use clickhouse::Client;

use crate::events::renewed;

/// Makes the tables of a world, and gives the client that the consumer would use.
pub(crate) async fn tables(world: &World) -> anyhow::Result<Client> {
    let url = world.clickhouse();
    let address = Address::open(&url, &world.database);
    let options = Options {
        engine: Engine::SingleNode,
        fsync: false,
    };
    migrate(address, &options, false, |_| ()).await?;
    Ok(connect(address).with_validation(false))
}

/// The events of so many offsets of a partition, from `first` on, as Kafka would have taken them now.
pub(crate) fn columns(
    pool: &mut [Event<'static>],
    partition: u32,
    first: u64,
    events: u64,
) -> EventColumns {
    let mut columns = EventColumns::default();
    for offset in first..first + events {
        let position = Position {
            incarnation: 1,
            partition,
            offset,
        };
        columns.push(renewed(pool, offset), position, Utc::now().into());
    }
    columns
}

/// Inserts them as one block, as `consumer/src/writer.rs` does.
pub(crate) async fn insert(
    client: &Client,
    columns: &EventColumns,
    token: &str,
) -> anyhow::Result<()> {
    let rows: Vec<usize> = (0..columns.len()).collect();
    let block = columns.block(&rows, Millis::from(Utc::now()))?;
    let request = native::insert(client, EVENTS)
        .with_setting("insert_deduplication_token", token)
        .with_setting("insert_deduplicate", "1")
        .with_setting("max_partitions_per_insert_block", "1");
    Ok(block.send(request).await?)
}
