//! A data folder belongs to one process at a time.
//!
//! The engine and the broker each lock their files themselves, but say so in many lines of their own. This lock, taken
//! first, says it in one. It is the kernel's (`flock`): a process that dies leaves none behind.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Creates `folder` if need be and claims it; it is ours until the returned file is dropped.
pub fn claim(folder: &Path) -> anyhow::Result<(PathBuf, File)> {
    let say = || format!("cannot use the data folder {}", folder.display());
    std::fs::create_dir_all(folder).with_context(say)?;
    let folder = folder.canonicalize().with_context(say)?;
    let lock = File::create(folder.join("lock")).with_context(say)?;
    match lock.try_lock() {
        Ok(()) => Ok((folder, lock)),
        Err(TryLockError::WouldBlock) => bail!(
            "the data folder {} is in use by another running process",
            folder.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(say),
    }
}
