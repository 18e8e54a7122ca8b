//! What a node is made of: its log and its copies of the others', and what it knows of each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use super::clock::{Clock, Now};
use super::copies::Waits;
use super::durable::Durable;
use super::log::Log;
use super::members::Members;
use super::memory::MemoryStore;
use super::mids::Mids;
use super::output::Effect;
use super::peers::Peers;
use super::position::Positions;
use super::reads::Reads;
use super::repair::Repairs;
use super::rolls::Rolls;
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

/// The state of one node.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) me: Identity,
    pub(super) clock: Clock,
    pub(super) time: Time,
    pub(super) rng: StdRng,
    pub(super) store: MemoryStore,
    /// Of a node with a disk.
    pub(super) durable: Option<Durable>,
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
    /// When the time was looked at last.
    pub(super) looked: Duration,
    pub(super) started: Duration,
    pub(super) expected: Option<BTreeSet<Origin>>,
    /// What others held when all were linked; of that, when clients are taken, what is not here yet.
    pub(super) join_position: Option<BTreeMap<Origin, u64>>,
    pub(super) ready: bool,
    pub(super) effects: Vec<Effect>,
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
    pub(crate) fn new(me: Identity, store: MemoryStore, rng: StdRng, now: Now) -> Self {
        Self {
            logs: BTreeMap::from([(me.origin, Log::default())]),
            me,
            clock: Clock::default(),
            time: Time::default(),
            rng,
            store,
            durable: None,
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
            looked: now.mono,
            started: now.mono,
            expected: None,
            join_position: None,
            ready: false,
            effects: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// Takes the effects of the inputs since the last call, in order, leaving `spare` to be filled.
    pub(crate) fn take_effects(&mut self, spare: Vec<Effect>) -> Vec<Effect> {
        debug_assert!(spare.is_empty());
        std::mem::replace(&mut self.effects, spare)
    }

    /// Whether there are effects to take.
    pub(crate) fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// When [`Core::tick`] must be called at the latest.
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
