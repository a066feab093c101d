//! The rights of the services' roles are enough for all they do.

use std::sync::Arc;

use anyhow::ensure;
use audit_schema::access::{READER, WRITER, statements};
use audit_schema::clickhouse::Engine;

use audit_tests::server::Server;
use audit_tests::world::World;
use rustix::process::Signal;

use crate::deaths::own_engine;

/// Has the engine started again, and grants its only user what `role` has, and nothing else.
async fn restrict(engine: &mut Server, world: &World, role: &str) -> anyhow::Result<()> {
    let to = format!(" TO {role}");
    let statements = statements(&world.database, &Engine::SingleNode);
    let rights: Vec<String> = statements
        .iter()
        .filter_map(|statement| statement.strip_prefix("GRANT ")?.strip_suffix(&to))
        .flat_map(|rights| rights.split(", "))
        .map(|right| format!("<query>GRANT {right}</query>"))
        .collect();
    ensure!(!rights.is_empty(), "{role} has no rights");
    let file = world.logs().join(format!("{role}.xml"));
    std::fs::write(
        &file,
        format!(
            "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default>\
             <password/><networks><ip>::/0</ip></networks><profile>default</profile>\
             <quota>default</quota><grants>{}</grants></default></users></clickhouse>",
            rights.concat()
        ),
    )?;
    engine.kill().await?;
    engine.arguments = vec!["--users".to_owned(), file.display().to_string()];
    engine.run().await
}

pub(crate) async fn the_services_need_no_more_rights_than_their_roles_have(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut engine = own_engine(&world).await?;
    world.migrate()?;
    let key = world.key("acme", &["read"])?;

    restrict(&mut engine, &world, WRITER).await?;
    ensure!(world.sql("TRUNCATE TABLE audit_events").await.is_err());
    let mut consumer = world.consumer().await?;
    world.publish(100).await?;
    world.stored(100).await?;
    consumer.kill()?;
    // It looks whether what the other one sent may still land.
    let mut consumer = world.consumer().await?;
    world.publish(100).await?;
    world.stored(200).await?;
    world.run("audit-consumer", &["dead-letters", "list"])?;
    ensure!(consumer.stop(Signal::TERM).await?);

    restrict(&mut engine, &world, READER).await?;
    ensure!(
        world
            .sql("SELECT count() FROM audit_dead_letters")
            .await
            .is_err()
    );
    let api = world.query_api().await?;
    for path in [
        "audit-logs?limit=1",
        "audit-logs/stats?from=-24h&bucket=hour",
    ] {
        world.get(&format!("{}/v1/{path}", api.url), &key).await?;
    }

    // The audit is the consumer's, too.
    restrict(&mut engine, &world, WRITER).await?;
    world.audit()
}
