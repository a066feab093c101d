//! What a part runs on: a broker and an engine of its own, and how much of the processors they use.

use std::path::{Path, PathBuf};

use anyhow::Context;
use audit_tests::process::root;
use audit_tests::server::Server;
use audit_tests::world::World;

use crate::{cpu, dataset};

/// A broker, if the part needs one, and an engine. They die with the thread that starts them.
pub(crate) struct Stage {
    kafka: Option<Server>,
    engine: Server,
    logs: PathBuf,
}

impl Stage {
    /// Only an engine, without data.
    pub(crate) async fn engine(logs: &Path) -> anyhow::Result<Self> {
        let world = nowhere("bench", logs)?;
        Self::with(Server::engine(&world)?, logs).await
    }

    /// The engine that has the kept log of so many events, and the world of that log. Both are made
    /// if they are not there.
    pub(crate) async fn log(rows: u64, logs: &Path) -> anyhow::Result<(Self, World)> {
        let world = nowhere("bench", logs)?;
        let folder = root().join(format!("target/bench-log/{rows}"));
        let stage = Self::with(Server::engine_on(&world, &folder)?, logs).await?;
        world.use_engine(&stage.engine.url());
        dataset::make(&world, rows).await?;
        Ok((stage, world))
    }

    async fn with(mut engine: Server, logs: &Path) -> anyhow::Result<Self> {
        engine.run().await.context("ClickHouse")?;
        Ok(Self {
            kafka: None,
            engine,
            logs: logs.to_owned(),
        })
    }

    /// The same with a broker.
    pub(crate) async fn and_kafka(mut self) -> anyhow::Result<Self> {
        let mut kafka = Server::kafka(&self.logs)?;
        // The Kafka engine's two consumers join one after the other. A broker that answers the first
        // at once makes it join anew, for which the engine waits up to 15 s.
        let delay = "group.initial.rebalance.delay.ms=100";
        kafka
            .arguments
            .extend(["--property", delay].map(str::to_owned));
        kafka.run().await.context("Kafka")?;
        self.kafka = Some(kafka);
        Ok(self)
    }

    /// A world of this name, with a topic and a database of its own that are still to be made.
    pub(crate) fn world(&self, name: &str) -> anyhow::Result<World> {
        let world = nowhere(name, &self.logs.join(name))?;
        world.use_engine(&self.engine.url());
        if let Some(kafka) = &self.kafka {
            world.use_kafka(&kafka.address());
        }
        Ok(world)
    }

    /// Which ClickHouse it is.
    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let engine = reqwest::Client::new().post(self.engine.url());
        let answer = engine.body("SELECT version()").send().await?;
        let version = answer.error_for_status()?.text().await?;
        Ok(version.trim().to_owned())
    }

    /// Seconds the engine has used.
    pub(crate) fn engine_cpu(&mut self) -> anyhow::Result<f64> {
        cpu::seconds(self.engine.process()?)
    }

    /// Seconds of the engine's threads that merge parts.
    pub(crate) fn merges_cpu(&mut self) -> anyhow::Result<f64> {
        cpu::of_threads(self.engine.process()?, "MergeMutate")
    }

    /// Seconds the broker has used.
    pub(crate) fn broker_cpu(&mut self) -> anyhow::Result<f64> {
        let kafka = self.kafka.as_mut().context("a part with a broker")?;
        cpu::seconds(kafka.process()?)
    }
}

/// Lets the query API of a world answer as often as it is asked, and say nothing of it.
pub(crate) fn unlimited(world: &World) {
    world.set("AUDIT_QUERY_API_RATE_LIMIT__REQUESTS", "100000000");
    world.set("AUDIT_QUERY_API_HTTP__ACCESS_LOG", "false");
}

/// Lets it take long over an answer, too.
pub(crate) fn patient(world: &World) {
    unlimited(world);
    world.set("AUDIT_QUERY_API_QUERIES__TIME", "100s");
    world.set("AUDIT_QUERY_API_HTTP__REQUEST_TIMEOUT", "200s");
}

/// A world whose servers are still to be named.
fn nowhere(name: &str, logs: &Path) -> anyhow::Result<World> {
    World::on(["127.0.0.1:1", "http://127.0.0.1:1"], name, logs.to_owned())
}
