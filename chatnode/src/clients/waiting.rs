//! Who waits for an answer of the core.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::session::RequestId;
use super::slot::ConnId;
use super::streams::Comes;
use crate::core::copies::Held;
use crate::core::question::{Found, ReadError};
use crate::model::names::{EntryId, RoomName};
use crate::model::pattern::Pattern;
use crate::wire::protocol::Refusal;

/// Where the answer to a task goes.
pub(crate) type Answer = oneshot::Sender<Result<Found, ReadError>>;

/// Who waits, and for what.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A client, for what became of its message: its request's id, without which only a refusal is
    /// told.
    Said(ConnId, RequestId),
    /// A request over HTTP, for what became of its message.
    Posted(oneshot::Sender<Result<Said, Refusal>>),
    /// A client that enters a room.
    Join(ConnId, RequestId, RoomName),
    /// A client that begins to watch.
    Watch(ConnId, RequestId, Pattern),
    /// A client that pages back.
    History(ConnId, RequestId),
    /// A client that searches a room.
    Search(ConnId, RequestId, RoomName),
    /// An event stream that is about to begin.
    Stream(Box<Comes>),
    /// A task of this node, and when it has gone.
    Task(Answer, CancellationToken),
}

#[cfg(test)]
impl super::Clients {
    /// For whom something is read who enters a room, or watches some.
    pub(crate) fn enters(&self, ticket: crate::core::copies::Ticket) -> Option<mio::Token> {
        match self.waiting.get(&ticket) {
            Some(Waiting::Join(conn, ..) | Waiting::Watch(conn, ..)) => {
                Some(mio::Token(conn.key as usize))
            }
            _ => None,
        }
    }
}

/// What a message became.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    /// The entry.
    pub(crate) id: EntryId,
    /// Its timestamp.
    pub(crate) ts: u64,
    /// Who holds it besides.
    pub(crate) held: Held,
}
