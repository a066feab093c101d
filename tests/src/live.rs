//! A live reader: `/v1/audit-logs/tail` over HTTP, event by event.

use anyhow::{Context, bail, ensure};
use reqwest::Response;
use serde_json::Value;

use crate::process::PATIENCE;
use crate::world::{Key, World};

/// A connection to a tail.
pub struct LiveReader {
    answer: Response,
    /// What came and is no whole block yet.
    rest: Vec<u8>,
    last: String,
}

impl LiveReader {
    /// Connects to the query API at `url` and waits until it listens; behind the block with the id
    /// `last`, if there is one.
    pub async fn open(
        world: &World,
        url: &str,
        key: &Key,
        last: Option<&str>,
    ) -> anyhow::Result<Self> {
        let url = format!("{url}/v1/audit-logs/tail");
        let mut request = world.http().get(&url).header("x-api-key", &key.secret);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await?;
        ensure!(answer.status().is_success(), "{url}: {}", answer.status());
        let mut reader = Self {
            answer,
            rest: Vec::new(),
            last: String::new(),
        };
        reader.block().await?.context("a first block")?;
        Ok(reader)
    }

    /// How far it has come: the last id it was given.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// The next event; `None` when the connection has ended, well or not.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        let event = async {
            while let Some(block) = self.block().await? {
                if let Some(data) = field(&block, "data: ") {
                    return Ok(Some(serde_json::from_str(data)?));
                }
            }
            anyhow::Ok(None)
        };
        match tokio::time::timeout(PATIENCE, event).await {
            Ok(event) => event,
            Err(_) => bail!("waited in vain for an event"),
        }
    }

    /// The next whole block of lines.
    async fn block(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            let end = self.rest.windows(2).position(|end| end == b"\n\n");
            if let Some(end) = end {
                let block = self.rest.drain(..end + 2).collect();
                let block = String::from_utf8(block)?;
                if let Some(id) = field(&block, "id: ") {
                    id.clone_into(&mut self.last);
                }
                return Ok(Some(block));
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) => self.rest.extend(chunk),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

fn field<'b>(block: &'b str, name: &str) -> Option<&'b str> {
    block.lines().find_map(|line| line.strip_prefix(name))
}
