//! The document of this API, OpenAPI 3.1, and the page that shows it.
//!
//! Schemas are made from the types that are answered, and parameters from the table that reads
//! them, so neither can say something else than the code. `openapi.json` is the document as it was
//! last looked at; a test keeps it.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value gives null for what it lacks, and what is written to is an object"
)]

mod parameters;
mod paths;

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where the document is.
const DOCUMENT: &str = "/openapi.json";

/// Where the page is.
const PAGE: &str = "/docs";

/// The page loads nothing from anywhere else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     frame-ancestors 'none'",
);

/// The routes of the document and its page; they need no key.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = Router::from(SwaggerUi::new(PAGE).config(Config::from(DOCUMENT).use_base_layout()));
    Router::new()
        .route(DOCUMENT, get(get_document))
        .merge(page.layer(from_fn(with_policy)))
}

async fn with_policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// `GET /openapi.json`
async fn get_document(headers: HeaderMap) -> Response {
    static TEXT: LazyLock<(String, String)> = LazyLock::new(|| {
        let text = serde_json::to_string(&document()).unwrap_or_default();
        let hash = Sha256::digest(&text);
        let tag = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
        let tag = format!("\"{}\"", tag.collect::<String>());
        (text, tag)
    });
    let (text, tag) = &*TEXT;
    let kept = [
        (ETAG, tag.clone()),
        (CACHE_CONTROL, "public, max-age=300".to_owned()),
    ];
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|known| is_same(known.trim(), tag)));
    if known {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    (kept, [(CONTENT_TYPE, "application/json")], text.clone()).into_response()
}

/// Whether a tag that a client holds is `tag`, weak (RFC 9110, 13.1.2) or not.
fn is_same(known: &str, tag: &str) -> bool {
    known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
}

/// The document.
fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let paths = paths::all(&mut generator);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Audit log: query API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Reads of the audit log of auth servers.",
            "description": "A key sees the events of its project, or of one organization of it, \
                and nothing else. Conditions on different parameters are joined by and; several \
                values of one parameter mean any of them.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "apiKey": [] }, { "bearer": [] }],
        "tags": [
            { "name": "Audit logs", "description": "Events of a project." },
            { "name": "Better Auth", "description": "What the plugin `@better-auth/infra` reads." },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": { "type": "apiKey", "in": "header", "name": "x-api-key" },
                "bearer": { "type": "http", "scheme": "bearer" },
            },
            "parameters": parameters(),
            "schemas": schemas(generator),
        },
    })
}

/// The parameters that several operations have, by name.
fn parameters() -> Map<String, Value> {
    let named = parameters::of_filter().into_iter();
    named
        .filter_map(|parameter| Some((parameter["name"].as_str()?.to_owned(), parameter)))
        .collect()
}

fn schemas(mut generator: SchemaGenerator) -> Value {
    let mut schemas = Value::Object(generator.take_definitions(true));
    schemas["Error"] = json!({
        "description": "Why a request was not answered as asked.",
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "requestId"],
                "properties": {
                    "code": { "type": "string", "description": "For programs; it never changes." },
                    "message": { "type": "string", "description": "What to change." },
                    "requestId": { "type": "string" },
                },
            },
        },
    });
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

    #[test]
    fn the_document_is_the_one_that_was_looked_at() {
        let document = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
        if document != kept {
            let new = format!("{KEPT}.new");
            std::fs::write(&new, &document).unwrap();
            panic!("the document changed: look at it, then mv {new} {KEPT}");
        }
    }

    #[test]
    fn everything_that_is_referred_to_is_there() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"#/").skip(1) {
            let place = format!("/{}", reference.split('"').next().unwrap());
            assert!(document.pointer(&place).is_some(), "{place}");
        }
    }

    #[test]
    fn a_tag_that_is_held_is_recognized() {
        assert!(is_same("\"a\"", "\"a\"") && is_same("W/\"a\"", "\"a\"") && is_same("*", "\"a\""));
        assert!(!is_same("\"b\"", "\"a\"") && !is_same("a", "\"a\""));
    }
}
