//! The services as `deploy/compose.yaml` starts their images: with the files, the environment and the
//! commands that these have, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_tests::compose::{Compose, words};
use audit_tests::image::{Dockerfile, Image, Staged};
use audit_tests::process::{Process, guarded, wait_until};
use audit_tests::server::free_port;
use audit_tests::world::World;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;

/// Where the volumes are, beside the folders of the containers.
const VOLUMES: &str = "volumes";

/// One container: its files, and what it runs with what environment.
struct Container {
    name: String,
    image: Image,
    staged: Staged,
    environment: BTreeMap<String, String>,
    words: Vec<String>,
}

impl Container {
    /// That of a service of the compose file, with a folder of its own in `root`, and its volumes in
    /// another. What is an address there is one on loopback here; the engine has no users.
    fn new(compose: &Compose, name: &str, world: &World, root: &Path) -> anyhow::Result<Self> {
        let service = compose.service(name)?;
        let image = service
            .get("image")
            .and_then(serde_json::Value::as_str)
            .context("an image")?;
        let target = image
            .strip_prefix("audit-")
            .and_then(|image| image.split_once(':'));
        let image = Dockerfile::ours()?.image(target.context("an image of ours")?.0)?;
        let required = compose.variables.keys();
        let secret = "0123456789abcdef0123456789abcdef";
        let set = required
            .map(|name| (name.clone(), secret.to_owned()))
            .collect();
        let mut environment = image.environment.clone();
        environment.extend(compose.environment(service, &set)?);
        let program = image.entrypoint.first().context("a program")?;
        let prefix = program.to_ascii_uppercase().replace('-', "_");
        for (setting, value) in &mut environment {
            if value == "kafka:9092" {
                *value = world.brokers();
            } else if value == "http://clickhouse:8123" {
                *value = world.clickhouse();
            } else if value.starts_with("0.0.0.0:") {
                *value = format!("127.0.0.1:{}", free_port()?);
            } else if setting.ends_with("__USER") || setting.ends_with("__PASSWORD") {
                value.clear();
            }
        }
        for (setting, value) in world.settings() {
            let ours = setting.strip_prefix(&format!("{prefix}_"));
            let only_this_world = [
                "KAFKA__TOPIC",
                "KAFKA__GROUP",
                "TOPIC__PARTITIONS",
                "CLICKHOUSE__DATABASE",
            ];
            if ours.is_some_and(|ours| only_this_world.contains(&ours)) {
                environment.insert(setting, value);
            }
        }
        let (mut run, command) = (
            words(service.get("entrypoint")),
            words(service.get("command")),
        );
        if run.is_empty() {
            run.clone_from(&image.entrypoint);
            run.extend(if command.is_empty() {
                image.command.clone()
            } else {
                command
            });
        }
        let staged = Staged::new(&image, &root.join(name))?;
        for mount in words(service.get("volumes")) {
            let mut parts = mount.split(':');
            let (volume, to) = parts
                .next()
                .zip(parts.next())
                .context("a volume and a place")?;
            let (volume, to) = (root.join(VOLUMES).join(volume), staged.path(to));
            std::fs::create_dir_all(&volume)?;
            std::fs::create_dir_all(to.parent().context("a folder")?)?;
            std::os::unix::fs::symlink(volume, to)?;
        }
        Ok(Self {
            name: name.to_owned(),
            image,
            staged,
            environment,
            words: run,
        })
    }

    /// Runs to its end, with `more` arguments.
    fn run(&self, more: &[&str]) -> anyhow::Result<String> {
        let words: Vec<String> = self
            .words
            .iter()
            .cloned()
            .chain(more.iter().map(|&word| word.to_owned()))
            .collect();
        let output = self
            .staged
            .command(&self.image, &words, &self.environment)?
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {words:?}: {said}", self.name);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts it, and waits until its image calls it healthy.
    async fn start(&self, logs: &Path) -> anyhow::Result<Process> {
        let service = self
            .staged
            .command(&self.image, &self.words, &self.environment)?;
        let mut guarded = guarded(service.get_program())?;
        guarded.args(service.get_args()).env_clear();
        for (name, value) in service.get_envs() {
            guarded.envs(value.map(|value| (name, value)));
        }
        if let Some(folder) = service.get_current_dir() {
            guarded.current_dir(folder);
        }
        let process = Process::start(&mut guarded, &logs.join(format!("{}.log", self.name)))?;
        wait_until(&format!("{} to be healthy", self.name), async || {
            let check = &self.image.healthcheck;
            let output = self
                .staged
                .command(&self.image, check, &self.environment)?
                .output()?;
            ensure!(output.status.success(), String::from_utf8(output.stderr)?);
            Ok(Some(()))
        })
        .await
        .with_context(|| process.printed())?;
        Ok(process)
    }

    fn url(&self) -> anyhow::Result<String> {
        let mut settings = self.environment.iter();
        let listen = settings.find(|(name, _)| name.ends_with("_HTTP__LISTEN"));
        Ok(format!("http://{}", listen.context("an API")?.1))
    }
}

/// All files of the containers in `root`; what is in a volume is not theirs.
fn files(root: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                found.insert(entry.path());
            } else if entry.file_name() != VOLUMES {
                folders.push(entry.path());
            }
        }
    }
    Ok(found)
}

pub(crate) async fn the_images_do_their_work_as_compose_starts_them(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let compose = Compose::ours()?;
    let container = |name: &str| Container::new(&compose, name, &world, root.path());
    let services = ["ingest", "consumer", "query-api"].map(container);
    let [ingest, consumer, query_api] = services;
    let (ingest, consumer, query_api) = (ingest?, consumer?, query_api?);

    container("migrate")?.run(&[])?;
    let mut keys = container("keys")?;
    keys.words.retain(|word| word != "--help");
    let key = keys.run(&["--project", "acme", "--name", "auth server"])?;
    let before = files(root.path())?;
    let mut running = Vec::new();
    for service in [&ingest, &consumer, &query_api] {
        running.push(service.start(world.logs()).await?);
    }

    let event = json!({"eventType": "user_signed_in", "eventKey": "user-1", "userId": "user-1"});
    let url = format!("{}/v1/events", ingest.url()?);
    let (status, answer) = world
        .ask(Method::POST, &url, key.trim(), Some(&event))
        .await?;
    ensure!(status == StatusCode::OK, "{answer}");
    let url = format!("{}/v1/audit-logs?userId=user-1", query_api.url()?);
    wait_until("the event to be readable", async || {
        let (_, page) = world.ask(Method::GET, &url, key.trim(), None).await?;
        Ok((page["total"] == 1).then_some(()))
    })
    .await?;
    for process in &mut running {
        ensure!(process.stop(Signal::TERM).await?, "{}", process.printed());
    }
    ensure!(
        files(root.path())? == before,
        "something is written beside the volumes"
    );
    world.settled().await
}
