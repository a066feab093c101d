//! Operators see what is wrong: the alerts and the dashboard on a real Prometheus that reads the real
//! services.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use audit_tests::certificates::Authority;
use audit_tests::process::{Process, address, guarded, root, wait_until};
use audit_tests::world::{Key, Service, World};

/// What `deploy` has of it.
fn deployed(file: &str) -> anyhow::Result<String> {
    let path = root().join("deploy").join(file);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn promtool(arguments: &[&str]) -> anyhow::Result<()> {
    let mut promtool = Command::new("promtool");
    promtool.current_dir(root().join("deploy/prometheus"));
    let output = promtool.args(arguments).output();
    let output = output.context("promtool is missing; `make test-tools` says how to get it")?;
    ensure!(
        output.status.success(),
        "promtool {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The words of `text` that name a metric of ours, as it is described: without the suffixes of
/// histograms.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("audit_"))
        .map(|word| {
            let suffixes = ["_bucket", "_count", "_sum"];
            let base = suffixes.iter().find_map(|end| word.strip_suffix(end));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

pub(crate) async fn every_alert_is_seen_to_fire_and_not_to_fire(
    _: Arc<World>,
) -> anyhow::Result<()> {
    promtool(&["check", "config", "prometheus.yaml"])?;
    promtool(&["test", "rules", "alerts_test.yaml"])?;

    let (rules, tests) = (
        deployed("prometheus/alerts.yaml")?,
        deployed("prometheus/alerts_test.yaml")?,
    );
    let readme = deployed("prometheus/README.md")?;
    let mut alerts = 0;
    for alert in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        let cases: String = tests
            .split("\n  - name: ")
            .filter(|rest| rest.starts_with(&format!("{alert}\n")))
            .collect();
        for value in ["{ value: 0 }", "{ value: 1 }"] {
            ensure!(
                cases.contains(value),
                "the cases of {alert} have no {value}"
            );
        }
        let anchor = format!(
            "runbook_url: deploy/prometheus/README.md#{}\n",
            alert.to_lowercase()
        );
        ensure!(rules.contains(&anchor), "{alert} names no place to read on");
        let heading = format!("\n### {alert}\n");
        ensure!(readme.contains(&heading), "README.md has no {heading:?}");
        alerts += 1;
    }
    ensure!(alerts == readme.matches("\n### Audit").count());
    Ok(())
}

/// A Prometheus of its own, with its data in a folder that ends with it.
struct Prometheus {
    url: String,
    http: reqwest::Client,
    _process: Process,
    _data: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one as `deploy/prometheus` configures it, but for four things: where the services are,
    /// that it looks four times a second, that it need not see for longer than a second what an
    /// alert is `for`, and where the rules lie.
    async fn start(world: &World, services: [(&str, String); 3]) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let rules = deployed("prometheus/alerts.yaml")?;
        let rules: Vec<&str> = rules
            .lines()
            .map(|line| match line.trim().strip_prefix("for: ") {
                Some(_) => "        for: 1s",
                None => line,
            })
            .collect();
        std::fs::write(data.path().join("alerts.yaml"), rules.join("\n"))?;
        let mut config = deployed("prometheus/prometheus.yaml")?;
        let changes = services
            .into_iter()
            .chain([("_interval: 15s", "_interval: 250ms".to_owned())]);
        for (old, new) in changes {
            ensure!(config.contains(old), "prometheus.yaml has no {old}");
            config = config.replace(old, &new);
        }
        let file = data.path().join("prometheus.yaml");
        std::fs::write(&file, config)?;

        let mut command = guarded("prometheus")?;
        command.arg(format!("--config.file={}", file.display()));
        let storage = data.path().join("data");
        command.arg(format!("--storage.tsdb.path={}", storage.display()));
        command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
        let process = Process::start(&mut command, &world.logs().join("prometheus.log"))?;
        let listening = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let listens = line["msg"] == "Listening on";
            listens.then(|| line["address"].as_str().map(ToOwned::to_owned))?
        };
        let address = process.says("Prometheus", listening).await?;
        Ok(Self {
            url: format!("http://{address}"),
            http: world.http().clone(),
            _process: process,
            _data: data,
        })
    }

    /// What its API answers to a question, which has to succeed.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/{path}", self.url);
        let answer = self.http.get(url).query(query).send().await?;
        let answer: Value = serde_json::from_str(&answer.text().await?)?;
        ensure!(
            answer["status"] == "success",
            "{path} {query:?} is answered {answer}"
        );
        Ok(answer["data"].clone())
    }

    /// The numbers that an expression has now.
    async fn values(&self, expression: &str) -> anyhow::Result<Vec<f64>> {
        let data = self.get("query", &[("query", expression)]).await?;
        let series = data["result"].as_array().context("series")?;
        let value = |series: &Value| series["value"][1].as_str()?.parse().ok();
        Ok(series.iter().filter_map(value).collect())
    }

    /// The alerts that fire.
    async fn firing(&self) -> anyhow::Result<Vec<Value>> {
        let data = self.get("alerts", &[]).await?;
        let alerts = data["alerts"].as_array().context("alerts")?.iter();
        Ok(alerts
            .filter(|alert| alert["state"] == "firing")
            .cloned()
            .collect())
    }
}

/// Some events, and some reads of each kind.
async fn traffic(world: &World, key: &Key, ingest: &Service, api: &Service) -> anyhow::Result<()> {
    let events = json!([{"eventType": "user_signed_in", "eventKey": "u", "userId": "u"}]);
    let ask = async |method, url: String, body| world.ask(method, &url, &key.secret, body).await;
    let taken = ask(
        Method::POST,
        format!("{}/v1/events", ingest.url),
        Some(&events),
    );
    let (status, answer) = taken.await?;
    ensure!(status.is_success(), "{answer}");
    for path in [
        "/v1/audit-logs?limit=1",
        "/v1/audit-logs/stats?from=-24h&bucket=hour",
        "/events/user?userId=u&limit=1",
    ] {
        world.get(&format!("{}{path}", api.url), key).await?;
    }
    Ok(())
}

/// The questions of the dashboard, as Grafana asks them; it is one that Grafana imports.
fn questions_of_the_dashboard() -> anyhow::Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&deployed("grafana/dashboard.json")?)?;
    ensure!(dashboard["__inputs"][0]["name"] == "DS_PROMETHEUS");
    ensure!(dashboard["__inputs"][0]["type"] == "datasource" && dashboard["id"].is_null());
    let required = dashboard["__requires"].to_string();
    let panels = dashboard["panels"].as_array().context("panels")?;
    let ids: BTreeSet<String> = panels.iter().map(|panel| panel["id"].to_string()).collect();
    ensure!(ids.len() == panels.len(), "two panels have one id");
    let mut questions = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        ensure!(required.contains(&panel["type"].to_string()), "{panel}");
        ensure!(
            panel["datasource"]["uid"] == "${DS_PROMETHEUS}" && panel["gridPos"].is_object(),
            "{panel}"
        );
        for target in panel["targets"].as_array().context("targets")? {
            ensure!(target["datasource"] == panel["datasource"], "{panel}");
            let question = target["expr"].as_str().context("a question")?;
            // Grafana takes at least four times the interval of scrapes.
            questions.push(question.replace("$__rate_interval", "10s"));
        }
    }
    Ok(questions)
}

pub(crate) async fn a_killed_consumer_raises_its_alert_and_the_dashboard_has_answers(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    world.set("AUDIT_CONSUMER_AUDIT__INTERVAL", "10ms");
    let key = world.key("acme", &["write", "read"])?;
    let mut consumer = world.consumer().await?;
    let (ingest, api) = (world.ingest().await?, world.query_api().await?);
    let admin = async |process: &Process| {
        process
            .says("the admin port", address("admin port is open"))
            .await
    };
    // What is told of certificates is there only with TLS.
    let folder = world.logs();
    let pair = Authority::new("authority", folder)?.sign("ingest")?;
    let [certificate, private] = pair.keep(folder, "ingest")?;
    for (name, file) in [("CERTIFICATE", certificate), ("KEY", private)] {
        let file = file.display().to_string();
        world.set(&format!("AUDIT_INGEST_HTTP__TLS__{name}"), &file);
    }
    let secured = world.ingest().await?;
    let ingests = [
        admin(&ingest.process).await?,
        admin(&secured.process).await?,
    ];
    let services = [
        ("127.0.0.1:4611", ingests.join("\", \"")),
        ("127.0.0.1:4612", admin(&consumer).await?),
        ("127.0.0.1:4613", admin(&api.process).await?),
    ];
    let prometheus = Prometheus::start(&world, services).await?;

    // While there is traffic, every question of the dashboard has an answer that is a number.
    let questions = questions_of_the_dashboard()?;
    for question in &questions {
        wait_until(question, async || {
            traffic(&world, &key, &ingest, &api).await?;
            let values = prometheus.values(question).await?;
            Ok(values.iter().any(|value| !value.is_nan()).then_some(()))
        })
        .await?;
    }

    // Nothing is asked for that is not there, and nothing is there that is not described.
    let names = prometheus.get("label/__name__/values", &[]).await?;
    let there = metrics_in(&names.to_string());
    let mut asked = metrics_in(&deployed("prometheus/alerts.yaml")?);
    asked.extend(metrics_in(&questions.join(" ")));
    // The log of lost events is named in a description.
    let missing: Vec<&String> = asked
        .iter()
        .filter(|name| !there.contains(*name) && *name != "audit_events_lost")
        .collect();
    ensure!(missing.is_empty(), "not in any scrape: {missing:?}");
    let described = metrics_in(&deployed("prometheus/metrics.md")?);
    let unknown: Vec<_> = there.difference(&described).collect();
    ensure!(unknown.is_empty(), "not described: {unknown:?}");

    // All rules are evaluated, and nothing that is critical is wrong but the disk of this machine.
    let rules = prometheus.get("rules", &[]).await?;
    for rule in rules["groups"]
        .as_array()
        .context("groups")?
        .iter()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
    {
        ensure!(rule["health"] == "ok", "{rule}");
    }
    let wrong: Vec<Value> = prometheus
        .firing()
        .await?
        .into_iter()
        .filter(|alert| {
            let labels = &alert["labels"];
            labels["severity"] == "critical" && labels["alertname"] != "AuditClickHouseDiskFull"
        })
        .collect();
    ensure!(wrong.is_empty(), "all is well, but {wrong:?}");

    consumer.kill()?;
    let alert = wait_until("the alert", async || {
        let firing = prometheus.firing().await?;
        let down = |alert: &&Value| {
            let labels = &alert["labels"];
            labels["alertname"] == "AuditServiceDown" && labels["job"] == "audit-consumer"
        };
        Ok(firing.iter().find(down).cloned())
    })
    .await?;
    let summary = alert["annotations"]["summary"].as_str();
    let summary = summary.context("a summary")?;
    ensure!(
        summary.starts_with("audit-consumer 127.0.0.1:") && summary.ends_with("does not answer"),
        "{summary}"
    );
    // What it left in Kafka is stored before the world is audited.
    let _consumer = world.consumer().await?;
    world.settled().await
}
