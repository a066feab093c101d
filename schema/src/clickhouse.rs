//! ClickHouse: how to reach it, and what our tables are called there.

use clickhouse::Client;

use crate::authorities::{self, Authorities};

/// The table of watermarks: how far each partition is readable.
pub const WATERMARKS: &str = "audit_watermarks";

/// The table of sources: the lives of the topic.
pub const SOURCES: &str = "audit_sources";

/// The table of offsets whose rows retention took away.
pub const REMOVED: &str = "audit_removed";

/// The table of what retention took away from whom, and when.
pub const RETENTION_RUNS: &str = "audit_retention_runs";

/// Where ClickHouse is, and as whom to speak to it.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// Its HTTP interface, such as `http://127.0.0.1:8123`.
    pub url: &'a str,
    /// The database of our tables.
    pub database: &'a str,
    /// The user; empty for none.
    pub user: &'a str,
    /// The password; empty for none.
    pub password: &'a str,
    /// Whose certificates are taken if the address is `https`; without them, those of whom the
    /// system trusts.
    pub authorities: Option<&'a Authorities>,
}

impl<'a> Address<'a> {
    /// A database of a server that asks for no login.
    pub fn open(url: &'a str, database: &'a str) -> Self {
        Self {
            url,
            database,
            user: "",
            password: "",
            authorities: None,
        }
    }
}

/// A client with the settings that our promises rest on.
///
/// `async_insert` would acknowledge rows before they are stored, and is on by default since
/// ClickHouse 26.3.
pub fn connect(address: Address<'_>) -> Client {
    let mut client = authorities::client(address.url, address.authorities)
        .with_url(address.url)
        .with_database(address.database)
        .with_setting("async_insert", "0");
    if !address.user.is_empty() {
        client = client.with_user(address.user);
    }
    if !address.password.is_empty() {
        client = client.with_password(address.password);
    }
    client
}

/// What kind of ClickHouse the tables are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// One server: `MergeTree`.
    SingleNode,
    /// A cluster of this name: `ReplicatedMergeTree` on each shard, `Distributed` before them.
    Cluster(String),
}

impl Engine {
    /// What makes a statement one for all servers, in front of a blank if it is anything.
    pub fn on_cluster(&self) -> String {
        match self {
            Self::SingleNode => String::new(),
            Self::Cluster(cluster) => format!(" ON CLUSTER '{cluster}'"),
        }
    }

    /// The statement that waits until each replica has what any has of a shard's own table; `None` for
    /// one server.
    pub fn sync(&self, local: &str) -> Option<String> {
        match self {
            Self::SingleNode => None,
            Self::Cluster(_) => Some(format!(
                "SYSTEM SYNC REPLICA{} {local} LIGHTWEIGHT",
                self.on_cluster()
            )),
        }
    }
}

/// The table that an insert of `table` goes to: a shard's own one in a cluster.
pub fn local_table(table: &str, engine: &Engine) -> String {
    match engine {
        Engine::SingleNode => table.to_owned(),
        Engine::Cluster(_) => format!("{table}_local"),
    }
}
