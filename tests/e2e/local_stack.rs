//! `audit-local up`: what `make run` starts.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

use crate::reading::total_is;
use audit_tests::process::{Process, descendants, program, root, wait_until};
use audit_tests::world::{Key, World};

/// A running `audit-local up`.
pub(crate) struct Local {
    pub(crate) url: String,
    pub(crate) key: Key,
    process: Process,
}

impl Local {
    /// Starts the stack on the shared Kafka and engine, with a given key; or with a Kafka and an
    /// engine of its own, and a key it makes.
    pub(crate) async fn start(world: &World, key: Option<&str>) -> anyhow::Result<Self> {
        let mut command = Command::new(program("audit-local")?);
        command
            .current_dir(root())
            .arg("up")
            .envs(world.settings())
            .env("AUDIT_LOCAL_ADDRESS", "127.0.0.1:0")
            .env("AUDIT_LOCAL_KAFKA_PORT", "0")
            .env("AUDIT_LOCAL_CLICKHOUSE_PORT", "0")
            .env("AUDIT_LOCAL_DATA", world.logs().join("data"));
        if let Some(key) = key {
            command
                .env("AUDIT_LOCAL_API_KEY", key)
                .env("AUDIT_KAFKA_BROKERS", world.brokers())
                .env("AUDIT_CLICKHOUSE_URL", world.clickhouse());
        }
        let process = Process::start(&mut command, &world.logs().join("local.log"))?;
        process
            .says("that the stack is ready", after("Ctrl-C stops "))
            .await?;
        let printed = process.printed();
        let last = |label: &str| {
            let line = printed.lines().rev().find_map(after(label));
            line.with_context(|| format!("{label} in\n{printed}"))
        };
        Ok(Self {
            url: last("  API         ")?,
            key: Key {
                project: "local".parse()?,
                secret: last("  API key     ")?,
            },
            process,
        })
    }
}

/// What follows `label` in a line that begins with it.
fn after(label: &str) -> impl Fn(&str) -> Option<String> {
    move |line| line.strip_prefix(label).map(str::to_owned)
}

/// Waits until none of these processes runs.
async fn all_gone(processes: &[Pid]) -> anyhow::Result<()> {
    wait_until("all processes to end", async || {
        // One that has ended and was not waited for by its new parent does not run either.
        let runs = |pid: &Pid| {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            test_kill_process(*pid).is_ok() && status.is_ok_and(|status| !status.contains(") Z "))
        };
        Ok((!processes.iter().any(runs)).then_some(()))
    })
    .await
}

pub(crate) async fn one_command_brings_up_a_stack_that_works(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.broken_on_purpose();
    let mut local = Local::start(&world, None).await?;
    total_is(&world, &local.url, &local.key, 3).await?;

    // The two lines that are printed do what they say.
    let printed = local.process.printed();
    let curls: Vec<&str> = printed
        .lines()
        .filter(|line| line.starts_with("  curl "))
        .collect();
    ensure!(curls.len() == 2, "{printed}");
    let shell = |line: &str| -> anyhow::Result<Value> {
        let output = Command::new("sh").args(["-c", line]).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let sent = shell(curls[0])?;
    ensure!(sent["results"][0]["id"].is_string(), "{sent}");
    total_is(&world, &local.url, &local.key, 4).await?;
    let read = shell(curls[1])?;
    ensure!(read["total"] == 4, "{read}");
    let ready = world
        .http()
        .get(format!("{}/readyz", local.url))
        .send()
        .await?;
    ensure!(ready.status().is_success());

    // Ctrl-C ends all of it, and the next start works on the same data.
    let processes = descendants(local.process.id())?;
    ensure!(
        processes.len() >= 3,
        "Kafka, its Java, and the engine: {processes:?}"
    );
    ensure!(
        local.process.stop(Signal::INT).await?,
        "{}",
        local.process.printed()
    );
    all_gone(&processes).await?;
    std::fs::remove_file(world.logs().join("local.log"))?;
    let again = Local::start(&world, None).await?;
    ensure!(again.key.secret == local.key.secret, "the key stays");
    total_is(&world, &again.url, &again.key, 4).await
}

pub(crate) async fn nothing_is_left_when_it_is_killed(world: Arc<World>) -> anyhow::Result<()> {
    world.broken_on_purpose();
    let mut local = Local::start(&world, None).await?;
    total_is(&world, &local.url, &local.key, 3).await?;
    let processes = descendants(local.process.id())?;
    ensure!(
        processes.len() >= 3,
        "Kafka, its Java, and the engine: {processes:?}"
    );
    local.process.kill()?;
    all_gone(&processes).await?;
    std::fs::remove_file(world.logs().join("local.log"))?;
    let again = Local::start(&world, None).await?;
    total_is(&world, &again.url, &again.key, 3).await
}
