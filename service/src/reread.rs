//! What files say, for files that are read again when they change.
//!
//! They are looked at by their inode, size and time: no file-notification service works through
//! Kubernetes' mounts. Files that are no good are an error once, and what was read last stays.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::MissedTickBehavior;

/// How often such files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// One state of a file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The state of the file at `path`; none if there is no file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

fn stamps(files: &[&Path]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| Stamp::of(file)).collect()
}

/// What some files say.
#[derive(Debug)]
pub(crate) struct Reread<T> {
    read: ArcSwap<Read<T>>,
}

#[derive(Debug)]
struct Read<T> {
    value: Arc<T>,
    /// From before it was read: what changes meanwhile has changed.
    stamps: Vec<Option<Stamp>>,
}

impl<T> Reread<T> {
    /// Reads `files` for the first time.
    pub(crate) fn open<E>(files: &[&Path], read: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let stamps = stamps(files);
        let value = Arc::new(read()?);
        Ok(Self {
            read: ArcSwap::from_pointee(Read { value, stamps }),
        })
    }

    /// What they said when they were read last.
    pub(crate) fn value(&self) -> Arc<T> {
        Arc::clone(&self.read.load().value)
    }

    /// Reads them again if one changed; says whether it did.
    pub(crate) fn refresh<E>(
        &self,
        files: &[&Path],
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<bool, E> {
        let stamps = stamps(files);
        let before = self.read.load_full();
        if stamps == before.stamps {
            return Ok(false);
        }
        let (value, result) = match read() {
            Ok(value) => (Arc::new(value), Ok(true)),
            Err(error) => (Arc::clone(&before.value), Err(error)),
        };
        self.read.store(Arc::new(Read { value, stamps }));
        result
    }
}

/// Looks every second, on a thread that may wait for a disk, and tells what came of it.
pub(crate) async fn watch<E: Send + 'static>(
    look: impl Fn() -> Result<bool, E> + Clone + Send + 'static,
    tell: impl Fn(Result<bool, E>),
) -> Infallible {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Ok(refreshed) = tokio::task::spawn_blocking(look.clone()).await {
            tell(refreshed);
        }
    }
}
