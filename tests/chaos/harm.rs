//! How each kind of harm is done, and lifted again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use audit_tests::fault_proxy::{Fault, Mode};
use audit_tests::process::{Process, wait_until};
use audit_tests::world::World;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::{sleep, timeout};

use crate::field::{Field, GUEST};
use crate::flow::PARTITIONS;
use crate::schedule::{Kind, Step};

/// How long an answer that is to be lost is waited for before the engine is killed without it.
const LOSE: Duration = Duration::from_secs(2);

/// How much longer the proxy does harm when it has not done any.
const STRIKE: Duration = Duration::from_secs(8);

/// How long the group may take to be empty after its members were killed.
const EMPTY: Duration = Duration::from_secs(60);

/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A moment of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The harm is done, or begins.
    Applied,
    /// What was killed is started again, or what did harm has stopped.
    Lifted,
}

impl Field {
    /// Does the harm of `step` to its end.
    pub(crate) async fn harm(&self, step: Step, mark: &impl Fn(Moment)) -> anyhow::Result<()> {
        match step.kind {
            Kind::ConsumerKilled => self.kill_consumer(step, 1, mark).await?,
            Kind::ConsumerKilledAgainAndAgain => {
                self.kill_consumer(step, step.times, mark).await?;
            }
            Kind::EngineKilled => self.kill_servers(step, true, false, mark).await?,
            Kind::BrokerKilled => self.kill_servers(step, false, true, mark).await?,
            Kind::BrokerAndEngineKilled => self.kill_servers(step, true, true, mark).await?,
            Kind::EngineAndConsumerKilled => {
                let mut member = self.member(step.consumer).await?;
                self.kill(&mut member)?;
                self.kill_servers(step, true, false, mark).await?;
                self.join(&mut member)?;
            }
            Kind::ConsumerFrozen => {
                let mut member = self.member(step.consumer).await?;
                freeze(self.running(&mut member)?, step, mark).await?;
            }
            Kind::EngineFrozen => {
                freeze(self.engine.lock().await.process()?, step, mark).await?;
            }
            Kind::BrokerFrozen => {
                freeze(self.broker.lock().await.process()?, step, mark).await?;
            }
            Kind::MemberJoins => {
                let mut guest = self.member(GUEST).await?;
                self.join(&mut guest)?;
                mark(Moment::Applied);
                sleep(step.length).await;
                self.ask_to_stop(&mut guest).await?;
            }
            Kind::MemberLeaves => {
                let mut member = self.member(step.consumer).await?;
                mark(Moment::Applied);
                self.ask_to_stop(&mut member).await?;
                sleep(step.length).await;
                self.join(&mut member)?;
            }
            Kind::Answer500 => self.proxy_does(Mode::Answer500, step, mark).await,
            Kind::AnswerLost => self.proxy_does(Mode::LoseAnswer, step, mark).await,
            Kind::BodyCut => self.proxy_does(Mode::CutBody, step, mark).await,
            Kind::FalseOk => self.proxy_does(Mode::FalseOk, step, mark).await,
            Kind::Delayed => self.proxy_does(Mode::Delay(step.late), step, mark).await,
            Kind::Doubled => self.proxy_does(Mode::Twice, step, mark).await,
            Kind::TokensForgotten => self.forget_tokens(step, mark).await?,
            Kind::OffsetsDeleted => self.move_offsets(step, None, mark).await?,
            Kind::OffsetsToEarliest => {
                let to = Some(Offset::Beginning);
                self.move_offsets(step, to, mark).await?;
            }
            Kind::OffsetsToLatest => self.move_offsets(step, Some(Offset::End), mark).await?,
        }
        mark(Moment::Lifted);
        Ok(())
    }

    async fn kill_consumer(
        &self,
        step: Step,
        times: u32,
        mark: &impl Fn(Moment),
    ) -> anyhow::Result<()> {
        let mut member = self.member(step.consumer).await?;
        for time in 0..times {
            if time > 0 {
                // So long it works, or tries to.
                sleep(step.length).await;
            }
            self.kill(&mut member)?;
            if time == 0 {
                mark(Moment::Applied);
            }
            sleep(step.length / times).await;
            self.join(&mut member)?;
        }
        Ok(())
    }

    async fn kill_servers(
        &self,
        step: Step,
        engine: bool,
        broker: bool,
        mark: &impl Fn(Moment),
    ) -> anyhow::Result<()> {
        let mut engine = if engine {
            Some(self.engine.lock().await)
        } else {
            None
        };
        let mut broker = if broker {
            Some(self.broker.lock().await)
        } else {
            None
        };
        if let Some(engine) = &mut engine {
            engine.kill().await?;
            self.count(|tally| tally.engines_killed += 1);
        }
        if let Some(broker) = &mut broker {
            broker.kill().await?;
            self.count(|tally| tally.brokers_killed += 1);
        }
        mark(Moment::Applied);
        sleep(step.length).await;
        let mut servers: Vec<_> = engine.into_iter().chain(broker).collect();
        for server in &mut servers {
            server.start()?;
        }
        for server in &mut servers {
            server.ready().await?;
        }
        Ok(())
    }

    async fn proxy_does(&self, mode: Mode, step: Step, mark: &impl Fn(Moment)) {
        let before = self.proxy.struck();
        self.proxy.set(Fault::of(mode));
        mark(Moment::Applied);
        sleep(step.length).await;
        // Harm that nothing was done by is none; but when all stands still nothing will be.
        let struck = wait_until("an insert to be harmed", async || {
            Ok((self.proxy.struck() > before).then_some(()))
        });
        timeout(STRIKE, struck).await.ok();
        self.proxy.pass();
    }

    /// Between two attempts at an insert, the engine dies and forgets all tokens.
    async fn forget_tokens(&self, step: Step, mark: &impl Fn(Moment)) -> anyhow::Result<()> {
        let mut engine = self.engine.lock().await;
        let before = self.proxy.did().lost_answers;
        self.proxy.set(Fault::of(Mode::LoseAnswer));
        let lost = wait_until("an answer to be lost", async || {
            Ok((self.proxy.did().lost_answers > before).then_some(()))
        });
        // None may be under way.
        timeout(LOSE, lost).await.ok();
        engine.kill().await?;
        self.proxy.pass();
        self.count(|tally| tally.engines_killed += 1);
        mark(Moment::Applied);
        let forgotten = remove_token_logs(engine.data())?;
        ensure!(forgotten > 0, "the engine keeps no tokens where it did");
        sleep(step.length).await;
        engine.run().await
    }

    /// With no member in the group, its offsets are deleted or moved.
    async fn move_offsets(
        &self,
        step: Step,
        to: Option<Offset>,
        mark: &impl Fn(Moment),
    ) -> anyhow::Result<()> {
        let (mut members, mut gone) = (Vec::new(), Vec::new());
        for number in 0..=GUEST {
            members.push(self.member(number).await?);
        }
        // Nobody restarts the broker meanwhile.
        let broker = self.broker.lock().await;
        mark(Moment::Applied);
        for member in &mut members {
            gone.push(if step.killed {
                self.kill(member)?
            } else {
                self.ask_to_stop(member).await?
            });
        }
        let deadline = Instant::now() + EMPTY;
        while let Err(error) = move_group(&self.world, to).await {
            if Instant::now() > deadline {
                return Err(error.context("the group's offsets cannot be moved"));
            }
        }
        drop(broker);
        sleep(step.length).await;
        for (member, gone) in members.iter_mut().zip(gone) {
            if gone {
                self.join(member)?;
            }
        }
        Ok(())
    }
}

async fn freeze(process: &Process, step: Step, mark: &impl Fn(Moment)) -> anyhow::Result<()> {
    process.freeze()?;
    mark(Moment::Applied);
    sleep(step.length).await;
    process.thaw()
}

/// Removes what the engine whose data is in `folder` remembers of tokens; says of how many tables.
fn remove_token_logs(folder: &Path) -> anyhow::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == "deduplication_logs" {
            std::fs::remove_dir_all(entry.path())?;
            removed += 1;
        } else {
            removed += remove_token_logs(&entry.path())?;
        }
    }
    Ok(removed)
}

/// Deletes the group's offsets, or commits others, as an operator's tool does. An error while the
/// group has members.
async fn move_group(world: &World, to: Option<Offset>) -> anyhow::Result<()> {
    let (group, topic) = (world.topic.clone(), world.topic.clone());
    let Some(to) = to else {
        let admin: AdminClient<DefaultClientContext> = world.kafka().create()?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        for deleted in admin.delete_groups(&[&group], &options).await? {
            if let Err((_, code)) = deleted {
                bail!("{group} is not deleted: {code}");
            }
        }
        return Ok(());
    };
    let mut config = world.kafka();
    config.set("group.id", group);
    // The client waits for answers on its thread.
    let moved = tokio::task::spawn_blocking(move || {
        let tool: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(PARTITIONS)? {
            let (start, end) = tool.fetch_watermarks(&topic, partition, ANSWER)?;
            let at = if to == Offset::Beginning { start } else { end };
            list.add_partition_offset(&topic, partition, Offset::Offset(at))?;
        }
        tool.commit(&list, CommitMode::Sync)?;
        anyhow::Ok(())
    });
    moved.await?
}
