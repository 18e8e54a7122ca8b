//! What goes into [`Links`], and what comes out.
//!
//! [`Links`]: super::Links

use std::time::Duration;

use crate::core::links::fault::Fault;
use crate::model::names::Origin;

/// One attempt to hear one peer. A new dial is a new id, so that late news of an old link cannot
/// be mistaken for news of its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a link listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// A chatnode: frames with topics.
    Mesh,
    /// A foreign publisher of the plain form, `chat <text>`.
    Plain,
}

/// Someone to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who should be there; unknown for endpoints given by hand.
    pub origin: Option<Origin>,
    /// `tcp://HOST:PORT` of its publisher.
    pub endpoint: String,
    /// URL of its HTTP port, as far as known; its beats say it too.
    pub http: String,
    /// What it speaks.
    pub speech: Speech,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
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
    /// Someone wanted is not heard for [`super::UNLINKED_AFTER`], or now for another reason; for the
    /// log.
    Unlinked {
        /// Who should be there.
        origin: Option<Origin>,
        /// Where.
        endpoint: String,
        /// Why not.
        fault: Fault,
    },
    /// A link was silent for [`super::SILENCE_MAX`]; for the log. Hanging up is an effect of its own.
    Silent {
        /// Which link.
        link: LinkId,
        /// Who was there, if a beat ever told.
        origin: Option<Origin>,
    },
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Dials.
    pub dials: u64,
    /// Links where another node than the expected one was found.
    pub misdirected: u64,
    /// Links where a node of another mesh was found.
    pub strangers: u64,
    /// Links to an origin that was already heard, or to this node itself.
    pub redundant: u64,
    /// Links torn down for silence.
    pub silent: u64,
    /// Links given up because what came over them was ever older.
    pub behind: u64,
    /// Targets that found no place in the table.
    pub refused: u64,
}

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Being dialled, or waiting for the next dial.
    Dialing,
    /// Heard.
    Up,
    /// Connected, but the next beat is overdue or the first has not come.
    Silent,
}

/// One peer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Who it is, or should be.
    pub origin: Option<Origin>,
    /// Its display name, once a beat has told.
    pub name: String,
    /// The endpoint dialled.
    pub publisher: String,
    /// URL of its HTTP port, as far as known.
    pub http: String,
    /// What it speaks.
    pub speech: Speech,
    /// How the link is.
    pub state: LinkState,
    /// Time since the last beat.
    pub beat_age: Option<Duration>,
    /// Why it is not heard, as far as is known; of one that is heard, why it did not take this
    /// node's hello.
    pub fault: Option<Fault>,
}

/// Who this node is and whom it always wants.
#[derive(Debug)]
pub struct LinksOptions {
    /// This node.
    pub me: Origin,
    /// Where this node itself can be reached: bound and advertised endpoints.
    pub own: Vec<String>,
    /// Endpoints given by hand: wanted for ever.
    pub fixed: Vec<Target>,
}
