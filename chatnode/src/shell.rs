//! The one place where everything meets: [`Node`] owns the core, the links, the fan-out and the
//! sessions; [`Hub`] is the handle through which tasks reach it.
//!
//! The node is one thread. A task that has something (bytes of a client, a frame of a peer, the
//! outcome of a request) calls [`Hub::with`], which lends it the node for the length of a function,
//! never across an await; so the lock inside is never contended. What that changes for clients and
//! peers is collected. The turn task (`turn.rs`), which stands in the run queue behind all that were ready
//! before it, then publishes and writes it, once per client.

pub(crate) mod catching_up;
pub(crate) mod chat;
mod clock;
pub(crate) mod disk;
mod drain;
mod effects;
pub(crate) mod events;
pub(crate) mod fetches;
mod hello;
pub(crate) mod mesh;
pub(crate) mod pages;
mod plain;
mod sockets;
pub(crate) mod turn;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base::process::Tasks;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::clock::Clock;
use crate::clients::seats::{Seat, Seats};
use crate::clients::session::Session;
use crate::clients::websocket::Close;
use crate::clients::{Clients, ConnId};
use crate::core::copies::Ticket;
use crate::core::links::Links;
use crate::core::links::{LinkId, Speech};
use crate::core::named::NamedBudget;
use crate::core::repair::Fetch;
use crate::core::{Core, Effect, Now, Say, Source};
use crate::discovery::View;
use crate::disk::Disk;
use crate::model::mesh_name::MeshName;
use crate::model::names::{EntryId, Mid, Origin, RoomName, UserName};
use crate::wire::frame::Topic;
use crate::wire::protocol::Refusal;

pub(crate) use clock::wall_us;
pub(crate) use turn::Outbox;

/// Commands that wait for the carrier at the most; beyond, frames are dropped and counted, and the
/// next beat lets the others repair.
pub(crate) const CARRIER_COMMANDS_MAX: usize = 4096;
/// Publishes that wait for their outcome at the most; beyond, HTTP answers `overloaded`.
const ANSWERS_MAX: usize = 100_000;
/// Bytes read from a client at once.
const SCRATCH_BYTES: usize = 64 << 10;

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

/// Who waits for the outcome of a say.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nobody.
    Nobody,
    /// A `chat.v1` client: its request's id, without which only a refusal is told.
    Chat(ConnId, Option<serde_json::Number>),
    /// A client of the plain form: it is told nothing, but is not left before that.
    Plain(ConnId),
    /// An HTTP request.
    Http(oneshot::Sender<Result<Said, Refusal>>),
}

/// What a say became.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    /// The entry.
    pub(crate) id: EntryId,
    /// Its timestamp.
    pub(crate) ts: u64,
    /// How many other nodes hold it.
    pub(crate) copies: usize,
}

/// A command for the carrier.
#[derive(Debug)]
pub(crate) enum CarrierCommand {
    /// Publish a frame.
    Publish(Topic, bytes::Bytes),
    /// Publish the plain form.
    PublishPlain(String),
    /// Dial.
    Dial(LinkId, String, Speech),
    /// Hang up.
    HangUp(LinkId),
}

/// Work that needs to wait, for a task of its own.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Ask a peer for entries.
    Fetch(Fetch, String),
    /// Ask a peer for its members.
    FetchMembers(Origin, String),
    /// Ask a peer how far it is.
    AskPosition(Origin, String),
    /// Say hello to a peer: it is to dial back, or turns out not to be there.
    Hello(Origin, String),
    /// Read from the disk what a client's request needs.
    Late(disk::Late),
    /// Search for a client.
    Search(ConnId, Option<serde_json::Number>, disk::Search),
}

/// Totals since the start, for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// WebSocket connections accepted.
    pub(crate) accepted: u64,
    /// Messages that this node's clients said.
    pub(crate) said: u64,
    /// Requests refused.
    pub(crate) refused: u64,
    /// Frames from peers that could not be decoded.
    pub(crate) frames_bad: u64,
    /// Frames that the carrier had no room for.
    pub(crate) frames_dropped: u64,
    /// Repair requests sent.
    pub(crate) fetches: u64,
    /// Repair requests that failed.
    pub(crate) fetches_failed: u64,
    /// Spans of entries that nobody had.
    pub(crate) gaps: u64,
    /// Batches handed to the disk.
    pub(crate) batches: u64,
    /// Messages that the disk had no room or no time for.
    pub(crate) not_taken: u64,
}

/// All state of one node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) core: Core,
    pub(crate) clients: Clients<Session>,
    pub(crate) links: Links,
    pub(crate) events: events::Events,
    pub(crate) outbox: Outbox,
    /// Where entries are kept, besides memory.
    pub(crate) disk: Option<Disk>,
    pub(crate) seats: Seats,
    /// Permits for searches through memory.
    searches: Arc<Semaphore>,
    pub(crate) counters: Counters,
    /// The HTTP endpoints of the live nodes, this one's first.
    pub(crate) nodes: Vec<String>,
    /// The HTTP endpoints of all nodes that were ever seen alive.
    pub(crate) nodes_seen: VecDeque<String>,
    /// How the registries are.
    pub(crate) view: View,
    /// The node is going away.
    pub(crate) stopping: bool,
    /// All clients were closed; who comes still is closed at once.
    pub(crate) closing: CancellationToken,
    /// Not to read the client that was just heard, for so long.
    pub(crate) pause: Option<Duration>,
    reads: sockets::Reads,
    pub(crate) errands: Vec<Errand>,
    pub(crate) clock: Clock,
    ready: watch::Sender<bool>,
    /// The number of the roll call that is over.
    roll_over: watch::Sender<u64>,
    /// What clients may name of what they were shown elsewhere.
    pub(crate) named: NamedBudget,
    carrier: mpsc::Sender<CarrierCommand>,
    answers: HashMap<Ticket, Answer>,
    tickets: u64,
    guests: u64,
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
    effects_spare: Vec<Effect>,
    scratch: Vec<u8>,
    sweep: turn::Sweep,
    /// When the turn task wakes by itself.
    turn_due: Duration,
}

/// A handle on the node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: Mutex<Node>,
    turn: Notify,
    tasks: Tasks,
    http: reqwest::Client,
    ready: watch::Receiver<bool>,
    roll_over: watch::Receiver<u64>,
}

/// What a [`Hub`] is made of.
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

impl Hub {
    /// A hub, the poll of its clients' sockets for [`Hub::run_clients`], and the commands for its
    /// carrier.
    ///
    /// # Errors
    /// The kernel gives no poll.
    pub(crate) fn new(
        parts: Parts,
        tasks: Tasks,
    ) -> io::Result<(Self, mio::Poll, mpsc::Receiver<CarrierCommand>)> {
        let sockets = mio::Poll::new()?;
        let (carrier, commands) = mpsc::channel(CARRIER_COMMANDS_MAX);
        let (ready_sender, ready) = watch::channel(false);
        let (roll_over_sender, roll_over) = watch::channel(0);
        let nodes = vec![parts.core.identity().http.clone()];
        let counters = Counters {
            // Those that the disk remembers.
            gaps: parts.core.holes().count() as u64,
            ..Counters::default()
        };
        let node = Node {
            seats: Seats::new(parts.settings.clients_max),
            settings: parts.settings,
            core: parts.core,
            clients: Clients::new(sockets.registry().try_clone()?),
            links: parts.links,
            events: events::Events::default(),
            outbox: Outbox::default(),
            disk: parts.disk,
            searches: Arc::new(Semaphore::new(disk::SEARCHES_MAX)),
            counters,
            nodes_seen: VecDeque::from(nodes.clone()),
            nodes,
            view: View::default(),
            stopping: false,
            closing: CancellationToken::new(),
            pause: None,
            reads: sockets::Reads::default(),
            errands: Vec::new(),
            clock: Clock::new(),
            ready: ready_sender,
            roll_over: roll_over_sender,
            named: NamedBudget::default(),
            carrier,
            answers: HashMap::new(),
            tickets: 0,
            guests: 0,
            greetings: mesh::Greetings::new(),
            absent: BTreeSet::new(),
            full_of_logs: false,
            goes_by_others: false,
            skewed: BTreeSet::new(),
            slow_pages: BTreeMap::new(),
            effects_spare: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            sweep: turn::Sweep::default(),
            turn_due: Duration::ZERO,
        };
        let shared = Shared {
            node: Mutex::new(node),
            turn: Notify::new(),
            tasks,
            http: parts.http,
            ready,
            roll_over,
        };
        let shared = Arc::new(shared);
        Ok((Self { shared }, sockets, commands))
    }

    /// Lends the node, then carries out what that brought.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Node, Now) -> T) -> T {
        let mut node = self.lock();
        let now = node.now();
        let result = act(&mut node, now);
        self.settle(node, now);
        result
    }

    /// Lends the node to look at.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(&self.lock())
    }

    /// A seat for one more client, if there is one.
    pub(crate) fn seat(&self) -> Option<Seat> {
        self.look(|node| node.seats.take())
    }

    /// The process's tasks.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    /// Waits until this node takes clients: it has joined, and holds what was said while it was
    /// stopped. Cancel safe.
    pub(crate) async fn ready(&self) {
        // The sender lives in the node, so it outlives this.
        if !*self.shared.ready.borrow() {
            let _ = self.shared.ready.clone().wait_for(|ready| *ready).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Node> {
        self.shared
            .node
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn settle(&self, mut node: MutexGuard<'_, Node>, now: Now) {
        node.carry_out(now);
        let errands = std::mem::take(&mut node.errands);
        let work = node.has_work();
        drop(node);
        for errand in errands {
            self.run(errand);
        }
        if work {
            self.shared.turn.notify_one();
        }
    }
}

impl Node {
    /// Says something; the outcome goes to `answer`.
    #[expect(
        clippy::too_many_arguments,
        reason = "a message has these parts, and they differ in type"
    )]
    pub(crate) fn say(
        &mut self,
        room: &RoomName,
        from: &UserName,
        mid: Option<&Mid>,
        text: &str,
        copies: usize,
        answer: Answer,
        source: Source,
        now: Now,
    ) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if let Answer::Chat(conn, _) | Answer::Plain(conn) = answer
            && let Some(conn) = self.clients.get_mut(conn)
        {
            conn.session.awaits += 1;
        }
        if !matches!(answer, Answer::Nobody) {
            self.answers.insert(ticket, answer);
        }
        self.core.say(
            now,
            Say {
                ticket,
                room,
                from,
                mid,
                text,
                copies,
                source,
            },
        );
        self.carry_out(now);
    }

    /// The name of a connection that has said hello.
    pub(crate) fn session_name(&mut self, id: ConnId) -> Option<UserName> {
        self.clients.get_mut(id)?.session.name.clone()
    }

    /// A name for somebody who gave none.
    pub(crate) fn guest_name(&mut self) -> UserName {
        self.guests += 1;
        let origin = self.core.identity().origin;
        format!("guest-{}-{}", &origin.as_str()[..4], self.guests)
            .parse()
            .expect("letters, digits and hyphens, 31 characters at the most")
    }

    /// Closes a connection: it leaves its rooms at once and is told why.
    pub(crate) fn close(&mut self, id: ConnId, close: &Close, now: Now) {
        self.leave_all(id);
        self.clients.close(id, close, now.mono);
    }

    /// Drops a connection.
    pub(crate) fn end(&mut self, id: ConnId) {
        self.leave_all(id);
        self.clients.remove(id);
    }

    pub(crate) fn leave_all(&mut self, id: ConnId) {
        let Some(conn) = self.clients.get_mut(id) else {
            return;
        };
        let name = conn.session.name.clone();
        let rooms: Vec<RoomName> = self.clients.rooms_of(id).cloned().collect();
        for room in rooms {
            self.clients.unsubscribe(id, &room);
            // An event stream is no member.
            if let Some(name) = &name {
                self.core.leave(&room, name);
            }
        }
    }

    /// Whether the turn task must not sleep as long as it meant to.
    fn has_work(&self) -> bool {
        let sooner = self.core.deadline().min(self.reads.due()) < self.turn_due;
        sooner || self.wants_disk() || self.clients.has_output() || !self.outbox.is_empty()
    }

    /// Whether something waits for the disk, and the disk for something.
    fn wants_disk(&self) -> bool {
        self.core.wants_disk(self.clock.last())
    }

    /// Hands a command to the carrier. Never waits: what finds no room is dropped, as a carrier may.
    pub(crate) fn carrier(&mut self, command: CarrierCommand) {
        if self.carrier.try_send(command).is_err() {
            self.counters.frames_dropped += 1;
        }
    }
}
