//! What retention took away of a project.

use audit_schema::clickhouse::RETENTION_RUNS;
use audit_schema::row::{EVENTS, Millis};
use clickhouse::Row;
use serde::Deserialize;

use super::{Admitted, ApiError, refusal};
use crate::filter::Reach;

#[derive(Debug, Row, Deserialize)]
struct Removed {
    before: Millis,
}

impl Admitted<'_> {
    /// The time before which all that Kafka took of the project is gone, or going; `None` if nothing
    /// of it went.
    ///
    /// It is written down before events go, so whoever asks after reading events learns of all that
    /// was not there to be read.
    pub(crate) async fn removed_before(&self, reach: &Reach) -> Result<Option<Millis>, ApiError> {
        let sql = format!(
            "SELECT max(removed_before) AS before FROM {RETENTION_RUNS} \
             WHERE project_id = {{project:String}} AND table_name = {{table:String}} \
             HAVING count() > 0"
        );
        let query = self
            .client
            .query_raw(&sql)
            .param("project", reach.project.to_string())
            .param("table", EVENTS);
        let found = query.fetch_optional::<Removed>().await.map_err(refusal)?;
        Ok(found.map(|removed| removed.before))
    }
}
