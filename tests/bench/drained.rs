//! One drain of a topic that was filled before: by our consumer, or by ClickHouse's own engine.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use audit_tests::process::Process;
use audit_tests::world::World;

use crate::cpu;
use crate::events::Shape;
use crate::kafka::preload;
use crate::peer::Peer;
use crate::plain;
use crate::stage::Stage;

/// How often it is counted how many rows there are. A count is read from the parts' headers.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// How long rows may fail to come before a drain is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the peer may keep rows: the shortest that still lets its blocks fill.
const PEER_FLUSH: Duration = Duration::from_secs(1);

/// A topic full of records.
pub(crate) struct Backlog {
    topic: String,
    partitions: u32,
    pub(crate) events: u64,
}

/// What a drain took.
pub(crate) struct Drained {
    /// From the start of what drains until every row could be read.
    pub(crate) seconds: f64,
    /// Rows a second from the first that could be read.
    pub(crate) flowing: f64,
    /// CPU of the consumers, from their start.
    pub(crate) consumer: f64,
    pub(crate) engine: f64,
    pub(crate) broker: f64,
    /// A hash over all different rows, in any order, without the time they were inserted at.
    pub(crate) rows: String,
}

impl Backlog {
    /// A topic with so many events.
    pub(crate) async fn fill(
        stage: &Stage,
        shape: Shape,
        partitions: u32,
        events: u64,
    ) -> anyhow::Result<Self> {
        let name = format!("{}_{partitions}", shape.name());
        eprintln!(
            "{events} {} events to {partitions} partitions",
            shape.name()
        );
        let world = stage.world(&name)?;
        let topic = world.topic.clone();
        let backlog = Self {
            topic,
            partitions,
            events,
        };
        let world = backlog.world(stage, &name)?;
        world.migrate()?;
        preload(&world, shape, events).await?;
        world.drop_database().await?;
        Ok(backlog)
    }

    /// A world of this topic with a database, and a group, that are its own.
    fn world(&self, stage: &Stage, name: &str) -> anyhow::Result<World> {
        let mut world = stage.world(name)?;
        world.topic.clone_from(&self.topic);
        world.set("AUDIT_CONSUMER_KAFKA__GROUP", &world.database);
        let partitions = self.partitions.to_string();
        world.set("AUDIT_CONSUMER_TOPIC__PARTITIONS", &partitions);
        Ok(world)
    }

    /// Drains it by so many consumers, into tables that are made for it, and checks that each event
    /// is there once. `run` tells drains of one topic apart.
    pub(crate) async fn by_us(
        &self,
        stage: &mut Stage,
        consumers: usize,
        run: usize,
    ) -> anyhow::Result<Drained> {
        let world = self.world(stage, &self.name(run))?;
        world.migrate()?;
        self.drain_into(&world, stage, consumers).await
    }

    /// The same by one consumer, into the table without indexes and projections.
    pub(crate) async fn by_us_plain(
        &self,
        stage: &mut Stage,
        run: usize,
    ) -> anyhow::Result<Drained> {
        let world = self.world(stage, &format!("{}_plain", self.name(run)))?;
        world.migrate()?;
        plain::without_indexes(&world).await?;
        self.drain_into(&world, stage, 1).await
    }

    async fn drain_into(
        &self,
        world: &World,
        stage: &mut Stage,
        consumers: usize,
    ) -> anyhow::Result<Drained> {
        let usage = Usage::now(stage)?;
        let started = Instant::now();
        let processes: Vec<Process> = (0..consumers)
            .map(|_| world.start("audit-consumer"))
            .collect::<anyhow::Result<_>>()?;
        let mut drained = self.wait(world, "audit_events", started).await?;
        for process in &processes {
            drained.consumer += cpu::seconds(process)?;
        }
        usage.add_to(&mut drained, stage)?;
        drop(processes);
        let counted =
            "SELECT count(), uniqExact(source_partition, source_offset) FROM audit_events";
        let counted = world.sql(counted).await?;
        let wanted = format!("{0}\t{0}", self.events);
        ensure!(counted == wanted, "rows and positions: {counted}");
        drained.rows = rows(world, "audit_events").await?;
        world.drop_database().await?;
        Ok(drained)
    }

    /// Drains it by ClickHouse's Kafka engine. Some rows may be there twice.
    pub(crate) async fn by_peer(&self, stage: &mut Stage, run: usize) -> anyhow::Result<Drained> {
        let world = self.world(stage, &self.name(run))?;
        world.migrate()?;
        let usage = Usage::now(stage)?;
        let started = Instant::now();
        let peer = Peer::start(&world, &format!("peer_{}", self.name(run)), PEER_FLUSH).await?;
        let mut drained = self.wait(&world, &peer.table(), started).await?;
        usage.add_to(&mut drained, stage)?;
        drained.rows = rows(&world, &peer.table()).await?;
        peer.end(&world).await?;
        world.drop_database().await?;
        Ok(drained)
    }

    fn name(&self, run: usize) -> String {
        let topic = self.topic.trim_start_matches("e2e.");
        format!("{topic}_{run}")
    }

    /// Waits until all rows can be read.
    async fn wait(&self, world: &World, table: &str, started: Instant) -> anyhow::Result<Drained> {
        let count = format!("SELECT count() FROM {table}");
        let (mut first, mut rows, mut grown) = (None, 0, started);
        loop {
            let now: u64 = world.sql(&count).await?.parse()?;
            if now > rows {
                (rows, grown) = (now, Instant::now());
                first.get_or_insert((now, grown));
            }
            if rows >= self.events {
                break;
            }
            if grown.elapsed() > PATIENCE {
                bail!("{rows} of {} rows, and no more come", self.events);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let flowing = first.filter(|(before, _)| *before < rows);
        #[expect(clippy::cast_precision_loss, reason = "far fewer rows")]
        let rate = |rows: u64, since: Instant| rows as f64 / (grown - since).as_secs_f64();
        Ok(Drained {
            seconds: (grown - started).as_secs_f64(),
            // Few rows may all come at once.
            flowing: flowing.map_or_else(
                || rate(rows, started),
                |(before, since)| rate(rows - before, since),
            ),
            consumer: 0.0,
            engine: 0.0,
            broker: 0.0,
            rows: String::new(),
        })
    }
}

/// What the servers had used before.
struct Usage {
    engine: f64,
    broker: f64,
}

impl Usage {
    fn now(stage: &mut Stage) -> anyhow::Result<Self> {
        Ok(Self {
            engine: stage.engine_cpu()?,
            broker: stage.broker_cpu()?,
        })
    }

    fn add_to(&self, drained: &mut Drained, stage: &mut Stage) -> anyhow::Result<()> {
        drained.engine = stage.engine_cpu()? - self.engine;
        drained.broker = stage.broker_cpu()? - self.broker;
        Ok(())
    }
}

async fn rows(world: &World, table: &str) -> anyhow::Result<String> {
    let hash = format!(
        "SELECT groupBitXor(hash) FROM \
         (SELECT DISTINCT cityHash64(* EXCEPT ingested_at) AS hash FROM {table})"
    );
    world.sql(&hash).await
}
