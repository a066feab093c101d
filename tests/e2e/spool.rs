//! Publishers that die while Kafka comes and goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use audit_tests::process::{Process, program, wait_until};
use audit_tests::server::Server;
use audit_tests::world::World;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;

const RATE: u64 = 2_000;

/// A Kafka of the test's own, which `world` uses.
pub(crate) async fn own_kafka(world: &World) -> anyhow::Result<Server> {
    let mut kafka = Server::kafka(world.logs())?;
    world.use_kafka(&kafka.address());
    kafka.run().await?;
    world.migrate()?;
    Ok(kafka)
}

/// Processes that publish one after the other, through one spool.
struct Publishers<'w> {
    world: &'w World,
    runs: u64,
    finished: Vec<String>,
    running: Option<Process>,
}

impl<'w> Publishers<'w> {
    fn new(world: &'w World) -> Self {
        Self {
            world,
            runs: 0,
            finished: Vec::new(),
            running: None,
        }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.runs += 1;
        let spool = self.world.logs().join("spool").display().to_string();
        let publisher = program("audit-publisher")?.display().to_string();
        let parent = std::process::id().to_string();
        let (rate, first) = (RATE.to_string(), (self.runs * 1_000_000).to_string());
        let brokers = self.world.brokers();
        let arguments = [
            "guard",
            &parent,
            "--",
            &publisher,
            "--brokers",
            &brokers,
            "--topic",
            &self.world.topic,
            "--spool",
            &spool,
            "--rate",
            &rate,
            "--first",
            &first,
        ];
        let mut command = self.world.command("audit-local", &arguments)?;
        let log = self
            .world
            .logs()
            .join(format!("publisher-{}.log", self.runs));
        self.running = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    fn running(&mut self) -> anyhow::Result<&mut Process> {
        self.running.as_mut().context("a publisher runs")
    }

    /// Waits until so many more events were said to be durable, in the way that `how` ends with.
    async fn promise(&mut self, more: usize, how: &'static str) -> anyhow::Result<()> {
        let running = self.running()?;
        let promised = |text: &str| {
            let lines = text.lines().filter(|line| line.starts_with("durable "));
            lines.filter(|line| line.ends_with(how)).count()
        };
        let before = promised(&running.printed());
        let enough = async || Ok((promised(&running.printed()) >= before + more).then_some(()));
        wait_until(&format!("{more} events {how}"), enough)
            .await
            .with_context(|| {
                let said = running.printed();
                said.lines().rev().take(5).collect::<Vec<_>>().join("\n")
            })
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.running.take().context("a publisher runs")?;
        process.kill()?;
        self.finished.push(process.printed());
        Ok(())
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        let mut process = self.running.take().context("a publisher runs")?;
        process.tell("stop")?;
        let closed = |line: &str| line.strip_prefix("closed ").map(ToOwned::to_owned);
        let left = process.says("a publisher that is closed", closed).await?;
        ensure!(left.contains("spooled: 0, given_up: 0"), "{left}");
        self.finished.push(process.printed());
        Ok(())
    }

    /// The ids of all events that were said to be durable.
    fn promised(&self) -> Vec<&str> {
        let lines = self.finished.iter().flat_map(|printed| printed.lines());
        lines
            .filter(|line| line.starts_with("durable "))
            .filter_map(|line| line.split(' ').nth(3))
            .collect()
    }
}

/// What was promised is there once, and the events of each key are in the order of publication.
async fn holds(world: &World, promised: &[&str]) -> anyhow::Result<()> {
    world.settled().await?;
    let rows = world
        .sql(
            "SELECT event_id, event_key, JSONExtractUInt(event_data, 'number') \
             FROM audit_events ORDER BY source_partition, source_offset",
        )
        .await?;
    let mut stored = HashMap::new();
    let mut of_keys: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for row in rows.lines() {
        let mut columns = row.split('\t');
        let mut column = || columns.next().context("three columns");
        let (id, key, number) = (column()?, column()?, column()?.parse()?);
        *stored.entry(id).or_insert(0) += 1;
        of_keys.entry(key).or_default().push(number);
    }
    let doubled = stored.values().filter(|times| **times > 1).count();
    let lost = promised
        .iter()
        .filter(|id| !stored.contains_key(**id))
        .count();
    ensure!(
        lost == 0 && doubled == 0,
        "{lost} of {} lost, {doubled} doubled",
        promised.len()
    );
    for (key, numbers) in of_keys {
        let late = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
        ensure!(late.is_none(), "{key}: {late:?}");
    }
    Ok(())
}

pub(crate) async fn a_publisher_killed_while_kafka_comes_and_goes_keeps_every_promise(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut kafka = own_kafka(&world).await?;
    let _consumer = world.consumer().await?;
    let mut publishers = Publishers::new(&world);

    publishers.start()?;
    publishers.promise(3_000, "").await?;
    // Killed while all is well, and while Kafka is away.
    publishers.kill()?;
    publishers.start()?;
    publishers.promise(1_000, "").await?;
    kafka.kill().await?;
    publishers.promise(3_000, "spooled").await?;
    publishers.kill()?;
    publishers.start()?;
    publishers.promise(3_000, "spooled").await?;
    // Killed while the spool is drained.
    kafka.run().await?;
    publishers.promise(500, "").await?;
    publishers.kill()?;
    publishers.start()?;
    // Kafka dies once more meanwhile, and is stopped in order.
    publishers.promise(2_000, "").await?;
    kafka.kill().await?;
    publishers.promise(500, "spooled").await?;
    kafka.run().await?;
    publishers.promise(2_000, "").await?;
    ensure!(kafka.process()?.stop(Signal::TERM).await?);
    publishers.promise(500, "spooled").await?;
    kafka.run().await?;
    publishers.close().await?;

    holds(&world, &publishers.promised()).await
}

pub(crate) async fn a_frozen_kafka_costs_nothing_and_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut kafka = own_kafka(&world).await?;
    let _consumer = world.consumer().await?;
    let mut publishers = Publishers::new(&world);
    publishers.start()?;
    for _ in 0..2 {
        publishers.promise(1_000, "").await?;
        kafka.process()?.freeze()?;
        publishers.promise(3_000, "spooled").await?;
        publishers.kill()?;
        publishers.start()?;
        publishers.promise(500, "spooled").await?;
        kafka.process()?.thaw()?;
    }
    publishers.promise(1_000, "").await?;
    publishers.close().await?;
    holds(&world, &publishers.promised()).await
}

/// Sends one event as the plugin does, which gives up after 3 s; gives the status.
async fn track(world: &World, url: &str, key: &str) -> anyhow::Result<StatusCode> {
    let answer = world
        .http()
        .post(format!("{url}/events/track"))
        .timeout(Duration::from_secs(3))
        .header("x-api-key", key)
        .json(&json!({"eventType": "user_signed_in", "eventKey": "u", "eventData": {"x": "y".repeat(200)}}))
        .send()
        .await?;
    Ok(answer.status())
}

pub(crate) async fn ingest_takes_events_without_kafka_and_delivers_them_when_it_is_there(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut kafka = own_kafka(&world).await?;
    let key = world.key("acme", &["write"])?;
    let folder = world.logs().join("spool");
    world.set(
        "AUDIT_INGEST_KAFKA__SPOOL__FOLDER",
        &folder.display().to_string(),
    );
    kafka.kill().await?;

    // Kafka is away when it starts, when it is killed, and when it starts again.
    for _ in 0..2 {
        let ingest = world.ingest().await?;
        for _ in 0..20 {
            ensure!(track(&world, &ingest.url, &key.secret).await? == StatusCode::OK);
        }
    }
    kafka.run().await?;
    let ingest = world.ingest().await?;
    ensure!(track(&world, &ingest.url, &key.secret).await? == StatusCode::OK);
    let _consumer = world.consumer().await?;
    world.stored(41).await?;

    // One that does not come back is drained by hand, and only then.
    kafka.kill().await?;
    for _ in 0..20 {
        ensure!(track(&world, &ingest.url, &key.secret).await? == StatusCode::OK);
    }
    let spool = folder.display().to_string();
    let refused = world.run("audit-ingest", &["drain", "--spool", &spool]);
    let reason = refused
        .err()
        .context("a spool in use is not drained")?
        .to_string();
    ensure!(reason.contains("is in use"), "{reason}");
    drop(ingest);
    kafka.run().await?;
    let said = world.run("audit-ingest", &["drain", "--spool", &spool])?;
    ensure!(said.contains("events of the spool"), "{said}");
    world.settled().await?;
    let rows = world
        .sql("SELECT count(), uniqExact(event_id) FROM audit_events")
        .await?;
    ensure!(rows == "61\t61", "{rows}");
    Ok(())
}

pub(crate) async fn what_a_full_spool_refuses_is_counted_and_reported_as_an_event(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let mut kafka = own_kafka(&world).await?;
    let _consumer = world.consumer().await?;
    let key = world.key("acme", &["write"])?;
    world.set("AUDIT_INGEST_KAFKA__SPOOL__MAX_BYTES", "8192");
    world.set("AUDIT_INGEST_KAFKA__MAX_BUFFERED_EVENTS", "8");
    let ingest = world.ingest().await?;
    ensure!(track(&world, &ingest.url, &key.secret).await? == StatusCode::OK);
    kafka.kill().await?;
    let (mut taken, mut refused) = (1, 0);
    while refused < 5 {
        match track(&world, &ingest.url, &key.secret).await? {
            StatusCode::OK => taken += 1,
            StatusCode::SERVICE_UNAVAILABLE => refused += 1,
            other => anyhow::bail!("{other}"),
        }
        ensure!(taken < 1_000, "a spool of 8 KiB is never full");
    }
    kafka.run().await?;
    world.stored(taken + 1).await?;
    let lost = "SELECT sum(JSONExtractUInt(event_data, 'count')), any(project_id), \
                any(JSONExtractString(event_data, 'eventType')) \
                FROM audit_events WHERE event_type = 'audit_events_lost'";
    let reported = world.sql(lost).await?;
    ensure!(
        reported == format!("{refused}\tacme\tuser_signed_in"),
        "{reported}"
    );
    Ok(())
}

pub(crate) async fn an_event_repeated_through_another_instance_is_stored_once(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write"])?;
    let _consumer = world.consumer().await?;
    let (one, other) = (world.ingest().await?, world.ingest().await?);
    let events: Vec<_> = (0..10)
        .map(|_| json!({"id": uuid::Uuid::now_v7(), "eventType": "invoice.paid", "eventKey": "i"}))
        .collect();
    let events = json!(events);
    for (times, ingest) in [&one, &other, &one].into_iter().enumerate() {
        let url = format!("{}/v1/events", ingest.url);
        let (status, answer) = world
            .ask(Method::POST, &url, &key.secret, Some(&events))
            .await?;
        ensure!(status == StatusCode::OK, "{answer}");
        // What was sent before is counted before it is sent again.
        world.settled().await?;
        let rows = world
            .sql("SELECT (SELECT count() FROM audit_events), (SELECT count() FROM audit_dead_letters WHERE kind = 'duplicate')")
            .await?;
        ensure!(rows == format!("10\t{}", times * 10), "{rows}");
    }
    Ok(())
}
