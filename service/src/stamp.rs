//! What tells one state of a file from another, for files that are read again when they change.
//!
//! They are looked at by their inode, size and time: no file-notification service works through
//! Kubernetes' mounts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How often such a file is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// One state of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The state of the file at `path`; none if there is no file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}
