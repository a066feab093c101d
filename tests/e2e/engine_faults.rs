//! What a death of ClickHouse can leave behind in its folder, and a disk that is full.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};

use audit_tests::server::Server;
use audit_tests::world::World;

use crate::clickhouse_answers::{between, hold_an_insert};
use crate::deaths::own_engine;

/// What becomes of the consumer whose insert lands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It is killed before it knows, and a successor starts after the harm.
    Dies,
    /// It stands still, and after the harm finds the answer that all is well.
    StandsStill,
}

/// A table as it lies in the engine's folder.
struct Files {
    table: PathBuf,
    /// The part whose insert its owner does not know to have landed.
    part: String,
}

impl Files {
    fn log_of_tokens(&self) -> PathBuf {
        self.table.join("deduplication_logs")
    }

    /// Takes the part's lines out of the log of tokens.
    fn forget_token(&self) -> anyhow::Result<()> {
        let mut forgotten = 0;
        for file in std::fs::read_dir(self.log_of_tokens())? {
            let file = file?.path();
            let lines = std::fs::read_to_string(&file)?;
            let (own, others): (Vec<&str>, Vec<&str>) = lines
                .split_inclusive('\n')
                .partition(|line| line.contains(&self.part));
            forgotten += own.len();
            std::fs::write(&file, others.concat())?;
        }
        ensure!(forgotten == 1, "{forgotten} lines name {}", self.part);
        Ok(())
    }
}

/// An insert lands without its owner knowing, the engine is killed, and its files are harmed.
async fn harm(
    world: &World,
    owner: Owner,
    harm: fn(&Files) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut engine = own_engine(world).await?;
    world.migrate()?;
    let table = "SELECT data_paths[1] FROM system.tables WHERE name = 'audit_events' AND database = currentDatabase()";
    let table = PathBuf::from(world.sql(table).await?);
    // A merged part would hold more than the one insert.
    world.sql("SYSTEM STOP MERGES audit_events").await?;
    let proxy = between(world)?;
    world.set("AUDIT_CONSUMER_KAFKA__INSTANCE", "the-one");
    let mut consumer = world.consumer().await?;
    let mut ids = world.publish_of("somebody", 20).await?;
    world.holds_exactly(&ids).await?;

    ids.extend(hold_an_insert(world, &proxy).await?);
    match owner {
        Owner::Dies => consumer.kill()?,
        Owner::StandsStill => consumer.freeze()?,
    }
    proxy.release();
    world.stored(ids.len()).await?;
    let part = "SELECT DISTINCT _part FROM audit_events WHERE source_offset >= 20";
    let part = world.sql(part).await?;
    ensure!(!part.contains('\n'), "one part: {part}");
    engine.kill().await?;
    harm(&Files { table, part })?;
    engine.run().await?;

    let _consumer = match owner {
        Owner::Dies => world.consumer().await?,
        Owner::StandsStill => {
            consumer.thaw()?;
            consumer
        }
    };
    ids.extend(world.publish_of("somebody", 20).await?);
    world.ends_with(&ids).await
}

pub(crate) async fn a_log_of_tokens_taken_away_between_attempts_doubles_nothing(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let take_away = |files: &Files| Ok(std::fs::remove_dir_all(files.log_of_tokens())?);
    harm(&world, Owner::Dies, take_away).await
}

pub(crate) async fn a_part_whose_token_is_not_in_the_log_is_not_doubled(
    world: Arc<World>,
) -> anyhow::Result<()> {
    harm(&world, Owner::Dies, Files::forget_token).await
}

fn take_part_away(files: &Files) -> anyhow::Result<()> {
    Ok(std::fs::remove_dir_all(files.table.join(&files.part))?)
}

pub(crate) async fn a_part_that_is_gone_while_its_token_is_in_the_log_is_sent_again(
    world: Arc<World>,
) -> anyhow::Result<()> {
    harm(&world, Owner::Dies, take_part_away).await
}

pub(crate) async fn an_answered_part_that_is_gone_is_sent_again(
    world: Arc<World>,
) -> anyhow::Result<()> {
    harm(&world, Owner::StandsStill, take_part_away).await
}

/// What an engine on a small disk of its own is started by: its data lies on a file system in
/// memory that only the engine has, and that ends with it.
fn on_a_small_disk(data: &Path) -> Vec<String> {
    let mount = "mount -t tmpfs -o size=64m tmpfs \"$0\" && exec \"$@\"";
    ["unshare", "--mount", "--map-root-user", "sh", "-c", mount]
        .map(ToOwned::to_owned)
        .into_iter()
        .chain([data.display().to_string()])
        .collect()
}

pub(crate) async fn a_full_disk_stops_nothing_for_good(world: Arc<World>) -> anyhow::Result<()> {
    let mut engine = Server::engine(&world)?;
    engine.started_by = on_a_small_disk(engine.data());
    engine.run().await?;
    world.use_engine(&engine.url());
    world.migrate()?;
    let consumer = world.consumer().await?;
    let mut ids = world.publish(200).await?;
    world.holds_exactly(&ids).await?;

    // The disk as the engine sees it.
    let disk = PathBuf::from(format!(
        "/proc/{}/root",
        engine.process()?.id().as_raw_nonzero()
    ));
    let disk = disk.join(engine.data().strip_prefix("/")?);
    let filler = disk.join("filler");
    let full = std::fs::write(&filler, vec![0; 128 << 20]).unwrap_err();
    ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
    ids.extend(world.publish(200).await?);
    let noticed = |line: &str| line.contains("NOT_ENOUGH_SPACE").then_some(());
    consumer.says("that the disk is full", noticed).await?;
    let stored: usize = world
        .sql("SELECT count() FROM audit_events")
        .await?
        .parse()?;
    ensure!(stored < ids.len(), "nothing fits on a full disk");
    std::fs::remove_file(&filler).context("the filler")?;
    world.ends_with(&ids).await
}
