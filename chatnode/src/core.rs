//! The replicated log, pure: input and time in, effects out. No socket, no clock, no runtime.
//!
//! Each node keeps one append-only log of what its own clients said, numbered 1, 2, 3, …, and a
//! copy of every other node's. Order, duplicates, gaps, repair, resume and acknowledgement are
//! statements about positions in logs:
//!
//! - an entry whose number is the next is **accepted**: kept, shown in its room's transcript at its
//!   place `(ts, origin)`, and delivered to the room's clients here;
//! - one below is a **duplicate**; one above is **held back**, and what is between is **repaired**
//!   ([`repair`]);
//! - a **beat** says how far a node's log reaches and what it holds of all others, so a lost tail
//!   is noticed without another entry, and what a dead node said is found at whoever has it;
//! - a client that comes back names the position it has seen, and gets what is beyond ([`resume`]).
//!
//! The caller reads the clocks, moves the bytes and carries out the [`Effect`]s in order.

#[macro_use]
mod mutants;

pub(crate) mod archive;
pub(crate) mod clock;
pub(crate) mod copies;
pub(crate) mod durable;
mod holes;
mod inputs;
mod joining;
pub(crate) mod links;
pub(crate) mod log;
pub(crate) mod members;
pub(crate) mod memory;
pub(crate) mod mids;
pub(crate) mod named;
pub(crate) mod news;
mod peers;
pub(crate) mod position;
pub(crate) mod presence;
#[cfg(test)]
mod properties;
pub(crate) mod repair;
pub(crate) mod resume;
mod rolls;
#[cfg(test)]
mod sim;
mod stored;
#[cfg(test)]
mod tests;
mod time;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use self::clock::Clock;
use self::copies::{Ticket, Waits};
use self::durable::{Durable, NotTaken};
use self::log::{AHEAD_ALL_BYTES_MAX, Arrival, Log, Span};
use self::members::{Change, Members, Snapshot};
use self::mids::{Mids, Verdict};
use self::news::News;
use self::peers::{Peer, Peers};
use self::position::Positions;
use self::repair::{Fetch, Repairs, Step};
use self::rolls::Rolls;
use self::time::Time;
use crate::core::memory::MemoryStore;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin, RoomName, UserName};

/// How often a node beats.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A beat that was asked for, or that a new link deserves, comes so much later at the most.
const BEAT_SOON: Duration = Duration::from_millis(5);
/// How often time alone is looked at.
const TICK_EVERY: Duration = Duration::from_millis(100);
/// A node takes clients after so long, though it may lack some peers.
const JOIN_MAX: Duration = Duration::from_secs(5);
/// Acknowledgements to one origin are so far apart at the least.
const ACK_EVERY: Duration = Duration::from_millis(5);
/// Logs of which numbers are kept at the most; beyond, those of dead origins that are trimmed
/// whole are forgotten, those that were trimmed first before others.
pub(crate) const ORIGINS_MAX: usize = 8192;
/// A list of accepted entries that has grown longer is given back.
const ACCEPTED_KEPT_MAX: usize = 4096;

/// The time: what [`Core::time`] makes of what the caller's clocks show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Monotonic, from any fixed point. Decides all waiting.
    pub(crate) mono: Duration,
    /// Microseconds since 1970. Only for timestamps.
    pub(crate) wall_us: u64,
}

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
    /// Names the request; comes back in [`Effect::Said`].
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

/// What the caller must do, in order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Publish an entry of this node's own log.
    Append {
        /// What.
        entry: Arc<Entry>,
        /// Whether others are to acknowledge it at once.
        ack_wanted: bool,
        /// Where it comes from.
        source: Source,
    },
    /// Tell the other nodes, after all entries appended before it.
    Publish(News),
    /// Bring an entry to the room's clients on this node, which lacked nothing of its origin through
    /// this number then.
    Deliver(Arc<Entry>, u64),
    /// Answer a [`Say`].
    Said {
        /// Whose.
        ticket: Ticket,
        /// The entry it became, or became before.
        id: EntryId,
        /// Its timestamp.
        ts: u64,
        /// How many other nodes hold it.
        copies: usize,
    },
    /// Answer a [`Say`]: it was not taken.
    NotSaid {
        /// Whose.
        ticket: Ticket,
        /// Why.
        why: NotTaken,
    },
    /// Ask a peer for entries; tell the outcome by [`Core::fetched`].
    Fetch(Fetch),
    /// Ask a peer for its members; tell the outcome by [`Core::members_fetched`].
    FetchMembers(Origin),
    /// Tell all rooms' clients that these numbers are lost.
    Gap(Origin, Span),
    /// Tell a room's clients who came and went, and how many there are.
    Members(Change, usize),
    /// Tell a room's clients that somebody types.
    Typing(RoomName, UserName),
    /// Take clients.
    Ready {
        /// Peers that were listed and are not linked.
        #[cfg_attr(not(test), expect(dead_code, reason = "the simulator judges by it"))]
        unlinked: Vec<Origin>,
        /// Origins of which not all is here that others held; see [`Core::lacking`].
        lacking: Vec<Origin>,
    },
    /// All that others held is here, which was not when clients began to be taken.
    Whole,
    /// Ask a peer for its position; tell the outcome by [`Core::position_told`].
    AskPosition(Origin),
    /// The roll call of this number is over, and all before it.
    RollOver(u64),
    /// Sends and joins need not wait any longer.
    CaughtUp,
}

/// The state of one node.
#[derive(Debug)]
pub(crate) struct Core {
    me: Identity,
    clock: Clock,
    time: Time,
    rng: StdRng,
    store: MemoryStore,
    /// Of a node with a disk.
    durable: Option<Durable>,
    logs: BTreeMap<Origin, Log>,
    positions: Positions,
    mids: Mids,
    peers: Peers,
    members: Members,
    members_asked: BTreeSet<Origin>,
    crowds: BTreeSet<RoomName>,
    repairs: Repairs,
    rolls: Rolls,
    waits: Waits,
    acks: BTreeMap<Origin, Acks>,
    beat_due: Duration,
    tick_due: Duration,
    /// When the time was looked at last.
    looked: Duration,
    started: Duration,
    expected: Option<BTreeSet<Origin>>,
    /// What others held when all were linked; of that, when clients are taken, what is not here yet.
    join_position: Option<BTreeMap<Origin, u64>>,
    ready: bool,
    effects: Vec<Effect>,
    /// Empty, between two inputs.
    accepted: Vec<Arc<Entry>>,
}

/// Acknowledgements to one origin.
#[derive(Debug, Default)]
struct Acks {
    due: Option<Duration>,
    last: Option<Duration>,
    /// The number that was acknowledged last, and the one that is to be.
    told: u64,
    wanted: u64,
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

    fn log_mut(&mut self, origin: Origin) -> &mut Log {
        self.logs.entry(origin).or_default()
    }

    /// Keeps, shows and delivers entries that this origin's log has accepted. The list is
    /// kept, empty, for the next.
    fn accept(&mut self, origin: Origin, mut accepted: Vec<Arc<Entry>>, now: Now) {
        self.note_times(origin, accepted.iter().map(|entry| entry.ts));
        let log = self.log_mut(origin);
        log.counts.received += accepted.len() as u64;
        let whole = log.whole();
        for entry in &accepted {
            self.clock.observe(entry.ts, now.wall_us);
            self.store.keep(entry);
        }
        if accepted.len() == 1
            && let Some(entry) = accepted.pop()
        {
            let verdict = self.mids.note(&entry, |id| self.store.get(id).is_some());
            self.accept_one(entry, &verdict, whole);
        }
        while !accepted.is_empty() {
            let together = accepted.len().min(mids::NOTED_TOGETHER);
            let kept = |id| self.store.get(id).is_some();
            let verdicts = self.mids.note_together(&accepted[..together], kept);
            for (entry, verdict) in accepted.drain(..together).zip(verdicts) {
                self.accept_one(entry, &verdict, whole);
            }
        }
        if accepted.capacity() <= ACCEPTED_KEPT_MAX {
            self.accepted = accepted;
        }
        self.trim(now);
    }

    fn accept_one(&mut self, entry: Arc<Entry>, verdict: &Verdict, whole: u64) {
        if *verdict != Verdict::Repeats {
            self.store.show(&entry);
        }
        self.hand_to_disk(&entry, verdict);
        match verdict {
            Verdict::First if self.ready => self.effects.push(Effect::Deliver(entry, whole)),
            Verdict::Replaces(place, _) => self.store.hide(&entry.room, *place),
            Verdict::First | Verdict::Repeats | Verdict::Outlives => {}
        }
    }

    fn trim(&mut self, now: Now) {
        let mut at = None;
        loop {
            // What the disk has not got yet is only here.
            let durable = self.durable.as_ref();
            let may = |entry: &Entry| durable.is_none_or(|it| it.has_written(entry.id()));
            let Some(entry) = self.store.trim(may) else {
                break;
            };
            if self.durable.is_some() {
                self.log_mut(entry.origin).evicted(entry.seq);
            } else {
                let at = *at.get_or_insert_with(|| self.trim_time(now));
                let log = self.log_mut(entry.origin);
                log.trimmed(entry.seq);
                log.times.trim(at);
            }
            let instead = self.mids.trimmed(&entry, now);
            let instead = instead.filter(|_| !mutated!(NoneShownInstead));
            if let Some(entry) = instead.and_then(|id| self.store.get(id)) {
                self.store.show(&entry);
            }
        }
    }

    /// Decides about what an origin's log lacks.
    fn repair(&mut self, origin: Origin, now: Now) {
        if self.pauses_repair() {
            return;
        }
        loop {
            let Some(log) = self.logs.get_mut(&origin) else {
                return;
            };
            match self
                .repairs
                .step(now.mono, origin, log, &self.peers, &mut self.rng)
            {
                Step::Wait => return,
                Step::WaitUntil(at) => {
                    self.tick_due = self.tick_due.min(at);
                    return;
                }
                Step::Fetch(fetch) => {
                    log.asked_for(!self.ready);
                    return self.effects.push(Effect::Fetch(fetch));
                }
                Step::Pass(through) => {
                    let mut accepted = Vec::new();
                    let joining = !self.ready && self.durable.is_none();
                    if joining && log.is_trimmed_elsewhere(through) {
                        log.skip(through, &mut accepted);
                        let at = self.trim_time(now);
                        self.log_mut(origin).times.skip(at);
                    } else {
                        let span = log.pass(through, &mut accepted);
                        self.repairs.holes_changed(now.mono);
                        if !mutated!(GapNotAnnounced) {
                            self.effects.push(Effect::Gap(origin, span));
                        }
                    }
                    self.accept(origin, accepted, now);
                }
            }
        }
    }

    /// Takes entries from a link or a repair.
    fn arrive(
        &mut self,
        origin: Origin,
        entries: impl IntoIterator<Item = Arc<Entry>>,
        now: Now,
    ) -> usize {
        let mut entries = entries.into_iter().peekable();
        let held = self.logs.get(&origin).map_or(0, Log::held);
        if let Some(first) = entries.peek()
            && first.seq > held + 1
            && self.logs.values().map(Log::held_back_bytes).sum::<usize>() >= AHEAD_ALL_BYTES_MAX
        {
            let seq = first.seq;
            self.log_mut(origin).claim(seq);
            return 0;
        }
        let mut accepted = std::mem::take(&mut self.accepted);
        let log = self.logs.entry(origin).or_default();
        for entry in entries {
            if log.arrive(entry, &mut accepted) == Arrival::Refused {
                break;
            }
        }
        let count = accepted.len();
        self.accept(origin, accepted, now);
        count
    }

    fn told_members(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let count = self.members.count(&change.room);
            if count > members::MEMBERS_LISTED_MAX {
                self.crowds.insert(change.room);
            } else {
                self.effects.push(Effect::Members(change, count));
            }
        }
    }

    fn settle_waits(&mut self, now: Now) {
        if self.waits.is_empty() {
            return;
        }
        let mut waits = std::mem::take(&mut self.waits);
        let mut said = Vec::new();
        let solid = |(_, peer): (_, &Peer)| peer.solid(self.me.origin);
        let mut acknowledged: Vec<u64> = self.peers.heard().map(solid).collect();
        acknowledged.sort_unstable_by(|a, b| b.cmp(a));
        waits.settle(
            now.mono,
            &acknowledged,
            |id| self.copies(id),
            |wait, copies| {
                said.push(Effect::Said {
                    ticket: wait.ticket,
                    id: wait.id,
                    ts: wait.ts,
                    copies,
                });
            },
        );
        self.waits = waits;
        self.effects.append(&mut said);
    }

    fn forget_members(&mut self, origin: Origin) {
        let changes: Vec<Change> = self.members.forget(origin);
        self.told_members(changes);
    }

    fn replace_members(&mut self, origin: Origin, snapshot: Snapshot) {
        let changes = self.members.replace(origin, snapshot);
        self.told_members(changes);
    }
}
