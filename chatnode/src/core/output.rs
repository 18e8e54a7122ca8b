//! What a node can do.

use std::sync::Arc;

use super::copies::Ticket;
use super::durable::NotTaken;
use super::input::Source;
use super::log::Span;
use super::members::Change;
use super::news::News;
use super::question::{Found, Read, ReadError};
use super::repair::Fetch;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};

/// What the caller must do, in order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Publish an entry of this node's own log.
    Append {
        /// What.
        entry: Arc<Entry>,
        /// Whether others are to acknowledge it at once.
        ack_wanted: bool,
        /// Where it comes from.
        source: Source,
    },
    /// Tell the other nodes, after all entries appended before it.
    Publish(News),
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
        /// How many other nodes hold it.
        copies: usize,
    },
    /// Answer a [`Say`](super::input::Say): it was not taken.
    NotSaid {
        /// Whose.
        ticket: Ticket,
        /// Why.
        why: NotTaken,
    },
    /// The answer to a [`Question`](super::question::Question).
    Answer(Ticket, Result<Found, ReadError>),
    /// Read this for a question; tell the outcome by [`Core::was_read`](super::state::Core::was_read).
    Read(Ticket, Read),
    /// Ask a peer for entries; tell the outcome by `Core::fetched`.
    Fetch(Fetch),
    /// Ask a peer for its members; tell the outcome by `Core::members_fetched`.
    FetchMembers(Origin),
    /// Tell all rooms' clients that these numbers are lost.
    Gap(Origin, Span),
    /// Tell a room's clients who came and went, and how many there are.
    Members(Change, usize),
    /// Tell a room's clients that somebody types.
    Typing(RoomName, UserName),
    /// Take clients.
    Ready {
        /// Peers that were listed and are not linked.
        #[cfg_attr(not(test), expect(dead_code, reason = "the simulator judges by it"))]
        unlinked: Vec<Origin>,
        /// Origins of which not all is here that others held; see `Core::lacking`.
        lacking: Vec<Origin>,
    },
    /// All that others held is here, which was not when clients began to be taken.
    Whole,
    /// Ask a peer for its position; tell the outcome by `Core::position_told`.
    AskPosition(Origin),
    /// The roll call of this number is over, and all before it.
    RollOver(
        #[cfg_attr(
            not(test),
            expect(dead_code, reason = "clients of the simulator wait for it")
        )]
        u64,
    ),
    /// Sends and joins need not wait any longer.
    CaughtUp,
}
