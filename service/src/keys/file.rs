//! The file of keys: what stands in it, and how it is read and replaced.
//!
//! A file that leaves it unclear who a key belongs to, which key is meant, or what a key may do is
//! refused as a whole, when it is read as when it is written: half of it would be a guess.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use audit_schema::ProjectId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{KeysError, Scope};

/// Longest id of an organization, in bytes.
const MAX_ORGANIZATION: usize = 256;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    #[serde(default)]
    pub(super) keys: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) project: ProjectId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) organization: Option<String>,
    pub(super) sha256: Hash,
    pub(super) scopes: Vec<Scope>,
    pub(super) created_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hash(pub(super) [u8; 32]);

impl Hash {
    pub(super) fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "sha256 must be 64 hexadecimal digits";
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(WRONG);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(pairs) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            let value = high
                .zip(low)
                .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
            *byte = value.ok_or(WRONG)?;
        }
        Ok(Self(hash))
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        use std::fmt::Write as _;
        hash.0
            .iter()
            .fold(Self::with_capacity(64), |mut text, byte| {
                // Writing into a text cannot fail.
                write!(text, "{byte:02x}").ok();
                text
            })
    }
}

impl KeyFile {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, KeysError> {
        let text = fs::read_to_string(path).map_err(|source| KeysError::File {
            path: path.to_owned(),
            verb: "read",
            source,
        })?;
        let not_understood = |reason| KeysError::NotUnderstood {
            path: path.to_owned(),
            reason,
        };
        // The parser's long form quotes the line, and with it a hash.
        let file: Self =
            toml::from_str(&text).map_err(|error| not_understood(error.message().to_owned()))?;
        file.check().map_err(not_understood)?;
        Ok(file)
    }

    /// Adds `entry` to the file at `path`, which is created if there is none. A reader sees the
    /// file before or after, never half of it.
    pub(super) fn append(path: &Path, entry: Entry) -> Result<(), KeysError> {
        let written = |source| KeysError::File {
            path: path.to_owned(),
            verb: "written",
            source,
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // Held until the end, so that two additions do not lose one.
        let folder = File::open(folder).map_err(written)?;
        folder.lock().map_err(written)?;
        let mut file = match Self::read(path) {
            Err(KeysError::File { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Self::default()
            }
            other => other?,
        };
        file.keys.push(entry);
        file.check().map_err(KeysError::Refused)?;
        let text = toml::to_string(&file).map_err(|error| KeysError::Refused(error.to_string()))?;

        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut new_file = options.open(&temporary).map_err(written)?;
        new_file.write_all(text.as_bytes()).map_err(written)?;
        new_file.sync_all().map_err(written)?;
        fs::rename(&temporary, path).map_err(written)?;
        folder.sync_all().map_err(written)
    }

    /// Refuses what would make it unclear who a key belongs to, which key is meant or what it may
    /// do.
    fn check(&self) -> Result<(), String> {
        for (place, entry) in self.keys.iter().enumerate() {
            entry.check()?;
            for other in self.keys.iter().take(place) {
                if other.sha256 == entry.sha256 {
                    return Err(format!(
                        "{:?} and {:?} are the same key",
                        other.name, entry.name
                    ));
                }
                if (&other.project, &other.name) == (&entry.project, &entry.name) {
                    return Err(format!(
                        "{} has two keys named {:?}",
                        entry.project, entry.name
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if name.is_empty() || self.scopes.is_empty() {
            return Err(format!("every key needs a name and a scope ({name:?})"));
        }
        let Some(organization) = &self.organization else {
            return Ok(());
        };
        if !(1..=MAX_ORGANIZATION).contains(&organization.len())
            || organization.chars().any(char::is_control)
        {
            return Err(format!(
                "the organization of {name:?} must be 1 to {MAX_ORGANIZATION} bytes without \
                 control characters"
            ));
        }
        if self.scopes.iter().any(|scope| *scope != Scope::Read) {
            return Err(format!(
                "{name:?} is restricted to an organization and may only have the scope read: \
                 what a key writes or changes is not held to one organization"
            ));
        }
        Ok(())
    }
}
