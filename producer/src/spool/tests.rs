mod damage;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Segments of 1 KiB.
fn small(folder: &Path) -> SpoolConfig {
    SpoolConfig {
        max_bytes: 8 << 10,
        ..SpoolConfig::at(folder)
    }
}

fn open(folder: &Path) -> Spool {
    Spool::open(&small(folder)).unwrap()
}

fn append(spool: &mut Spool, kept: Kept, value: &str) -> u64 {
    let key = b"project/key";
    spool.append(kept, false, key, value.as_bytes()).unwrap()
}

fn write(spool: &mut Spool, kept: Kept, values: &[&str]) {
    for value in values {
        append(spool, kept, value);
    }
    spool.commit(false).unwrap();
}

fn value(entry: &Entry) -> String {
    assert_eq!(entry.key, b"project/key");
    String::from_utf8(entry.value.clone()).unwrap()
}

fn read(spool: &mut Spool) -> Vec<String> {
    let entries = std::iter::from_fn(|| spool.next().unwrap());
    entries.map(|entry| value(&entry)).collect()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut segments: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "spool"))
        .collect();
    segments.sort();
    segments
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_an_earlier_process_left_is_read_in_order_and_flagged() {
    let folder = folder();
    write(&mut open(folder.path()), Kept::InMemory, &["a", "b"]);
    write(&mut open(folder.path()), Kept::InMemory, &[]);
    let mut spool = open(folder.path());
    assert_eq!((spool.entries(), spool.end()), (2, 2));
    // What this process adds is not read before, and is not flagged.
    append(&mut spool, Kept::OnDisk, "c");
    spool.commit(false).unwrap();
    let entries: Vec<_> = std::iter::from_fn(|| spool.next().unwrap()).collect();
    let entries = entries.iter();
    let said = entries.map(|entry| (entry.sequence, entry.maybe_delivered, value(entry)));
    let expected = [(0, true, "a"), (1, true, "b"), (2, false, "c")];
    assert!(said.eq(expected.map(|(at, flag, value)| (at, flag, value.to_owned()))));
    assert!(!spool.has_unread());
}

#[test]
fn what_the_caller_keeps_is_not_read_back_by_its_own_process() {
    let folder = folder();
    let mut spool = open(folder.path());
    append(&mut spool, Kept::InMemory, "a");
    assert!(!spool.has_unread());
    append(&mut spool, Kept::OnDisk, "b");
    assert!(spool.has_unread());
    assert_eq!(spool.next().unwrap(), None, "it is not committed");
    spool.commit(false).unwrap();
    assert_eq!(read(&mut spool), ["b"]);
    write(&mut spool, Kept::InMemory, &["c"]);
    write(&mut spool, Kept::OnDisk, &["d", "e"]);
    assert_eq!(value(&spool.next().unwrap().unwrap()), "d");
    write(&mut spool, Kept::OnDisk, &["f"]);
    assert_eq!(read(&mut spool), ["e", "f"]);
    drop(spool);
    let mut spool = open(folder.path());
    assert_eq!(read(&mut spool), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn what_is_confirmed_is_not_read_again() {
    let folder = folder();
    let mut spool = open(folder.path());
    write(&mut spool, Kept::InMemory, &["a", "b", "c"]);
    spool.confirm(2).unwrap();
    assert_eq!(spool.entries(), 1);
    drop(spool);
    let mut spool = open(folder.path());
    assert_eq!(spool.entries(), 1);
    assert_eq!(read(&mut spool), ["c"]);
    spool.confirm(3).unwrap();
    assert_eq!((spool.entries(), spool.bytes()), (0, 0));
    assert!(segments(folder.path()).is_empty());
    drop(spool);
    // The count goes on where it was.
    assert_eq!(append(&mut open(folder.path()), Kept::InMemory, "d"), 3);
}

#[test]
fn segments_go_one_by_one_when_each_entry_is_confirmed_as_it_is_read() {
    let folder = folder();
    let mut spool = open(folder.path());
    let value = "x".repeat(400);
    for _ in 0..6 {
        write(&mut spool, Kept::OnDisk, &[&value]);
    }
    let mut left = Vec::new();
    for sequence in 0..6 {
        assert_eq!(spool.next().unwrap().unwrap().sequence, sequence);
        spool.confirm(sequence + 1).unwrap();
        left.push(segments(folder.path()).len());
    }
    assert_eq!(left, [3, 2, 2, 1, 1, 0]);
    assert_eq!(spool.next().unwrap(), None);
    write(&mut spool, Kept::OnDisk, &["a", "b"]);
    assert_eq!(read(&mut spool), ["a", "b"]);
}

#[test]
fn what_was_not_given_to_the_caller_cannot_be_confirmed() {
    let folder = folder();
    write(&mut open(folder.path()), Kept::InMemory, &["a", "b", "c"]);
    let mut spool = open(folder.path());
    assert_eq!(value(&spool.next().unwrap().unwrap()), "a");
    spool.confirm(3).unwrap();
    assert_eq!(spool.entries(), 2);
    assert_eq!(read(&mut spool), ["b", "c"]);
}

#[test]
fn without_its_note_more_is_read_and_never_less() {
    let note = folder();
    let mut spool = open(note.path());
    write(&mut spool, Kept::InMemory, &["a", "b", "c"]);
    spool.confirm(2).unwrap();
    let valid = fs::read(note.path().join("confirmed")).unwrap();
    let mut notes = vec![Vec::new(), b"no note at all".to_vec(), vec![0; 12]];
    for place in 0..valid.len() {
        notes.push(valid[..place].to_vec());
        let mut changed = valid.clone();
        changed[place] ^= 1;
        notes.push(changed);
    }
    for note in notes {
        let folder = folder();
        write(&mut open(folder.path()), Kept::InMemory, &["a", "b", "c"]);
        fs::write(folder.path().join("confirmed"), note).unwrap();
        assert_eq!(read(&mut open(folder.path())), ["a", "b", "c"]);
    }
}

#[test]
fn a_full_spool_has_room_when_segments_are_confirmed() {
    let folder = folder();
    let mut spool = open(folder.path());
    let value = "x".repeat(100);
    while spool
        .append(Kept::OnDisk, false, b"project/key", value.as_bytes())
        .is_ok()
    {
        spool.commit(false).unwrap();
        assert!(spool.bytes() <= 8 << 10);
    }
    let on_disk = |path: &Path| {
        let files = segments(path).into_iter();
        files
            .map(|file| fs::metadata(file).unwrap().len())
            .sum::<u64>()
    };
    assert_eq!(spool.bytes(), on_disk(folder.path()));
    assert!(segments(folder.path()).len() >= 8);
    let end = spool.end();
    while spool
        .next()
        .unwrap()
        .is_some_and(|entry| entry.sequence < end / 2)
    {}
    spool.confirm(end / 2).unwrap();
    assert_eq!(spool.bytes(), on_disk(folder.path()));
    assert!((3..=5).contains(&segments(folder.path()).len()));
    assert_eq!(append(&mut spool, Kept::OnDisk, &value), end);
    spool.commit(false).unwrap();
    let left = u64::try_from(read(&mut spool).len()).unwrap();
    assert_eq!(left, end - end / 2);
}

#[test]
fn what_can_never_fit_is_refused() {
    let folder = folder();
    let mut spool = open(folder.path());
    let long = vec![b'x'; 9 << 10];
    assert_eq!(spool.append(Kept::OnDisk, false, b"k", &long), Err(Full));
    assert!(!spool.has_unread());
    assert_eq!(append(&mut spool, Kept::OnDisk, "a"), 0);
    assert_eq!(spool.append(Kept::OnDisk, false, &long, b"v"), Err(Full));
    spool.commit(false).unwrap();
    assert_eq!(read(&mut spool), ["a"]);
}

#[test]
fn one_producer_alone_has_the_folder_and_no_one_else_may_read_it() {
    let parent = folder();
    let folder = parent.path().join("var").join("spool");
    let mut spool = open(&folder);
    write(&mut spool, Kept::InMemory, &["a"]);
    let refused = Spool::open(&small(&folder)).err().unwrap();
    assert!(matches!(&refused, SpoolError::InUse(path) if *path == folder));
    assert!(
        refused.to_string().contains("var/spool is in use"),
        "{refused}"
    );
    assert_eq!(mode(&folder), 0o700);
    for file in fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    drop(spool);
    assert_eq!(read(&mut open(&folder)), ["a"]);
}

#[test]
fn a_folder_that_is_none_is_refused_by_name() {
    let parent = folder();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = Spool::open(&small(&file)).err().unwrap().to_string();
    assert!(refused.contains("file cannot be used: "), "{refused}");
}

#[test]
fn a_version_that_is_not_known_is_refused_and_left_alone() {
    let folder = folder();
    write(&mut open(folder.path()), Kept::InMemory, &["a"]);
    let file = segments(folder.path()).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 9;
    let checksum = crc32c::crc32c(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&checksum);
    fs::write(&file, &bytes).unwrap();
    let refused = Spool::open(&small(folder.path())).err().unwrap();
    assert!(matches!(
        refused,
        SpoolError::OtherVersion { version: 9, .. }
    ));
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn a_write_that_fails_leaves_nothing_behind_and_its_sequences_are_given_again() {
    let folder = folder();
    let mut spool = open(folder.path());
    write(&mut spool, Kept::InMemory, &["a"]);
    let file = segments(folder.path()).remove(0);
    let whole = fs::read(&file).unwrap();

    let writable = spool.writing.replace(File::open(&file).unwrap());
    assert_eq!(append(&mut spool, Kept::OnDisk, "lost"), 1);
    assert!(spool.commit(false).is_err());
    assert!(!spool.has_unread());
    assert_eq!((spool.end(), spool.entries()), (1, 1));
    // As a disk does that has room for a part, and then refuses even to be cut.
    fs::write(&file, [&whole[..], &whole[16..], &whole[16..]].concat()).unwrap();
    append(&mut spool, Kept::OnDisk, "lost");
    assert!(spool.commit(false).is_err(), "it is not cut back");

    spool.writing = writable;
    assert_eq!(append(&mut spool, Kept::OnDisk, "b"), 1);
    spool.commit(true).unwrap();
    assert_eq!(read(&mut spool), ["b"]);
    drop(spool);
    let mut spool = open(folder.path());
    assert_eq!(read(&mut spool), ["a", "b"]);
    assert_eq!(spool.corrupt(), 0);
}

#[test]
fn a_folder_that_is_gone_is_not_written_to() {
    let parent = folder();
    let folder = parent.path().join("spool");
    let mut spool = open(&folder);
    write(&mut spool, Kept::OnDisk, &["a", "b"]);
    fs::remove_dir_all(&folder).unwrap();
    append(&mut spool, Kept::OnDisk, "lost");
    assert!(spool.commit(false).is_err());

    fs::create_dir(&folder).unwrap();
    assert_eq!(append(&mut spool, Kept::OnDisk, "c"), 2);
    spool.commit(true).unwrap();
    assert_eq!(read(&mut spool), ["c"]);
    assert_eq!((spool.corrupt(), spool.corrupt_entries()), (1, 2));
    spool.confirm(3).unwrap();
    assert_eq!((spool.bytes(), spool.entries()), (0, 0));
}

#[test]
fn the_policy_says_what_is_synced_unless_the_commit_does() {
    let unsynced = |fsync: Fsync, sync: bool| {
        let folder = folder();
        let config = SpoolConfig {
            fsync,
            ..small(folder.path())
        };
        let mut spool = Spool::open(&config).unwrap();
        append(&mut spool, Kept::InMemory, "a");
        spool.commit(sync).unwrap();
        let before = spool.unsynced_since.is_some();
        spool.tick().unwrap();
        (before, spool.unsynced_since.is_some())
    };
    let hour = Duration::from_secs(3_600);
    assert_eq!(unsynced(Fsync::Each, false), (false, false));
    assert_eq!(
        unsynced(Fsync::Interval(Duration::ZERO), false),
        (true, false)
    );
    assert_eq!(unsynced(Fsync::Interval(hour), false), (true, true));
    assert_eq!(unsynced(Fsync::Interval(hour), true), (false, false));
    assert_eq!(unsynced(Fsync::Never, false), (true, true));
    assert_eq!(unsynced(Fsync::Never, true), (false, false));
}

#[test]
fn an_empty_commit_that_syncs_syncs_what_was_before() {
    let folder = folder();
    let mut spool = open(folder.path());
    write(&mut spool, Kept::InMemory, &["a"]);
    assert!(spool.unsynced_since.is_some());
    spool.commit(true).unwrap();
    assert!(spool.unsynced_since.is_none());
    assert_eq!(spool.end(), 1);
}

#[test]
fn the_age_of_the_oldest_segment_is_known_when_it_is_the_first_and_when_it_is_read() {
    let folder = folder();
    let mut spool = open(folder.path());
    assert_eq!(spool.oldest_ms(), None);
    let value = "x".repeat(600);
    write(&mut spool, Kept::InMemory, &[&value]);
    write(&mut spool, Kept::InMemory, &[&value]);
    let written = spool.oldest_ms();
    assert!(written.is_some());
    drop(spool);

    let mut spool = open(folder.path());
    assert_eq!(spool.oldest_ms(), written);
    let mut next = || spool.next().unwrap().unwrap().written_at_ms;
    let (first, second) = (next(), next());
    assert_eq!(written, Some(first));
    spool.confirm(1).unwrap();
    assert_eq!(spool.oldest_ms(), Some(second));
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = folder();
    for name in [
        "lost.json",
        "1.spool",
        "x.spool",
        "99999999999999999999.spool",
    ] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let mut spool = open(folder.path());
    assert!(!spool.has_unread());
    write(&mut spool, Kept::InMemory, &["a"]);
    spool.confirm(1).unwrap();
    assert_eq!(fs::read(folder.path().join("1.spool")).unwrap(), b"1.spool");
    assert_eq!(segments(folder.path()).len(), 3);
}
