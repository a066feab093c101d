//! `/v1/event-types`: the types there are names for.

use audit_schema::{CATALOGUE, Category};
use axum::Json;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// Types that only the plugin or the audit log itself sends; they have no documented name.
const UNDOCUMENTED: [&str; 11] = [
    "user_sign_in_failed",
    "email_changed",
    "two_factor_enabled",
    "two_factor_disabled",
    "two_factor_verified",
    "security_check",
    "security_signal",
    "audit_events_lost",
    "audit_log_read",
    "audit_log_exported",
    "user_data_erased",
];

/// The types of events. Others may be sent, and are found by their name.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventTypes {
    event_types: Vec<NamedType>,
}

/// One type of event.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NamedType {
    /// The documented name, or the only one.
    name: &'static str,
    /// The name the plugin sends, where it is another one.
    wire_name: Option<&'static str>,
    /// The group it is documented under.
    #[schemars(with = "Option<String>")]
    category: Option<Category>,
}

/// `GET /v1/event-types`
pub(crate) async fn list_event_types() -> Response {
    let documented = CATALOGUE.iter().map(|entry| NamedType {
        name: entry.name,
        wire_name: entry.wire_name,
        category: Some(entry.category),
    });
    let others = UNDOCUMENTED.map(|name| NamedType {
        name,
        wire_name: None,
        category: None,
    });
    let event_types = documented.chain(others).collect();
    Json(EventTypes { event_types }).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_undocumented_type_is_in_the_catalogue() {
        for name in UNDOCUMENTED {
            assert_eq!(audit_schema::CatalogueEntry::named(name), None, "{name}");
        }
    }
}
