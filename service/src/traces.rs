//! Traces: where the time of a request or a batch went, told to an OpenTelemetry collector.
//!
//! They are off unless [`begin`] was given an endpoint; then and where a trace is not sampled, a
//! [`Span`] is nothing and costs a look at a static. What is exported is exactly what is said here:
//! no log line and no field of one becomes part of a trace, so names and ids of people cannot.
//!
//! A collector that is away keeps nobody waiting: spans wait in a bounded queue for a thread of their
//! own, and what does not fit is dropped.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use audit_schema::TraceParent;
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{
    FutureExt as _, Link, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use serde::Deserialize;

use crate::config::{Secret, Validate};

mod export;

use export::{Export, Sampling};

/// The header of a request that says which trace it belongs to.
const TRACE_PARENT: &str = "traceparent";

/// How long the collector may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long what is left may take to reach the collector at the end.
const LAST: Duration = Duration::from_secs(1);

/// What makes spans, once traces are on.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Where traces go, and how many.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Where the collector takes OTLP over HTTP, without `/v1/traces`; empty for no traces.
    pub endpoint: String,
    /// Which share of what belongs to no trace begins one; from 0 to 1.
    pub sampling: f64,
    /// Headers that the collector asks for, such as `authorization`. `_` is written for `-`, because
    /// a shell has no variables with dashes.
    pub headers: BTreeMap<String, Secret>,
}

impl Traces {
    fn headers(&self) -> impl Iterator<Item = (String, &str)> {
        let headers = self.headers.iter();
        headers.map(|(name, value)| (name.replace('_', "-"), value.expose()))
    }
}

impl Validate for Traces {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let uri = self.endpoint.parse::<Uri>().unwrap_or_default();
        let is_http = [Scheme::HTTP, Scheme::HTTPS]
            .iter()
            .any(|scheme| uri.scheme() == Some(scheme));
        if !self.endpoint.is_empty() && (!is_http || uri.query().is_some()) {
            let form = "telemetry.traces.endpoint must be empty or like http://collector:4318";
            complaints.push(form.to_owned());
        }
        if !(0.0..=1.0).contains(&self.sampling) {
            complaints.push("telemetry.traces.sampling must lie between 0 and 1".to_owned());
        }
        for (name, value) in self.headers() {
            if HeaderName::try_from(&name).is_err() || HeaderValue::try_from(value).is_err() {
                complaints.push(format!("telemetry.traces.headers.{name} is no HTTP header"));
            }
        }
        complaints
    }
}

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// There is no exporter for what the configuration says.
    #[error("traces cannot be exported; see [telemetry.traces] of the configuration")]
    Exporter(#[from] ExporterBuildError),
    /// Traces are on already.
    #[error("traces were set up before")]
    Twice,
}

/// What exports the traces of this process. Call [`finish`](Self::finish) at its end.
#[derive(Debug)]
#[must_use = "what is left is lost without a call of finish"]
pub struct Exporting(Option<SdkTracerProvider>);

/// Begins to export the traces of `service` as `traces` says; once per process.
pub fn begin(service: &'static str, traces: &Traces) -> Result<Exporting, TracesError> {
    if traces.endpoint.is_empty() {
        return Ok(Exporting(None));
    }
    let headers = traces
        .headers()
        .map(|(name, value)| (name, value.to_owned()));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!(
            "{}/v1/traces",
            traces.endpoint.trim_end_matches('/')
        ))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(ANSWER)
        .with_headers(headers.collect())
        .build()?;
    let resource = Resource::builder_empty().with_service_name(service);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Export::new(exporter))
        .with_sampler(Sampling::new(traces.sampling))
        .with_resource(resource.build())
        .build();
    TRACER
        .set(provider.tracer("audit"))
        .map_err(|_| TracesError::Twice)?;
    Ok(Exporting(Some(provider)))
}

impl Exporting {
    /// Sends what is left, for at most a second, and makes no more spans.
    pub async fn finish(self) {
        let Some(provider) = self.0 else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces did not reach the collector");
        }
    }
}

/// Whether traces are on.
pub fn are_on() -> bool {
    TRACER.get().is_some()
}

/// The span that the current task is in; `None` if that is not sampled.
pub fn current() -> Option<TraceParent> {
    TRACER.get()?;
    Context::map_current(of_context)
}

/// Says something of the span that the current task is in.
pub fn say(name: &'static str, value: impl Into<Value>) {
    if are_on() {
        Context::map_current(|context| {
            context
                .span()
                .set_attribute(KeyValue::new(name, value.into()));
        });
    }
}

/// Something that takes time; nothing while traces are off, and where it is not sampled. It ends when
/// it is dropped.
#[derive(Debug)]
pub struct Span(Option<Context>);

impl Span {
    /// The answer to a request, in the trace that its headers name.
    pub(crate) fn of_request(method: &'static str, route: &str, headers: &HeaderMap) -> Self {
        Self::make(|tracer| {
            let mut given = headers.get_all(TRACE_PARENT).iter();
            let parent = match (given.next(), given.next()) {
                (Some(parent), None) => TraceParent::parse(parent.as_bytes()),
                _ => None,
            };
            let context = parent.map_or_else(Context::new, |parent| {
                Context::new().with_remote_span_context(remote(parent))
            });
            tracer
                .span_builder(format!("{method} {route}"))
                .with_kind(SpanKind::Server)
                .with_attributes([
                    KeyValue::new("http.request.method", method),
                    KeyValue::new("http.route", route.to_owned()),
                ])
                .start_with_context(tracer, &context)
        })
    }

    /// A part of what the current task does, if that is in a span.
    pub fn part(name: &'static str) -> Self {
        if current().is_none() {
            return Self(None);
        }
        Self::make(|tracer| {
            let part = tracer.span_builder(name).with_kind(SpanKind::Client);
            Context::map_current(|context| part.start_with_context(tracer, context))
        })
    }

    /// Work on what came in several traces, with links to them; at most 128 are kept. It is sampled if
    /// one of them is.
    pub fn of_several(name: &'static str, kind: SpanKind, traces: &[TraceParent]) -> Self {
        Self::make(|tracer| {
            let links = traces
                .iter()
                .map(|parent| Link::with_context(remote(*parent)));
            tracer
                .span_builder(name)
                .with_kind(kind)
                .with_links(links.collect())
                .start_with_context(tracer, &Context::new())
        })
    }

    fn make(make: impl FnOnce(&SdkTracer) -> opentelemetry_sdk::trace::Span) -> Self {
        let context = TRACER
            .get()
            .map(|tracer| Context::new().with_span(make(tracer)));
        Self(context.filter(|context| of_context(context).is_some()))
    }

    /// Says something of it.
    pub fn say(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context
                .span()
                .set_attribute(KeyValue::new(name, value.into()));
        }
    }

    /// Says that it went wrong.
    pub fn fail(&self) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(""));
        }
    }

    /// Does `work` in it.
    pub async fn within<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }
}

fn of_context(context: &Context) -> Option<TraceParent> {
    let span = context.span();
    let place = span.span_context();
    if !place.is_sampled() {
        return None;
    }
    TraceParent::new(
        place.trace_id().to_bytes(),
        place.span_id().to_bytes(),
        true,
    )
}

/// Where something elsewhere is.
fn remote(parent: TraceParent) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(parent.is_sampled());
    SpanContext::new(
        TraceId::from_bytes(parent.trace_id()),
        SpanId::from_bytes(parent.span_id()),
        flags,
        true,
        TraceState::NONE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> usize {
        let traces: Traces = toml::from_str(text).unwrap();
        traces.complaints().len()
    }

    #[test]
    fn an_endpoint_a_share_or_a_header_that_cannot_be_is_refused() {
        let with = |endpoint: &str, sampling: &str, headers: &str| {
            complaints(&format!(
                "endpoint = '{endpoint}'\nsampling = {sampling}\nheaders = {{ {headers} }}"
            ))
        };
        for endpoint in [
            "",
            "http://collector:4318",
            "https://otlp.example.com/otlp/",
        ] {
            assert_eq!(with(endpoint, "0.5", "x_team = 'secret'"), 0, "{endpoint}");
        }
        for endpoint in [
            "collector:4318",
            "grpc://collector:4317",
            "http://c/?a=b",
            "/v1",
        ] {
            assert_eq!(with(endpoint, "1", ""), 1, "{endpoint}");
        }
        for sampling in ["-0.1", "1.1", "nan"] {
            assert_eq!(with("", sampling, ""), 1, "{sampling}");
        }
        assert_eq!(with("", "1.0", "'not a name' = 'x', x = \"a\\nb\""), 2);
    }

    #[tokio::test]
    async fn while_traces_are_off_nothing_is_in_a_span() {
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(TRACE_PARENT, HeaderValue::from_static(parent));
        let span = Span::of_request("GET", "/", &headers);
        assert!(span.0.is_none());
        assert_eq!(span.within(async { current() }).await, None);
    }
}
