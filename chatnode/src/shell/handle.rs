//! What tasks hold of the node: they send it things, ask it, and look at how it is.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base::process::Tasks;
use base::serve::Admission;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{CARRIER_COMMANDS_MAX, Parts, Shell};
use crate::carriers::Command;
use crate::clients::Said;
use crate::clients::seats::Seat;
use crate::clients::streams::{Asked, Comes, Line};
use crate::core::copies::Ticket;
use crate::core::members::Snapshot;
use crate::core::news::Beat;
use crate::core::question::{Found, Question, ReadError};
use crate::core::{Identity, Input, Now, Say, Source};
use crate::model::mesh_name::MeshName;
use crate::model::names::{Mid, Origin, RoomName, UserName};
use crate::peers::Asker;
use crate::wire::protocol::Refusal;
use crate::wire::refusals::unread;

/// A handle on the node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    shell: Mutex<Shell>,
    /// There is something for the turn task.
    turn: Notify,
    tasks: Tasks,
    asker: Asker,
    me: Identity,
    mesh: MeshName,
    rate_limit: u32,
    ready: watch::Receiver<bool>,
    /// All clients were closed; who comes still is closed at once.
    pub(super) closing: CancellationToken,
    /// WebSockets that wait until the node takes clients.
    pub(super) coming: TaskTracker,
    /// Something was stored, or may be taken in again: for what takes in what a keeper holds.
    pub(super) stored: Notify,
}

/// What is said over HTTP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Post<'a> {
    /// Where.
    pub(crate) room: &'a RoomName,
    /// Who.
    pub(crate) from: &'a UserName,
    /// The client's own id.
    pub(crate) mid: Option<&'a Mid>,
    /// What.
    pub(crate) text: &'a str,
    /// How many other nodes must hold it before the answer.
    pub(crate) copies: usize,
}

impl Handle {
    /// A node, the poll of its clients' sockets for [`Handle::run_clients`], and the commands for its
    /// carrier.
    ///
    /// # Errors
    /// The kernel gives no poll.
    pub(crate) fn new(
        parts: Parts,
        tasks: Tasks,
    ) -> io::Result<(Self, mio::Poll, mpsc::Receiver<Command>)> {
        let sockets = mio::Poll::new()?;
        let (carrier, commands) = mpsc::channel(CARRIER_COMMANDS_MAX);
        let (ready_sender, ready) = watch::channel(false);
        let mesh = parts.settings.mesh.clone();
        let shared = Shared {
            turn: Notify::new(),
            tasks,
            asker: parts.asker.clone(),
            me: parts.core.identity().clone(),
            mesh,
            rate_limit: parts.settings.rate_limit,
            ready,
            closing: CancellationToken::new(),
            coming: TaskTracker::new(),
            stored: Notify::new(),
            shell: Mutex::new(Shell::new(
                parts,
                sockets.registry().try_clone()?,
                carrier,
                ready_sender,
            )),
        };
        let shared = Arc::new(shared);
        Ok((Self { shared }, sockets, commands))
    }

    /// Hands something in, then carries out what that brought.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Shell, Now) -> T) -> T {
        let mut shell = self.lock();
        let now = shell.now();
        let result = act(&mut shell, now);
        shell.settle(now);
        let work = shell.has_work();
        self.start_errands(shell);
        if work {
            self.shared.turn.notify_one();
        }
        result
    }

    /// Tells the core that something has happened.
    pub(crate) fn send(&self, input: Input<'_>) {
        self.with(|shell, now| shell.core.handle(input, now));
    }

    /// Looks at the node.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Shell) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Shell> {
        self.shared
            .shell
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Does one turn; until when there is nothing more to do.
    pub(super) fn turn(&self) -> tokio::time::Instant {
        let mut shell = self.lock();
        let now = shell.now();
        let due = shell.turn(now);
        let due = shell.clock.instant(due);
        self.start_errands(shell);
        due
    }

    /// Starts what has to wait, when the node is let go.
    fn start_errands(&self, mut shell: MutexGuard<'_, Shell>) {
        let errands = std::mem::take(&mut shell.errands);
        drop(shell);
        for errand in errands {
            let asks_a_peer = errand.asks_a_peer();
            let stopping = self.tasks().stopping();
            let errand = self.clone().run(errand);
            self.tasks().spawn(async move {
                if asks_a_peer {
                    // What comes of it is of no use to a node that stops, and the peer may hang.
                    stopping.run_until_cancelled(errand).await;
                } else {
                    errand.await;
                }
            });
        }
    }

    /// There is something for the turn task. Cancel safe: what is not taken stays.
    pub(super) async fn turn_wanted(&self) {
        self.shared.turn.notified().await;
    }

    /// The process's tasks.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    /// Who this node is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.shared.me
    }

    /// Of which mesh it is.
    pub(crate) fn mesh(&self) -> &MeshName {
        &self.shared.mesh
    }

    /// Messages a second that one client may send; 0 is no limit.
    pub(crate) fn rate_limit(&self) -> u32 {
        self.shared.rate_limit
    }

    /// Tells of each batch that was stored.
    pub(super) fn stored(&self) -> &Notify {
        &self.shared.stored
    }

    pub(super) fn asker(&self) -> &Asker {
        &self.shared.asker
    }

    /// A seat for one more client, if there is one.
    pub(crate) fn seat(&self) -> Option<Seat> {
        self.look(|shell| shell.clients.seats().take())
    }

    /// A seat for one more event stream, if there is one.
    pub(crate) fn stream_seat(&self) -> Option<Seat> {
        self.look(|shell| shell.clients.seats().take_stream())
    }

    /// Whether it is going away.
    pub(crate) fn is_stopping(&self) -> bool {
        self.look(|shell| shell.stopping)
    }

    /// The time by which the node goes.
    pub(crate) fn now(&self) -> Duration {
        self.with(|_, now| now.mono)
    }

    /// Whether a node was ever seen alive whose HTTP is there.
    pub(crate) fn has_seen_node(&self, is_there: impl Fn(&str) -> bool) -> bool {
        self.look(|shell| shell.core.nodes_seen().any(&is_there))
    }

    /// Who is in which room here.
    pub(crate) fn members(&self) -> Snapshot {
        self.look(|shell| shell.core.members().snapshot())
    }

    /// How far this node is: its beat, made now.
    pub(crate) fn position(&self) -> Beat {
        self.with(|shell, now| shell.core.beat(now))
    }

    /// A peer said hello.
    pub(crate) fn introduced(&self, origin: Origin, publisher: String, http: String) {
        self.with(|shell, now| shell.introduced(origin, publisher, http, now));
    }

    /// Whether this node hears another.
    pub(crate) fn hears(&self, origin: Origin) -> bool {
        self.look(|shell| shell.core.links().hears(origin))
    }

    /// Whether this node takes clients, as it changes.
    pub(crate) fn readiness(&self) -> watch::Receiver<bool> {
        self.shared.ready.clone()
    }

    /// Waits until this node takes clients: it has joined, and holds what was said while it was
    /// stopped. Cancel safe.
    pub(crate) async fn ready(&self) {
        // The sender lives in the node, so it outlives this.
        if !*self.shared.ready.borrow() {
            let _ = self.shared.ready.clone().wait_for(|ready| *ready).await;
        }
    }

    /// Asks for history. Answered when the node takes clients, but a part of a log at any time.
    ///
    /// # Errors
    /// `overloaded` if too many wait; the disk cannot be read, now or ever.
    pub(crate) async fn ask(&self, question: Question) -> Result<Found, Refusal> {
        let (answer, found) = oneshot::channel();
        let mut asks = Some((question, answer));
        // Whoever goes before the answer takes back what is being read for it.
        let gone = CancellationToken::new();
        let _goes = gone.clone().drop_guard();
        while let Some((question, _)) = &asks {
            let waits = question.is_of_clients();
            if waits {
                self.ready().await;
            }
            self.with(|shell, now| {
                // It may have been stopped between the two.
                match asks.take_if(|_| !waits || shell.core.takes_clients()) {
                    Some(asks) => {
                        let core = &mut shell.core;
                        shell.clients.ask_for_task(core, asks, gone.clone(), now)
                    }
                    None => Ok(()),
                }
            })?;
        }
        let found = found.await.unwrap_or(Err(ReadError::Closed));
        found.map_err(|why| unread(&why))
    }

    /// Says something for a client of the HTTP API.
    ///
    /// # Errors
    /// `overloaded` if too many wait, `storage_full` and others if the disk does not take it,
    /// `stopping` if the node stops before the outcome is known.
    pub(crate) async fn post(&self, post: Post<'_>) -> Result<Said, Refusal> {
        let (answer, outcome) = oneshot::channel();
        let mut answer = Some(answer);
        let say = Say {
            ticket: Ticket(0),
            room: post.room,
            from: post.from,
            mid: post.mid,
            text: post.text,
            copies: post.copies,
            source: Source::Client,
        };
        while answer.is_some() {
            self.ready().await;
            self.with(|shell, now| {
                // It may have been stopped between the two.
                match answer.take_if(|_| shell.core.takes_clients()) {
                    Some(answer) => shell.clients.post(&mut shell.core, say, answer, now),
                    None => Ok(()),
                }
            })?;
        }
        let gone = |_| Refusal::new("stopping", "this node is going away");
        outcome.await.map_err(gone)?
    }

    /// Serves a WebSocket whose handshake is done. `begun` is what came with the handshake.
    /// `plain`: the room, for the plain form. `seat`: what it was given at the handshake.
    pub(crate) async fn serve_websocket(
        &self,
        stream: TcpStream,
        begun: &[u8],
        plain: Option<RoomName>,
        seat: Seat,
        admission: Admission,
    ) {
        let socket = match stream.into_std() {
            Ok(stream) => mio::net::TcpStream::from_std(stream),
            Err(why) => return tracing::warn!("a client cannot be served: {why}"),
        };
        let mut comes = Some((socket, (admission, seat)));
        let closing = &self.shared.closing;
        let _coming = self.shared.coming.token();
        while comes.is_some() {
            // A client that comes early waits, so that its history and its stream are one cut.
            tokio::select! {
                biased;
                () = self.ready() => {}
                () = closing.cancelled() => {}
            }
            let adopted = self.with(|shell, now| {
                let may = closing.is_cancelled() || shell.core.takes_clients();
                match comes.take_if(|_| may) {
                    Some(comes) => {
                        let core = &mut shell.core;
                        shell.clients.adopt(core, comes, begun, plain.clone(), now)
                    }
                    // It was stopped between the two.
                    None => Ok(()),
                }
            });
            if let Err(why) = adopted {
                tracing::warn!("a client cannot be served: {why}");
            }
        }
    }

    /// Serves a stream whose connection has left HTTP; what is wrong if it cannot be opened, and the
    /// connection to say it on.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) async fn serve_stream(
        &self,
        asked: Asked,
        line: Line,
    ) -> Result<(), (Refusal, TcpStream)> {
        let (refused, outcome) = oneshot::channel();
        let mut comes = Some(Comes {
            asked,
            line,
            refused,
        });
        let opens = async {
            while comes.is_some() {
                self.ready().await;
                self.with(|shell, now| {
                    // It may have been stopped between the two.
                    if let Some(comes) = comes.take_if(|_| shell.core.takes_clients()) {
                        shell.clients.open_stream(&mut shell.core, comes, now);
                    }
                });
            }
            outcome.await.map_or(Ok(()), Err)
        };
        let stopping = self.tasks().stopping();
        tokio::select! {
            biased;
            opened = opens => opened,
            // The node is going away: who comes back is told so.
            () = self.shared.closing.cancelled() => Ok(()),
            () = stopping.cancelled() => Ok(()),
        }
    }
}

#[cfg(test)]
impl Handle {
    /// Hands something to the core.
    pub(crate) fn with_core<T>(&self, act: impl FnOnce(&mut crate::core::Core, Now) -> T) -> T {
        self.with(|shell, now| act(&mut shell.core, now))
    }

    /// Questions that have no answer yet, and who waits for answers of the core.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        self.look(|shell| (shell.core.questions(), shell.clients.waiting()))
    }
}
