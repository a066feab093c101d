//! Kafka behind TLS, logins and rights.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use audit_producer::{CheckError, Producer, ProducerConfig};
use audit_tests::process::wait_until;
use audit_tests::secured_kafka::{STRANGER, SecuredKafka, WRITER};
use audit_tests::world::World;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;

/// Lets the services started from now on reach Kafka through a secured listener.
fn secure(world: &World, brokers: &str, properties: &[(&str, String)]) {
    for service in ["INGEST", "CONSUMER"] {
        let name = |key: &str| format!("AUDIT_{service}_KAFKA__{key}");
        world.set(&name("BROKERS"), brokers);
        for (property, value) in properties {
            let property = property.to_uppercase().replace('.', "_");
            world.set(&name(&format!("PROPERTIES__{property}")), value);
        }
    }
}

pub(crate) async fn events_travel_over_tls_under_every_kind_of_login(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let kafka = SecuredKafka::start(&world).await?;
    world.use_kafka(&kafka.server.address());
    world.migrate()?;
    let key = world.key("acme", &["write"])?;
    let secret = world.logs().join("kafka-password");
    std::fs::write(&secret, format!("{}\n", WRITER.1))?;
    for (events, (brokers, mut properties)) in (1..).zip(kafka.ways_in()) {
        for (name, value) in &mut properties {
            if *name == "sasl.password" {
                *value = format!("file:{}", secret.display());
            }
        }
        secure(&world, brokers, &properties);
        let (mut consumer, ingest) = (world.consumer().await?, world.ingest().await?);
        let url = format!("{}/events/track", ingest.url);
        let event = json!({"eventType": "user_signed_in", "eventKey": "u"});
        let (status, answer) = world
            .ask(Method::POST, &url, &key.secret, Some(&event))
            .await?;
        ensure!(status == StatusCode::OK, "{brokers}: {answer}");
        world.stored(events).await?;
        for process in [&consumer, &ingest.process] {
            ensure!(
                !process.printed().contains(WRITER.1),
                "a password is logged"
            );
        }
        // The next one need not wait for its session to end.
        ensure!(consumer.stop(Signal::TERM).await?);
    }
    Ok(())
}

/// Whether a check says what it should.
type Expected = fn(&CheckError) -> bool;

fn producer(
    kafka: &SecuredKafka,
    login: (&str, &str),
    ca: &Path,
    topic: &str,
) -> anyhow::Result<Producer> {
    let mut config = ProducerConfig {
        brokers: kafka.brokers.clone(),
        topic: topic.to_owned(),
        ..ProducerConfig::default()
    };
    for (property, value) in kafka.properties(login) {
        config.properties.insert(property.to_owned(), value);
    }
    let ca = ca.display().to_string();
    config.properties.insert("ssl.ca.location".to_owned(), ca);
    Ok(Producer::new(&config)?)
}

pub(crate) async fn what_keeps_a_producer_from_kafka_is_named(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let kafka = SecuredKafka::start(&world).await?;
    world.use_kafka(&kafka.server.address());
    world.migrate()?;
    let (topic, ca) = (world.topic.as_str(), kafka.ca.as_path());
    let wrong_password = (WRITER.0, "wrong");
    let cases: [(&str, Producer, Expected); 4] = [
        (
            "a wrong password",
            producer(&kafka, wrong_password, ca, topic)?,
            |why| matches!(why, CheckError::LoginRefused(_)),
        ),
        (
            "another authority",
            producer(&kafka, WRITER, &kafka.other_ca, topic)?,
            |why| matches!(why, CheckError::LoginRefused(_)),
        ),
        ("no right", producer(&kafka, STRANGER, ca, topic)?, |why| {
            matches!(why, CheckError::NotAllowed(_))
        }),
        (
            "no topic",
            producer(&kafka, WRITER, ca, "another")?,
            |why| matches!(why, CheckError::NoTopic(_)),
        ),
    ];
    for (case, producer, is_expected) in cases {
        let checked = wait_until(case, async || {
            let producer = producer.clone();
            let check = move || producer.check(Duration::from_secs(2));
            match tokio::task::spawn_blocking(check).await? {
                Err(why) if is_expected(&why) => Ok(Some(why)),
                other => anyhow::bail!("{other:?}"),
            }
        });
        checked.await?;
    }
    Ok(())
}

pub(crate) async fn a_wrong_password_is_said_once_and_events_wait_in_the_spool(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let kafka = SecuredKafka::start(&world).await?;
    world.use_kafka(&kafka.server.address());
    world.migrate()?;
    let key = world.key("acme", &["write"])?;
    let spool = world.logs().join("spool").display().to_string();
    world.set("AUDIT_INGEST_KAFKA__SPOOL__FOLDER", &spool);
    secure(
        &world,
        &kafka.brokers,
        &kafka.properties((WRITER.0, "wrong")),
    );
    let ingest = world.ingest().await?;
    let url = format!("{}/events/track", ingest.url);
    let event = json!({"eventType": "user_signed_in", "eventKey": "u"});
    for _ in 0..3 {
        // Each takes as long as Kafka may take, or is spooled at once.
        let (status, answer) = world
            .ask(Method::POST, &url, &key.secret, Some(&event))
            .await?;
        ensure!(status == StatusCode::OK, "{answer}");
    }
    let said = |line: &str| {
        line.contains("until this is mended")
            .then(|| line.to_owned())
    };
    let complaint = ingest.process.says("what is to be mended", said).await?;
    ensure!(complaint.contains("refuses the connection"), "{complaint}");
    let all = ingest.process.printed();
    let times = all.lines().filter_map(said).count();
    ensure!(times == 1, "said {times} times");
    drop(ingest);

    secure(&world, &kafka.brokers, &kafka.properties(WRITER));
    let (_consumer, _ingest) = (world.consumer().await?, world.ingest().await?);
    world.stored(3).await
}
