//! What crashes and disks do to the files.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::spool::entry::{Found, scan};
use crate::spool::segment::HEADER_BYTES;

/// A folder as an earlier process left it.
struct Left {
    /// By name.
    files: BTreeMap<String, File>,
}

struct File {
    bytes: Vec<u8>,
    /// The entries: sequence, value, first byte, byte behind the last.
    entries: Vec<(u64, String, usize, usize)>,
}

impl Left {
    /// What a process leaves that commits these values, batch by batch.
    fn by(batches: &[Vec<String>]) -> Self {
        let folder = folder();
        let mut spool = open(folder.path());
        for batch in batches {
            let batch: Vec<_> = batch.iter().map(String::as_str).collect();
            write(&mut spool, Kept::InMemory, &batch);
        }
        drop(spool);
        let files = segments(folder.path()).into_iter().map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, File::new(fs::read(path).unwrap()))
        });
        Self {
            files: files.collect(),
        }
    }

    fn folder(&self) -> TempDir {
        let folder = folder();
        for (name, file) in &self.files {
            fs::write(folder.path().join(name), &file.bytes).unwrap();
        }
        folder
    }

    fn entries(&self) -> Vec<(u64, String)> {
        let entries = self.files.values().flat_map(|file| &file.entries);
        let said = entries.map(|(sequence, value, ..)| (*sequence, value.clone()));
        said.collect()
    }

    fn values(&self) -> Vec<String> {
        self.entries().into_iter().map(|(_, value)| value).collect()
    }

    fn last(&mut self) -> &mut File {
        self.files.values_mut().next_back().unwrap()
    }
}

impl File {
    fn new(bytes: Vec<u8>) -> Self {
        let (mut at, mut entries) = (HEADER_BYTES, Vec::new());
        while let Found::Entry(entry, length) = scan(&bytes[at..], &(0..u64::MAX), usize::MAX) {
            let value = String::from_utf8(entry.value.to_vec()).unwrap();
            entries.push((entry.sequence, value, at, at + length));
            at += length;
        }
        assert_eq!(at, bytes.len());
        Self { bytes, entries }
    }

    /// Puts `put` in the place of some bytes, and forgets the entries that this touches.
    fn replace(&mut self, from: usize, to: usize, put: &[u8]) {
        let is_same = self.bytes[from..to] == *put;
        self.bytes.splice(from..to, put.iter().copied());
        self.entries
            .retain(|(.., start, end)| is_same || *end <= from || *start >= to);
    }
}

#[derive(Debug, Clone)]
enum Damage {
    Change(Index, u8),
    Overwrite(Index, Vec<u8>),
    Insert(Index, Vec<u8>),
    Delete(Index, usize),
    Cut(Index),
}

impl Damage {
    fn inflict(&self, file: &mut File) {
        let length = file.bytes.len();
        match self {
            Self::Change(at, change) => {
                let at = at.index(length);
                let byte = file.bytes[at] ^ change;
                file.replace(at, at + 1, &[byte]);
            }
            Self::Overwrite(at, bytes) => {
                let at = at.index(length);
                let to = (at + bytes.len()).min(length);
                file.replace(at, to, &bytes[..to - at]);
            }
            Self::Insert(at, bytes) => {
                let at = at.index(length + 1);
                file.replace(at, at, bytes);
            }
            Self::Delete(at, count) => {
                let at = at.index(length);
                file.replace(at, (at + count).min(length), &[]);
            }
            Self::Cut(at) => file.replace(at.index(length), length, &[]),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let run = || prop::collection::vec(any::<u8>(), 1..120);
    prop_oneof![
        (any::<Index>(), 1_u8..).prop_map(|(at, change)| Damage::Change(at, change)),
        (any::<Index>(), run()).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        (any::<Index>(), run()).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), 1_usize..200).prop_map(|(at, count)| Damage::Delete(at, count)),
        any::<Index>().prop_map(Damage::Cut),
    ]
}

fn batches() -> impl Strategy<Value = Vec<Vec<String>>> {
    prop::collection::vec(prop::collection::vec(".{0,60}", 1..4), 1..12)
}

fn quarantined(folder: &Path) -> usize {
    fs::read_dir(folder.join("quarantine")).map_or(0, Iterator::count)
}

/// Adds an entry, reads it, and reads all of it again in the next process.
fn goes_on(mut spool: Spool, folder: &Path, before: &[String]) {
    write(&mut spool, Kept::OnDisk, &["after"]);
    assert_eq!(read(&mut spool), ["after"]);
    drop(spool);
    let after = "after".to_owned();
    let all: Vec<_> = before.iter().chain([&after]).cloned().collect();
    let mut spool = open(folder);
    assert_eq!(read(&mut spool), all);
    assert_eq!(spool.corrupt(), 0);
}

proptest! {
    // Every case is several hundred folders, and as many syncs.
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn a_torn_tail_is_cut_at_start_wherever_it_is_torn(mut batches in batches()) {
        batches.truncate(4);
        let mut left = Left::by(&batches);
        while !left.last().bytes.is_empty() {
            let length = left.last().bytes.len();
            left.last().replace(length - 1, length, &[]);
            let folder = left.folder();
            let mut spool = open(folder.path());
            let values = read(&mut spool);
            prop_assert_eq!(&values, &left.values());
            prop_assert_eq!((spool.corrupt(), quarantined(folder.path())), (0, 0));
            goes_on(spool, folder.path(), &values);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damage_costs_what_it_touches_alone_and_is_counted(
        batches in batches(), damages in prop::collection::vec((any::<Index>(), damage()), 1..4),
    ) {
        let mut left = Left::by(&batches);
        let written = left.entries();
        for (at, damage) in &damages {
            let file = at.index(left.files.len());
            let file = left.files.values_mut().nth(file).unwrap();
            if !file.bytes.is_empty() {
                // Where entries are is known only as long as nothing was moved.
                *file = moved(std::mem::replace(file, File::new(segment::header())), damage);
            }
        }
        let folder = left.folder();
        let mut spool = open(folder.path());
        let end = spool.end();
        let entries = std::iter::from_fn(|| spool.next().unwrap());
        let read: Vec<_> = entries.map(|entry| (entry.sequence, value(&entry))).collect();

        prop_assert!(read.is_sorted_by(|before, after| before.0 < after.0));
        // What a deletion leaves of two entries may be one of them again.
        prop_assert!(read.iter().all(|entry| written.contains(entry)), "{:?}", read);
        for entry in left.entries() {
            prop_assert!(read.contains(&entry), "{:?} of {:?}", entry, read);
        }
        // What is missing at the very end is not known to have been there.
        prop_assert!(end <= u64::try_from(written.len()).unwrap());
        let missing = end - u64::try_from(read.len()).unwrap();
        prop_assert_eq!(spool.corrupt_entries(), missing);
        prop_assert!(missing == 0 || spool.corrupt() > 0);
        // Regions without bytes have nothing to be put aside.
        prop_assert!(quarantined(folder.path()) <= usize::try_from(spool.corrupt()).unwrap());

        spool.confirm(spool.end()).unwrap();
        prop_assert_eq!((spool.entries(), spool.bytes()), (0, 0));
        goes_on(spool, folder.path(), &[]);
    }

    #[test]
    fn arbitrary_files_are_never_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        has_header in any::<bool>(),
        name in prop_oneof![Just(0), Just(4), Just(segment::MAX_SEQUENCE - 1)],
        note in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        let header = if has_header { segment::header() } else { Vec::new() };
        let folder = folder();
        for name in [name, 3] {
            let file = folder.path().join(segment::name(name));
            fs::write(file, [&header[..], &bytes].concat()).unwrap();
        }
        fs::write(folder.path().join("confirmed"), note).unwrap();
        let mut spool = open(folder.path());
        prop_assert_eq!(read(&mut spool), Vec::<String>::new());
        goes_on(spool, folder.path(), &[]);
    }
}

/// The file after the damage, with the entries where they are now.
fn moved(mut file: File, damage: &Damage) -> File {
    let before = file.bytes.clone();
    damage.inflict(&mut file);
    let (left, bytes) = (file.entries, file.bytes);
    let mut at = 0;
    let entries = left.into_iter().map(|(sequence, value, start, end)| {
        let entry = &before[start..end];
        let found = bytes[at..]
            .windows(entry.len())
            .position(|bytes| bytes == entry);
        let start = at + found.unwrap();
        at = start + entry.len();
        (sequence, value, start, at)
    });
    let entries = entries.collect();
    File { bytes, entries }
}

#[test]
fn a_segment_that_was_only_begun_is_removed() {
    for length in 0..=HEADER_BYTES {
        let folder = folder();
        write(&mut open(folder.path()), Kept::InMemory, &["a", "b"]);
        let begun = folder.path().join(segment::name(2));
        fs::write(&begun, &segment::header()[..length]).unwrap();
        let mut spool = open(folder.path());
        assert!(!begun.exists());
        assert_eq!(read(&mut spool), ["a", "b"]);
        assert_eq!(spool.corrupt(), 0);
        goes_on(spool, folder.path(), &["a".to_owned(), "b".to_owned()]);
    }
}

#[test]
fn segments_that_a_crash_did_not_remove_are_removed_at_start() {
    let folder = folder();
    let mut spool = open(folder.path());
    let value = "x".repeat(400);
    for _ in 0..10 {
        write(&mut spool, Kept::InMemory, &[&value]);
    }
    let before: Vec<_> = segments(folder.path())
        .into_iter()
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    assert_eq!(before.len(), 5);
    spool.confirm(7).unwrap();
    drop(spool);
    for (bytes, path) in before {
        fs::write(path, bytes).unwrap();
    }
    let mut spool = open(folder.path());
    assert_eq!(segments(folder.path()).len(), 2);
    assert_eq!(read(&mut spool).len(), 3);
    assert_eq!(spool.corrupt(), 0);
}

#[test]
fn a_segment_that_is_gone_is_counted_and_its_neighbours_are_read() {
    let long = "x".repeat(1_000);
    let left = Left::by(&[vec!["a".into(), long.clone()], vec![long], vec!["d".into()]]);
    assert_eq!(left.files.len(), 3);
    let folder = left.folder();
    let mut spool = open(folder.path());
    fs::remove_file(&segments(folder.path())[1]).unwrap();
    let entries: Vec<_> = std::iter::from_fn(|| spool.next().unwrap()).collect();
    let sequences: Vec<_> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, [0, 1, 3]);
    assert_eq!((spool.corrupt(), spool.corrupt_entries()), (1, 1));
}

#[test]
fn a_region_longer_than_is_read_at_once_is_one_region_and_ends_at_the_next_entry() {
    // The next entry lies across the end of the first window, of the second, and of none.
    for next in [8, 14, 16] {
        let folder = folder();
        let mut spool = Spool::open(&SpoolConfig::at(folder.path())).unwrap();
        let value = vec![b'x'; 500 << 10];
        for _ in 0..20 {
            spool.append(Kept::OnDisk, false, b"k", &value).unwrap();
        }
        spool.commit(false).unwrap();
        let file = segments(folder.path()).remove(0);
        let mut bytes = fs::read(&file).unwrap();
        let entry = (bytes.len() - HEADER_BYTES) / 20;
        bytes[HEADER_BYTES + 2 * entry + 1..HEADER_BYTES + next * entry - 1].fill(0);
        fs::write(&file, bytes).unwrap();

        let entries = std::iter::from_fn(|| spool.next().unwrap());
        let sequences: Vec<_> = entries.map(|entry| entry.sequence).collect();
        let next_sequence = u64::try_from(next).unwrap();
        let expected: Vec<_> = (0..2).chain(next_sequence..20).collect();
        assert_eq!(sequences, expected);
        let lost = next_sequence - 2;
        assert_eq!((spool.corrupt(), spool.corrupt_entries()), (1, lost));
        let aside = format!("{}-{}.bytes", "0".repeat(20), HEADER_BYTES + 2 * entry);
        let aside = fs::metadata(folder.path().join("quarantine").join(aside)).unwrap();
        assert_eq!(aside.len(), u64::try_from((next - 2) * entry).unwrap());
    }
}

#[test]
fn what_is_lost_behind_the_last_entry_does_not_keep_the_segment() {
    let folder = folder();
    let mut spool = open(folder.path());
    write(&mut spool, Kept::OnDisk, &["a", "b"]);
    let file = segments(folder.path()).remove(0);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(value(&spool.next().unwrap().unwrap()), "a");
    spool.confirm(1).unwrap();
    assert!(spool.has_unread());
    assert_eq!(spool.next().unwrap(), None);
    assert_eq!((spool.corrupt(), spool.corrupt_entries()), (1, 1));
    assert_eq!((spool.bytes(), spool.entries()), (0, 0));
    assert!(!file.exists());
    goes_on(spool, folder.path(), &[]);
}

#[test]
fn what_is_broken_is_counted_as_far_as_it_is_not_confirmed() {
    let confirmed = 2_u64.to_le_bytes();
    let note = [&confirmed[..], &crc32c::crc32c(&confirmed).to_le_bytes()].concat();
    for (broken, read_back, corrupt) in
        [(1..=1, vec!["c", "d"], (0, 0)), (1..=2, vec!["d"], (1, 1))]
    {
        let mut left = Left::by(&[["a", "b", "c", "d"].map(str::to_owned).to_vec()]);
        let file = left.last();
        let (from, to) = (
            file.entries[*broken.start()].2,
            file.entries[*broken.end()].3,
        );
        file.replace(from, to, b"no entry");
        let folder = left.folder();
        fs::write(folder.path().join("confirmed"), &note).unwrap();
        let mut spool = open(folder.path());
        assert_eq!(read(&mut spool), read_back);
        assert_eq!((spool.corrupt(), spool.corrupt_entries()), corrupt);
    }
}
