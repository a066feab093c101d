//! Readers of pages while events arrive, beside readers of a log that is at rest.
//!
//! The events arrive in a copy of the kept log that shares its parts, so the log stays as it is; in
//! the large project, so the newest page changes all the time. Each reader asks for one page after
//! the other, of the large project and of a small one: everything, a user, an organization, a type.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use audit_tests::world::{Key, World};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use reqwest::StatusCode;
use serde_json::json;

use crate::arrivals::Arrivals;
use crate::dataset::{LARGE, SMALL};
use crate::report::{Goal, Report, millis};
use crate::sizes::Sizes;
use crate::stage::{Stage, unlimited};

/// Events that arrive in a second.
const RATE: u64 = 5_000;

/// Readers, each of which waits for its answer before it asks again.
const CLIENTS: [usize; 3] = [1, 8, 64];

/// How many different users and organizations are asked for.
const VALUES: usize = 200;

/// How many times slower than at rest 99 of 100 pages may be.
const TIMES_IDLE: f64 = 3.0;

/// A page that is asked for.
struct Question {
    url: String,
    secret: String,
}

/// What readers got.
struct Load {
    took: Histogram<u64>,
    refused: u64,
    seconds: f64,
}

/// What the document has to have.
pub(crate) const FIGURES: &[&str] = &[
    "idle, 1 reader, requests/s",
    "idle, 1 reader, p50",
    "idle, 1 reader, p99",
    "idle, 8 readers, p99",
    "idle, 64 readers, p99",
    "arriving, 1 reader, requests/s",
    "arriving, 1 reader, p99",
    "arriving, 8 readers, requests/s",
    "arriving, 8 readers, p99",
    "arriving, 64 readers, requests/s",
    "arriving, 64 readers, p99",
    "arriving, 64 readers, refused",
    "p99, arriving with 1 reader / idle with 1",
    "p99, arriving with 8 readers / idle with 1",
    "p99, arriving with 64 readers / idle with 1",
];

/// With each number of readers, at rest and while events arrive.
pub(crate) async fn measure(sizes: &Sizes, logs: &Path) -> anyhow::Result<Report> {
    let (stage, log) = Stage::log(sizes.rows, logs).await?;
    let stage = stage.and_kafka().await?;
    let world = stage.world("load")?;
    copy(&log, &world).await?;
    unlimited(&world);
    let keys = [world.key(LARGE, &["read"])?, world.key(SMALL, &["read"])?];
    let api = world.query_api().await?;
    let consumer = world.consumer().await?;
    let questions = questions(&world, &api.url, &keys).await?;
    let mut report = Report::new(json!({
        "runs": sizes.runs,
        "rows": sizes.rows,
        "seconds": sizes.time.as_secs_f64(),
        "arriving": format!("{RATE} events/s of the large project, through Kafka and the consumer"),
        "readers": "one page of 50 with its total after the other: all, user, organization, type; \
                    in turn of the large and of a small project",
        "refused": "answers 503 and 429 of the query API as configured by default; not in p50 and p99",
        "beside": "broker, engine, services and clients share the cores",
    }));
    // What is slow only the first time is not measured.
    ask(
        &world,
        &questions,
        1,
        sizes.time.min(Duration::from_secs(5)),
    )
    .await?;
    for run in 1..=sizes.runs {
        for clients in CLIENTS {
            let load = ask(&world, &questions, clients, sizes.time).await?;
            add(
                &mut report,
                &format!("idle, {}", readers(clients)),
                &load,
                run,
            );
        }
        let arrivals = Arrivals::start(&world, LARGE, RATE)?;
        for clients in CLIENTS {
            let load = ask(&world, &questions, clients, sizes.time).await?;
            add(
                &mut report,
                &format!("arriving, {}", readers(clients)),
                &load,
                run,
            );
        }
        let (events, _) = arrivals.stop().await?;
        eprintln!("run {run}: {events} events arrived");
    }
    let idle = report.median("idle, 1 reader, p99")?;
    for clients in CLIENTS {
        let under_load = report.median(&format!("arriving, {}, p99", readers(clients)))?;
        let name = format!("p99, arriving with {} / idle with 1", readers(clients));
        report.add(&name, "×", under_load / idle);
        report.goal(&name, Goal::AtMost(TIMES_IDLE))?;
        let as_many = report.median(&format!("idle, {}, p99", readers(clients)))?;
        let name = format!(
            "p99, arriving with {} / idle with as many",
            readers(clients)
        );
        report.add(name, "×", under_load / as_many);
    }
    // Nobody writes to what is taken away.
    drop((consumer, api));
    world.drop_database().await?;
    Ok(report)
}

/// Makes the tables of `world`, with the rows of `log` in them: parts are shared, not copied.
///
/// What arrives is of the topic's second life, so that the rows of the log, whose records Kafka never
/// had, are of an earlier one.
async fn copy(log: &World, world: &World) -> anyhow::Result<()> {
    // A run that was killed has left it.
    log.sql(&format!("DROP DATABASE IF EXISTS {} SYNC", world.database))
        .await?;
    world.migrate()?;
    let (from, to) = (&log.database, &world.database);
    world
        .sql("INSERT INTO audit_sources SELECT topic, 2, partitions, begins, now64(3) FROM audit_sources")
        .await?;
    let watermarks = format!("INSERT INTO audit_watermarks SELECT * FROM {from}.audit_watermarks");
    world.sql(&watermarks).await?;
    let partitions = format!(
        "SELECT DISTINCT partition_id FROM system.parts \
         WHERE active AND database = '{from}' AND table = 'audit_events'"
    );
    for partition in log.sql(&partitions).await?.lines() {
        let attach = format!(
            "ALTER TABLE {to}.audit_events ATTACH PARTITION ID '{partition}' FROM {from}.audit_events"
        );
        world.sql(&attach).await?;
    }
    let count = |of: &str| format!("SELECT count() FROM {of}.audit_events");
    let (there, wanted) = (log.sql(&count(to)).await?, log.sql(&count(from)).await?);
    ensure!(there == wanted, "{there} of {wanted} rows are shared");
    Ok(())
}

/// What is asked, in turn of each project.
async fn questions(world: &World, api: &str, keys: &[Key]) -> anyhow::Result<Vec<Question>> {
    let mut questions = Vec::new();
    for key in keys {
        // Users and organizations of random events, so the active ones are asked for more often.
        let sampled = format!(
            "SELECT concat('userId=', user_id), concat('organizationId=', organization_id) \
             FROM audit_events WHERE project_id = '{}' AND organization_id != '' \
             ORDER BY cityHash64(event_id) LIMIT {VALUES}",
            key.project
        );
        let sampled = world.sql(&sampled).await?;
        let filters = sampled.lines().flat_map(|line| {
            let filters = line.split('\t').map(str::to_owned);
            filters.chain([String::new(), "eventType=user_signed_in".to_owned()])
        });
        questions.extend(filters.enumerate().map(|(turn, filter)| {
            let question = Question {
                url: format!("{api}/v1/audit-logs?{filter}"),
                secret: key.secret.clone(),
            };
            (turn, question)
        }));
    }
    ensure!(!questions.is_empty(), "the log has no events to ask for");
    questions.sort_by_key(|(turn, _)| *turn);
    Ok(questions
        .into_iter()
        .map(|(_, question)| question)
        .collect())
}

/// So many readers, for so long.
async fn ask(
    world: &World,
    questions: &[Question],
    clients: usize,
    time: Duration,
) -> anyhow::Result<Load> {
    let started = Instant::now();
    let reader = async |client: usize| {
        let mut took = Histogram::<u64>::new_with_max(120_000_000, 3)?;
        let mut refused = 0;
        // Each begins elsewhere.
        let mut next = client * questions.len() / clients;
        while started.elapsed() < time {
            let question = &questions[next % questions.len()];
            let begun = Instant::now();
            let request = world.http().get(&question.url);
            let answer = request.header("x-api-key", &question.secret).send().await?;
            let status = answer.status();
            let body = answer.bytes().await?;
            match status {
                StatusCode::OK => {
                    took.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
                }
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => refused += 1,
                _ => anyhow::bail!("{}: {status} {body:?}", question.url),
            }
            next += 1;
        }
        anyhow::Ok((took, refused))
    };
    let mut load = Load {
        took: Histogram::new_with_max(120_000_000, 3)?,
        refused: 0,
        seconds: 0.0,
    };
    for (took, refused) in try_join_all((0..clients).map(reader)).await? {
        load.took.add(took)?;
        load.refused += refused;
    }
    load.seconds = started.elapsed().as_secs_f64();
    Ok(load)
}

fn readers(clients: usize) -> String {
    let s = if clients == 1 { "" } else { "s" };
    format!("{clients} reader{s}")
}

#[expect(clippy::cast_precision_loss, reason = "far fewer requests")]
fn add(report: &mut Report, of: &str, load: &Load, run: usize) {
    let rate = load.took.len() as f64 / load.seconds;
    report.add(format!("{of}, requests/s"), "requests/s", rate);
    report.add(format!("{of}, refused"), "requests", load.refused as f64);
    for (quantile, name) in [(0.5, "p50"), (0.99, "p99")] {
        let millis = millis(&load.took, quantile);
        report.add(format!("{of}, {name}"), "ms", millis);
        eprintln!("run {run}: {of}, {name} {millis:.1} ms");
    }
}
