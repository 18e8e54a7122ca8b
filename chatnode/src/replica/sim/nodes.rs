//! Nodes: how they start, what comes to them, and how they freeze.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::clients::{Call, Conn};
use super::fetches::{Answer, Ask};
use super::net::Link;
use super::world::{Event, NodeId, World};
use crate::bus::frame::Frame;
use crate::replica::log::Span;
use crate::replica::names::{Origin, RoomName, UserName};
use crate::replica::{Identity, Now, Replica};
use crate::store::memory::MemoryStore;

/// How often a node looks at its links.
const LINKS_EVERY: Duration = Duration::from_millis(100);
/// What comes to a node. A frozen node's inputs wait.
#[derive(Debug)]
pub(super) enum Input {
    Frame(NodeId, u64, Frame),
    Connected(NodeId, u64),
    Closed(NodeId, u64),
    Dial(NodeId),
    Hello,
    Links,
    Serve(NodeId, u64, Ask),
    Answer(u64, Answer),
    Client(usize, u64, Call),
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) slot: usize,
    pub(super) origin: Origin,
    pub(super) alive: bool,
    pub(super) frozen: bool,
    /// When it thawed last.
    pub(super) thawed: Duration,
    /// While it is frozen, frames after this are lost: its peers gave up on their connections.
    pub(super) deaf_after: Option<Duration>,
    pub(super) inbox: VecDeque<Input>,
    pub(super) replica: Replica,
    pub(super) mono_offset: Duration,
    pub(super) wall_offset_us: i64,
    pub(super) started: Duration,
    pub(super) crashed: Option<Duration>,
    /// Whether what it had sent and had not arrived died with it.
    pub(super) sent_is_lost: bool,
    pub(super) links: BTreeMap<NodeId, Link>,
    pub(super) asked: BTreeMap<u64, Ask>,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) gaps: Vec<(Origin, Span)>,
    pub(super) holes_before_ready: Vec<(Origin, Span)>,
    /// Members of rooms as told by effects; must agree with what the replica says.
    pub(super) told_members: BTreeMap<RoomName, BTreeSet<UserName>>,
    pub(super) tick_at: Option<Duration>,
}

impl World {
    /// A node starts in a slot: it knows what the registry lists, and is soon known itself.
    pub(super) fn start(&mut self, slot: usize) {
        let id = self.nodes.len();
        let origin = Origin::generate(&mut self.rng);
        let skew = self.plan.clock_skew_max_us;
        if skew > 1_000_000 {
            self.counters.note("fault: clock skew");
        }
        let me = Identity {
            origin,
            name: format!("n{slot}"),
            http: format!("http://n{id}"),
            publisher: format!("tcp://n{id}"),
        };
        let rng = StdRng::seed_from_u64(self.rng.random());
        let mono_offset = self.up_to(Duration::from_secs(100));
        let wall_offset_us = self.rng.random_range(-skew..=skew);
        let now = Now {
            mono: self.now + mono_offset,
            wall_us: self.wall_us(wall_offset_us),
        };
        let store = Box::new(MemoryStore::new(self.plan.retention));
        self.tell(|_| format!("n{id} starts as {origin} in slot {slot}"));
        self.nodes.push(Node {
            slot,
            origin,
            alive: true,
            frozen: false,
            thawed: Duration::ZERO,
            deaf_after: None,
            inbox: VecDeque::new(),
            replica: Replica::new(me, store, rng, now),
            mono_offset,
            wall_offset_us,
            started: self.now,
            crashed: None,
            sent_is_lost: false,
            links: BTreeMap::new(),
            asked: BTreeMap::new(),
            conns: BTreeMap::new(),
            gaps: Vec::new(),
            holes_before_ready: Vec::new(),
            told_members: BTreeMap::new(),
            tick_at: None,
        });
        let mut listed = BTreeSet::new();
        for other in 0..id {
            let lease = Duration::from_secs(3);
            let node = &self.nodes[other];
            if node.alive || node.crashed.is_some_and(|at| self.now < at + lease) {
                listed.insert(node.origin);
                let soon = self.up_to(Duration::from_millis(5));
                self.at(soon, Event::Input(id, Input::Dial(other)));
                let known = self.up_to(Duration::from_millis(300));
                self.at(known, Event::Input(other, Input::Dial(id)));
            }
        }
        self.nodes[id].replica.expect(now, listed);
        self.at(LINKS_EVERY, Event::Input(id, Input::Links));
        self.settle(id);
    }

    pub(super) fn input(&mut self, id: NodeId, input: Input) {
        let node = &mut self.nodes[id];
        if !node.alive {
            return;
        }
        if node.frozen {
            let deaf = node.deaf_after.is_some_and(|at| self.now > at);
            match input {
                Input::Frame(from, dial, _) if deaf => {
                    let told = |input: &Input| matches!(input, Input::Closed(f, _) if *f == from);
                    if !node.inbox.iter().any(told) {
                        node.inbox.push_back(Input::Closed(from, dial));
                    }
                }
                other => node.inbox.push_back(other),
            }
            return;
        }
        let now = self.now_of(id);
        match input {
            Input::Frame(from, dial, frame) => self.frame(id, from, dial, frame),
            Input::Connected(from, dial) => self.connected(id, from, dial),
            Input::Closed(from, dial) => self.closed(id, from, dial),
            Input::Dial(from) => self.dial(id, from),
            Input::Hello => self.nodes[id].replica.ask_beat(now),
            Input::Links => {
                self.check_links(id);
                self.at(LINKS_EVERY, Event::Input(id, Input::Links));
            }
            Input::Serve(to, request, ask) => self.serve(id, to, request, &ask),
            Input::Answer(request, answer) => self.answered(id, request, answer),
            Input::Client(client, conn, call) => self.call(id, client, conn, call),
        }
        self.settle(id);
    }

    pub(super) fn thaw(&mut self, id: NodeId) {
        if !self.nodes[id].alive || !self.nodes[id].frozen {
            return;
        }
        self.tell(|_| format!("n{id} thaws"));
        let now = self.now;
        let node = &mut self.nodes[id];
        node.frozen = false;
        node.thawed = now;
        node.tick_at = None;
        node.deaf_after = None;
        let inbox = std::mem::take(&mut node.inbox);
        // What is late is done first, or last, as the runtime happens to poll.
        let tick_first = self.chance(0.5);
        let now = self.now_of(id);
        if tick_first {
            self.nodes[id].replica.tick(now);
            self.settle(id);
        }
        for input in inbox {
            self.input(id, input);
        }
        self.nodes[id].replica.tick(now);
        self.settle(id);
    }
}
