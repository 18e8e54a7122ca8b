//! The world: nodes, time, and the queue of what is to happen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Counters;
use super::clients::{Client, Doing};
use super::faults::Fault;
use super::net::Net;
use super::nodes::{Input, Node};
use super::plan::{Plan, SETTLE};
use crate::replica::Now;
use crate::replica::copies::Ticket;
use crate::replica::entry::Entry;
use crate::replica::log::Span;
use crate::replica::names::{EntryId, Mid, Origin};

/// One start of one node. A restarted node is a new one in the same slot.
pub(super) type NodeId = usize;

/// 2025-10-09.
const WALL_START_US: u64 = 1_760_000_000_000_000;

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

/// A reply that said how many hold an entry.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) node: NodeId,
    pub(super) id: EntryId,
    pub(super) holders: Vec<NodeId>,
}

/// Who waits for a reply.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) client: usize,
    pub(super) conn: Option<u64>,
    pub(super) mid: Option<Mid>,
    pub(super) copies: usize,
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
    pub(super) tickets: BTreeMap<Ticket, Asked>,
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
        Now {
            mono: self.now + node.mono_offset,
            wall_us: self.wall_us(node.wall_offset_us),
        }
    }

    pub(super) fn wall_us(&self, offset_us: i64) -> u64 {
        let passed = u64::try_from(self.now.as_micros()).expect("a run is short");
        (WALL_START_US + passed).saturating_add_signed(offset_us)
    }

    pub(super) fn live(&self) -> Vec<NodeId> {
        (0..self.nodes.len())
            .filter(|id| self.nodes[*id].alive)
            .collect()
    }

    pub(super) fn by_origin(&self, origin: Origin) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.origin == origin)
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
