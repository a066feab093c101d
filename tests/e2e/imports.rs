//! Imports: what was exported comes back, and every event of a file is stored once.

use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_schema::{Actor, Event, EventData, EventType, Location, Outcome};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rustix::process::Signal;
use serde_json::{Value, json};

use audit_tests::process::{Process, wait_until};
use audit_tests::world::{Key, World, event};

/// The requests of a real Better Auth server.
const CAPTURE: &str = include_str!("../../schema/tests/fixtures/capture.ndjson");

/// How many events of a file the command reads and publishes together.
const CHUNK: usize = 2_000;

/// Runs an import to its end, well or not, and gives its report.
fn import(world: &World, arguments: &[&str]) -> anyhow::Result<Value> {
    let arguments: Vec<&str> = ["import", "--json"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    let output = world.command("audit-consumer", &arguments)?.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    let is_well = report["refused"] == 0 && report["cut"].is_null() && report["stopped"].is_null();
    ensure!(output.status.success() == is_well, "{report}");
    Ok(report)
}

/// Writes a file of these lines, and gives its path.
fn file(world: &World, name: &str, lines: &[String]) -> anyhow::Result<String> {
    let file = world.logs().join(name);
    std::fs::write(&file, lines.join("\n") + "\n")?;
    Ok(file.display().to_string())
}

/// The lines of an export, of which the last is no event.
async fn exported(world: &World, api: &str, key: &Key) -> anyhow::Result<Vec<String>> {
    let url = format!("{api}/v1/audit-logs/export?format=ndjson&order=asc");
    let request = world.http().get(url).header("x-api-key", &key.secret);
    let text = request.send().await?.error_for_status()?.text().await?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What an event says, without where it is in which log.
fn said(line: &str) -> anyhow::Result<&str> {
    let (said, _) = line.split_once(",\"loggedAt\":").context("an event")?;
    Ok(said)
}

/// Events as a Better Auth server reports them, and such that say all that can be said.
fn all_sorts() -> anyhow::Result<Vec<Event<'static>>> {
    let mut events = Vec::new();
    for line in CAPTURE.lines() {
        let request: Value = serde_json::from_str(line)?;
        if request["method"] != "POST" {
            continue;
        }
        let body = &request["body"];
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let event = Event::builder("acme".parse()?, EventType::new(text("eventType"))?)
            .event_key(text("eventKey"))
            .event_display_name(text("eventDisplayName"));
        events.push(
            event
                .event_data(EventData::of(&body["eventData"])?)
                .build()?,
        );
    }
    let odd =
        r#"{ "n" : 1.50e2, "big":123456789012345678901234567890, "half":"\ud800", "userId":7 }"#;
    let full = Event::builder("acme".parse()?, EventType::USER_BANNED)
        .id("f47ac10b-58cc-4372-a567-0e02b2c3d479".parse()?)
        .created_at("2019-02-03T04:05:06.007Z".parse()?)
        .event_key("key \"of\"\u{2028}all")
        .event_display_name("Zoë\nwas banned")
        .user_id("u9")
        .organization_id("o9")
        .identifier("zoë@example.com")
        .actor(Actor {
            id: "boss".into(),
            kind: "admin".into(),
        })
        .outcome(Outcome::Challenged)
        .session_id("s9")
        .request_id("r9")
        .user_agent("Mozilla/5.0")
        .location(Location {
            ip_address: Some("::ffff:192.0.2.7".parse()?),
            city: "Köln".into(),
            country: "Germany".into(),
            country_code: "DE".into(),
        })
        .event_data(EventData::parse(odd)?);
    events.push(full.build()?);
    events.push(event("acme", "unknown"));
    Ok(events)
}

pub(crate) async fn an_exported_log_comes_back_as_it_was_and_once(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let (acme, copy) = (world.key("acme", &["read"])?, world.key("copy", &["read"])?);
    let api = world.query_api().await?;
    let events = all_sorts()?;
    let count = events.len();
    world.publish_all(events.into_iter()).await?;
    world.settled().await?;
    let original = exported(&world, &api.url, &acme).await?;
    ensure!(original.len() == count + 1, "{original:?}");
    let whole = file(&world, "whole.ndjson", &original)?;

    // What would be done, what is done, and that it is done once, here and where it comes from.
    let events = |report: &Value| {
        let number = |name| report[name].as_u64().unwrap_or(u64::MAX);
        ["events", "new", "storedAlready", "refused"].map(number)
    };
    let all = u64::try_from(count)?;
    let planned = import(&world, &[&whole, "--project", "copy"])?;
    ensure!(
        events(&planned) == [all, all, 0, 0] && planned["done"] == false,
        "{planned}"
    );
    ensure!(planned["format"] == "export" && planned["first"] == "2019-02-03T04:05:06.007Z");
    let done = import(&world, &[&whole, "--project", "copy", "--yes"])?;
    ensure!(
        events(&done) == [all, all, 0, 0] && done["done"] == true,
        "{done}"
    );
    world.settled().await?;
    for project in ["copy", "acme"] {
        let again = import(&world, &[&whole, "--project", project, "--yes"])?;
        ensure!(events(&again) == [all, 0, all, 0], "{again}");
    }
    let copied = exported(&world, &api.url, &copy).await?;
    ensure!(copied.len() == original.len(), "{copied:?}");
    for (copied, original) in copied.iter().zip(&original).take(count) {
        ensure!(said(copied)? == said(original)?, "{copied}\n{original}");
        ensure!(copied.contains("\"projectId\":\"copy\""), "{copied}");
    }
    world.settled().await?;
    ensure!(world.sql("SELECT count() FROM audit_dead_letters").await? == "0");

    // What cannot be taken is named, and the rest is taken.
    let mut damaged = original.clone();
    damaged.pop();
    damaged[1] = damaged[1].replacen("eventType", "eventTyp", 1);
    damaged[3].truncate(40);
    let damaged = file(&world, "damaged.ndjson", &damaged)?;
    let report = import(
        &world,
        &[&damaged, "--project", "third", "--yes", "--named", "1"],
    )?;
    ensure!(events(&report) == [all - 2, all - 2, 0, 2], "{report}");
    ensure!(
        report["refusedNamed"].as_array().map(Vec::len) == Some(1),
        "{report}"
    );
    ensure!(report["refusedNamed"][0]["line"] == 2, "{report}");
    ensure!(report["cut"].is_string(), "{report}");
    let mended = import(&world, &[&whole, "--project", "third", "--yes"])?;
    ensure!(mended["refused"] == 0, "{mended}");
    world.settled().await?;
    let rows = "SELECT count(), uniqExact(event_id) FROM audit_events WHERE project_id = 'third'";
    ensure!(world.sql(rows).await? == format!("{count}\t{count}"));
    Ok(())
}

/// A line of a dashboard's events. Two follow each other that say the same.
fn answered(number: usize) -> String {
    let time = 1_767_225_600_000 + number / 2;
    let user = format!("user-{}", number / 2 % 50);
    json!({
        "eventType": "user_signed_in", "eventKey": user, "projectId": "theirs", "createdAt": time,
        "eventData": {"userId": user, "loginMethod": "email"}, "ageInMinutes": number,
    })
    .to_string()
}

/// An import that is fed line by line, and never sees the end of its file.
struct Fed(Process);

impl Fed {
    fn start(world: &World, project: &str, lines: &[String]) -> anyhow::Result<Self> {
        let arguments = ["import", "-", "--project", project, "--yes", "--json"];
        let log = world.logs().join(format!("import-{project}.log"));
        let command = &mut world.command("audit-consumer", &arguments)?;
        let mut process = Process::start(command, &log)?;
        for line in lines {
            process.tell(line)?;
        }
        Ok(Self(process))
    }
}

pub(crate) async fn an_import_that_was_killed_or_stopped_is_run_again_and_stores_every_event_once(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let lines: Vec<String> = (0..2 * CHUNK + 500).map(answered).collect();
    let whole = file(&world, "answers.ndjson", &lines)?;
    let of = |project: &str| {
        format!(
            "SELECT count(), uniqExact(event_id) FROM audit_events WHERE project_id = '{project}'"
        )
    };
    let letters = "SELECT countIf(kind = 'duplicate'), count() FROM audit_dead_letters";

    // While nobody consumes, nothing is found stored: what is sent twice, by a producer and by an
    // import, is recognised by the consumer.
    let reported: Vec<_> = (0..30)
        .map(|user| event("early", &format!("user-{user}")))
        .collect();
    let early: Vec<String> = reported
        .iter()
        .map(|event| {
            json!({
                "id": event.id, "eventType": event.event_type, "eventKey": event.event_key,
                "userId": event.user_id, "createdAt": event.created_at.timestamp_millis(),
                "position": null,
            })
            .to_string()
        })
        .collect();
    world.publish_all(reported.into_iter()).await?;
    let early = file(&world, "early.ndjson", &early)?;
    let arguments = [&early, "--project", "early", "--format", "export", "--yes"];
    ensure!(import(&world, &arguments)?["new"] == 30);
    let _consumer = world.consumer().await?;
    world.settled().await?;
    ensure!(world.sql(&of("early")).await? == "30\t30");
    ensure!(world.sql(letters).await? == "30\t30");

    let rows = async |project: &str, rows: usize| {
        let question = of(project);
        wait_until("rows of an import", async || {
            let found = world.sql(&question).await?;
            Ok((found == format!("{rows}\t{rows}")).then_some(()))
        })
        .await
    };
    // Killed in the middle.
    let mut killed = Fed::start(&world, "killed", &lines[..CHUNK + 700])?;
    rows("killed", CHUNK).await?;
    killed.0.kill()?;
    let again = import(&world, &[&whole, "--project", "killed", "--yes"])?;
    ensure!(
        again["storedAlready"] == CHUNK && again["new"] == CHUNK + 500,
        "{again}"
    );
    rows("killed", lines.len()).await?;

    // Asked to stop in the middle: it says where to go on.
    let mut stopped = Fed::start(&world, "stopped", &lines[..CHUNK + 700])?;
    rows("stopped", CHUNK).await?;
    ensure!(!stopped.0.stop(Signal::TERM).await?);
    let report = stopped.0.printed();
    let next = format!("\"fromLine\": {}", CHUNK + 1);
    ensure!(report.contains(&next), "{report}");
    let next = (CHUNK + 1).to_string();
    let rest = import(
        &world,
        &[
            &whole,
            "--project",
            "stopped",
            "--yes",
            "--from-line",
            &next,
        ],
    )?;
    ensure!(
        rest["events"] == CHUNK + 500 && rest["storedAlready"] == 0,
        "{rest}"
    );
    rows("stopped", lines.len()).await?;

    // All of it again: nothing is published, and nothing more becomes a dead letter.
    for project in ["killed", "stopped"] {
        let again = import(&world, &[&whole, "--project", project, "--yes"])?;
        ensure!(
            again["new"] == 0 && again["storedAlready"] == lines.len(),
            "{again}"
        );
    }
    world.settled().await?;
    ensure!(world.sql(letters).await? == "30\t30");
    Ok(())
}

/// Lets the topic take records up to so many bytes.
async fn limit(world: &World, bytes: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
    let limited = AlterConfig::new(ResourceSpecifier::Topic(&world.topic))
        .set("message.timestamp.type", "LogAppendTime")
        .set("cleanup.policy", "delete")
        .set("compression.type", "producer")
        .set("retention.ms", "-1")
        .set("max.message.bytes", bytes);
    for altered in admin
        .alter_configs([&limited], &AdminOptions::new())
        .await?
    {
        altered.map_err(|(_, code)| anyhow::anyhow!("not altered: {code}"))?;
    }
    Ok(())
}

pub(crate) async fn an_event_that_kafka_does_not_take_stops_an_import_at_its_line(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let _consumer = world.consumer().await?;
    let lines: Vec<String> = (0..2 * CHUNK).map(answered).collect();
    let mut fed = Fed::start(&world, "acme", &lines[..CHUNK])?;
    world.stored(CHUNK).await?;
    limit(&world, "1000").await?;
    let producer: FutureProducer = world.kafka().create()?;
    wait_until("kafka to refuse what is larger", async || {
        let large = "x".repeat(2_000);
        let record = FutureRecord::to(&world.topic).key("").payload(&large);
        let sent = producer.send_result(record).map_err(|(error, _)| error)?;
        Ok(sent.await?.is_err().then_some(()))
    })
    .await?;
    for line in &lines[CHUNK..] {
        fed.0.tell(line)?;
    }
    let ended = fed.0.says("why it stopped", |line| {
        let (_, reason) = line.split_once("\"reason\": \"line ")?;
        reason
            .contains("kafka did not confirm its event")
            .then_some(())?;
        reason.split_once(':')?.0.parse::<usize>().ok()
    });
    let line = ended.await?;
    ensure!(line > CHUNK && line <= lines.len(), "{line}");
    let next = format!("\"fromLine\": {line}");
    fed.0
        .says("where to go on", |line| line.contains(&next).then_some(()))
        .await?;

    limit(&world, "1048576").await?;
    let whole = file(&world, "answers.ndjson", &lines)?;
    let again = import(&world, &[&whole, "--project", "acme", "--yes"])?;
    ensure!(again["stopped"].is_null(), "{again}");
    world.settled().await?;
    let rows = "SELECT count(), uniqExact(event_id) FROM audit_events";
    ensure!(world.sql(rows).await? == format!("{0}\t{0}", lines.len()));
    Ok(())
}
