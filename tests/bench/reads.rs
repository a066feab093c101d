//! First pages and totals of a year of events: by each filter and by each pair of two, in a large
//! and in a small project, beside the same questions of a table without indexes.
//!
//! A question asks for an event that is there: its keys are those of an event drawn by lot, so
//! frequent keys are asked for more often, and both keys of a pair meet. How long page and total took
//! is what the API says of it (`Server-Timing`); they are read at the same time, and an answer is
//! there when both are.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use audit_tests::world::{Key, Service, World};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cold;
use crate::dataset::{self, LARGE, SMALL};
use crate::plain;
use crate::report::{Goal, Report, millis};
use crate::sizes::Sizes;
use crate::stage::{Stage, patient};

/// What a page and a total may take, and the slowest answer of all, p99, in milliseconds.
const GOAL_PAGE: f64 = 50.0;
const GOAL_TOTAL: f64 = 25.0;
const GOAL_ANSWER: f64 = 300.0;

/// The documented filters: a name, and the parameter for an event, an expression of its columns.
const FILTERS: [(&str, &str); 12] = [
    ("user", "concat('userId=', user_id)"),
    ("organization", "concat('organizationId=', organization_id)"),
    ("identifier", "concat('identifier=', mail)"),
    ("type", "concat('eventType=', event_type)"),
    ("actor", "concat('actorId=', actor_id)"),
    ("session", "concat('sessionId=', session_id)"),
    (
        "ip",
        "concat('ip=', replaceOne(toString(ip_address), '::ffff:', ''))",
    ),
    ("outcome", "concat('outcome=', outcome)"),
    ("country", "concat('country=', country_code)"),
    (
        "a day",
        "concat('from=', toString(millis - 43200000), '&to=', toString(millis + 43200000))",
    ),
    ("q", "concat('q=', splitByChar('@', identifier)[1])"),
    ("data path", "concat('data.userEmail=', mail)"),
];

/// Other questions: kinds that are frequent or rare, keys of known frequency, words that everybody
/// has.
const OTHERS: [(&str, &str); 13] = [
    ("all", "''"),
    (
        "user with every 15th event",
        "concat('userId=', user_of(0))",
    ),
    (
        "user with every 3,000th event",
        "concat('userId=', user_of(280))",
    ),
    (
        "user with hardly any event",
        "concat('userId=', user_of(40000 + millis % 10000))",
    ),
    ("type, every third event", "'eventType=user_signed_in'"),
    (
        "type, every hundredth event",
        "'eventType=security_blocked'",
    ),
    ("types by beginning", "'eventType=organization_*'"),
    ("category", "'category=security'"),
    (
        "network",
        "concat('ip=', replaceOne(toString(ip_address), '::ffff:', ''), '/28')",
    ),
    ("q, every fourth event", "'q=passkey'"),
    ("data path, every fifth event", "'data.device.os=ios'"),
    ("not a user", "concat('not.userId=', user_id)"),
    ("event key", "concat('eventKey=', event_key)"),
];

/// How many questions of a filter are asked without indexes.
const PLAIN: usize = 3;

/// What the document has to have: some of each kind.
pub(crate) const FIGURES: &[&str] = &[
    "large: all, page p99",
    "small: all, total p99",
    "large: user, page p99",
    "large: user, total p99",
    "large: user, answer without indexes",
    "large: q, page p99",
    "large: data path, page p99",
    "large: user + organization, page p99",
    "small: q + data path, total p99",
    "slowest kind, page p99",
    "slowest kind, total p99",
    "slowest kind, answer p99",
];

/// One way to ask.
struct Asked<'a> {
    client: &'a reqwest::Client,
    api: &'a Service,
    key: String,
}

/// How long questions of one kind took, in microseconds.
struct Times {
    page: Histogram<u64>,
    total: Histogram<u64>,
    answer: Histogram<u64>,
    /// How many totals were not counted to the end.
    cut_short: u64,
    most: u64,
}

/// Asks of the kept log: only the kinds with `only` in their names, if it is given.
pub(crate) async fn measure(
    sizes: &Sizes,
    only: Option<&str>,
    logs: &Path,
) -> anyhow::Result<Report> {
    let (_stage, world) = Stage::log(sizes.rows, logs).await?;
    let plain = plain::make(&world, logs).await?;
    for world in [&world, &plain] {
        world.set("AUDIT_QUERY_API_AUDIT__EXPORTS", "false");
        patient(world);
    }
    let keys = [world.key(LARGE, &["read"])?, world.key(SMALL, &["read"])?];
    let plain_key = plain.key(LARGE, &["read"])?;
    let (api, plain_api) = (world.query_api().await?, plain.query_api().await?);
    let without = asking(&plain, &plain_api, &plain_key);
    let mut report = Report::new(json!({
        "rows": sizes.rows,
        "log": "a year of a Better Auth system: 50,000 users, 900 organizations, 201 projects",
        "projects": { "large": world.sql(&count(LARGE)).await?, "small": world.sql(&count(SMALL)).await? },
        "questions": format!(
            "{} of each kind, one after the other, each with the keys of another event",
            sizes.questions
        ),
        "page": "50 events",
        "total": "exact, or as far as the time for it went",
        "warm": "whatever the questions before left in memory",
        "cold": cold::how(),
        "without indexes": format!("the same API on a table of the same columns, codecs and key; {PLAIN} questions"),
        "beside": "engine, query API and client share the cores",
    }));
    for project in [LARGE, SMALL] {
        draw(&world, project, sizes.questions).await?;
    }
    let mut kinds = kinds();
    kinds.retain(|(name, _)| only.is_none_or(|only| name.contains(only)));
    for (name, parameters) in &kinds {
        for (project, key) in [(LARGE, &keys[0]), (SMALL, &keys[1])] {
            let asked = parameters_of(&world, project, parameters, sizes.questions).await?;
            let size = if project == LARGE { "large" } else { "small" };
            let of = format!("{size}: {name}");
            let with = asking(&world, &api, key);
            // The first of many finds everything cold.
            if asked.len() > 1 {
                with.ask(&asked[..1]).await?;
            }
            let times = with.ask(&asked).await?;
            times.add(&mut report, &of);
            if project == SMALL || name.contains(" + ") {
                continue;
            }
            let slow = without.ask(&asked[..PLAIN.min(asked.len())]).await?;
            let ratio = millis(&slow.answer, 0.5) / millis(&times.answer, 0.5);
            report.add(
                format!("{of}, answer without indexes"),
                "ms",
                millis(&slow.answer, 0.5),
            );
            report.add(format!("{of}, without / with indexes"), "×", ratio);
        }
    }
    // In the end, or what comes after it would not be warm.
    for (name, parameters) in &kinds {
        if sizes.cold > 0 && !name.contains(" + ") {
            let asked = parameters_of(&world, LARGE, parameters, sizes.cold).await?;
            ask_cold(
                &world,
                &asking(&world, &api, &keys[0]),
                &asked,
                name,
                &mut report,
            )
            .await?;
        }
    }
    for (part, most) in [
        ("page p99", GOAL_PAGE),
        ("total p99", GOAL_TOTAL),
        ("answer p99", GOAL_ANSWER),
    ] {
        let worst = format!("slowest kind, {part}");
        report.add(&worst, "ms", report.highest_of(part)?);
        report.goal(&worst, Goal::AtMost(most))?;
    }
    Ok(report)
}

/// All kinds of questions: a name, and its parameters.
fn kinds() -> Vec<(String, String)> {
    let single = FILTERS.iter().chain(&OTHERS);
    let single = single.map(|(name, of)| ((*name).to_owned(), (*of).to_owned()));
    let pairs = FILTERS
        .iter()
        .enumerate()
        .flat_map(|(place, (one, of_one))| {
            FILTERS
                .iter()
                .skip(place + 1)
                .map(move |(other, of_other)| {
                    let parameters = format!("concat({of_one}, '&', {of_other})");
                    (format!("{one} + {other}"), parameters)
                })
        });
    single.chain(pairs).collect()
}

fn count(project: &str) -> String {
    format!("SELECT count() FROM audit_events WHERE project_id = '{project}'")
}

/// The table of the events of a project that are asked for.
fn drawn(project: &str) -> String {
    format!("drawn_{}", project.replace('-', "_"))
}

/// Draws so many events of a project by lot, in memory.
async fn draw(world: &World, project: &str, events: u64) -> anyhow::Result<()> {
    let drawn = drawn(project);
    let sql = format!("DROP TABLE IF EXISTS {drawn} SYNC");
    world.sql(&sql).await?;
    let sql = format!(
        "CREATE TABLE {drawn} ENGINE = Memory AS SELECT * EXCEPT event_data FROM audit_events \
         WHERE project_id = '{project}' AND session_id != '' AND organization_id != '' \
         AND actor_id != '' ORDER BY cityHash64(event_id) LIMIT {events}"
    );
    world.sql(&sql).await?;
    Ok(())
}

/// The parameters of so many questions, each of an event of the project.
async fn parameters_of(
    world: &World,
    project: &str,
    parameters: &str,
    questions: u64,
) -> anyhow::Result<Vec<String>> {
    let mut text = parameters.to_owned();
    while let Some((before, rest)) = text.split_once("user_of(") {
        let (rank, after) = rest.split_once(')').context("a rank")?;
        text = format!("{before}{}{after}", dataset::user(rank));
    }
    let sql = format!(
        "WITH replaceOne(identifier, '@', '%40') AS mail, \
         toUnixTimestamp64Milli(created_at) AS millis \
         SELECT {text} FROM {} LIMIT {questions} FORMAT TSVRaw",
        drawn(project)
    );
    let lines = world.sql(&sql).await?;
    let mut asked: Vec<_> = lines.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        asked = vec![String::new(); usize::try_from(questions)?];
    }
    Ok(asked)
}

fn asking<'a>(world: &'a World, api: &'a Service, key: &Key) -> Asked<'a> {
    Asked {
        client: world.http(),
        api,
        key: key.secret.clone(),
    }
}

/// Asks with nothing in memory.
async fn ask_cold(
    world: &World,
    with: &Asked<'_>,
    asked: &[String],
    name: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut took = Histogram::<u64>::new_with_max(200_000_000, 3)?;
    for question in asked {
        cold::forget(world).await?;
        took.add(with.ask(std::slice::from_ref(question)).await?.answer)?;
    }
    let of = format!("large: {name}, answer, cold");
    eprintln!(
        "{of:<40} {:>7.1} {:>7.1} ms",
        millis(&took, 0.5),
        millis(&took, 1.0)
    );
    report.add(format!("{of}, p50"), "ms", millis(&took, 0.5));
    report.add(format!("{of}, slowest"), "ms", millis(&took, 1.0));
    Ok(())
}

impl Asked<'_> {
    async fn ask(&self, questions: &[String]) -> anyhow::Result<Times> {
        let mut times = Times {
            page: Histogram::new_with_max(200_000_000, 3)?,
            total: Histogram::new_with_max(200_000_000, 3)?,
            answer: Histogram::new_with_max(200_000_000, 3)?,
            cut_short: 0,
            most: 0,
        };
        for question in questions {
            let url = format!("{}/v1/audit-logs?{question}", self.api.url);
            let begun = Instant::now();
            let request = self.client.get(&url).header("x-api-key", &self.key);
            let answer = request.send().await?;
            let timing = answer.headers().get("server-timing").cloned();
            let status = answer.status();
            let page: Value = answer.json().await?;
            times
                .answer
                .saturating_record(u64::try_from(begun.elapsed().as_micros())?);
            ensure!(status.is_success(), "{question}: {page}");
            let timing = timing.context("Server-Timing")?;
            let timing = timing.to_str()?;
            times.page.saturating_record(micros(timing, "page;dur=")?);
            times.total.saturating_record(micros(timing, "total;dur=")?);
            times.cut_short += u64::from(page["totalRelation"] != "eq");
            times.most = times.most.max(page["total"].as_u64().context("a total")?);
        }
        Ok(times)
    }
}

/// The microseconds that the header says something took.
fn micros(timing: &str, of: &str) -> anyhow::Result<u64> {
    let (_, took) = timing
        .split_once(of)
        .with_context(|| format!("{of} in {timing}"))?;
    let took = took.split(',').next().unwrap_or_default();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "times of a run are far smaller, and positive"
    )]
    Ok((took.parse::<f64>()? * 1e3) as u64)
}

impl Times {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a run are far smaller"
    )]
    fn add(&self, report: &mut Report, of: &str) {
        for (part, took) in [
            ("page", &self.page),
            ("total", &self.total),
            ("answer", &self.answer),
        ] {
            report.add(format!("{of}, {part} p50"), "ms", millis(took, 0.5));
            report.add(format!("{of}, {part} p99"), "ms", millis(took, 0.99));
        }
        report.add(format!("{of}, most rows"), "rows", self.most as f64);
        report.add(format!("{of}, totals cut short"), "", self.cut_short as f64);
        eprintln!(
            "{of:<40} page {:>7.1} {:>7.1}  total {:>7.1} {:>7.1}  answer {:>7.1} {:>7.1} ms  up to {} rows{}",
            millis(&self.page, 0.5),
            millis(&self.page, 0.99),
            millis(&self.total, 0.5),
            millis(&self.total, 0.99),
            millis(&self.answer, 0.5),
            millis(&self.answer, 0.99),
            self.most,
            if self.cut_short > 0 {
                ", CUT SHORT"
            } else {
                ""
            },
        );
    }
}
