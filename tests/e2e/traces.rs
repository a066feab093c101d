//! Traces: what a collector is told of an event's way, and what happens without one.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use audit_tests::world::{Key, PARTITIONS, World};
use rustix::process::Signal;

const SERVICES: [&str; 3] = ["INGEST", "CONSUMER", "QUERY_API"];

/// What the collector wants to see.
const TOKEN: &str = "a-token-of-the-collector";

/// A collector that keeps what it is told over OTLP, whose definition is OpenTelemetry's own.
struct Collector {
    url: String,
    told: Arc<Mutex<Vec<Span>>>,
    /// Ends with it.
    _serving: JoinSet<std::io::Result<()>>,
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let told = Arc::default();
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&told));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let mut serving = JoinSet::new();
        serving.spawn(axum::serve(listener, routes).into_future());
        Ok(Self {
            url,
            told,
            _serving: serving,
        })
    }

    fn told(&self) -> Vec<Span> {
        self.told.lock().unwrap().clone()
    }
}

async fn take(
    State(told): State<Arc<Mutex<Vec<Span>>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), StatusCode> {
    if headers.get("x-token").is_none_or(|token| token != TOKEN) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let scopes = request.resource_spans.into_iter();
    let spans = scopes
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans);
    told.lock().unwrap().extend(spans);
    Ok(())
}

/// Sends an event in a trace.
async fn send(world: &World, url: &str, key: &Key, parent: &str) -> anyhow::Result<()> {
    let event = json!({"eventType": "user_signed_in", "eventKey": "ann", "userId": "ann",
        "identifier": "ann@example.com"});
    let request = world.http().post(format!("{url}/v1/events"));
    let request = request
        .header("x-api-key", &key.secret)
        .header("traceparent", parent);
    let answer = request.json(&event).send().await?;
    ensure!(
        answer.status() == StatusCode::OK,
        "{}",
        answer.text().await?
    );
    Ok(())
}

/// The header `traceparent` of the only record of a world.
fn header_of_the_record(world: &World) -> anyhow::Result<Option<String>> {
    let mut config = world.kafka();
    config.set("group.id", "looks-at-headers");
    let reader: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(&world.topic, partition, Offset::Beginning)?;
    }
    reader.assign(&all)?;
    let record = reader.iter().next().context("a record")??;
    let headers = record.headers().context("headers")?;
    let header = headers.iter().find(|header| header.key == "traceparent");
    let value = header.and_then(|header| header.value);
    Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()))
}

fn named<'a>(spans: &'a [Span], name: &str) -> anyhow::Result<&'a Span> {
    let found = spans.iter().find(|span| span.name == name);
    found.with_context(|| {
        let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
        format!("no span {name} among {names:?}")
    })
}

fn hex(bytes: &[u8]) -> String {
    let digits = |text, byte| format!("{text}{byte:02x}");
    bytes.iter().fold(String::new(), digits)
}

fn links_to(span: &Span, other: &Span) -> bool {
    let place = (&other.trace_id, &other.span_id);
    span.links
        .iter()
        .any(|link| (&link.trace_id, &link.span_id) == place)
}

pub(crate) async fn a_trace_leads_from_a_request_to_its_insert(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    for service in SERVICES {
        let setting = |name| format!("AUDIT_{service}_TELEMETRY__TRACES__{name}");
        world.set(&setting("ENDPOINT"), &collector.url);
        world.set(&setting("HEADERS__X_TOKEN"), TOKEN);
        world.set(&setting("SAMPLING"), "0");
    }
    world.migrate()?;
    let key = world.key("acme", &["write", "read"])?;
    let mut consumer = world.consumer().await?;
    let mut ingest = world.ingest().await?;
    let mut api = world.query_api().await?;

    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let sampled = |trace: &str| format!("00-{trace}-00f067aa0ba902b7-01");
    send(&world, &ingest.url, &key, &sampled(trace)).await?;
    world.settled().await?;
    let asked = "0af7651916cd43dd8448eb211c80319c";
    for (parent, limit) in [(sampled(asked), 1), ("no traceparent".to_owned(), 2)] {
        let url = format!("{}/v1/audit-logs?userId=ann&limit={limit}", api.url);
        let request = world.http().get(url).header("x-api-key", &key.secret);
        let answer = request.header("traceparent", parent).send().await?;
        ensure!(answer.status() == StatusCode::OK);
    }
    // What is left is told at the end.
    for process in [&mut ingest.process, &mut consumer, &mut api.process] {
        ensure!(process.stop(Signal::TERM).await?);
        ensure!(!process.printed().contains(TOKEN), "a secret is logged");
    }

    let spans = collector.told();
    let request = named(&spans, "POST /v1/events")?;
    ensure!(hex(&request.trace_id) == trace, "{request:?}");
    ensure!(
        hex(&request.parent_span_id) == "00f067aa0ba902b7",
        "{request:?}"
    );
    let header = format!("00-{trace}-{}-01", hex(&request.span_id));
    ensure!(header_of_the_record(&world)? == Some(header));
    let insert = named(&spans, "insert")?;
    ensure!(links_to(insert, request), "{insert:?}");
    ensure!(links_to(named(&spans, "settle")?, insert));

    let query = named(&spans, "GET /v1/audit-logs")?;
    ensure!(hex(&query.trace_id) == asked, "{query:?}");
    for part in ["page", "total"] {
        let part = named(&spans, part)?;
        ensure!(part.parent_span_id == query.span_id, "{part:?}");
    }
    // What is in no trace begins none, for the share of such is 0; and nothing says who was concerned.
    ensure!(spans.len() == 6, "{spans:#?}");
    let values = spans.iter().flat_map(|span| &span.attributes);
    for value in values.filter_map(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        ensure!(
            !matches!(value, Any::StringValue(text) if text.contains("ann")),
            "{value:?}"
        );
    }
    Ok(())
}

pub(crate) async fn by_default_nobody_is_told_of_a_trace(world: Arc<World>) -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    // What OpenTelemetry's libraries read by themselves changes nothing.
    world.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    world.set("OTEL_EXPORTER_OTLP_HEADERS", &format!("x-token={TOKEN}"));
    world.migrate()?;
    let key = world.key("acme", &["write"])?;
    let mut consumer = world.consumer().await?;
    let mut ingest = world.ingest().await?;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    send(&world, &ingest.url, &key, parent).await?;
    world.settled().await?;
    ensure!(ingest.process.stop(Signal::TERM).await?);
    ensure!(consumer.stop(Signal::TERM).await?);
    ensure!(header_of_the_record(&world)?.is_none());
    ensure!(collector.told().is_empty());
    Ok(())
}

pub(crate) async fn a_collector_that_is_away_is_said_once_and_stops_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.set(
        "AUDIT_INGEST_TELEMETRY__TRACES__ENDPOINT",
        "http://127.0.0.1:1",
    );
    world.migrate()?;
    let key = world.key("acme", &["write"])?;
    let mut ingest = world.ingest().await?;
    // More than are sent at once, and more than wait.
    for _ in 0..3_000 {
        world.http().get(&ingest.url).send().await?;
    }
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    send(&world, &ingest.url, &key, parent).await?;
    let said = "the collector does not take traces";
    let find = |line: &str| line.contains(said).then_some(());
    ingest
        .process
        .says("the collector to be missed", find)
        .await?;
    ensure!(ingest.process.stop(Signal::TERM).await?);
    let printed = ingest.process.printed();
    ensure!(printed.matches(said).count() == 1, "{printed}");
    ensure!(header_of_the_record(&world)?.is_some());
    let _consumer = world.consumer().await?;
    world.settled().await
}
