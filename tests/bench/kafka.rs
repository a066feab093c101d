//! The topic, what lies in it before a run, and the yardstick: rdkafka's own `FutureProducer` with
//! the same settings.

use std::time::Duration;

use anyhow::ensure;

use audit_producer::Producer;
use audit_schema::{Event, wire};
use audit_tests::world::World;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::events::{Shape, renewed};

/// The topic as `audit-consumer migrate` makes it.
pub(crate) async fn create_topic(world: &World) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    let topic = NewTopic::new(&world.topic, 6, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "LogAppendTime");
    admin
        .create_topics([&topic], &AdminOptions::new())
        .await?
        .into_iter()
        .try_for_each(|made| made.map(drop))
        .map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))
}

/// How long Kafka has to take the rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes so many events of a shape, as auth servers do, and waits until Kafka has them.
pub(crate) async fn preload(world: &World, shape: Shape, events: u64) -> anyhow::Result<()> {
    publish_all(&world.producer()?, &mut shape.pool(), events).await
}

/// Publishes so many of the pool's events as fast as Kafka takes them, and waits until it has all.
pub(crate) async fn publish_all(
    producer: &Producer,
    pool: &mut [Event<'static>],
    events: u64,
) -> anyhow::Result<()> {
    for number in 0..events {
        while producer.in_memory() > 50_000 {
            std::thread::sleep(Duration::from_micros(200));
        }
        drop(producer.publish(renewed(pool, number)));
    }
    ensure!(producer.flush(PATIENCE).await, "Kafka takes too long");
    Ok(())
}

/// What one would write without the producer crate.
pub(crate) struct Plain {
    producer: FutureProducer,
    topic: String,
}

impl Plain {
    pub(crate) fn new(world: &World) -> anyhow::Result<Self> {
        let mut config = world.kafka();
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2"),
            ("compression.type", "zstd"),
            ("linger.ms", "5"),
            ("queue.buffering.max.messages", "100000"),
        ] {
            config.set(name, value);
        }
        Ok(Self {
            producer: config.create()?,
            topic: world.topic.clone(),
        })
    }

    /// Encodes and sends; `None`: the queue is full.
    pub(crate) fn send(&self, event: &Event<'_>) -> Option<DeliveryFuture> {
        let (key, value) = (wire::key(event), wire::encode(event).ok()?);
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header {
            key: wire::VERSION_HEADER,
            value: Some(wire::VERSION),
        });
        let record = FutureRecord::to(&self.topic)
            .key(&key)
            .payload(&value)
            .headers(headers);
        self.producer.send_result(record).ok()
    }

    /// How many events are under way.
    pub(crate) fn under_way(&self) -> i32 {
        use rdkafka::producer::Producer as _;
        self.producer.in_flight_count()
    }
}
