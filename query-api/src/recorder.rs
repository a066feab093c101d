//! Reads of the log are events of the log: who took what away, and if configured, who looked.
//!
//! They go the way of all events, through the producer, which never waits: an answer is as fast
//! with them as without, and while Kafka is away they lie in its spool. An export is recorded when
//! it begins, because what was sent of a file that broke has been read as well.

use audit_producer::Producer;
use audit_schema::{Actor, Event, EventData, EventType};
use audit_service::traces;
use futures_util::FutureExt;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::caller::Caller;
use crate::config::Audit;
use crate::metrics;
use crate::query_string::QueryString;

/// What an API key is called as an actor.
const API_KEY: &str = "api_key";

/// Records reads.
pub(crate) struct Recorder {
    producer: Option<Producer>,
    audit: Audit,
}

/// A read that is to be recorded when it was answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Read {
    #[serde(skip)]
    kind: EventType<'static>,
    /// What the caller did, for people.
    #[serde(skip)]
    did: &'static str,
    /// Which operation of the API.
    operation: &'static str,
    /// Its parameters, each with its values.
    question: Map<String, Value>,
}

impl Recorder {
    /// Records what `audit` says, through `producer`; nothing without one.
    pub(crate) fn new(producer: Option<Producer>, audit: Audit) -> Self {
        Self { producer, audit }
    }

    /// Somebody asks to read events; `None` if that is not recorded.
    pub(crate) fn read(&self, operation: &'static str, query: &QueryString) -> Option<Read> {
        self.audit.reads.then(|| Read {
            kind: EventType::AUDIT_LOG_READ,
            did: "read events",
            operation,
            question: query.question(),
        })
    }

    /// Somebody asks to take events away; `None` if that is not recorded.
    pub(crate) fn export(&self, operation: &'static str, query: &QueryString) -> Option<Read> {
        self.audit.exports.then(|| Read {
            kind: EventType::AUDIT_LOG_EXPORTED,
            did: "exported events",
            operation,
            question: query.question(),
        })
    }

    /// Records what `caller` was given, if it is to be.
    pub(crate) fn record(&self, caller: &Caller, read: Option<Read>) {
        let (Some(producer), Some(read)) = (&self.producer, read) else {
            return;
        };
        let event = || {
            let data = EventData::of(&read)?;
            Event::builder(caller.reach.project.clone(), read.kind.clone())
                .event_key(caller.key_name.clone())
                .event_display_name(format!("API key {} {}", caller.key_name, read.did))
                .actor(Actor {
                    id: caller.key_name.clone().into(),
                    kind: API_KEY.into(),
                })
                .organization_id(caller.reach.organization.clone().unwrap_or_default())
                .request_id(caller.request_id.clone())
                .event_data(data)
                .trace_parent(traces::current())
                .build()
        };
        let refused = match event() {
            // That it is durable is the producer's business; nobody waits for it here.
            Ok(event) => match producer.publish(&event).now_or_never() {
                Some(Err(refused)) => refused.to_string(),
                _ => return,
            },
            Err(invalid) => invalid.to_string(),
        };
        metrics::unrecorded();
        tracing::error!(reason = refused, "a read of the log was not recorded");
    }
}
