//! Cursors are opened as they were sealed, and by nobody else.

use super::bytes::VERSION;
use super::*;
use crate::filter::Order;
use crate::filter::field::USER_ID;
use proptest::prelude::*;

const NOW: Millis = Millis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn cursors() -> Cursors {
    Cursors::new(b"secret", DAY)
}

fn reach(project: &str) -> Reach {
    Reach {
        project: project.parse().unwrap(),
        organization: None,
    }
}

fn filter(project: &str, user: &str) -> Filter {
    Filter::new(reach(project))
        .with(&USER_ID, vec![user.into()])
        .unwrap()
}

fn position(incarnation: u32, partition: u32, offset: u64) -> Position {
    Position {
        incarnation,
        partition,
        offset,
    }
}

fn set(partitions: u32, offset: u64) -> FrozenSet {
    FrozenSet {
        frozen_at: NOW,
        complete_up_to: Some(Millis(NOW.0 - 1)),
        ends: (0..partitions).map(|p| position(1, p, offset)).collect(),
    }
}

fn cursor(set: FrozenSet) -> Cursor {
    Cursor {
        direction: Direction::Onward,
        place: Place {
            created_at: Millis(NOW.0 - 5),
            event_id: Uuid::from_u128(7),
            position: position(1, 5, 9),
        },
        offset: 50,
        walk: Walk {
            set,
            total: Some(123),
        },
    }
}

fn is_stale<T>(opened: &Result<T, ApiError>) -> bool {
    matches!(opened, Err(ApiError::StaleCursor))
}

#[test]
fn a_cursor_of_six_partitions_is_shorter_than_400_characters() {
    let mut longest = cursor(set(6, u64::MAX));
    longest.place.position = position(u32::MAX, u32::MAX, u64::MAX);
    longest.offset = u64::MAX;
    longest.walk.total = Some(u64::MAX - 1);
    for end in &mut longest.walk.set.ends {
        end.incarnation = u32::MAX;
    }
    let text = cursors().seal(&longest, &filter("acme", "u"));
    assert!(text.len() < 400, "{}", text.len());
}

#[test]
fn a_cursor_of_another_filter_order_project_secret_or_age_is_stale() {
    let ours = filter("acme", "u");
    let text = cursors().seal(&cursor(set(6, 10)), &ours);
    assert!(cursors().open(&text, &ours, NOW).is_ok());
    assert!(is_stale(&cursors().open(&text, &filter("acme", "v"), NOW)));
    assert!(is_stale(&cursors().open(&text, &filter("other", "u"), NOW)));
    let turned = ours.clone().in_order(Order::Ascending);
    assert!(is_stale(&cursors().open(&text, &turned, NOW)));
    assert!(is_stale(&Cursors::new(b"?", DAY).open(&text, &ours, NOW)));
    let at = |age| cursors().open(&text, &ours, Millis(NOW.0 + age));
    assert!(at(86_400_000).is_ok());
    assert!(is_stale(&at(86_400_001)));
}

#[test]
fn a_cursor_of_another_version_is_stale() {
    let ours = filter("acme", "u");
    let mut bytes: Vec<u8> = Sealed::new(Kind::Onward, ours.hash(), &set(1, 10)).into();
    bytes[0] = VERSION + 1;
    let text = cursors().signed(bytes);
    assert!(is_stale(&cursors().open(&text, &ours, NOW)));
}

#[test]
fn a_frozen_set_is_no_cursor_and_belongs_to_what_its_key_reaches() {
    let (ours, other) = (reach("acme"), reach("other"));
    let narrower = Reach {
        organization: Some("o1".into()),
        ..ours.clone()
    };
    let text = cursors().seal_set(&set(6, 10), &ours);
    assert_eq!(cursors().open_set(&text, &ours, NOW).unwrap(), set(6, 10));
    assert!(is_stale(&cursors().open_set(&text, &other, NOW)));
    assert!(is_stale(&cursors().open_set(&text, &narrower, NOW)));
    let all = Filter::new(ours.clone());
    assert!(is_stale(&cursors().open(&text, &all, NOW)));
    let text = cursors().seal(&cursor(set(6, 10)), &all);
    assert!(is_stale(&cursors().open_set(&text, &ours, NOW)));
}

prop_compose! {
    fn any_position()(incarnation: u32, partition: u32, offset: u64) -> Position {
        position(incarnation, partition, offset)
    }
}

prop_compose! {
    fn any_cursor()(
        onward: bool,
        created_at in 0_i64..10_413_791_999_999,
        id: u128,
        position in any_position(),
        offset: u64,
        total in prop::option::of(0..u64::MAX),
        complete in prop::option::of(0_i64..10_413_791_999_999),
        ends in prop::collection::vec(any_position(), 0..20),
    ) -> Cursor {
        Cursor {
            direction: if onward { Direction::Onward } else { Direction::Back },
            place: Place {
                created_at: Millis(created_at),
                event_id: Uuid::from_u128(id),
                position,
            },
            offset,
            walk: Walk {
                set: FrozenSet {
                    frozen_at: NOW,
                    complete_up_to: complete.map(Millis),
                    ends,
                },
                total,
            },
        }
    }
}

proptest! {
    #[test]
    fn a_cursor_is_opened_as_it_was_sealed(sealed in any_cursor()) {
        let ours = filter("acme", "u");
        let text = cursors().seal(&sealed, &ours);
        prop_assert_eq!(cursors().open(&text, &ours, NOW).unwrap(), sealed);
    }

    #[test]
    fn a_changed_cursor_is_stale(sealed in any_cursor(), place: prop::sample::Index, bit in 0..8_u8) {
        let ours = filter("acme", "u");
        let text = cursors().seal(&sealed, &ours);
        let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        bytes[place.index(text.len() * 3 / 4)] ^= 1 << bit;
        let changed = URL_SAFE_NO_PAD.encode(bytes);
        prop_assert!(is_stale(&cursors().open(&changed, &ours, NOW)));
        let cut = text.get(..place.index(text.len())).unwrap();
        prop_assert!(is_stale(&cursors().open(cut, &ours, NOW)));
    }

    #[test]
    fn no_text_is_a_panic(text in "[A-Za-z0-9_=-]{0,300}|.*", bytes: Vec<u8>) {
        let ours = filter("acme", "u");
        prop_assert!(is_stale(&cursors().open(&text, &ours, NOW)));
        // Behind a good signature, too.
        let mut signed: Vec<u8> = Sealed::new(Kind::Onward, ours.hash(), &set(0, 0)).into();
        signed.extend(bytes);
        drop(cursors().open(&cursors().signed(signed), &ours, NOW));
    }
}

#[test]
fn one_secret_follows_another_without_a_walk_that_ends_early() {
    let (old, new) = (cursors(), Cursors::new(b"new", DAY));
    let filter = filter("acme", "ann");
    let cursor = cursor(set(3, 10));
    let opens = |by: &Cursors, text: &str| by.open(text, &filter, NOW).is_ok();
    // First every instance accepts the new one, then they sign with it, then the old one goes.
    let first = cursors().also_accepting(b"new");
    let second = Cursors::new(b"new", DAY).also_accepting(b"secret");
    for signer in [&old, &first, &second] {
        let text = signer.seal(&cursor, &filter);
        assert!(opens(&first, &text) && opens(&second, &text));
    }
    assert!(opens(&old, &first.seal(&cursor, &filter)));
    assert!(opens(&new, &second.seal(&cursor, &filter)));
    assert!(!opens(&new, &old.seal(&cursor, &filter)));
    let others = Cursors::new(b"other", DAY).seal(&cursor, &filter);
    assert!(!opens(&first, &others) && !opens(&second, &others));
}
