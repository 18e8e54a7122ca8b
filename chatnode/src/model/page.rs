//! A page of a transcript, and a room in short: memory and disk both give them.

use std::sync::Arc;

use crate::model::entry::{Entry, Place};
use crate::model::names::RoomName;

/// Bytes of JSON in a page of a transcript, about: one more entry may go over it.
pub(crate) const PAGE_BYTES_MAX: usize = 512 << 10;

/// A page of a room's transcript.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Oldest first.
    pub(crate) entries: Vec<Arc<Entry>>,
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
