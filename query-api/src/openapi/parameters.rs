//! The parameters, from the table of fields.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value gives null for what it lacks, and what is written to is an object"
)]

use serde_json::{Map, Value, json};

use crate::audit_logs::{DEFAULT_LIMIT, LIMITS};
use crate::export::Format;
use crate::filter::field::{DATA, FIELDS, Field, MAX_CHARS};
use crate::filter::{NOT, Order};
use crate::reader::By;
use crate::stats::{Bucket, DEFAULT_TOP, MAX_TOP};

/// Everything that a filter can be made of.
pub(super) fn of_filter() -> Vec<Value> {
    let mut all: Vec<_> = FIELDS.iter().map(|field| of_field(field, false)).collect();
    let excluded = FIELDS.iter().filter(|field| field.can_exclude());
    all.extend(excluded.map(|field| of_field(field, true)));
    all.push(of_data("data", "", "has one of the values"));
    all.push(of_data("not.data", NOT, "has none of the values"));
    all
}

/// The same, as references to where the document says them once.
pub(super) fn references() -> Vec<Value> {
    let names = of_filter()
        .into_iter()
        .map(|parameter| parameter["name"].clone());
    let place = |name: &Value| format!("#/components/parameters/{}", name.as_str().unwrap_or(""));
    names.map(|name| json!({ "$ref": place(&name) })).collect()
}

fn of_field(field: &Field, excluded: bool) -> Value {
    let (not, leaves_out) = if excluded {
        (NOT, "Leaves out: ")
    } else {
        ("", "")
    };
    let comma = if field.is_list() {
        " A comma separates values, too."
    } else {
        ""
    };
    let (schema, explode) = schema(field);
    json!({
        "name": format!("{not}{}", field.name),
        "in": "query",
        "description": format!("{leaves_out}{}.{comma}", field.summary),
        "schema": schema,
        "explode": explode,
    })
}

/// The schema of a field, and whether it is repeated.
fn schema(field: &Field) -> (Value, bool) {
    let value = match field.words() {
        Some(words) => json!({ "type": "string", "enum": words }),
        // Something between commas.
        None if field.is_list() => json!({ "type": "string", "pattern": r"[^\s,]" }),
        None => json!({ "type": "string", "minLength": 1, "maxLength": MAX_CHARS }),
    };
    if field.can_exclude() {
        (
            json!({ "type": "array", "items": value, "minItems": 1 }),
            true,
        )
    } else {
        (value, false)
    }
}

/// The parameters for places in the event data: any name that begins so.
fn of_data(name: &str, not: &str, condition: &str) -> Value {
    let description = format!(
        "`{not}{DATA}<path>=<value>`: the place in the event data {condition}; its keys are joined \
         by dots, such as `{not}{DATA}loginMethod=passkey`."
    );
    let pattern = format!(
        r"^{}{}[^.]+(\.[^.]+){{0,7}}$",
        not.replace('.', r"\."),
        r"data\."
    );
    json!({
        "name": name,
        "in": "query",
        "description": description,
        "style": "form",
        "explode": true,
        "schema": {
            "type": "object",
            "propertyNames": { "pattern": pattern },
            "additionalProperties": { "type": "string", "minLength": 1, "maxLength": MAX_CHARS },
        },
        // A page that makes an example up would send it.
        "example": {},
    })
}

/// Those of a page.
pub(super) fn of_page(max_offset: u64) -> Vec<Value> {
    let cursor = "`nextCursor` or `prevCursor` of an answer, with the filter it was given for; \
        then without `offset` and `asOf`";
    vec![
        order(),
        number(
            "limit",
            "events on the page",
            (*LIMITS.start(), *LIMITS.end()),
            DEFAULT_LIMIT,
        ),
        number(
            "offset",
            "events to skip; deeper, use the cursor",
            (0, max_offset),
            0,
        ),
        text("cursor", cursor),
        as_of(),
    ]
}

/// Those of a chart.
pub(super) fn of_stats() -> Vec<Value> {
    let top = number(
        "top",
        "most values that are told apart",
        (1, MAX_TOP),
        DEFAULT_TOP,
    );
    vec![
        word(
            "bucket",
            "length of a stretch",
            &Bucket::ALL.map(Bucket::as_str),
            Some("hour"),
        ),
        text(
            "timeZone",
            "time zone of the stretches, of the IANA database; UTC if not given",
        ),
        word(
            "by",
            "field whose values are counted",
            &By::ALL.map(By::as_str),
            None,
        ),
        top,
        as_of(),
    ]
}

/// Those of a file.
pub(super) fn of_export() -> Vec<Value> {
    let after = "goes on behind this position of the file of `asOf` that was cut: \
        `incarnation-partition-offset` of its last whole event";
    vec![
        word(
            "format",
            "what the file is written as",
            &Format::ALL.map(Format::name),
            Some("ndjson"),
        ),
        order(),
        as_of(),
        text("after", after),
    ]
}

/// Those of a live reader.
pub(super) fn of_tail() -> Vec<Value> {
    let last = "goes on behind the event with this id of the stream; the header `Last-Event-ID` \
        says the same";
    vec![as_of(), text("lastEventId", last)]
}

/// Those of the plugin, which clamps its numbers and is refused nothing.
pub(super) fn of_plugin(names: &[(&str, &str)]) -> Vec<Value> {
    let numbers = [
        ("limit", "events on the page, 1 to 100; 50 if not given"),
        ("offset", "events to skip"),
    ];
    let all = names.iter().chain(&numbers);
    all.map(|(name, description)| {
        json!({
            "name": name,
            "in": "query",
            "description": description,
            "schema": { "type": "string" },
        })
    })
    .collect()
}

/// The parameters as members of an object, for those that are posted.
pub(super) fn as_members(parameters: &[Value]) -> Map<String, Value> {
    let named = parameters.iter().filter_map(|parameter| {
        let (name, schema) = (parameter["name"].as_str()?, &parameter["schema"]);
        let mut member = match (name, schema["type"].as_str()?) {
            (_, "object") => places(),
            (_, "array") => or_null(&[schema["items"].clone(), schema.clone()]),
            ("from" | "to", _) => or_null(&[schema.clone(), json!({ "type": "integer" })]),
            _ => or_null(std::slice::from_ref(schema)),
        };
        member["description"] = if schema["type"] == "object" {
            "paths into the event data, and the values that are meant.".into()
        } else {
            parameter["description"].clone()
        };
        Some((name.to_owned(), member))
    });
    named.collect()
}

/// Places in the event data, as a member.
fn places() -> Value {
    let value = json!({ "anyOf": [
        { "type": "string", "minLength": 1, "maxLength": MAX_CHARS },
        { "type": ["number", "boolean"] },
    ]});
    let values = json!({ "type": "array", "items": value, "minItems": 1 });
    let places = json!({
        "type": "object",
        "propertyNames": { "pattern": r"^[^.]+(\.[^.]+){0,7}$" },
        "additionalProperties": or_null(&[value, values]),
    });
    or_null(&[places])
}

/// One of the schemas, or null.
pub(super) fn or_null(schemas: &[Value]) -> Value {
    let any = [schemas, &[json!({ "type": "null" })]].concat();
    json!({ "anyOf": any })
}

fn order() -> Value {
    word(
        "order",
        "newest or oldest first, by the time of creation",
        &Order::ALL.map(Order::as_str),
        Some("desc"),
    )
}

fn as_of() -> Value {
    text(
        "asOf",
        "`asOf` of an answer: asks the same set of events again",
    )
}

fn word(name: &str, description: &str, words: &[&str], default: Option<&str>) -> Value {
    let mut schema = json!({ "type": "string", "enum": words });
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn text(name: &str, description: &str) -> Value {
    let schema = json!({ "type": "string" });
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn number(name: &str, description: &str, (least, most): (u64, u64), default: u64) -> Value {
    let schema = json!({
        "type": "integer", "minimum": least, "maximum": most, "default": default,
    });
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}
