//! A proxy between clients and one broker that can hold back one offset commit: its sender loses
//! the connection and goes on over a new one, and the broker gets the commit when the test says so.
//!
//! The broker has to tell its clients the proxy's port (`audit-local kafka --advertise`), or they
//! would come to it directly.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, ensure};

/// The number of the request `OffsetCommit`.
const OFFSET_COMMIT: u16 = 8;

/// The first version of it whose answers end in empty lists of tags.
const TAGGED: u16 = 8;

/// How long the broker may take to answer what was held back.
const ANSWER: Duration = Duration::from_secs(20);

/// A running proxy. Its threads end with the connections they serve.
pub struct KafkaProxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the commit to hold back contains.
    wanted: Option<Vec<u8>>,
    held: Option<Held>,
}

/// A commit that was held back, and the way it has to go.
struct Held {
    frame: Vec<u8>,
    broker: TcpStream,
    answers: mpsc::Receiver<Vec<u8>>,
}

impl KafkaProxy {
    /// Starts a proxy of the broker at `upstream`, which need not be there yet.
    pub fn start(upstream: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let (serving, upstream) = (Arc::clone(&shared), upstream.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shared, upstream) = (Arc::clone(&serving), upstream.clone());
                std::thread::spawn(move || {
                    // What breaks here breaks for client and broker, who tell of it.
                    serve(&shared, client, &upstream).ok();
                });
            }
        });
        Ok(Self { port, shared })
    }

    /// Where clients find it.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// The port the broker has to tell.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Holds back the next offset commit that contains `text`, and cuts its connection.
    pub fn hold_commit(&self, text: &str) {
        self.shared.state().wanted = Some(text.as_bytes().to_vec());
    }

    /// Whether a commit is held back.
    pub fn holds(&self) -> bool {
        self.shared.state().held.is_some()
    }

    /// Sends on what is held back, over the connection it came for, and gives the broker's answer:
    /// 0, or the number of its error. Blocks.
    pub fn deliver(&self) -> anyhow::Result<i16> {
        let held = self.shared.state().held.take();
        let mut held = held.context("nothing is held back")?;
        write_frame(&mut held.broker, &held.frame)?;
        let version = number(&held.frame, 2).context("a version")?;
        let correlation = held.frame.get(4..8).context("a number")?.to_vec();
        loop {
            let answer = held.answers.recv_timeout(ANSWER)?;
            if !answer.starts_with(&correlation) {
                continue;
            }
            // Of one partition of one topic: its error is the last thing that is said.
            let tags = if version >= TAGGED { 3 } else { 0 };
            ensure!(answer.len() >= tags + 2, "a short answer: {answer:?}");
            let error = number(&answer, answer.len() - tags - 2).context("an error")?;
            return Ok(error.cast_signed());
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this request is the one to hold back; it is only once.
    fn is_wanted(&self, frame: &[u8]) -> bool {
        if number(frame, 0) != Some(OFFSET_COMMIT) {
            return false;
        }
        let wanted = &mut self.state().wanted;
        let found = wanted
            .as_ref()
            .is_some_and(|text| frame.windows(text.len()).any(|part| part == text));
        if found {
            *wanted = None;
        }
        found
    }
}

/// One client's connection: requests one way here, answers the other way on a thread of its own.
fn serve(shared: &Shared, mut client: TcpStream, upstream: &str) -> std::io::Result<()> {
    let mut broker = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut from_broker, mut to_client) = (broker.try_clone()?, client.try_clone()?);
    let (sender, answers) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(frame) = read_frame(&mut from_broker) {
            // A client that was cut off is answered nothing; whoever sends for it later is.
            if write_frame(&mut to_client, &frame).is_err() && sender.send(frame).is_err() {
                break;
            }
        }
        to_client.shutdown(Shutdown::Both).ok();
    });
    while let Ok(frame) = read_frame(&mut client) {
        if shared.is_wanted(&frame) {
            client.shutdown(Shutdown::Both)?;
            shared.state().held = Some(Held {
                frame,
                broker,
                answers,
            });
            return Ok(());
        }
        write_frame(&mut broker, &frame)?;
    }
    broker.shutdown(Shutdown::Both)
}

/// Reads one request or answer: its size, then what it is.
fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut frame = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> std::io::Result<()> {
    let size = u32::try_from(frame.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&size.to_be_bytes(), frame].concat())
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}
