//! A page deep in a walk against the beginning of it, by cursor and by `offset`.
//!
//! Compared is the page behind the first one, by the cursor of the first; not the first one itself,
//! which counts the total. Each page is asked for again and again, so all are warm. The cursor of the
//! deep page is taken from the page before it, which is skipped to.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use audit_tests::world::{Key, World};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::dataset::LARGE;
use crate::report::{Goal, Report, millis};
use crate::sizes::Sizes;
use crate::stage::{Stage, patient};

/// Events on a page.
const LIMIT: u64 = 50;

/// Which page is deep.
const DEEP: u64 = 10_000;

/// How often a page is asked for in a run, at most.
const TIMES: u64 = 30;

/// What a deep page may take, of what the second one takes.
const TIMES_SECOND: f64 = 1.2;

/// What is walked: a name, and the filter.
const WALKS: [(&str, &str); 2] = [("all", ""), ("type", "&eventType=user_signed_in")];

/// Who asks whom.
struct Client<'w> {
    world: &'w World,
    key: Key,
    url: String,
}

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "all, page 1",
    "all, page 2 by cursor",
    "all, deep page by cursor",
    "all, deep page by offset",
    "all, deep page by cursor / page 2",
    "all, deep page by offset / page 2",
    "type, page 2 by cursor",
    "type, deep page by cursor",
    "type, deep page by cursor / page 2",
    "type, deep page by offset / page 2",
];

/// Walks the large project: all of it, and its most frequent type.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let (_stage, world) = Stage::log(sizes.rows, logs).await?;
    world.set("AUDIT_QUERY_API_AUDIT__EXPORTS", "false");
    patient(&world);
    let most = (DEEP * LIMIT).to_string();
    world.set("AUDIT_QUERY_API_QUERIES__MAX_OFFSET", &most);
    // The API does not start without a file of keys.
    let key = world.key(LARGE, &["read"])?;
    let api = world.query_api().await?;
    let client = Client {
        world: &world,
        key,
        url: api.url.clone(),
    };
    let times = TIMES.min(sizes.questions);
    let mut report = Report::new(json!({
        "runs": sizes.runs,
        "rows": sizes.rows,
        "page": format!("{LIMIT} events; each asked for {times} times a run, its median counts"),
        "deep": format!("page {DEEP}, or the last full one of a smaller log"),
        "compared": "with page 2, by the cursor of page 1: page 1 itself counts the total",
        "beside": "engine, query API and client share the cores",
    }));
    for (walk, filter) in WALKS {
        let base = format!("limit={LIMIT}{filter}");
        let first = client.page(&base).await?;
        let total = first["total"].as_u64().context("a total")?;
        let deep = DEEP.min(total / LIMIT);
        ensure!(deep > 2, "{total} events are too few to walk");
        let as_of = first["asOf"].as_str().context("asOf")?;
        let before = format!("{base}&asOf={as_of}&offset={}", (deep - 2) * LIMIT);
        let before = client.page(&before).await?;
        let cursor = |page: &Value| {
            let cursor = page["nextCursor"].as_str().context("a next page")?;
            anyhow::Ok(format!("{base}&cursor={cursor}"))
        };
        let pages = [
            ("page 1", base.clone()),
            ("page 2 by cursor", cursor(&first)?),
            ("deep page by cursor", cursor(&before)?),
            (
                "deep page by offset",
                format!("{base}&asOf={as_of}&offset={}", (deep - 1) * LIMIT),
            ),
        ];
        let (by_cursor, by_offset) = (&pages[2].1, &pages[3].1);
        let (by_cursor, by_offset) = (client.page(by_cursor).await?, client.page(by_offset).await?);
        ensure!(
            by_cursor["events"] == by_offset["events"],
            "the deep page is another one by cursor than by offset"
        );
        for run in 1..=sizes.runs {
            for (page, parameters) in &pages {
                let millis = client.median(parameters, times).await?;
                eprintln!("{walk}, {page} of {deep}, run {run}: {millis:.1} ms");
                report.add(format!("{walk}, {page}"), "ms", millis);
            }
        }
        let of = |page: &str| report.median(&format!("{walk}, {page}"));
        let (second, by_cursor) = (of("page 2 by cursor")?, of("deep page by cursor")?);
        let by_offset = of("deep page by offset")?;
        let name = format!("{walk}, deep page by cursor / page 2");
        report.add(&name, "×", by_cursor / second);
        report.goal(&name, Goal::AtMost(TIMES_SECOND))?;
        let name = format!("{walk}, deep page by offset / page 2");
        report.add(name, "×", by_offset / second);
    }
    Ok(report)
}

impl Client<'_> {
    async fn page(&self, parameters: &str) -> anyhow::Result<Value> {
        let url = format!("{}/v1/audit-logs?{parameters}", self.url);
        self.world.get(&url, &self.key).await
    }

    /// The median of so many times, in milliseconds.
    async fn median(&self, parameters: &str, times: u64) -> anyhow::Result<f64> {
        let mut took = Histogram::<u64>::new_with_max(120_000_000, 3)?;
        for _ in 0..times {
            let begun = Instant::now();
            self.page(parameters).await?;
            took.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
        }
        Ok(millis(&took, 0.5))
    }
}
