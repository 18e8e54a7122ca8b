//! What keeps entries: memory the newest of all, a disk, on a node that has one, all of them.
//!
//! Memory answers at once and is asked by the core itself; the disk must not be waited for, and is
//! asked by the rim. So the two are not behind one interface.
//!
//! Both keep two views of the same entries: each origin's log, by number, for repair; and each
//! room's transcript, by place, for people. Retention trims the oldest entries of all, always from
//! the front of a log, so that a log is a floor, below which nothing is kept, and what follows it.

use std::sync::Arc;

use crate::model::entry::{Entry, Place};
use crate::model::names::RoomName;

/// Bytes of JSON in a page of a transcript, about: one more entry may go over it.
pub(crate) const PAGE_BYTES_MAX: usize = 512 << 10;

/// A page of a room's transcript.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Oldest first.
    pub entries: Vec<Arc<Entry>>,
    /// Whether there are older ones.
    pub(crate) more: bool,
}

/// A room as `/api/rooms` lists it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RoomSummary {
    /// Its name.
    pub(crate) room: RoomName,
    /// Entries shown.
    pub(crate) messages: usize,
    /// Place of the newest.
    pub(crate) newest: Option<Place>,
}
