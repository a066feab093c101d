//! A rolling restart, in the order of `deploy/README.md`: every instance of every service is asked to
//! stop and started again, one after the other, while clients write and read through a balancer.
//!
//! The clients keep their connections, and send what they send once. So a refusal fails the test, and
//! so does a connection that cannot be made, or that ends without an answer that said so.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use audit_schema::EventId;
use audit_tests::process::{PATIENCE, Process, address, wait_until};
use audit_tests::world::World;
use axum::body::{Body, to_bytes};
use futures_util::future::try_join_all;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::reading::total_is;

/// How often the balancer asks who is ready, and how long the APIs leave it to notice.
const LOOK: Duration = Duration::from_millis(200);
const STAY_OPEN: &str = "5s";

/// How many clients write, and how many read, and how soon one sends its next request.
const WRITERS: usize = 3;
const READERS: usize = 3;
const WRITES: Duration = Duration::from_millis(20);
const READS: Duration = Duration::from_millis(100);

/// A walk begins before the first restart and turns a page after each.
const ORDER: [&str; 6] = [
    "audit-consumer",
    "audit-consumer",
    "audit-query-api",
    "audit-query-api",
    "audit-ingest",
    "audit-ingest",
];
const PAGE: usize = 20;
const WALKED: usize = PAGE * (ORDER.len() + 1);

/// An instance of a service, and what it keeps when it is started again.
struct Instance {
    program: &'static str,
    spool: String,
    process: Process,
    admin: SocketAddr,
    /// None for a consumer.
    api: Option<SocketAddr>,
}

impl Instance {
    async fn start(world: &World, program: &'static str, spool: &str) -> anyhow::Result<Self> {
        let has_api = program != "audit-consumer";
        if has_api {
            let prefix = program.to_uppercase().replace('-', "_");
            world.set(&format!("{prefix}_KAFKA__SPOOL__FOLDER"), spool);
        }
        let process = world.start(program)?;
        let admin = process.says(program, address("admin port is open")).await?;
        let api = if has_api {
            let api = process.says(program, address("api is open")).await?;
            Some(api.parse()?)
        } else {
            None
        };
        let admin = admin.parse()?;
        wait_until(&format!("{program} to be ready"), async || {
            Ok(is_ready(world, admin).await.then_some(()))
        })
        .await?;
        Ok(Self {
            program,
            spool: spool.to_owned(),
            process,
            admin,
            api,
        })
    }

    /// Stops it, which has to end well, and starts it again with its spool.
    async fn restart(&mut self, world: &World) -> anyhow::Result<()> {
        let ended_well = self.process.stop(Signal::TERM).await?;
        let program = self.program;
        ensure!(ended_well, "{program}: {}", self.process.printed());
        *self = Self::start(world, program, &self.spool).await?;
        Ok(())
    }
}

async fn is_ready(world: &World, admin: SocketAddr) -> bool {
    let asked = world.http().get(format!("http://{admin}/readyz")).send();
    asked.await.is_ok_and(|answer| answer.status().is_success())
}

/// What stands before the instances of one service: it sends new connections in turn to those that
/// were ready when it looked, and leaves those that there are alone.
#[derive(Default)]
struct Balancer {
    /// Admin port and API of each instance.
    instances: RefCell<Vec<(SocketAddr, SocketAddr)>>,
    ready: RefCell<Vec<SocketAddr>>,
    turn: Cell<usize>,
    /// How many answers have ended their connection.
    ended: Cell<usize>,
}

impl Balancer {
    /// Stands before those of `instances` that run this program.
    fn is_before(&self, instances: &[Instance], program: &str) {
        let of_it = instances.iter().filter(|it| it.program == program);
        *self.instances.borrow_mut() = of_it.filter_map(|it| Some((it.admin, it.api?))).collect();
    }

    /// Looks again and again.
    async fn watch(&self, world: &World) {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            let mut ready = Vec::new();
            let instances = self.instances.borrow().clone();
            for (admin, api) in instances {
                if is_ready(world, admin).await {
                    ready.push(api);
                }
            }
            self.ready.replace(ready);
        }
    }

    /// Waits until it sends to all instances, and to no other.
    async fn has_noticed(&self) -> anyhow::Result<()> {
        wait_until("the balancer to notice", async || {
            let instances = self.instances.borrow();
            let all: Vec<_> = instances.iter().map(|(_, api)| *api).collect();
            Ok((all == *self.ready.borrow()).then_some(()))
        })
        .await
    }

    fn next(&self) -> anyhow::Result<SocketAddr> {
        let ready = self.ready.borrow();
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let place = turn.checked_rem(ready.len()).context("none is ready")?;
        Ok(ready[place])
    }
}

/// A client of a service: it keeps its connection until an answer ends it, and repeats nothing.
struct Client<'a> {
    balancer: &'a Balancer,
    key: &'a str,
    kept: Option<SendRequest<Body>>,
    connections: JoinSet<hyper::Result<()>>,
}

impl<'a> Client<'a> {
    fn new(balancer: &'a Balancer, key: &'a str) -> Self {
        Self {
            balancer,
            key,
            kept: None,
            connections: JoinSet::new(),
        }
    }

    /// Sends a request, once, and gives its answer, which has to be a good one.
    async fn ask(&mut self, method: Method, path: &str, body: Body) -> anyhow::Result<Value> {
        let what = format!("{method} {path}");
        let asked = timeout(PATIENCE, self.send(method, path, body));
        asked.await?.with_context(|| format!("{what} failed"))
    }

    async fn send(&mut self, method: Method, path: &str, body: Body) -> anyhow::Result<Value> {
        let mut connection = if let Some(kept) = self.kept.take() {
            kept
        } else {
            let stream = TcpStream::connect(self.balancer.next()?).await?;
            let (connection, driven) = handshake(TokioIo::new(stream)).await?;
            self.connections.spawn(driven);
            connection
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "audit")
            .header("x-api-key", self.key)
            .header(CONTENT_TYPE, "application/json")
            .body(body)?;
        connection.ready().await?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        let ends = answer.headers().get(CONNECTION).is_some();
        let body = to_bytes(Body::new(answer.into_body()), usize::MAX).await?;
        let text = String::from_utf8_lossy(&body);
        ensure!(status == StatusCode::OK, "{status} {text}");
        if ends {
            self.balancer.ended.update(|ended| ended + 1);
        } else {
            self.kept = Some(connection);
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Writes events until it is told that this is enough, and gives their ids.
    async fn write(mut self, enough: &Cell<bool>) -> anyhow::Result<Vec<EventId>> {
        let (mut pace, mut ids) = (interval(WRITES), Vec::new());
        while !enough.get() {
            pace.tick().await;
            let id = EventId::new();
            let event = json!({
                "id": id.to_string(),
                "eventType": "user_signed_in",
                "eventKey": format!("user-{}", ids.len() % 100),
            });
            let answer = self.ask(Method::POST, "/v1/events", event.to_string().into());
            let answer = answer.await?;
            ensure!(answer["results"][0]["id"] == id.to_string(), "{answer}");
            ids.push(id);
        }
        Ok(ids)
    }

    /// Reads first pages until it is told that this is enough.
    async fn read(mut self, enough: &Cell<bool>) -> anyhow::Result<()> {
        let mut pace = interval(READS);
        while !enough.get() {
            pace.tick().await;
            self.page(None).await?;
        }
        Ok(())
    }

    /// Reads a page, which has to be full.
    async fn page(&mut self, cursor: Option<&str>) -> anyhow::Result<Value> {
        let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let path = format!("/v1/audit-logs?limit={PAGE}{cursor}");
        let page = self.ask(Method::GET, &path, Body::empty()).await?;
        let events = page["events"].as_array().map_or(0, Vec::len);
        ensure!(events == PAGE, "{events} events");
        Ok(page)
    }
}

/// Restarts them one after the other, and walks meanwhile; gives the events of the walk. Each page is
/// that of a new client: the one before would be idle for longer than the APIs stay open.
async fn restart<'a>(
    world: &World,
    instances: &mut [Instance],
    balancers: [(&'static str, &Balancer); 2],
    reader: impl Fn() -> Client<'a>,
) -> anyhow::Result<Vec<String>> {
    let mut page = reader().page(None).await?;
    let mut walked = ids_of(&page);
    for number in 0..instances.len() {
        let program = instances[number].program;
        let balancer = balancers.iter().find(|(of, _)| *of == program);
        let before = balancer.map(|(_, balancer)| balancer.ended.get());
        let restarted = instances[number].restart(world).await;
        restarted.with_context(|| format!("restart {number}, of {program}"))?;
        if let (Some((_, balancer)), Some(before)) = (balancer, before) {
            // Clients were on it, and it has sent them away.
            ensure!(balancer.ended.get() > before, "nobody was at {program}");
            balancer.is_before(instances, program);
            balancer.has_noticed().await?;
        }
        let cursor = page["nextCursor"].as_str().context("a cursor")?.to_owned();
        page = reader().page(Some(&cursor)).await?;
        walked.extend(ids_of(&page));
    }
    ensure!(page["nextCursor"].is_null(), "the walk is longer");
    Ok(walked)
}

fn ids_of(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().into_iter().flatten();
    let ids = events.filter_map(|event| event["id"].as_str());
    ids.map(str::to_owned).collect()
}

pub(crate) async fn a_rolling_restart_loses_no_event_and_fails_no_request(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write", "read"])?;
    world.set("AUDIT_INGEST_HTTP__STAY_OPEN", STAY_OPEN);
    world.set("AUDIT_QUERY_API_HTTP__STAY_OPEN", STAY_OPEN);
    // A walk goes on at another instance.
    world.set(
        "AUDIT_QUERY_API_CURSORS__SECRET",
        "0123456789abcdef0123456789abcdef",
    );
    let mut instances = Vec::new();
    for (number, program) in ORDER.into_iter().enumerate() {
        let spool = world.logs().join(format!("kept-{number}"));
        let spool = spool.display().to_string();
        instances.push(Instance::start(&world, program, &spool).await?);
    }
    let (ingest, query_api) = (Balancer::default(), Balancer::default());
    let balancers = [("audit-ingest", &ingest), ("audit-query-api", &query_api)];
    for (program, balancer) in balancers {
        balancer.is_before(&instances, program);
    }
    let mut ids = world.publish(WALKED).await?;
    let api = instances.iter().find(|it| it.program == "audit-query-api");
    let api = api.and_then(|it| it.api).context("a query API")?;
    total_is(&world, &format!("http://{api}"), &key, WALKED as u64).await?;

    let enough = Cell::new(false);
    let load = async {
        try_join_all(balancers.map(|(_, balancer)| balancer.has_noticed())).await?;
        let client = |balancer| Client::new(balancer, &key.secret);
        let writing = try_join_all((0..WRITERS).map(|_| client(&ingest).write(&enough)));
        let reading = try_join_all((0..READERS).map(|_| client(&query_api).read(&enough)));
        let restarting = async {
            let reader = || client(&query_api);
            let walked = restart(&world, &mut instances, balancers, reader).await?;
            enough.set(true);
            anyhow::Ok(walked)
        };
        tokio::try_join!(restarting, writing, reading)
    };
    let (walked, written, _) = tokio::select! {
        ended = load => ended?,
        ((), ()) = async { tokio::join!(ingest.watch(&world), query_api.watch(&world)) } => {
            unreachable!("a balancer watches for ever")
        }
    };
    ensure!(walked.len() == WALKED, "{} events walked", walked.len());
    let before: HashSet<String> = ids.iter().map(ToString::to_string).collect();
    ensure!(walked.into_iter().collect::<HashSet<_>>() == before);
    ids.extend(written.into_iter().flatten());
    world.ends_with(&ids).await
}
