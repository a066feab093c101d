//! `audit-local up`: the whole product on one machine.
//!
//! Kafka and the engine run as children, unless the addresses of other ones are given; consumer,
//! ingest and query API run in this process, the two APIs behind one address. Promises: when it
//! says it is ready, an event that is sent can be read; Ctrl-C ends everything it started, and so
//! does its death; what was stored is there at the next start.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use audit_consumer::freshness::Freshness;
use audit_consumer::migrate::{Migrate, migrate};
use audit_ingest::Ingest;
use audit_producer::Producer;
use audit_query_api::QueryApi;
use audit_schema::{Event, EventType, ProjectId};
use audit_service::admin::Readiness;
use audit_service::keys::{ApiKeys, Grant, NewKey, Scope, add_key, create_key};
use audit_service::{Tasks, http};
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::child::Child;
use crate::fetch;

/// How long Kafka or the engine may take to start. A first start reads the library from disk.
const START: Duration = Duration::from_secs(90);

/// How long a child may take to stop.
const STOP: Duration = Duration::from_secs(25);

/// How long the services may take until an event can be sent and read.
const READY: Duration = Duration::from_secs(60);

/// How long the services may take to finish what they hold.
const FINISH: Duration = Duration::from_secs(30);

/// The project that is made.
const PROJECT: &str = "local";

/// `audit-local up`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the API listens; port 0 takes a free one.
    #[arg(long, env = "AUDIT_LOCAL_ADDRESS", default_value = "127.0.0.1:4600")]
    address: SocketAddr,
    /// Where data and keys are kept.
    #[arg(long, env = "AUDIT_LOCAL_DATA", default_value = ".audit")]
    data: PathBuf,
    /// An API key to use as it is, 32 characters or more, instead of one that is made.
    #[arg(long, env = "AUDIT_LOCAL_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// The port of our own Kafka; if it is taken, or 0, a free one.
    #[arg(long, env = "AUDIT_LOCAL_KAFKA_PORT", default_value_t = 9092)]
    kafka_port: u16,
    /// The port of our own ClickHouse engine; if it is taken, or 0, a free one.
    #[arg(long, env = "AUDIT_LOCAL_CLICKHOUSE_PORT", default_value_t = 8123)]
    clickhouse_port: u16,
    /// Addresses of a Kafka to use instead of one of our own.
    #[arg(long, env = "AUDIT_KAFKA_BROKERS")]
    kafka_brokers: Option<String>,
    /// HTTP address of a ClickHouse to use instead of the embedded engine.
    #[arg(long, env = "AUDIT_CLICKHOUSE_URL")]
    clickhouse_url: Option<String>,
}

/// Brings the stack up, serves until `shutdown`, and takes it down. From the main thread only:
/// the children die with the thread that starts them.
pub async fn run(
    options: Options,
    cache: &Path,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.data)
        .with_context(|| format!("{} cannot be made", options.data.display()))?;
    let listener = TcpListener::bind(options.address).await.with_context(|| {
        format!(
            "{} cannot be listened on; set AUDIT_LOCAL_ADDRESS",
            options.address
        )
    })?;
    let (mut children, places) = Children::start(&options, cache).await?;
    let served = tokio::select! {
        served = serve(&options, &places, listener, shutdown.clone()) => served,
        ended = children.ended() => ended,
    };
    shutdown.cancel();
    let stopped = children.stop().await;
    served.and(stopped)
}

/// The processes we started.
struct Children {
    kafka: Option<Child>,
    engine: Option<Child>,
}

/// Where Kafka and ClickHouse are.
struct Places {
    brokers: String,
    clickhouse: String,
}

impl Children {
    async fn start(options: &Options, cache: &Path) -> anyhow::Result<(Self, Places)> {
        // Fetched before anything is started, so that a missing tool is said at once.
        let (own_kafka, own_engine) = (
            options.kafka_brokers.is_none(),
            options.clickhouse_url.is_none(),
        );
        if own_kafka {
            fetch::check_java()?;
        }
        if own_engine {
            fetch::engine_library(cache)?;
        }
        if own_kafka {
            fetch::kafka_jars(cache)?;
        }
        let program = std::env::current_exe().context("our own program cannot be found")?;
        let mut kafka = None;
        if own_kafka {
            tracing::info!("starting Apache Kafka …");
            let (data, port) = (
                options.data.join("kafka"),
                preferred(options.kafka_port).to_string(),
            );
            let arguments = [
                "--port".into(),
                port.into(),
                "--data".into(),
                data.into_os_string(),
            ];
            kafka = Some(Child::spawn(
                &program,
                "kafka",
                with_cache(arguments, cache),
            )?);
        }
        let mut engine = None;
        if own_engine {
            tracing::info!("starting the ClickHouse engine …");
            let address = format!("127.0.0.1:{}", preferred(options.clickhouse_port));
            let data = options.data.join("clickhouse");
            let arguments = [
                "--listen".into(),
                address.into(),
                "--data".into(),
                data.into_os_string(),
            ];
            engine = Some(Child::spawn(
                &program,
                "engine",
                with_cache(arguments, cache),
            )?);
        }
        let brokers = match (&mut kafka, &options.kafka_brokers) {
            (Some(kafka), _) => kafka.ready(START).await?,
            (None, brokers) => brokers.clone().unwrap_or_default(),
        };
        let clickhouse = match (&mut engine, &options.clickhouse_url) {
            (Some(engine), _) => engine.ready(START).await?,
            (None, url) => url.clone().unwrap_or_default(),
        };
        Ok((
            Self { kafka, engine },
            Places {
                brokers,
                clickhouse,
            },
        ))
    }

    /// Waits for a child that ends, which is always an error.
    async fn ended(&mut self) -> anyhow::Result<()> {
        async fn one(child: &mut Option<Child>, name: &str) -> anyhow::Result<()> {
            match child {
                None => std::future::pending().await,
                Some(child) => {
                    let status = child.ended().await?;
                    bail!("{name} ended ({status}):\n{}", child.tail())
                }
            }
        }
        tokio::select! {
            ended = one(&mut self.kafka, "kafka") => ended,
            ended = one(&mut self.engine, "the engine") => ended,
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        for child in [self.engine, self.kafka].into_iter().flatten() {
            child.stop(STOP).await?;
        }
        Ok(())
    }
}

fn with_cache(
    arguments: [std::ffi::OsString; 4],
    cache: &Path,
) -> impl Iterator<Item = std::ffi::OsString> {
    let quiet = ["--log", "warn", "--cache"].map(Into::into);
    arguments
        .into_iter()
        .chain(quiet)
        .chain([cache.as_os_str().to_owned()])
}

/// The port if it is free, or 0, which takes any free one.
fn preferred(port: u16) -> u16 {
    match StdListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => port,
        Err(_) => 0,
    }
}

/// Migrates, starts the services, says how to use them, and serves until `shutdown`.
async fn serve(
    options: &Options,
    places: &Places,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut consumer: audit_consumer::config::Config =
        audit_service::config::load("consumer", audit_consumer::config::DEFAULTS, None)?;
    consumer.kafka.brokers.clone_from(&places.brokers);
    // After a kill -9 the next start takes its partitions back at once.
    "local".clone_into(&mut consumer.kafka.instance);
    consumer.clickhouse.url.clone_from(&places.clickhouse);
    let mut ingest = audit_ingest::Config::load(None)?;
    ingest.kafka.brokers.clone_from(&places.brokers);
    if let Some(spool) = &mut ingest.kafka.spool {
        spool.folder = options.data.join("spool");
    }
    // There is no other instance that anybody could go to.
    ingest.http.stay_open = Duration::ZERO;
    let connections = ingest.http.connections()?;
    let mut query_api = audit_query_api::Config::load(None)?;
    query_api.clickhouse.url.clone_from(&places.clickhouse);

    tracing::info!("making tables and topic …");
    migrate(&consumer, &Migrate::default()).await?;
    let (key, made) = api_key(options)?;
    let keys = ApiKeys::open(&options.data.join("keys.toml"))?;

    tracing::info!("starting consumer, ingest and query API …");
    let producer = Producer::new(&ingest.kafka)?;
    let consuming = Readiness::new(shutdown.clone());
    let recorder = Some(producer.clone());
    let closing = connections.closing.clone();
    let api = QueryApi::new(&query_api, keys.clone(), recorder, closing);
    let ready = {
        let (consuming, api, producer) = (consuming.clone(), api.clone(), producer.clone());
        move || {
            let (consuming, api, producer) = (consuming.clone(), api.clone(), producer.clone());
            async move { obstacle(&consuming, &api, producer).await }
        }
    };
    let readyz = ready.clone();
    let routes = audit_ingest::router(Ingest {
        producer: producer.clone(),
        keys: keys.clone(),
        confirm_timeout: ingest.confirm.timeout,
    })
    .merge(audit_query_api::router(api))
    .route(
        "/readyz",
        get(async move || match readyz().await {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n")),
        }),
    );
    let address = listener.local_addr()?;
    let app = http::finish(routes, &ingest.http);
    let summary = Summary {
        url: format!("{}://{address}", connections.scheme()),
        brokers: places.brokers.clone(),
        topic: consumer.kafka.topic.clone(),
        clickhouse: places.clickhouse.clone(),
        database: consumer.clickhouse.database.clone(),
        data: options.data.display().to_string(),
        key,
    };

    // The API stops first: what it took is then still sent, stored and counted.
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.attend("api keys", keys.watch());
    tasks.spawn(
        "api",
        http::serve(listener, app, connections, shutdown.clone()),
    );
    tasks.spawn(
        "consumer",
        audit_consumer::run(consumer, consuming, Freshness::default(), shutdown.clone()),
    );
    let samples = producer.clone();
    tasks.spawn("welcome", async move {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            welcomed = welcome(&summary, made.then_some(&samples), ready) => welcomed?,
        }
        shutdown.cancelled().await;
        anyhow::Ok(())
    });
    let ended = tasks.join(FINISH).await;
    let left = producer.close(FINISH).await;
    ended?;
    ensure!(
        left.given_up == 0,
        "{} events reached neither Kafka nor the spool",
        left.given_up
    );
    tracing::info!("stopped");
    Ok(())
}

/// What keeps an event from being sent and read, if anything does.
async fn obstacle(consuming: &Readiness, api: &QueryApi, producer: Producer) -> Option<String> {
    let checked = tokio::task::spawn_blocking(move || producer.check(Duration::from_secs(2))).await;
    match checked {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Some(format!("ingest: {error}")),
        Err(error) => return Some(format!("ingest: {error}")),
    }
    if let Err(reason) = consuming.check() {
        return Some(format!("consumer: {reason}"));
    }
    api.check()
        .await
        .err()
        .map(|reason| format!("query API: {reason}"))
}

/// The key to print, and whether this is the first start with this data.
fn api_key(options: &Options) -> anyhow::Result<(String, bool)> {
    let (file, shown) = (options.data.join("keys.toml"), options.data.join("api-key"));
    let project: ProjectId = PROJECT.parse()?;
    let scopes = [Scope::Write, Scope::Read];
    let first = !file.exists();
    if let Some(key) = &options.api_key {
        let known = !first && ApiKeys::open(&file)?.authenticate(key).is_some();
        if !known {
            let name = format!("given-{}", uuid::Uuid::now_v7());
            add_key(
                &file,
                &project,
                NewKey {
                    name: &name,
                    scopes: &scopes,
                    organization: None,
                    key,
                },
            )?;
        }
        return Ok((key.clone(), first));
    }
    if let Ok(key) = std::fs::read_to_string(&shown) {
        return Ok((key.trim().to_owned(), first));
    }
    let name = format!("local-{}", uuid::Uuid::now_v7());
    let grant = Grant {
        name: &name,
        scopes: &scopes,
        organization: None,
    };
    let key = create_key(&file, &project, grant)?;
    write_secret(&shown, &key).context("the API key cannot be kept")?;
    Ok((key, first))
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")
}

/// Waits until all is ready, sends sample events at the first start, and says how to go on.
async fn welcome<F: Future<Output = Option<String>>>(
    summary: &Summary,
    samples: Option<&Producer>,
    obstacle: impl Fn() -> F,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + READY;
    while let Some(obstacle) = obstacle().await {
        ensure!(
            tokio::time::Instant::now() < deadline,
            "not ready after {READY:?}: {obstacle}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let Some(producer) = samples {
        tracing::info!("sending sample events …");
        for event in sample_events()? {
            producer.publish(&event).await?;
        }
    }
    println!("{summary}");
    Ok(())
}

fn sample_events() -> anyhow::Result<Vec<Event<'static>>> {
    let project: ProjectId = PROJECT.parse()?;
    let sample = |kind, name| {
        Event::builder(project.clone(), kind)
            .event_key("user-1")
            .event_display_name(name)
            .user_id("user-1")
            .identifier("ann@example.com")
            .build()
    };
    Ok(vec![
        sample(EventType::USER_SIGNED_UP, "Ann signed up")?,
        sample(EventType::USER_SIGNED_IN, "Ann signed in")?,
        sample(EventType::SESSION_CREATED, "Session created")?,
    ])
}

/// Where everything is, and what to do with it.
struct Summary {
    url: String,
    brokers: String,
    topic: String,
    clickhouse: String,
    database: String,
    data: String,
    key: String,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            url,
            brokers,
            topic,
            clickhouse,
            database,
            data,
            key,
        } = self;
        write!(
            f,
            r#"
The audit log is ready.

  API         {url}
  API key     {key}
  Kafka       {brokers}, topic {topic}
  ClickHouse  {clickhouse}, database {database}
  Data        {data}

Send an event:

  curl -sS {url}/v1/events -H 'x-api-key: {key}' -H 'content-type: application/json' -d '{{"eventType": "user_signed_in", "eventKey": "user-2", "userId": "user-2"}}'

Read events:

  curl -sS '{url}/v1/audit-logs?limit=3' -H 'x-api-key: {key}'

Connect a Better Auth server:

  import {{ dash }} from "@better-auth/infra";

  export const auth = betterAuth({{
    plugins: [dash({{ apiUrl: "{url}", kvUrl: "{url}", apiKey: "{key}" }})],
  }});

Ctrl-C stops everything; the data stays."#
        )
    }
}
