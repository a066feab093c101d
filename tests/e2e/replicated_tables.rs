//! The tables of a cluster, made for real: two engines, one ZooKeeper.
//!
//! The embedded engine has no worker for `ON CLUSTER`, and no port for other replicas, so the
//! statements are run on each server without `ON CLUSTER`, which is what a worker does with them,
//! and the replicated tables stay read-only. What is not tried therefore: the queue of `ON CLUSTER`,
//! `ALTER` of a replicated table, inserts with a quorum, `SYSTEM SYNC REPLICA`, and reading through
//! `Distributed` from another server.

use std::sync::Arc;

use anyhow::ensure;
use audit_schema::clickhouse::{Address, Engine, connect};
use audit_schema::migrate::{Options, plan};

use audit_tests::server::Server;
use audit_tests::world::World;

/// A replica of the only shard of the cluster `audit`.
async fn replica(world: &World, name: &str, zookeeper: &Server) -> anyhow::Result<Server> {
    let mut engine = Server::engine(world)?;
    let (host, port) = zookeeper.address().split_once(':').map_or_else(
        || (String::new(), String::new()),
        |(host, port)| (host.to_owned(), port.to_owned()),
    );
    let cluster = format!(
        "<zookeeper><node><host>{host}</host><port>{port}</port></node></zookeeper>\
         <macros><shard>1</shard><replica>{name}</replica></macros>\
         <remote_servers><audit><shard><internal_replication>true</internal_replication>\
         <replica><host>127.0.0.1</host><port>9000</port></replica></shard></audit></remote_servers>"
    );
    let file = world.logs().join(format!("{name}.xml"));
    std::fs::write(&file, cluster)?;
    engine.arguments = vec!["--cluster".to_owned(), file.display().to_string()];
    engine.run().await?;
    Ok(engine)
}

/// Makes the tables of a replica, each statement twice: repeated it changes nothing.
async fn make(world: &World, url: &str) -> anyhow::Result<()> {
    let options = Options {
        engine: Engine::Cluster("audit".to_owned()),
        fsync: false,
    };
    let on_cluster = " ON CLUSTER 'audit'";
    let address = Address::open(url, &world.database);
    let server = connect(Address {
        database: "default",
        ..address
    });
    let (mut altered, mut made) = (0, 0);
    for step in [
        plan(address, &options).await?,
        plan(address, &options).await?,
    ]
    .concat()
    {
        for statement in &step.statements {
            let tables = statement.starts_with("CREATE TABLE IF NOT EXISTS")
                || statement.starts_with("CREATE OR REPLACE TABLE");
            ensure!(
                statement.contains(on_cluster) || statement.starts_with("CREATE OR REPLACE VIEW"),
                "on one server only: {statement}"
            );
            if statement.starts_with("ALTER TABLE") {
                altered += 1;
                continue;
            }
            made += usize::from(tables);
            let client = if step.version == 0 {
                server.clone()
            } else {
                connect(address)
            };
            let alone = statement.replace(on_cluster, "");
            client.query_raw(&alone).execute().await?;
        }
    }
    ensure!(
        made >= 2 * 17 && altered >= 2,
        "{made} made, {altered} altered"
    );
    Ok(())
}

pub(crate) async fn the_tables_of_a_cluster_are_registered_as_replicas_of_each_other(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.broken_on_purpose();
    let mut zookeeper = Server::zookeeper(world.logs())?;
    zookeeper.run().await?;
    let mut engines = Vec::new();
    for name in ["a", "b"] {
        let engine = replica(&world, name, &zookeeper).await?;
        world.use_engine(&engine.url());
        make(&world, &engine.url()).await?;
        engines.push(engine);
    }

    let all = format!(
        "SELECT table, zookeeper_path, replica_name, total_replicas FROM system.replicas \
         WHERE database = '{}' ORDER BY table",
        world.database
    );
    for (engine, name) in engines.iter().zip(["a", "b"]) {
        world.use_engine(&engine.url());
        // A replica that was made later has found the others'.
        let replicas = world.sql(&all).await?;
        let of = |table: &str, shard: &str, replica: &str| {
            format!(
                "{table}\t/clickhouse/tables/{shard}/{}/{table}\t{replica}\t2",
                world.database
            )
        };
        let steps = of("audit_migrations", "all", &format!("1_{name}"));
        ensure!(replicas.contains(&steps), "{replicas}");
        for table in [
            "audit_events",
            "audit_dead_letters",
            "audit_watermarks",
            "audit_sources",
            "audit_grants",
            "audit_removed",
            "audit_retention_runs",
            "audit_erasures",
        ] {
            let local = of(&format!("{table}_local"), "1", name);
            ensure!(replicas.contains(&local), "{local}\n{replicas}");
            let distributed = format!(
                "SELECT engine_full FROM system.tables WHERE database = currentDatabase() \
                 AND name = '{table}'"
            );
            let distributed = world.sql(&distributed).await?;
            let wanted = format!(
                "Distributed(\\'audit\\', \\'{}\\', \\'{table}_local\\')",
                world.database
            );
            ensure!(distributed == wanted, "{distributed}\n{wanted}");
        }
        // Both have the same columns: the one that reads has all that the one that stores has.
        let columns = "SELECT count() FROM (SELECT name, type FROM system.columns WHERE \
             database = currentDatabase() AND table IN ('audit_events', 'audit_events_local') \
             GROUP BY name, type HAVING count() != 2)";
        ensure!(world.sql(columns).await? == "0");
    }
    Ok(())
}
