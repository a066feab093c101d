//! The HTTP interface of a ClickHouse server over the engine library.
//!
//! A request holds one permit while it runs; its statement runs on a blocking thread and talks with the request through
//! bounded channels, so neither a slow client nor a slow engine makes the other grow.
//!
//! A reader that leaves has its query killed. A statement that writes runs to its end once all of it has arrived, as on a
//! server; an insert whose client leaves before stores nothing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::timeout;
use uuid::Uuid;

use super::exception::{Exception, TAG_HEADER};
use super::format::content_type;
use super::library::Engine;
use super::request::{Asked, Passwords, User};
use super::run::{self, Feed, Message, Outbox, STALLED, Task};
use super::statement::{Insert, Statement};

/// A statement's text may be this long; the rows of an insert do not count.
const MAX_SQL: usize = 1 << 20;
/// A form carries the statement and its parameters, which may be long lists.
const MAX_FORM: usize = 16 << 20;
/// How long a request waits for a permit.
const QUEUED: Duration = Duration::from_secs(10);
/// How long to wait for a killed query before killing it again: it may not have begun. Doubles up to [`KILL_RARELY`].
const KILL_AGAIN: Duration = Duration::from_millis(50);
const KILL_RARELY: Duration = Duration::from_secs(5);

/// What all requests share.
pub(crate) struct Server {
    pub(crate) engine: Arc<Engine>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) max_queries: usize,
    pub(crate) max_insert_bytes: u64,
    pub(crate) passwords: Passwords,
    pub(crate) time_zone: HeaderValue,
}

/// The routes of the interface.
pub(crate) fn router(server: Server) -> Router {
    Router::new()
        .route("/ping", get(|| async { "Ok.\n" }))
        .route("/", get(answer).post(answer))
        .with_state(Arc::new(server))
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let id = Uuid::now_v7().simple().to_string();
    let (parts, body) = request.into_parts();
    let asked = Asked::read(&parts.method, &parts.uri, &parts.headers);
    let query_id = asked.as_ref().ok().and_then(|a| a.query_id.clone());
    let answered = match asked {
        Ok(asked) => server.run(&parts.method, asked, body, &id).await,
        Err(exception) => Err(exception),
    };
    let mut response = answered.unwrap_or_else(|exception| {
        tracing::debug!(query.id = id, error = %exception, "query failed");
        exception.into_response()
    });
    let headers = response.headers_mut();
    let query_id = query_id.unwrap_or(id);
    for (name, value) in [
        ("x-clickhouse-query-id", HeaderValue::try_from(query_id)),
        (
            "x-clickhouse-server-display-name",
            Ok(HeaderValue::from_static("audit-local")),
        ),
        ("x-clickhouse-timezone", Ok(server.time_zone.clone())),
    ] {
        if let Ok(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

impl Server {
    async fn run(
        self: &Arc<Self>,
        method: &Method,
        mut asked: Asked,
        body: Body,
        id: &str,
    ) -> Result<Response, Exception> {
        if method != Method::POST && asked.query.is_empty() {
            return Ok("Ok.\n".into_response());
        }
        let user = asked.authenticate(&self.passwords)?;
        let mut body = Incoming::new(body);
        let mut sql = std::mem::take(&mut asked.query);
        if let Some(boundary) = asked.boundary.take() {
            let form = body.collect(MAX_FORM).await?;
            asked.take_form(&boundary, &form)?;
            sql.append(&mut asked.query);
        } else if !sql.is_empty() {
            sql.push(b'\n');
        }
        // An insert that stands in the URL begins at once; anything else may go on in the body.
        let statement = if let Some(insert) = Insert::find(&sql)? {
            Statement::Insert(insert)
        } else {
            body.read_up_to(MAX_SQL, &mut sql).await?;
            Statement::read(&sql)?
        };
        if user == User::Analyst && !statement.only_reads(&sql) {
            return Err(Exception::readonly("analyst"));
        }
        let mut rows = Vec::new();
        if let Statement::Insert(insert) = &statement {
            rows = sql.split_off(insert.rows_start);
            sql.truncate(insert.head_end);
        } else if !body.ended {
            return Err(Exception::syntax(
                "Max query size exceeded (1 MiB of statement)",
            ));
        }
        let log_comment = match asked.comment() {
            Some(comment) => format!("{id} {comment}"),
            None => id.to_owned(),
        };
        let task = Task {
            asked,
            sql,
            user,
            log_comment,
        };
        let permit = self.permit().await?;
        match statement {
            Statement::Insert(insert) => {
                self.insert(permit, task, insert.format, rows.into(), body)
                    .await
            }
            Statement::Query(format) => self.query(permit, task, format, true, id).await,
            Statement::Command(format) => self.query(permit, task, format, false, id).await,
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Exception> {
        let permit = timeout(QUEUED, Arc::clone(&self.permits).acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Exception::busy(self.max_queries)),
        }
    }

    async fn query(
        &self,
        permit: OwnedSemaphorePermit,
        task: Task,
        format: Option<String>,
        reads: bool,
        id: &str,
    ) -> Result<Response, Exception> {
        let format = format
            .or_else(|| task.asked.default_format.clone())
            .unwrap_or_else(|| "TabSeparated".to_owned());
        let (messages, mut inbox) = mpsc::channel(2);
        let outbox = Outbox {
            messages,
            runtime: Handle::current(),
        };
        let (running, ended) = std::sync::mpsc::channel::<()>();
        let mut leaving = Leaving(reads.then(|| Running {
            engine: Arc::clone(&self.engine),
            log_comment: task.log_comment.clone(),
            ended,
        }));
        let engine = Arc::clone(&self.engine);
        let output = format.clone();
        spawn_blocking(move || {
            run::query(&engine, &task, &output, reads, &outbox);
            drop((running, permit));
        });
        // The second half of the id is random.
        let tag: String = id.chars().skip(16).collect();
        let first = match inbox.recv().await {
            Some(Message::Rows(rows)) => Some(rows),
            Some(Message::End(rows, bytes)) => {
                leaving.stay();
                let mut response = Body::empty().into_response();
                set(&mut response, "x-clickhouse-summary", summary(rows, bytes));
                describe(&mut response, &format, &tag);
                return Ok(response);
            }
            Some(Message::Failed(exception)) => {
                leaving.stay();
                return Err(exception);
            }
            None => return Err(Exception::internal("the query ended without a word")),
        };
        let body = Body::from_stream(rows(first, inbox, leaving, tag.clone()));
        let mut response = body.into_response();
        describe(&mut response, &format, &tag);
        Ok(response)
    }

    async fn insert(
        &self,
        permit: OwnedSemaphorePermit,
        task: Task,
        format: String,
        first: Bytes,
        mut body: Incoming,
    ) -> Result<Response, Exception> {
        let (feed, rows) = mpsc::channel(4);
        let engine = Arc::clone(&self.engine);
        let inserting = spawn_blocking(move || {
            let written = run::insert(&engine, &task, &format, rows);
            drop(permit);
            written
        });
        let complete = body.feed(first, feed, self.max_insert_bytes).await;
        let written = inserting
            .await
            .map_err(|error| Exception::internal(&error.to_string()))?;
        // What kept us from feeding it is the cause, not that it was not fed.
        complete?;
        let (rows, bytes) = written?;
        let mut response = Body::empty().into_response();
        set(&mut response, "x-clickhouse-summary", summary(rows, bytes));
        Ok(response)
    }
}

/// A request's body, read at our pace.
struct Incoming {
    body: BodyDataStream,
    ended: bool,
}

impl Incoming {
    fn new(body: Body) -> Self {
        Self {
            body: body.into_data_stream(),
            ended: false,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Exception> {
        if self.ended {
            return Ok(None);
        }
        match timeout(STALLED, self.body.next()).await {
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => Err(Exception::internal(&format!(
                "the request broke off: {error}"
            ))),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(_) => Err(Exception::stalled()),
        }
    }

    async fn collect(&mut self, limit: usize) -> Result<BytesMut, Exception> {
        let mut collected = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            collected.extend_from_slice(&bytes);
            if collected.len() > limit {
                return Err(Exception::too_large(limit as u64));
            }
        }
        Ok(collected)
    }

    /// Reads on until `text` is longer than `limit` or the body ends.
    async fn read_up_to(&mut self, limit: usize, text: &mut Vec<u8>) -> Result<(), Exception> {
        while text.len() <= limit
            && let Some(bytes) = self.next().await?
        {
            text.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// Feeds `first` and all of the body to an insert. An insert that fails early still has the rest of its body read, or
    /// the client, busy sending, would see a broken connection instead of the error.
    async fn feed(
        &mut self,
        first: Bytes,
        feed: mpsc::Sender<Feed>,
        limit: u64,
    ) -> Result<(), Exception> {
        let mut bytes = first.len() as u64;
        let mut wanted = first.is_empty() || feed.send(Feed::Rows(first)).await.is_ok();
        loop {
            let rows = tokio::select! {
                rows = self.next() => rows?,
                () = feed.closed(), if wanted => {
                    wanted = false;
                    continue;
                }
            };
            let Some(rows) = rows else { break };
            bytes += rows.len() as u64;
            if bytes > limit {
                return Err(Exception::too_large(limit));
            }
            wanted = wanted && feed.send(Feed::Rows(rows)).await.is_ok();
        }
        if wanted && feed.send(Feed::End).await.is_err() {
            tracing::debug!("the insert failed before its end");
        }
        Ok(())
    }
}

/// The body of an answer: rows, and if the query fails half-way, a frame that says so and a broken connection.
fn rows(
    first: Option<Bytes>,
    inbox: mpsc::Receiver<Message>,
    leaving: Leaving,
    tag: String,
) -> impl stream::Stream<Item = std::io::Result<Bytes>> {
    let broken = || {
        Err(std::io::Error::other(
            "the query failed after its first rows",
        ))
    };
    let state = (first, inbox, leaving, false);
    stream::unfold(state, move |(first, mut inbox, mut leaving, failed)| {
        let tag = tag.clone();
        async move {
            if failed {
                yield_now().await;
                return Some((broken(), (None, inbox, leaving, true)));
            }
            let message = match first {
                Some(rows) => Some(Message::Rows(rows)),
                None => inbox.recv().await,
            };
            match message {
                Some(Message::Rows(rows)) => Some((Ok(rows), (None, inbox, leaving, false))),
                Some(Message::End(..)) => {
                    leaving.stay();
                    None
                }
                Some(Message::Failed(exception)) => {
                    leaving.stay();
                    // A body that is not ready makes the connection send what it holds. So the frame arrives on its own
                    // and is not lost when the connection breaks: clients look for it at the end of what they read.
                    yield_now().await;
                    let frame = Bytes::from(exception.frame(&tag));
                    Some((Ok(frame), (None, inbox, leaving, true)))
                }
                None => Some((broken(), (None, inbox, leaving, true))),
            }
        }
    })
}

/// Kills a query when its reader leaves: the request, or the body of its answer, is then dropped.
struct Leaving(Option<Running>);

struct Running {
    engine: Arc<Engine>,
    log_comment: String,
    /// Disconnected when the query has ended.
    ended: Receiver<()>,
}

impl Leaving {
    /// The query ended by itself.
    fn stay(&mut self) {
        self.0 = None;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let (Some(running), Ok(runtime)) = (self.0.take(), Handle::try_current()) else {
            return;
        };
        runtime.spawn_blocking(move || {
            let mut pause = KILL_AGAIN;
            loop {
                if let Err(exception) = run::kill(&running.engine, &running.log_comment) {
                    tracing::warn!(error = %exception, "cannot kill the query of a client that left");
                    return;
                }
                match running.ended.recv_timeout(pause) {
                    Err(RecvTimeoutError::Timeout) => pause = (2 * pause).min(KILL_RARELY),
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
    }
}

fn describe(response: &mut Response, format: &str, tag: &str) {
    let content = HeaderValue::from_static(content_type(format));
    response.headers_mut().insert(header::CONTENT_TYPE, content);
    set(response, "x-clickhouse-format", format.to_owned());
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(TAG_HEADER, tag);
    }
}

fn set(response: &mut Response, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, value);
    }
}

fn summary(written_rows: u64, written_bytes: u64) -> String {
    format!(
        r#"{{"read_rows":"0","read_bytes":"0","written_rows":"{written_rows}","written_bytes":"{written_bytes}","total_rows_to_read":"0","result_rows":"{written_rows}","result_bytes":"{written_bytes}"}}"#
    )
}
