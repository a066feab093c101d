//! Asks the service of this machine whether it is ready.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Admin;
use crate::tls::{TlsError, own_client};

/// How long a service may take to accept, to agree on TLS, and to answer.
const PROBE: Duration = Duration::from_secs(4);

/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 4_096;

/// Why a service cannot be sent work.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// It does not run, listens elsewhere, or hangs.
    #[error("{url} does not answer: {source}")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// What came instead of an answer.
        source: io::Error,
    },
    /// It runs, and says why it is not ready.
    #[error("{url} says: {reason}")]
    NotReady {
        /// What was asked.
        url: String,
        /// What it answered.
        reason: String,
    },
    /// Its port speaks TLS, and by the files of `admin.tls` it cannot be asked.
    #[error("the admin port cannot be asked over TLS")]
    Tls(#[from] TlsError),
    /// Another certificate than that in the file.
    #[error(
        "{url} does not show the certificate of admin.tls.certificate: the service did not take it, \
         see its log, or something else listens there"
    )]
    OtherCertificate {
        /// What was asked.
        url: String,
    },
}

/// Asks the service whose admin port is `admin`, on this machine, whether it is ready. Takes 4
/// seconds at most.
///
/// With TLS it trusts the certificate in the file of `admin.tls.certificate`, and no authority.
/// With `admin.tls.client_ca` it shows that certificate, which has to be of one of these
/// authorities, and for use by clients.
pub async fn healthcheck(admin: &Admin) -> Result<(), HealthcheckError> {
    let mut address = admin.listen;
    match address {
        SocketAddr::V4(any) if any.ip().is_unspecified() => {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        SocketAddr::V6(any) if any.ip().is_unspecified() => {
            address.set_ip(Ipv6Addr::LOCALHOST.into());
        }
        _ => {}
    }
    let (scheme, tls) = if admin.tls.is_on() {
        ("https", Some(own_client(&admin.tls)?))
    } else {
        ("http", None)
    };
    let url = format!("{scheme}://{address}/readyz");
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let Some(client) = tls else {
            return answer_of(stream, address).await;
        };
        let name = ServerName::from(address.ip());
        let agreed = TlsConnector::from(Arc::new(client)).connect(name, stream);
        answer_of(agreed.await?, address).await
    };
    let answer = match tokio::time::timeout(PROBE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(source)) if is_other_certificate(&source) => {
            return Err(HealthcheckError::OtherCertificate { url });
        }
        Ok(Err(source)) => return Err(HealthcheckError::NoAnswer { url, source }),
        Err(late) => {
            let source = io::Error::from(late);
            return Err(HealthcheckError::NoAnswer { url, source });
        }
    };
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim());
    let reason = body.unwrap_or(&answer).to_owned();
    Err(HealthcheckError::NotReady { url, reason })
}

/// Whether a handshake failed because of what the service showed.
fn is_other_certificate(error: &io::Error) -> bool {
    let failed = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(failed, Some(rustls::Error::InvalidCertificate(_)))
}

async fn answer_of(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) -> io::Result<String> {
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests;
