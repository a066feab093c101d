//! Events looked up by their primary keys.

use std::collections::{HashMap, HashSet};

use audit_schema::row::{EVENTS, Millis};
use clickhouse::Row;
use clickhouse::query::Query;
use serde::Deserialize;
use uuid::Uuid;

use super::Writer;
use crate::batch::{EventKey, PartitionId};
use crate::error::ReadError;
use crate::stored;

/// How many keys are looked up together.
const KEYS: usize = 2000;

#[derive(Debug, Row, Deserialize)]
struct EarlierRow {
    project: String,
    created_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    offset: u64,
}

#[derive(Debug, Row, Deserialize)]
struct KeyRow {
    project: String,
    created_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
}

impl Writer {
    /// Which of these events are in the table, in any partition and any life of the topic.
    pub(crate) async fn stored(&self, keys: &[EventKey]) -> Result<HashSet<EventKey>, ReadError> {
        let sql = format!(
            "SELECT DISTINCT project_id AS project, \
             toUnixTimestamp64Milli(created_at) AS created_at, event_id AS id FROM {EVENTS} \
             WHERE {}",
            is_one_of_the_keys(EVENTS)
        );
        let mut found = HashSet::new();
        for keys in keys.chunks(KEYS) {
            let rows = with_keys(self.client.query_raw(&sql), keys).fetch_all::<KeyRow>();
            found.extend(self.of_all(rows).await?.into_iter().map(|row| EventKey {
                project: row.project,
                created_at: Millis(row.created_at),
                id: row.id,
            }));
        }
        Ok(found)
    }

    /// Which of these events a partition has below an offset, and the lowest offset of each.
    pub(super) async fn earlier_keys(
        &self,
        id: PartitionId,
        keys: &[EventKey],
        below: u64,
    ) -> Result<HashMap<EventKey, u64>, ReadError> {
        let sql = format!(
            "SELECT project_id AS project, toUnixTimestamp64Milli(created_at) AS created_at, \
             event_id AS id, min(source_offset) AS offset FROM {} WHERE {} \
             AND {} AND source_offset < {below} \
             GROUP BY project_id, {}.created_at, event_id",
            self.events,
            is_one_of_the_keys(&self.events),
            stored::of(id),
            self.events
        );
        let mut found = HashMap::new();
        for keys in keys.chunks(KEYS) {
            let sql = &sql;
            let tables = [self.events.as_str()];
            let asked = self.ask(id, &tables, |client| async move {
                let asked = with_keys(client.query_raw(sql), keys);
                asked.fetch_all::<EarlierRow>().await
            });
            for row in asked.await? {
                let key = EventKey {
                    project: row.project,
                    created_at: Millis(row.created_at),
                    id: row.id,
                };
                found.insert(key, row.offset);
            }
        }
        Ok(found)
    }
}

/// The condition that a row of `table` has one of the primary keys that [`with_keys`] binds.
fn is_one_of_the_keys(table: &str) -> String {
    format!(
        "(project_id, {table}.created_at, event_id) IN (SELECT arrayJoin(arrayZip( \
         {{projects:Array(String)}}, \
         arrayMap(t -> fromUnixTimestamp64Milli(t, 'UTC'), {{times:Array(Int64)}}), \
         {{ids:Array(UUID)}})))"
    )
}

fn with_keys(question: Query, keys: &[EventKey]) -> Query {
    let projects: Vec<&str> = keys.iter().map(|key| key.project.as_str()).collect();
    let times: Vec<i64> = keys.iter().map(|key| key.created_at.0).collect();
    let ids: Vec<String> = keys.iter().map(|key| key.id.to_string()).collect();
    question
        .param("projects", projects)
        .param("times", times)
        .param("ids", ids)
}
