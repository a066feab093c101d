//! What the tests stand on: keys, and settings that no test reaches by chance.

use std::time::Duration;

use audit_service::http::Http;
use audit_service::keys::{ApiKeys, NewKey, Scope, add_key};
use audit_service::tls::Tls;

/// The key of a reader of the project `acme`.
pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Readers of the project `acme`: name, organization and key of each.
pub(crate) fn readers(readers: &[(&str, Option<&str>, &str)]) -> ApiKeys {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    for (name, organization, key) in readers {
        let new = NewKey {
            name,
            scopes: &[Scope::Read],
            organization: *organization,
            key,
        };
        add_key(&path, &"acme".parse().unwrap(), new).unwrap();
    }
    ApiKeys::open(&path).unwrap()
}

pub(crate) fn settings() -> Http {
    Http {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Tls {
            handshake_timeout: Duration::from_secs(30),
            ..Tls::default()
        },
        max_connections: 100,
        max_requests: 100,
        max_body_bytes: 1_000,
        max_bodies_bytes: 100_000,
        body_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(30),
        stay_open: Duration::ZERO,
        cors_origins: Vec::new(),
        access_log: false,
    }
}
