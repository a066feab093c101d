//! What others make of the API's document: a typed client, a fuzzer, and a page in a browser.
//!
//! `tests/openapi` has the client and what drives the browser; `make openapi-tools` installs what
//! they and the fuzzer need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::reading::total_is;
use audit_tests::process::{Process, root};
use audit_tests::world::{Key, Service, World};

/// An API with events to read.
struct Api {
    service: Service,
    key: Key,
    _consumer: Process,
}

impl Api {
    async fn start(world: &World) -> anyhow::Result<Self> {
        // Tools ask faster than people.
        world.set("AUDIT_QUERY_API_RATE_LIMIT__REQUESTS", "1000000");
        world.migrate()?;
        let key = world.key("acme", &["write", "read"])?;
        let consumer = world.consumer().await?;
        let (ingest, service) = (world.ingest().await?, world.query_api().await?);
        let url = format!("{}/v1/events", ingest.url);
        let (status, answer) = world
            .ask(Method::POST, &url, &key.secret, Some(&events()))
            .await?;
        ensure!(status.is_success(), "{answer}");
        total_is(world, &service.url, &key, 6).await?;
        Ok(Self {
            service,
            key,
            _consumer: consumer,
        })
    }

    /// Runs a tool in `folder` that is told of the API, and gives what it prints.
    fn run(&self, folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(program)
            .current_dir(folder)
            .args(arguments)
            .env("AUDIT_URL", &self.service.url)
            .env("AUDIT_API_KEY", &self.key.secret)
            .env("SCREENSHOTS", folder)
            .output()
            .with_context(|| format!("{program} does not start"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{program} {arguments:?}:\n{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(printed)
    }
}

/// Sign-ins of three users, and others.
fn events() -> Value {
    json!([
        {"eventType": "user_signed_in", "userId": "ann", "outcome": "success", "country": "Austria",
            "eventData": {"loginMethod": "passkey", "attempt": 1}},
        {"eventType": "user_signed_in", "userId": "bob", "outcome": "success",
            "eventData": {"loginMethod": "passkey", "attempt": 2}},
        {"eventType": "user_signed_in", "userId": "bob", "outcome": "failure",
            "eventData": {"loginMethod": "passkey", "attempt": 1}},
        {"eventType": "user_signed_in", "userId": "carol", "eventData": {"loginMethod": "email"}},
        {"eventType": "user_created", "userId": "carol", "eventData": {"attempt": 2}},
        {"eventType": "invoice.paid", "eventData": {"amount": 5}},
    ])
}

/// A copy of `tests/openapi` that a test may write to.
fn workshop(world: &World) -> anyhow::Result<PathBuf> {
    let installed = root().join("tests/openapi");
    ensure!(
        installed.join("node_modules").is_dir(),
        "what reads the document is not installed; `make openapi-tools` installs it"
    );
    let folder = std::path::absolute(world.logs())?.join("workshop");
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(installed.join("node_modules"), folder.join("node_modules"))?;
    for file in std::fs::read_dir(&installed)? {
        let file = file?;
        if file.file_type()?.is_file() {
            std::fs::copy(file.path(), folder.join(file.file_name()))?;
        }
    }
    Ok(folder)
}

pub(crate) async fn the_document_makes_a_typed_client(world: Arc<World>) -> anyhow::Result<()> {
    let api = Api::start(&world).await?;
    let folder = workshop(&world)?;
    let document = format!("{}/openapi.json", api.service.url);
    let generator = "node_modules/.bin/openapi-typescript";
    api.run(&folder, generator, &[&document, "--output", "api.d.ts"])?;
    api.run(&folder, "node_modules/.bin/tsc", &["--project", "."])?;

    let printed = api.run(&folder, "node", &["client.js"])?;
    let printed: Value = serde_json::from_str(&printed)?;
    let mut walked = printed["walked"].as_array().context("a walk")?.clone();
    walked.sort_by_key(ToString::to_string);
    ensure!(
        walked == [json!("bob"), json!("bob"), json!("carol")],
        "{printed}"
    );
    for (what, read) in [
        (
            "some",
            json!(["ann user_signed_in AUSTRIA", "bob user_signed_in somewhere"]),
        ),
        (
            "posted",
            json!([
                "carol user_signed_up somewhere",
                "bob user_signed_in somewhere"
            ]),
        ),
        ("counted", json!(["bob 2", "carol 2"])),
        ("ofUsers", json!(4)),
        ("one", json!({"loginMethod": "passkey", "attempt": 1})),
        ("wire", json!("user_created")),
        ("refused", json!("invalid")),
        ("plugin", json!([2, 1])),
    ] {
        ensure!(printed[what] == read, "{what} is not {read}: {printed}");
    }
    Ok(())
}

/// The Python for which `make openapi-tools` has installed this version of the fuzzer. The program
/// that it installed beside it names the folder it was installed in, and a checkout may be moved.
fn python_of_schemathesis() -> anyhow::Result<PathBuf> {
    let hash = Sha256::digest(std::fs::read(
        root().join("tests/openapi/requirements.txt"),
    )?);
    let first = u64::from_be_bytes(hash[..8].try_into()?);
    let hash = format!("{first:016x}");
    let folder = root().join(format!(".cache/schemathesis-{hash}/bin"));
    ensure!(
        folder.join("schemathesis").is_file(),
        "there is no fuzzer in {}; `make openapi-tools` installs it",
        folder.display()
    );
    Ok(folder.join("python3"))
}

pub(crate) async fn schemathesis_finds_nothing(world: Arc<World>) -> anyhow::Result<()> {
    let python = python_of_schemathesis()?;
    let api = Api::start(&world).await?;
    let folder = workshop(&world)?;
    let document = format!("{}/openapi.json", api.service.url);
    let python = python.display().to_string();
    let fuzz = ["-m", "schemathesis.cli", "run", &document];
    let printed = api.run(&folder, &python, &fuzz)?;
    std::fs::write(world.logs().join("schemathesis.log"), printed)?;
    Ok(())
}

pub(crate) async fn the_reference_page_shows_every_operation_without_asking_anybody_else(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let api = Api::start(&world).await?;
    let printed = api.run(&workshop(&world)?, "node", &["page.mjs"])?;
    let printed: Value = serde_json::from_str(&printed)?;

    let document = format!("{}/openapi.json", api.service.url);
    let document = world.get(&document, &api.key).await?;
    let mut operations = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().context("paths")? {
        for (method, operation) in methods.as_object().context("methods")? {
            let id = operation["operationId"].as_str().context("an id")?;
            operations.insert((method.to_uppercase(), path.clone(), id.to_owned()));
        }
    }
    let mut shown = BTreeSet::new();
    for block in printed["shown"].as_array().context("what is shown")? {
        let text = |place: usize| block[place].as_str().unwrap_or_default().to_owned();
        let id = text(2).rsplit('-').next().unwrap_or_default().to_owned();
        shown.insert((text(0), text(1), id));
    }
    ensure!(shown == operations, "{shown:?} are not {operations:?}");
    ensure!(
        printed["complaints"] == json!([]),
        "{}",
        printed["complaints"]
    );
    ensure!(
        printed["asked"] == json!([api.service.url]),
        "{}",
        printed["asked"]
    );
    let answers = printed["answers"].as_array().context("answers")?;
    for (answer, part) in answers
        .iter()
        .zip(["user_signed_up", "ann", "totalRelation"])
    {
        ensure!(answer["status"] == 200, "{answer}");
        let body = answer["body"].as_str().unwrap_or_default();
        ensure!(body.contains(part), "{body}");
    }
    ensure!(answers.len() == 3, "{printed}");
    Ok(())
}
