//! What the README says about reading, run as it stands there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use audit_tests::process::Process;
use audit_tests::world::{Key, World, event};
use reqwest::Method;
use serde_json::{Value, json};

use crate::reading::total_is;

const README: &str = include_str!("../../README.md");

/// Events before the first recipe, each of another user; of three pages.
const EVENTS: usize = 250;

/// The blocks for the shell in `text` under a heading of the second order: each with the heading of
/// the third order it stands under.
pub(crate) fn blocks(text: &'static str, heading: &str) -> Vec<(&'static str, String)> {
    let sections = text.split("\n## ");
    let section = sections
        .filter_map(|section| section.split_once('\n'))
        .find(|(title, _)| *title == heading);
    let (mut under, mut block, mut found) = ("", None::<String>, Vec::new());
    for line in section.map_or("", |(_, text)| text).lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (None, _) => under = line.strip_prefix("### ").unwrap_or(under),
            (Some(_), "```") => found.extend(block.take().map(|block| (under, block))),
            (Some(block), _) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    found
}

/// What runs a block, to its end or to the first line that fails.
pub(crate) fn bash(block: &str) -> Command {
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("set -euo pipefail\n{block}")]);
    bash
}

/// Runs a block to its end, and gives the lines it prints.
pub(crate) fn printed(mut bash: Command, block: &str) -> anyhow::Result<Vec<String>> {
    let output = bash.output()?;
    let printed = String::from_utf8(output.stdout)?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{block}{printed}{complaints}");
    Ok(printed.lines().map(str::to_owned).collect())
}

/// Where recipes are tried.
struct Kitchen<'w> {
    world: &'w World,
    url: String,
    key: Key,
    folder: PathBuf,
}

impl Kitchen<'_> {
    fn bash(&self, block: &str) -> Command {
        let mut bash = bash(block);
        bash.current_dir(&self.folder)
            .env("URL", &self.url)
            .env("KEY", &self.key.secret);
        bash
    }

    /// Runs a block to its end and gives the lines it prints, each of which is JSON.
    fn lines(&self, block: &str) -> anyhow::Result<Vec<Value>> {
        let lines = printed(self.bash(block), block)?.into_iter();
        lines
            .map(|line| serde_json::from_str(&line).with_context(|| format!("{block}{line}")))
            .collect()
    }

    /// Runs a block that never ends until it shows an event that was sent meanwhile, and gives it.
    async fn live(&self, block: &str) -> anyhow::Result<Value> {
        let log = self.world.logs().join("live.log");
        let tail = Process::start(&mut self.bash(block), &log)?;
        tail.says("that it listens", |line| {
            line.starts_with("retry: ").then_some(())
        })
        .await?;
        let sent = self.world.publish_all([event("acme", "late")].into_iter());
        let (id, _) = *sent.await?.first().context("an event")?;
        let data = |line: &str| {
            let event: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
            (event["id"] == id.to_string()).then_some(event)
        };
        tail.says("an event that was sent meanwhile", data).await
    }

    /// Checks the file that a block left, of which `lines` shows the end.
    fn is_whole(&self, lines: &[Value], events: usize) -> anyhow::Result<Vec<u8>> {
        let end = &lines.last().context("a last line")?["export"];
        ensure!(end["complete"] == true && end["events"] == events, "{end}");
        let file = std::fs::read(self.file())?;
        let lines = std::str::from_utf8(&file)?.lines().count();
        ensure!(lines == events + 1, "{lines} lines");
        Ok(file)
    }

    fn file(&self) -> PathBuf {
        self.folder.join("audit.ndjson")
    }
}

/// Leaves so many bytes of a file.
fn cut(file: &Path, bytes: usize) -> anyhow::Result<()> {
    let file = std::fs::File::options().write(true).open(file)?;
    Ok(file.set_len(u64::try_from(bytes)?)?)
}

pub(crate) async fn every_line_of_the_readme_about_reading_works(
    world: Arc<World>,
) -> anyhow::Result<()> {
    world.migrate()?;
    let key = world.key("acme", &["write", "read"])?;
    let _consumer = world.consumer().await?;
    let (ingest, api) = (world.ingest().await?, world.query_api().await?);
    let folder = world.logs().join("kitchen");
    std::fs::create_dir_all(&folder)?;
    let kitchen = Kitchen {
        url: api.url.clone(),
        key,
        world: &world,
        folder,
    };
    let track = format!("{}/v1/events", ingest.url);
    let one = json!({"eventType": "user_signed_up", "eventKey": "new"});
    let key = &kitchen.key.secret;
    world.ask(Method::POST, &track, key, Some(&one)).await?;
    world.publish(EVENTS).await?;
    total_is(&world, &api.url, &kitchen.key, EVENTS as u64 + 1).await?;

    let mut tried = Vec::new();
    for (heading, block) in blocks(README, "Reading") {
        match (heading, tried.iter().filter(|h| **h == heading).count()) {
            ("A page", 0) => {
                let pages = kitchen.lines(&block)?;
                let page = pages.first().context("a page")?;
                ensure!(
                    page["total"] == 1 && page["events"][0]["userId"] == "user-2",
                    "{page}"
                );
            }
            ("Everything", 0) => {
                let pages = kitchen.lines(&block)?;
                ensure!(pages.len() == 3, "{} pages", pages.len());
                let events = pages.iter().filter_map(|page| page["events"].as_array());
                let ids: std::collections::BTreeSet<_> =
                    events.flatten().map(|event| event["id"].as_str()).collect();
                ensure!(ids.len() == EVENTS + 1, "{} events", ids.len());
            }
            ("Live", 0) => {
                let event = kitchen.live(&block).await?;
                ensure!(event["userId"] == "late", "{event}");
            }
            ("A chart", 0) => {
                let charts = kitchen.lines(&block)?;
                let chart = charts.first().context("a chart")?;
                let total = EVENTS + 2;
                let buckets = chart["buckets"].as_array().context("buckets")?;
                let counts = buckets.iter().filter_map(|bucket| bucket["count"].as_u64());
                ensure!(
                    chart["total"] == total && counts.sum::<u64>() == total as u64,
                    "{chart}"
                );
                ensure!(
                    chart["values"]
                        == json!([
                            {"value": "user_signed_in", "count": EVENTS + 1},
                            {"value": "user_signed_up", "count": 1},
                        ]),
                    "{chart}"
                );
            }
            ("A file", 0) => {
                kitchen.is_whole(&kitchen.lines(&block)?, EVENTS + 2)?;
            }
            ("A file", 1) => {
                let whole = std::fs::read(kitchen.file())?;
                // In the middle of a line, and between two.
                let end = whole[..whole.len() / 2].iter().rposition(|b| *b == b'\n');
                let end = end.context("a line")? + 1;
                for bytes in [end - 40, end, end + 1, whole.len() - 1] {
                    cut(&kitchen.file(), bytes)?;
                    let file = kitchen.is_whole(&kitchen.lines(&block)?, EVENTS + 2)?;
                    ensure!(file == whole, "cut at {bytes} it is another file");
                }
            }
            (heading, time) => anyhow::bail!("block {time} under {heading:?} is not tried"),
        }
        tried.push(heading);
    }
    ensure!(
        tried
            == [
                "A page",
                "Everything",
                "Live",
                "A chart",
                "A file",
                "A file"
            ],
        "{tried:?}"
    );
    Ok(())
}
