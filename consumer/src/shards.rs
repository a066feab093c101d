//! The servers that hold the tables: one, or the replicas of a cluster's shards.
//!
//! A partition of the topic belongs to one shard, for as long as its life lasts: its rows and its
//! watermark are there, and are asked for there. One replica of a shard is asked, and inserted into,
//! until it fails, then the next one. Before it is asked for rows it fetches what the others have
//! stored (`SYSTEM SYNC REPLICA … LIGHTWEIGHT`): until then what another one took is missing there,
//! and would be stored a second time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use audit_schema::clickhouse::{Address, connect};
use clickhouse::Client;
use clickhouse::error::Error;

use crate::config::ClickHouse;
use crate::error::is_refusal;

/// All shards, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Shards {
    shards: Arc<[Shard]>,
}

/// The replicas of one shard; without a cluster the one server.
#[derive(Debug)]
pub(crate) struct Shard {
    replicas: Vec<Replica>,
    /// Which replica is asked; its number counts on and on.
    asked: AtomicUsize,
    /// How long an insert may wait for a majority of the replicas; `None` without a cluster.
    quorum: Option<Duration>,
}

/// One server.
struct Replica {
    url: String,
    client: Client,
    /// Whether it was told that it does not answer.
    silent: AtomicBool,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Replica").field(&self.url).finish()
    }
}

impl Shards {
    /// The servers of `config`; none is asked yet.
    pub(crate) fn new(config: &ClickHouse) -> Self {
        Self::with(config, |client| client)
    }

    /// The same, asked as far as possible when nobody else asks.
    pub(crate) fn in_background(config: &ClickHouse) -> Self {
        Self::with(config, |client| {
            client
                .with_setting("max_threads", "1")
                .with_setting("priority", "10")
        })
    }

    fn with(config: &ClickHouse, set: impl Fn(Client) -> Client) -> Self {
        let replica = |url: &str| {
            let client = connect(Address {
                url,
                ..config.address()
            });
            Replica {
                url: url.to_owned(),
                client: set(client.with_validation(false)),
                silent: AtomicBool::new(false),
            }
        };
        let quorum = (!config.cluster.is_empty()).then_some(config.insert_timeout);
        let shard = |urls: Vec<&str>| Shard {
            replicas: urls.into_iter().map(replica).collect(),
            asked: AtomicUsize::new(0),
            quorum,
        };
        let shards = config.shards().into_iter().map(shard);
        Self {
            shards: shards.collect(),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard of a partition.
    #[expect(
        clippy::indexing_slicing,
        reason = "there is a shard, and the remainder is below their number"
    )]
    pub(crate) fn of(&self, partition: u32) -> &Shard {
        &self.shards[usize::try_from(partition).unwrap_or(0) % self.shards.len()]
    }
}

impl Shard {
    /// The replica that is asked now, to be named when it fails.
    #[expect(
        clippy::indexing_slicing,
        reason = "there is a replica, and the remainder is below their number"
    )]
    pub(crate) fn asked(&self) -> (usize, &Client) {
        let asked = self.asked.load(Ordering::Relaxed);
        (asked, &self.replicas[asked % self.replicas.len()].client)
    }

    /// Turns to the next replica after an error that it may not have, unless somebody did when
    /// `asked` had failed.
    pub(crate) fn failed(&self, asked: usize, error: &Error) {
        if is_refusal(error) {
            return;
        }
        let next = asked.wrapping_add(1);
        let turned = self
            .asked
            .compare_exchange(asked, next, Ordering::Relaxed, Ordering::Relaxed);
        if turned.is_ok() && self.replicas.len() > 1 {
            tracing::warn!(
                replica = ?self.replicas.get(next % self.replicas.len()),
                "a replica failed; asking the next one"
            );
        }
    }

    /// Asks a replica that has everything of these tables that any replica had stored before.
    /// If it fails, or takes longer than `limit`, the next question goes to the next one.
    pub(crate) async fn ask<T, F>(
        &self,
        tables: &[&str],
        limit: Duration,
        question: impl FnOnce(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (asked, client) = self.asked();
        let answer = async {
            if self.quorum.is_some() {
                for table in tables {
                    let sync = format!("SYSTEM SYNC REPLICA {table} LIGHTWEIGHT");
                    client.query_raw(&sync).execute().await?;
                }
            }
            question(client.clone()).await
        };
        let answer = tokio::time::timeout(limit, answer)
            .await
            .unwrap_or(Err(Error::TimedOut));
        answer.inspect_err(|error| self.failed(asked, error))
    }

    /// Asks every replica; the first that fails decides.
    pub(crate) async fn ask_each<T, F>(
        &self,
        limit: Duration,
        question: impl Fn(Client) -> F,
    ) -> Result<Vec<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut answers = Vec::new();
        for replica in &self.replicas {
            let answer = tokio::time::timeout(limit, question(replica.client.clone())).await;
            let answer = answer.unwrap_or(Err(Error::TimedOut));
            replica.answered(answer.is_ok());
            answers.push(answer?);
        }
        Ok(answers)
    }

    /// A client whose inserts are answered when a majority of the replicas has them.
    pub(crate) fn durable(&self, client: Client) -> Client {
        let Some(limit) = self.quorum else {
            return client;
        };
        client
            .with_setting("insert_quorum", "auto")
            // Inserts of several partitions go on beside each other.
            .with_setting("insert_quorum_parallel", "1")
            .with_setting("insert_quorum_timeout", limit.as_millis().to_string())
    }

    /// Whether there is more than one server that may have what is asked for.
    pub(crate) fn is_replicated(&self) -> bool {
        self.quorum.is_some()
    }
}

impl Replica {
    /// Tells once when it does not answer, and once when it does again.
    fn answered(&self, well: bool) {
        if self.silent.swap(!well, Ordering::Relaxed) == well {
            if well {
                tracing::info!(replica = self.url, "the replica answers again");
            } else {
                tracing::warn!(
                    replica = self.url,
                    "a replica does not answer, so what it is storing is not known: a partition \
                     with an insert in doubt waits for it; if it is gone for good, take it out of \
                     clickhouse.shards"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(cluster: &str, shards: &str) -> Shards {
        let mut config: crate::config::Config =
            audit_service::config::load("consumer", crate::config::DEFAULTS, None).unwrap();
        cluster.clone_into(&mut config.clickhouse.cluster);
        shards.clone_into(&mut config.clickhouse.shards);
        Shards::new(&config.clickhouse)
    }

    #[test]
    fn a_partition_has_its_shard_and_partitions_take_them_in_turn() {
        let shards = shards("audit", "http://a1,http://a2  http://b1,http://b2");
        let asked = |partition| shards.of(partition).replicas[0].url.as_str();
        assert_eq!(
            [0, 1, 2, 5].map(asked),
            ["http://a1", "http://b1", "http://a1", "http://b1"]
        );
        assert_eq!(shards.all().len(), 2);
    }

    #[test]
    fn without_a_cluster_there_is_one_shard_of_one_server() {
        let shards = shards("", "");
        assert!(!shards.of(7).is_replicated());
        assert_eq!(shards.of(7).replicas.len(), 1);
    }

    #[test]
    fn a_failure_that_several_saw_turns_to_the_next_replica_once() {
        let shards = shards("audit", "http://a1,http://a2,http://a3");
        let shard = shards.of(0);
        let (failed, _) = shard.asked();
        shard.failed(failed, &Error::TimedOut);
        shard.failed(failed, &Error::TimedOut);
        assert_eq!(shard.asked().0, failed + 1);
    }
}
