//! Kafka's client: what the producer asks of librdkafka, and what librdkafka tells.
//!
//! librdkafka tries an event until Kafka has it. What it reports as failed is therefore beyond
//! it: a missing topic or right, or a producer whose state the brokers lost. Then the client is
//! replaced, and what it held is sent again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::{ClientContext, Timestamp};

use audit_schema::wire;

use crate::config::ProducerConfig;
use crate::delivery::lock;
use crate::error::{CheckError, CreateError};
use crate::lane::Record;
use crate::receipt::Stored;
use crate::trouble::Trouble;

/// A connection to Kafka; clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    kafka: Arc<BaseProducer<Link>>,
    topic: Arc<str>,
}

/// What became of an event that the client took.
pub(crate) struct Report {
    /// The number it was sent under.
    pub(crate) number: u64,
    pub(crate) outcome: Result<Stored, KafkaError>,
    /// When Kafka took it, on its clock, in milliseconds since 1970; `None` where it does not say.
    pub(crate) taken_at_ms: Option<i64>,
}

/// Why an event was not taken.
pub(crate) enum NotTaken {
    /// The client holds as much as it may: later.
    Full,
    /// The client has to be replaced.
    Broken(KafkaError),
}

/// Receives what librdkafka tells.
pub(crate) struct Link {
    reports: Mutex<Vec<Report>>,
    topic: Arc<str>,
    trouble: Arc<Trouble>,
}

impl Client {
    /// Connects in the background; brokers that are away are no error.
    pub(crate) fn new(config: &ProducerConfig, trouble: Arc<Trouble>) -> Result<Self, CreateError> {
        let topic: Arc<str> = config.topic.as_str().into();
        let link = Link {
            reports: Mutex::default(),
            topic: topic.clone(),
            trouble,
        };
        let kafka = BaseProducer::from_config_and_context(&config.client_config()?, link)?;
        Ok(Self {
            kafka: Arc::new(kafka),
            topic,
        })
    }

    /// Takes a record; its report will carry `number`.
    pub(crate) fn send(&self, number: u64, record: &Record) -> Result<(), NotTaken> {
        let header = |key, value| Header { key, value };
        let mut headers = OwnedHeaders::new_with_capacity(2)
            .insert(header(wire::VERSION_HEADER, Some(wire::VERSION)));
        if record.maybe_delivered {
            headers = headers.insert(header(wire::MAYBE_DELIVERED_HEADER, Some("1")));
        }
        if let Some(parent) = record.trace_parent {
            let parent = parent.to_string();
            headers = headers.insert(header(wire::TRACE_PARENT_HEADER, Some(&parent)));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "64 bits on every machine librdkafka is built for here; others wrap after 2^32"
        )]
        let record = BaseRecord::with_opaque_to(&self.topic, number as usize)
            .key(&record.key)
            .payload(&record.value)
            .headers(headers);
        match self.kafka.send(record) {
            Ok(()) => Ok(()),
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Err(NotTaken::Full),
                _ => Err(NotTaken::Broken(error)),
            },
        }
    }

    /// Lets librdkafka tell, and gives what became of events. It does not wait: rdkafka's `poll`
    /// spins through a wait that is shorter than a millisecond, or what is left of a longer one.
    pub(crate) fn reports(&self) -> Vec<Report> {
        let reports = || lock(&self.link().reports);
        loop {
            let before = reports().len();
            // One call hears of one batch.
            self.kafka.poll(Duration::ZERO);
            if reports().len() == before {
                return std::mem::take(&mut reports());
            }
        }
    }

    /// Why the client takes nothing more, if it is so.
    pub(crate) fn fatal_error(&self) -> Option<String> {
        let (_, reason) = self.kafka.client().fatal_error()?;
        Some(reason)
    }

    /// Lets go of all events; each is reported.
    pub(crate) fn purge(&self) {
        self.kafka.purge(PurgeConfig::default().queue().inflight());
    }

    /// Asks the brokers for the topic, and waits up to `timeout` for the answer.
    pub(crate) fn check(&self, timeout: Duration) -> Result<(), CheckError> {
        let asked = self
            .kafka
            .client()
            .fetch_metadata(Some(&self.topic), timeout);
        let metadata = asked.map_err(|error| {
            let known = self.link().trouble.refusal();
            known.unwrap_or_else(|| CheckError::Unreachable(error.to_string()))
        })?;
        let topic = metadata.topics().first();
        if let Some(code) = topic.and_then(rdkafka::metadata::MetadataTopic::error) {
            let code = RDKafkaErrorCode::from(code);
            return Err(CheckError::of(code, &self.topic, &code.to_string()));
        }
        if topic.is_none_or(|topic| topic.partitions().is_empty()) {
            return Err(CheckError::NoTopic(self.topic.to_string()));
        }
        match self.link().trouble.refusal() {
            Some(not_allowed @ CheckError::NotAllowed(_)) => Err(not_allowed),
            _ => Ok(()),
        }
    }

    fn link(&self) -> &Link {
        self.kafka.context()
    }
}

impl ClientContext for Link {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "librdkafka: {message}");
            }
            // What matters of the rest is told once, as a trouble; librdkafka repeats it for each
            // broker and attempt.
            _ => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else {
            return;
        };
        let why = CheckError::of(code, &self.topic, reason);
        // One broker of several that is away keeps nothing from Kafka.
        if why.is_misconfigured() || code == RDKafkaErrorCode::AllBrokersDown {
            self.trouble.meet(why);
        }
    }
}

impl ProducerContext for Link {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let (outcome, taken_at_ms) = match result {
            Ok(record) => {
                let stored = Stored {
                    partition: record.partition(),
                    offset: record.offset(),
                };
                // Of a repetition that it had already Kafka does not tell the time: it says -1.
                let taken_at = match record.timestamp() {
                    Timestamp::LogAppendTime(at) if at > 0 => Some(at),
                    _ => None,
                };
                (Ok(stored), taken_at)
            }
            Err((error, _)) => (Err(error.clone()), None),
        };
        let report = Report {
            number: u64::try_from(number).unwrap_or(u64::MAX),
            outcome,
            taken_at_ms,
        };
        lock(&self.reports).push(report);
    }
}
