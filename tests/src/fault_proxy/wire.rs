//! HTTP/1.1 as bytes: where a head and where a body ends, and nothing of what is in them changed.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Longest head, and longest line between chunks.
const LONGEST: usize = 4 << 20;

/// One connection, read by messages.
pub(super) struct Wire {
    pub(super) reader: Reader,
    pub(super) writer: OwnedWriteHalf,
}

/// The half that is read, with what was read too early.
pub(super) struct Reader {
    half: OwnedReadHalf,
    early: Vec<u8>,
}

/// A request's line and headers, or an answer's.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// As it came, with the empty line.
    pub(super) bytes: Vec<u8>,
    text: String,
}

/// How a body ends, and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// After so many bytes.
    Length(usize),
    /// After a chunk of no bytes.
    Chunked,
    /// With the connection.
    Connection,
    /// It has ended.
    Ended,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        let (half, writer) = stream.into_split();
        let early = Vec::new();
        Ok(Self {
            reader: Reader { half, early },
            writer,
        })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Breaks the connection off: the other side reads an error, not an end.
    pub(super) fn reset(self) {
        if let Ok(stream) = self.reader.half.reunite(self.writer) {
            // If it cannot be reset it is closed, which is as good as an end too early.
            stream.set_zero_linger().ok();
        }
    }
}

impl Reader {
    /// Reads what comes; `false` at the end. Nothing is lost when it is not waited for to the end.
    async fn more(&mut self) -> Result<bool> {
        Ok(self.half.read_buf(&mut self.early).await? > 0)
    }

    /// Waits until the other side has left.
    pub(super) async fn left(&mut self) {
        while let Ok(true) = self.more().await {
            if self.early.len() > LONGEST {
                return;
            }
        }
    }

    /// Everything up to and with `end`; `None` if the connection ends before its first byte.
    async fn until(&mut self, end: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut looked_at = 0;
        loop {
            let found = self
                .early
                .get(looked_at..)
                .and_then(|rest| rest.windows(end.len()).position(|window| window == end));
            if let Some(found) = found {
                let rest = self.early.split_off(looked_at + found + end.len());
                return Ok(Some(std::mem::replace(&mut self.early, rest)));
            }
            if self.early.len() > LONGEST {
                return Err(Error::new(ErrorKind::InvalidData, "a head without an end"));
            }
            looked_at = self.early.len().saturating_sub(end.len());
            if !self.more().await? {
                if self.early.is_empty() {
                    return Ok(None);
                }
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next head; `None` if there is none any more.
    pub(super) async fn head(&mut self) -> Result<Option<Head>> {
        let bytes = self.until(b"\r\n\r\n").await?;
        Ok(bytes.map(|bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Head { bytes, text }
        }))
    }

    async fn exactly(&mut self, bytes: usize) -> Result<Vec<u8>> {
        while self.early.len() < bytes {
            if !self.more().await? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.early.split_off(bytes);
        Ok(std::mem::replace(&mut self.early, rest))
    }

    /// The next bytes of `body` as they stand on the wire; `None` when it has ended.
    pub(super) async fn piece(&mut self, body: &mut Body) -> Result<Option<Vec<u8>>> {
        match *body {
            Body::Ended | Body::Length(0) => Ok(None),
            Body::Length(left) => {
                if self.early.is_empty() && !self.more().await? {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                let piece = self.exactly(self.early.len().min(left)).await?;
                *body = Body::Length(left - piece.len());
                Ok(Some(piece))
            }
            Body::Connection => {
                if self.early.is_empty() && !self.more().await? {
                    *body = Body::Ended;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.early)))
            }
            Body::Chunked => {
                let mut chunk = self.line().await?;
                let size = chunk_size(&chunk)?;
                if size > 0 {
                    chunk.append(&mut self.exactly(size + 2).await?);
                    return Ok(Some(chunk));
                }
                loop {
                    let mut trailer = self.line().await?;
                    let last = trailer == b"\r\n";
                    chunk.append(&mut trailer);
                    if last {
                        *body = Body::Ended;
                        return Ok(Some(chunk));
                    }
                }
            }
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>> {
        let line = self.until(b"\r\n").await?;
        line.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// All that is left of `body`.
    pub(super) async fn whole(&mut self, mut body: Body) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(mut piece) = self.piece(&mut body).await? {
            whole.append(&mut piece);
        }
        Ok(whole)
    }
}

fn chunk_size(line: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let digits = text.split([';', '\r']).next().unwrap_or_default();
    usize::from_str_radix(digits.trim(), 16)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "a chunk without a size"))
}

impl Head {
    fn first_line(&self) -> impl Iterator<Item = &str> {
        self.text.lines().next().unwrap_or_default().split(' ')
    }

    /// The method of a request.
    pub(super) fn method(&self) -> &str {
        self.first_line().next().unwrap_or_default()
    }

    /// The target of a request.
    pub(super) fn target(&self) -> &str {
        self.first_line().nth(1).unwrap_or_default()
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> u16 {
        self.target().parse().unwrap_or_default()
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then_some(value.trim())
        })
    }

    /// Whether the connection ends with this message.
    pub(super) fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// How the body of this request ends.
    pub(super) fn request_body(&self) -> Body {
        self.stated_body().unwrap_or(Body::Ended)
    }

    /// How the body of this answer ends.
    pub(super) fn answer_body(&self) -> Body {
        match self.status() {
            204 | 304 => Body::Ended,
            _ => self.stated_body().unwrap_or(Body::Connection),
        }
    }

    fn stated_body(&self) -> Option<Body> {
        if let Some(coding) = self.header("transfer-encoding") {
            return coding
                .eq_ignore_ascii_case("chunked")
                .then_some(Body::Chunked);
        }
        self.header("content-length")
            .and_then(|length| length.parse().ok())
            .map(Body::Length)
    }
}
