//! The one place where everything meets. [`Shell`] owns the core and the clients, as two fields: it
//! takes what comes, calls the core, and hands what that wants to the rims. Tasks reach it by a
//! [`Handle`].
//!
//! The node is one thread. A task that has something (bytes of a client, a frame of a peer, the
//! outcome of a request) hands it in, never across an await; so the lock inside the handle is never
//! contended. What that changes for clients and peers is collected. The turn task, which stands in the run
//! queue behind all that were ready before it, then publishes and writes it, once per client.

mod archiving;
mod clock;
mod errands;
mod handle;
mod inputs;
mod leaving;
mod outbox;
mod outputs;
pub(crate) mod status;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::tls::KeyId;
use tokio::sync::{mpsc, watch};

use self::clock::Clock;
use self::errands::Errand;
use self::outbox::Outbox;
use self::status::Totals;
use crate::carriers::Command;
use crate::carriers::broker::bridge::Bridge;
use crate::carriers::broker::gauges::Gauges;
use crate::carriers::broker::keeper::Keeper;
use crate::clients::Clients;
use crate::core::links::LinkId;
use crate::core::{Core, Input, Now, Output};
use crate::discovery::View;
use crate::disk::Disk;
use crate::model::mesh_name::MeshName;
use crate::peers::Asker;

pub(crate) use self::archiving::Archiving;
pub(crate) use self::clock::wall_us;
pub(crate) use self::handle::{Handle, Post};

/// Commands that wait for the carrier at the most; beyond, frames are dropped and counted, and the
/// next beat lets the others repair.
const CARRIER_COMMANDS_MAX: usize = 4096;
/// What the configuration says to the node.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Messages a second that one client may send; 0 is no limit.
    pub(crate) rate_limit: u32,
    /// Of which mesh this node is.
    pub(crate) mesh: MeshName,
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
    /// For requests to peers.
    pub(crate) asker: Asker,
    /// Where entries are kept, besides memory.
    pub(crate) disk: Option<Disk>,
    /// By which brokers it meets others.
    pub(crate) buses: Vec<Bus>,
    /// By which bridges it is joined with foreign programs.
    pub(crate) bridges: Vec<Bridge>,
    /// What keeps what is said here besides, if anything does.
    pub(crate) keeper: Option<Keeper>,
}

/// A broker by which nodes meet.
#[derive(Debug, Clone)]
pub(crate) struct Bus {
    /// Its URL, without secrets: what the links to it are called.
    pub(crate) url: String,
    /// The name of its carrier.
    pub(crate) carrier: &'static str,
    /// What is counted of it.
    pub(crate) gauges: Arc<Gauges>,
}

/// All state of one node.
#[derive(Debug)]
struct Shell {
    core: Core,
    clients: Clients,
    /// Own entries that are to be published.
    outbox: Outbox,
    carrier: mpsc::Sender<Command>,
    /// The key of the mesh that each link's peer has shown.
    link_keys: BTreeMap<LinkId, KeyId>,
    /// Where entries are kept, besides memory.
    disk: Option<Disk>,
    /// By which brokers it meets others,
    buses: Vec<Bus>,
    /// by which bridges foreign programs,
    bridges: Vec<Bridge>,
    /// by what it is kept besides,
    keeper: Option<Keeper>,
    /// and whether others can hear it without one.
    is_direct: bool,
    /// Work that has to wait, for tasks of its own.
    errands: Vec<Errand>,
    /// What registries and other sources say.
    view: View,
    /// The node is going away.
    stopping: bool,
    clock: Clock,
    /// Whether clients are taken.
    ready: watch::Sender<bool>,
    totals: Totals,
    spare: Vec<Output>,
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
        let (most, rate) = (parts.settings.clients_max, parts.settings.rate_limit);
        Self {
            totals: Totals {
                // Those that the disk remembers.
                holes: parts.core.holes().count() as u64,
                ..Totals::default()
            },
            clients: Clients::new(readiness, most, rate, !parts.bridges.is_empty()),
            outbox: Outbox::default(),
            carrier,
            link_keys: BTreeMap::new(),
            disk: parts.disk,
            is_direct: !parts.core.identity().publisher.is_empty(),
            buses: parts.buses,
            bridges: parts.bridges,
            keeper: parts.keeper,
            core: parts.core,
            errands: Vec::new(),
            view: View::default(),
            stopping: false,
            clock: Clock::new(),
            ready,
            spare: Vec::new(),
            turn_due: Duration::ZERO,
        }
    }

    /// The time by which this node goes. One that finds that it was stopped has first to learn what was
    /// said meanwhile.
    fn now(&mut self) -> Now {
        let clocks = self.clock.now();
        let stopped = self.clock.woke();
        let now = self.core.time(clocks, stopped);
        if !stopped.is_zero() {
            self.settle(now);
        }
        now
    }

    /// Carries out all that the core wants, in order.
    fn settle(&mut self, now: Now) {
        loop {
            self.clients.settle(&mut self.core, now);
            let mut outputs = self.clients.take_beyond(std::mem::take(&mut self.spare));
            if outputs.is_empty() {
                self.spare = outputs;
                return;
            }
            for output in outputs.drain(..) {
                self.carry_out(output, now);
            }
            self.spare = outputs;
        }
    }

    /// Publishes and writes what the turn brought; when the next is due at the latest.
    fn turn(&mut self, now: Now) -> Duration {
        self.clients.begin_turn(&mut self.core, now);
        self.settle(now);
        if now.mono >= self.core.deadline() {
            self.core.handle(Input::Tick, now);
            self.clients.ticked();
            if let Some(disk) = &self.disk {
                disk.correct_clock(self.core.correction_us());
            }
        }
        self.settle(now);
        self.core.handle(Input::TurnOver, now);
        self.settle(now);
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
        let wants_disk = self.core.wants_disk(self.clock.last()) || self.core.wants_keeper();
        let writes = self.clients.has_output() || !self.outbox.is_empty();
        due < self.turn_due || wants_disk || writes
    }

    /// Hands a command to the carrier. Never waits: what finds no room is dropped, as a carrier may.
    fn carrier(&mut self, command: Command) {
        if self.carrier.try_send(command).is_err() {
            self.totals.frames_dropped += 1;
        }
    }
}
