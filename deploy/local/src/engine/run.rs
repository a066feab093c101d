//! Runs one statement on a connection of its own, on a thread that may block.
//!
//! Promises: what is sent to [`Outbox`] ends with exactly one [`Message::End`] or [`Message::Failed`], unless the
//! reader left; rows that were not followed by [`Feed::End`] are not stored.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::analyst;
use super::exception::Exception;
use super::format::Shape;
use super::library::{Connection, Engine, RowStream, Rows};
use super::request::{Asked, User, quoted};

/// How long either side of a connection may stand still; the same as a server's `http_send_timeout`.
pub(crate) const STALLED: Duration = Duration::from_secs(30);

/// A statement with all that belongs to it.
pub(crate) struct Task {
    pub(crate) asked: Asked,
    pub(crate) sql: Vec<u8>,
    pub(crate) user: User,
    /// Tells the query from all others in `system.processes`: the library does not let us name it.
    pub(crate) log_comment: String,
}

impl Task {
    fn session<'e>(&self, engine: &'e Engine) -> Result<Connection<'e>, Exception> {
        let mut connection = engine.connect()?;
        if let Some(sql) = self.asked.use_statement() {
            connection.run(sql.as_bytes(), "Null", &[])?;
        }
        // Before what is asked for, which the profile's constraints then bind.
        if self.user == User::Analyst {
            connection.run(analyst::limits().as_bytes(), "Null", &[])?;
        }
        let sql = self.asked.set_statement(&self.log_comment);
        connection.run(sql.as_bytes(), "Null", &[])?;
        Ok(connection)
    }
}

/// What a running query tells.
pub(crate) enum Message {
    Rows(Bytes),
    /// All is told; rows and bytes written.
    End(u64, u64),
    Failed(Exception),
}

/// Where a query's messages go. Bounded, so a slow reader slows the query.
pub(crate) struct Outbox {
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) runtime: Handle,
}

impl Outbox {
    /// `false`: nobody reads any more.
    fn send(&self, message: Message) -> bool {
        let sent = tokio::time::timeout(STALLED, self.messages.send(message));
        matches!(self.runtime.block_on(sent), Ok(Ok(())))
    }
}

/// Runs a query or a command and sends all of its output.
pub(crate) fn query(engine: &Engine, task: &Task, format: &str, streams: bool, outbox: &Outbox) {
    let told = if streams && Shape::of(format) != Shape::Whole && !task.asked.whole {
        stream(engine, task, format, outbox)
    } else {
        whole(engine, task, format, outbox)
    };
    // The reader may be gone, and then there is nobody to tell.
    match told {
        Ok(last) => outbox.send(last),
        Err(exception) => outbox.send(Message::Failed(exception)),
    };
}

fn whole(
    engine: &Engine,
    task: &Task,
    format: &str,
    outbox: &Outbox,
) -> Result<Message, Exception> {
    let mut connection = task.session(engine)?;
    let rows = connection.run(&task.sql, format, &task.asked.parameters)?;
    let (written_rows, written_bytes) = rows.written();
    if !rows.as_ref().is_empty() {
        outbox.send(Message::Rows(Bytes::from_owner(rows)));
    }
    Ok(Message::End(written_rows, written_bytes))
}

fn stream(
    engine: &Engine,
    task: &Task,
    format: &str,
    outbox: &Outbox,
) -> Result<Message, Exception> {
    let shape = Shape::of(format);
    let mut connection = task.session(engine)?;
    let mut rows = connection.stream(&task.sql, format, &task.asked.parameters)?;
    // One piece is held back, so that a query that fails early fails with a status of its own.
    let mut held = rows.next()?.map(Bytes::from_owner);
    while let Some(piece) = held.take() {
        held = next(&mut rows, shape)?;
        if !outbox.send(Message::Rows(piece)) {
            break;
        }
    }
    Ok(Message::End(0, 0))
}

/// The next piece that has rows in it.
fn next(rows: &mut RowStream<'_>, shape: Shape) -> Result<Option<Bytes>, Exception> {
    while let Some(piece) = rows.next()? {
        let piece = shape.continued(Bytes::from_owner(piece));
        if !piece.is_empty() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// What is fed to a running insert.
pub(crate) enum Feed {
    Rows(Bytes),
    /// All rows are sent: store them.
    End,
}

/// Runs an insert whose rows come from `feed` and returns rows and bytes written.
pub(crate) fn insert(
    engine: &Engine,
    task: &Task,
    format: &str,
    mut feed: mpsc::Receiver<Feed>,
) -> Result<(u64, u64), Exception> {
    let mut connection = task.session(engine)?;
    let mut stream = connection.insert(&task.sql, format, &task.asked.parameters)?;
    loop {
        match feed.blocking_recv() {
            Some(Feed::Rows(rows)) if stream.append(&rows) => {}
            // All is here, or it failed and finishing it tells why.
            Some(Feed::Rows(_) | Feed::End) => {
                return stream.finish().map(|done| Rows::written(&done));
            }
            None => return Err(Exception::internal("the client left before the end")),
        }
    }
}

/// Stops every query with this `log_comment`.
pub(crate) fn kill(engine: &Engine, log_comment: &str) -> Result<(), Exception> {
    let condition = format!(
        "KILL QUERY WHERE Settings['log_comment'] = {} ASYNC",
        quoted(log_comment, '\'')
    );
    engine
        .connect()?
        .run(condition.as_bytes(), "Null", &[])
        .map(drop)
}

/// Stops every query there is but itself.
pub(crate) fn kill_all(engine: &Engine) -> Result<(), Exception> {
    let sql = "KILL QUERY WHERE Settings['log_comment'] != '' ASYNC";
    engine.connect()?.run(sql.as_bytes(), "Null", &[]).map(drop)
}
