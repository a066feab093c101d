//! Reading a year of events: the first page with its total, for each filter, in a large and a small
//! project, beside the same question in SQL without our indexes.
//!
//! The log is made once, inside the engine, and kept in `target/bench-log` for the next run.
#![expect(clippy::cast_precision_loss, reason = "times of a run are far smaller")]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use audit_tests::process::root;
use audit_tests::server::Server;
use audit_tests::world::{Key, Service, World};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::dataset::{self, LARGE, SMALL};
use crate::report::Report;

/// What is asked for: a name, and the query for the parameters of each question.
///
/// In the query, `random` is a number of 64 bits, another one for each question.
const QUESTIONS: &[(&str, &str)] = &[
    ("all", "''"),
    ("user, any", "concat('userId=', any_user)"),
    ("user, most active", "concat('userId=', user_of(0))"),
    (
        "user, hardly active",
        "concat('userId=', user_of(40000 + random % 10000))",
    ),
    ("organization", "concat('organizationId=', organization)"),
    (
        "identifier",
        "concat('identifier=user', toString(rank), '%40example.com')",
    ),
    ("actor", "concat('actorId=', any_user)"),
    ("session", "concat('sessionId=', session)"),
    ("ip", "concat('ip=', address)"),
    ("type, frequent", "'eventType=user_signed_in'"),
    ("type, rare", "'eventType=security_blocked'"),
    ("types by beginning", "'eventType=organization_*'"),
    ("category", "'category=security'"),
    ("outcome", "'outcome=blocked'"),
    ("country", "concat('country=', country)"),
    ("a day", "day"),
    ("q, frequent", "'q=passkey'"),
    ("q, rare", "concat('q=user', toString(rank))"),
    ("data, frequent", "'data.device.os=ios'"),
    (
        "data, rare",
        "concat('data.userEmail=user', toString(rank), '%40example.com')",
    ),
    (
        "user and type",
        "concat('userId=', any_user, '&eventType=user_sign_in_failed')",
    ),
    (
        "organization and a day",
        "concat('organizationId=', organization, '&', day)",
    ),
    ("not a user", "concat('not.userId=', user_of(0))"),
];

/// Asks so many questions of each kind in a log of so many events.
pub(crate) async fn measure(
    rows: u64,
    questions: u64,
    only: Option<&str>,
    logs: PathBuf,
) -> anyhow::Result<Report> {
    let world = World::on(["127.0.0.1:1", ""], "bench", logs)?;
    let folder = root().join(format!("target/bench-log/{rows}"));
    let mut engine = Server::engine_on(&world, &folder)?;
    engine.run().await.context("ClickHouse")?;
    world.use_engine(&engine.url());
    dataset::make(&world, rows).await?;

    world.set("AUDIT_QUERY_API_AUDIT__EXPORTS", "false");
    world.set("AUDIT_QUERY_API_HTTP__ACCESS_LOG", "false");
    world.set("AUDIT_QUERY_API_RATE_LIMIT__REQUESTS", "100000000");
    world.set("AUDIT_QUERY_API_QUERIES__TIME", "60s");
    world.set("AUDIT_QUERY_API_QUERIES__TOTAL_TIME", "30s");
    world.set("AUDIT_QUERY_API_HTTP__REQUEST_TIMEOUT", "100s");
    let keys = [world.key(LARGE, &["read"])?, world.key(SMALL, &["read"])?];
    let api = world.query_api().await?;
    let mut report = Report::new(json!({
        "rows": rows,
        "log": "a year of a Better Auth system: 50,000 users, 900 organizations, 201 projects",
        "questions": format!("{questions} of each kind, one after the other, each of another key"),
        "page": "50 events and the exact total, from the request to the end of the answer",
        "beside": "engine, query API and client share the cores",
    }));
    for (name, parameters) in QUESTIONS {
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        for key in &keys {
            let asked = parameters_of(&world, key.project.as_str(), parameters, questions).await?;
            let (took, most) = ask(&world, &api, key, &asked).await?;
            let of = format!("{name}, {}", key.project);
            for (quantile, label) in [(0.5, "p50"), (0.99, "p99")] {
                let millis = took.value_at_quantile(quantile) as f64 / 1e3;
                report.add(format!("{of}, {label}"), "ms", millis);
            }
            report.add(format!("{of}, most rows"), "rows", most as f64);
            eprintln!(
                "{of:<46} p50 {:>8.1} ms  p99 {:>8.1} ms  up to {most} rows",
                took.value_at_quantile(0.5) as f64 / 1e3,
                took.value_at_quantile(0.99) as f64 / 1e3
            );
        }
    }
    Ok(report)
}

/// The parameters of so many questions.
async fn parameters_of(
    world: &World,
    project: &str,
    parameters: &str,
    questions: u64,
) -> anyhow::Result<Vec<String>> {
    // Keys of events at random times, so that there are some for each question.
    let sampled = "(SELECT session_id, ip_address, country_code FROM audit_events \
         WHERE project_id = PROJECT AND session_id != '' AND cityHash64(event_id) % 97 = 0 \
         AND created_at > now() - INTERVAL 60 DAY LIMIT QUESTIONS)";
    let sampled = sampled
        .replace("PROJECT", &format!("'{project}'"))
        .replace("QUESTIONS", &questions.to_string());
    let user_of = "concat('usr_', lower(hex(sipHash64(toUInt32(RANK)))))";
    let mut text = parameters.replace("any_user", &user_of.replace("RANK", "rank"));
    while let Some((before, rest)) = text.split_once("user_of(") {
        let (rank, after) = rest.split_once(')').context("a rank")?;
        text = format!("{before}{}{after}", user_of.replace("RANK", rank));
    }
    let sql = format!(
        "WITH cityHash64(rowNumberInAllBlocks(), 7) AS random, \
         toUInt32(exp(random / 18446744073709551616. * log(50000)) - 1) AS rank, \
         concat('org_', lower(hex(sipHash64(toUInt32(random % 900))))) AS organization, \
         session_id AS session, replaceOne(toString(ip_address), '::ffff:', '') AS address, \
         country_code AS country, \
         toUnixTimestamp64Milli(now64(3)) - random % (300 * 86400000) AS instant, \
         concat('from=', toString(instant), '&to=', toString(instant + 86400000)) AS day \
         SELECT {text} FROM {sampled} FORMAT TSVRaw"
    );
    let lines = world.sql(&sql).await?;
    let mut asked: Vec<_> = lines.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        asked = vec![String::new(); usize::try_from(questions)?];
    }
    Ok(asked)
}

/// Asks for first pages, and says how long each took in microseconds, and the highest total.
async fn ask(
    world: &World,
    api: &Service,
    key: &Key,
    questions: &[String],
) -> anyhow::Result<(Histogram<u64>, u64)> {
    let mut took = Histogram::new_with_max(120_000_000, 3)?;
    let mut most = 0;
    // The first is not counted: it finds everything cold.
    for (number, question) in questions.iter().take(1).chain(questions).enumerate() {
        let url = format!("{}/v1/audit-logs?{question}", api.url);
        let begun = Instant::now();
        let page: Value = world.get(&url, key).await?;
        if number > 0 {
            took.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
        }
        ensure!(page["totalRelation"] == "eq", "{question}: {page}");
        most = most.max(page["total"].as_u64().context("a total")?);
    }
    Ok((took, most))
}
