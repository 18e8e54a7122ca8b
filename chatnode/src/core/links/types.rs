//! What goes into [`Links`], and what comes out.
//!
//! [`Links`]: super::Links

use std::time::Duration;

use super::fault::Fault;
use crate::model::names::Origin;

/// One attempt to hear one peer. A new dial is a new id, so that late news of an old link cannot
/// be mistaken for news of its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// What a link listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// A chatnode: frames with topics.
    Mesh,
    /// A foreign publisher of the plain form, `chat <text>`.
    Plain,
    /// A broker: beats of all who are on it, this node's own too. It proves nothing but itself; each
    /// node is heard on a link of its own.
    Hall,
}

/// By which carrier somebody is heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Via {
    /// From node to node.
    #[default]
    Nodes,
    /// By a broker, the first of which is 0.
    Broker(u8),
}

/// Where a node is heard at a broker: the broker's endpoint, this, and its origin.
pub(super) const AT: char = '#';

/// Whom a link by a broker is to hear, by the endpoint that was dialled.
pub(crate) fn heard_at(endpoint: &str) -> Option<Origin> {
    endpoint.rsplit_once(AT)?.1.parse().ok()
}

/// Someone to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Who should be there; unknown for endpoints given by hand.
    pub(crate) origin: Option<Origin>,
    /// `tcp://HOST:PORT` or `tls://HOST:PORT` of its publisher.
    pub(crate) endpoint: String,
    /// URL of its HTTP port, as far as known; its beats say it too.
    pub(crate) http: String,
    /// What it speaks.
    pub(crate) speech: Speech,
    /// How it is reached.
    pub(crate) via: Via,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Let the carrier dial.
    Dial {
        /// A link never used before.
        link: LinkId,
        /// Where.
        endpoint: String,
        /// What to listen for.
        speech: Speech,
    },
    /// Let the carrier hang up.
    HangUp {
        /// Which link.
        link: LinkId,
    },
    /// This origin is heard now, and was not before.
    Up {
        /// Who.
        origin: Origin,
    },
    /// This origin is no longer heard. Comes once for each [`Effect::Up`].
    Down {
        /// Who.
        origin: Origin,
    },
    /// What is published at this broker comes back, and did not before.
    HallUp {
        /// The broker.
        endpoint: String,
    },
    /// Nothing is heard from this broker any more. Comes once for each [`Effect::HallUp`].
    HallDown {
        /// The broker.
        endpoint: String,
    },
    /// Someone wanted is not heard for ten seconds, or now for another reason; for the
    /// log.
    Unlinked {
        /// Who should be there.
        origin: Option<Origin>,
        /// Where.
        endpoint: String,
        /// Why not.
        fault: Fault,
    },
    /// A link was silent for three seconds; for the log. Hanging up is an effect of its own.
    Silent {
        /// Which link.
        link: LinkId,
        /// Who was there, if a beat ever told.
        origin: Option<Origin>,
    },
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Dials.
    pub(crate) dials: u64,
    /// Links where another node than the expected one was found.
    pub(crate) misdirected: u64,
    /// Links where a node of another mesh was found.
    pub(super) strangers: u64,
    /// Links to an origin that was already heard, or to this node itself.
    pub(super) redundant: u64,
    /// Links torn down for silence.
    pub(crate) silent: u64,
    /// Links given up because what came over them was ever older.
    pub(crate) behind: u64,
    /// Targets that found no place in the table.
    pub(super) refused: u64,
}

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// Being dialled, or waiting for the next dial.
    Dialing,
    /// Heard.
    Up,
    /// Connected, but the next beat is overdue or the first has not come.
    Silent,
}

/// One peer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkStatus {
    /// The link, if there is one now.
    pub(crate) link: Option<LinkId>,
    /// Who it is, or should be.
    pub(crate) origin: Option<Origin>,
    /// Its display name, once a beat has told.
    pub(crate) name: String,
    /// The endpoint dialled.
    pub(crate) publisher: String,
    /// URL of its HTTP port, as far as known.
    pub(crate) http: String,
    /// What it speaks.
    pub(crate) speech: Speech,
    /// By which carrier.
    pub(crate) via: Via,
    /// How the link is.
    pub(crate) state: LinkState,
    /// Time since the last beat.
    pub(crate) beat_age: Option<Duration>,
    /// Of a hall: how long the last own beat took there and back.
    pub(crate) echo: Option<Duration>,
    /// Why it is not heard, as far as is known; of one that is heard, why it did not take this
    /// node's hello.
    pub(crate) fault: Option<Fault>,
}

/// Who this node is and whom it always wants.
#[derive(Debug)]
pub(crate) struct LinksOptions {
    /// This node.
    pub(crate) me: Origin,
    /// Where this node itself can be reached: bound and advertised endpoints.
    pub(crate) own: Vec<String>,
    /// Endpoints given by hand: wanted for ever.
    pub(crate) fixed: Vec<Target>,
}
