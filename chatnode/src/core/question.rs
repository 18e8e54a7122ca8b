//! What clients, streams, HTTP and peers ask of history, what has to be read for that, and the answer.

use std::sync::Arc;

use super::log::Span;
use super::named::Named;
use super::resumed::Resumed;
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, Origin, RoomName};
use crate::model::page::{Page, RoomSummary};
use crate::model::pattern::Scope;
use crate::model::query::Query;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// What somebody gets who enters a room, or watches some.
    Resume(Resume),
    /// A page of a room.
    Page {
        /// Of this room.
        room: RoomName,
        /// The newest before this entry, or of all.
        before: Option<EntryId>,
        /// So many.
        limit: usize,
    },
    /// The newest messages with certain words.
    Search(Search),
    /// All rooms.
    Rooms,
    /// A part of a log, for a peer that lacks it.
    Log(LogPart),
}

impl Question {
    /// Whether it is asked for a client, and has to wait until those are taken.
    pub(crate) fn is_of_clients(&self) -> bool {
        !matches!(self, Self::Log(_))
    }
}

/// Who enters a room, or watches some, and what it has seen of it.
#[derive(Debug)]
pub(crate) struct Resume {
    /// The rooms.
    pub(crate) scope: Scope,
    /// Its position; without one it begins anew.
    pub(crate) since: Option<Vec<EntryId>>,
    /// Mids of what it was shown.
    pub(crate) named: Named,
    /// Messages that it gets of a room if it begins anew.
    pub(crate) history: usize,
}

/// A search, its values checked.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    /// Where.
    pub(crate) room: RoomName,
    /// For what.
    pub(crate) query: Query,
    /// Before this entry.
    pub(crate) before: Option<EntryId>,
    /// How many.
    pub(crate) limit: usize,
}

/// A part of a log that a peer asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogPart {
    /// Whose log.
    pub(crate) origin: Origin,
    /// Which part.
    pub(crate) span: Span,
    /// Whether a peer that holds nothing of it wants all that is kept, and not what is in memory.
    pub(crate) whole: bool,
    /// Bytes of entries at the most; one entry comes whatever its length.
    pub(crate) bytes: usize,
}

/// The answer.
#[derive(Debug)]
pub(crate) enum Found {
    /// To [`Question::Resume`]. What was named and is not needed any more comes back.
    Resumed(Box<Resumed>, Named),
    /// To [`Question::Page`] and [`Question::Search`].
    Page(Page),
    /// `before` names no message that is kept.
    Unknown,
    /// To [`Question::Rooms`], by name.
    Rooms(Vec<Room>),
    /// To [`Question::Log`].
    Log(LogPage),
}

/// A room, how much was said there and how many are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    /// Its name.
    pub(crate) room: RoomName,
    /// Messages that are kept.
    pub(crate) messages: usize,
    /// Members.
    pub(crate) members: usize,
}

/// A part of a log.
#[derive(Debug, Default)]
pub(crate) struct LogPage {
    /// The number through which the peer has trimmed.
    pub(crate) floor: u64,
    /// The stamp of the last that it has trimmed; the latest there can be if it does not know.
    pub(crate) floor_ts: u64,
    /// Entries of the origin asked for, ascending.
    pub(crate) entries: Vec<Arc<Entry>>,
}

/// What has to be read for a question; what was read is [`Read`](super::input::Input::Read).
#[derive(Debug)]
pub(crate) enum Read {
    /// On the disk: where an entry stands.
    Place(EntryId),
    /// On the disk: the newest `limit` entries of a room before a place, or of all.
    Page(RoomName, Option<Place>, usize),
    /// On the disk: all of these rooms in these parts of logs, if a resume may replay as much.
    Beyond(Scope, Vec<(Origin, Span)>),
    /// On the disk: the newest matches before a place, or of all.
    Search(Search, Option<Place>),
    /// In these entries, the newest first: what matches. It takes long, and nothing but a thread.
    Scan(Vec<Arc<Entry>>, Query, usize),
    /// On the disk: a part of a log, so many bytes of it.
    Log(Origin, Span, usize),
    /// On the disk: all rooms.
    Rooms,
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Got {
    /// For [`Read::Place`]; `None`: the entry is not kept.
    Place(Option<Place>),
    /// For [`Read::Page`], [`Read::Search`] and [`Read::Scan`].
    Page(Page),
    /// For [`Read::Beyond`]; `None`: too much, or trimmed.
    Beyond(Option<Vec<Arc<Entry>>>),
    /// For [`Read::Log`].
    Log(LogPage),
    /// For [`Read::Rooms`].
    Rooms(Vec<RoomSummary>),
}

/// A question that has no answer. Nothing changed.
#[derive(Debug)]
pub(crate) struct Unread {
    /// Why.
    pub(crate) why: ReadError,
    /// What was named with it.
    pub(crate) named: Named,
}

/// Why a read failed. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// As many reads wait as may.
    #[error("too many reads wait; ask again later")]
    Busy,
    /// It took too long and was given up.
    #[error("this would take too long; look for something rarer")]
    Slow,
    /// The file is damaged, or the disk does not read.
    #[error("the disk cannot be read: {0}")]
    Broken(String),
    /// The disk was closed.
    #[error("the disk was closed")]
    Closed,
}
