//! Nodes: how they start, what comes to them, and how they freeze.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::conns::{Call, Conn};
use super::disk::Disk;
use super::fetches::{Answer, Ask, Told};
use super::halls::halls;
use super::ledger::Arrivals;
use super::program::{Answered, Posted, Program};
use super::questions::PeerAsks;
use super::world::{Event, NodeId, World};
use crate::core::journal::Batch;
use crate::core::links::LinkId;
use crate::core::links::fault::Fault;
use crate::core::log::Span;
use crate::core::news::News;
use crate::core::presence::UNHEARD_MAX;
use crate::core::stops::{CATCH_UP_AFTER, STALL_MIN};
use crate::core::{Identity, Input};
use crate::model::entry::Entry;
use crate::model::names::{Origin, RoomName, UserName};

/// A registry lists a dead node for so long.
pub(super) const LEASE: Duration = UNHEARD_MAX;
/// Longest silence of the registries.
const SILENCE_OF_REGISTRIES_MAX: Duration = Duration::from_secs(8);

/// What comes to a node. A frozen node's inputs wait.
#[derive(Debug)]
pub(super) enum Comes {
    /// What its core is told as it is.
    Input(Input<'static>),
    /// The registries answer it for the first time.
    Listed,
    Serve(NodeId, u64, Ask),
    Answer(u64, Answer),
    Client(usize, u64, Call),
    Disk,
}

/// What a node runs on. It is there before the node starts and after it dies.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) mono_offset: Duration,
    pub(super) wall_offset_us: i64,
    pub(super) disk: Option<Disk>,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) slot: usize,
    pub(super) origin: Origin,
    pub(super) alive: bool,
    /// Whether the registries have answered it, and list it.
    pub(super) listed: bool,
    /// Whether the registries were silent when it started.
    pub(super) kept_waiting: bool,
    /// Since when the registries do not list it, by what they would say.
    pub(super) unlisted: Option<Duration>,
    /// When it is listed again in registries that came back empty.
    pub(super) listed_again: Duration,
    /// Whom the registries listed as it was told last, and whether they answer.
    pub(super) list_seen: Option<(BTreeSet<Origin>, bool)>,
    /// When it said that it takes clients, if it has.
    pub(super) ready_at: Option<Duration>,
    pub(super) frozen: bool,
    /// How long its monotonic clock has stood still, while it was stopped.
    pub(super) stood_still: Duration,
    /// When it thawed last.
    pub(super) thawed: Duration,
    /// While it is frozen, frames after this are lost: its peers gave up on their connections.
    pub(super) deaf_after: Option<Duration>,
    pub(super) inbox: VecDeque<Comes>,
    /// Since when it is frozen, if it is.
    pub(super) frozen_at: Duration,
    /// Whether it has still to read what some client asks.
    pub(super) reads: bool,
    /// Who came before it took clients.
    pub(super) held: Vec<Comes>,
    /// Peers that wait for an answer of it.
    pub(super) owes: Vec<(Answered, PeerAsks)>,
    /// What was said over HTTP, and by which request.
    pub(super) posted: Vec<(Posted, u64)>,
    /// It answers no fetch until then.
    pub(super) stuck_until: Duration,
    /// When it answers fetches with something better than errors.
    pub(super) refuses_until: Duration,
    /// Its thread has to do until then.
    pub(super) busy_until: Duration,
    /// Its wire is full of pages until then.
    pub(super) wire_until: Duration,
    pub(super) core: Program,
    /// The least and the most that the time by which it went was wrong in its life.
    pub(super) time_wrong_us: (i64, i64),
    pub(super) started: Duration,
    pub(super) crashed: Option<Duration>,
    /// Whether what it had sent and had not arrived died with it.
    pub(super) sent_is_lost: bool,
    /// Where its links lead.
    pub(super) dialled: BTreeMap<LinkId, NodeId>,
    /// Its halls: of which brokers.
    pub(super) halls: BTreeMap<LinkId, usize>,
    /// Whom it hears, as it has told; its core may be further already when something that it wants is done.
    pub(super) hears: BTreeSet<Origin>,
    /// When it heard somebody no more, last.
    pub(super) unheard: Duration,
    /// When the last beat of each came.
    pub(super) beats: BTreeMap<NodeId, Duration>,
    /// What it asks others, and since when.
    pub(super) asked: BTreeMap<u64, (Ask, Duration)>,
    /// What it was told by peers that it asked for entries.
    pub(super) told: Vec<Told>,
    /// How many requests to a peer for entries of an origin have failed since one did not.
    pub(super) failed_in_row: BTreeMap<(Origin, Origin), u32>,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) arrivals: Arrivals,
    pub(super) delivered: Arrivals,
    /// Who was listed when the registries answered it.
    pub(super) expects: BTreeSet<NodeId>,
    /// What its peers held when it started.
    pub(super) held_at_start: Vec<(NodeId, Origin, u64)>,
    /// Where it began with the log of each node of which it had nothing.
    pub(super) began_behind: BTreeMap<Origin, u64>,
    pub(super) gaps: Vec<(Origin, Span)>,
    pub(super) passed_before_ready: Vec<(Origin, Span)>,
    /// Members of rooms as told by effects; must agree with what the core says.
    pub(super) told_members: BTreeMap<RoomName, BTreeSet<UserName>>,
    pub(super) tick_at: Option<Duration>,
    /// The batch that its disk is at.
    pub(super) writing: Option<Batch>,
    /// How much of each origin's log was on its disk when it started.
    pub(super) restored: BTreeMap<Origin, u64>,
}

impl Node {
    /// Notes entries that come to it. Whether any is new. What lies where it has trimmed is not
    /// taken any more.
    pub(super) fn arrived(&mut self, of: NodeId, entries: &[Arc<Entry>], now: Duration) -> bool {
        let origin = entries.first().map(|entry| entry.origin);
        let log = origin.and_then(|origin| self.core.log(origin));
        let floor = log.map_or(0, |log| log.floor());
        let mut any_new = false;
        for entry in entries.iter().filter(|entry| entry.seq > floor) {
            any_new |= self.arrivals.at(of, entry.seq).is_none();
            self.arrivals.note(of, entry.seq, now);
        }
        any_new
    }

    /// Who came, and waited, has left.
    pub(super) fn forget(&mut self, conn: u64) {
        let comes = |input: &Comes| matches!(input, Comes::Client(_, it, _) if *it == conn);
        self.held.retain(|input| !comes(input));
    }

    /// Whether it said that these numbers are lost, or passed them before it took clients.
    pub(super) fn announced(&self, origin: Origin, seq: u64) -> bool {
        let inside =
            |(of, span): &(Origin, Span)| *of == origin && span.after < seq && seq <= span.through;
        self.gaps
            .iter()
            .chain(&self.passed_before_ready)
            .any(inside)
    }

    /// Since when it has been at work without a pause.
    pub(super) fn awake_since(&self) -> Option<Duration> {
        (self.alive && !self.frozen).then(|| self.started.max(self.thawed))
    }
}

impl World {
    pub(super) fn machine(&mut self) -> Machine {
        let skew = self.plan.clock_skew_max_us;
        if skew > 1_000_000 {
            self.note("fault: clock skew");
        }
        Machine {
            mono_offset: self.up_to(Duration::from_secs(100)),
            wall_offset_us: self.rng.random_range(-skew..=skew),
            disk: (self.chance(self.plan.disks)).then(|| Disk::new(self.plan.disk_keeps)),
        }
    }

    pub(super) fn start_in(&mut self, after: Duration, slot: usize) {
        self.starting += 1;
        self.at(after, Event::Start(slot));
    }

    /// A node starts in a slot: it knows what the registries list, and is soon known itself.
    pub(super) fn start(&mut self, slot: usize) {
        self.starting -= 1;
        let id = self.nodes.len();
        let origin = Origin::generate(&mut self.rng);
        self.tell(|_| format!("n{id} starts as {origin} in slot {slot}"));
        self.ledger.start(id, origin);
        let node = self.new_node(slot, origin);
        self.nodes.push(node);
        self.restore(id);
        self.calm_since = self.now;
        let mut silent = self.registries_away.saturating_sub(self.now);
        if self.chance(self.plan.registry_silence) {
            self.note("fault: registries silent");
            silent += self.up_to(SILENCE_OF_REGISTRIES_MAX);
        }
        if silent.is_zero() {
            self.listed(id);
        } else {
            self.nodes[id].kept_waiting = true;
            self.at(silent, Event::Input(id, Comes::Listed));
        }
        self.settle(id);
    }

    /// A node that has just started on its slot's machine.
    fn new_node(&mut self, slot: usize, origin: Origin) -> Node {
        let id = self.nodes.len();
        let machine = &self.machines[slot];
        let wall = machine.wall_offset_us;
        let now = crate::core::Now {
            mono: self.now + machine.mono_offset,
            wall_us: self.wall_us(self.now, wall),
        };
        let at = if self.plan.ports_stay {
            format!("s{slot}")
        } else {
            format!("n{id}")
        };
        let me = Identity {
            origin,
            name: format!("n{slot}"),
            http: format!("http://{at}"),
            publisher: if self.plan.direct {
                format!("tcp://{at}")
            } else {
                String::new()
            },
        };
        let fixed = halls(self.plan.brokers);
        let rng = StdRng::seed_from_u64(self.rng.random());
        Node {
            slot,
            origin,
            alive: true,
            listed: false,
            kept_waiting: false,
            unlisted: None,
            listed_again: Duration::ZERO,
            list_seen: None,
            ready_at: None,
            frozen: false,
            stood_still: Duration::ZERO,
            thawed: Duration::ZERO,
            deaf_after: None,
            inbox: VecDeque::new(),
            frozen_at: Duration::ZERO,
            reads: false,
            held: Vec::new(),
            owes: Vec::new(),
            posted: Vec::new(),
            stuck_until: Duration::ZERO,
            refuses_until: Duration::ZERO,
            busy_until: Duration::ZERO,
            wire_until: Duration::ZERO,
            core: Program::new(me, fixed, self.plan.retention, rng, now),
            time_wrong_us: (wall, wall),
            started: self.now,
            crashed: None,
            sent_is_lost: false,
            dialled: BTreeMap::new(),
            halls: BTreeMap::new(),
            hears: BTreeSet::new(),
            unheard: Duration::ZERO,
            beats: BTreeMap::new(),
            asked: BTreeMap::new(),
            told: Vec::new(),
            failed_in_row: BTreeMap::new(),
            conns: BTreeMap::new(),
            arrivals: Arrivals::default(),
            delivered: Arrivals::default(),
            expects: BTreeSet::new(),
            held_at_start: self.all_positions(),
            began_behind: BTreeMap::new(),
            gaps: Vec::new(),
            passed_before_ready: Vec::new(),
            told_members: BTreeMap::new(),
            tick_at: None,
            writing: None,
            restored: BTreeMap::new(),
        }
    }

    /// What each live node holds now of each origin.
    fn all_positions(&self) -> Vec<(NodeId, Origin, u64)> {
        let live = self.live().into_iter();
        let position = |id: NodeId| self.nodes[id].core.position();
        live.flat_map(|id| {
            position(id)
                .into_iter()
                .map(move |at| (id, at.origin, at.seq))
        })
        .collect()
    }

    /// The registries answer a node that has started: they list it, and it learns whom else.
    pub(super) fn listed(&mut self, id: NodeId) {
        let before = self.list_of_all();
        self.nodes[id].listed = true;
        self.calm_since = self.now;
        // It registers and reads the list at the same time.
        let reads_first = self.chance(0.5);
        let listed = if reads_first {
            before
        } else {
            self.list_of_all()
        };
        self.tell_list(id, &listed);
        // At brokers a node waits for whom it may meet there.
        let expects = listed.iter().filter(|_| self.plan.direct);
        let expects = expects.filter_map(|it| self.ledger.node(*it));
        self.nodes[id].expects = expects.collect();
    }

    /// Its core is told something.
    pub(super) fn give(&mut self, id: NodeId, input: Input<'_>) {
        let now = self.now_of(id);
        self.nodes[id].core.handle(input, now);
    }

    pub(super) fn input(&mut self, id: NodeId, input: Comes) {
        let node = &mut self.nodes[id];
        if !node.alive {
            return;
        }
        if node.frozen {
            let deaf = node.deaf_after.is_some_and(|at| self.now > at);
            match input {
                Comes::Input(Input::News(link, _)) if deaf => {
                    let ended = |input: &Comes| matches!(input, Comes::Input(Input::Closed(it, _)) if *it == link);
                    if !node.inbox.iter().any(ended) {
                        let closed = Input::Closed(link, Fault::ended());
                        node.inbox.push_back(Comes::Input(closed));
                    }
                }
                other => node.inbox.push_back(other),
            }
            return;
        }
        let comes = matches!(
            input,
            Comes::Client(_, _, Call::Connect(..) | Call::Post(..))
        );
        if comes && !node.core.takes_clients() {
            node.held.push(input);
            return;
        }
        self.work(id, &input);
        match input {
            Comes::Input(input) => self.of_a_link(id, input),
            Comes::Listed => self.listed(id),
            Comes::Serve(to, request, ask) => self.serve(id, to, request, ask),
            Comes::Answer(request, answer) => self.answered(id, request, answer),
            Comes::Client(client, conn, call) => self.call(id, client, conn, call),
            Comes::Disk => self.disk_answers(id),
        }
        self.settle(id);
    }

    pub(super) fn tick(&mut self, id: NodeId, at: Duration) {
        let node = &mut self.nodes[id];
        if node.alive && !node.frozen && node.tick_at == Some(at) {
            node.tick_at = None;
            let now = self.now_of(id);
            self.nodes[id].core.tick_if_due(now);
            self.settle(id);
        }
    }

    /// How long a node's thread has still to do with what came before.
    pub(super) fn busy(&self, id: NodeId) -> Option<Duration> {
        let wait = self.nodes[id].busy_until.saturating_sub(self.now);
        (wait > Duration::ZERO).then_some(wait)
    }

    /// A node's thread takes its time for an input.
    fn work(&mut self, id: NodeId, input: &Comes) {
        if !self.plan.costs {
            return;
        }
        let entries = match input {
            Comes::Input(Input::News(_, News::Entries(log))) => log.entries.len(),
            Comes::Answer(_, Answer::Log(page, _)) => page.entries.len(),
            _ => 0,
        };
        let entries = u32::try_from(entries).expect("a page is small");
        self.nodes[id].busy_until = self.now + COST_OF_INPUT + COST_OF_ENTRY * entries;
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
        let mut inbox = std::mem::take(&mut node.inbox);
        let stopped = now - node.frozen_at;
        // What is late is done first, or last, as the runtime happens to poll; so are clients.
        let tick_first = self.chance(0.5);
        if self.chance(0.5) {
            let is_client = |input: &Comes| !matches!(input, Comes::Client(..));
            inbox.make_contiguous().sort_by_key(is_client);
        }
        if stopped > STALL_MIN {
            // Its own clock stood still: nobody was silent meanwhile.
            let node = &mut self.nodes[id];
            node.stood_still += stopped;
            let clocks = self.clocks_of(id);
            self.nodes[id].core.time(clocks, stopped);
            if stopped >= CATCH_UP_AFTER {
                self.note("a stop noticed");
            }
            self.settle(id);
        }
        let now = self.now_of(id);
        if tick_first {
            self.nodes[id].core.tick(now);
            self.settle(id);
        }
        for input in inbox {
            self.input(id, input);
        }
        self.nodes[id].core.tick(now);
        self.settle(id);
    }
}

/// What any input costs a node's thread; several times what was measured.
const COST_OF_INPUT: Duration = Duration::from_micros(50);
/// What each entry in it costs.
const COST_OF_ENTRY: Duration = Duration::from_micros(10);
