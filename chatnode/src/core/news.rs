//! What nodes tell each other, as the core means it; how it travels is the wire's.

use std::sync::Arc;

use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};

/// What one node publishes to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// Entries.
    Entries(Entries),
    /// Who is there, and what it holds.
    Beat(Beat),
    /// What may be lost.
    Live(Live),
    /// How far a log is held, for its origin alone.
    Ack(Ack),
}

/// Entries of one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entries {
    /// Who said them, and publishes them.
    pub(crate) origin: Origin,
    /// Whether a client waits for copies, so that an acknowledgement should come at once.
    pub(crate) ack_wanted: bool,
    /// All of `origin`, each `seq` one above the one before.
    pub(crate) entries: Vec<Arc<Entry>>,
}

/// A sign of life, and all that repair needs to know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat {
    /// Whose beat it is.
    pub(crate) origin: Origin,
    /// Its display name.
    pub(crate) name: String,
    /// URL of its HTTP port, as advertised.
    pub(crate) http: String,
    /// `tcp://…` or `tls://…` endpoint of its publisher, as advertised.
    pub(crate) publisher: String,
    /// The time by which it goes, microseconds since 1970.
    pub(crate) ts: u64,
    /// What its wall clock shows, the same unless that is far from those of the others.
    pub(crate) clock: u64,
    /// The last `seq` of its own log; 0 is none yet.
    pub(crate) head: u64,
    /// Of each origin of which it keeps something the last `seq` that it holds; before that, if there is a
    /// hole, the last before the first one. And a mark, if its positions are ahead of its time.
    pub(crate) position: Vec<EntryId>,
    /// Whose beats it hears.
    pub(crate) hears: Vec<Origin>,
    /// The version of its members, for those that missed a change.
    pub(crate) members_version: u64,
    /// Whether it takes clients.
    pub(crate) ready: bool,
}

impl Beat {
    /// How far the logs reach that it tells of, its own among them.
    pub(super) fn reaches(&self) -> impl Iterator<Item = (Origin, u64)> {
        let others = self.position.iter().filter(|id| !id.origin.is_mark());
        let others = others.map(|id| (id.origin, id.seq));
        others.chain([(self.origin, self.head)])
    }
}

/// Events that nobody repairs one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    /// Whose clients they are about.
    pub(crate) origin: Origin,
    /// In the order in which they happened.
    pub(crate) events: Vec<LiveEvent>,
}

/// Something about a client of the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LiveEvent {
    /// Someone is typing.
    Typing {
        /// Where.
        room: RoomName,
        /// Who.
        name: UserName,
    },
    /// Someone came or went.
    Members {
        /// The version of the origin's members with this change, one above the one before.
        version: u64,
        /// Where.
        room: RoomName,
        /// Who came.
        joined: Vec<UserName>,
        /// Who went.
        left: Vec<UserName>,
    },
}

/// How far a node holds the log of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// Who holds it.
    pub(crate) from: Origin,
    /// Whose log it is.
    pub(crate) to: Origin,
    /// Through which `seq`.
    pub(crate) through: u64,
}
