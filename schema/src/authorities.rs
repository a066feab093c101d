//! Whose certificates are taken for ClickHouse's, and the client that takes no others.
//!
//! An `https` address is never spoken to without TLS, nor with a certificate of another authority
//! or for another name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Client;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Deserializer};

/// How often a silent connection is asked whether it is still there, as in the client without TLS.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a connection is kept that nobody uses, as in the client without TLS: ClickHouse closes
/// it after 3 s.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Authorities that were read from a file.
#[derive(Clone)]
pub struct Authorities {
    file: PathBuf,
    roots: Arc<RootCertStore>,
}

/// A file of authorities is no good.
#[derive(Debug, thiserror::Error)]
#[error("the authorities in {file} cannot be used: {reason}")]
pub struct AuthoritiesError {
    file: PathBuf,
    reason: String,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Authorities {
    /// Reads the certificates of `file`, which are PEM.
    pub fn read(file: &Path) -> Result<Self, AuthoritiesError> {
        let unusable = |reason: &dyn fmt::Display| AuthoritiesError {
            file: file.to_owned(),
            reason: reason.to_string(),
        };
        let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&pem) {
            let authority = authority.map_err(|error| unusable(&error))?;
            roots.add(authority).map_err(|error| unusable(&error))?;
        }
        if roots.is_empty() {
            return Err(unusable(&"it has no certificate in PEM"));
        }
        Ok(Self {
            file: file.to_owned(),
            roots: Arc::new(roots),
        })
    }

    /// Reads a setting that names their file; none if it is empty.
    pub fn named<'de, D: Deserializer<'de>>(setting: D) -> Result<Option<Self>, D::Error> {
        let file = PathBuf::deserialize(setting)?;
        if file.as_os_str().is_empty() {
            return Ok(None);
        }
        Self::read(&file)
            .map(Some)
            .map_err(serde::de::Error::custom)
    }
}

/// Whether an address asks for TLS.
pub fn is_https(url: &str) -> bool {
    url.get(..8)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// A client for `url`, which is still to be told.
pub(crate) fn client(url: &str, authorities: Option<&Authorities>) -> Client {
    if !is_https(url) {
        return Client::default();
    }
    let roots = match authorities {
        Some(authorities) => Arc::clone(&authorities.roots),
        None => Arc::new(roots_of_the_system()),
    };
    let provider = Arc::new(ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = match versions {
        Ok(tls) => tls,
        Err(error) => unreachable!("the provider has both versions of TLS: {error}"),
    };
    let mut http = HttpConnector::new();
    http.set_keepalive(Some(TCP_KEEPALIVE));
    http.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls.with_root_certificates(roots).with_no_client_auth())
        .https_only()
        .enable_http1()
        .wrap_connector(http);
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .build(https);
    Client::with_http_client(http)
}

/// Whom the system trusts. Where it trusts nobody, no certificate is taken.
fn roots_of_the_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Systems have some that are of no use to anybody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_is_refused_by_name() {
        for (file, reason) in [
            ("/nowhere/ca.pem", "No such file"),
            ("/dev/null", "no certificate"),
        ] {
            let refusal = Authorities::read(Path::new(file))
                .err()
                .unwrap()
                .to_string();
            assert!(
                refusal.contains(file) && refusal.contains(reason),
                "{refusal}"
            );
        }
    }

    #[test]
    fn an_address_asks_for_tls_by_its_scheme() {
        assert!(is_https("https://clickhouse:8443") && is_https("HTTPS://clickhouse:8443"));
        assert!(!is_https("http://clickhouse:8123") && !is_https("https:") && !is_https(""));
        // What the system trusts is found, or nothing is: both make a client.
        drop(client("https://clickhouse:8443", None));
    }
}
