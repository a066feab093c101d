//! The tasks of a service, and how it stops.
//!
//! A service is asked to stop by a [`CancellationToken`] that is passed as an argument, never by
//! a global. A task that ends before it was asked to is a failure, even if it ends well: the
//! others are asked to stop, and the service ends with its error.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a task may fail with.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Why a service did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    /// A task failed.
    #[error("{task} failed: {source}")]
    Failed {
        /// Which one.
        task: &'static str,
        /// With what.
        source: Failure,
    },
    /// A task ended although nobody asked.
    #[error("{task} ended although nobody asked it to")]
    EndedUnasked {
        /// Which one.
        task: &'static str,
    },
    /// A task panicked.
    #[error("a task panicked")]
    Panicked(#[source] tokio::task::JoinError),
    /// Tasks were still busy when the time to stop was over.
    #[error("{tasks} tasks did not stop within {budget:?}")]
    OutOfTime {
        /// How many.
        tasks: usize,
        /// The time they had.
        budget: Duration,
    },
}

/// The tasks of one service. Dropping it aborts them.
#[derive(Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    workers: JoinSet<(&'static str, Result<(), Failure>)>,
    attendants: JoinSet<(&'static str, Result<(), Failure>)>,
}

impl Tasks {
    /// No tasks yet; `shutdown` is what asks them to stop.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            workers: JoinSet::new(),
            attendants: JoinSet::new(),
        }
    }

    /// Starts a task that does the service's work and ends when it was asked to stop.
    pub fn spawn<E: Into<Failure>>(
        &mut self,
        task: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.workers
            .spawn(async move { (task, work.await.map_err(Into::into)) });
    }

    /// Starts a task that never ends by itself, such as the admin port. It lives as long as the
    /// `Tasks` do, so that a service that is stopping can be watched.
    pub fn attend<E: Into<Failure>>(
        &mut self,
        task: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.attendants
            .spawn(async move { (task, work.await.map_err(Into::into)) });
    }

    /// Waits until all work has ended. From the moment the tasks are asked to stop they have
    /// `budget` left; the first error counts.
    pub async fn join(&mut self, budget: Duration) -> Result<(), TasksError> {
        let shutdown = self.shutdown.clone();
        let mut first_error = None;
        let out_of_time = async {
            shutdown.cancelled().await;
            tokio::time::sleep(budget).await;
        };
        tokio::pin!(out_of_time);
        loop {
            let ended = tokio::select! {
                ended = self.workers.join_next() => match ended {
                    Some(ended) => ended,
                    None => return first_error.map_or(Ok(()), Err),
                },
                Some(ended) = self.attendants.join_next() => ended,
                () = &mut out_of_time => {
                    let tasks = self.workers.len();
                    return Err(first_error.unwrap_or(TasksError::OutOfTime { tasks, budget }));
                }
            };
            let error = match ended {
                Ok((task, Err(source))) => TasksError::Failed { task, source },
                Ok((_, Ok(()))) if shutdown.is_cancelled() => continue,
                Ok((task, Ok(()))) => TasksError::EndedUnasked { task },
                Err(panic) => TasksError::Panicked(panic),
            };
            shutdown.cancel();
            first_error.get_or_insert(error);
        }
    }
}

/// Why a process ends badly.
#[derive(Debug, thiserror::Error)]
pub enum StopError<E: Error + 'static> {
    /// The service itself failed.
    #[error(transparent)]
    Service(E),
    /// The signals of the process cannot be listened to.
    #[error("signals cannot be listened to")]
    Signals(#[from] std::io::Error),
    /// It was asked to stop a second time.
    #[error("stopped at once by a second signal")]
    SecondSignal,
}

/// Runs a service until it ends. SIGTERM or SIGINT asks it to stop; a second one stops waiting.
///
/// That is always safe: what was not finished is done again at the next start.
pub async fn until_signal<E, F>(
    service: impl FnOnce(CancellationToken) -> F,
) -> Result<(), StopError<E>>
where
    E: Error + 'static,
    F: Future<Output = Result<(), E>>,
{
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let shutdown = CancellationToken::new();
    let running = service(shutdown.clone());
    tokio::pin!(running);
    loop {
        tokio::select! {
            ended = &mut running => return ended.map_err(StopError::Service),
            Some(()) = terminate.recv() => {}
            Some(()) = interrupt.recv() => {}
        }
        if shutdown.is_cancelled() {
            return Err(StopError::SecondSignal);
        }
        tracing::info!("asked to stop");
        shutdown.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const BUDGET: Duration = Duration::from_secs(5);

    async fn until(token: CancellationToken) -> io::Result<()> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn tasks_that_end_when_asked_end_well() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("work", until(shutdown.clone()));
        tasks.attend("admin", std::future::pending::<io::Result<()>>());
        shutdown.cancel();
        assert!(tasks.join(BUDGET).await.is_ok());
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_stops_the_others_and_is_the_error() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("steady", until(shutdown.clone()));
        tasks.spawn("hasty", async { io::Result::Ok(()) });
        let error = tasks.join(BUDGET).await.unwrap_err();
        assert!(
            matches!(error, TasksError::EndedUnasked { task: "hasty" }),
            "{error}"
        );
        assert!(shutdown.is_cancelled());
    }

    #[tokio::test]
    async fn an_attendant_that_fails_stops_the_service() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("steady", until(shutdown.clone()));
        tasks.attend("admin", async { Err::<(), _>(io::Error::other("no port")) });
        let error = tasks.join(BUDGET).await.unwrap_err();
        assert_eq!(error.to_string(), "admin failed: no port");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_in_time_is_an_error() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("stubborn", std::future::pending::<io::Result<()>>());
        shutdown.cancel();
        let error = tasks.join(BUDGET).await.unwrap_err();
        assert!(
            matches!(error, TasksError::OutOfTime { tasks: 1, .. }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("broken", async {
            if true {
                panic!("on purpose")
            } else {
                io::Result::Ok(())
            }
        });
        assert!(matches!(
            tasks.join(BUDGET).await,
            Err(TasksError::Panicked(_))
        ));
    }
}
