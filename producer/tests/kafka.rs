//! The producer against librdkafka's mock cluster: real client, real protocol.
#![expect(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use audit_producer::{
    CheckError, Durability, DurabilityConfig, LeftBehind, Producer, ProducerConfig, Published,
    Refused, SpoolConfig, Stored,
};
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

fn stored(answer: Result<Published, Refused>) -> Stored {
    match answer {
        Ok(Published::Stored(stored)) => stored,
        other => panic!("{other:?}"),
    }
}

/// What the topic holds from its start: each record's payload, and whether it is flagged.
async fn records(cluster: &Cluster, count: usize) -> Vec<(Vec<u8>, bool)> {
    let consumer = reader(cluster);
    let mut records = Vec::new();
    for _ in 0..count {
        let record = consumer.recv().await.unwrap();
        let headers = record.headers().unwrap();
        let flagged = headers
            .iter()
            .any(|header| header.key == wire::MAYBE_DELIVERED_HEADER);
        records.push((record.payload().unwrap().to_vec(), flagged));
    }
    records
}

fn reader(cluster: &Cluster) -> StreamConsumer {
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
    consumer
}

#[tokio::test]
async fn a_stored_event_has_a_position() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    let (first, second) = (producer.publish(&event("u")), producer.publish(&event("u")));
    assert_eq!(stored(first.await).offset, 0);
    assert_eq!(stored(second.await).offset, 1);
}

#[tokio::test]
async fn a_record_is_the_encoded_event_under_its_key() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    let (once, again) = (event("u"), event("unknown"));
    producer.publish(&once).await.unwrap();
    producer.publish_maybe_delivered(&again).await.unwrap();

    let consumer = reader(&cluster);
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
        let one = stored(producer.publish(&event(&key)).await);
        let other = stored(producer.publish(&event(&key)).await);
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
    assert!(producer.flush(PATIENCE).await);
    assert_eq!(stored(producer.publish(&event("u")).await).offset, 1);
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
        Err(Refused::BufferFull)
    );
    assert!(!producer.flush(Duration::ZERO).await);
    assert_eq!(producer.in_memory(), 2);
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
    assert!(matches!(refused, Err(Refused::TooLarge(_))), "{refused:?}");
}

#[tokio::test]
async fn a_closed_producer_has_delivered_and_takes_nothing_more() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    let before = producer.publish(&event("u"));
    assert_eq!(producer.close(PATIENCE).await, LeftBehind::default());
    assert!(before.await.is_ok());
    assert_eq!(producer.publish(&event("u")).await, Err(Refused::Closed));
}

#[tokio::test]
async fn closing_gives_up_what_kafka_did_not_confirm_if_there_is_no_spool() {
    let producer = unreachable(ProducerConfig::default());
    let receipt = producer.publish(&event("u"));
    let left = producer.close(Duration::ZERO).await;
    assert_eq!((left.spooled, left.given_up), (0, 1));
    assert_eq!(receipt.await, Err(Refused::GivenUp));
}

/// A producer with a spool in `folder`, whose events go there at once.
fn spooling(folder: &tempfile::TempDir) -> ProducerConfig {
    ProducerConfig {
        spool: Some(SpoolConfig {
            after: Duration::ZERO,
            ..SpoolConfig::at(folder.path())
        }),
        ..ProducerConfig::default()
    }
}

#[tokio::test]
async fn what_kafka_does_not_take_is_spooled_and_delivered_by_the_next_process_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let events: Vec<_> = (0..20).map(|_| event("u")).collect();
    let away = unreachable(spooling(&folder));
    for event in &events {
        assert_eq!(away.publish(event).await, Ok(Published::Spooled));
    }
    let left = away.close(Duration::ZERO).await;
    assert_eq!((left.spooled, left.given_up), (20, 0));

    let cluster = cluster(1);
    let next = ProducerConfig {
        brokers: cluster.bootstrap_servers(),
        ..spooling(&folder)
    };
    let producer = Producer::new(&next).unwrap();
    let newer = event("u");
    drop(producer.publish(&newer));
    assert!(producer.flush(PATIENCE).await);
    assert_eq!(producer.in_spool(), 0);
    let mut expected: Vec<_> = events
        .iter()
        .map(|e| (wire::encode(e).unwrap(), true))
        .collect();
    expected.push((wire::encode(&newer).unwrap(), false));
    assert_eq!(records(&cluster, 21).await, expected);
}

#[tokio::test]
async fn a_dropped_producer_leaves_what_is_under_way_in_its_spool() {
    let folder = tempfile::tempdir().unwrap();
    let config = ProducerConfig {
        spool: Some(SpoolConfig::at(folder.path())),
        ..ProducerConfig::default()
    };
    let receipt = unreachable(config).publish(&event("u"));
    assert_eq!(receipt.await, Ok(Published::Spooled));
}

#[tokio::test]
async fn a_client_that_lost_its_place_is_replaced_and_nothing_is_lost() {
    let cluster = cluster(1);
    let producer = producer(&cluster);
    let before = event("u");
    producer.publish(&before).await.unwrap();
    let lost = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
    cluster.request_errors(RDKafkaApiKey::Produce, &lost);
    let events: Vec<_> = (0..10).map(|_| event("u")).collect();
    let receipts: Vec<_> = events.iter().map(|event| producer.publish(event)).collect();
    for receipt in receipts {
        stored(receipt.await);
    }
    let mut expected = vec![wire::encode(&before).unwrap()];
    expected.extend(events.iter().map(|event| wire::encode(event).unwrap()));
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for (value, _) in records(&cluster, 11).await {
        taken.push(value);
    }
    assert_eq!(taken, expected);
}

#[tokio::test]
async fn what_had_to_be_dropped_is_reported_when_kafka_is_back() {
    let cluster = cluster(1);
    let best_effort = DurabilityConfig {
        default: Durability::BestEffort,
        ..DurabilityConfig::default()
    };
    let producer = Producer::new(&ProducerConfig {
        max_buffered_events: 1,
        durability: best_effort,
        ..config(&cluster)
    })
    .unwrap();
    let kept = event("u");
    let receipt = producer.publish(&kept);
    for _ in 0..3 {
        assert_eq!(
            producer.publish(&event("u")).await,
            Err(Refused::BufferFull)
        );
    }
    stored(receipt.await);
    let (value, _) = records(&cluster, 2).await.remove(1);
    let report = wire::decode(&value, None).unwrap();
    assert_eq!(report.event_type, EventType::AUDIT_EVENTS_LOST);
    assert_eq!(report.project_id, kept.project_id);
    let data = report.event_data.get();
    assert!(
        data.starts_with(
            r#"{"eventType":"user_signed_in","reason":"buffer_full","count":3,"firstAt":""#
        ),
        "{data}"
    );
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
