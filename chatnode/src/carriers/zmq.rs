//! Frames over ZeroMQ: one PUB socket for all that hear this node, one SUB socket, in a task of
//! its own, for each node that it hears; and, in [`proxy`], the two sockets of a node at a proxy. Nothing
//! else names the `zeromq` crate.
//!
//! The crate speaks ZMTP well and manages connections badly, so that all management is here or in
//! [`crate::core::links`]:
//! - **One thread.** On a multi-thread runtime its PUB deadlocks. A carrier is made, used and dropped on
//!   one current-thread runtime.
//! - **No reconnecting.** After its first connect a SUB reconnects for ever, backs off to thirty
//!   seconds and can hang on a silent host. A link that loses its connection drops its socket at
//!   once, within the hundred milliseconds that the crate's task sleeps first, and is reported.
//! - **No bound on what PUB queues** for a subscriber that does not read, so the kernel has to end
//!   such connections: [`listen`] sets `TCP_USER_TIMEOUT` and keepalive, which accepted sockets
//!   inherit. A stopped peer can hold five seconds' worth of frames, no more.
//! - **PUB drops in silence** what finds 100 000 messages before it. [`ZmqCarrier::event`] lets the
//!   crate's task run after a burst of publishing; the numbers of the log notice the rest.
//! - **What it reads is a slice** of a large buffer; what comes in is copied out of it.
//! - **It looks names up** with threads of the runtime, without a bound: `dial` does it before.
//! - **Its accept loop spins** when the process has no files left: `door` stops it for a while.
//! - **No limits on size, handshakes or connections**: only trusted nodes may reach the port.
//!
//! A dial to a dead even port of the ephemeral range can connect to itself. That ends cleanly: two
//! SUB sockets refuse each other. The ports that Linux finds for [`listen`] are odd.

mod door;
pub(crate) mod proxy;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use zeromq::{
    PubSocket, Socket as _, SocketEvent, SocketOptions, SocketRecv as _, SocketSend as _,
    SubSocket, ZmqError, ZmqMessage,
};

use super::parts::{Heard, PLAIN_TOPIC, PlainForm, Topics, from_plain, to_plain};
use crate::carriers::dial;
use crate::carriers::{Carrier, CarrierEvent, Command};
use crate::core::links::fault::{Fault, Why};
use crate::core::links::{LinkId, Speech};
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame::FRAME_LEN_MAX;
use crate::wire::frame::Topic;
use door::Door;

/// Why a dial failed is asked for so long.
const PROBE_MAX: Duration = Duration::from_millis(500);
/// News that wait for the node. When full, links wait, stop reading, and TCP pushes back.
const EVENTS_MAX: usize = 256;
/// After so many frames published in a row, [`ZmqCarrier::event`] lets the crate send some.
const BURST_MAX: usize = 1024;
/// A subscriber that has taken nothing for so long, though there is something, is cut off.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that the kernel holds until they are accepted: a whole mesh may dial at once.
const BACKLOG: i32 = 1024;
/// An idle connection is probed after this time.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Probes without an answer that end a connection.
const KEEPALIVE_COUNT: u32 = 3;

/// Opens the port for the publisher, so that what it accepts ends by itself when it must. Port 0
/// finds a free one.
///
/// # Errors
/// The address cannot be bound, as when its port is taken.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(SEND_TIMEOUT))?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_COUNT);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Why there is no carrier.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The listener was not accepted.
    #[error("cannot publish on this listener")]
    Zmq(#[from] ZmqError),
}

/// The carrier over ZeroMQ. Make, use and drop it on one current-thread runtime.
pub(crate) struct ZmqCarrier {
    me: Origin,
    topics: Topics,
    plain: PlainForm,
    publisher: PubSocket,
    door: Door,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Dropping a guard ends the link's task.
    links: HashMap<LinkId, DropGuard>,
    sender: mpsc::Sender<CarrierEvent>,
    events: mpsc::Receiver<CarrierEvent>,
    refused: Arc<AtomicU64>,
    burst: usize,
}

impl ZmqCarrier {
    /// Publishes for this mesh on this listener, which [`listen`] has made, and returns the endpoint
    /// too. Links run as `tasks` until hung up or until `stop`.
    ///
    /// # Errors
    /// The listener has no address or cannot be used by the runtime.
    pub(crate) async fn bind(
        listener: TcpListener,
        me: Origin,
        mesh: &MeshName,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<(Self, String), BindError> {
        let mut publisher = PubSocket::new();
        let door = Door::open(listener, &mut publisher).await?;
        let endpoint = door.endpoint().to_string();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let carrier = Self {
            me,
            topics: Topics::of(mesh),
            plain: PlainForm::default(),
            publisher,
            door,
            tasks,
            stop,
            links: HashMap::new(),
            sender,
            events,
            refused: Arc::default(),
            burst: 0,
        };
        Ok((carrier, endpoint))
    }

    /// In which form foreign programs are spoken to from now on.
    pub(crate) fn speaks_plain(mut self, form: PlainForm) -> Self {
        self.plain = form;
        self
    }

    /// Messages refused since the start, coming or going: too long, of a wrong form, not UTF-8.
    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn send(&mut self, message: ZmqMessage) {
        self.burst += 1;
        // The crate only pushes to a queue, which neither waits nor fails.
        let sent = self.publisher.send(message).now_or_never();
        debug_assert!(matches!(sent, Some(Ok(()))), "PUB never waits");
    }

    pub(super) fn publish(&mut self, topic: Topic, body: Bytes) {
        if body.len() > FRAME_LEN_MAX {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Ok(message) = self.topics.to_parts(topic, body).to_vec().try_into() {
            self.send(message);
        }
    }

    pub(super) fn publish_plain(&mut self, text: &str) {
        if let Ok(message) = to_plain(self.plain, text).try_into() {
            self.send(message);
        }
    }

    pub(super) fn dial(&mut self, link: LinkId, endpoint: &str, speech: Speech) {
        let stop = self.stop.child_token();
        let hearing = Hearing {
            link,
            me: self.me,
            topics: self.topics.clone(),
            speech,
            sender: self.sender.clone(),
            refused: Arc::clone(&self.refused),
        };
        self.links.insert(link, stop.clone().drop_guard());
        let endpoint = endpoint.to_owned();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(hearing.run(endpoint)).await;
        });
    }

    pub(super) fn hang_up(&mut self, link: LinkId) {
        self.links.remove(&link);
    }
}

impl Carrier for ZmqCarrier {
    fn carry(&mut self, command: Command) {
        match command {
            Command::Publish(topic, body) => self.publish(topic, body),
            Command::PublishPlain(text) => self.publish_plain(&text),
            Command::Dial(link, endpoint, speech) => self.dial(link, &endpoint, speech),
            Command::HangUp(link) => self.hang_up(link),
        }
    }

    async fn event(&mut self) -> CarrierEvent {
        if self.burst >= BURST_MAX {
            self.burst = 0;
            tokio::task::yield_now().await;
        }
        loop {
            // Both are cancel safe: an event or a turn that is not taken stays.
            let event = tokio::select! {
                biased;
                turn = self.door.turn() => {
                    self.door.take(turn, &mut self.publisher).await;
                    continue;
                }
                event = self.events.recv() => event.expect("the carrier holds a sender itself"),
            };
            // What was queued when its link was hung up is dropped here.
            if !self.links.contains_key(&event.link()) {
                continue;
            }
            if let CarrierEvent::Closed(link, _) = &event {
                self.links.remove(link);
            }
            return event;
        }
    }

    async fn close(self, grace: Duration) {
        let Self {
            publisher,
            door,
            links,
            ..
        } = self;
        drop((links, door));
        // Elapsed: what still waits, waits for a peer that does not read.
        let _ = tokio::time::timeout(grace, flush(publisher)).await;
    }
}

impl fmt::Debug for ZmqCarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZmqCarrier")
            .field("me", &self.me)
            .field("links", &self.links.keys())
            .field("refused", &self.refused())
            .finish_non_exhaustive()
    }
}

/// Waits until all that was published is with the kernel. The crate cannot be asked, but can be
/// watched: a last message that nobody subscribes to is dropped when its turn in the fan-out queue
/// comes; then closing the socket closes the subscribers' queues, and each writer, having written
/// its own to the end, lets go of the socket's backend.
async fn flush(mut publisher: PubSocket) {
    struct Last(#[expect(dead_code, reason = "dropping it is the signal")] oneshot::Sender<()>);
    impl AsRef<[u8]> for Last {
        fn as_ref(&self) -> &[u8] {
            b"m1.end"
        }
    }
    let (sender, drained) = oneshot::channel();
    let last = publisher.send(Bytes::from_owner(Last(sender)).into()).await;
    debug_assert!(last.is_ok(), "PUB never fails");
    let _ = drained.await;
    let backend = publisher.backend();
    drop(publisher);
    let mut turns = 0;
    while Arc::strong_count(&backend) > 1 {
        // Mostly a few turns of the runtime are enough; a slow peer is looked at now and then.
        turns += 1;
        if turns < 100 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// One link's task.
struct Hearing {
    link: LinkId,
    me: Origin,
    topics: Topics,
    speech: Speech,
    sender: mpsc::Sender<CarrierEvent>,
    refused: Arc<AtomicU64>,
}

impl Hearing {
    /// Hears until the connection ends. Dropped when the link is hung up.
    async fn run(self, endpoint: String) {
        if endpoint.starts_with("tls://") {
            let text = "it has a mesh secret; give this node the same --mesh-secret file";
            let fault = Fault::new(Why::NotSealed, text);
            return self.report(CarrierEvent::Closed(self.link, fault)).await;
        }
        let fault = match dial::by_address(&endpoint).await {
            Ok((endpoint, left)) => match self.hear(&endpoint, left).await {
                Ok(()) => Fault::ended(),
                Err(fault) => fault,
            },
            Err(why) => Fault::new(Why::Unreachable, format!("no way there: {why}")),
        };
        self.report(CarrierEvent::Closed(self.link, fault)).await;
    }

    /// The socket lives in here only: when this returns it is gone, and its reconnecting with it.
    async fn hear(&self, endpoint: &str, within: Duration) -> Result<(), Fault> {
        let broken = |error: ZmqError| Fault::new(Why::Ended, error.to_string());
        let mut options = SocketOptions::default();
        options.connect_timeout(within);
        let mut socket = SubSocket::with_options(options);
        let mut monitor = socket.monitor();
        // Before connecting: a subscription made while connecting can be lost.
        match self.speech {
            Speech::Mesh | Speech::Hall => {
                for topic in self.topics.wanted_by(self.me) {
                    let topic = String::from_utf8_lossy(&topic);
                    socket.subscribe(&topic).await.map_err(broken)?;
                }
            }
            Speech::Plain => socket.subscribe(PLAIN_TOPIC).await.map_err(broken)?,
        }
        if let Err(error) = socket.connect(endpoint).await {
            return Err(not_dialled(endpoint, &error).await);
        }
        self.report(CarrierEvent::Connected(self.link, None)).await;
        loop {
            // Both are cancel safe: a message is in the socket or returned whole.
            let message = tokio::select! {
                biased;
                event = monitor.next() => match event {
                    Some(SocketEvent::Disconnected(_)) | None => return Ok(()),
                    Some(_) => continue,
                },
                message = socket.recv() => message.map_err(broken)?,
            };
            match self.read(message) {
                Some(event) => self.report(event).await,
                None => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn read(&self, message: ZmqMessage) -> Option<CarrierEvent> {
        let parts = message.into_vec();
        match self.speech {
            Speech::Mesh | Speech::Hall => match self.topics.join(&parts)? {
                Heard::Frame(Topic::Ack(origin), _) if origin != self.me => None,
                Heard::Frame(topic, frame) => Some(CarrierEvent::Frame(self.link, topic, frame)),
                Heard::Stranger(mesh) => Some(CarrierEvent::Stranger(self.link, mesh)),
            },
            Speech::Plain => Some(CarrierEvent::Plain(self.link, from_plain(&parts)?)),
        }
    }

    async fn report(&self, event: CarrierEvent) {
        // An error means that the carrier is gone, and then so is this task.
        let _ = self.sender.send(event).await;
    }
}

/// Why a dial failed. The crate tries a refused port again until its time is over, and then says only
/// that it is over; so the port is asked once more, plainly.
async fn not_dialled(endpoint: &str, error: &ZmqError) -> Fault {
    let place = endpoint.strip_prefix("tcp://").unwrap_or(endpoint);
    match tokio::time::timeout(PROBE_MAX, TcpStream::connect(place)).await {
        // A dial to a free port of this machine can connect to itself.
        Ok(Ok(probe)) if probe.local_addr().ok() == probe.peer_addr().ok() => Fault::refused(),
        Ok(Ok(_)) if matches!(error, ZmqError::ConnectTimeout(_)) => Fault::new(
            Why::TimedOut,
            "timed out: it takes the connection and says nothing",
        ),
        Ok(Ok(_)) => Fault::new(
            Why::NoPublisher,
            format!("what listens there is no publisher: {error}"),
        ),
        Ok(Err(why)) if why.kind() == io::ErrorKind::ConnectionRefused => Fault::refused(),
        Ok(Err(why)) => Fault::new(Why::Unreachable, format!("no way there: {why}")),
        Err(_) => Fault::new(Why::TimedOut, "timed out: no answer from there"),
    }
}
