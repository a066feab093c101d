//! What is readable: the watermarks of all partitions, as a frozen set.

use std::time::Instant;

use audit_schema::Position;
use audit_schema::clickhouse::{SOURCES, WATERMARKS};
use clickhouse::Row;
use serde::Deserialize;

use super::{ApiError, Client, Error, FrozenSet, Millis, Utc, metrics, refusal};

#[derive(Debug, Row, Deserialize)]
pub(super) struct Watermark {
    pub(super) incarnation: u32,
    pub(super) partition: u32,
    pub(super) frozen_below: u64,
    pub(super) complete: Millis,
    pub(super) newest_incarnation: u32,
    pub(super) newest_partitions: u32,
}

/// What is readable now.
pub(super) async fn freeze(client: &Client) -> Result<FrozenSet, ApiError> {
    let frozen_at = Millis::from(Utc::now());
    let watermarks = read(client).await.map_err(refusal)?;
    Ok(frozen_set(&watermarks, frozen_at))
}

/// The watermark of every partition that was ever settled.
pub(super) async fn read(client: &Client) -> Result<Vec<Watermark>, Error> {
    let sql = format!(
        "SELECT incarnation, partition, max(w.next_offset) AS frozen_below, \
         max(w.complete_up_to) AS complete, \
         toUInt32(ifNull((SELECT max(incarnation) FROM {SOURCES}), 0)) AS newest_incarnation, \
         toUInt32(ifNull((SELECT argMax(partitions, (incarnation, registered_at)) \
         FROM {SOURCES}), 0)) AS newest_partitions \
         FROM {WATERMARKS} AS w GROUP BY incarnation, partition ORDER BY incarnation, partition"
    );
    let begun = Instant::now();
    let watermarks = client.query_raw(&sql).fetch_all().await;
    metrics::queried("watermarks", begun.elapsed());
    watermarks
}

/// The set that the watermarks of all partitions say is readable.
pub(super) fn frozen_set(watermarks: &[Watermark], frozen_at: Millis) -> FrozenSet {
    let registered = watermarks.first().map_or(0, |w| w.newest_incarnation);
    let newest = watermarks
        .iter()
        .map(|w| w.incarnation)
        .fold(registered, u32::max);
    let of_newest: Vec<_> = watermarks
        .iter()
        .filter(|w| w.incarnation == newest)
        .collect();
    // A registered partition that nobody has settled yet may hold events of any time.
    let missing = of_newest.first().is_some_and(|w| {
        let registered = usize::try_from(w.newest_partitions).unwrap_or(usize::MAX);
        w.newest_incarnation == newest && of_newest.len() < registered
    });
    let complete_up_to = of_newest.iter().map(|w| w.complete).min();
    FrozenSet {
        frozen_at,
        complete_up_to: complete_up_to.filter(|time| !missing && time.0 > 0),
        ends: watermarks
            .iter()
            .map(|w| Position {
                incarnation: w.incarnation,
                partition: w.partition,
                offset: w.frozen_below,
            })
            .collect(),
    }
}
