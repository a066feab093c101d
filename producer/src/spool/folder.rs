//! The folder of the spool and the files in it. It is locked while the [`Folder`] lives.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::config::SpoolError;
use super::segment::{self, HEADER_BYTES, Header, MAX_SEQUENCE, Segment};

const LOCK: &str = "lock";
const CONFIRMED: &str = "confirmed";
const QUARANTINE: &str = "quarantine";

/// A folder that this process has for itself.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The lock goes when it is closed.
    _lock: File,
    confirmed: File,
    /// Whether a segment was made whose name may not be on the disk yet.
    has_new_name: bool,
}

impl Folder {
    /// Makes the folder if there is none, and locks it.
    pub(super) fn take(path: &Path) -> Result<Self, SpoolError> {
        let unusable = |source| unusable(path, source);
        let is_new = !path.exists();
        make_folder(path).map_err(unusable)?;
        if is_new && let Some(parent) = path.parent() {
            // Its name has to survive too. Not every parent may be opened.
            File::open(parent).and_then(|parent| parent.sync_all()).ok();
        }
        let lock = open_or_make(&path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            confirmed: open_or_make(&path.join(CONFIRMED)).map_err(unusable)?,
            has_new_name: false,
        })
    }

    /// What to say when something in it fails that it cannot be used without.
    pub(super) fn unusable(&self, source: io::Error) -> SpoolError {
        unusable(&self.path, source)
    }

    fn segment(&self, first: u64) -> PathBuf {
        self.path.join(segment::name(first))
    }

    /// The segments in order.
    pub(super) fn segments(&self) -> Result<VecDeque<Segment>, SpoolError> {
        let unusable = |source| self.unusable(source);
        let mut segments = Vec::new();
        for file in fs::read_dir(&self.path).map_err(unusable)? {
            let file = file.map_err(unusable)?;
            let Some(first) = file.file_name().to_str().and_then(segment::first_of) else {
                continue;
            };
            let head = self.peek(first, 0, HEADER_BYTES).map_err(unusable)?;
            if let Header::Other(version) = segment::read_header(&head) {
                let file = file.path();
                return Err(SpoolError::OtherVersion { file, version });
            }
            segments.push(Segment {
                first,
                bytes: file.metadata().map_err(unusable)?.len(),
                oldest_ms: None,
            });
        }
        segments.sort_by_key(|segment| segment.first);
        Ok(segments.into())
    }

    /// Opens a segment to be read; `None` if it is gone.
    pub(super) fn open(&self, first: u64) -> io::Result<Option<File>> {
        match File::open(self.segment(first)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// At most `length` bytes of a segment, from one place on.
    pub(super) fn peek(&self, first: u64, from: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        let mut file = File::open(self.segment(first))?;
        file.seek(SeekFrom::Start(from))?;
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Makes an empty segment, to be written. Whatever has its name has no entry.
    pub(super) fn make_segment(&mut self, first: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(self.segment(first))?;
        self.has_new_name = true;
        file.write_all_at(&segment::header(), 0)?;
        Ok(file)
    }

    /// Cuts a segment, for good.
    pub(super) fn cut(&self, first: u64, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.segment(first))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    /// Deletes a segment.
    pub(super) fn remove(&self, first: u64) -> io::Result<()> {
        match fs::remove_file(self.segment(first)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the names of new segments durable.
    pub(super) fn sync_names(&mut self) -> io::Result<()> {
        if self.has_new_name {
            File::open(&self.path)?.sync_all()?;
            self.has_new_name = false;
        }
        Ok(())
    }

    /// The sequence below which everything is confirmed, if there is a note that says so.
    pub(super) fn confirmed(&self) -> io::Result<Option<u64>> {
        let mut note = Vec::new();
        (&self.confirmed).take(13).read_to_end(&mut note)?;
        let below = note
            .first_chunk::<8>()
            .map(|below| u64::from_le_bytes(*below));
        Ok(below.filter(|below| *below < MAX_SEQUENCE && note_of(*below) == note))
    }

    /// Notes that everything below is confirmed. It need not be durable: less than is true is
    /// harmless.
    pub(super) fn note_confirmed(&self, below: u64) -> io::Result<()> {
        self.confirmed.write_all_at(&note_of(below), 0)
    }

    /// Copies bytes of a segment into quarantine and says so. They are given up even where they
    /// cannot be copied, as on a full disk: what follows them must not wait.
    pub(super) fn put_aside(&self, first: u64, bytes: &Range<u64>, entries: Option<u64>) {
        let length = bytes.end.saturating_sub(bytes.start);
        let copied = if length == 0 {
            Ok(())
        } else {
            self.copy_aside(first, bytes)
        };
        tracing::error!(
            spool.segment = first,
            spool.offset = bytes.start,
            spool.bytes = length,
            spool.entries = entries,
            copy_failed = copied.err().map(|error| error.to_string()),
            "events in the spool are lost: a region of it cannot be read; it is in quarantine"
        );
    }

    fn copy_aside(&self, first: u64, bytes: &Range<u64>) -> io::Result<()> {
        let Some(mut file) = self.open(first)? else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(bytes.start))?;
        let length = bytes.end.saturating_sub(bytes.start);
        self.quarantine(&format!("{first:020}-{}", bytes.start), file.take(length))
    }

    fn quarantine(&self, name: &str, mut bytes: impl Read) -> io::Result<()> {
        let folder = self.path.join(QUARANTINE);
        make_folder(&folder)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(folder.join(format!("{name}.bytes")))?;
        io::copy(&mut bytes, &mut file)?;
        file.flush()
    }
}

fn unusable(folder: &Path, source: io::Error) -> SpoolError {
    let folder = folder.to_owned();
    SpoolError::Unusable { folder, source }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn open_or_make(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

/// The note: the sequence and its CRC-32C, little-endian.
fn note_of(below: u64) -> Vec<u8> {
    let mut note = below.to_le_bytes().to_vec();
    note.extend(crc32c::crc32c(&note).to_le_bytes());
    note
}
