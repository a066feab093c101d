//! The table of all metrics, generated from what the services tell their recorder.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::sync::Mutex;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../prometheus/metrics.md");

const HEAD: &str = "\
# Metrics

Every metric, as the services describe it: written by `deploy/local/tests/metrics.rs`. Prometheus reads them at
`/metrics` of each admin port ([`prometheus.yaml`](prometheus.yaml)). Histograms of seconds have the buckets of
`service/src/telemetry.rs`; `audit_consumer_batch_rows` is a summary. Names in `code` within a meaning are labels.
";

/// Keeps what is described.
#[derive(Default)]
struct Descriptions(Mutex<Vec<Described>>);

struct Described {
    name: String,
    kind: &'static str,
    unit: Option<Unit>,
    meaning: String,
}

impl Descriptions {
    fn keep(&self, name: &KeyName, kind: &'static str, unit: Option<Unit>, meaning: SharedString) {
        self.0.lock().unwrap().push(Described {
            name: name.as_str().to_owned(),
            kind,
            unit,
            meaning: meaning.into_owned(),
        });
    }
}

impl Recorder for Descriptions {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.keep(&name, "counter", unit, meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.keep(&name, "gauge", unit, meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.keep(&name, "histogram", unit, meaning);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The unit as the table has it; a metric without one is not described.
fn unit(described: &Described) -> &'static str {
    match described.unit {
        Some(Unit::Count) => "count",
        Some(Unit::Seconds) => "seconds",
        Some(Unit::Bytes) => "bytes",
        other => panic!("{} has the unit {other:?}", described.name),
    }
}

fn section(table: &mut String, of: &str, describe: fn()) {
    let descriptions = Descriptions::default();
    with_local_recorder(&descriptions, describe);
    writeln!(
        table,
        "\n## {of}\n\n| Name | Type | Unit | Means |\n|---|---|---|---|"
    )
    .unwrap();
    for described in descriptions.0.into_inner().unwrap() {
        let unit = unit(&described);
        let Described {
            name,
            kind,
            meaning,
            ..
        } = described;
        writeln!(table, "| `{name}` | {kind} | {unit} | {meaning} |").unwrap();
    }
}

#[test]
fn the_table_of_metrics_is_what_the_services_describe() {
    let mut table = HEAD.to_owned();
    section(&mut table, "Every service", audit_service::describe_metrics);
    section(&mut table, "Consumer", audit_consumer::describe_metrics);
    section(
        &mut table,
        "Producer, in ingest, the query API and every server that links it",
        audit_producer::describe,
    );
    section(&mut table, "Ingest", audit_ingest::describe);
    section(&mut table, "Query API", audit_query_api::describe_metrics);
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    if table != kept {
        let new = format!("{KEPT}.new");
        std::fs::write(&new, &table).unwrap();
        panic!("the metrics changed: look at them, then mv {new} {KEPT}");
    }
}
