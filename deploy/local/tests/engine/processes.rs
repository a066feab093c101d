//! The engine as a process: it starts, dies and stops as promised.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use clickhouse::Client;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::stand::{
    Event, LIMIT, START, cache, data, database_at, engine, events, program, refused, stored,
    wait_for, wait_until, wait_until_free,
};

#[tokio::test]
async fn acknowledged_rows_survive_kill_9() -> anyhow::Result<()> {
    let folder = data("killed")?;
    let mut child = engine(folder.path(), &[])?;
    let client = database_at(&child.ready(START).await?, "kept").await?;
    events(&client).await?;
    let mut acknowledged = 0;
    for id in 100..200 {
        let mut insert = client.insert::<Event>("events").await?;
        insert.write(&Event::new(id, "x")).await?;
        insert.end().await?;
        acknowledged += 1;
    }
    let mut open = client.insert::<Event>("events").await?;
    open.write(&Event::new(1, "never acknowledged")).await?;
    child.kill().await?;
    ensure!(open.end().await.is_err());

    let mut child = engine(folder.path(), &[])?;
    let client = Client::default().with_url(child.ready(LIMIT).await?);
    let rows = stored(&client.with_database("kept")).await?;
    assert_eq!(rows.len(), acknowledged);
    ensure!(child.stop(LIMIT).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_folder_in_use_is_told_in_one_line() -> anyhow::Result<()> {
    let folder = data("claimed")?;
    let mut first = engine(folder.path(), &[])?;
    first.ready(START).await?;
    let mut second = engine(folder.path(), &[])?;
    let error = second
        .ready(LIMIT)
        .await
        .err()
        .context("both started")?
        .to_string();
    let told = error.lines().collect::<Vec<_>>();
    assert_eq!(told.len(), 2, "{error}");
    ensure!(
        error.contains("is in use by another running process"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn asked_to_stop_it_finishes_what_runs_and_ends_well() -> anyhow::Result<()> {
    let folder = data("stopped")?;
    let mut child = engine(folder.path(), &[])?;
    let client = Client::default().with_url(child.ready(START).await?);
    let slow =
        client.query("SELECT sum(sleepEachRow(0.2)) FROM numbers(10) SETTINGS max_block_size = 1");
    let running = "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow(0.2)%' AND query NOT LIKE '%processes%'";
    let (answer, status) = tokio::join!(slow.fetch_one::<u64>(), async {
        wait_until(&client, running, 1).await?;
        child.stop(LIMIT).await
    });
    assert_eq!(answer?, 0);
    ensure!(status?.success());
    wait_until_free(folder.path()).await?;
    Ok(())
}

#[tokio::test]
async fn a_password_is_asked_for_in_every_way_a_client_sends_it() -> anyhow::Result<()> {
    let folder = data("password")?;
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n")?;
    let file = file.to_string_lossy().into_owned();
    let mut child = engine(folder.path(), &["--password-file", &file])?;
    let url = child.ready(START).await?;
    let client = Client::default().with_url(&url);
    for (user, password) in [("default", "wrong"), ("default", ""), ("root", "secret")] {
        let client = client.clone().with_user(user).with_password(password);
        let error = refused(client.query("SELECT 1").execute().await)?;
        ensure!(error.starts_with("Code: 516."), "{error}");
    }
    let client = client.with_user("default").with_password("secret");
    client.query("SELECT 1").execute().await?;
    let http = reqwest::Client::new();
    let basic = |password| {
        http.post(&url)
            .basic_auth("default", Some(password))
            .body("SELECT 1")
    };
    assert_eq!(basic("secret").send().await?.status(), 200);
    assert_eq!(basic("wrong").send().await?.status(), 403);
    let query = [("query", "SELECT 1"), ("password", "secret")];
    assert_eq!(http.get(&url).query(&query).send().await?.status(), 200);
    assert_eq!(http.get(format!("{url}/ping")).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn an_open_address_needs_a_password() -> anyhow::Result<()> {
    let folder = data("open")?;
    let mut child = engine(folder.path(), &["--max-queries", "3"])?;
    child.ready(START).await?;
    let refused = Command::new(program())
        .args(["engine", "--listen", "0.0.0.0:0", "--data"])
        .arg(folder.path())
        .output()
        .await?;
    ensure!(!refused.status.success());
    let told = String::from_utf8(refused.stderr)?;
    ensure!(told.contains("would let anybody in"), "{told}");
    Ok(())
}

/// Starts a shell that starts `command` as its child and says the child's process id, which `$PARENT` stands for.
async fn orphan_of(command: &str) -> anyhow::Result<(tokio::process::Child, Pid)> {
    let script = format!("PARENT=$$; {command} & echo $!; wait");
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .env("PROGRAM", program())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = shell.stdout.take().context("no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let child = lines.next_line().await?.context("no child")?;
    Ok((
        shell,
        Pid::from_raw(child.parse()?).context("no process id")?,
    ))
}

async fn wait_until_gone(pid: Pid) -> anyhow::Result<()> {
    // A zombie that nobody waits for is gone as well, but that needs nobody to be its parent; init waits.
    let gone = || Ok(test_kill_process(pid).is_err().then_some(()));
    wait_for("the process is gone", gone).await
}

#[tokio::test]
async fn an_engine_dies_with_its_parent_even_at_kill_9() -> anyhow::Result<()> {
    let folder = data("orphan")?;
    let engine = format!(
        "\"$PROGRAM\" engine --cache '{}' --data '{}' --listen 127.0.0.1:0 --die-with-parent $PARENT >/dev/null",
        cache().display(),
        folder.path().display()
    );
    let (mut shell, _) = orphan_of(&engine).await?;
    // It holds its folder once it runs.
    let held = || {
        Ok(audit_local::data_folder::claim(folder.path())
            .is_err()
            .then_some(()))
    };
    wait_for("the engine runs", held).await?;
    shell.kill().await?;
    wait_until_free(folder.path()).await?;
    Ok(())
}

#[tokio::test]
async fn a_guarded_command_dies_with_its_parent_even_at_kill_9() -> anyhow::Result<()> {
    let (mut shell, child) = orphan_of("\"$PROGRAM\" guard $PARENT -- sleep 1000").await?;
    let name = || std::fs::read_to_string(format!("/proc/{}/comm", child.as_raw_nonzero()));
    let became = || Ok((name()?.trim() == "sleep").then_some(()));
    wait_for("it became its command", became).await?;
    shell.kill().await?;
    wait_until_gone(child).await
}

#[tokio::test]
async fn a_guard_whose_parent_is_another_does_not_start() -> anyhow::Result<()> {
    let (mut shell, child) = orphan_of("\"$PROGRAM\" guard 1 -- sleep 1000").await?;
    wait_until_gone(child).await?;
    ensure!(kill_process(child, Signal::TERM).is_err());
    shell.kill().await?;
    Ok(())
}
