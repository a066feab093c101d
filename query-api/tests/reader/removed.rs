//! What retention takes away during a walk: the rest is still there, once, and what is gone is named.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::stand::{ACME, OTHER, Stand, T, event, ids};

/// A month before [`T`], which is in November 2023.
const OCTOBER: i64 = T - 30 * 24 * 3_600_000;

/// As `audit-consumer retention` does it: it writes down what goes, and then drops the month.
async fn drop_october(stand: &Stand, project: &str, rows: usize) {
    let record = format!(
        "INSERT INTO audit_retention_runs SELECT 'audit_events', '{project}', 202310, \
         toDateTime64('2023-11-01 00:00:00', 3, 'UTC'), '1day', true, {rows}, now64(3)"
    );
    let drop = "ALTER TABLE audit_events DROP PARTITION 202310".to_owned();
    for sql in [record, drop] {
        stand.client.query_raw(&sql).execute().await.unwrap();
    }
}

#[tokio::test]
async fn a_walk_that_loses_events_to_retention_says_so_and_shows_the_rest_once() {
    let stand = Stand::new("removed").await;
    let of = |project, month, count| -> Vec<_> {
        let build = |number| event(project, month + number).build().unwrap();
        (0..count).map(build).collect()
    };
    let (old, new) = (of(ACME, OCTOBER, 20), of(ACME, T, 20));
    let mut all = [old.clone(), new.clone()].concat();
    all.extend(of(OTHER, T, 4));
    // A part of the table is of one month.
    stand.insert(0, &old).await;
    stand.insert(20, &all[20..]).await;
    stand.settle(44).await;

    let first = stand.get(ACME, "/v1/audit-logs?limit=15").await;
    assert!(first["removedBefore"].is_null(), "{first}");
    drop_october(&stand, ACME, old.len()).await;

    let removed_before = Value::from("2023-11-01T00:00:00.000Z");
    let mut seen = ids(&first);
    let mut cursor = first["nextCursor"].clone();
    while let Some(next) = cursor.as_str() {
        let path = format!("/v1/audit-logs?limit=15&cursor={next}");
        let answer = stand.get(ACME, &path).await;
        assert_eq!(answer["removedBefore"], removed_before);
        assert_eq!(answer["total"], 40, "the total of a walk is constant");
        seen.extend(ids(&answer));
        cursor = answer["nextCursor"].clone();
    }
    let left: BTreeSet<_> = new.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(seen.len(), left.len());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), left);

    // Whatever else is asked of the same set says it as well.
    let as_of = first["asOf"].as_str().unwrap();
    let page = stand
        .get(ACME, &format!("/v1/audit-logs?asOf={as_of}"))
        .await;
    assert_eq!(
        (&page["total"], &page["removedBefore"]),
        (&20.into(), &removed_before)
    );
    let chart = format!("/v1/audit-logs/stats?bucket=month&from=2023-10-01T00:00:00Z&asOf={as_of}");
    let chart = stand.get(ACME, &chart).await;
    assert_eq!(
        (&chart["total"], &chart["removedBefore"]),
        (&20.into(), &removed_before)
    );
    let export = format!("/v1/audit-logs/export?asOf={as_of}");
    let (_, file, whole) = stand.file(ACME, &export).await;
    let file = String::from_utf8(file).unwrap();
    let end: Value = serde_json::from_str(file.lines().last().unwrap()).unwrap();
    assert!(whole);
    assert_eq!(
        (&end["export"]["events"], &end["export"]["removedBefore"]),
        (&20.into(), &removed_before)
    );

    // Nothing went of another project.
    let other = stand.get(OTHER, "/v1/audit-logs").await;
    assert_eq!(
        (&other["total"], &other["removedBefore"]),
        (&4.into(), &Value::Null)
    );
}
