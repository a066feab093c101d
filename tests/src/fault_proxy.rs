//! An HTTP proxy between a consumer and ClickHouse that does what a bad network and a bad load
//! balancer do, on demand and counted.
//!
//! ```no_run
//! # use audit_tests::fault_proxy::{Fault, FaultProxy, Mode};
//! # fn main() -> anyhow::Result<()> {
//! let proxy = FaultProxy::start("http://127.0.0.1:8123")?;
//! // Services are given `proxy.url()` instead of ClickHouse's own address.
//! proxy.set(Fault::of(Mode::LoseAnswer).times(1));
//! // … the next insert lands, and its answer does not; all others pass.
//! assert_eq!(proxy.did().lost_answers, 1);
//! # Ok(())
//! # }
//! ```
//!
//! A request is judged when its head has arrived: the [`Fault`] that is set then is done to it, to
//! its end, whatever is set later. Unless the fault says otherwise it is done to inserts of rows of
//! ours alone, told by the statement in the address, where the `clickhouse` crate puts it.
//!
//! What passes is streamed: ClickHouse sees a slow body as a slow body and a client that leaves as
//! one that leaves. All other modes take the whole request first, and then go on to their end also
//! when the client is gone. Each request has a connection of its own to ClickHouse, so a restart of
//! ClickHouse is seen as it would be without the proxy.
//!
//! The proxy runs on a thread of its own and ends when it is dropped; what is held then is lost.

mod wire;

#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use percent_encoding::percent_decode_str;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use wire::{Head, Wire};

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: it passes.
    Pass,
    /// It is answered 500 and not forwarded.
    Answer500,
    /// It is forwarded and answered, and then the client's connection is reset.
    LoseAnswer,
    /// Its head and half of its body are forwarded, then both connections break.
    CutBody,
    /// It is answered 200 and not forwarded.
    FalseOk,
    /// It is forwarded so much later.
    Delay(Duration),
    /// It is forwarded, and once it is answered forwarded again, as a balancer does that takes an
    /// answer for lost; the client gets the second answer.
    Twice,
    /// It is forwarded when [`FaultProxy::release`] is called.
    Hold,
}

/// A request, as far as it matters for what is done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST`, mostly.
    pub method: String,
    /// Path and query, decoded: the settings are in it, and of inserts the statement.
    pub target: String,
}

impl Request {
    fn of(head: &Head) -> Self {
        let spaced = head.target().replace('+', " ");
        Self {
            method: head.method().to_owned(),
            target: percent_decode_str(&spaced).decode_utf8_lossy().into_owned(),
        }
    }

    /// Whether it inserts into one of these tables.
    pub fn inserts_into(&self, tables: &[&str]) -> bool {
        self.target
            .split_once("INSERT INTO ")
            .is_some_and(|(_, rest)| {
                let words = |c: char| !c.is_ascii_alphanumeric() && c != '_';
                let table = rest.split(words).find(|word| !word.is_empty());
                table.is_some_and(|table| tables.contains(&table))
            })
    }
}

type Predicate = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// What is done, to which requests, and how often.
#[derive(Clone)]
pub struct Fault {
    mode: Mode,
    on: Predicate,
    left: Option<usize>,
}

impl Fault {
    /// `mode` for every insert of events or dead letters.
    pub fn of(mode: Mode) -> Self {
        let on = |request: &Request| request.inserts_into(&["audit_events", "audit_dead_letters"]);
        Self {
            mode,
            on: Arc::new(on),
            left: None,
        }
    }

    /// For these requests instead.
    #[must_use]
    pub fn on(mut self, on: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.on = Arc::new(on);
        self
    }

    /// For every request.
    #[must_use]
    pub fn on_all(self) -> Self {
        self.on(|_| true)
    }

    /// For the first `times` of them only; what comes after passes.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.left = Some(times);
        self
    }
}

/// What a proxy has done so far. Each counts when it is done, and before the client knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Did {
    /// Requests that passed and that ClickHouse began to answer.
    pub passed: usize,
    /// Requests answered 500 and not forwarded.
    pub answered_500: usize,
    /// Answers of ClickHouse that said "done" and were lost.
    pub lost_answers: usize,
    /// Bodies cut half way.
    pub cut_bodies: usize,
    /// Requests answered 200 and not forwarded.
    pub false_oks: usize,
    /// Requests forwarded late and answered, whether or not the client still waited.
    pub delayed: usize,
    /// Requests forwarded twice and answered twice.
    pub doubled: usize,
    /// Requests that were held, released, and answered, whether or not the client still waited.
    pub released: usize,
}

/// A running proxy.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// How often what is held was released.
    releases: watch::Sender<u64>,
}

struct State {
    upstream: String,
    fault: Fault,
    did: Did,
    struck: usize,
    held: usize,
    under_way: usize,
}

impl FaultProxy {
    /// Starts a proxy of the ClickHouse at `upstream`, such as `http://127.0.0.1:8123`.
    pub fn start(upstream: &str) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                upstream: authority(upstream),
                fault: Fault::of(Mode::Pass),
                did: Did::default(),
                struck: 0,
                held: 0,
                under_way: 0,
            }),
            releases: watch::Sender::new(0),
        });
        // Bound here, without a runtime: there may be one already on this thread.
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("fault proxy".to_owned())
            .spawn(move || {
                runtime
                    .block_on(accept(serving, listener, stopped))
                    .expect("a listener that the runtime takes");
            })
            .context("a thread for the proxy")?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Its address, for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forwards to another ClickHouse from now on.
    pub fn forward_to(&self, upstream: &str) {
        self.shared.state().upstream = authority(upstream);
    }

    /// Does this to the requests that arrive from now on.
    pub fn set(&self, fault: Fault) {
        self.shared.state().fault = fault;
    }

    /// Lets pass what arrives from now on. What is held stays held.
    pub fn pass(&self) {
        self.set(Fault::of(Mode::Pass));
    }

    /// Forwards what is held now. What arrives later is held again, if that is what is set.
    pub fn release(&self) {
        self.shared.releases.send_modify(|releases| *releases += 1);
    }

    /// What it has done so far.
    pub fn did(&self) -> Did {
        self.shared.state().did
    }

    /// How many requests it has begun to do something to, other than let them pass.
    pub fn struck(&self) -> usize {
        self.shared.state().struck
    }

    /// How many requests are held now; each of them is here whole.
    pub fn held(&self) -> usize {
        self.shared.state().held
    }

    /// How many requests have not ended: passing, late or held.
    pub fn under_way(&self) -> usize {
        self.shared.state().under_way
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the proxy was printed by its thread.
            thread.join().ok();
        }
    }
}

fn authority(url: &str) -> String {
    let url = url.strip_prefix("http://").unwrap_or(url);
    url.trim_end_matches('/').to_owned()
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done to this request.
    fn judge(&self, request: &Request) -> Mode {
        let state = &mut *self.state();
        let fault = &mut state.fault;
        if !(fault.on)(request) || fault.left == Some(0) {
            return Mode::Pass;
        }
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        state.struck += usize::from(fault.mode != Mode::Pass);
        fault.mode
    }

    async fn connect(&self) -> std::io::Result<Wire> {
        let upstream = self.state().upstream.clone();
        Wire::new(TcpStream::connect(upstream).await?)
    }

    /// Waits for a release of what is held now.
    async fn released(&self) {
        let mut releases = self.releases.subscribe();
        self.state().held += 1;
        // The sender is in `self`: it cannot be gone.
        releases.changed().await.ok();
        self.state().held -= 1;
    }
}

async fn accept(
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    mut stopped: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // What breaks here breaks for the client and for ClickHouse, who tell of it.
                    serve(&shared, stream).await.ok();
                });
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stopped => return Ok(()),
        }
    }
}

/// Counts a request as under way.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn begins(shared: &'a Shared) -> Self {
        shared.state().under_way += 1;
        Self(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

/// One client's connection, request by request.
async fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut client = Wire::new(stream)?;
    while let Some(head) = client.reader.head().await? {
        let _under_way = UnderWay::begins(shared);
        let last = head.closes();
        let mode = shared.judge(&Request::of(&head));
        let goes_on = if mode == Mode::Pass {
            pass(shared, &mut client, &head).await
        } else {
            let body = client.reader.whole(head.request_body()).await?;
            match harm(shared, mode, [&head.bytes, &body]).await {
                Ok(Some(answer)) => client.write(&answer.bytes).await.map(|()| !answer.closes),
                Ok(None) => Err(ErrorKind::ConnectionReset.into()),
                Err(error) => Err(error),
            }
        };
        match goes_on {
            Ok(true) if !last => {}
            Ok(_) => return Ok(()),
            Err(error) => {
                client.reset();
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Streams a request to ClickHouse and its answer back. Whether the connection can go on.
async fn pass(shared: &Shared, client: &mut Wire, head: &Head) -> std::io::Result<bool> {
    let mut upstream = shared.connect().await?;
    upstream.write(&head.bytes).await?;
    let mut body = head.request_body();
    while let Some(piece) = client.reader.piece(&mut body).await? {
        upstream.write(&piece).await?;
    }
    let Wire { reader, writer } = client;
    let answer = async {
        let head = upstream.reader.head().await?;
        let head = head.ok_or(ErrorKind::UnexpectedEof)?;
        shared.state().did.passed += 1;
        writer.write_all(&head.bytes).await?;
        let mut body = head.answer_body();
        let goes_on = !head.closes() && body != wire::Body::Connection;
        while let Some(piece) = upstream.reader.piece(&mut body).await? {
            writer.write_all(&piece).await?;
        }
        Ok(goes_on)
    };
    tokio::select! {
        goes_on = answer => goes_on,
        // A reader that leaves is seen to leave.
        () = reader.left() => Err(ErrorKind::ConnectionAborted.into()),
    }
}

/// An answer to a client.
struct Answer {
    bytes: Vec<u8>,
    status: u16,
    /// Whether the connection ends with it.
    closes: bool,
}

impl Answer {
    fn own(status: &str, body: &str) -> Self {
        let bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self {
            bytes: bytes.into_bytes(),
            status: 0,
            closes: false,
        }
    }
}

/// Does `mode` to a whole request. No answer: the client's connection is to be reset.
async fn harm(shared: &Shared, mode: Mode, request: [&[u8]; 2]) -> std::io::Result<Option<Answer>> {
    let (answer, count): (_, fn(&mut Did) -> &mut usize) = match mode {
        Mode::Pass => return forward(shared, request).await.map(Some),
        Mode::Answer500 => {
            let answer = Answer::own("500 Internal Server Error", "the balancer has a bad day\n");
            (Some(answer), |did| &mut did.answered_500)
        }
        Mode::FalseOk => (Some(Answer::own("200 OK", "")), |did| &mut did.false_oks),
        Mode::LoseAnswer => {
            let lost = forward(shared, request).await?;
            if lost.status != 200 {
                return Ok(None);
            }
            (None, |did| &mut did.lost_answers)
        }
        Mode::CutBody => {
            let [head, body] = request;
            let (half, _) = body.split_at(body.len() / 2);
            let mut upstream = shared.connect().await?;
            upstream.write(head).await?;
            upstream.write(half).await?;
            (None, |did| &mut did.cut_bodies)
        }
        Mode::Twice => {
            forward(shared, request).await?;
            let second = forward(shared, request).await?;
            (Some(second), |did| &mut did.doubled)
        }
        Mode::Delay(late) => {
            tokio::time::sleep(late).await;
            let answer = forward(shared, request).await?;
            (Some(answer), |did| &mut did.delayed)
        }
        Mode::Hold => {
            shared.released().await;
            let answer = forward(shared, request).await?;
            (Some(answer), |did| &mut did.released)
        }
    };
    *count(&mut shared.state().did) += 1;
    Ok(answer)
}

/// Sends a whole request to ClickHouse and takes its whole answer.
async fn forward(shared: &Shared, [head, body]: [&[u8]; 2]) -> std::io::Result<Answer> {
    let mut upstream = shared.connect().await?;
    upstream.write(head).await?;
    upstream.write(body).await?;
    let head = upstream.reader.head().await?;
    let head = head.ok_or(ErrorKind::UnexpectedEof)?;
    let body = head.answer_body();
    let closes = head.closes() || body == wire::Body::Connection;
    let status = head.status();
    let mut bytes = head.bytes;
    bytes.append(&mut upstream.reader.whole(body).await?);
    Ok(Answer {
        bytes,
        status,
        closes,
    })
}
