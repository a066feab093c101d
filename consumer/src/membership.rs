//! Membership in the consumer group: one client, what it reads, and the partitions it is given.
//!
//! A membership is given up, and another one begun, when a commit made in it may still be on its way
//! twice: the broker refuses a commit of a member that has left. Whatever the partitions had under
//! way is found by the next owner, as after a death.

use std::sync::Arc;

use audit_service::tasks::Failure;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::assignments::{Assignments, Parts};
use crate::config::Config;
use crate::group::{self, GroupContext};
use crate::offsets::CLIENT_REPEATS;
use crate::source::Source;
use crate::topic::Topic;

/// Takes part in the group until `shutdown`, then finishes what is held within the configured
/// budget.
pub(crate) async fn run(
    config: &Config,
    parts: &Parts,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    loop {
        let given_up = CancellationToken::new();
        let consumer = Arc::new(join(config, &parts.topic, &config.kafka.instance)?);
        let (commands, obeyed) = mpsc::unbounded_channel();
        let (events, followed) = mpsc::unbounded_channel();
        let source = Source::new(
            Arc::clone(&consumer),
            &parts.topic,
            parts.incarnation,
            config.batch.clone(),
            (obeyed, events),
        );
        let assignments = Assignments::new(
            Arc::clone(&consumer),
            parts.clone(),
            commands,
            given_up.clone(),
        );
        let (stop, leave, budget) = (shutdown.clone(), given_up.clone(), config.shutdown.budget);
        let reading = tokio::task::spawn_blocking(move || source.run(&stop, &leave, budget));
        // It ends when the source has: what the source hands over at the end is still written.
        assignments.run(followed).await;
        reading.await?;
        // Leaving the group asks the broker, which may take a while.
        tokio::task::spawn_blocking(move || drop(consumer)).await?;
        if shutdown.is_cancelled() || !given_up.is_cancelled() {
            return Ok(());
        }
        tracing::warn!("left the group because a commit may have been sent twice; joining anew");
    }
}

/// A new client, which the broker will take for a new member; under a lasting name if `instance`
/// is not empty.
pub(crate) fn join(
    config: &Config,
    topic: &Topic,
    instance: &str,
) -> Result<BaseConsumer<GroupContext>, KafkaError> {
    let mut settings = topic.client_config();
    if !instance.is_empty() {
        settings.set("group.instance.id", instance);
    }
    let repeats = CLIENT_REPEATS.as_millis().to_string();
    let consumer: BaseConsumer<GroupContext> = settings
        .set("group.id", &config.kafka.group)
        .set(
            "session.timeout.ms",
            config.kafka.session_timeout.as_millis().to_string(),
        )
        // Members notice at a heartbeat that partitions are shared out anew.
        .set("heartbeat.interval.ms", "1000")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        // An aborted transaction's records are at offsets of their own like all others; hiding
        // them would also stop reading at the first transaction left open.
        .set("isolation.level", "read_uncommitted")
        .set("queued.max.messages.kbytes", "32768")
        // A partition that is read on after a pause waits for the fetch under way to end, and a
        // full queue for the next look at it: the defaults are 500 ms and 1 s.
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "10")
        .set("socket.timeout.ms", "10000")
        .set("retry.backoff.ms", &repeats)
        .set("retry.backoff.max.ms", &repeats)
        .set(group::LOGGED.0, group::LOGGED.1)
        .set_log_level(RDKafkaLogLevel::Debug)
        .create_with_context(GroupContext::default())?;
    consumer.subscribe(&[topic.name()])?;
    Ok(consumer)
}
