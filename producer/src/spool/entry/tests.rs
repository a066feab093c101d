use proptest::prelude::*;

use super::*;

const ALL: Range<u64> = 0..u64::MAX;

/// Entries 0, 1, …, and where each ends.
fn written(events: &[(String, String)]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for (sequence, (key, value)) in (0..).zip(events) {
        assert!(entry(sequence, key, value).write_to(&mut bytes));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn entry<'a>(sequence: u64, key: &'a str, value: &'a str) -> Entry<&'a [u8]> {
    Entry {
        sequence,
        written_at_ms: 1_700_000_000_000,
        maybe_delivered: sequence % 2 == 1,
        key: key.as_bytes(),
        value: value.as_bytes(),
    }
}

/// Scans to the end; gives the sequences of the entries and the number of broken regions.
fn walk(mut bytes: &[u8], sequences: &Range<u64>) -> (Vec<u64>, usize) {
    let (mut found, mut broken) = (Vec::new(), 0);
    loop {
        let length = match scan(bytes, sequences, usize::MAX) {
            Found::Entry(entry, length) => {
                assert!(sequences.contains(&entry.sequence));
                found.push(entry.sequence);
                length
            }
            Found::Broken(length) => {
                broken += 1;
                length
            }
            Found::End => return (found, broken),
        };
        assert!(length > 0);
        bytes = &bytes[length..];
    }
}

fn events() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec((".{0,12}", ".{0,40}"), 1..8)
}

/// Bytes that look like an entry here and there.
fn suspicious_bytes() -> impl Strategy<Value = Vec<u8>> {
    let whole = |sequence: u64, value: &str| {
        let mut bytes = Vec::new();
        assert!(entry(sequence, "k", value).write_to(&mut bytes));
        bytes
    };
    let part = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..48),
        Just(MARKER.to_vec()),
        any::<u32>().prop_map(|length| [MARKER, length.to_le_bytes()].concat()),
        (0_u32..64).prop_map(|length| [MARKER, length.to_le_bytes()].concat()),
        any::<u64>().prop_map(move |sequence| whole(sequence, "value")),
        (any::<u64>(), 0_usize..40, any::<u8>()).prop_map(move |(sequence, place, byte)| {
            let mut bytes = whole(sequence, "");
            let place = place % bytes.len();
            bytes[place] = byte;
            bytes
        }),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

#[test]
fn an_entry_comes_back_as_it_was_written() {
    let (bytes, ends) = written(&[("k".to_owned(), "{}".to_owned()), Default::default()]);
    let second = &bytes[ends[0]..];
    let length = ends[1] - ends[0];
    assert_eq!(
        scan(&bytes, &ALL, usize::MAX),
        Found::Entry(entry(0, "k", "{}"), ends[0])
    );
    assert_eq!(
        scan(second, &ALL, usize::MAX),
        Found::Entry(entry(1, "", ""), length)
    );
}

#[test]
fn an_entry_that_could_not_be_read_back_is_not_written() {
    let mut bytes = b"before".to_vec();
    let longest = "x".repeat(MAX_BODY - BODY_HEAD);
    assert!(!entry(0, "k", &longest).write_to(&mut bytes));
    assert_eq!(bytes, b"before");
    bytes.clear();
    assert!(entry(0, "", &longest).write_to(&mut bytes));
    assert_eq!(bytes.len(), MAX_BYTES);
    assert_eq!(walk(&bytes, &ALL), (vec![0], 0));
}

#[test]
fn an_event_that_imitates_an_entry_is_not_taken_for_one() {
    let (inner, _) = written(&[("forged".to_owned(), "event".to_owned())]);
    // What a value is made of has no byte of the marker that is not UTF-8.
    let text = String::from_utf8_lossy(&inner).into_owned();
    let (mut bytes, _) = written(&[("k".to_owned(), text), ("k".to_owned(), String::new())]);
    bytes[5] ^= 0x10;
    assert_eq!(walk(&bytes, &ALL), (vec![1], 1));
}

#[test]
fn an_entry_out_of_order_is_none() {
    let (bytes, _) = written(&vec![Default::default(); 5]);
    assert_eq!(walk(&bytes, &(2..4)), (vec![2, 3], 2));
}

#[test]
fn only_bytes_that_have_enough_after_them_are_judged() {
    let (mut bytes, ends) = written(&vec![Default::default(); 2]);
    bytes[0] = 0;
    assert_eq!(scan(&bytes, &ALL, ends[0] - 1), Found::Broken(ends[0] - 1));
    assert_eq!(scan(&bytes, &ALL, ends[0] + 1), Found::Broken(ends[0]));
    assert_eq!(scan(&bytes, &ALL, 0), Found::Broken(1));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_a_panic(
        bytes in suspicious_bytes(),
        sequences in prop_oneof![Just(ALL), (any::<u64>(), any::<u64>()).prop_map(|(a, b)| a..b)],
    ) {
        walk(&bytes, &sequences);
        is_torn(&bytes, u64::try_from(bytes.len()).unwrap());
    }

    #[test]
    fn a_cut_anywhere_leaves_all_entries_before_it_and_a_torn_one(events in events()) {
        let (bytes, ends) = written(&events);
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (found, broken) = walk(&bytes[..cut], &ALL);
            prop_assert_eq!(found, (0..u64::try_from(whole).unwrap()).collect::<Vec<_>>());
            let last = whole.checked_sub(1).map_or(0, |last| ends[last]);
            prop_assert_eq!(broken, usize::from(last < cut));
            if last < cut {
                let length = u64::try_from(cut - last).unwrap();
                prop_assert!(is_torn(&bytes[last..cut], length));
                prop_assert!(is_torn(&bytes[last..cut.min(last + 8)], length));
            }
        }
    }

    #[test]
    fn a_byte_changed_anywhere_costs_its_own_entry_alone(events in events(), change in 1_u8..) {
        let (bytes, ends) = written(&events);
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= change;
            let hurt = ends.iter().filter(|end| **end <= place).count();
            let others = (0..ends.len()).filter(|entry| *entry != hurt);
            let others = others.map(|entry| u64::try_from(entry).unwrap());
            prop_assert_eq!(walk(&bytes, &ALL), (others.collect(), 1));
        }
    }
}
