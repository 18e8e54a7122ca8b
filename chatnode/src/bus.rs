//! What carries frames between nodes, behind one small trait.
//!
//! A bus moves bytes and tells of links; it decides nothing. Which peers to dial, when a silent
//! link is torn down and when it is dialled again is [`links`]' business, which is pure. What a
//! frame means is [`frame`]'s. A bus may lose, and says nothing when it does: truth is in the
//! numbers of the log, never in the socket.

pub mod fault;
pub mod frame;
pub mod links;
pub mod memory;
pub mod mesh_name;
pub mod parts;
pub mod zmq;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

use self::fault::Fault;
use self::mesh_name::MeshName;
use crate::replica::names::Origin;

/// What a frame is about; the first part of the message on the wire, as it is in the mesh without a
/// name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// `m1.log`: entries.
    Log,
    /// `m1.beat`: who is there and what it holds.
    Beat,
    /// `m1.live`: what may be lost: typing, changes of members.
    Live,
    /// `m1.ack.<origin>`: a position for that origin, which alone subscribes to it.
    Ack(Origin),
}

/// One attempt to hear one peer. A new dial is a new id, so that late news of an old link cannot
/// be mistaken for news of its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a link listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// A chatnode: frames with topics.
    Mesh,
    /// A foreign publisher of `chat <text>`, as in the chapter.
    Plain,
}

/// News from the bus.
#[derive(Debug)]
pub enum BusEvent {
    /// The link's socket is connected and subscribed. Who is there, its first beat tells.
    Connected(LinkId),
    /// The link could not connect, or it ended. It is gone; nothing more comes from it.
    Closed(LinkId, Fault),
    /// A node of another mesh publishes there.
    Stranger(LinkId, MeshName),
    /// A frame came. The body is a copy of its own: it may be kept.
    Frame(LinkId, Topic, Bytes),
    /// A foreign publisher said this.
    Plain(LinkId, String),
}

impl BusEvent {
    /// Whose news it is.
    pub fn link(&self) -> LinkId {
        match self {
            Self::Connected(link)
            | Self::Closed(link, _)
            | Self::Stranger(link, _)
            | Self::Frame(link, ..)
            | Self::Plain(link, _) => *link,
        }
    }
}

/// Carries frames between nodes.
pub trait Bus: fmt::Debug {
    /// Publishes a frame to all that hear this node. Never waits; may lose.
    fn publish(&mut self, topic: Topic, body: Bytes);

    /// Publishes `chat <text>`, the chapter's plain form.
    fn publish_plain(&mut self, text: &str);

    /// Starts to hear a peer. The outcome comes as an event with this id.
    fn dial(&mut self, link: LinkId, endpoint: &str, speech: Speech);

    /// Stops hearing. No event of this link comes after this call, queued ones included.
    fn hang_up(&mut self, link: LinkId);

    /// The next event. Cancel safe.
    fn event(&mut self) -> impl Future<Output = BusEvent>;

    /// Makes sure that what was published has left for those that take it, then closes. Waits
    /// `grace` at the most.
    fn close(self, grace: std::time::Duration) -> impl Future<Output = ()>;
}
