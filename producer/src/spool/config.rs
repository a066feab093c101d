//! Where the spool is and how durable, and why it cannot be used.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// The spool: where events wait that Kafka does not take in time.
///
/// ```
/// use audit_producer::{Fsync, SpoolConfig};
///
/// let config: SpoolConfig = toml::from_str(r#"
///     folder = "/var/lib/auth/spool"
///     fsync = "each"
/// "#)?;
/// assert_eq!(config.fsync, Fsync::Each);
/// assert_eq!(config.max_bytes, SpoolConfig::at("/var/lib/auth/spool").max_bytes);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// The folder, of one producer alone. It is made if there is none, readable to its owner only.
    pub folder: PathBuf,
    /// Most bytes of segments. Default: 1 GiB.
    #[serde(default = "max_bytes")]
    pub max_bytes: u64,
    /// When what was written is on the disk itself. Default: after at most one second.
    #[serde(default)]
    pub fsync: Fsync,
    /// How long Kafka may take to confirm an event before it is spooled, and its receipt resolves.
    /// Default: 1 s.
    #[serde(default = "after", with = "humantime_serde")]
    pub after: Duration,
    /// Most events a second that are read back when Kafka takes events again; from 1. Default:
    /// 20,000.
    #[serde(default = "drain_rate")]
    pub drain_rate: u32,
}

impl SpoolConfig {
    /// The defaults, in this folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            max_bytes: max_bytes(),
            fsync: Fsync::default(),
            after: after(),
            drain_rate: drain_rate(),
        }
    }
}

fn max_bytes() -> u64 {
    1 << 30
}

fn after() -> Duration {
    Duration::from_secs(1)
}

fn drain_rate() -> u32 {
    20_000
}

/// When the spool is synced to the disk.
///
/// What was spooled survives the death of the process (`kill -9` too) whatever this says. It says
/// what survives the loss of power, or of the kernel. As text: `each`, `never`, or a duration such
/// as `1s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Fsync {
    /// Before an event counts as spooled: all of them survive.
    Each,
    /// So long after the first write that was not synced: what was spooled before survives.
    Interval(Duration),
    /// When the kernel sees fit, some 30 s later: what was written until then survives.
    Never,
}

impl Default for Fsync {
    fn default() -> Self {
        Self::Interval(Duration::from_secs(1))
    }
}

impl TryFrom<String> for Fsync {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "each" => Ok(Self::Each),
            "never" => Ok(Self::Never),
            other => humantime_serde::re::humantime::parse_duration(other)
                .map(Self::Interval)
                .map_err(|_| {
                    format!("{other:?} is not `each`, `never` or a duration such as `1s`")
                }),
        }
    }
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Give every producer a folder of its own, or end the other one.
    #[error("the spool {} is in use: give each producer a folder of its own", .0.display())]
    InUse(PathBuf),
    /// Drain it with the release that wrote it, then start this one.
    #[error("{} has version {version} of the format, which is not known here", .file.display())]
    OtherVersion {
        /// The segment.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Mend the folder: its place, its rights, its disk.
    #[error("the spool {} cannot be used: {source}", .folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fsync(text: &str) -> Result<Fsync, String> {
        let text = format!("folder = 'f'\nfsync = '{text}'");
        toml::from_str::<SpoolConfig>(&text)
            .map(|config| config.fsync)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_policy_is_a_word_or_a_duration() {
        assert_eq!(fsync("each"), Ok(Fsync::Each));
        assert_eq!(fsync("never"), Ok(Fsync::Never));
        let interval = Fsync::Interval(Duration::from_millis(250));
        assert_eq!(fsync("250ms"), Ok(interval));
        let refused = fsync("often").unwrap_err();
        assert!(
            refused.contains("`each`, `never` or a duration"),
            "{refused}"
        );
    }

    #[test]
    fn only_the_folder_has_to_be_said_and_nothing_else_may_be() {
        let config: SpoolConfig = toml::from_str("folder = 'f'").unwrap();
        assert_eq!(config, SpoolConfig::at("f"));
        assert!(toml::from_str::<SpoolConfig>("").is_err());
        assert!(toml::from_str::<SpoolConfig>("folder = 'f'\nmax = 1").is_err());
    }
}
