//! The table `audit_events` without its indexes and projections, and the kept log in such a table, in
//! a database of its own.

use std::path::Path;

use audit_tests::world::World;

use crate::native;

/// Takes indexes and projections off the table of a world, which has no events yet.
pub(crate) async fn without_indexes(world: &World) -> anyhow::Result<()> {
    let drops = "SELECT arrayStringConcat(groupArray(concat('DROP ', kind, ' ', name)), ', ') FROM \
                 (SELECT database, table, 'INDEX' AS kind, name FROM system.data_skipping_indices \
                 UNION ALL SELECT database, table, 'PROJECTION', name FROM system.projections) \
                 WHERE database = currentDatabase() AND table = 'audit_events'";
    let drops = world.sql(drops).await?;
    world
        .sql(&format!("ALTER TABLE audit_events {drops}"))
        .await?;
    Ok(())
}

/// Makes the kept log in such a table, beside it, and keeps that.
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
    // What an earlier run did not finish has to go.
    plain.drop_database().await?;
    native::tables(&plain).await?;
    without_indexes(&plain).await?;
    let of = &log.database;
    for statement in [
        // The rows are old.
        "ALTER TABLE audit_events DROP CONSTRAINT in_time".to_owned(),
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
