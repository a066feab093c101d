//! Reading with nothing in memory: neither the engine's caches nor the system's.

use std::fs::OpenOptions;

use anyhow::Context;
use audit_tests::world::World;

/// Writing 3 here makes Linux forget the pages of files; only root may.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// The caches of the engine.
const CACHES: [&str; 6] = [
    "MARK CACHE",
    "PRIMARY INDEX CACHE",
    "UNCOMPRESSED CACHE",
    "INDEX MARK CACHE",
    "QUERY CONDITION CACHE",
    "TEXT INDEX CACHES",
];

/// What is forgotten, in words.
pub(crate) fn how() -> &'static str {
    if OpenOptions::new().write(true).open(DROP_CACHES).is_ok() {
        "caches of the engine and of the system dropped before each question"
    } else {
        "caches of the engine dropped before each question; only root may drop those of the system"
    }
}

/// Makes the engine forget what it has read, and the system, if it lets us.
pub(crate) async fn forget(world: &World) -> anyhow::Result<()> {
    for cache in CACHES {
        let drop = format!("SYSTEM DROP {cache}");
        world.sql(&drop).await.with_context(|| drop.clone())?;
    }
    match std::fs::write(DROP_CACHES, "3") {
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
            Err(error).context(DROP_CACHES)
        }
        _ => Ok(()),
    }
}
