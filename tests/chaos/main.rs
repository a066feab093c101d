//! `audit-chaos`: harm done to the whole stack by a schedule, and then the question whether every
//! event is stored exactly once.

mod compare;
mod field;
mod flow;
mod harm;
mod report;
mod schedule;
mod traffic;

use std::cell::Cell;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use audit_tests::process::root;
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::time::{interval, sleep_until};

use compare::compare;
use field::Field;
use flow::PARTITIONS;
use harm::Moment;
use report::{Done, Shown};
use schedule::{Step, apart, schedule};
use traffic::Traffic;

/// How long events are published after the last harm, to see them flow again.
const AFTERWARDS: Duration = Duration::from_secs(60);

/// How long the consumers may take to pass the end of every log once nothing is published.
const DRAIN: Duration = Duration::from_secs(120);

/// How long Kafka or ClickHouse may take to answer what is under way when harm has ended.
const ANSWERS: Duration = Duration::from_secs(60);

/// How often progress is reported, and how often it is looked at.
const REPORT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// How long the broker may take to say where its logs end.
const ANSWER: Duration = Duration::from_secs(10);

/// Does harm to the whole stack, and checks that every event is stored exactly once.
///
/// Starts a Kafka, a ClickHouse engine, two consumers, and between these and the engine an HTTP
/// proxy; publishes events at a steady rate, with garbage among them; kills and freezes processes,
/// breaks connections, forges answers and moves offsets by a schedule that depends on the seed and
/// the length alone and is printed first. Then it stops the harm, waits until everything is
/// counted (at most 2 minutes), and compares what Kafka acknowledged with what is stored.
///
/// Progress goes to stderr, one JSON document to stdout; it is kept with the logs of all processes
/// in target/chaos/SEED. The exit code is 0 if nothing is lost, nothing is there twice, every dead
/// letter is there, `audit-consumer verify` finds every offset once, and events flow again within a
/// minute of the last harm; otherwise 1.
///
/// In the document, `flow` is reached when an event published after a fault is readable, `full
/// flow` when one is in every partition. `alone` are the faults during which nothing else was
/// wrong.
#[derive(Debug, Parser)]
#[command(name = "audit-chaos", version)]
struct Arguments {
    /// Which schedule.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long harm is done; starting, draining and comparing take about a minute more.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// How many events are published a second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    rate: u64,
    /// Do one harm after the other, so many seconds apart, to see how long recovery takes from each.
    #[arg(long, value_name = "SECONDS")]
    apart: Option<u64>,
    /// Print the schedule and do nothing.
    #[arg(long)]
    schedule: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("audit-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let length = Duration::try_from_secs_f64(arguments.minutes * 60.0).context("--minutes")?;
    let steps = match arguments.apart {
        None => schedule(arguments.seed, length),
        Some(gap) => apart(arguments.seed, length, Duration::from_secs(gap)),
    };
    eprintln!("seed {}, {} steps:", arguments.seed, steps.len());
    for step in &steps {
        eprintln!("{step}");
    }
    if arguments.schedule {
        return Ok(true);
    }
    let logs = root().join("target/chaos").join(arguments.seed.to_string());
    if logs.exists() {
        std::fs::remove_dir_all(&logs)?;
    }
    std::fs::create_dir_all(&logs)?;
    eprintln!("logs: {}", logs.display());
    let log = File::create(logs.join("publishing.log"))?;
    tracing_subscriber::fmt()
        .with_writer(log)
        .with_ansi(false)
        .with_env_filter("warn,audit_producer=debug,rdkafka::client=off")
        .init();
    // One thread, the main one: what it starts dies with it.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(chaos(arguments, &steps, logs))
}

async fn chaos(arguments: &Arguments, steps: &[Step], logs: PathBuf) -> anyhow::Result<bool> {
    let field = Field::start(&logs).await?;
    let traffic = Traffic::begin(Arc::clone(&field.world), arguments.rate)?;
    let scene = Scene {
        field: &field,
        traffic: &traffic,
        start: Instant::now(),
    };
    let story = async {
        tokio::select! {
            // Does not end but with an error.
            failed = scene.progress() => failed,
            told = scene.story(steps) => told,
        }
    };
    let (told, ()) = tokio::try_join!(story, field.supervise())?;
    let start = scene.start;
    let books = traffic.end()?;
    let found = compare(&field.world, &books, &told.ends).await?;
    let shown = Shown {
        seed: arguments.seed,
        minutes: arguments.minutes,
        rate: arguments.rate,
        start,
        field: &field,
        books: &books,
        done: &told.done,
        found: &found,
        flowed_again: told.flowed_again,
        drained_after: told.drained_after,
    };
    let document = format!("{:#}", report::document(&shown));
    std::fs::write(field.world.logs().join("report.json"), &document)?;
    println!("{document}");
    eprintln!("{}", report::summary(&shown));
    Ok(shown.holds())
}

/// What happened, once it is over.
struct Told {
    done: Vec<Done>,
    /// Where the log of each partition ends.
    ends: Vec<i64>,
    /// Whether events flowed in every partition in time after the last harm.
    flowed_again: bool,
    /// How long counting took to pass these ends; `None` if it did not in time.
    drained_after: Option<Duration>,
}

/// What a run plays with.
struct Scene<'a> {
    field: &'a Field,
    traffic: &'a Traffic,
    start: Instant,
}

impl Scene<'_> {
    fn say(&self, what: &str) {
        eprintln!("{:>6.1} s  {what}", self.start.elapsed().as_secs_f64());
    }

    /// Harm, recovery, and the end.
    async fn story(&self, steps: &[Step]) -> anyhow::Result<Told> {
        let mut running: FuturesUnordered<_> = steps.iter().map(|step| self.one(*step)).collect();
        let mut marks = Vec::new();
        while let Some(done) = running.next().await {
            marks.push(done?);
        }
        self.field.proxy.pass();
        self.say("no more harm");
        let recovered = || self.traffic.books().flow.recovered();
        let flowed_again = self.within(AFTERWARDS, recovered).await;
        self.say(if flowed_again {
            "events flow in every partition"
        } else {
            "events do NOT flow in every partition"
        });
        self.traffic.stop_publishing();
        let answered = || self.traffic.books().ended;
        ensure!(
            self.within(2 * ANSWERS, answered).await,
            "the producers do not end"
        );
        let ends = self.ends()?;
        self.say("all is published");
        let drains = Instant::now();
        let drained = self
            .within(DRAIN, || self.traffic.books().flow.passed(&ends))
            .await;
        let drained_after = drained.then(|| drains.elapsed());
        self.say(if drained {
            "all is counted"
        } else {
            "NOT all is counted"
        });
        self.field.stop().await?;
        // What is still held back in the proxy may still do harm.
        let arrived = || self.field.proxy.under_way() == 0;
        ensure!(self.within(ANSWERS, arrived).await, "requests do not end");
        let books = self.traffic.books();
        let done = marks.iter().filter_map(|(step, [applied, lifted])| {
            let mark = |index: &usize| books.flow.marks().get(*index).copied();
            Some(Done {
                step: *step,
                applied: mark(applied)?,
                lifted: mark(lifted)?,
            })
        });
        Ok(Told {
            done: done.collect(),
            ends,
            flowed_again,
            drained_after,
        })
    }

    /// Does one step when it is time, and gives the numbers of its marks.
    async fn one(&self, step: Step) -> anyhow::Result<(Step, [usize; 2])> {
        sleep_until((self.start + step.at).into()).await;
        let marks = Cell::new([0, 0]);
        let mark = |moment| {
            let index = self.traffic.books().flow.mark(Instant::now());
            let [applied, _] = marks.get();
            match moment {
                Moment::Applied => marks.set([index, index]),
                Moment::Lifted => marks.set([applied, index]),
            }
            let consumer = step.consumer_alone().map_or(String::new(), |consumer| {
                format!(" (consumer {})", consumer + 1)
            });
            self.say(&format!("{moment:?}: {}{consumer}", step.kind));
        };
        let done = self.field.harm(step, &mark).await;
        done.with_context(|| format!("cannot do {}", step.kind))?;
        Ok((step, marks.get()))
    }

    /// Where the log of each partition ends.
    fn ends(&self) -> anyhow::Result<Vec<i64>> {
        let tool: BaseConsumer = self.field.world.kafka().create()?;
        let topic = &self.field.world.topic;
        let partitions = 0..i32::try_from(PARTITIONS)?;
        let end = |partition| Ok(tool.fetch_watermarks(topic, partition, ANSWER)?.1);
        partitions.map(end).collect()
    }

    /// Whether something comes true in time.
    async fn within(&self, limit: Duration, what: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut again = interval(LOOK);
        while !what() {
            if Instant::now() > deadline {
                return false;
            }
            again.tick().await;
        }
        true
    }

    /// Says how far it is, until publishing fails.
    async fn progress(&self) -> anyhow::Result<Told> {
        let mut again = interval(REPORT);
        again.tick().await;
        loop {
            again.tick().await;
            ensure!(!self.traffic.failed(), "publishing has ended");
            let line = {
                let books = self.traffic.books();
                format!(
                    "published {}, acknowledged {}, failed {}, readable {} records",
                    books.published,
                    books.acknowledged.len(),
                    books.unacknowledged.len(),
                    books.flow.readable_records(),
                )
            };
            self.say(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
