//! What keeps entries, behind one small trait: memory now, a disk later.
//!
//! A store keeps two views of the same entries: each origin's log, by number, for repair; and each
//! room's transcript, by place, for people. Retention trims the oldest entries of all, always from
//! the front of a log, so that a log is a floor, below which nothing is kept, and what follows it.

pub mod memory;

use std::fmt;
use std::sync::Arc;

use crate::replica::entry::{Entry, Place};
use crate::replica::names::{EntryId, Origin, RoomName};

/// Bytes of JSON in a page of a transcript, about: one more entry may go over it.
pub const PAGE_BYTES_MAX: usize = 512 << 10;

/// A page of a room's transcript.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Oldest first.
    pub entries: Vec<Arc<Entry>>,
    /// Whether there are older ones.
    pub more: bool,
}

/// A room as `/api/rooms` lists it.
#[derive(Debug, PartialEq, Eq)]
pub struct RoomSummary {
    /// Its name.
    pub room: RoomName,
    /// Entries shown.
    pub messages: usize,
    /// Place of the newest.
    pub newest: Option<Place>,
}

/// Keeps entries.
pub trait Store: fmt::Debug + Send {
    /// Keeps an entry in its log, not yet in a transcript. Keeping it twice is once.
    fn keep(&mut self, entry: &Arc<Entry>);

    /// Shows a kept entry in its room's transcript.
    fn show(&mut self, entry: &Arc<Entry>);

    /// Takes an entry out of its room's transcript; its log keeps it.
    fn hide(&mut self, room: &RoomName, place: Place);

    /// The entry of this name, if it is kept.
    fn get(&self, id: EntryId) -> Option<Arc<Entry>>;

    /// Entries of one origin with `after < seq <= through`, ascending, until `bytes_max` of JSON
    /// are reached (at least one). Numbers that are not kept are passed over.
    fn range(&self, origin: Origin, after: u64, through: u64, bytes_max: usize) -> Vec<Arc<Entry>>;

    /// The newest `limit` entries shown in a room that stand before a place; fewer, but one at
    /// least, if they hold more than [`PAGE_BYTES_MAX`].
    fn page(&self, room: &RoomName, before: Option<Place>, limit: usize) -> Page;

    /// Entries of one origin that are shown in a room and lie beyond a number, ascending.
    fn shown_beyond(
        &self,
        room: &RoomName,
        after: EntryId,
    ) -> Box<dyn Iterator<Item = &Arc<Entry>> + '_>;

    /// Whether something in a room of one origin beyond a number was trimmed, or may have been.
    fn has_trimmed(&self, room: &RoomName, after: EntryId) -> bool;

    /// Rooms with entries shown, by name.
    fn rooms(&self) -> Vec<RoomSummary>;

    /// Removes the oldest entry while there are more than retention allows; called until `None`.
    fn trim(&mut self) -> Option<Arc<Entry>>;

    /// How many entries are kept, and the bytes they take.
    fn size(&self) -> (usize, usize);
}
