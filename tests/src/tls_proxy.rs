//! TLS in front of a server that has none, as a load balancer or ClickHouse's own port 8443 has it.
//!
//! The proxy runs on a thread of its own and ends when it is dropped.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Pair;

/// A running proxy.
pub struct TlsProxy {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TlsProxy {
    /// Starts a proxy of the server at `upstream` that shows this certificate.
    pub fn start(upstream: &str, pair: &Pair) -> anyhow::Result<Self> {
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let serving = serve(
            listener,
            TlsAcceptor::from(Arc::new(tls)),
            upstream.to_owned(),
        );
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = serving => served.expect("a proxy"),
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            port,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where clients find it, under a name of its certificate.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the proxy was printed by its thread.
            thread.join().ok();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    upstream: String,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.context("a connection")?;
        let (tls, upstream) = (tls.clone(), upstream.clone());
        connections.spawn(async move {
            // What breaks here breaks for client and server, who tell of it.
            let Ok(mut client) = tls.accept(client).await else {
                return;
            };
            if let Ok(mut server) = TcpStream::connect(upstream).await {
                tokio::io::copy_bidirectional(&mut client, &mut server)
                    .await
                    .ok();
            }
        });
    }
}
