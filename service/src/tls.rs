//! TLS of a listener: a certificate and its key from PEM files, which are read again when they
//! change.
//!
//! TLS 1.3 and 1.2, and nothing older. A file that is no good ends a start; later it changes
//! nothing, is logged once and told as a metric, and the certificate stays that was read last.
//! Connections go on with the certificate and the authority they began with.

mod own;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics;
use crate::reread::{self, Reread};
use crate::telemetry::with_causes;

pub(crate) use own::own_client;

/// The section `tls` of a listener's configuration. An empty file name is none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and those between it and its authority, as PEM; without it, no TLS.
    pub certificate: PathBuf,
    /// The key of the certificate, as PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The authorities of clients, as PEM: only who has a certificate of theirs gets in.
    pub client_ca: PathBuf,
    /// How long a client may take to agree on a connection.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
}

impl Tls {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// What is wrong with the section of this name.
    pub(crate) fn complaints(&self, section: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.is_on() == self.key.as_os_str().is_empty() {
            complaints.push(format!(
                "{section}.certificate and {section}.key must both be set, or neither"
            ));
        }
        if !self.is_on() && !self.client_ca.as_os_str().is_empty() {
            complaints.push(format!(
                "{section}.client_ca needs {section}.certificate: without TLS no client is asked"
            ));
        }
        if self.handshake_timeout.is_zero() {
            complaints.push(format!("{section}.handshake_timeout must not be 0"));
        }
        complaints
    }

    fn files(&self) -> [&Path; 3] {
        [&self.certificate, &self.key, &self.client_ca]
    }
}

/// Why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} of TLS cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has not what it should have.
    #[error("{path} has no {wanted} in PEM: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
        /// What there is instead.
        reason: String,
    },
    /// The key is not that of the certificate, or one of them is of no kind we know.
    #[error("the certificate {certificate} and the key {key} cannot be used together: {source}")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The service would not let itself in.
    #[error(
        "the authorities in {client_ca} admit no client with the service's own certificate \
         {certificate}, which is what a healthcheck shows"
    )]
    OwnRefused {
        /// The file of the authorities of clients.
        client_ca: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No client could be checked.
    #[error("the authorities in {path} cannot be used: {reason}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The certificate of one listener; all clones are the same.
#[derive(Clone)]
pub(crate) struct Certificate {
    /// The name of the listener in logs and metrics.
    listener: &'static str,
    tls: Arc<Tls>,
    server: Arc<Reread<ServerConfig>>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tls.fmt(f)
    }
}

impl Certificate {
    /// Reads the files of `tls`; none if the listener speaks no TLS.
    pub(crate) fn open(listener: &'static str, tls: &Tls) -> Result<Option<Self>, TlsError> {
        if !tls.is_on() {
            return Ok(None);
        }
        let server = Reread::open(&tls.files(), || read(listener, tls))?;
        Ok(Some(Self {
            listener,
            tls: Arc::new(tls.clone()),
            server: Arc::new(server),
        }))
    }

    /// Agrees with a client on a connection; none if it does not, or not in time.
    pub(crate) async fn accept<S>(&self, stream: S) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.server.value());
        let agreed = acceptor.accept(stream);
        match tokio::time::timeout(self.tls.handshake_timeout, agreed).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => {
                metrics::handshake_failed(self.listener, "refused");
                tracing::debug!(listener = self.listener, %error, "a TLS handshake failed");
            }
            Err(_) => {
                metrics::handshake_failed(self.listener, "slow");
                tracing::debug!(listener = self.listener, "a TLS handshake took too long");
            }
        }
        None
    }

    /// Reads the files again if one changed; says whether it did. Files that are no good are an
    /// error once, and the certificate stays as it is.
    pub(crate) fn refresh(&self) -> Result<bool, TlsError> {
        let read = || read(self.listener, &self.tls);
        let refreshed = self.server.refresh(&self.tls.files(), read);
        if refreshed.is_err() {
            metrics::certificate_stale(self.listener);
        }
        refreshed
    }

    /// Looks at the files every second.
    pub(crate) async fn watch(self) -> Infallible {
        let certificate = self.clone();
        let tell = |refreshed: Result<bool, TlsError>| {
            if let Err(error) = refreshed {
                tracing::error!(
                    listener = self.listener,
                    error = %with_causes(&error),
                    "the certificate stays as it was"
                );
            }
        };
        reread::watch(move || certificate.refresh(), tell).await
    }
}

/// What the files say.
fn read(listener: &'static str, tls: &Tls) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&tls.certificate)?;
    let expiry = first_expiry(&chain, &tls.certificate)?;
    let key = private_key(&tls.key)?;
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|source| pair(tls, source))?;
    let server = match clients(tls, provider)? {
        None => server.with_no_client_auth(),
        Some(clients) => server.with_client_cert_verifier(clients),
    };
    let mut server = server
        .with_single_cert(chain, key)
        .map_err(|source| pair(tls, source))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];

    metrics::certificate_read(listener, expiry);
    let expires = chrono::DateTime::from_timestamp(expiry, 0).map(|time| time.to_rfc3339());
    if expiry <= chrono::Utc::now().timestamp() {
        tracing::error!(listener, expires, "the certificate has expired");
    } else {
        tracing::info!(listener, expires, "the certificate was read");
    }
    Ok(server)
}

/// What checks the certificates of clients; none if they are not asked for one.
fn clients(
    tls: &Tls,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if tls.client_ca.as_os_str().is_empty() {
        return Ok(None);
    }
    let unusable = |reason: String| TlsError::ClientCa {
        path: tls.client_ca.clone(),
        reason,
    };
    let mut authorities = RootCertStore::empty();
    for authority in certificates(&tls.client_ca)? {
        let added = authorities.add(authority);
        added.map_err(|error| unusable(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    let verifier = verifier
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(Some(verifier))
}

fn pair(tls: &Tls, source: rustls::Error) -> TlsError {
    TlsError::Pair {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        source,
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

fn no_pem(path: &Path, wanted: &'static str, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem {
        path: path.to_owned(),
        wanted,
        reason: reason.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const WANTED: &str = "certificate";
    let found = CertificateDer::pem_slice_iter(&bytes(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| no_pem(path, WANTED, &error))?;
    if found.is_empty() {
        return Err(no_pem(path, WANTED, &"none was found"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&bytes(path)?)
        .map_err(|error| no_pem(path, "private key without a password", &error))
}

/// When the first certificate of the chain expires, in seconds since 1970.
fn first_expiry(chain: &[CertificateDer<'_>], path: &Path) -> Result<i64, TlsError> {
    let mut first = i64::MAX;
    for certificate in chain {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| no_pem(path, "certificate that can be read", &error))?;
        first = first.min(parsed.validity().not_after.timestamp());
    }
    Ok(first)
}

#[cfg(test)]
pub(crate) mod tests;
