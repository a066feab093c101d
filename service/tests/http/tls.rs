//! The limits of connections hold with TLS: real sockets, real handshakes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use audit_service::http::{self, Http};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::stand::settings;

/// Long enough that only a broken test reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

const GREETING: &str = "GET /greeting HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// An API behind TLS.
struct Secured {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    shutdown: CancellationToken,
}

impl Secured {
    /// Serves `routes`; the certificate is its own authority.
    async fn serve(folder: &Path, change: impl FnOnce(&mut Http), routes: Router) -> Self {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut limits = Http {
            body_timeout: PATIENCE,
            request_timeout: PATIENCE,
            write_timeout: PATIENCE,
            ..settings()
        };
        limits.tls.certificate = folder.join("certificate.pem");
        limits.tls.key = folder.join("key.pem");
        limits.tls.handshake_timeout = PATIENCE;
        change(&mut limits);
        std::fs::write(&limits.tls.certificate, pair.cert.pem()).unwrap();
        std::fs::write(&limits.tls.key, pair.signing_key.serialize_pem()).unwrap();

        let listener = TcpListener::bind(limits.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (app, connections) = (http::finish(routes, &limits), limits.connections().unwrap());
        assert_eq!(connections.scheme(), "https");
        let serving = http::serve(listener, app, connections, shutdown.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        drop(tokio::spawn(serving));
        Self {
            address,
            certificate: CertificateDer::from_pem_slice(pair.cert.pem().as_bytes()).unwrap(),
            shutdown,
        }
    }

    async fn connect(&self, version: &'static SupportedProtocolVersion) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, stream);
        tokio::time::timeout(PATIENCE, connecting)
            .await
            .unwrap()
            .unwrap()
    }

    async fn ask(&self, version: &'static SupportedProtocolVersion) -> String {
        let mut stream = self.connect(version).await;
        stream.write_all(GREETING.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // It ends with a close_notify: without one this is an error.
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn greeting() -> Router {
    Router::new().route("/greeting", get("hello"))
}

#[tokio::test]
async fn requests_are_answered_over_both_versions_and_not_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    let secured = Secured::serve(folder.path(), |_| {}, greeting()).await;
    for version in [&TLS13, &TLS12] {
        let answer = secured.ask(version).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
            "{answer}"
        );
    }
    let mut plain = TcpStream::connect(secured.address).await.unwrap();
    plain.write_all(GREETING.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The end may be a reset: what was sent was not all read.
    drop(plain.read_to_end(&mut answer).await);
    assert!(!answer.windows(5).any(|word| word == b"hello"));
}

#[tokio::test]
async fn handshakes_that_never_end_keep_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let secured = Secured::serve(folder.path(), |_| {}, greeting()).await;
    let mut silent = Vec::new();
    // Fewer than the connections there may be.
    for _ in 0..90 {
        silent.push(TcpStream::connect(secured.address).await.unwrap());
    }
    assert!(secured.ask(&TLS13).await.ends_with("hello"));
    // Nor do they keep a service from stopping.
    secured.shutdown.cancel();
    for mut stream in silent {
        let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await;
        assert_eq!(ended.unwrap().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_leaves_its_place_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let one = |limits: &mut Http| {
        limits.max_connections = 1;
        limits.tls.handshake_timeout = Duration::from_millis(50);
    };
    let secured = Secured::serve(folder.path(), one, greeting()).await;
    let mut silent = TcpStream::connect(secured.address).await.unwrap();
    // Half of a record's head.
    silent.write_all(&[0x16, 3, 1]).await.unwrap();
    let waiting = TcpStream::connect(secured.address).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, silent.read(&mut [0])).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
    drop(waiting);
}

#[tokio::test]
async fn a_client_that_reads_nothing_over_tls_is_cut_off() {
    let (answering, mut answers) = mpsc::channel(1);
    let endless = get(async move || {
        answering.send(()).await.unwrap();
        let held = answering.clone();
        let chunks = futures_util::stream::repeat_with(move || {
            let _held = &held;
            Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16_384]))
        });
        Body::from_stream(chunks)
    });
    let folder = tempfile::tempdir().unwrap();
    let impatient = |limits: &mut Http| limits.write_timeout = Duration::from_millis(50);
    let routes = Router::new().route("/endless", endless);
    let secured = Secured::serve(folder.path(), impatient, routes).await;
    let mut client = secured.connect(&TLS13).await;
    let request = "GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(answers.recv().await, Some(()));
    // As without TLS: the service ends when its last connection has.
    secured.shutdown.cancel();
    let left = tokio::time::timeout(PATIENCE, answers.recv()).await;
    assert_eq!(left, Ok(None));
    drop(client);
}
