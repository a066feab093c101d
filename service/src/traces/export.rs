//! Which spans are exported, and what is said when the collector does not take them.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter as Otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, ShouldSample, SpanData, SpanExporter,
};

/// Exports over OTLP, and says once that it does not work, and once that it does again.
#[derive(Debug)]
pub(super) struct Export {
    otlp: Otlp,
    fails: AtomicBool,
}

impl Export {
    pub(super) fn new(otlp: Otlp) -> Self {
        let fails = AtomicBool::new(false);
        Self { otlp, fails }
    }
}

impl SpanExporter for Export {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.otlp.export(spans).await;
        match (&sent, self.fails.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(
                %error,
                "the collector does not take traces; they are dropped until it does"
            ),
            (Ok(()), true) => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        sent
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// Whether a span is sampled: if its parent is, or without one if what it links to is, or by its share
/// of the traces that begin here.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    share: Sampler,
}

impl Sampling {
    /// Samples `share` of the traces that begin here.
    pub(super) fn new(share: f64) -> Self {
        let share = Sampler::TraceIdRatioBased(share);
        Self { share }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent = parent.map(|context| context.span().span_context().clone());
        let is_sampled = match parent.filter(opentelemetry::trace::SpanContext::is_valid) {
            Some(parent) => parent.is_sampled(),
            None if links.iter().any(|link| link.span_context.is_sampled()) => true,
            None => {
                let share = &self.share;
                return share.should_sample(None, trace_id, name, kind, attributes, links);
            }
        };
        SamplingResult {
            decision: if is_sampled {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}
