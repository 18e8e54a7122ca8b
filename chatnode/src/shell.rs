//! The one place where everything meets. [`Shell`] owns the core and the clients, as two fields: it
//! takes what comes, calls the core, and hands what that wants to the rims. Tasks reach it by a
//! [`Handle`].
//!
//! The node is one thread. A task that has something (bytes of a client, a frame of a peer, the
//! outcome of a request) hands it in, never across an await; so the lock inside the handle is never
//! contended. What that changes for clients and peers is collected. The turn task, which stands in the run
//! queue behind all that were ready before it, then publishes and writes it, once per client.

mod clock;
mod effects;
mod errands;
mod handle;
mod mesh;
mod outbox;
pub(crate) mod status;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::clock::Clock;
use self::errands::Errand;
use self::outbox::Outbox;
use self::status::Totals;
use crate::carriers::Command;
use crate::clients::Clients;
use crate::core::links::Links;
use crate::core::{Core, Effect, Now};
use crate::discovery::View;
use crate::disk::Disk;
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;

pub(crate) use self::clock::wall_us;
pub(crate) use self::handle::{Handle, Post};

/// Commands that wait for the carrier at the most; beyond, frames are dropped and counted, and the
/// next beat lets the others repair.
const CARRIER_COMMANDS_MAX: usize = 4096;
/// A node catches up after so long a stop. One that hardly gets the processor stands still for a second
/// again and again; to ask all for their positions each time would take what it has.
const CATCH_UP_AFTER: Duration = Duration::from_secs(2);

/// What the configuration says to the node.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Messages a second that one client may send; 0 is no limit.
    pub(crate) rate_limit: u32,
    /// Whether the plain form is published too (static mode).
    pub(crate) publish_plain: bool,
    /// Of which mesh this node is.
    pub(crate) mesh: MeshName,
    /// Endpoints given by hand: joining waits for them.
    pub(crate) peers: Vec<String>,
    /// WebSockets and event streams at once; further ones are refused.
    pub(crate) clients_max: usize,
}

/// What a node is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// From the configuration.
    pub(crate) settings: Settings,
    /// The replicated log; made with the time from [`Now`] of zero.
    pub(crate) core: Core,
    /// Whom to hear.
    pub(crate) links: Links,
    /// For requests to peers.
    pub(crate) http: reqwest::Client,
    /// Where entries are kept, besides memory.
    pub(crate) disk: Option<Disk>,
}

/// All state of one node.
#[derive(Debug)]
struct Shell {
    core: Core,
    clients: Clients,
    links: Links,
    /// Own entries that are to be published.
    outbox: Outbox,
    carrier: mpsc::Sender<Command>,
    /// Where entries are kept, besides memory.
    disk: Option<Disk>,
    /// Work that has to wait, for tasks of its own.
    errands: Vec<Errand>,
    settings: Settings,
    /// How the registries are.
    view: View,
    /// The HTTP endpoints of all nodes that were ever seen alive.
    nodes_seen: VecDeque<String>,
    /// The node is going away.
    stopping: bool,
    clock: Clock,
    /// Whether clients are taken.
    ready: watch::Sender<bool>,
    totals: Totals,
    greetings: mesh::Greetings,
    /// Listed nodes to which there is no way: joining does not wait for them.
    absent: BTreeSet<Origin>,
    /// Whether there are as many logs as can be, of which something is kept.
    full_of_logs: bool,
    /// Whether this node's clock is so wrong that it goes by the time of the others.
    goes_by_others: bool,
    /// Peers that are heard and whose wall clock is far from this node's.
    skewed: BTreeSet<Origin>,
    /// How long a page is asked of a peer that was too slow for a whole one. As many as there are
    /// peers, at the most.
    slow_pages: BTreeMap<Origin, usize>,
    spare: Vec<Effect>,
    /// When the turn task wakes by itself.
    turn_due: Duration,
}

impl Shell {
    fn new(
        parts: Parts,
        readiness: mio::Registry,
        carrier: mpsc::Sender<Command>,
        ready: watch::Sender<bool>,
    ) -> Self {
        let nodes = vec![parts.core.identity().http.clone()];
        let settings = parts.settings;
        let (most, rate) = (settings.clients_max, settings.rate_limit);
        Self {
            totals: Totals {
                // Those that the disk remembers.
                gaps: parts.core.holes().count() as u64,
                ..Totals::default()
            },
            core: parts.core,
            clients: Clients::new(readiness, most, rate, nodes.clone()),
            links: parts.links,
            outbox: Outbox::default(),
            carrier,
            disk: parts.disk,
            errands: Vec::new(),
            settings,
            view: View::default(),
            nodes_seen: nodes.into(),
            stopping: false,
            clock: Clock::new(),
            ready,
            greetings: mesh::Greetings::new(),
            absent: BTreeSet::new(),
            full_of_logs: false,
            goes_by_others: false,
            skewed: BTreeSet::new(),
            slow_pages: BTreeMap::new(),
            spare: Vec::new(),
            turn_due: Duration::ZERO,
        }
    }

    /// The time by which this node goes. One that finds that it was stopped has first to learn what was
    /// said meanwhile.
    fn now(&mut self) -> Now {
        let now = self.clock.now();
        let stopped = self.clock.woke();
        self.core.slept(stopped);
        let now = self.core.time(now);
        if !stopped.is_zero() {
            // By its own clock, which stood still, it is not time yet; the others' did not.
            self.core.ask_beat(now);
        }
        if stopped >= CATCH_UP_AFTER {
            // It takes no send and no join before it holds what its peers hold now.
            self.ready.send_replace(false);
            self.core.catch_up(now);
            self.settle(now);
        }
        now
    }

    /// Carries out all that the core wants, in order.
    fn settle(&mut self, now: Now) {
        loop {
            self.clients.settle(&mut self.core, now);
            let mut effects = self.clients.take_beyond(std::mem::take(&mut self.spare));
            if effects.is_empty() {
                self.spare = effects;
                return;
            }
            for effect in effects.drain(..) {
                self.effect(effect, now);
            }
            self.spare = effects;
        }
    }

    /// Publishes and writes what the turn brought; when the next is due at the latest.
    fn turn(&mut self, now: Now) -> Duration {
        self.clients.begin_turn(&mut self.core, now);
        if now.mono >= self.core.deadline() {
            self.core.tick(now);
            self.clients.ticked();
            let effects = self.links.tick(now.mono);
            self.link_effects(effects, now);
            self.greet(now);
            if let Some(disk) = &self.disk {
                disk.correct_clock(self.core.correction_us());
            }
        }
        self.settle(now);
        self.feed_disk(now);
        if !self.outbox.is_empty() && now.mono >= self.outbox.due() {
            self.publish_log(now);
        }
        let clients = self.clients.end_turn(&mut self.core, now);
        self.settle(now);
        let publish = if self.outbox.is_empty() {
            Duration::MAX
        } else {
            self.outbox.due()
        };
        self.turn_due = self.core.deadline().min(clients).min(publish);
        self.turn_due
    }

    /// Whether the turn task must not sleep as long as it meant to.
    fn has_work(&self) -> bool {
        let due = self.core.deadline().min(self.clients.reads_due(&self.core));
        let wants_disk = self.core.wants_disk(self.clock.last());
        let writes = self.clients.has_output() || !self.outbox.is_empty();
        due < self.turn_due || wants_disk || writes
    }

    /// Gives the disk what waits for it, if it is free.
    fn feed_disk(&mut self, now: Now) {
        if let Some(disk) = &self.disk
            && let Some(batch) = self.core.next_batch(now)
        {
            self.totals.batches += 1;
            disk.write(batch);
        }
    }

    /// Hands a command to the carrier. Never waits: what finds no room is dropped, as a carrier may.
    fn carrier(&mut self, command: Command) {
        if self.carrier.try_send(command).is_err() {
            self.totals.frames_dropped += 1;
        }
    }
}
