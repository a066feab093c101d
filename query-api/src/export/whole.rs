//! What all formats write alike.

use std::borrow::Cow;

use audit_schema::row::EventRow;

use crate::event::{address, embedded};

/// Which part of a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// From its first byte.
    Start,
    /// What comes after the events of a file that was cut. A Parquet file cannot be continued, so
    /// there it is a file of its own.
    Rest,
}

/// What the end of a file says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    /// How many events there are up to its end.
    pub(crate) events: u64,
    /// Which state of the log it shows.
    pub(crate) as_of: String,
    /// Before which time events of it may be lacking because retention removed them.
    pub(crate) removed_before: Option<String>,
}

/// The text of the client's address; empty if it is not known.
pub(super) fn ip_address(row: &EventRow) -> Cow<'_, str> {
    address(row.ip_address).map_or(Cow::Borrowed(""), |address| address.to_string().into())
}

/// The text of the event data, which is JSON in every row.
pub(super) fn event_data(row: &EventRow) -> Cow<'_, str> {
    match embedded(&row.event_data) {
        Cow::Borrowed(sent) => sent.get().into(),
        Cow::Owned(text) => text.get().to_owned().into(),
    }
}
