//! `data` of `audit_log`: the members of any event data.

use std::collections::BTreeMap;

use serde_json::{Value, json, value::RawValue};

use crate::stand::{Stand, T};

/// A wire value with event data as it is written.
fn record(number: i64, data: &str) -> String {
    format!(
        r#"{{"id":"{}","projectId":"acme","createdAt":{},"eventType":"invoice.paid","eventData":{data}}}"#,
        uuid::Uuid::now_v7(),
        T + number
    )
}

#[tokio::test]
async fn the_members_of_any_valid_data_are_read() {
    let stand = Stand::new("data").await;
    let cases = [
        (r"{}", json!({})),
        (
            r#"{ "text": "a\u0041\n\"", "yes": true, "none": null, "n": -1.5, "nested": {"a": [1, "b"]} }"#,
            json!({"text": "aA\n\"", "yes": "true", "n": "-1.5", "nested": r#"{"a":[1,"b"]}"#}),
        ),
        // Of several members of one name the last counts, as in the columns.
        (
            r#"{"role":"member","role":"owner"}"#,
            json!({"role": "owner"}),
        ),
        // What the engine's parser refuses.
        (
            r#"{"big":123456789012345678901234567890,"far":-1.50e400,"role":"a-1 2","nested":[1]}"#,
            json!({"big": "123456789012345678901234567890", "far": "-1.50e400", "role": "a-1 2",
                   "nested": r#"["1"]"#}),
        ),
        (
            r#"{"half":"\ud800","escaped":"\\ud800\"","role":"owner"}"#,
            json!({"half": "\u{fffd}", "escaped": "\\ud800\"", "role": "owner"}),
        ),
        (
            r#"{"":"nameless","a.b":"dotted","a":{"b":"deep"}}"#,
            json!({"": "nameless", "a.b": "dotted", "a": r#"{"b":"deep"}"#}),
        ),
    ];
    let records: Vec<_> = (0..)
        .zip(&cases)
        .map(|(number, (data, _))| record(number, data))
        .collect();
    stand.store(&records).await;
    let names = "SELECT arrayDistinct(mapKeys(data)) AS names, arrayMap(name -> data[name], names) AS values \
                 FROM audit_log ORDER BY created_at";
    let rows = stand.rows(names).await;
    assert_eq!(rows.len(), cases.len());
    for (row, (data, expected)) in rows.iter().zip(&cases) {
        let texts =
            |column: &str| -> Vec<String> { serde_json::from_value(row[column].clone()).unwrap() };
        let found: BTreeMap<_, _> = texts("names").into_iter().zip(texts("values")).collect();
        assert_eq!(&json!(found), expected, "{data}");
    }
    let kept = stand
        .rows("SELECT event_data FROM audit_log ORDER BY created_at")
        .await;
    for (row, (data, _)) in kept.iter().zip(&cases) {
        let data: Box<RawValue> = serde_json::from_str(data).unwrap();
        assert_eq!(row["event_data"], Value::from(data.get()));
    }
}
