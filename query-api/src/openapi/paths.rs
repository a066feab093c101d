//! The operations: what each takes and gives. An operation is called as its handler is.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value gives null for what it lacks, and what is written to is an object"
)]

use schemars::JsonSchema;
use schemars::generate::SchemaGenerator;
use serde_json::{Value, json};

use super::parameters as takes;
use crate::audit_logs::AuditLogs;
use crate::better_auth::PluginEvents;
use crate::event::AuditLog;
use crate::event_types::EventTypes;
use crate::stats::Stats;

/// The highest `offset` there may be, unless configured otherwise.
const MAX_OFFSET: u64 = 10_000;

/// All operations, by path.
pub(super) fn all(schemas: &mut SchemaGenerator) -> Value {
    let and = |more: Vec<Value>| [takes::references(), more].concat();
    let page = takes::of_page(MAX_OFFSET);
    let mut members = takes::as_members(&[takes::of_filter(), page.clone()].concat());
    let with = |name: &str, schema: &Value| json!({ "type": "object", "required": [name], "properties": { name: schema } });
    let user = with("id", &json!({ "type": "string", "minLength": 1 }));
    let session = with("user", &user);
    members.insert("user".to_owned(), takes::or_null(&[user]));
    members.insert("session".to_owned(), takes::or_null(&[session]));
    let question = json!({
        "type": "object",
        "properties": members,
        "additionalProperties": false,
        "examples": [{ "userId": ["u1", "u2"], "limit": 10 }],
    });
    json!({
        "/v1/audit-logs": { "get": operation(
            "list_audit_logs",
            "A page of events",
            &and(page),
            &timed(schemas),
        )},
        "/v1/audit-logs/query": { "post": with_body(operation(
            "query_audit_logs",
            "A page of events, asked for by an object: the parameters of the list as members, and \
             the objects `user` and `session` of an auth server (`userId` comes before `user.id` \
             before `session.user.id`)",
            &[],
            &timed(schemas),
        ), &question)},
        "/v1/audit-logs/export": { "get": operation(
            "export_audit_logs",
            "All events that match, as a file. Its last line (Parquet: its footer) says that it \
             is whole and how many events it has; without that it was cut, and goes on with \
             `asOf`, the answer's header `audit-as-of`, and `after`",
            &and(takes::of_export()),
            &file(),
        )},
        "/v1/audit-logs/tail": { "get": operation(
            "tail_audit_logs",
            "Events as they become readable, in the order in which they were logged, as \
             server-sent events; each is an event as the list has it",
            &and(takes::of_tail()),
            &text("text/event-stream", "Events without end."),
        )},
        "/v1/audit-logs/stats": { "get": operation(
            "count_audit_logs",
            "How many events there are in each stretch of time, from `from` (a day before `to` if \
             not given) to `to` (now), and of the most frequent values of a field",
            &and(takes::of_stats()),
            &answer::<Stats>(schemas),
        )},
        "/v1/audit-logs/{id}": { "get": operation(
            "get_audit_log",
            "One event",
            &[json!({
                "name": "id",
                "in": "path",
                "required": true,
                "description": "its id",
                "schema": { "type": "string", "format": "uuid" },
            })],
            &answer::<AuditLog<'_>>(schemas),
        )},
        "/v1/event-types": { "get": operation(
            "list_event_types",
            "The types of events there are names for; others may be sent, and are found by name",
            &[],
            &answer::<EventTypes>(schemas),
        )},
        "/events/user": { "get": plugin(operation(
            "list_user_events",
            "Events about a user",
            &takes::of_plugin(&[("userId", "the user; without it there are none")]),
            &answer::<PluginEvents<'_>>(schemas),
        ))},
        "/events/organization": { "get": plugin(operation(
            "list_organization_events",
            "Events about an organization",
            &takes::of_plugin(&[("organizationId", "the organization; without it there are none")]),
            &answer::<PluginEvents<'_>>(schemas),
        ))},
        "/events/activity": { "get": plugin(operation(
            "list_activity",
            "Events about several organizations",
            &takes::of_plugin(&[
                ("organizationIds", "the organizations, separated by commas; without one there are none"),
                ("userId", "the user it is about"),
                ("eventType", "what happened, by its documented or its wire name"),
                ("identifier", "e-mail address or name of the user it is about"),
            ]),
            &answer::<PluginEvents<'_>>(schemas),
        ))},
    })
}

fn operation(id: &str, summary: &str, parameters: &[Value], answered: &Value) -> Value {
    let refused = |description: &str| {
        json!({
            "description": description,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
        })
    };
    let mut operation = json!({
        "operationId": id,
        "summary": summary.split([',', '.', ';', ':']).next(),
        "description": format!("{summary}."),
        "tags": ["Audit logs"],
        "parameters": parameters,
        "responses": {
            "200": answered,
            "400": refused("A part of the request is wrong; the message names it."),
            "401": refused("There is no key, or nobody knows it."),
            "403": refused("The key may not read."),
            "414": { "description": "The address has more than 65534 bytes. No body says so." },
            "431": { "description": "The head of the request is too large. No body says so." },
            "422": refused("The query needs more time or memory than one request may."),
            "429": refused("The key, or all together, asked too often; again after `Retry-After`."),
            "503": refused("The events cannot be read at the moment; again after `Retry-After`."),
            "default": refused("Something else went wrong."),
        },
    });
    if id == "get_audit_log" {
        operation["responses"]["404"] = refused("There is no such event.");
    }
    operation
}

fn with_body(mut operation: Value, schema: &Value) -> Value {
    operation["requestBody"] = json!({
        "required": true,
        "content": { "application/json": { "schema": schema } },
    });
    operation
}

fn plugin(mut operation: Value) -> Value {
    operation["tags"] = json!(["Better Auth"]);
    operation
}

fn answer<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    json!({
        "description": "As asked.",
        "content": { "application/json": { "schema": schemas.subschema_for::<T>() } },
    })
}

/// A page of events, and where its time went.
fn timed(schemas: &mut SchemaGenerator) -> Value {
    let mut page = answer::<AuditLogs<'_>>(schemas);
    page["headers"] = json!({
        "server-timing": {
            "description": "How long the page took, and the total if it was counted, in milliseconds.",
            "schema": { "type": "string", "examples": ["page;dur=18.2, total;dur=9.7"] },
        },
    });
    page
}

fn text(media_type: &str, description: &str) -> Value {
    json!({
        "description": description,
        "content": { media_type: { "schema": { "type": "string" } } },
    })
}

fn file() -> Value {
    json!({
        "description": "The file.",
        "headers": {
            "audit-as-of": {
                "description": "The set of events that the file is of.",
                "schema": { "type": "string" },
            },
        },
        "content": {
            "application/x-ndjson": { "schema": { "type": "string" } },
            "text/csv": { "schema": { "type": "string" } },
            "application/vnd.apache.parquet": { "schema": { "type": "string", "format": "binary" } },
        },
    })
}
