//! The world: nodes, time, and the queue of what is to happen.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Outcome;
use super::clients::{Client, Doing};
use super::faults::Fault;
use super::halls::Broker;
use super::judge::{Asked, Reply};
use super::ledger::Ledger;
use super::net::Net;
use super::nodes::{Comes, Machine, Node};
use super::phases::{LOOK_EVERY, Phase};
use super::plan::Plan;
use crate::core::Now;
use crate::core::copies::Ticket;
use crate::core::links::LinkId;
use crate::core::log::Span;
use crate::core::question::Read;
use crate::model::names::{EntryId, Origin};

/// One start of one node. A restarted node is a new one in the same slot.
pub(super) type NodeId = usize;

/// 2025-10-09.
const WALL_START_US: u64 = 1_760_000_000_000_000;

/// What is to happen.
#[derive(Debug)]
pub(super) enum Event {
    Input(NodeId, Comes),
    Tick(NodeId, Duration),
    /// A dial to there is tried, and given up then.
    Dials(NodeId, LinkId, String, Duration),
    Client(usize, Doing),
    Start(usize),
    Thaw(NodeId),
    Crash(NodeId),
    /// A disk reads what a question needs, and tells so much later.
    Read(NodeId, Ticket, Box<Read>, Duration),
    Fault,
    Mend(Fault),
    Heal,
    Look,
}

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) story: bool,
    pub(super) rng: StdRng,
    pub(super) plan: Plan,
    pub(super) now: Duration,
    pub(super) phase: Phase,
    pub(super) phase_since: Duration,
    /// When clients began to talk on a mesh that has nothing to mend.
    pub(super) talk_since: Option<Duration>,
    /// When the last thing happened that everything must recover from.
    pub(super) calm_since: Duration,
    /// When something that had been passed came last.
    pub(super) hole_filled: Option<Duration>,
    /// When somebody last did not know of a dead node that it is gone.
    pub(super) dead_awaited: Option<Duration>,
    /// When a wall clock was set last, or another set of clocks was to be compared.
    pub(super) clocks_changed: Duration,
    /// How much each had said when the faults were over.
    pub(super) heads_at_heal: Vec<(NodeId, u64)>,
    /// No registry answers until then.
    pub(super) registries_away: Duration,
    /// How many are still to start.
    pub(super) starting: usize,
    /// What outlives the nodes, by slot.
    pub(super) machines: Vec<Machine>,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    pub(super) brokers: Vec<Broker>,
    pub(super) clients: Vec<Client>,
    pub(super) ledger: Ledger,
    pub(super) replies: Vec<Reply>,
    /// Who waits for which reply.
    pub(super) tickets: BTreeMap<u64, Asked>,
    pub(super) outcome: Outcome,
    /// What judges have let pass, a bit each.
    pub(super) passed: Cell<u32>,
    pub(super) serial: u64,
    queue: BinaryHeap<Queued>,
}

/// An event in the queue; its order is that of its time and number alone, the first on top.
struct Queued {
    at: Duration,
    serial: u64,
    event: Box<Event>,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, rng: StdRng, story: bool) -> Self {
        let mut world = Self {
            seed,
            story,
            now: Duration::ZERO,
            phase: Phase::Faults,
            phase_since: Duration::ZERO,
            talk_since: None,
            calm_since: Duration::ZERO,
            hole_filled: None,
            dead_awaited: None,
            clocks_changed: Duration::ZERO,
            heads_at_heal: Vec::new(),
            registries_away: Duration::ZERO,
            starting: 0,
            machines: Vec::new(),
            nodes: Vec::new(),
            net: Net::new(plan.slots + plan.brokers),
            brokers: (0..plan.brokers).map(|_| Broker::default()).collect(),
            clients: Vec::new(),
            ledger: Ledger::default(),
            replies: Vec::new(),
            tickets: BTreeMap::new(),
            outcome: Outcome::default(),
            passed: Cell::new(0),
            serial: 0,
            queue: BinaryHeap::new(),
            rng,
            plan,
        };
        world.tell(|w| format!("{:?}", w.plan));
        for slot in 0..world.plan.slots {
            let machine = world.machine();
            world.machines.push(machine);
            let after = world.up_to(Duration::from_millis(1500));
            world.start_in(after, slot);
        }
        for index in 0..world.plan.clients {
            let room = world.rng.random_range(0..world.plan.rooms);
            world.clients.push(Client::new(index, room));
            let after = world.up_to(Duration::from_millis(2500));
            world.at(after, Event::Client(index, Doing::Act));
        }
        world.plan_faults();
        world.at(world.plan.faults_end, Event::Heal);
        world.at(LOOK_EVERY, Event::Look);
        world
    }

    /// A world of the usual temper.
    pub(super) fn usual(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // What is rare elsewhere comes in each part of the seeds.
        let plan = match rng.random_range(0..20) {
            0 => Plan::failing(&mut rng),
            1 => Plan::slow(&mut rng),
            _ => Plan::draw(&mut rng),
        };
        Self::new(seed, plan, rng, story)
    }

    /// A world in which nodes keep little.
    pub(super) fn trimming(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut plan = Plan::draw(&mut rng);
        plan.trims = true;
        plan.retention.messages = rng.random_range(20..150);
        Self::new(seed, plan, rng, story)
    }

    /// A world in which most of what is asked of peers fails, while nodes die.
    pub(super) fn failing(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::failing(&mut rng);
        Self::new(seed, plan, rng, story)
    }

    /// A world that meets at a broker.
    pub(super) fn meeting(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::meeting(&mut rng);
        Self::new(seed, plan, rng, story)
    }

    /// A world whose clients read little, or nothing for long.
    pub(super) fn slow(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::slow(&mut rng);
        Self::new(seed, plan, rng, story)
    }

    /// A world that is in two for a minute.
    pub(super) fn divided(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::long_partition(&mut rng);
        Self::new(seed, plan, rng, story)
    }

    /// Runs until the last phase is over.
    pub(super) fn run(&mut self) {
        while self.phase != Phase::Over {
            let next = self.queue.pop().expect("somebody always looks again");
            self.now = next.at;
            self.happen(*next.event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input(id, input) => match self.busy(id) {
                Some(wait) => self.at(wait, Event::Input(id, input)),
                None => self.input(id, input),
            },
            Event::Tick(id, at) => self.tick(id, at),
            Event::Dials(id, link, endpoint, until) => self.tries(id, link, endpoint, until),
            Event::Client(client, doing) => self.client(client, doing),
            Event::Start(slot) => self.start(slot),
            Event::Thaw(id) => self.thaw(id),
            Event::Crash(id) => self.crash_node(id, true, false),
            Event::Read(id, ticket, read, rest) => self.read(id, ticket, *read, rest),
            Event::Fault => self.fault(),
            Event::Mend(fault) => self.mend(&fault),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// Puts an event into the queue, `after` from now.
    pub(super) fn at(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.queue.push(Queued {
            at: self.now + after,
            serial: self.serial,
            event: Box::new(event),
        });
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

    pub(super) fn note(&mut self, what: &'static str) {
        self.outcome.counters.note(what);
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

    /// The time by which a node goes.
    pub(super) fn now_of(&mut self, id: NodeId) -> Now {
        let clocks = self.clocks_of(id);
        let right = self.wall_us(self.now, 0);
        let node = &mut self.nodes[id];
        let now = node.core.time(clocks, Duration::ZERO);
        let wrong = now.wall_us.cast_signed() - right.cast_signed();
        let (least, most) = node.time_wrong_us;
        node.time_wrong_us = (least.min(wrong), most.max(wrong));
        now
    }

    /// What the clocks of a node's machine show.
    pub(super) fn clocks_of(&self, id: NodeId) -> Now {
        let machine = &self.machines[self.nodes[id].slot];
        Now {
            mono: self.now + machine.mono_offset - self.nodes[id].stood_still,
            wall_us: self.wall_us(self.now, machine.wall_offset_us),
        }
    }

    /// What a wall clock that is so wrong showed at a time.
    pub(super) fn wall_us(&self, at: Duration, offset_us: i64) -> u64 {
        let passed = u64::try_from(at.as_micros()).expect("a run is short");
        (WALL_START_US + passed).saturating_add_signed(offset_us)
    }

    pub(super) fn live(&self) -> Vec<NodeId> {
        (0..self.nodes.len())
            .filter(|id| self.nodes[*id].alive)
            .collect()
    }

    /// What a node has passed so far: holes, and what was trimmed already.
    pub(super) fn passed(&self, id: NodeId) -> Vec<(Origin, Span)> {
        let mut passed = Vec::new();
        for node in &self.nodes {
            let Some(log) = self.nodes[id].core.log(node.origin) else {
                continue;
            };
            let trimmed = Span {
                after: 0,
                through: log.floor(),
            };
            let spans = log.holes().iter().copied().chain([trimmed]);
            passed.extend(spans.map(|span| (node.origin, span)));
        }
        passed
    }

    /// Whether a node's memory has an entry. A crashed one's counts: it had it.
    pub(super) fn holds(&self, id: NodeId, entry: EntryId) -> bool {
        let core = &self.nodes[id].core;
        let span = Span {
            after: entry.seq - 1,
            through: entry.seq,
        };
        let log = core.log(entry.origin);
        let held_back = || log.is_some_and(|log| log.held_back(span).next().is_some());
        core.store.get(entry).is_some() || held_back()
    }

    /// Whether a node has an entry in its log, or had until it was trimmed.
    pub(super) fn accepted(&self, id: NodeId, entry: EntryId) -> bool {
        let node = &self.nodes[id];
        let arrived = self.ledger.node(entry.origin);
        let arrived = arrived.and_then(|of| node.arrivals.at(of, entry.seq));
        let Some(log) = node.core.log(entry.origin).filter(|_| arrived.is_some()) else {
            return false;
        };
        let inside = |hole: &Span| hole.after < entry.seq && entry.seq <= hole.through;
        let began = node.began_behind.get(&entry.origin).copied();
        let taken = began.unwrap_or_default() < entry.seq && entry.seq <= log.held();
        taken && !log.holes().iter().any(inside)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish()
    }
}
