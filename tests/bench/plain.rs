//! The same log without our indexes: a table with the columns, codecs, key and partitions of
//! `audit_events`, and nothing else, in a database of its own.

use std::path::Path;

use audit_tests::world::World;

use crate::native;

/// The statement that makes it, in place of the table `audit_events` of the world's database.
async fn table(log: &World) -> anyhow::Result<String> {
    let columns = log
        .sql(
            "SELECT concat(name, ' ', type, ' ', if(default_kind = 'ALIAS', \
             concat('ALIAS ', default_expression), compression_codec)) FROM system.columns \
             WHERE database = currentDatabase() AND table = 'audit_events' ORDER BY position \
             FORMAT TSVRaw",
        )
        .await?;
    let columns = columns.lines().collect::<Vec<_>>().join(", ");
    Ok(format!(
        "CREATE TABLE audit_events ({columns}) ENGINE = MergeTree \
         PARTITION BY toYYYYMM(logged_at) ORDER BY (project_id, created_at, event_id) \
         SETTINGS default_compression_codec = 'ZSTD(1)'"
    ))
}

/// Makes it from the kept log, and keeps it beside that.
pub(crate) async fn make(log: &World, logs: &Path) -> anyhow::Result<World> {
    let plain = World::on(
        ["127.0.0.1:1", &log.clickhouse()],
        "plain",
        logs.join("plain"),
    )?;
    let events = "SELECT count() FROM audit_events";
    let wanted = log.sql(events).await?;
    native::tables(&plain).await?;
    if plain.sql(events).await? == wanted {
        return Ok(plain);
    }
    eprintln!("making the same log without indexes");
    let of = &log.database;
    for statement in [
        "DROP TABLE audit_events SYNC".to_owned(),
        "TRUNCATE TABLE audit_watermarks".to_owned(),
        "TRUNCATE TABLE audit_sources".to_owned(),
        table(log).await?,
        format!("INSERT INTO audit_watermarks SELECT * FROM {of}.audit_watermarks"),
        format!("INSERT INTO audit_sources SELECT * FROM {of}.audit_sources"),
        format!(
            "INSERT INTO audit_events SELECT * FROM {of}.audit_events \
             SETTINGS max_partitions_per_insert_block = 100"
        ),
        "OPTIMIZE TABLE audit_events FINAL".to_owned(),
    ] {
        plain.sql(&statement).await?;
    }
    Ok(plain)
}
