//! What one test has to itself: a topic, a database, keys, and the services it starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use audit_producer::{Producer, ProducerConfig, Published, Stored};
use audit_schema::{Event, EventId, EventType, ProjectId};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::process::{Process, address, program, root, wait_until};
use crate::stack::Stack;

/// How many partitions a world's topic has.
pub const PARTITIONS: i32 = 3;

/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// One test's world.
pub struct World {
    /// Its topic, and the name of its consumer group.
    pub topic: String,
    /// Its database.
    pub database: String,
    brokers: Mutex<String>,
    clickhouse: Mutex<String>,
    logs: PathBuf,
    http: reqwest::Client,
    started: Mutex<usize>,
    /// Settings beside those every world has.
    more: Mutex<Vec<(String, String)>>,
    /// Whether the tables are still to be audited in the end.
    to_audit: Mutex<bool>,
}

/// A service with an HTTP API.
pub struct Service {
    /// Where it listens.
    pub url: String,
    /// What runs.
    pub process: Process,
}

/// An API key and its project.
pub struct Key {
    /// Whose events it gives access to.
    pub project: ProjectId,
    /// What is sent as `x-api-key`.
    pub secret: String,
}

impl World {
    /// A world for `test` on a running stack.
    pub fn new(stack: &Stack, test: &str) -> anyhow::Result<Self> {
        let servers = [stack.brokers.as_str(), &stack.clickhouse];
        Self::on(servers, test, stack.logs.join(test))
    }

    /// A world of this name on a Kafka and a ClickHouse, with its logs in `logs`.
    pub fn on(servers: [&str; 2], name: &str, logs: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&logs)?;
        let [brokers, clickhouse] = servers.map(|server| Mutex::new(server.to_owned()));
        Ok(Self {
            topic: format!("e2e.{name}"),
            database: format!("e2e_{name}"),
            brokers,
            clickhouse,
            logs,
            http: reqwest::Client::new(),
            started: Mutex::new(0),
            more: Mutex::default(),
            to_audit: Mutex::new(true),
        })
    }

    /// Where the logs of this world are kept.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Where Kafka is.
    pub fn brokers(&self) -> String {
        self.brokers.lock().unwrap().clone()
    }

    /// Uses another Kafka than the shared one from now on.
    pub fn use_kafka(&self, brokers: &str) {
        brokers.clone_into(&mut self.brokers.lock().unwrap());
    }

    /// The engine this world uses.
    pub fn clickhouse(&self) -> String {
        self.clickhouse.lock().unwrap().clone()
    }

    /// Uses another engine than the shared one from now on.
    pub fn use_engine(&self, url: &str) {
        url.clone_into(&mut self.clickhouse.lock().unwrap());
    }

    /// Sets a variable for the services that are started from now on.
    pub fn set(&self, name: &str, value: &str) {
        self.more
            .lock()
            .unwrap()
            .push((name.to_owned(), value.to_owned()));
    }

    /// The test has broken the tables on purpose: they are not audited in the end.
    pub fn broken_on_purpose(&self) {
        *self.to_audit.lock().unwrap() = false;
    }

    fn keys_file(&self) -> PathBuf {
        self.logs.join("keys.toml")
    }

    /// The settings that put a service into this world.
    pub fn settings(&self) -> Vec<(String, String)> {
        let keys = self.keys_file().display().to_string();
        let (brokers, clickhouse) = (self.brokers(), self.clickhouse());
        [
            ("AUDIT_INGEST_KAFKA__BROKERS", brokers.as_str()),
            ("AUDIT_INGEST_KAFKA__TOPIC", &self.topic),
            ("AUDIT_INGEST_KEYS__FILE", &keys),
            ("AUDIT_INGEST_HTTP__LISTEN", "127.0.0.1:0"),
            ("AUDIT_INGEST_HTTP__STAY_OPEN", "0s"),
            ("AUDIT_INGEST_ADMIN__LISTEN", "127.0.0.1:0"),
            ("AUDIT_CONSUMER_KAFKA__BROKERS", &brokers),
            ("AUDIT_CONSUMER_KAFKA__TOPIC", &self.topic),
            ("AUDIT_CONSUMER_KAFKA__GROUP", &self.topic),
            ("AUDIT_CONSUMER_TOPIC__PARTITIONS", &PARTITIONS.to_string()),
            ("AUDIT_CONSUMER_CLICKHOUSE__URL", &clickhouse),
            ("AUDIT_CONSUMER_CLICKHOUSE__DATABASE", &self.database),
            ("AUDIT_CONSUMER_ADMIN__LISTEN", "127.0.0.1:0"),
            ("AUDIT_QUERY_API_CLICKHOUSE__URL", &clickhouse),
            ("AUDIT_QUERY_API_CLICKHOUSE__DATABASE", &self.database),
            ("AUDIT_QUERY_API_KEYS__FILE", &keys),
            ("AUDIT_QUERY_API_HTTP__LISTEN", "127.0.0.1:0"),
            ("AUDIT_QUERY_API_HTTP__STAY_OPEN", "0s"),
            ("AUDIT_QUERY_API_ADMIN__LISTEN", "127.0.0.1:0"),
            ("AUDIT_QUERY_API_KAFKA__BROKERS", &brokers),
            ("AUDIT_QUERY_API_KAFKA__TOPIC", &self.topic),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .chain(self.more.lock().unwrap().clone())
        .collect()
    }

    /// A command in this world.
    pub fn command(&self, program_name: &str, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(program(program_name)?);
        command
            .current_dir(root())
            .args(arguments)
            .envs(self.settings());
        Ok(command)
    }

    /// Runs a command to its end and gives what it prints; an error if it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(program, arguments)?.output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{program} {arguments:?} failed:\n{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(printed)
    }

    /// A service, dying with this process even if that is killed.
    pub fn start(&self, program_name: &str) -> anyhow::Result<Process> {
        let number = {
            let mut started = self.started.lock().unwrap();
            *started += 1;
            *started
        };
        let service = program(program_name)?.display().to_string();
        let parent = std::process::id().to_string();
        let mut command =
            self.command("audit-local", &["guard", &parent, "--", &service, "run"])?;
        // Each of several has its own, unless the test says which.
        for service in ["INGEST", "QUERY_API"] {
            let spool = format!("AUDIT_{service}_KAFKA__SPOOL__FOLDER");
            if !self.settings().iter().any(|(name, _)| *name == spool) {
                command.env(spool, self.logs.join(format!("spool-{number}")));
            }
        }
        Process::start(
            &mut command,
            &self.logs.join(format!("{number}-{program_name}.log")),
        )
    }

    /// Makes tables and topic.
    pub fn migrate(&self) -> anyhow::Result<()> {
        self.run("audit-consumer", &["migrate"]).map(drop)
    }

    /// Makes an API key of `project`.
    pub fn key(&self, project: &str, scopes: &[&str]) -> anyhow::Result<Key> {
        let file = self.keys_file().display().to_string();
        let name = scopes.join("-");
        let mut arguments = vec![
            "keys",
            "create",
            "--project",
            project,
            "--name",
            &name,
            "--file",
            &file,
        ];
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        let secret = self.run("audit-ingest", &arguments)?.trim().to_owned();
        Ok(Key {
            project: project.parse()?,
            secret,
        })
    }

    /// Starts a consumer and waits until it is in the group.
    pub async fn consumer(&self) -> anyhow::Result<Process> {
        let consumer = self.start("audit-consumer")?;
        consumer
            .says("a consumer", |line| {
                line.contains("\"ready\"").then_some(())
            })
            .await?;
        Ok(consumer)
    }

    /// Starts ingest.
    pub async fn ingest(&self) -> anyhow::Result<Service> {
        self.service("audit-ingest").await
    }

    /// Starts the query API.
    pub async fn query_api(&self) -> anyhow::Result<Service> {
        self.service("audit-query-api").await
    }

    async fn service(&self, program: &str) -> anyhow::Result<Service> {
        let process = self.start(program)?;
        let address = process.says(program, address("api is open")).await?;
        Ok(Service {
            url: format!("http://{address}"),
            process,
        })
    }

    /// Asks ClickHouse and gives its answer as text, tab-separated.
    pub async fn sql(&self, question: &str) -> anyhow::Result<String> {
        let url = format!("{}/?database={}", self.clickhouse(), self.database);
        let answer = self.http.post(url).body(question.to_owned()).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{question}: {text}");
        Ok(text.trim_end().to_owned())
    }

    /// Takes its database away, with all that is in it.
    pub async fn drop_database(&self) -> anyhow::Result<()> {
        let drop = format!("DROP DATABASE {} SYNC", self.database);
        self.sql(&drop).await.map(|_| ())
    }

    /// Waits until so many events are stored and counted.
    pub async fn stored(&self, events: usize) -> anyhow::Result<()> {
        let what = format!("{events} events in {}", self.database);
        let found = wait_until(&what, async || {
            let rows: usize = self
                .sql("SELECT count() FROM audit_events")
                .await?
                .parse()?;
            Ok((rows >= events).then_some(rows))
        })
        .await;
        found
            .map(drop)
            .context(self.sql("SELECT count() FROM audit_events").await?)
    }

    /// Sends a request with a key and a JSON body, and gives status and answer.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        key: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, url).header("x-api-key", key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        let json = serde_json::from_str(&text).with_context(|| format!("{url}: {text}"))?;
        Ok((status, json))
    }

    /// A GET that has to succeed.
    pub async fn get(&self, url: &str, key: &Key) -> anyhow::Result<Value> {
        let (status, answer) = self.ask(Method::GET, url, &key.secret, None).await?;
        ensure!(status.is_success(), "{url}: {status} {answer}");
        Ok(answer)
    }

    /// A client for requests of another kind.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A client of the broker.
    pub fn kafka(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    /// The producer crate, writing to this world's topic.
    pub fn producer(&self) -> anyhow::Result<Producer> {
        Ok(Producer::new(&ProducerConfig {
            brokers: self.brokers(),
            topic: self.topic.clone(),
            ..ProducerConfig::default()
        })?)
    }

    /// Publishes so many events of distinct users, and gives their ids once Kafka has them.
    pub async fn publish(&self, events: usize) -> anyhow::Result<Vec<EventId>> {
        let events = (0..events).map(|number| event("acme", &format!("user-{number}")));
        let stored = self.publish_all(events).await?;
        Ok(stored.into_iter().map(|(id, _)| id).collect())
    }

    /// The same for events of one user, which all go to one partition.
    pub async fn publish_of(&self, user: &str, events: usize) -> anyhow::Result<Vec<EventId>> {
        let events = (0..events).map(|_| event("acme", user));
        let stored = self.publish_all(events).await?;
        Ok(stored.into_iter().map(|(id, _)| id).collect())
    }

    /// Publishes these events, and says once Kafka has them where each is.
    pub async fn publish_all(
        &self,
        events: impl Iterator<Item = Event<'static>>,
    ) -> anyhow::Result<Vec<(EventId, Stored)>> {
        let producer = self.producer()?;
        let receipts: Vec<_> = events
            .map(|event| (event.id, producer.publish(&event)))
            .collect();
        let mut stored = Vec::new();
        for (id, receipt) in receipts {
            match receipt.await? {
                Published::Stored(at) => stored.push((id, at)),
                Published::Spooled => bail!("a producer without a spool has spooled"),
            }
        }
        Ok(stored)
    }

    /// Checks that each of these events is stored exactly once, and nothing else.
    pub async fn holds_exactly(&self, ids: &[EventId]) -> anyhow::Result<()> {
        self.stored(ids.len()).await?;
        let stored = self
            .sql("SELECT event_id FROM audit_events ORDER BY event_id")
            .await?;
        let mut stored: Vec<&str> = stored.lines().collect();
        let mut wanted: Vec<String> = ids.iter().map(ToString::to_string).collect();
        stored.sort_unstable();
        wanted.sort_unstable();
        let lost = wanted
            .iter()
            .filter(|id| stored.binary_search(&id.as_str()).is_err())
            .count();
        ensure!(
            stored == wanted,
            "{} stored, {} sent, {lost} lost",
            stored.len(),
            wanted.len()
        );
        Ok(())
    }

    /// Waits until the watermark of every partition has passed the end of its log.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let tool: BaseConsumer = self.kafka().create()?;
        // Asked again with each look: what was published before may still be on its way to Kafka.
        let ends = || {
            let ends = (0..PARTITIONS).map(|partition| {
                let (_, end) = tool.fetch_watermarks(&self.topic, partition, ANSWER)?;
                anyhow::Ok(format!("{partition}\t{end}"))
            });
            anyhow::Ok(ends.collect::<anyhow::Result<Vec<_>>>()?.join("\n"))
        };
        let watermarks = "SELECT partition, max(next_offset) FROM audit_watermarks \
                          WHERE incarnation = (SELECT max(incarnation) FROM audit_sources) \
                          GROUP BY partition ORDER BY partition";
        let reached = wait_until("every watermark to reach its log's end", async || {
            Ok((self.sql(watermarks).await? == ends()?).then_some(()))
        })
        .await;
        reached.with_context(|| format!("ends {:?}", ends().ok()))
    }

    /// How it has to end: everything that is in Kafka is counted, each of these events is stored
    /// exactly once, nothing else is, and every offset is in exactly one table.
    pub async fn ends_with(&self, ids: &[EventId]) -> anyhow::Result<()> {
        self.settled().await?;
        self.holds_exactly(ids).await?;
        self.audit()?;
        // Servers that are the test's own end with it.
        *self.to_audit.lock().unwrap() = false;
        Ok(())
    }

    /// Every offset of this world is in exactly one table, once.
    pub fn audit(&self) -> anyhow::Result<()> {
        self.run("audit-consumer", &["verify"]).map(drop)
    }

    /// The audit that every test ends with, unless it had its own or has no tables.
    pub async fn audit_in_the_end(&self) -> anyhow::Result<()> {
        if !*self.to_audit.lock().unwrap() {
            return Ok(());
        }
        let exists = self
            .sql(&format!(
                "SELECT count() FROM system.tables WHERE database = '{}'",
                self.database
            ))
            .await;
        if exists.is_ok_and(|tables| tables != "0") {
            self.audit()?;
        }
        Ok(())
    }
}

/// A sign-in of `user`.
pub fn event(project: &str, user: &str) -> Event<'static> {
    Event::builder(
        project.parse().expect("a project"),
        EventType::USER_SIGNED_IN,
    )
    .event_key(user.to_owned())
    .user_id(user.to_owned())
    .build()
    .expect("an event")
}
