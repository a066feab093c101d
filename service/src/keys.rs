//! API keys: a TOML file of projects and hashed keys.
//!
//! A key decides whose events are written and read. The file holds only SHA-256 hashes; a hash
//! without salt or stretching is enough, because a key is 256 random bits. A key of another origin
//! is taken as it is, if it has at least [`MIN_KEY_LEN`] characters. The file is replaced
//! atomically and read again when it changes, so a key works or stops working within seconds.

use std::error::Error as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use audit_schema::ProjectId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// Fewest characters of a key.
pub const MIN_KEY_LEN: usize = 32;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

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

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    keys: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    project: ProjectId,
    sha256: Hash,
    scopes: Vec<Scope>,
    created_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hash([u8; 32]);

impl Hash {
    fn of(key: &str) -> Self {
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

/// What tells one state of a file from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

#[derive(Debug)]
struct Loaded {
    entries: Vec<Entry>,
    stamp: Option<Stamp>,
}

/// The keys of one file; all clones see the same.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    path: Arc<Path>,
    loaded: Arc<ArcSwap<Loaded>>,
}

impl ApiKeys {
    /// Reads the keys of `path`.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let stamp = stamp(path);
        let loaded = Loaded {
            entries: read(path)?.keys,
            stamp,
        };
        Ok(Self {
            path: path.into(),
            loaded: Arc::new(ArcSwap::from_pointee(loaded)),
        })
    }

    /// Whose key was presented; `None` if nobody's.
    ///
    /// Takes the same time wherever in the file the key stands.
    pub fn authenticate(&self, presented: &str) -> Option<Identity> {
        let hash = Hash::of(presented);
        let loaded = self.loaded.load();
        let mut place = u64::MAX;
        for (index, entry) in (0_u64..).zip(&loaded.entries) {
            place.conditional_assign(&index, entry.sha256.0.ct_eq(&hash.0));
        }
        let entry = loaded.entries.get(usize::try_from(place).ok()?)?;
        Some(Identity {
            project: entry.project.clone(),
            scopes: entry.scopes.clone(),
            key_name: entry.name.clone(),
        })
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.loaded.load().entries.len()
    }

    /// Reads the file again if it changed; says whether it did. A file that is no good is an
    /// error once, and the keys stay as they are.
    pub fn refresh(&self) -> Result<bool, KeysError> {
        let current = stamp(&self.path);
        let loaded = self.loaded.load_full();
        if current == loaded.stamp {
            return Ok(false);
        }
        let (entries, result) = match read(&self.path) {
            Ok(file) => (file.keys, Ok(true)),
            Err(error) => (loaded.entries.clone(), Err(error)),
        };
        self.loaded.store(Arc::new(Loaded {
            entries,
            stamp: current,
        }));
        result
    }

    /// Looks at the file every second, for as long as the service lives.
    pub async fn watch(self) -> Result<(), KeysError> {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let keys = self.clone();
            let refreshed = tokio::task::spawn_blocking(move || keys.refresh()).await;
            match refreshed {
                Ok(Ok(true)) => tracing::info!(keys = self.count(), "api keys were read again"),
                Ok(Err(error)) => {
                    let reason = error.source().map(ToString::to_string);
                    tracing::error!(%error, reason, "api keys stay as they were");
                }
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }
}

/// Makes a key of 256 random bits, adds it to the file at `path`, and gives it: it cannot be shown
/// again. The file is created if there is none.
pub fn create_key(
    path: &Path,
    project: &ProjectId,
    name: &str,
    scopes: &[Scope],
) -> Result<String, KeysError> {
    let key = format!(
        "audit_{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
    );
    add_key(
        path,
        project,
        NewKey {
            name,
            scopes,
            key: &key,
        },
    )?;
    Ok(key)
}

/// A key to be added.
#[derive(Clone, Copy)]
pub struct NewKey<'a> {
    /// Its name, the only one of its project.
    pub name: &'a str,
    /// What it may be used for; at least one.
    pub scopes: &'a [Scope],
    /// The key itself; any text of at least [`MIN_KEY_LEN`] visible ASCII characters.
    pub key: &'a str,
}

/// Adds a given key to the file at `path`, which is created if there is none.
pub fn add_key(path: &Path, project: &ProjectId, new: NewKey<'_>) -> Result<(), KeysError> {
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
    let mut file = match read(path) {
        Err(KeysError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            KeyFile::default()
        }
        other => other?,
    };
    file.keys.push(Entry {
        name: new.name.to_owned(),
        project: project.clone(),
        sha256: Hash::of(new.key),
        scopes: new.scopes.to_vec(),
        created_at: Utc::now().trunc_subsecs(0),
    });
    if new.key.len() < MIN_KEY_LEN || !new.key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let least = format!("a key has {MIN_KEY_LEN} or more visible ASCII characters");
        return Err(KeysError::Refused(least));
    }
    check(&file).map_err(KeysError::Refused)?;
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

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

fn read(path: &Path) -> Result<KeyFile, KeysError> {
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
    let file: KeyFile =
        toml::from_str(&text).map_err(|error| not_understood(error.message().to_owned()))?;
    check(&file).map_err(not_understood)?;
    Ok(file)
}

/// Refuses what would make it unclear who a key belongs to or which key is meant.
fn check(file: &KeyFile) -> Result<(), String> {
    for (place, entry) in file.keys.iter().enumerate() {
        if entry.name.is_empty() || entry.scopes.is_empty() {
            return Err(format!(
                "every key needs a name and a scope ({:?})",
                entry.name
            ));
        }
        for other in file.keys.iter().take(place) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "a-key-of-another-origin-0123456789";

    fn folder_with_key() -> (tempfile::TempDir, PathBuf, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let scopes = [Scope::Write, Scope::Read];
        let key = create_key(&path, &"acme".parse().unwrap(), "server", &scopes).unwrap();
        (folder, path, key)
    }

    fn given(name: &str) -> NewKey<'_> {
        NewKey {
            name,
            scopes: &[Scope::Read],
            key: GIVEN,
        }
    }

    #[test]
    fn a_created_key_names_its_project_and_is_not_in_the_file() {
        let (_folder, path, key) = folder_with_key();
        let identity = ApiKeys::open(&path).unwrap().authenticate(&key).unwrap();
        assert_eq!(identity.project.as_str(), "acme");
        assert_eq!(identity.key_name, "server");
        assert_eq!(identity.scopes, [Scope::Write, Scope::Read]);
        assert!(
            key.starts_with("audit_") && key.len() == 49,
            "{}",
            key.len()
        );
        assert!(!fs::read_to_string(&path).unwrap().contains(&key));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_is_not_in_the_file_is_nobodys() {
        let (_folder, path, key) = folder_with_key();
        let keys = ApiKeys::open(&path).unwrap();
        for wrong in [
            "",
            "x",
            key.trim_start_matches('a'),
            &format!("{key}x"),
            GIVEN,
        ] {
            assert_eq!(keys.authenticate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_given_key_is_taken_as_it_is() {
        let (_folder, path, _) = folder_with_key();
        add_key(&path, &"other".parse().unwrap(), given("reader")).unwrap();
        let identity = ApiKeys::open(&path).unwrap().authenticate(GIVEN).unwrap();
        assert_eq!(
            (identity.project.as_str(), identity.scopes),
            ("other", vec![Scope::Read])
        );
    }

    #[test]
    fn a_short_key_a_second_owner_and_a_second_name_are_refused() {
        let (_folder, path, _) = folder_with_key();
        let acme = "acme".parse().unwrap();
        let short = NewKey {
            key: "x".repeat(31).leak(),
            ..given("short")
        };
        let scopeless = NewKey {
            scopes: &[],
            ..given("scopeless")
        };
        assert!(add_key(&path, &acme, short).is_err());
        assert!(add_key(&path, &acme, scopeless).is_err());
        assert!(add_key(&path, &acme, given("server")).is_err());
        add_key(&path, &acme, given("reader")).unwrap();
        assert!(add_key(&path, &"other".parse().unwrap(), given("thief")).is_err());
        assert_eq!(ApiKeys::open(&path).unwrap().count(), 2);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let (_folder, path, key) = folder_with_key();
        let keys = ApiKeys::open(&path).unwrap();
        assert!(!keys.refresh().unwrap());
        add_key(&path, &"acme".parse().unwrap(), given("reader")).unwrap();
        assert_eq!(keys.authenticate(GIVEN), None);
        assert!(keys.refresh().unwrap());
        assert!(keys.authenticate(GIVEN).is_some() && keys.authenticate(&key).is_some());
    }

    #[test]
    fn a_file_that_is_no_good_is_said_once_and_changes_nothing() {
        let (_folder, path, key) = folder_with_key();
        let keys = ApiKeys::open(&path).unwrap();
        fs::write(&path, "[[keys]]\nname = 'x'\n").unwrap();
        assert!(keys.refresh().is_err());
        assert!(!keys.refresh().unwrap());
        assert!(keys.authenticate(&key).is_some());
        fs::remove_file(&path).unwrap();
        assert!(keys.refresh().is_err());
        assert!(keys.authenticate(&key).is_some());
    }
}
