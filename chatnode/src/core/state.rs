//! What a node is made of: its log and its copies of the others', and what it knows of each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::awaited::Awaited;
use super::clock::{Clock, Now};
use super::copies::Waits;
use super::greetings::Greetings;
use super::journal::Journal;
use super::links::{Links, LinksOptions, Speech, Target};
use super::log::Log;
use super::members::Members;
use super::memory::MemoryStore;
use super::mids::Mids;
use super::nodes::Nodes;
use super::notices::Notices;
use super::output::Output;
use super::pace::Paces;
use super::peers::Peers;
use super::position::Positions;
use super::reads::Reads;
use super::repair::Repairs;
use super::requests::Request;
use super::rolls::Rolls;
use super::stops::Stops;
use super::time::Time;
use crate::model::entry::Entry;
use crate::model::names::{Origin, RoomName};

/// Who this node is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// This start of this node.
    pub(crate) origin: Origin,
    /// Display name.
    pub(crate) name: String,
    /// Where its HTTP is, as others are told.
    pub(crate) http: String,
    /// Where its PUB socket is, as others are told.
    pub(crate) publisher: String,
}

/// What a node is told when it starts.
#[derive(Debug)]
pub(crate) struct CoreOptions {
    /// Who it is.
    pub(crate) me: Identity,
    /// Where it can be reached: bound and advertised endpoints of its publisher.
    pub(crate) own: Vec<String>,
    /// Endpoints given by hand: wanted for ever, and joining waits for those of nodes.
    pub(crate) fixed: Vec<Target>,
    /// Whether what its clients say in the plain form's room is published in that form too.
    pub(crate) publish_plain: bool,
}

impl CoreOptions {
    /// Of a node to which nothing was given by hand.
    #[cfg(test)]
    pub(crate) fn of(me: Identity) -> Self {
        Self {
            me,
            own: Vec::new(),
            fixed: Vec::new(),
            publish_plain: false,
        }
    }
}

/// The state of one node.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) me: Identity,
    pub(super) clock: Clock,
    pub(super) time: Time,
    pub(super) rng: StdRng,
    pub(super) store: MemoryStore,
    /// Of a node with a disk.
    pub(super) journal: Option<Journal>,
    pub(super) logs: BTreeMap<Origin, Log>,
    pub(super) positions: Positions,
    pub(super) mids: Mids,
    pub(super) peers: Peers,
    pub(super) members: Members,
    pub(super) members_asked: BTreeSet<Origin>,
    pub(super) crowds: BTreeSet<RoomName>,
    pub(super) repairs: Repairs,
    pub(super) rolls: Rolls,
    pub(super) reads: Reads,
    pub(super) waits: Waits,
    pub(super) acks: BTreeMap<Origin, Acks>,
    pub(super) beat_due: Duration,
    pub(super) tick_due: Duration,
    pub(super) stops: Stops,
    pub(super) started: Duration,
    pub(super) expected: Option<BTreeSet<Origin>>,
    /// What others held when all were linked; of that, when clients are taken, what is not here yet.
    pub(super) join_position: Option<BTreeMap<Origin, u64>>,
    pub(super) ready: bool,
    pub(super) links: Links,
    pub(super) greetings: Greetings,
    pub(super) awaited: Awaited,
    pub(super) nodes: Nodes,
    pub(super) notices: Notices,
    pub(super) paces: Paces,
    pub(super) publish_plain: bool,
    /// What the input made this node ask. Empty, between two inputs.
    pub(super) requests: Vec<Request>,
    pub(super) outputs: Vec<Output>,
    /// Empty, between two inputs.
    pub(super) accepted: Vec<Arc<Entry>>,
}

/// Acknowledgements to one origin.
#[derive(Debug, Default)]
pub(super) struct Acks {
    pub(super) due: Option<Duration>,
    pub(super) last: Option<Duration>,
    /// The number that was acknowledged last, and the one that is to be.
    pub(super) told: u64,
    pub(super) wanted: u64,
}

impl Core {
    /// A node that has just started and knows nobody.
    pub(crate) fn new(options: CoreOptions, store: MemoryStore, mut rng: StdRng, now: Now) -> Self {
        let me = options.me;
        let by_hand = options.fixed.iter();
        let by_hand = by_hand.filter(|target| target.speech == Speech::Mesh);
        let awaited = Awaited {
            by_hand: by_hand.map(|target| target.endpoint.clone()).collect(),
            ..Awaited::default()
        };
        let links = LinksOptions {
            me: me.origin,
            own: options.own,
            fixed: options.fixed,
        };
        Self {
            links: Links::new(links, StdRng::seed_from_u64(rng.random())),
            greetings: Greetings::default(),
            awaited,
            nodes: Nodes::new(&me.http),
            notices: Notices::default(),
            paces: Paces::default(),
            publish_plain: options.publish_plain,
            requests: Vec::new(),
            logs: BTreeMap::from([(me.origin, Log::default())]),
            me,
            clock: Clock::default(),
            time: Time::default(),
            rng,
            store,
            journal: None,
            positions: Positions::new(now.wall_us),
            mids: Mids::default(),
            peers: Peers::new(now.mono),
            members: Members::default(),
            members_asked: BTreeSet::new(),
            crowds: BTreeSet::new(),
            repairs: Repairs::joining(),
            rolls: Rolls::default(),
            reads: Reads::default(),
            waits: Waits::default(),
            acks: BTreeMap::new(),
            beat_due: now.mono,
            tick_due: now.mono,
            stops: Stops::default(),
            started: now.mono,
            expected: None,
            join_position: None,
            ready: false,
            outputs: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// Takes the outputs of the inputs since the last call, in order, leaving `spare` to be filled.
    pub(crate) fn take_outputs(&mut self, spare: Vec<Output>) -> Vec<Output> {
        debug_assert!(spare.is_empty());
        std::mem::replace(&mut self.outputs, spare)
    }

    /// Whether there are outputs to take.
    pub(crate) fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// When [`Input::Tick`](super::input::Input::Tick) must come at the latest.
    pub(crate) fn deadline(&self) -> Duration {
        let acks = self.acks.values().filter_map(|acks| acks.due);
        acks.chain([self.beat_due, self.tick_due])
            .min()
            .unwrap_or(self.tick_due)
    }

    pub(super) fn log_mut(&mut self, origin: Origin) -> &mut Log {
        self.logs.entry(origin).or_default()
    }
}
