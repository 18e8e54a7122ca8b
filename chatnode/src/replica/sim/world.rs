//! The world: nodes, time, and the queue of what is to happen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Counters;
use super::clients::{Call, Client, Conn, Doing, Push};
use super::faults::Fault;
use super::net::{Answer, Ask, Link, Net};
use super::plan::{Plan, SETTLE};
use crate::bus::Topic;
use crate::bus::frame::{Frame, LogFrame};
use crate::replica::copies::Ticket;
use crate::replica::entry::Entry;
use crate::replica::log::Span;
use crate::replica::names::{EntryId, Mid, Origin, RoomName, UserName};
use crate::replica::{Effect, Identity, Now, Replica};
use crate::store::memory::MemoryStore;

/// One start of one node. A restarted node is a new one in the same slot.
pub(super) type NodeId = usize;

/// How often a node looks at its links.
const LINKS_EVERY: Duration = Duration::from_millis(100);
/// 2025-10-09.
const WALL_START_US: i64 = 1_760_000_000_000_000;

/// What is to happen.
#[derive(Debug)]
pub(super) enum Event {
    Input(NodeId, Input),
    Tick(NodeId, Duration),
    Client(usize, Doing),
    Start(usize),
    Thaw(NodeId),
    Fault,
    Mend(Fault),
    Heal,
}

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
    tick_at: Option<Duration>,
}

/// A reply that said how many hold an entry.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) node: NodeId,
    pub(super) id: EntryId,
    pub(super) copies: usize,
    pub(super) holders: Vec<NodeId>,
}

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) story: bool,
    pub(super) rng: StdRng,
    pub(super) plan: Plan,
    pub(super) now: Duration,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    pub(super) clients: Vec<Client>,
    pub(super) counters: Counters,
    /// All that was ever said.
    pub(super) ledger: BTreeMap<EntryId, Arc<Entry>>,
    pub(super) replies: Vec<Reply>,
    /// Who waits for which reply.
    pub(super) tickets: BTreeMap<Ticket, (usize, Option<u64>, Option<Mid>)>,
    pub(super) healed: bool,
    pub(super) serial: u64,
    queue: BinaryHeap<Reverse<(Duration, u64, Queued)>>,
}

/// An event in the queue; its order is that of its time and number alone.
struct Queued(Event);

impl PartialEq for Queued {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl World {
    pub(super) fn new(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng);
        let mut world = Self {
            seed,
            story,
            now: Duration::ZERO,
            nodes: Vec::new(),
            net: Net::new(plan.slots),
            clients: Vec::new(),
            counters: Counters::default(),
            ledger: BTreeMap::new(),
            replies: Vec::new(),
            tickets: BTreeMap::new(),
            healed: false,
            serial: 0,
            queue: BinaryHeap::new(),
            rng,
            plan,
        };
        world.tell(|w| format!("{:?}", w.plan));
        for slot in 0..world.plan.slots {
            let after = world.up_to(Duration::from_millis(1500));
            world.at(after, Event::Start(slot));
        }
        for index in 0..world.plan.clients {
            let room = world.rng.random_range(0..world.plan.rooms);
            world.clients.push(Client::new(index, room));
            let after = world.up_to(Duration::from_millis(2500));
            world.at(after, Event::Client(index, Doing::Act));
        }
        let first = Duration::from_secs(1);
        world.at(first, Event::Fault);
        world.at(world.plan.faults_end, Event::Heal);
        world
    }

    /// Runs until everything had its time to converge.
    pub(super) fn run(&mut self) {
        let end = self.plan.faults_end + SETTLE;
        while let Some(Reverse((at, _, Queued(event)))) = self.queue.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input(node, input) => self.input(node, input),
            Event::Tick(id, at) => {
                let node = &self.nodes[id];
                if node.alive && !node.frozen && node.tick_at == Some(at) {
                    self.nodes[id].tick_at = None;
                    let now = self.now_of(id);
                    self.nodes[id].replica.tick(now);
                    self.settle(id);
                }
            }
            Event::Client(client, doing) => self.client(client, doing),
            Event::Start(slot) => self.start(slot),
            Event::Thaw(id) => self.thaw(id),
            Event::Fault => self.fault(),
            Event::Mend(fault) => self.mend(&fault),
            Event::Heal => self.heal(),
        }
    }

    /// Puts an event into the queue, `after` from now.
    pub(super) fn at(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.queue
            .push(Reverse((self.now + after, self.serial, Queued(event))));
    }

    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random())
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    pub(super) fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        if among.is_empty() {
            return None;
        }
        Some(among[self.rng.random_range(0..among.len())])
    }

    /// Tells a line of the story of a seed that is replayed alone.
    pub(super) fn tell(&self, line: impl FnOnce(&Self) -> String) {
        if self.story {
            println!("{:>10.4} {}", self.now.as_secs_f64(), line(self));
        }
    }

    /// A promise was broken.
    #[track_caller]
    pub(super) fn broken(&self, what: impl fmt::Display) -> ! {
        panic!("SEED={} at {:?}: {what}", self.seed, self.now)
    }

    pub(super) fn now_of(&self, id: NodeId) -> Now {
        let node = &self.nodes[id];
        let wall = WALL_START_US + node.wall_offset_us + self.now.as_micros() as i64;
        Now {
            mono: self.now + node.mono_offset,
            wall_us: wall as u64,
        }
    }

    pub(super) fn live(&self) -> Vec<NodeId> {
        (0..self.nodes.len())
            .filter(|id| self.nodes[*id].alive)
            .collect()
    }

    pub(super) fn by_origin(&self, origin: Origin) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.origin == origin)
    }

    /// A node starts in a slot: it knows what the registry lists, and is soon known itself.
    fn start(&mut self, slot: usize) {
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
            wall_us: (WALL_START_US + wall_offset_us) as u64 + self.now.as_micros() as u64,
        };
        let store = Box::new(MemoryStore::new(self.plan.retention));
        self.tell(|_| format!("n{id} starts as {origin} in slot {slot}"));
        self.nodes.push(Node {
            slot,
            origin,
            alive: true,
            frozen: false,
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

    fn input(&mut self, id: NodeId, input: Input) {
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

    fn thaw(&mut self, id: NodeId) {
        if !self.nodes[id].alive || !self.nodes[id].frozen {
            return;
        }
        self.tell(|_| format!("n{id} thaws"));
        let node = &mut self.nodes[id];
        node.frozen = false;
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

    /// Carries out a node's effects, then sees to its next tick.
    pub(super) fn settle(&mut self, id: NodeId) {
        while self.nodes[id].replica.has_effects() {
            let effects = self.nodes[id].replica.take_effects(Vec::new());
            let mut batch: Option<LogFrame> = None;
            for effect in effects {
                if let Effect::Append(entry, ack_wanted) = effect {
                    self.tell(|_| format!("n{id} appends {:?} {:?}", entry.id(), entry.mid));
                    self.ledger.insert(entry.id(), Arc::clone(&entry));
                    let frame = batch.get_or_insert_with(|| LogFrame {
                        origin: entry.origin,
                        ack_wanted: false,
                        entries: Vec::new(),
                    });
                    frame.ack_wanted |= ack_wanted;
                    frame.entries.push(entry);
                    continue;
                }
                if matches!(effect, Effect::Publish(..))
                    && let Some(frame) = batch.take()
                {
                    self.publish(id, Topic::Log, &Frame::Log(frame));
                }
                self.effect(id, effect);
            }
            if let Some(frame) = batch {
                self.publish(id, Topic::Log, &Frame::Log(frame));
            }
        }
        let node = &mut self.nodes[id];
        let due = node
            .replica
            .deadline()
            .saturating_sub(node.mono_offset)
            .max(self.now);
        if node.tick_at.is_none_or(|at| due < at) {
            node.tick_at = Some(due);
            let after = due - self.now;
            self.at(after, Event::Tick(id, due));
        }
    }

    fn effect(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Append(..) => unreachable!("batched by the caller"),
            Effect::Publish(topic, frame) => self.publish(id, topic, &frame),
            Effect::Deliver(entry) => {
                self.tell(|_| format!("n{id} delivers {:?}", entry.id()));
                self.deliver(id, &entry);
            }
            Effect::Said {
                ticket,
                id: entry,
                copies,
                ..
            } => self.said(id, ticket, entry, copies),
            Effect::Fetch(fetch) => {
                self.tell(|_| format!("n{id} asks {fetch:?}"));
                self.ask(id, fetch.from, Ask::Log(fetch));
            }
            Effect::FetchMembers(from) => self.ask(id, from, Ask::Members(from)),
            Effect::Gap(origin, span) => {
                self.tell(|_| format!("n{id} gives up {origin} {span:?}"));
                self.counters.note("hole passed");
                self.nodes[id].gaps.push((origin, span));
                let conns: Vec<u64> = self.nodes[id].conns.keys().copied().collect();
                for conn in conns {
                    self.push(id, conn, Push::Gap(origin, span));
                }
            }
            Effect::Members(change, count) => self.members_told(id, change, count),
            Effect::Typing(..) => {}
            Effect::Ready(lacking) => {
                self.tell(|_| format!("n{id} is ready, lacks {lacking:?}"));
                let late = self.now >= self.nodes[id].started + crate::replica::JOIN_MAX;
                let how = if late {
                    "ready after 5 s"
                } else {
                    "ready with all"
                };
                self.counters.note(how);
                self.nodes[id].holes_before_ready = self.holes(id);
            }
        }
    }

    fn members_told(&mut self, id: NodeId, change: crate::replica::members::Change, count: usize) {
        let names = self.nodes[id].told_members.entry(change.room).or_default();
        for name in change.left {
            if !names.remove(&name) {
                panic!("SEED={}: {name} left twice", self.seed);
            }
        }
        for name in change.joined {
            if !names.insert(name.clone()) {
                panic!("SEED={}: {name} joined twice", self.seed);
            }
        }
        if names.len() != count {
            let names = names.clone();
            self.broken(format!("n{id} counts {count} members, told were {names:?}"));
        }
    }

    /// Holes that a node has passed and not filled.
    pub(super) fn holes(&self, id: NodeId) -> Vec<(Origin, Span)> {
        let replica = &self.nodes[id].replica;
        let origins = self.nodes.iter().map(|node| node.origin);
        origins
            .filter_map(|origin| Some((origin, replica.log(origin)?)))
            .flat_map(|(origin, log)| log.holes().iter().map(move |hole| (origin, *hole)))
            .collect()
    }

    /// Whether a node's memory has an entry. A crashed one's counts: it had it.
    pub(super) fn holds(&self, id: NodeId, entry: EntryId) -> bool {
        let span = Span {
            after: entry.seq - 1,
            through: entry.seq,
        };
        let page = self.nodes[id].replica.log_page(entry.origin, span, 1);
        !page.entries.is_empty()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish()
    }
}
