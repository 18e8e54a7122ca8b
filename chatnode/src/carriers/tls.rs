//! Frames in TLS: what carries them where there is a mesh secret. It goes through the node's one HTTP
//! port ([`base::serve::door`]); whoever dials listens, whoever accepted speaks.
//!
//! What a node publishes is written by the node's own turn, for each who hears it: queued once, gathered,
//! encrypted when the socket takes it. No task stands between, and no copy. What a peer does not take is
//! bounded ([`speak::WAITING_BYTES_MAX`]); beyond, the peer is cut off, and repairs.

mod hear;
mod record;
mod speak;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::serve::door::Link;
use base::tls::{ALPN_BUS, KeyRing};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::hear::Hearing;
use self::record::{Hello, Reader, Record};
use self::speak::Subscriber;
use crate::carriers::{Carrier, CarrierEvent, Command};
use crate::core::links::fault::{Fault, Why};
use crate::core::links::{LinkId, Speech};
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame::{FRAME_LEN_MAX, Topic};

/// News that wait for the node. When full, links wait, stop reading, and TCP pushes back.
const EVENTS_MAX: usize = 256;
/// Peers that have shaken hands and not yet said hello; further ones are dropped, and dial again.
const GREETINGS_MAX: usize = 64;
/// Peers that may hear this node at once.
const SUBSCRIBERS_MAX: usize = 4096;
/// A peer says hello within this time.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// What is published is sent when so much has come together, or when nothing more is to be done first.
const TOGETHER_MAX: usize = 256 << 10;
/// How often a carrier that closes looks whether all has been taken.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The carrier over TLS. Make, use and drop it on one current-thread runtime.
pub(crate) struct TlsCarrier {
    shared: Arc<Shared>,
    config: Arc<rustls::ClientConfig>,
    /// Dropping a guard ends the link's task.
    links: HashMap<LinkId, DropGuard>,
    sender: mpsc::Sender<CarrierEvent>,
    events: mpsc::Receiver<CarrierEvent>,
    /// Bytes published since the last flush.
    together: usize,
}

/// What the tasks of a carrier need of it.
struct Shared {
    me: Origin,
    mesh: MeshName,
    keys: KeyRing,
    tasks: TaskTracker,
    stop: CancellationToken,
    greetings: Semaphore,
    subscribers: Mutex<Vec<Subscriber>>,
    /// Something was published.
    published: Notify,
}

impl TlsCarrier {
    /// Carries for this mesh. Links run as `tasks` until hung up or until `stop`.
    pub(crate) fn new(
        me: Origin,
        mesh: &MeshName,
        keys: KeyRing,
        tasks: TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let config = Arc::new(keys.client(ALPN_BUS));
        let shared = Arc::new(Shared {
            me,
            mesh: mesh.clone(),
            keys,
            tasks,
            stop: stop.child_token(),
            greetings: Semaphore::new(GREETINGS_MAX),
            subscribers: Mutex::default(),
            published: Notify::new(),
        });
        let (flushing, stop) = (Arc::clone(&shared), shared.stop.clone());
        // The turn that publishes ends first: what it says to one peer is one write.
        shared.tasks.spawn(async move {
            let flushing = async {
                loop {
                    flushing.published.notified().await;
                    flushing.flush();
                }
            };
            stop.run_until_cancelled(flushing).await;
        });
        Self {
            shared,
            config,
            links: HashMap::new(),
            sender,
            events,
            together: 0,
        }
    }

    /// What takes links that other nodes have made, for the door of the HTTP port.
    pub(crate) fn takes_links(&self) -> Box<dyn Fn(Link) + Send + Sync> {
        let shared = Arc::downgrade(&self.shared);
        Box::new(move |link| {
            if let Some(shared) = shared.upgrade() {
                shared.greet(link);
            }
        })
    }
}

impl Shared {
    fn subscribers(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what was published as far as sockets take it.
    fn flush(&self) {
        self.subscribers().retain(Subscriber::flush);
    }

    /// Says hello to who has dialled, in a task; then it hears what is published.
    fn greet(self: Arc<Self>, link: Link) {
        let tasks = self.tasks.clone();
        // Beside the task, which stays as long as the link: a greeting takes more room than a link.
        let greeting = Box::pin(greet(link, self.me, self.mesh.clone()));
        tasks.spawn(async move {
            let Ok(place) = self.greetings.try_acquire() else {
                return tracing::debug!("too many peers come at once; one has to dial again");
            };
            let greeting = timeout(HELLO_MAX, greeting);
            let Some(Ok(Some(subscriber))) = self.stop.run_until_cancelled(greeting).await else {
                return;
            };
            drop(place);
            if self.admit(&subscriber) {
                let attending = subscriber.attend(&self.keys);
                self.stop.run_until_cancelled(attending).await;
                // The last that holds the socket.
                self.subscribers().retain(|it| !it.is(&subscriber));
            }
        });
    }

    /// From now on it hears what is published, in place of an older link of the same node.
    fn admit(&self, subscriber: &Subscriber) -> bool {
        let mut subscribers = self.subscribers();
        let same = |it: &Subscriber| it.origin == subscriber.origin;
        if let Some(older) = subscribers.iter().position(same) {
            subscribers.swap_remove(older).close();
        }
        let has_room = subscribers.len() < SUBSCRIBERS_MAX;
        if has_room {
            subscribers.push(subscriber.clone());
        }
        has_room
    }
}

impl TlsCarrier {
    fn publish(&mut self, topic: Topic, body: Bytes) {
        if body.len() > FRAME_LEN_MAX {
            return tracing::warn!(bytes = body.len(), "a frame is too long, and is not sent");
        }
        self.together += body.len();
        let pieces = [record::head_of(topic, &body), body];
        for subscriber in self.shared.subscribers().iter() {
            if matches!(topic, Topic::Ack(origin) if origin != subscriber.origin) {
                continue;
            }
            subscriber.say(&pieces);
        }
        if self.together >= TOGETHER_MAX {
            self.together = 0;
            self.shared.flush();
        } else {
            self.shared.published.notify_one();
        }
    }

    fn dial(&mut self, link: LinkId, endpoint: &str, speech: Speech) {
        let stop = self.shared.stop.child_token();
        self.links.insert(link, stop.clone().drop_guard());
        let sender = self.sender.clone();
        if speech == Speech::Plain || !endpoint.starts_with("tls://") {
            let text = "it speaks plain ZeroMQ; start it with the same --mesh-secret file";
            let fault = Fault::new(Why::NotSealed, text);
            self.shared.tasks.spawn(async move {
                let _ = sender.send(CarrierEvent::Closed(link, fault)).await;
            });
            return;
        }
        let hearing = Hearing {
            link,
            me: self.shared.me,
            mesh: self.shared.mesh.clone(),
            keys: self.shared.keys.clone(),
            config: Arc::clone(&self.config),
            sender,
        };
        let endpoint = endpoint.to_owned();
        self.shared.tasks.spawn(async move {
            stop.run_until_cancelled(hearing.run(endpoint)).await;
        });
    }

    fn hang_up(&mut self, link: LinkId) {
        self.links.remove(&link);
    }
}

impl Carrier for TlsCarrier {
    fn carry(&mut self, command: Command) {
        match command {
            Command::Publish(topic, body) => self.publish(topic, body),
            // Foreign programs hear ZeroMQ.
            Command::PublishPlain(_) => {}
            Command::Dial(link, endpoint, speech) => self.dial(link, &endpoint, speech),
            Command::HangUp(link) => self.hang_up(link),
        }
    }

    async fn event(&mut self) -> CarrierEvent {
        loop {
            // Cancel safe: an event that is not taken stays.
            let event = self
                .events
                .recv()
                .await
                .expect("the carrier holds a sender itself");
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

    async fn close(mut self, grace: Duration) {
        self.links.clear();
        self.shared.flush();
        let taken = async {
            while !self.shared.subscribers().iter().all(Subscriber::has_all) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // Elapsed: what still waits, waits for a peer that does not read.
        let _ = timeout(grace, taken).await;
    }
}

impl Drop for TlsCarrier {
    /// Whoever heard this node learns that it is gone.
    fn drop(&mut self) {
        self.shared
            .subscribers()
            .drain(..)
            .for_each(|it| it.close());
        self.shared.stop.cancel();
    }
}

impl fmt::Debug for TlsCarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCarrier")
            .field("me", &self.shared.me)
            .field("links", &self.links.keys())
            .field("subscribers", &self.shared.subscribers().len())
            .finish_non_exhaustive()
    }
}

/// Hears who is there, and says who is here; `None` if the two do not understand each other. The other
/// side is told all the same: it knows then why.
async fn greet(link: Link, me: Origin, mesh: MeshName) -> Option<Subscriber> {
    let Link { mut stream, .. } = link;
    let mut reader = Reader::new(me);
    let hello = loop {
        match reader.next() {
            Ok(Some(Record::Hello(hello))) => break hello,
            Ok(Some(Record::Frame(..))) | Err(_) => return None,
            Ok(None) => {}
        }
        if stream.read_buf(reader.space()).await.ok()? == 0 {
            return None;
        }
    };
    stream
        .write_all(&Hello::of(me, &mesh).to_record())
        .await
        .ok()?;
    stream.flush().await.ok()?;
    match hello.understood(me, &mesh) {
        // Whoever has dialled says nothing behind its hello.
        Ok(origin) if reader.is_empty() => {
            let (socket, tls) = stream.into_inner();
            hear::guard(&socket).ok()?;
            Some(Subscriber::new(origin, socket, tls))
        }
        understood => {
            tracing::debug!(remote = %link.remote, "a link is of no use: {understood:?}");
            let _ = stream.shutdown().await;
            None
        }
    }
}
