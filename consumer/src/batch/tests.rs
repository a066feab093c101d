use super::*;
use audit_schema::{Event, EventType};
use chrono::{DateTime, Utc};

const ID: PartitionId = PartitionId {
    incarnation: 1,
    partition: 0,
};

fn value(id: Option<&str>) -> Vec<u8> {
    let builder = Event::builder("acme".parse().unwrap(), EventType::USER_SIGNED_IN);
    let builder = match id {
        Some(id) => builder.id(id.parse().unwrap()),
        None => builder,
    };
    wire::encode(&builder.build().unwrap()).unwrap()
}

fn record(offset: u64, value: &[u8]) -> Record<'_> {
    Record {
        offset,
        logged_at: Millis(1_700_000_000_000),
        key: b"k",
        value,
        version: None,
        maybe_delivered: false,
        trace_parent: None,
    }
}

#[test]
fn a_gap_is_an_error() {
    let mut batch = Batch::new(ID, 5);
    let value = value(None);
    batch.push(&record(5, &value)).unwrap();
    assert_eq!(
        batch.push(&record(7, &value)),
        Err(NotNext::Gap {
            expected: 6,
            found: 7
        })
    );
    assert_eq!(batch.range(), OffsetRange::new(5, 5));
}

#[test]
fn a_record_that_is_no_event_keeps_its_bytes() {
    let mut batch = Batch::new(ID, 0);
    batch.push(&record(0, b"\x00garbage\xff")).unwrap();
    batch.push(&record(1, b"")).unwrap();
    assert_eq!(batch.rows_of(Table::Events).len(), 0);
    assert_eq!(batch.letters()[0].value, b"\x00garbage\xff");
    assert_eq!(batch.letters()[1].kind, "malformed");
}

#[test]
fn a_batch_ends_with_the_month() {
    let mut batch = Batch::new(ID, 0);
    let value = value(None);
    let at = |offset, time: &str| Record {
        logged_at: time.parse::<DateTime<Utc>>().unwrap().into(),
        ..record(offset, &value)
    };
    batch.push(&at(0, "2026-01-31T23:59:59.999Z")).unwrap();
    batch.push(&at(1, "2026-01-01T00:00:00Z")).unwrap();
    for other in ["2026-02-01T00:00:00Z", "2025-12-31T23:59:59.999Z"] {
        assert_eq!(batch.push(&at(2, other)), Err(NotNext::OtherMonth));
    }
}

#[test]
fn absent_offsets_are_one_dead_letter() {
    let mut batch = Batch::new(ID, 3);
    batch
        .push_absent(OffsetRange::new(3, 9).unwrap(), Millis(1))
        .unwrap();
    assert_eq!(batch.range(), OffsetRange::new(3, 9));
    let letter = &batch.letters()[0];
    let offsets = OffsetRange::new(letter.position.offset, letter.last_offset);
    assert_eq!(offsets, OffsetRange::new(3, 9));
}

#[test]
fn a_repeated_event_is_a_dead_letter_that_names_the_first() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let value = value(Some(id));
    let mut batch = Batch::new(ID, 0);
    let again = |offset| Record {
        maybe_delivered: true,
        ..record(offset, &value)
    };
    batch.push(&again(0)).unwrap();
    batch.push(&again(1)).unwrap();
    batch.resolve_suspects(&HashMap::new());
    assert_eq!(batch.rows_of(Table::Events), [0]);
    assert_eq!(batch.letters()[0].kind, "duplicate");
    assert!(batch.letters()[0].reason.contains("offset 0"));

    let mut batch = Batch::new(ID, 7);
    batch.push(&again(7)).unwrap();
    let stored = batch.suspects().into_iter().map(|key| (key, 2)).collect();
    batch.resolve_suspects(&stored);
    assert!(batch.rows_of(Table::Events).is_empty());
    assert!(batch.letters()[0].reason.contains("offset 2"));
}

#[test]
fn only_an_event_that_may_be_repeated_is_held_against_others() {
    let value = value(Some("01890a5d-ac96-774b-bcce-b302099a8057"));
    let mut batch = Batch::new(ID, 0);
    batch.push(&record(0, &value)).unwrap();
    batch.push(&record(1, &value)).unwrap();
    assert!(!batch.has_suspects());
    assert_eq!(batch.rows_of(Table::Events), [0, 1]);
}
