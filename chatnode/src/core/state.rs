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
use super::keeper::Keeping;
use super::links::{Links, LinksOptions, Speech, Target};
use super::log::Log;
use super::members::Members;
use super::memory::MemoryStore;
use super::mids::Mids;
use super::nodes::Nodes;
use super::notices::Notices;
use super::output::Output;
use super::pace::{Paces, Request};
use super::peers::Peers;
use super::position::Positions;
use super::reads::Reads;
use super::repair::Repairs;
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
    /// Whether what is said here is given to a keeper, too.
    pub(crate) has_keeper: bool,
    /// Whether it takes in what a keeper holds: joining waits for that.
    pub(crate) is_archive: bool,
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
            has_keeper: false,
            is_archive: false,
        }
    }
}

/// The state of one node.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) me: Identity,
    pub(super) publish_plain: bool,
    pub(super) rng: StdRng,

    // What was said.
    pub(super) logs: BTreeMap<Origin, Log>,
    pub(super) store: MemoryStore,
    pub(super) mids: Mids,
    pub(super) positions: Positions,
    /// Of a node with a disk.
    pub(super) journal: Option<Journal>,
    /// Of a node with a keeper.
    pub(super) keeping: Option<Keeping>,
    /// Who waits to hear that others hold what was said here.
    pub(super) waits: Waits,
    /// What this node is to tell others that it holds of them.
    pub(super) acks: BTreeMap<Origin, Acks>,
    /// What it lacks, and asks for.
    pub(super) repairs: Repairs,
    pub(super) rolls: Rolls,
    pub(super) paces: Paces,
    /// What was asked and has no answer yet.
    pub(super) reads: Reads,

    // Who is there.
    pub(super) links: Links,
    pub(super) greetings: Greetings,
    pub(super) peers: Peers,
    pub(super) nodes: Nodes,
    pub(super) awaited: Awaited,
    /// Whether this node takes clients.
    pub(super) ready: bool,
    pub(super) members: Members,
    /// Whose members are being asked for.
    pub(super) members_asked: BTreeSet<Origin>,
    /// Rooms with many members, whose number is told with the next beat.
    pub(super) crowds: BTreeSet<RoomName>,

    // What time it is.
    pub(super) clock: Clock,
    pub(super) time: Time,
    pub(super) stops: Stops,
    pub(super) started: Duration,
    pub(super) beat_due: Duration,
    /// When this node beat last.
    pub(super) beat_last: Duration,
    pub(super) tick_due: Duration,

    // What is to be done.
    pub(super) outputs: Vec<Output>,
    pub(super) notices: Notices,
    /// What the input made this node ask. Empty, between two inputs.
    pub(super) requests: Vec<Request>,
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
            keeper: options.is_archive,
            ..Awaited::default()
        };
        let links = LinksOptions {
            me: me.origin,
            own: options.own,
            fixed: options.fixed,
        };
        Self {
            logs: BTreeMap::from([(me.origin, Log::default())]),
            store,
            mids: Mids::default(),
            positions: Positions::new(now.wall_us),
            journal: None,
            keeping: options.has_keeper.then(Keeping::new),
            waits: Waits::default(),
            acks: BTreeMap::new(),
            repairs: Repairs::joining(),
            rolls: Rolls::default(),
            paces: Paces::default(),
            links: Links::new(links, StdRng::seed_from_u64(rng.random())),
            greetings: Greetings::default(),
            peers: Peers::new(now.mono),
            nodes: Nodes::new(&me.http),
            awaited,
            ready: false,
            members: Members::default(),
            members_asked: BTreeSet::new(),
            crowds: BTreeSet::new(),
            clock: Clock::default(),
            time: Time::default(),
            stops: Stops::default(),
            started: now.mono,
            beat_due: now.mono,
            beat_last: now.mono,
            tick_due: now.mono,
            reads: Reads::default(),
            outputs: Vec::new(),
            notices: Notices::default(),
            requests: Vec::new(),
            accepted: Vec::new(),
            me,
            publish_plain: options.publish_plain,
            rng,
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
