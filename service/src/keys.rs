//! API keys: a TOML file of projects and hashed keys.
//!
//! A key decides whose events are written and read. The file holds only SHA-256 hashes; a hash
//! without salt or stretching is enough, because a key is 256 random bits. A key of another origin
//! is taken as it is, if it has at least [`MIN_KEY_LEN`] characters. The file is replaced
//! atomically and read again when it changes, so a key works or stops working within seconds.
//!
//! A key may be restricted to one organization of its project. It reads only: who writes says
//! which organization an event is of, and could name another one.

mod file;

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_schema::ProjectId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::metrics;
use crate::reread::{self, Reread};
use file::{Entry, Hash, KeyFile};

/// Fewest characters of a key.
pub const MIN_KEY_LEN: usize = 32;

/// What a key may be used for. None includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Reporting events.
    Write,
    /// Reading events.
    Read,
    /// Changing what was stored, such as erasing personal data.
    Admin,
}

impl Scope {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Write, Self::Read, Self::Admin]
            .into_iter()
            .find(|scope| scope.as_str() == word)
            .ok_or_else(|| "a scope is write, read or admin".to_owned())
    }
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The project whose events it may touch.
    pub project: ProjectId,
    /// The one organization whose events it may read; all of the project if there is none.
    pub organization: Option<String>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The key's name in the file.
    pub key_name: String,
}

/// Why the file of keys is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read or written.
    #[error("the file of API keys {path} cannot be {verb}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It is not such a file.
    #[error("the file of API keys {path} is not understood: {reason}")]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot be added.
    #[error("the key is refused: {0}")]
    Refused(String),
}

/// The keys of one file; all clones see the same.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    path: Arc<Path>,
    entries: Arc<Reread<Vec<Entry>>>,
}

impl ApiKeys {
    /// Reads the keys of `path`.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let entries = Reread::open(&[path], || read(path))?;
        Ok(Self {
            path: path.into(),
            entries: Arc::new(entries),
        })
    }

    /// Whose key was presented; `None` if nobody's.
    ///
    /// Takes the same time wherever in the file the key stands.
    pub fn authenticate(&self, presented: &str) -> Option<Identity> {
        let hash = Hash::of(presented);
        let entries = self.entries.value();
        let mut place = u64::MAX;
        for (index, entry) in (0_u64..).zip(entries.iter()) {
            place.conditional_assign(&index, entry.sha256.0.ct_eq(&hash.0));
        }
        let entry = entries.get(usize::try_from(place).ok()?)?;
        Some(Identity {
            project: entry.project.clone(),
            organization: entry.organization.clone(),
            scopes: entry.scopes.clone(),
            key_name: entry.name.clone(),
        })
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.entries.value().len()
    }

    /// Reads the file again if it changed; says whether it did. A file that is no good is an
    /// error once, and the keys stay as they are.
    pub fn refresh(&self) -> Result<bool, KeysError> {
        let refreshed = self.entries.refresh(&[&self.path], || read(&self.path));
        if refreshed.is_err() {
            metrics::api_keys_stale(true);
        }
        refreshed
    }

    /// Looks at the file every second, for as long as the service lives.
    pub async fn watch(self) -> Result<(), KeysError> {
        let keys = self.clone();
        let tell = |refreshed: Result<bool, KeysError>| match refreshed {
            Ok(true) => tracing::info!(keys = self.count(), "api keys were read again"),
            Err(error) => {
                let reason = error.source().map(ToString::to_string);
                tracing::error!(%error, reason, "api keys stay as they were");
            }
            Ok(false) => {}
        };
        match reread::watch(move || keys.refresh(), tell).await {}
    }
}

fn read(path: &Path) -> Result<Vec<Entry>, KeysError> {
    let keys = KeyFile::read(path)?.keys;
    metrics::api_keys_stale(false);
    Ok(keys)
}

/// What a key is made for.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// Its name, the only one of its project.
    pub name: &'a str,
    /// What it may be used for; at least one.
    pub scopes: &'a [Scope],
    /// The one organization it reads; such a key has no scope but `read`.
    pub organization: Option<&'a str>,
}

/// Makes a key of 256 random bits, adds it to the file at `path`, and gives it: it cannot be shown
/// again. The file is created if there is none.
pub fn create_key(path: &Path, project: &ProjectId, grant: Grant<'_>) -> Result<String, KeysError> {
    let key = format!(
        "audit_{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
    );
    let Grant {
        name,
        scopes,
        organization,
    } = grant;
    let new = NewKey {
        name,
        scopes,
        organization,
        key: &key,
    };
    add_key(path, project, new)?;
    Ok(key)
}

/// A key to be added.
#[derive(Clone, Copy)]
pub struct NewKey<'a> {
    /// Its name, the only one of its project.
    pub name: &'a str,
    /// What it may be used for; at least one.
    pub scopes: &'a [Scope],
    /// The one organization it reads; such a key has no scope but `read`.
    pub organization: Option<&'a str>,
    /// The key itself; any text of at least [`MIN_KEY_LEN`] visible ASCII characters.
    pub key: &'a str,
}

/// Adds a given key to the file at `path`, which is created if there is none.
pub fn add_key(path: &Path, project: &ProjectId, new: NewKey<'_>) -> Result<(), KeysError> {
    if new.key.len() < MIN_KEY_LEN || !new.key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let least = format!("a key has {MIN_KEY_LEN} or more visible ASCII characters");
        return Err(KeysError::Refused(least));
    }
    let entry = Entry {
        name: new.name.to_owned(),
        project: project.clone(),
        organization: new.organization.map(ToOwned::to_owned),
        sha256: Hash::of(new.key),
        scopes: new.scopes.to_vec(),
        created_at: Utc::now().trunc_subsecs(0),
    };
    KeyFile::append(path, entry)
}

#[cfg(test)]
mod tests;
