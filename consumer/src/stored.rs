//! The offsets that are stored, as both tables say it.
//!
//! A dead letter stands for a range of its own, of which only what lies in the range that is asked for is
//! unrolled.

use audit_schema::OffsetRange;

use crate::batch::PartitionId;

/// The condition for the rows of one partition.
pub(crate) fn of(id: PartitionId) -> String {
    format!(
        "source_incarnation = {} AND source_partition = {}",
        id.incarnation, id.partition
    )
}

/// A question for the positions in these ranges, of no partition more than one, each as often as it is
/// there: `incarnation`, `partition` and `offset`.
///
/// Each table is read once for all of them: most of what a question costs is its planning.
pub(crate) fn positions_in(
    events: &str,
    dead_letters: &str,
    ranges: &[(PartitionId, OffsetRange)],
) -> String {
    let each = |text: fn(&str, u64, u64) -> String, between: &str| {
        let texts = ranges
            .iter()
            .map(|(id, range)| text(&of(*id), range.first(), range.last()));
        texts.collect::<Vec<_>>().join(between)
    };
    let stored = each(
        |of, first, last| format!("({of} AND source_offset BETWEEN {first} AND {last})"),
        " OR ",
    );
    let overlapping = each(
        |of, first, last| {
            format!("({of} AND source_offset <= {last} AND source_offset_last >= {first})")
        },
        " OR ",
    );
    let first = each(|of, first, _| format!("{of}, {first}"), ", ");
    let last = each(|of, _, last| format!("{of}, {last}"), ", ");
    let columns = "source_incarnation AS incarnation, source_partition AS partition";
    format!(
        "SELECT {columns}, source_offset AS offset FROM {events} WHERE {stored} UNION ALL \
         SELECT {columns}, arrayJoin(range(greatest(source_offset, multiIf({first}, 0)), \
         least(source_offset_last, multiIf({last}, 0)) + 1)) AS offset \
         FROM {dead_letters} WHERE {overlapping}"
    )
}

/// The same for one range: `offset`.
pub(crate) fn offsets_in(
    events: &str,
    dead_letters: &str,
    id: PartitionId,
    range: OffsetRange,
) -> String {
    let positions = positions_in(events, dead_letters, &[(id, range)]);
    format!("SELECT offset FROM ({positions})")
}
