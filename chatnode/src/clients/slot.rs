//! A slot of the table of connections: whose it is, in which form it is written to, and how it ends.

use super::websocket::Close;
use crate::model::names::RoomName;
use crate::model::pattern::Pattern;

/// Bytes that the kernel keeps for a client beyond what is on its way to it: a socket takes no more
/// before those have gone. Without this bound it takes megabytes for each client that reads nothing,
/// and the node spends its time on copying them there.
pub(crate) const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// Its queue was too long for too long.
pub(crate) const SLOW: Close = Close::new(
    4000,
    "slow: too much waits to be read; come back and resume",
);

/// A connection; never the same again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnId {
    pub(super) key: u32,
    pub(super) serial: u32,
}

/// How a connection ended while it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its socket failed: drop it.
    Broken,
    /// It was slow: it takes no part any more, and is told so when it reads.
    Slow,
}

/// In which form a connection gets messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Bare text.
    Plain,
    /// `chat.v1` objects.
    Chat,
    /// Server-sent events: no WebSocket.
    Events,
    /// Of a room, what is no message, as `chat.v1` objects: to who hears the messages by a pattern.
    Quiet,
}

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A room.
    Room(RoomName),
    /// The rooms of a pattern.
    Pattern(Pattern),
}

impl Heard {
    /// The rooms.
    pub(crate) fn rooms(&self) -> Pattern {
        match self {
            Self::Room(room) => Pattern::Room(room.clone()),
            Self::Pattern(pattern) => pattern.clone(),
        }
    }
}

/// A part of what one client is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Private,
    Batch {
        room: u32,
        style: Style,
        skip: usize,
    },
}

/// A slot or a room, as narrow as its place in the tables.
pub(super) fn narrow(key: usize) -> u32 {
    u32::try_from(key).expect("fewer connections and rooms than 2^32: descriptors run out first")
}
