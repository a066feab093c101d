//! Erasure: what is stored of a person goes, what is about others stays, and nothing comes back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use audit_schema::{Actor, Event, EventBuilder, EventData, EventType, Location};
use chrono::{TimeDelta, Utc};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clickhouse_answers::{between, hold_an_insert};
use audit_tests::process::{Process, wait_until};
use audit_tests::world::{Key, World};

/// What every personal value of the person to erase has in it. Of everything else nothing has.
const ALICE: &str = "alice-7f";

/// The person's id, and the address of failed sign-ins, which know no user.
const USER: &str = "alice-7f|1";
const EMAIL: &str = "Alice-7f@example.com";

/// Another's.
const BOB: &str = "bob";

/// An event that happened a minute ago.
fn begun(kind: EventType<'static>) -> EventBuilder {
    Event::builder("acme".parse().expect("a project"), kind)
        .created_at(Utc::now() - TimeDelta::minutes(1))
}

/// What a client of `whose` says of itself.
fn client(event: EventBuilder, whose: &str) -> EventBuilder {
    event
        .event_display_name(format!("{whose} was here"))
        .session_id(format!("{whose}-session"))
        .request_id(format!("{whose}-request"))
        .user_agent(format!("{whose}-agent"))
        .location(Location {
            ip_address: Some(IpAddr::from([203, 0, 113, 77])),
            city: format!("{whose}-city").into(),
            country: format!("{whose}-country").into(),
            country_code: whose.chars().take(2).collect::<String>().into(),
        })
}

fn sign_in(user: &'static str, email: &'static str) -> EventBuilder {
    client(begun(EventType::USER_SIGNED_IN), user)
        .event_key(user)
        .user_id(user)
        .identifier(email)
}

fn built(events: Vec<EventBuilder>) -> anyhow::Result<Vec<Event<'static>>> {
    let events = events.into_iter().map(EventBuilder::build);
    Ok(events.collect::<Result<_, _>>()?)
}

/// Events about Alice and by her.
fn of_alice() -> anyhow::Result<Vec<Event<'static>>> {
    let by = |id: &'static str| Actor {
        id: id.into(),
        kind: "admin".into(),
    };
    let data = |data: Value| EventData::of(&data);
    let failed = EventType::new("user_sign_in_failed")?;
    built(vec![
        sign_in(USER, EMAIL),
        sign_in(USER, EMAIL).actor(by(USER)),
        // About her in an organization, by somebody else.
        begun(EventType::new("member_added")?)
            .event_key("org-1")
            .organization_id("org-1")
            .actor(by("boss"))
            .event_data(data(
                json!({"userId": USER, "memberEmail": EMAIL, "note": "pläne mit alice-7f"}),
            )?),
        // By her, about Bob.
        client(begun(EventType::USER_BANNED), ALICE)
            .event_key(BOB)
            .user_id(BOB)
            .identifier("bob@example.com")
            .actor(by(USER))
            .event_data(data(
                json!({"triggeredBy": USER, "reason": "alice-7f says so"}),
            )?),
        // Sign-ins that failed know the address alone, however it is written.
        client(begun(failed.clone()), ALICE)
            .event_key("unknown")
            .identifier("alice-7F@EXAMPLE.com"),
        begun(failed)
            .event_key("alice-7f@example.com")
            .event_data(data(json!({"identifier": "alice-7f@example.com"}))?),
    ])
}

/// Events that say nothing of her.
fn of_others() -> anyhow::Result<Vec<Event<'static>>> {
    let mut events = built(vec![
        sign_in(BOB, "bob@example.com"),
        sign_in("carol", "carol@example.com"),
        begun(EventType::USER_SIGNED_OUT)
            .event_key("org-1")
            .organization_id("org-1"),
    ])?;
    events.push(
        Event::builder("other".parse()?, EventType::USER_SIGNED_IN)
            .event_key("dave")
            .user_id("dave")
            .build()?,
    );
    Ok(events)
}

/// Puts a record that is no event into the topic.
fn send(world: &World, key: &str, value: &str) -> anyhow::Result<()> {
    let producer: BaseProducer = world.kafka().create()?;
    let record = BaseRecord::to(&world.topic).key(key).payload(value);
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(Duration::from_secs(20))?;
    Ok(())
}

/// In how many rows of the tables a value of hers is left.
async fn left(world: &World) -> anyhow::Result<u64> {
    let tables = "SELECT name FROM system.tables WHERE database = currentDatabase() \
                  AND engine != 'View'";
    let mut left = 0;
    for table in world.sql(tables).await?.lines() {
        let found = world
            .sql(&format!(
                "SELECT count() FROM {table} WHERE positionCaseInsensitive(toString(tuple(*)), \
                 '{ALICE}') > 0"
            ))
            .await?;
        left += found.parse::<u64>().with_context(|| table.to_owned())?;
    }
    Ok(left)
}

/// What no erasure changes, of every row.
const PLACES: &str = "SELECT count(), sum(cityHash64(project_id, event_id, event_type, \
    documented_type, organization_id, actor_type, outcome, created_at, logged_at, \
    source_incarnation, source_partition, source_offset)) FROM audit_events";

/// All there is, but for when it was sent.
const EVENTS: &str =
    "SELECT count(), sum(cityHash64(*)) FROM (SELECT * EXCEPT ingested_at FROM audit_events)";
const LETTERS: &str = "SELECT source_partition, source_offset, kind, reason, record_key, \
    record_value FROM audit_dead_letters ORDER BY ALL";

/// Erases a user, or plans to.
pub(crate) async fn erase(world: &Arc<World>, user: &str, more: &[&str]) -> anyhow::Result<Value> {
    let mut arguments = vec!["erase", "--project", "acme", "--user", user, "--json"];
    arguments.extend(["--reason", "asked for by letter; Ana"]);
    arguments.extend(more);
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let world = Arc::clone(world);
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        world.run("audit-consumer", &arguments)
    };
    let printed = tokio::task::spawn_blocking(run).await??;
    Ok(serde_json::from_str(&printed)?)
}

/// Waits until so many rows are in the registry.
async fn registered(world: &World, rows: &str) -> anyhow::Result<()> {
    wait_until("the erasure to be registered", async || {
        let found = world.sql("SELECT count() FROM audit_erasures").await?;
        Ok((found == rows).then_some(()))
    })
    .await
}

async fn hash_of_others(world: &World, ids: &[String]) -> anyhow::Result<String> {
    let ids = ids.join("','");
    world
        .sql(&format!("{EVENTS} WHERE event_id IN ('{ids}')"))
        .await
}

/// What would be erased is said, and nothing changes.
async fn is_planned(world: &Arc<World>, about: usize) -> anyhow::Result<()> {
    let planned = erase(world, USER, &[]).await?;
    ensure!(planned["events"] == about, "{planned}");
    ensure!(planned["deadLetters"] == 3, "{planned}");
    let identifiers =
        json!([{"identifier": "alice-7f@example.com", "events": 5, "eventsOfOthers": 0}]);
    ensure!(planned["identifiers"] == identifiers, "{planned}");
    ensure!(planned["erasure"].is_null() && planned["resumed"] == false);
    ensure!(world.sql("SELECT count() FROM audit_erasures").await? == "0");
    Ok(())
}

/// An erasure is killed when it has registered; of what it would have done, that is done which takes
/// the identifiers it had found out of all rows of hers.
async fn is_cut_off(world: &World) -> anyhow::Result<()> {
    let whose = ["erase", "--project", "acme", "--user", USER];
    let how = ["--reason", "r; Ana", "--yes"];
    let mut command = world.command("audit-consumer", &[&whose[..], &how].concat())?;
    let mut cut_off = Process::start(&mut command, &world.logs().join("erase.log"))?;
    registered(world, "2").await?;
    cut_off.kill()?;
    let by_half = "ALTER TABLE audit_events UPDATE user_id = '', identifier = '', event_key = '', \
                   event_display_name = '', session_id = '', request_id = '', user_agent = '', \
                   city = '', country = '', country_code = '', ip_address = toIPv6('::'), \
                   actor_id = if(actor_id = 'boss', 'boss', ''), \
                   event_data = '{\"erased\":true}' \
                   WHERE user_id = 'alice-7f|1' AND event_key != 'org-1' \
                   SETTINGS mutations_sync = 1";
    world.sql(by_half).await.map(drop)
}

/// Nothing of hers is left, also not in what ClickHouse keeps of our mutations, nor in the event that
/// says so.
async fn is_gone(world: &World, about: usize, done: &Value) -> anyhow::Result<()> {
    ensure!(left(world).await? == 0, "{}", world.sql(LETTERS).await?);
    let texts = format!(
        "SELECT count() FROM system.mutations WHERE database = currentDatabase() \
         AND positionCaseInsensitive(command, '{ALICE}') > 0 AND NOT position(command, 'boss') > 0"
    );
    ensure!(world.sql(&texts).await? == "0");
    let record = "SELECT event_id, user_id, JSONExtractUInt(event_data, 'events') \
                  FROM audit_events WHERE event_type = 'user_data_erased'";
    let expected = format!("{}\t\t{about}", done["erasure"].as_str().context("an id")?);
    ensure!(world.sql(record).await? == expected);
    Ok(())
}

async fn indexes_say_what_the_columns_say(world: &World) -> anyhow::Result<()> {
    for (condition, rows) in [
        ("user_id = 'alice-7f|1'", "0"),
        ("session_id = 'alice-7f-session'", "0"),
        ("toString(ip_address) = '::ffff:203.0.113.77'", "2"),
        ("user_id = 'bob'", "2"),
        ("actor_id = 'boss'", "1"),
        ("event_key = 'org-1'", "2"),
        ("hasAllTokens(words, ['alice'])", "0"),
        ("hasAllTokens(words, ['erased', 'true'])", "6"),
        ("hasAllTokens(words, ['carol', 'was', 'here'])", "1"),
    ] {
        let question = format!("SELECT count() FROM audit_events WHERE {condition}");
        let found = world.sql(&question).await?;
        ensure!(found == rows, "{condition}: {found}");
    }
    let kinds = "SELECT country, count() FROM audit_events GROUP BY country ORDER BY country";
    let of_kinds = world.sql(kinds).await?;
    let without = format!("{kinds} SETTINGS optimize_use_projections = 0");
    ensure!(of_kinds == world.sql(&without).await?, "{of_kinds}");
    Ok(())
}

/// A walk whose first page was read before goes on with the same events, and hers are read as
/// erased ones.
async fn walk_goes_on(
    world: &World,
    (api, key): (&str, &Key),
    first_page: &Value,
    events: usize,
) -> anyhow::Result<()> {
    let mut seen: Vec<Value> = Vec::new();
    let mut page = first_page.clone();
    loop {
        ensure!(page["total"] == events, "{page}");
        seen.extend(page["events"].as_array().context("events")?.iter().cloned());
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        let next = format!("{api}/v1/audit-logs?limit=4&cursor={cursor}");
        page = world.get(&next, key).await?;
    }
    ensure!(seen.len() == events);
    let hers = seen.iter().find(|e| e["eventType"] == "member_added");
    let id = hers.context("her event")?["id"].as_str().context("an id")?;
    let erased = world.get(&format!("{api}/v1/audit-logs/{id}"), key).await?;
    ensure!(
        erased["userId"].is_null() && erased["eventData"] == json!({"erased": true}),
        "{erased}"
    );
    let url = format!("{api}/events/organization?organizationId=org-1");
    let answer = world.get(&url, key).await?;
    let events = answer["events"].as_array().map(Vec::len);
    ensure!(events == Some(2), "{answer}");
    Ok(())
}

/// Read again by a consumer that begins anew, all becomes what it is: emptied at insert is emptied
/// by a mutation.
async fn is_read_again(world: &World, mut consumer: Process) -> anyhow::Result<Process> {
    let before = (world.sql(EVENTS).await?, world.sql(LETTERS).await?);
    ensure!(consumer.stop(Signal::TERM).await?);
    for table in ["audit_events", "audit_dead_letters", "audit_watermarks"] {
        world.sql(&format!("TRUNCATE TABLE {table}")).await?;
    }
    let consumer = world.consumer().await?;
    world.settled().await?;
    let after = (world.sql(EVENTS).await?, world.sql(LETTERS).await?);
    ensure!(before == after, "{before:#?} {after:#?}");
    Ok(consumer)
}

pub(crate) async fn an_erased_person_is_gone_for_good_and_nothing_else_changes(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let consumer = world.consumer().await?;
    let (hers, others) = (of_alice()?, of_others()?);
    let about = hers.len();
    let ids: Vec<String> = others.iter().map(|event| event.id.to_string()).collect();
    let twice = hers[0].clone();
    world.publish_all(hers.into_iter().chain(others)).await?;
    world.producer()?.publish_maybe_delivered(&twice).await?;
    send(&world, "acme/x", r#"{"userId":"alice-7f|1""#)?;
    send(&world, "acme/x", "a letter that ALICE-7F@example.com wrote")?;
    send(&world, "acme/bob", r#"{"userId":"bob""#)?;
    send(&world, "other/x", r#"{"userId":"dave""#)?;
    world.settled().await?;
    ensure!(left(&world).await? > 8);
    let key = world.key("acme", &["read"])?;
    let api = world.query_api().await?;
    let first_page = world
        .get(&format!("{}/v1/audit-logs?limit=4", api.url), &key)
        .await?;
    let places = world.sql(PLACES).await?;
    let of_others = hash_of_others(&world, &ids).await?;

    is_planned(&world, about).await?;
    is_cut_off(&world).await?;
    let done = erase(&world, USER, &["--yes"]).await?;
    ensure!(done["resumed"] == true, "{done}");
    let found = [&done["events"], &done["deadLetters"]];
    ensure!(found == [&json!(about), &json!(3)], "{done}");
    world.settled().await?;
    is_gone(&world, about, &done).await?;

    ensure!(hash_of_others(&world, &ids).await? == of_others);
    let without_record = format!("{PLACES} WHERE event_type != 'user_data_erased'");
    ensure!(world.sql(&without_record).await? == places);
    world.audit()?;
    indexes_say_what_the_columns_say(&world).await?;
    let in_acme = about + ids.len() - 1;
    walk_goes_on(&world, (&api.url, &key), &first_page, in_acme).await?;
    let _consumer = is_read_again(&world, consumer).await?;

    // What a spool brings late is stored without her; what she does now is not.
    world.publish_all(of_alice()?.into_iter()).await?;
    let late = r#"{"createdAt":1700000000000,"userId":"alice-7f|1"}"#;
    send(&world, "acme/x", late)?;
    world.settled().await?;
    ensure!(left(&world).await? == 0);
    let back = sign_in(USER, EMAIL).created_at(Utc::now()).build()?;
    world.publish_all(std::iter::once(back)).await?;
    world.settled().await?;
    ensure!(left(&world).await? == 1);
    let again = erase(&world, USER, &["--yes"]).await?;
    ensure!(again["events"] == 1 && again["resumed"] == false, "{again}");
    world.settled().await?;
    ensure!(left(&world).await? == 0);
    let rows = (2 * about + ids.len() + 3).to_string();
    ensure!(world.sql("SELECT count() FROM audit_events").await? == rows);
    Ok(())
}

pub(crate) async fn an_insert_under_way_when_its_person_is_erased_brings_nothing_back(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let proxy = between(&world)?;
    let _consumer = world.consumer().await?;
    let mut ids = world.publish(20).await?;
    let mention = begun(EventType::USER_SIGNED_OUT)
        .user_id(BOB)
        .event_data(EventData::of(&json!({"with": "somebody"}))?)
        .build()?;
    ids.push(mention.id);
    world.publish_all(std::iter::once(mention)).await?;
    world.holds_exactly(&ids).await?;
    let somebodys = "SELECT countIf(user_id = 'somebody'), countIf(user_id = '') FROM audit_events \
                     WHERE event_type = 'user_signed_in'";

    // It was made before the erasure was registered, and arrives when that is done.
    ids.extend(hold_an_insert(&world, &proxy).await?);
    let done = erase(&world, "somebody", &["--yes"]).await?;
    ensure!(done["eventsThatMention"] == 1, "{done}");
    ids.push(done["erasure"].as_str().context("an id")?.parse()?);
    proxy.release();
    world.holds_exactly(&ids).await?;
    ensure!(world.sql(somebodys).await? == "0\t20");

    // It arrives while the erasure waits for it, and is stored as it was made.
    ids.extend(hold_an_insert(&world, &proxy).await?);
    let arrives = async {
        registered(&world, "2").await?;
        proxy.release();
        anyhow::Ok(())
    };
    let yes = ["--yes"];
    let (done, ()) = tokio::try_join!(erase(&world, "somebody", &yes), arrives)?;
    ids.push(done["erasure"].as_str().context("an id")?.parse()?);
    world.holds_exactly(&ids).await?;
    ensure!(world.sql(somebodys).await? == "0\t40");
    world.ends_with(&ids).await
}
