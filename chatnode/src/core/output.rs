//! All that a node can do: see [`Output`].

use std::sync::Arc;
use std::time::Duration;

use super::copies::{Held, Ticket};
use super::journal::{Batch, NotTaken};
use super::keeper::KeeperBatch;
use super::links::fault::Fault;
use super::links::{LinkId, Speech};
use super::log::Span;
use super::members::Change;
use super::news::News;
use super::question::{Found, Read, Unread};
use super::repair::Fetch;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};

/// What the caller must do, in this order. What is large and rare is boxed: most are one entry each, and
/// pass through several lists.
#[derive(Debug)]
pub(crate) enum Output {
    /// Publish an entry of this node's own log.
    Append {
        /// What.
        entry: Arc<Entry>,
        /// Whether others are to acknowledge it at once.
        ack_wanted: bool,
    },
    /// Publish a message in the plain form.
    PublishPlain(String),
    /// Tell the other nodes, after all entries appended before it.
    Publish(Box<News>),
    /// Let the carrier dial, on a link never used before.
    Dial {
        /// Which link.
        link: LinkId,
        /// Where.
        endpoint: String,
        /// What to listen for.
        speech: Speech,
    },
    /// Let the carrier hang up.
    HangUp(LinkId),

    /// Bring an entry to the room's clients on this node, which lacked nothing of its origin through
    /// this number then.
    Deliver(Arc<Entry>, u64),
    /// Answer a [`Say`](super::input::Say).
    Said {
        /// Whose.
        ticket: Ticket,
        /// The entry it became, or became before.
        id: EntryId,
        /// Its timestamp.
        ts: u64,
        /// Who holds it besides.
        held: Held,
    },
    /// Answer a [`Say`](super::input::Say): it was not taken.
    NotSaid {
        /// Whose.
        ticket: Ticket,
        /// Why.
        why: NotTaken,
    },
    /// The answer to a [`Question`](super::question::Question).
    Answer(Ticket, Box<Result<Found, Unread>>),
    /// Tell all rooms' clients that these numbers are lost.
    Gap(Origin, Span),
    /// Tell a room's clients who came and went, and how many there are.
    Members(Change, usize),
    /// Tell a room's clients that somebody types.
    Typing(RoomName, UserName),
    /// Tell all clients which nodes there are: [`Core::nodes`](super::Core::nodes).
    NodesChanged,

    /// Say hello to a peer; its answer is [`Greeted`](super::input::Input::Greeted).
    Hello {
        /// To whom.
        to: Origin,
        /// Where its HTTP is.
        url: String,
    },
    /// Ask a peer for entries; its answer is [`Fetched`](super::input::Input::Fetched).
    Fetch {
        /// For which.
        fetch: Fetch,
        /// Where its HTTP is.
        url: String,
        /// For how many bytes at the most.
        bytes: usize,
    },
    /// Ask a peer for its members; its answer is
    /// [`MembersFetched`](super::input::Input::MembersFetched).
    FetchMembers {
        /// Whom.
        from: Origin,
        /// Where its HTTP is.
        url: String,
    },
    /// Ask a peer for its position; its answer is [`PositionTold`](super::input::Input::PositionTold).
    AskPosition {
        /// Whom.
        from: Origin,
        /// Where its HTTP is.
        url: String,
    },

    /// Read this for a question; what was read is [`Read`](super::input::Input::Read).
    Read(Ticket, Box<Read>),
    /// Give the disk a batch. What becomes of it is an input, and no other batch comes before that.
    Write(Batch),
    /// Give the keeper a batch. What becomes of it is an input, and no other batch comes before that.
    Keep(KeeperBatch),
    /// Take clients.
    Ready {
        /// Peers that were listed and are not linked.
        unlinked: Vec<Origin>,
        /// Origins of which not all is here that others held; see
        /// [`Core::lacking`](super::Core::lacking).
        lacking: Vec<Origin>,
    },
    /// All that others held is here, which was not when clients began to be taken.
    Whole,
    /// This node was stopped: sends and joins have to wait until it has caught up.
    CatchingUp,
    /// Sends and joins need not wait any longer.
    CaughtUp,
    /// Tell who runs this node.
    Notice(Notice),
}

/// What is of interest to who runs a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A node is heard now, and was not before.
    LinkUp(Origin),
    /// A node is no longer heard. Comes once for each time that it was.
    LinkDown(Origin),
    /// What is said at this broker comes back, and did not before.
    HallUp(String),
    /// Nothing comes from this broker any more. Comes once for each time that it did.
    HallDown(String),
    /// Somebody is wanted and not heard for long, or now for another reason.
    NotLinked {
        /// Who should be there.
        origin: Option<Origin>,
        /// Where.
        endpoint: String,
        /// Why not.
        fault: Fault,
    },
    /// A link is torn down, since nothing came on it.
    Silent {
        /// Which link.
        link: LinkId,
        /// Who was there, if a beat ever told.
        origin: Option<Origin>,
    },
    /// This node's clock is too far from those of the others to be followed.
    ClockWrong {
        /// By how many seconds it is ahead of them.
        wrong_s: i64,
    },
    /// A peer's time is too far from this node's for stamps to follow it: what the one that is ahead says
    /// will stand behind what others say after it.
    PeerSkewed {
        /// Which peer.
        peer: Origin,
        /// How far.
        apart: Duration,
        /// Whether it is the peer that is ahead.
        is_ahead: bool,
    },
    /// The disk is full, as it says: messages are refused until there is room.
    DiskFull(String),
    /// The disk was full, and has room again.
    DiskHasRoom,
    /// There are as many logs as can be: what dead nodes said is not fetched any more.
    FullOfLogs,
}

#[cfg(test)]
impl Output {
    /// What all clients are told, once more, for the judges of the simulator.
    pub(crate) fn to_be_judged(&self) -> Option<Self> {
        match self {
            Self::Deliver(entry, whole) => Some(Self::Deliver(Arc::clone(entry), *whole)),
            Self::Gap(origin, span) => Some(Self::Gap(*origin, *span)),
            Self::Members(change, count) => Some(Self::Members(change.clone(), *count)),
            _ => None,
        }
    }
}
