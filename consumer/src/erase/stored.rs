//! What is stored of a person: the questions, and the mutations that empty it.

use std::time::{Duration, Instant};

use audit_schema::Position;
use audit_schema::clickhouse::{Engine, local_table};
use audit_schema::dead_letter::{DEAD_LETTERS, DUPLICATE, KINDS};
use audit_schema::erasure::{ERASED_REASON, ERASURES, Whose};
use audit_schema::row::{EVENTS, Millis};
use clickhouse::query::Query;
use clickhouse::{Client, Row};
use serde::Deserialize;
use uuid::Uuid;

use super::{Identifier, OfType};
use crate::alone::WayOutError;
use crate::dead_letters::{Letters, Selection};
use crate::erasures::{Erasures, Kind, Registered};
use crate::error::ReadError;
use crate::writer::Writer;

/// How often a mutation is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// How many dead letters one statement names: it has to stay below ClickHouse's limit of 256 KiB.
const LETTERS: usize = 5_000;

/// What an event is compared with before the erasure is registered: bound values.
const GIVEN: Whose<'_> = Whose {
    user: "({user:String})",
    identifiers: "{identifiers:Array(String)}",
};

/// The condition that an event is earlier than the erasure.
const EARLIER: &str = "(created_at < fromUnixTimestamp64Milli({erased_at:Int64}, 'UTC') \
                       OR logged_at < fromUnixTimestamp64Milli({erased_at:Int64}, 'UTC'))";

#[derive(Debug, Row, Deserialize)]
struct TypeRow {
    name: String,
    events: u64,
}

#[derive(Debug, Row, Deserialize)]
struct IdentifierRow {
    name: String,
    events: u64,
    of_others: u64,
}

#[derive(Debug, Row, Deserialize)]
struct TextRow {
    text: String,
}

#[derive(Debug, Row, Deserialize)]
struct NumberRow {
    number: u64,
}

#[derive(Debug, Row, Deserialize)]
struct MutationsRow {
    mutations: u64,
    parts: i64,
    failure: String,
}

/// What is stored of one user of a project.
pub(super) struct Stored<'a> {
    writer: &'a Writer,
    client: &'a Client,
    engine: &'a Engine,
    project: &'a str,
    user: &'a str,
}

impl<'a> Stored<'a> {
    pub(super) fn new(
        writer: &'a Writer,
        engine: &'a Engine,
        project: &'a str,
        user: &'a str,
    ) -> Self {
        Self {
            writer,
            client: writer.client(),
            engine,
            project,
            user,
        }
    }

    fn ask(&self, sql: &str) -> Query {
        let asked = self.client.query_raw(sql).param("project", self.project);
        asked.param("user", self.user)
    }

    /// What is registered of erasures of this user that were not ended.
    pub(super) async fn cut_off(&self) -> Result<Vec<Registered>, ReadError> {
        let sql = format!(
            "SELECT erasure_id, project_id, kind, person, salt, value, erased_at, reason, events, \
             dead_letters FROM {ERASURES} WHERE project_id = {{project:String}} AND value != '' \
             ORDER BY erased_at"
        );
        let mut rows = self.ask(&sql).fetch_all::<Registered>().await?;
        let of_user = rows
            .iter()
            .find(|row| row.kind == Kind::User.as_str() && row.value == self.user);
        let erasure = of_user.map(|row| row.erasure_id);
        rows.retain(|row| Some(row.erasure_id) == erasure);
        Ok(rows)
    }

    /// The identifiers in the user's events, in small letters. One too many if there are too many.
    pub(super) async fn identifiers(&self) -> Result<Vec<String>, ReadError> {
        let sql = format!(
            "SELECT DISTINCT lower(identifier) AS text FROM {EVENTS} \
             WHERE project_id = {{project:String}} AND user_id = {{user:String}} \
             AND lower(identifier) NOT IN ('', 'unknown') LIMIT {}",
            super::MOST_IDENTIFIERS.saturating_add(1)
        );
        let rows = self.ask(&sql).fetch_all::<TextRow>().await?;
        Ok(rows.into_iter().map(|row| row.text).collect())
    }

    /// Of each identifier, how many events have it.
    pub(super) async fn counts(&self, of: &[String]) -> Result<Vec<Identifier>, ReadError> {
        let sql = format!(
            "SELECT lower(identifier) AS name, \
             countIf(user_id IN ('', {{user:String}})) AS events, \
             countIf(user_id NOT IN ('', {{user:String}})) AS of_others \
             FROM {EVENTS} WHERE project_id = {{project:String}} \
             AND lower(identifier) IN {{identifiers:Array(String)}} GROUP BY name"
        );
        let asked = self.ask(&sql).param("identifiers", of);
        let rows = asked.fetch_all::<IdentifierRow>().await?;
        let count = |identifier: &String| {
            let row = rows.iter().find(|row| row.name == *identifier);
            Identifier {
                identifier: identifier.clone(),
                events: row.map_or(0, |row| row.events),
                events_of_others: row.map_or(0, |row| row.of_others),
            }
        };
        Ok(of.iter().map(count).collect())
    }

    /// How many events of each type are about the user or by them, the most frequent first.
    pub(super) async fn types(
        &self,
        identifiers: &[String],
        erased_at: Millis,
    ) -> Result<Vec<OfType>, ReadError> {
        let sql = format!(
            "SELECT toString(event_type) AS name, count() AS events FROM {EVENTS} \
             WHERE project_id = {{project:String}} AND {EARLIER} AND {} \
             GROUP BY name ORDER BY events DESC, name",
            GIVEN.events()
        );
        let asked = self.ask(&sql).param("identifiers", identifiers);
        let rows = asked.param("erased_at", erased_at.0).fetch_all::<TypeRow>();
        let types = rows.await?.into_iter().map(|row| OfType {
            event_type: row.name,
            events: row.events,
        });
        Ok(types.collect())
    }

    /// How many events of others have the person's id or an identifier as a text in their data.
    pub(super) async fn mentions(
        &self,
        identifiers: &[String],
        erased_at: Millis,
    ) -> Result<u64, ReadError> {
        let sql = format!(
            "SELECT count() AS number FROM {EVENTS} \
             WHERE project_id = {{project:String}} AND {EARLIER} AND NOT {} \
             AND multiSearchAnyCaseInsensitive(event_data, arrayMap(value -> concat('\"', value, '\"'), \
             arrayPushBack({{identifiers:Array(String)}}, {{user:String}})))",
            GIVEN.events()
        );
        let asked = self.ask(&sql).param("identifiers", identifiers);
        let row = asked
            .param("erased_at", erased_at.0)
            .fetch_one::<NumberRow>();
        Ok(row.await?.number)
    }

    /// Where the dead letters are whose bytes name somebody in `registry`; `values` are their names.
    pub(super) async fn letters(
        &self,
        registry: &Erasures,
        values: Vec<String>,
    ) -> Result<Vec<Position>, ReadError> {
        let all = Selection::default();
        let mut letters = Letters::new(self.client, all, &KINDS, true).naming(values);
        let mut found = Vec::new();
        loop {
            let page = letters.page().await?;
            if page.is_empty() {
                return Ok(found);
            }
            let names = page.iter().filter(|letter| {
                let value = letter.value.as_deref().unwrap_or_default();
                registry.names(&letter.key, value, letter.logged_at)
            });
            found.extend(names.map(|letter| letter.position));
        }
    }

    /// Registers an erasure. Each replica knows it then: mutations read it on all of them.
    pub(super) async fn register(&self, rows: &[Registered]) -> Result<(), WayOutError> {
        // Registered twice is registered.
        self.writer.register(rows).await?;
        if let Some(sync) = self.engine.sync(&local_table(ERASURES, self.engine)) {
            self.tell(self.client.query_raw(&sync)).await?;
        }
        Ok(())
    }

    /// Begins to empty the events of a registered erasure.
    pub(super) async fn rewrite_events(
        &self,
        erasure: Uuid,
        erased_at: Millis,
    ) -> Result<(), ReadError> {
        // The text of a mutation is kept, so it has no names in it. Values that are forgotten are
        // none: an empty text would be everybody without a user.
        let values = |kind: Kind| {
            format!(
                "(SELECT value FROM {ERASURES} WHERE erasure_id = {{erasure:UUID}} \
                 AND kind = '{}' AND value != '')",
                kind.as_str()
            )
        };
        let (user, identifiers) = (values(Kind::User), values(Kind::Identifier));
        let whose = Whose {
            user: &user,
            identifiers: &identifiers,
        };
        let change = format!(
            "UPDATE {} WHERE project_id = {{project:String}} AND {EARLIER} AND {}",
            whose.emptied(),
            whose.events()
        );
        let asked = self.ask(&self.alter(EVENTS, &change));
        let asked = asked.param("erasure", erasure.to_string());
        self.tell(asked.param("erased_at", erased_at.0)).await
    }

    /// Begins to empty these dead letters.
    pub(super) async fn rewrite_letters(&self, letters: &[Position]) -> Result<(), ReadError> {
        for letters in letters.chunks(LETTERS) {
            let positions: Vec<String> = letters
                .iter()
                .map(|at| format!("({},{},{})", at.incarnation, at.partition, at.offset))
                .collect();
            let change = format!(
                "UPDATE record_key = '', record_value = '', \
                 reason = if(kind = '{DUPLICATE}', reason, '{ERASED_REASON}') \
                 WHERE (source_incarnation, source_partition, source_offset) IN ({})",
                positions.join(",")
            );
            let sql = self.alter(DEAD_LETTERS, &change);
            self.tell(self.client.query_raw(&sql)).await?;
        }
        Ok(())
    }

    /// Begins to empty the values that are registered of an erasure.
    pub(super) async fn forget(&self, erasure: Uuid) -> Result<(), ReadError> {
        let change = "UPDATE value = '' WHERE erasure_id = {erasure:UUID}";
        let asked = self.ask(&self.alter(ERASURES, change));
        self.tell(asked.param("erasure", erasure.to_string())).await
    }

    /// Waits until no mutation of a table is at work.
    pub(super) async fn mutated(&self, table: &str) -> Result<(), WayOutError> {
        let mutations = match self.engine {
            Engine::SingleNode => "system.mutations".to_owned(),
            Engine::Cluster(cluster) => {
                format!("clusterAllReplicas('{cluster}', system.mutations)")
            }
        };
        let sql = format!(
            "SELECT count() AS mutations, sum(parts_to_do) AS parts, \
             max(latest_fail_reason) AS failure FROM {mutations} \
             WHERE database = currentDatabase() AND table = {{table:String}} AND NOT is_done"
        );
        let local = local_table(table, self.engine);
        let mut said = Instant::now();
        loop {
            let asked = self.client.query_raw(&sql).param("table", &local);
            let left = asked.fetch_one::<MutationsRow>().await;
            let left = left.map_err(ReadError::from)?;
            if left.mutations == 0 {
                return Ok(());
            }
            if !left.failure.is_empty() {
                return Err(WayOutError::Mutation {
                    table: local,
                    reason: left.failure,
                });
            }
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                tracing::info!(
                    table = local,
                    parts = left.parts,
                    "parts are left to rewrite"
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn alter(&self, table: &str, change: &str) -> String {
        let on_cluster = self.engine.on_cluster();
        let table = local_table(table, self.engine);
        format!("ALTER TABLE {table}{on_cluster} {change}")
    }

    async fn tell(&self, statement: Query) -> Result<(), ReadError> {
        let told = statement
            .with_setting("mutations_sync", "0")
            // The registry stays as it is while a mutation reads it.
            .with_setting("allow_nondeterministic_mutations", "1");
        Ok(told.execute().await?)
    }
}
