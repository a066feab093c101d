//! Live readers: every event once while everything around them dies, and none kept in memory for
//! one that does not read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_schema::{Event, EventData, EventId, EventType};
use audit_tests::live::LiveReader;
use audit_tests::process::wait_until;
use audit_tests::world::{Key, World, event};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::deaths::SHORT_SESSION;
use crate::reading::total_is;

/// How many events each of two producers publishes.
const EACH: usize = 1_000;

/// How many of them at once, and how many of all may be ahead of the reader, so that there are some
/// before and after each harm.
const AT_ONCE: usize = 50;
const AHEAD: usize = 400;

/// What publishers, the reader and what harms them know of one another.
struct Progress {
    published: Cell<usize>,
    seen: Cell<usize>,
    /// Where the query API is; a new one has another port.
    url: RefCell<String>,
}

impl Progress {
    async fn seen(&self, events: usize) -> anyhow::Result<()> {
        let seen = async || Ok((self.seen.get() >= events).then_some(()));
        wait_until(&format!("{events} events to be seen"), seen).await
    }

    async fn publish(&self, world: &World) -> anyhow::Result<Vec<EventId>> {
        let producer = world.producer()?;
        let mut ids = Vec::new();
        for number in (0..EACH).step_by(AT_ONCE) {
            self.seen(self.published.get().saturating_sub(AHEAD))
                .await?;
            let events = (number..number + AT_ONCE).map(|n| event("acme", &format!("user-{n}")));
            let receipts: Vec<_> = events.map(|e| (e.id, producer.publish(&e))).collect();
            for (id, receipt) in receipts {
                receipt.await?;
                ids.push(id);
            }
            self.published.update(|published| published + AT_ONCE);
        }
        Ok(ids)
    }

    /// Reads so many events, coming back whenever the connection ends; says how often it did.
    async fn read(
        &self,
        world: &World,
        key: &Key,
        reader: &mut LiveReader,
        events: usize,
    ) -> anyhow::Result<(Vec<Value>, usize)> {
        let (mut seen, mut returns) = (Vec::new(), 0);
        while seen.len() < events {
            if let Some(event) = reader.next().await? {
                seen.push(event);
                self.seen.set(seen.len());
                continue;
            }
            let last = reader.last().to_owned();
            *reader = wait_until("the query API to be back", async || {
                let url = self.url.borrow().clone();
                LiveReader::open(world, &url, key, Some(&last))
                    .await
                    .map(Some)
            })
            .await?;
            returns += 1;
        }
        Ok((seen, returns))
    }
}

/// Each of these events is there once, and those of each partition are in order.
fn once_and_in_order(seen: &[Value], published: &[EventId]) -> anyhow::Result<()> {
    let mut ids = HashSet::new();
    let mut ends = BTreeMap::new();
    for event in seen {
        ensure!(
            ids.insert(event["id"].as_str().context("an id")?),
            "twice: {event}"
        );
        let at = &event["position"];
        let offset = at["offset"].as_u64();
        let before = ends.insert(at["partition"].as_u64(), offset);
        ensure!(
            before.is_none_or(|before| before < offset),
            "out of order: {at}"
        );
    }
    let missing = published
        .iter()
        .filter(|id| !ids.contains(id.to_string().as_str()));
    ensure!(missing.count() == 0 && seen.len() == published.len());
    Ok(())
}

pub(crate) async fn a_live_reader_sees_every_event_once_across_deaths(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["read"])?;
    world.set("AUDIT_CONSUMER_KAFKA__SESSION_TIMEOUT", SHORT_SESSION);
    // An id is good at the next instance as well.
    world.set(
        "AUDIT_QUERY_API_CURSORS__SECRET",
        &"0123456789abcdef".repeat(2),
    );
    let mut consumer = world.consumer().await?;
    let mut api = world.query_api().await?;
    let mut reader = LiveReader::open(&world, &api.url, &key, None).await?;
    let progress = Progress {
        published: Cell::new(0),
        seen: Cell::new(0),
        url: RefCell::new(api.url.clone()),
    };

    let harm = async {
        progress.seen(300).await?;
        consumer.kill()?;
        consumer = world.consumer().await?;
        progress.seen(900).await?;
        api.process.kill()?;
        api = world.query_api().await?;
        api.url.clone_into(&mut progress.url.borrow_mut());
        progress.seen(1_300).await?;
        ensure!(api.process.stop(rustix::process::Signal::TERM).await?);
        api = world.query_api().await?;
        api.url.clone_into(&mut progress.url.borrow_mut());
        Ok(())
    };
    let ((), (seen, returns), one, other) = tokio::try_join!(
        harm,
        progress.read(&world, &key, &mut reader, 2 * EACH),
        progress.publish(&world),
        progress.publish(&world),
    )?;
    let published = [one, other].concat();
    once_and_in_order(&seen, &published)?;
    ensure!(returns >= 2, "{returns} returns");
    // Nothing comes late or again: the next event is the next one.
    let (id, _) = *world
        .publish_all([event("acme", "last")].into_iter())
        .await?
        .first()
        .context("an event")?;
    let next = reader.next().await?.context("an event")?;
    ensure!(next["id"] == id.to_string(), "{next}");
    Ok(())
}

/// Bytes of one large event, and how many of them there are.
const LARGE: usize = 16_000;
const MANY: usize = 6_000;

/// How much more memory the query API may have meanwhile: the events of one look, which are at most
/// 200 of each of three partitions, are a tenth of all; they are there as bytes, as rows and as text.
const HELD: u64 = 48 << 20;

fn large(number: usize) -> Event<'static> {
    let data = EventData::of(&json!({"number": number, "text": "x".repeat(LARGE)}));
    Event::builder(
        "acme".parse().expect("a project"),
        EventType::USER_SIGNED_IN,
    )
    .event_key(format!("user-{number}"))
    .event_data(data.expect("event data"))
    .build()
    .expect("an event")
}

pub(crate) async fn a_live_reader_that_stops_reading_is_cut_off_and_costs_no_memory(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["read"])?;
    let _consumer = world.consumer().await?;
    world.set("AUDIT_QUERY_API_HTTP__WRITE_TIMEOUT", "1s");
    // So the place of the one that is cut off is the only one.
    world.set("AUDIT_QUERY_API_STREAMS__MAX_TAILS", "1");
    let api = world.query_api().await?;
    let begin = world
        .get(&format!("{}/v1/audit-logs?limit=1", api.url), &key)
        .await?;
    let as_of = begin["asOf"].as_str().context("asOf")?;
    // It finds everything at once, so that only its reading holds it back.
    for first in (0..MANY).step_by(500) {
        world.publish_all((first..first + 500).map(large)).await?;
    }
    total_is(&world, &api.url, &key, MANY as u64).await?;

    api.process.forget_peak()?;
    let before = api.process.resident()?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(64 << 10)?;
    let address = api.url.trim_start_matches("http://");
    let mut stream = socket.connect(address.parse()?).await?;
    let request = format!(
        "GET /v1/audit-logs/tail?asOf={as_of} HTTP/1.1\r\nhost: {address}\r\nx-api-key: {}\r\n\r\n",
        key.secret
    );
    stream.write_all(request.as_bytes()).await?;
    let mut read = vec![0; 4_096];
    stream.read_exact(&mut read).await?;
    ensure!(read.starts_with(b"HTTP/1.1 200"));

    let tail = format!("{}/v1/audit-logs/tail", api.url);
    wait_until("its place to be free", async || {
        // Others arrive meanwhile.
        world
            .publish_all([event("acme", "late")].into_iter())
            .await?;
        let answer = world
            .http()
            .get(&tail)
            .header("x-api-key", &key.secret)
            .send()
            .await?;
        let status = answer.status();
        ensure!(
            status == StatusCode::OK || status == StatusCode::TOO_MANY_REQUESTS,
            "{status}"
        );
        Ok((status == StatusCode::OK).then_some(()))
    })
    .await?;
    let held = api.process.peak()?.saturating_sub(before);
    ensure!(
        held < HELD,
        "{held} bytes were held for one that does not read"
    );
    // What was sent before ends in the middle.
    let ended = stream.read_to_end(&mut read).await;
    ensure!(
        read.len() < MANY * LARGE / 2,
        "{} bytes were sent",
        read.len()
    );
    ensure!(
        ended.is_err() || !read.ends_with(b"\r\n0\r\n\r\n"),
        "it looks whole"
    );
    Ok(())
}
