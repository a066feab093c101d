//! The local broker as a process: it is ready when it says so, keeps its data, and never outlives what started it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use audit_local::child::Child;
use audit_local::data_folder;
use tokio::net::TcpStream;

/// The first start may have to fetch the jars.
const START: Duration = Duration::from_secs(600);
/// Nothing takes this long on any machine.
const LIMIT: Duration = Duration::from_secs(60);

fn broker(folder: &Path) -> anyhow::Result<Child> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache");
    let arguments = [
        "--port".as_ref(),
        "0".as_ref(),
        "--cache".as_ref(),
        cache.as_os_str(),
        "--data".as_ref(),
        folder.as_os_str(),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_audit-local"));
    Child::spawn(program, "kafka", arguments)
}

#[tokio::test]
async fn a_broker_keeps_its_identity_through_restarts_on_other_ports() -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let identity = folder.path().join("log/meta.properties");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut broker = broker(folder.path())?;
        let address = broker.ready(START).await?;
        TcpStream::connect(&address).await?;
        seen.push(std::fs::read_to_string(&identity)?);
        ensure!(broker.stop(LIMIT).await?.success());
        ensure!(TcpStream::connect(&address).await.is_err());
    }
    assert_eq!(seen.first(), seen.last());
    Ok(())
}

#[tokio::test]
async fn a_broker_dies_with_its_supervisor_even_at_kill_9() -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut supervisor = broker(folder.path())?;
    let address = supervisor.ready(START).await?;
    ensure!(data_folder::claim(folder.path()).is_err());
    supervisor.kill().await?;
    let begin = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(10));
    while TcpStream::connect(&address).await.is_ok() {
        ensure!(begin.elapsed() < LIMIT, "the broker is still there");
        again.tick().await;
    }
    Ok(())
}
