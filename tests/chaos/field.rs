//! The processes that harm is done to: started, watched, and started again.
//!
//! They are started from the main thread alone, because they die with the thread that starts them.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use audit_tests::fault_proxy::FaultProxy;
use audit_tests::process::Process;
use audit_tests::server::Server;
use audit_tests::world::World;
use rustix::process::Signal;
use tokio::sync::{Mutex, MutexGuard};

use crate::flow::PARTITIONS;
use crate::schedule::CONSUMERS;

/// The member that comes and goes.
pub(crate) const GUEST: usize = CONSUMERS;

/// As short as brokers take it: so much more can happen.
const SESSION: &str = "6s";

/// How often processes that ended are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long a consumer that ended by itself stays away, as with a supervisor.
const BACK_AFTER: Duration = Duration::from_secs(1);

/// A member of the consumer group.
#[derive(Default)]
pub(crate) struct Member {
    pub(crate) process: Option<Process>,
    /// When it was seen that it had ended by itself.
    ended: Option<Instant>,
}

/// What was done, and what happened by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) consumers_killed: usize,
    pub(crate) engines_killed: usize,
    pub(crate) brokers_killed: usize,
    /// Consumers that gave up and were started again.
    pub(crate) consumers_ended: usize,
    /// Consumers that did not end well when they were asked to.
    pub(crate) ended_badly: usize,
}

impl Tally {
    /// How many processes were killed.
    pub(crate) fn kills(&self) -> usize {
        self.consumers_killed + self.engines_killed + self.brokers_killed
    }
}

/// The stack of one run.
pub(crate) struct Field {
    pub(crate) world: Arc<World>,
    pub(crate) proxy: FaultProxy,
    pub(crate) engine: Mutex<Server>,
    pub(crate) broker: Mutex<Server>,
    members: [Mutex<Member>; CONSUMERS + 1],
    tally: RefCell<Tally>,
    over: Cell<bool>,
}

impl Field {
    /// Starts Kafka, the engine, the proxy before it, and the consumers behind that.
    pub(crate) async fn start(logs: &Path) -> anyhow::Result<Self> {
        let mut broker = Server::kafka(logs)?;
        let world = World::on([&broker.address(), ""], "chaos", logs.to_owned())?;
        world.run("audit-local", &["fetch"])?;
        let mut engine = Server::engine(&world)?;
        broker.start()?;
        engine.run().await?;
        broker.ready().await?;
        // We ask the engine itself; the consumers ask the proxy.
        world.use_engine(&engine.url());
        let proxy = FaultProxy::start(&engine.url())?;
        world.set("AUDIT_CONSUMER_CLICKHOUSE__URL", &proxy.url());
        world.set("AUDIT_CONSUMER_TOPIC__PARTITIONS", &PARTITIONS.to_string());
        world.set("AUDIT_CONSUMER_KAFKA__SESSION_TIMEOUT", SESSION);
        world.migrate()?;
        let field = Self {
            world: Arc::new(world),
            proxy,
            engine: Mutex::new(engine),
            broker: Mutex::new(broker),
            members: Default::default(),
            tally: RefCell::default(),
            over: Cell::new(false),
        };
        for number in 0..CONSUMERS {
            let mut member = field.member(number).await?;
            field.join(&mut member)?;
        }
        Ok(field)
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.borrow_mut());
    }

    /// A member, for one harm at a time.
    pub(crate) async fn member(&self, number: usize) -> anyhow::Result<MutexGuard<'_, Member>> {
        let member = self.members.get(number).context("a member")?;
        Ok(member.lock().await)
    }

    /// Starts a member, without waiting for anything.
    pub(crate) fn join(&self, member: &mut Member) -> anyhow::Result<()> {
        member.process = Some(self.world.start("audit-consumer")?);
        member.ended = None;
        Ok(())
    }

    /// The process of a member, started if it had ended by itself.
    pub(crate) fn running<'m>(&self, member: &'m mut Member) -> anyhow::Result<&'m Process> {
        let ended = member.process.as_mut().map(Process::ended).transpose()?;
        if ended.flatten().is_some() {
            self.join(member)?;
        }
        member.process.as_ref().context("a member that is there")
    }

    /// SIGKILL; whether there was something to kill.
    pub(crate) fn kill(&self, member: &mut Member) -> anyhow::Result<bool> {
        member.ended = None;
        let Some(mut process) = member.process.take() else {
            return Ok(false);
        };
        if process.ended()?.is_none() {
            process.kill()?;
            self.count(|tally| tally.consumers_killed += 1);
        }
        Ok(true)
    }

    /// SIGTERM; whether there was something to stop.
    pub(crate) async fn ask_to_stop(&self, member: &mut Member) -> anyhow::Result<bool> {
        member.ended = None;
        let Some(mut process) = member.process.take() else {
            return Ok(false);
        };
        // One that has ended by itself cannot be asked any more.
        if process.ended()?.is_none() && !process.stop(Signal::TERM).await.unwrap_or(false) {
            self.count(|tally| tally.ended_badly += 1);
        }
        Ok(true)
    }

    /// Starts again what ends by itself, until [`stop`](Self::stop). A consumer may give up, as
    /// when it is started and finds no Kafka; a server may not.
    pub(crate) async fn supervise(&self) -> anyhow::Result<()> {
        let mut again = tokio::time::interval(LOOK_AGAIN);
        while !self.over.get() {
            again.tick().await;
            // What is locked is under way of being harmed or mended.
            for member in &self.members {
                if let Ok(mut member) = member.try_lock() {
                    self.look_after(&mut member)?;
                }
            }
            for server in [&self.engine, &self.broker] {
                if let Ok(mut server) = server.try_lock()
                    && let Some(status) = server.process()?.ended()?
                {
                    bail!("a server ended by itself: {status}");
                }
            }
        }
        Ok(())
    }

    fn look_after(&self, member: &mut Member) -> anyhow::Result<()> {
        let Some(process) = &mut member.process else {
            return Ok(());
        };
        if process.ended()?.is_none() {
            return Ok(());
        }
        match member.ended {
            None => {
                self.count(|tally| tally.consumers_ended += 1);
                member.ended = Some(Instant::now());
            }
            Some(since) if since.elapsed() >= BACK_AFTER => self.join(member)?,
            Some(_) => {}
        }
        Ok(())
    }

    /// Asks all members to stop, and ends supervising.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        self.over.set(true);
        for number in 0..=GUEST {
            let mut member = self.member(number).await?;
            self.ask_to_stop(&mut member).await?;
        }
        Ok(())
    }
}
