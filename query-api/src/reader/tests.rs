//! The pages of a walk against a model of the table, and what the queries and refusals say.

use std::collections::BTreeSet;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::page::{KEY, page, share_a_key};
use super::refusal::refusal;
use super::watermarks::{Watermark, frozen_set};
use super::*;
use crate::cursor::{Cursor, Cursors, Direction, Place, Walk};
use crate::event::tests::row;
use crate::filter::{Order, Reach};
use audit_schema::Position;
use audit_schema::row::EventRow;

const NOW: Millis = Millis(1_800_000_000_000);

fn limits() -> Queries {
    Queries {
        at_once: 1,
        at_once_per_key: 1,
        bulk_at_once: 1,
        bulk_time: Duration::from_secs(60),
        wait: Duration::from_millis(5),
        time: Duration::from_millis(5_250),
        total_time: Duration::from_secs(1),
        memory_bytes: 1_000,
        result_rows: 101,
        max_offset: 10_000,
    }
}

fn reader() -> Reader {
    Reader::new(Client::default(), limits())
}

fn caller(key_name: &str) -> Caller {
    Caller {
        reach: reach(),
        key_name: key_name.to_owned(),
        request_id: String::new(),
    }
}

fn reach() -> Reach {
    Reach {
        project: "acme".parse().unwrap(),
        organization: None,
    }
}

fn all(order: Order) -> Filter {
    Filter::new(reach()).in_order(order)
}

fn event(millis: i64, id: u128, partition: u32, offset: u64) -> EventRow {
    EventRow {
        created_at: Millis(millis),
        event_id: Uuid::from_u128(id),
        source_partition: partition,
        source_offset: offset,
        ..row()
    }
}

fn watermark(incarnation: u32, partition: u32, offset: u64, complete: i64) -> Watermark {
    Watermark {
        incarnation,
        partition,
        frozen_below: offset,
        complete: Millis(complete),
        newest_incarnation: 2,
        newest_partitions: 2,
    }
}

fn walk(ends: &[(u32, u64)]) -> Walk {
    let end = |(partition, offset): &(u32, u64)| Position {
        incarnation: 1,
        partition: *partition,
        offset: *offset,
    };
    Walk {
        set: FrozenSet {
            frozen_at: NOW,
            complete_up_to: None,
            ends: ends.iter().map(end).collect(),
        },
        total: None,
    }
}

/// A cursor in the middle of a walk.
fn beside(direction: Direction) -> Cursor {
    Cursor {
        direction,
        place: Place::of(&row()),
        offset: 20,
        walk: walk(&[]),
    }
}

fn key(row: &EventRow) -> (Millis, Uuid, u32, u64) {
    let place = Place::of(row);
    (
        place.created_at,
        place.event_id,
        place.position.partition,
        place.position.offset,
    )
}

/// What the query of a page says, on a table that is a list.
fn model(table: &[EventRow], walk: &Walk, order: Order, slice: Slice<'_>) -> Page {
    let Slice { start, limit } = slice;
    let in_set = |row: &&EventRow| {
        let at = |end: &&Position| end.partition == row.source_partition;
        let end = walk.set.ends.iter().find(at);
        end.is_some_and(|end| row.source_offset < end.offset)
    };
    let mut rows: Vec<_> = table.iter().filter(in_set).cloned().collect();
    rows.sort_by_key(key);
    if order == Order::Descending {
        rows.reverse();
    }
    let total = u64::try_from(rows.len()).unwrap();
    match start {
        Start::Top(skip) => rows = rows.split_off(rows.len().min(usize::try_from(skip).unwrap())),
        Start::At(cursor) => {
            let place = &cursor.place;
            let (partition, offset) = (place.position.partition, place.position.offset);
            let beside = (place.created_at, place.event_id, partition, offset);
            let before = |row: &EventRow| match order {
                Order::Descending => key(row) > beside,
                Order::Ascending => key(row) < beside,
            };
            match cursor.direction {
                Direction::Onward => rows.retain(|row| key(row) != beside && !before(row)),
                Direction::Back => {
                    rows.retain(before);
                    rows.reverse();
                }
            }
        }
        Start::Behind(_) => unreachable!("pages are beside cursors"),
    }
    rows.truncate(usize::try_from(limit + 1).unwrap());
    page(rows, Total::Exactly(total), slice)
}

/// The cursor of the next page, through its text and back.
fn next(page: &Page, direction: Direction, walk: &Walk) -> Option<Cursor> {
    let (row, offset) = match direction {
        Direction::Onward => (page.rows.last().filter(|_| page.more)?, page.end()),
        Direction::Back => (page.rows.first().filter(|_| page.offset > 0)?, page.offset),
    };
    let cursor = Cursor {
        direction,
        place: Place::of(row),
        offset,
        walk: walk.clone(),
    };
    let filter = all(Order::Descending);
    let cursors = Cursors::new(b"secret", Duration::from_secs(1));
    let opened = cursors.open(&cursors.seal(&cursor, &filter), &filter, NOW);
    Some(opened.unwrap())
}

prop_compose! {
    /// Few times and few ids, so that many rows share them.
    fn any_table()(
        rows in prop::collection::vec((0_i64..3, 0_u128..4, 0_u32..3), 0..60),
    ) -> Vec<EventRow> {
        let row = |(offset, (millis, id, partition))| event(millis, id, partition, offset);
        (0..).zip(rows).map(row).collect()
    }
}

proptest! {
    #[test]
    fn a_walk_there_and_back_shows_each_row_once(
        table in any_table(),
        later in any_table(),
        end in 0_u64..60,
        limits in prop::collection::vec(1_u64..12, 1..8),
        begin: Index,
        ascending: bool,
    ) {
        let order = if ascending { Order::Ascending } else { Order::Descending };
        // Partition 2 has no watermark yet.
        let walk = walk(&[(0, end), (1, end)]);
        let wanted: Vec<_> = {
            let in_set = |row: &&EventRow| row.source_partition < 2 && row.source_offset < end;
            let mut wanted: Vec<_> = table.iter().filter(in_set).map(key).collect();
            wanted.sort_unstable();
            if !ascending {
                wanted.reverse();
            }
            wanted
        };
        let mut limits = limits.iter().copied().cycle();
        let mut limit = || limits.next().unwrap();
        let skip = begin.index(wanted.len() + 1);

        let mut seen = Vec::new();
        let mut page = model(&table, &walk, order, Slice { start: Start::Top(u64::try_from(skip).unwrap()), limit: limit() });
        let mut table = table;
        // Rows that become readable during the walk: above the frozen offsets, at any time.
        table.extend(later.into_iter().map(|mut row| {
            row.source_offset += 1_000;
            row
        }));
        loop {
            prop_assert_eq!(page.offset, u64::try_from(skip + seen.len()).unwrap());
            prop_assert_eq!(page.total, Total::Exactly(u64::try_from(wanted.len()).unwrap()));
            seen.extend(page.rows.iter().map(key));
            let Some(cursor) = next(&page, Direction::Onward, &walk) else { break };
            page = model(&table, &walk, order, Slice { start: Start::At(&cursor), limit: limit() });
        }
        prop_assert_eq!(&seen, &wanted[skip..]);

        let mut back: Vec<_> = page.rows.iter().map(key).collect();
        while let Some(cursor) = next(&page, Direction::Back, &walk) {
            page = model(&table, &walk, order, Slice { start: Start::At(&cursor), limit: limit() });
            back.splice(0..0, page.rows.iter().map(key));
            prop_assert_eq!(page.offset, u64::try_from(wanted.len() - back.len()).unwrap());
        }
        if !seen.is_empty() {
            prop_assert_eq!(&back, &wanted);
            prop_assert_eq!(back.iter().collect::<BTreeSet<_>>().len(), back.len());
        }
    }
}

#[test]
fn a_total_that_was_not_counted_is_at_least_what_was_seen() {
    let rows = || vec![event(1, 1, 0, 1), event(1, 2, 0, 2), event(1, 3, 0, 3)];
    let total = |rows, start, limit| page(rows, Total::AtLeast(0), Slice { start, limit }).total;
    assert_eq!(total(rows(), Start::Top(10), 2), Total::AtLeast(13));
    assert_eq!(total(rows(), Start::Top(10), 3), Total::AtLeast(13));
    assert_eq!(total(Vec::new(), Start::Top(10), 2), Total::AtLeast(0));
    let onward = beside(Direction::Onward);
    assert_eq!(total(Vec::new(), Start::At(&onward), 2), Total::AtLeast(20));
    let back = beside(Direction::Back);
    // Two on the page, the third before it, and the cursor's own behind it.
    assert_eq!(total(rows(), Start::At(&back), 2), Total::AtLeast(21));
}

#[test]
fn rows_of_one_id_and_time_are_noticed() {
    assert!(!share_a_key(&[]));
    assert!(!share_a_key(&[
        event(2, 1, 0, 0),
        event(1, 1, 0, 1),
        event(1, 2, 0, 2)
    ]));
    assert!(share_a_key(&[
        event(2, 1, 0, 0),
        event(1, 1, 0, 1),
        event(1, 1, 3, 1)
    ]));
}

#[tokio::test]
async fn the_queries_say_what_they_should() {
    let (reader, walk) = (reader(), walk(&[(0, 5), (1, 6)]));
    let reading = reader.admit(&caller("k")).await.unwrap();
    let (onward, back) = (beside(Direction::Onward), beside(Direction::Back));
    let starts = [Start::Top(10), Start::At(&onward), Start::At(&back)];
    let mut said = Vec::new();
    for order in [Order::Descending, Order::Ascending] {
        for start in starts {
            let slice = Slice { start, limit: 50 };
            let query = reading.page_query(&all(order), &walk.set, slice, KEY, Among::Set);
            said.push(query.sql_display().to_string());
        }
    }
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn a_set_is_complete_up_to_what_every_partition_of_the_newest_incarnation_reached() {
    let set = |watermarks: &[Watermark]| frozen_set(watermarks, NOW);
    let both = [
        watermark(1, 0, 10, 90),
        watermark(2, 0, 11, 100),
        watermark(2, 1, 12, 95),
    ];
    let of_both = set(&both);
    assert_eq!(of_both.complete_up_to, Some(Millis(95)));
    let ends: Vec<_> = of_both.ends.iter().map(|end| end.offset).collect();
    assert_eq!(ends, [10, 11, 12]);

    assert_eq!(set(&[]).complete_up_to, None);
    assert_eq!(
        set(&both[..2]).complete_up_to,
        None,
        "one is not settled yet"
    );
    assert_eq!(set(&both[..1]).complete_up_to, None, "a newer life began");
    let never = [watermark(2, 0, 11, 100), watermark(2, 1, 0, 0)];
    assert_eq!(set(&never).complete_up_to, None);
    let unregistered = Watermark {
        newest_incarnation: 0,
        newest_partitions: 0,
        ..watermark(1, 0, 10, 90)
    };
    assert_eq!(set(&[unregistered]).complete_up_to, Some(Millis(90)));
}

#[tokio::test]
async fn a_request_that_waited_long_enough_is_sent_away() {
    let reader = reader();
    let first = reader.admit(&caller("k")).await.unwrap();
    assert!(matches!(
        reader.admit(&caller("k")).await,
        Err(ApiError::Unavailable { .. })
    ));
    drop(first);
    assert!(reader.admit(&caller("k")).await.is_ok());
}

#[tokio::test]
async fn a_key_with_many_requests_does_not_keep_another_waiting() {
    let limits = Queries {
        at_once: 2,
        wait: Duration::from_secs(60),
        ..limits()
    };
    let reader = Reader::new(Client::default(), limits);
    let (many, other) = (caller("many"), caller("other"));
    let first = reader.admit(&many).await.unwrap();
    let mut waiting: FuturesUnordered<_> = (0..300).map(|_| reader.admit(&many)).collect();
    assert!(waiting.next().now_or_never().is_none(), "it has its place");
    let others = reader.admit(&other).now_or_never();
    let others = others.expect("there is a place").unwrap();
    assert_eq!(reader.keys.keys(), 2);
    // Its next request comes after the one before, not after hundreds of the other key.
    let mut again = Box::pin(reader.admit(&other));
    assert!(again.as_mut().now_or_never().is_none());
    drop(others);
    assert!(again.now_or_never().expect("there is a place").is_ok());
    assert_eq!(reader.keys.keys(), 1, "who asks nothing is forgotten");
    drop(first);
    assert!(
        waiting.next().now_or_never().is_some(),
        "the next one reads"
    );
    drop(waiting);
    assert_eq!(reader.keys.keys(), 0);
}

#[tokio::test]
async fn files_and_live_readers_keep_no_page_waiting() {
    let reader = reader();
    let file = reader.file_turn().await.unwrap();
    let live = reader.live_turn().now_or_never();
    assert!(live.expect("files keep no live reader waiting").is_ok());
    let page = reader.admit(&caller("k")).await.unwrap();
    assert!(reader.file_turn().now_or_never().is_none(), "one at once");
    drop((file, page));
    assert!(reader.file_turn().await.is_ok());
}

#[test]
fn a_failed_query_is_the_callers_the_networks_or_ours() {
    let answered = |text: &str| refusal(Error::BadResponse(text.to_owned())).code();
    assert_eq!(
        answered("Code: 159. DB::Exception: Timeout exceeded: …"),
        "too_broad"
    );
    assert_eq!(
        answered("Code: 241. DB::Exception: Memory limit …"),
        "too_broad"
    );
    assert_eq!(
        answered("Code: 202. DB::Exception: Too many …"),
        "unavailable"
    );
    assert_eq!(answered("502 Bad Gateway"), "unavailable");
    assert_eq!(
        answered("Code: 62. DB::Exception: Syntax error"),
        "internal"
    );
    assert_eq!(refusal(Error::TimedOut).code(), "unavailable");
    assert_eq!(refusal(Error::NotEnoughData).code(), "internal");
}
