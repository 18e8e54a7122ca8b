//! What carries frames between nodes, behind one small trait.
//!
//! A carrier moves bytes and tells of links; it decides nothing. Which peers to dial, when a silent
//! link is torn down and when it is dialled again is [`links`](crate::core::links)' business, which is pure. What a
//! frame means is [`frame`](crate::wire::frame)'s. A carrier may lose, and says nothing when it does: truth is in the
//! numbers of the log, never in the socket.

pub(crate) mod all;
pub(crate) mod broker;
pub(crate) mod dial;
pub(crate) mod parts;
pub(crate) mod sealed;
pub(crate) mod tls;
pub(crate) mod zmq;

#[cfg(test)]
mod tests;

use std::fmt;

use base::tls::KeyId;
use bytes::Bytes;

use crate::core::links::fault::Fault;
use crate::core::links::{LinkId, Speech};
use crate::model::mesh_name::MeshName;
use crate::wire::frame::Topic;

/// News from the carrier.
#[derive(Debug)]
pub(crate) enum CarrierEvent {
    /// The link's socket is connected and subscribed. Who is there, its first beat tells.
    /// With a mesh secret, also which key it has shown.
    Connected(LinkId, Option<KeyId>),
    /// The link could not connect, or it ended. It is gone; nothing more comes from it.
    Closed(LinkId, Fault),
    /// A node of another mesh publishes there.
    Stranger(LinkId, MeshName),
    /// A frame came. The body is a copy of its own: it may be kept.
    Frame(LinkId, Topic, Bytes),
    /// A foreign publisher said this.
    Plain(LinkId, String),
}

impl CarrierEvent {
    /// Whose news it is.
    fn link(&self) -> LinkId {
        match self {
            Self::Connected(link, _)
            | Self::Closed(link, _)
            | Self::Stranger(link, _)
            | Self::Frame(link, ..)
            | Self::Plain(link, _) => *link,
        }
    }
}

/// What a carrier is told to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Publish a frame to all that hear this node. Never waits; may lose.
    Publish(Topic, Bytes),
    /// Publish `chat <text>`, the plain form.
    PublishPlain(String),
    /// Start to hear a peer. The outcome comes as an event with this id.
    Dial(LinkId, String, Speech),
    /// Stop hearing. No event of this link comes after this, queued ones included.
    HangUp(LinkId),
}

/// Carries frames between nodes.
pub(crate) trait Carrier: fmt::Debug {
    /// Does what it is told.
    fn carry(&mut self, command: Command);

    /// The next event. Cancel safe.
    fn event(&mut self) -> impl Future<Output = CarrierEvent>;

    /// Makes sure that what was published has left for those that take it, then closes. Waits
    /// `grace` at the most.
    fn close(self, grace: std::time::Duration) -> impl Future<Output = ()>;
}
