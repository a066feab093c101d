//! Pages of other origins that may call an API from a browser.
//!
//! Origins are named one by one. All of them, `*`, is refused: a page of anybody could then use a
//! key that it got hold of, from the browsers and behind the firewalls of those who visit it. No
//! cookie is ever accepted; the key comes in a header.

use std::time::Duration;

use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, ORIGIN, RETRY_AFTER,
};
use axum::http::{Method, Uri};
use serde::{Deserialize, Deserializer};
use tower_http::cors::CorsLayer;

use super::REQUEST_ID;
use crate::rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY};

/// How long a browser may remember what it was allowed.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// What a page may send.
const METHODS: [Method; 2] = [Method::GET, Method::POST];
const SENT: [HeaderName; 6] = [
    HeaderName::from_static("x-api-key"),
    AUTHORIZATION,
    CONTENT_TYPE,
    REQUEST_ID,
    HeaderName::from_static("last-event-id"),
    IF_NONE_MATCH,
];

/// What a page may read of an answer, beside its body.
const READ: [HeaderName; 6] = [
    REQUEST_ID,
    RETRY_AFTER,
    RATE_LIMIT,
    RATE_LIMIT_POLICY,
    ETAG,
    HeaderName::from_static("audit-as-of"),
];

/// Allows pages of `origins` to call; without origins there is nothing to allow.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<_> = origins
        .iter()
        .filter(|origin| complaint(origin).is_none())
        .filter_map(|origin| HeaderValue::try_from(origin).ok())
        .collect();
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(METHODS)
        .allow_headers(SENT)
        .expose_headers(READ)
        .max_age(MAX_AGE)
        // All else is the same for every request.
        .vary([ORIGIN]);
    Some(layer)
}

/// A list, or a text with commas, which is all that the environment can say.
pub(super) fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "a list of origins, or a text of them with commas"
    )]
    enum Origins {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Origins::deserialize(deserializer)? {
        Origins::List(origins) => origins,
        Origins::Text(text) => {
            let origins = text.split(',').map(str::trim);
            let named = origins.filter(|origin| !origin.is_empty());
            named.map(str::to_owned).collect()
        }
    })
}

/// What is wrong with each of `origins`.
pub(super) fn complaints(origins: &[String]) -> impl Iterator<Item = String> {
    origins.iter().filter_map(|origin| complaint(origin))
}

fn complaint(origin: &str) -> Option<String> {
    if origin.contains('*') {
        return Some(format!(
            "http.cors_origins must name each origin, not {origin:?}: a key could then be used from \
             anybody's page"
        ));
    }
    (!is_origin(origin)).then(|| {
        format!(
            "http.cors_origins must be as browsers send them, such as https://app.example.com or \
             http://localhost:3000: in small letters, without a path, a slash at the end or the \
             usual port, not {origin:?}"
        )
    })
}

/// Whether `text` is an origin as a browser writes it: another way to write it would never match.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let usual_port = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let is_usual = |port| usual_port == Some(port);
    let as_sent = match authority.port_u16() {
        Some(port) if is_usual(port) => return false,
        Some(port) => format!("{scheme}://{}:{port}", authority.host()),
        None => format!("{scheme}://{}", authority.host()),
    };
    as_sent.to_ascii_lowercase() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_as_a_browser_writes_them() {
        for origin in [
            "https://app.example.com",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:3000",
            "capacitor://localhost",
        ] {
            assert_eq!(complaint(origin), None, "{origin}");
        }
        for wrong in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com?x",
            "https://app.example.com#x",
            "https://App.example.com",
            "HTTPS://app.example.com",
            "https://app.example.com:443",
            "https://app.example.com:",
            "https://ann@app.example.com",
            "https://app.example.com, https://b.example.com",
            "https://bücher.example",
        ] {
            let complaint = complaint(wrong).unwrap_or_default();
            assert!(complaint.contains(&format!("{wrong:?}")), "{wrong}");
        }
    }

    #[test]
    fn every_origin_at_once_is_refused_with_the_reason() {
        for all in ["*", "https://*.example.com"] {
            let complaint = complaint(all).unwrap_or_default();
            assert!(complaint.contains("from anybody's page"), "{complaint}");
        }
    }

    #[test]
    fn origins_are_a_list_or_a_text_with_commas() {
        #[derive(Deserialize)]
        struct Section {
            #[serde(deserialize_with = "origins")]
            cors_origins: Vec<String>,
        }
        let read = |value: &str| {
            let section = toml::from_str::<Section>(&format!("cors_origins = {value}"));
            section.unwrap().cors_origins
        };
        assert_eq!(read("['http://a', 'http://b']"), ["http://a", "http://b"]);
        assert_eq!(read("'http://a, http://b'"), ["http://a", "http://b"]);
        assert_eq!(read("''"), [""; 0]);
    }
}
