//! Connections: how many there are, what ends one, and TLS around them.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::middleware::map_response;
use axum::response::Response;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::tls::Certificate;

/// How long a connection may take to send a request's head. This is also how long it may be idle,
/// so it is longer than the 60 s of common load balancers: a connection must not be closed under
/// a request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// How many files a service has open beside its connections, generously.
const OTHER_FILES: u64 = 1_000;

/// What connections may cost, how they end, and whether they are encrypted.
#[derive(Debug, Clone)]
pub struct Connections {
    /// Most that are open; further ones wait until one ends.
    pub max: usize,
    /// How long a client may read nothing of an answer before it is cut off.
    pub write_timeout: Duration,
    /// How long new connections and requests are still taken after `shutdown`: longer than
    /// whoever sends them here needs to notice.
    pub stay_open: Duration,
    /// Cancelled by [`serve`] when that time is over. An answer that streams without end has to
    /// watch it.
    pub closing: CancellationToken,
    /// With it, TLS.
    pub(crate) certificate: Option<Certificate>,
}

impl Connections {
    /// How addresses of the listener begin: `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        match self.certificate {
            Some(_) => "https",
            None => "http",
        }
    }
}

/// Serves `app` on `listener` until `shutdown`, and for `connections.stay_open` after it; then
/// finishes the requests that are under way. At most `connections.max` are open, those included
/// that still agree on TLS; further ones wait to be accepted.
///
/// Answers after `shutdown` say `connection: close`. So a client that keeps its connection finds
/// another instance for its next request, and sends none on a connection that is being closed.
pub async fn serve(
    mut listener: TcpListener,
    app: Router,
    connections: Connections,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let max = connections.max;
    allow_open_files(max);
    let mut open = JoinSet::new();
    let watching = watch(connections.certificate.clone());
    let last_call = async {
        shutdown.cancelled().await;
        tokio::time::sleep(connections.stay_open).await;
    };
    tokio::pin!(watching, last_call);
    let asked = shutdown.clone();
    let app = app.layer(map_response(move |mut answer: Response| {
        if asked.is_cancelled() {
            let headers = answer.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ready(answer)
    }));
    loop {
        tokio::select! {
            () = &mut last_call => break,
            (stream, _) = Listener::accept(&mut listener), if open.len() < max => {
                let (app, connections) = (app.clone(), connections.clone());
                open.spawn(connection(stream, app, connections));
            }
            Some(_) = open.join_next() => {}
            never = &mut watching => match never {},
        }
    }
    connections.closing.cancel();
    drop(listener);
    while open.join_next().await.is_some() {}
    Ok(())
}

async fn watch(certificate: Option<Certificate>) -> Infallible {
    match certificate {
        Some(certificate) => certificate.watch().await,
        None => std::future::pending().await,
    }
}

/// Raises the number of files that may be open, which connections are too, as far as we may.
fn allow_open_files(connections: usize) {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX);
    let needed = needed.saturating_add(OTHER_FILES);
    let allowed = getrlimit(Resource::Nofile);
    if allowed.current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = allowed.maximum.map_or(needed, |most| most.min(needed));
    let wished = Rlimit {
        current: Some(raised),
        ..allowed
    };
    if setrlimit(Resource::Nofile, wished).is_err() || raised < needed {
        tracing::warn!(
            needed,
            allowed = raised,
            "fewer files may be open than connections are allowed: raise the limit nofile, or \
             lower http.max_connections"
        );
    }
}

async fn connection(stream: TcpStream, app: Router, connections: Connections) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(connections.write_timeout));
    let stream = Box::pin(stream);
    let closing = connections.closing;
    let Some(certificate) = connections.certificate else {
        return answer(stream, app, closing).await;
    };
    tokio::select! {
        // It has asked nothing yet.
        () = closing.cancelled() => {}
        agreed = certificate.accept(stream) => {
            if let Some(stream) = agreed {
                answer(stream, app, closing).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: Router,
    closing: CancellationToken,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}
