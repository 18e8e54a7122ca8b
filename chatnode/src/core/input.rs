//! What can come to a node.

use std::sync::Arc;

use super::copies::Ticket;
use crate::model::entry::Entry;
use crate::model::names::{Mid, RoomName, UserName};

/// Where what a node says comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// One of its own clients.
    Client,
    /// A foreign publisher of the plain form: it does not go out in that form again.
    Foreign,
}

/// Something that is said here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say<'a> {
    /// Names the request; comes back in [`Effect::Said`](super::output::Effect::Said).
    pub(crate) ticket: Ticket,
    /// Where.
    pub(crate) room: &'a RoomName,
    /// Who.
    pub(crate) from: &'a UserName,
    /// The client's own id.
    pub(crate) mid: Option<&'a Mid>,
    /// What.
    pub(crate) text: &'a str,
    /// The reply waits for so many other nodes to hold it.
    pub(crate) copies: usize,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// A part of a log that a peer sent.
#[derive(Debug, Default)]
pub(crate) struct LogPage {
    /// The number through which the peer has trimmed.
    pub(crate) floor: u64,
    /// Entries of the origin asked for, ascending.
    pub(crate) entries: Vec<Arc<Entry>>,
}
