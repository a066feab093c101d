//! The first client: a real Better Auth server with the unmodified `@better-auth/infra`.
//!
//! `tests/better-auth` drives the server and says what its plugin sent, recorded on its way out.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::local_stack::Local;
use crate::reading::{is_stored_as_sent, readable};
use audit_tests::process::{Process, root};
use audit_tests::world::World;

/// The Better Auth server, told what to do line by line.
struct Server(Process);

impl Server {
    async fn start(world: &World, local: &Local) -> anyhow::Result<Self> {
        let folder = root().join("tests/better-auth");
        ensure!(
            folder.join("node_modules").is_dir(),
            "the Better Auth server is not installed; `make better-auth` installs it"
        );
        let mut command = Command::new("node");
        command
            .current_dir(folder)
            .arg("main.mjs")
            .env("AUDIT_URL", &local.url)
            .env("AUDIT_API_KEY", &local.key.secret);
        let server = Self(Process::start(
            &mut command,
            &world.logs().join("better-auth.log"),
        )?);
        server
            .0
            .says("the Better Auth server", audit_tests::process::ready)
            .await?;
        Ok(server)
    }

    /// Gives a command and waits for its answer.
    async fn tell(&mut self, command: &str) -> anyhow::Result<Value> {
        self.0.tell(command)?;
        let answer = |line: &str| {
            let answer: Value = serde_json::from_str(line).ok()?;
            (answer["command"] == command).then_some(answer)
        };
        let answer = self.0.says(command, answer).await?;
        ensure!(answer["error"].is_null(), "{command}: {}", answer["error"]);
        for sent in tracked(&answer)? {
            ensure!(
                sent["status"] == 200 && sent["answer"]["id"].is_string(),
                "{sent}"
            );
        }
        Ok(answer)
    }
}

fn tracked(answer: &Value) -> anyhow::Result<&Vec<Value>> {
    answer["tracked"].as_array().context("tracked")
}

pub(crate) async fn a_real_better_auth_server_gets_its_events_back(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let local = Local::start(&world, Some("a-key-of-our-own-that-is-long-enough")).await?;
    let mut server = Server::start(&world, &local).await?;
    let journey = server.tell("journey").await?;
    let sent = tracked(&journey)?.clone();
    ensure!(sent.len() > 100, "{} events", sent.len());
    for request in &sent {
        let id = request["answer"]["id"].as_str().context("an id")?;
        let event = readable(&world, &local.url, &local.key, id).await?;
        is_stored_as_sent(&event, &request["body"])?;
    }
    let ids: Vec<&str> = sent
        .iter()
        .filter_map(|r| r["answer"]["id"].as_str())
        .collect();
    let once = format!(
        "SELECT count(), uniqExact(event_id) FROM audit_events WHERE event_id IN ('{}')",
        ids.join("','")
    );
    ensure!(world.sql(&once).await? == format!("{0}\t{0}", sent.len()));

    reads(
        &mut server,
        &sent,
        &journey["users"],
        &journey["organizationId"],
    )
    .await?;
    walks(&mut server, &world, &local).await?;

    // Strangers at the doors of the vendor's dashboard do not end the auth server.
    let doors = server.tell("doors").await?;
    ensure!(
        doors["doors"]["unhandled"] == json!([]),
        "{}",
        doors["doors"]
    );
    Ok(())
}

/// Everything the plugin offers for reading answers what was sent.
async fn reads(
    server: &mut Server,
    sent: &[Value],
    users: &Value,
    organization: &Value,
) -> anyhow::Result<()> {
    let answer = server.tell("reads").await?;
    let reads = answer["reads"].as_object().context("reads")?;
    let count = |matches: &dyn Fn(&Value) -> bool| {
        sent.iter()
            .filter(|request| matches(&request["body"]))
            .count()
    };
    for (name, read) in reads.iter().filter(|(_, read)| read.is_object()) {
        if name.starts_with("refused") {
            ensure!(
                read["status"].as_u64().is_some_and(|status| status >= 400),
                "{name}: {read}"
            );
            continue;
        }
        ensure!(read["status"] == 200, "{name}: {read}");
        for event in read["data"]["events"].as_array().into_iter().flatten() {
            let is_sent = sent.iter().any(|request| {
                request["body"]["eventType"] == event["eventType"]
                    && request["body"]["eventKey"] == event["eventKey"]
            });
            ensure!(is_sent, "{name}: {event}");
        }
    }
    // The whole of one user: by the column, so also where the plugin spells it another way.
    let ann = &users["ann"];
    let of_ann = count(&|body| {
        let data = &body["eventData"];
        let names = ["userId", "userid", "acceptedById", "inviteeId"];
        names
            .iter()
            .map(|name| &data[*name])
            .find(|value| value.is_string())
            == Some(ann)
    });
    ensure!(
        reads["list"]["data"]["total"] == of_ann,
        "{of_ann}: {}",
        reads["list"]
    );
    // The whole of one organization.
    let of_organization = count(&|body| body["eventData"]["organizationId"] == *organization);
    let all = &reads["allOfOrganization"]["data"];
    ensure!(all["total"] == of_organization, "{of_organization}: {all}");
    Ok(())
}

/// The loop of the documentation sees each event once while others arrive.
async fn walks(server: &mut Server, world: &World, local: &Local) -> anyhow::Result<()> {
    let begun = server.tell("walk-begin").await?;
    for request in tracked(&begun)? {
        let id = request["answer"]["id"].as_str().context("an id")?;
        readable(world, &local.url, &local.key, id).await?;
    }
    let ended = server.tell("walk-end").await?;
    for (name, walk) in ended["walks"].as_object().context("walks")? {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for event in walk["seen"].as_array().context("seen")? {
            *seen.entry(event.as_str().unwrap_or_default()).or_default() += 1;
        }
        let expected = walk["expected"].as_array().context("expected")?;
        ensure!(!expected.is_empty(), "{name}: {walk}");
        for event in expected {
            let times = seen
                .get(event.as_str().unwrap_or_default())
                .copied()
                .unwrap_or(0);
            ensure!(
                times == 1,
                "{name}: {event} was seen {times} times: {}",
                walk["pages"]
            );
        }
    }
    Ok(())
}
