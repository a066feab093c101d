//! A table that is slow to read, and what the engine is busy with.

use std::time::{Duration, Instant};

use audit_schema::row::EVENTS;

use crate::stand::Stand;

/// How long anything is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

impl Stand {
    /// Makes every row take so many seconds to be read.
    pub(crate) async fn slow(&self, seconds: f64) {
        // What does not depend on the row would be done once.
        let slow = format!(
            "CREATE VIEW {EVENTS} AS SELECT * FROM kept \
             WHERE if(source_incarnation > 0, sleepEachRow({seconds}), 0) = 0 \
             SETTINGS function_sleep_max_microseconds_per_block = 0"
        );
        self.run(&format!("RENAME TABLE {EVENTS} TO kept")).await;
        self.run(&slow).await;
    }

    /// Makes them quick again.
    pub(crate) async fn quick(&self) {
        self.run(&format!("DROP VIEW {EVENTS}")).await;
        self.run(&format!("RENAME TABLE kept TO {EVENTS}")).await;
    }

    /// Runs a statement.
    pub(crate) async fn run(&self, sql: &str) {
        self.client.query_raw(sql).execute().await.unwrap();
    }

    /// Waits until so many queries read this stand's events.
    pub(crate) async fn until_reading(&self, wanted: u64) {
        let sql = format!(
            "SELECT count() FROM system.processes WHERE current_database = currentDatabase() \
             AND query LIKE '%{EVENTS}%' AND query NOT LIKE '%system.processes%'"
        );
        let begun = Instant::now();
        let mut again = tokio::time::interval(Duration::from_millis(10));
        loop {
            again.tick().await;
            let reading: u64 = self.client.query_raw(&sql).fetch_one().await.unwrap();
            if reading == wanted {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{reading} queries, not {wanted}");
        }
    }
}
