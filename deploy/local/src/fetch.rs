//! Downloads what the stack runs on, once, into a cache folder: the engine library with npm, the broker's jars with Maven.
//!
//! Promises: what is in place is complete and is what the pinned files (`engine/`, `kafka/`) ask for; having it costs no
//! network and no time; processes that fetch at once download once.
//!
//! A download is named by the hash of its pinned files and moved into place when it is whole, so nothing half-done is
//! ever seen, and a changed pin is a new download. npm checks the pinned SHA-512, Maven the repository's checksums.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// A download: its name, what to tell about it, and its pinned files.
struct Download {
    name: &'static str,
    title: &'static str,
    pins: &'static [(&'static str, &'static str)],
}

const ENGINE: Download = Download {
    name: "clickhouse-engine",
    title: "the ClickHouse engine 26.7.3 (178 MB, 570 MB unpacked)",
    pins: &[
        ("package.json", include_str!("../engine/package.json")),
        (
            "package-lock.json",
            include_str!("../engine/package-lock.json"),
        ),
        // Keeps the lock file free of addresses, so that any registry serves.
        (".npmrc", include_str!("../engine/.npmrc")),
    ],
};

const KAFKA: Download = Download {
    name: "kafka",
    title: "Apache Kafka 4.4.0 (44 MB)",
    pins: &[("pom.xml", include_str!("../kafka/pom.xml"))],
};

/// Only a test of replicated tables needs it.
const ZOOKEEPER: Download = Download {
    name: "zookeeper",
    title: "Apache ZooKeeper 3.9.3 (13 MB)",
    pins: &[("pom.xml", include_str!("../zookeeper/pom.xml"))],
};

/// Fetches everything.
pub fn all(cache: &Path) -> anyhow::Result<()> {
    let library = engine_library(cache)?;
    tracing::info!("the ClickHouse engine is at {}", library.display());
    let jars = kafka_jars(cache)?;
    tracing::info!("the Kafka jars are at {}", jars.display());
    let jars = zookeeper_jars(cache)?;
    tracing::info!("the ZooKeeper jars are at {}", jars.display());
    Ok(())
}

/// The engine library, fetched if it is not there yet.
pub fn engine_library(cache: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        cfg!(all(
            target_os = "linux",
            target_arch = "x86_64",
            target_env = "gnu"
        )),
        "the embedded ClickHouse engine exists for Linux on x86-64 with glibc only: set AUDIT_CLICKHOUSE_URL to a ClickHouse server"
    );
    let folder = ENGINE.fetch(cache, |folder| {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        finish(
            npm.current_dir(folder),
            "npm is not installed: apt-get install nodejs npm (or set AUDIT_CLICKHOUSE_URL to a ClickHouse server)",
        )
    })?;
    Ok(folder.join("node_modules/@chdb/lib-linux-x64-gnu/libchdb.so"))
}

/// The folder of the broker's jars, fetched if they are not there yet.
pub fn kafka_jars(cache: &Path) -> anyhow::Result<PathBuf> {
    jars(&KAFKA, cache)
}

/// The folder of ZooKeeper's jars, fetched if they are not there yet.
pub fn zookeeper_jars(cache: &Path) -> anyhow::Result<PathBuf> {
    jars(&ZOOKEEPER, cache)
}

fn jars(download: &Download, cache: &Path) -> anyhow::Result<PathBuf> {
    let folder = download.fetch(cache, |folder| {
        let mut maven = Command::new("mvn");
        maven.args([
            "--quiet",
            "--batch-mode",
            "--strict-checksums",
            "dependency:copy-dependencies",
            "-DoutputDirectory=jars",
            "-DincludeScope=runtime",
        ]);
        finish(
            maven.current_dir(folder),
            "mvn is not installed: apt-get install openjdk-17-jdk-headless maven (or set AUDIT_KAFKA_BROKERS to a Kafka you have)",
        )
    })?;
    Ok(folder.join("jars"))
}

/// Refuses a machine without Java 17 or newer.
pub fn check_java() -> anyhow::Result<()> {
    const GET: &str =
        "apt-get install openjdk-17-jdk-headless (or set AUDIT_KAFKA_BROKERS to a Kafka you have)";
    let output = match Command::new("java").arg("-version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("java is not installed: {GET}")
        }
        output => output.context("cannot run java")?,
    };
    // openjdk version "17.0.15" 2025-04-15
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split('"').nth(1).unwrap_or_default();
    let major = version
        .split(['.', '-', '+'])
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    ensure!(
        major.is_some_and(|major| major >= 17),
        "Kafka needs Java 17 or newer, not {version:?}: {GET}"
    );
    Ok(())
}

impl Download {
    /// The finished download; `build` makes it in a folder that holds the pinned files.
    fn fetch(
        &self,
        cache: &Path,
        build: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<PathBuf> {
        let Self { name, title, pins } = self;
        let mut hash = Sha256::new();
        for (file, content) in *pins {
            hash.update(format!("{file}\0{content}\0"));
        }
        let hash = BASE64_URL_SAFE_NO_PAD.encode(hash.finalize());
        let hash: String = hash
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(12)
            .collect();
        let say = || format!("cannot use the cache folder {}", cache.display());
        let cache = std::path::absolute(cache).with_context(say)?;
        let finished = cache.join(format!("{name}-{hash}"));
        if finished.exists() {
            return Ok(finished);
        }
        std::fs::create_dir_all(&cache).with_context(say)?;
        let lock = File::create(cache.join(format!("{name}.lock"))).with_context(say)?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            tracing::info!("waiting for another process that fetches {title}");
            lock.lock().with_context(say)?;
        }
        if finished.exists() {
            return Ok(finished);
        }
        tracing::info!("fetching {title} …");
        // What a fetch that died left behind is ours to remove: we hold the lock.
        let partial = cache.join(format!("{name}.partial"));
        if partial.exists() {
            std::fs::remove_dir_all(&partial).with_context(say)?;
        }
        std::fs::create_dir(&partial).with_context(say)?;
        for (file, content) in *pins {
            std::fs::write(partial.join(file), content).with_context(say)?;
        }
        build(&partial).with_context(|| format!("cannot fetch {title}"))?;
        std::fs::rename(&partial, &finished).with_context(say)?;
        Ok(finished)
    }
}

/// Runs a tool to its end; `missing` says how to get it.
fn finish(command: &mut Command, missing: &'static str) -> anyhow::Result<()> {
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(missing),
        output => output.with_context(|| format!("cannot run {command:?}"))?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let tail: Vec<&str> = said.lines().rev().take(20).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    bail!(
        "{} ended with {}:\n{}",
        command.get_program().display(),
        output.status,
        tail.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: Download = Download {
        name: "test",
        title: "nothing",
        pins: &[("pin", "1")],
    };

    #[test]
    fn what_is_there_is_not_fetched_again() -> anyhow::Result<()> {
        let cache = tempfile::tempdir()?;
        let write = |folder: &Path| Ok(std::fs::write(folder.join("file"), "x")?);
        let first = TEST.fetch(cache.path(), write)?;
        assert_eq!(std::fs::read(first.join("file"))?, b"x");
        assert_eq!(TEST.fetch(cache.path(), |_| bail!("again"))?, first);
        Ok(())
    }

    #[test]
    fn a_fetch_that_failed_leaves_nothing_in_the_way() -> anyhow::Result<()> {
        let cache = tempfile::tempdir()?;
        assert!(TEST.fetch(cache.path(), |_| bail!("no network")).is_err());
        TEST.fetch(cache.path(), |folder| {
            ensure!(std::fs::read(folder.join("pin"))? == b"1");
            Ok(())
        })?;
        Ok(())
    }

    #[test]
    fn processes_that_fetch_at_once_download_once() -> anyhow::Result<()> {
        let cache = tempfile::tempdir()?;
        let builds = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let fetch = || {
                TEST.fetch(cache.path(), |_| {
                    builds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Ok(())
                })
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
            threads
                .into_iter()
                .all(|thread| matches!(thread.join(), Ok(Ok(_))))
                .then_some(())
                .context("a fetch failed")
        })?;
        assert_eq!(builds.into_inner(), 1);
        Ok(())
    }

    #[test]
    fn a_missing_tool_is_told_in_one_line() {
        let told = finish(
            &mut Command::new("no-such-tool"),
            "get it: apt-get install it",
        );
        assert_eq!(
            told.err().map(|error| error.to_string()),
            Some("get it: apt-get install it".to_owned())
        );
    }
}
