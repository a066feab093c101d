//! The producer against librdkafka's mock cluster: real client, real protocol.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use audit_producer::{CheckError, Producer, ProducerConfig, PublishError, Stored};
use audit_schema::{Event, EventData, EventType, wire};
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

/// Long enough that only a broken test reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(wire::TOPIC, partitions, 1).unwrap();
    cluster
}

fn config(cluster: &Cluster) -> ProducerConfig {
    ProducerConfig {
        brokers: cluster.bootstrap_servers(),
        ..ProducerConfig::default()
    }
}

fn producer(cluster: &Cluster) -> Producer {
    Producer::new(&config(cluster)).unwrap()
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn unreachable(config: ProducerConfig) -> Producer {
    Producer::new(&ProducerConfig {
        brokers: nobody(),
        ..config
    })
    .unwrap()
}

fn event(key: &str) -> Event<'static> {
    Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN)
        .event_key(key.to_owned())
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_stored_event_has_a_position() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    let (first, second) = (producer.publish(&event("u")), producer.publish(&event("u")));
    assert_eq!(
        first.await,
        Ok(Stored {
            partition: 0,
            offset: 0
        })
    );
    assert_eq!(
        second.await,
        Ok(Stored {
            partition: 0,
            offset: 1
        })
    );
}

#[tokio::test]
async fn a_record_is_the_encoded_event_under_its_key() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    let (once, again) = (event("u"), event("unknown"));
    producer.publish(&once).await.unwrap();
    producer.publish_maybe_delivered(&again).await.unwrap();

    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut from_start = TopicPartitionList::new();
    from_start
        .add_partition_offset(wire::TOPIC, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&from_start).unwrap();
    for (sent, maybe_delivered) in [(once, false), (again, true)] {
        let record = consumer.recv().await.unwrap();
        assert_eq!(record.key(), Some(wire::key(&sent).as_bytes()));
        assert_eq!(
            record.payload(),
            Some(wire::encode(&sent).unwrap().as_slice())
        );
        let headers = record.headers().unwrap();
        let value = |name| {
            headers
                .iter()
                .find(|header| header.key == name)
                .map(|h| h.value)
        };
        assert_eq!(
            value(wire::VERSION_HEADER),
            Some(Some(wire::VERSION.as_bytes()))
        );
        assert_eq!(
            value(wire::MAYBE_DELIVERED_HEADER).is_some(),
            maybe_delivered
        );
    }
}

#[tokio::test]
async fn events_of_one_key_share_a_partition() {
    let cluster = cluster(6);
    let producer = producer(&cluster);
    let mut partitions = std::collections::BTreeSet::new();
    for key in 0..20 {
        let key = format!("user-{key}");
        let one = producer.publish(&event(&key)).await.unwrap();
        let other = producer.publish(&event(&key)).await.unwrap();
        assert_eq!(one.partition, other.partition, "{key}");
        partitions.insert(one.partition);
    }
    assert!(partitions.len() > 1, "{partitions:?}");
}

#[tokio::test]
async fn an_event_is_delivered_without_its_receipt() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    drop(producer.publish(&event("u")));
    assert_eq!(producer.flush(PATIENCE).await, 0);
    assert_eq!(producer.publish(&event("u")).await.unwrap().offset, 1);
}

#[tokio::test]
async fn a_full_buffer_is_said_at_once() {
    let producer = unreachable(ProducerConfig {
        max_buffered_events: 2,
        ..ProducerConfig::default()
    });
    drop(producer.publish(&event("u")));
    drop(producer.publish(&event("u")));
    assert_eq!(
        producer.publish(&event("u")).await,
        Err(PublishError::BufferFull)
    );
    assert_eq!(producer.flush(Duration::ZERO).await, 2);
}

#[tokio::test]
async fn an_event_over_the_limit_is_refused() {
    let cluster = cluster(1);
    let data = EventData::parse(&format!(
        "{{\"x\":\"{}\"}}",
        "y".repeat(wire::MAX_EVENT_BYTES)
    ));
    let large = Event {
        event_data: data.unwrap(),
        ..event("u")
    };
    let refused = producer(&cluster).publish(&large).await;
    assert!(
        matches!(refused, Err(PublishError::TooLarge(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_closed_producer_has_delivered_and_takes_nothing_more() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    let before = producer.publish(&event("u"));
    assert_eq!(producer.close(PATIENCE).await, 0);
    assert!(before.await.is_ok());
    assert_eq!(
        producer.publish(&event("u")).await,
        Err(PublishError::Closed)
    );
}

#[tokio::test]
async fn closing_gives_up_what_kafka_did_not_confirm_in_time() {
    let producer = unreachable(ProducerConfig::default());
    let receipt = producer.publish(&event("u"));
    assert_eq!(producer.close(Duration::ZERO).await, 1);
    let answer = receipt.await;
    assert!(
        matches!(answer, Err(PublishError::Undelivered { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn without_brokers_a_receipt_says_undelivered_after_the_timeout() {
    let cluster = cluster(1);
    // A first delivery takes about a second: the client asks for its producer id.
    let delivery_timeout = Duration::from_secs(2);
    let producer = Producer::new(&ProducerConfig {
        delivery_timeout,
        ..config(&cluster)
    })
    .unwrap();
    producer.publish(&event("u")).await.unwrap();
    cluster.broker_down(1).unwrap();
    let started = std::time::Instant::now();
    let answer = producer.publish(&event("u")).await;
    assert!(
        matches!(answer, Err(PublishError::Undelivered { .. })),
        "{answer:?}"
    );
    assert!(started.elapsed() >= delivery_timeout);
}

#[tokio::test]
async fn a_producer_that_lost_its_place_says_that_it_is_broken() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    producer.publish(&event("u")).await.unwrap();
    let lost = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
    cluster.request_errors(RDKafkaApiKey::Produce, &lost);
    assert!(producer.publish(&event("u")).await.is_err());
    let answer = producer.publish(&event("u")).await;
    assert!(
        matches!(answer, Err(PublishError::Broken { .. })),
        "{answer:?}"
    );
    assert!(matches!(
        producer.check(PATIENCE),
        Err(CheckError::Broken(_))
    ));
}

#[tokio::test]
async fn a_check_tells_a_missing_topic_from_missing_brokers() {
    let cluster = cluster(1);
    assert_eq!(producer(&cluster).check(PATIENCE), Ok(()));
    let elsewhere = ProducerConfig {
        topic: "another".to_owned(),
        ..config(&cluster)
    };
    let missing = Producer::new(&elsewhere).unwrap().check(PATIENCE);
    assert_eq!(missing, Err(CheckError::NoTopic("another".to_owned())));
    let away = unreachable(ProducerConfig::default()).check(Duration::from_millis(100));
    assert!(matches!(away, Err(CheckError::Unreachable(_))), "{away:?}");
}
