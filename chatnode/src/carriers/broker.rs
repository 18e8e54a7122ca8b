//! Frames by a broker: what carries them where nodes meet on Redis, NATS, RabbitMQ or a ZeroMQ proxy.
//!
//! Every broker, and nearly every client of one, loses in silence. So nothing here is believed but what
//! comes back: a hall is up when the own beat has come through it, which is [`links`]' to decide. Nothing
//! here reconnects, either: a dial of a hall makes new connections, and whatever goes wrong with them ends
//! it with a reason.
//!
//! - [`channels`] names what a node speaks and hears on, and reads what comes there.
//! - [`outbox`] holds what waits to be published, within a bound.
//! - [`ears`] tells what is to be believed: with a mesh secret all is sealed ([`base::seal`]), and what is
//!   said again by somebody else is known.
//! - [`strangers`] are others there that this node cannot hear, for people.
//! - [`session`] is the task of one dial: it connects, publishes, subscribes and hears.
//! - [`again`] is how bridges and keepers dial again.
//! - [`bridge`] joins the room of the plain form with foreign programs at a broker of theirs.
//! - Each engine moves bytes in its own way: [`redis`], [`nats`], [`amqp`], [`proxy`].
//!
//! [`links`]: crate::core::links

mod again;
mod amqp;
pub(crate) mod bridge;
mod channels;
mod ears;
pub(crate) mod gauges;
pub(crate) mod keeper;
mod nats;
pub(crate) mod net;
mod outbox;
mod proxy;
mod redis;
mod session;
mod speech;
mod strangers;
pub(crate) mod url;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::seal::{SealRing, Sealer};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::channels::Channels;
use self::gauges::Gauges;
use self::outbox::Outbox;
use self::session::{Order, Session};
use self::url::{BrokerUrl, Engine};
use super::zmq::proxy::HAND_ON;
use super::{Carrier, CarrierEvent, Command};
use crate::core::links::fault::{Fault, Why};
use crate::core::links::{LinkId, Speech, heard_at};
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame::Topic;

/// News that wait for the node. When full, the session waits and stops reading.
const EVENTS_MAX: usize = 256;
/// Orders that wait for the session, which takes them at once; what finds no room has failed.
const ORDERS_MAX: usize = 8192;

/// Who a node is on brokers.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) origin: Origin,
    /// What people call it.
    pub(crate) name: String,
    pub(crate) mesh: MeshName,
    /// What it seals with, where there is a mesh secret.
    pub(crate) seals: Option<Seals>,
}

impl Me {
    /// What operators of a broker see: who it is that is connected, without spaces.
    fn client_name(&self) -> String {
        let name = format!("chatmesh/{}/{}/{}", self.mesh, self.name, self.origin);
        name.replace(|c: char| !c.is_ascii_graphic(), "_")
    }
}

/// What messages are sealed and opened with. Clones are the same one: counts go over all brokers.
#[derive(Debug, Clone)]
pub(crate) struct Seals {
    ring: SealRing,
    sealer: Arc<Mutex<Sealer>>,
}

impl Seals {
    /// For one life of a node.
    pub(crate) fn new(ring: SealRing, me: Origin) -> Self {
        let sealer = Sealer::new(ring.clone(), *me.as_bytes());
        let sealer = Arc::new(Mutex::new(sealer));
        Self { ring, sealer }
    }

    fn seal(&self, channel: &str, message: &[u8]) -> Bytes {
        let mut sealer = self.sealer.lock().unwrap_or_else(PoisonError::into_inner);
        sealer.seal(channel.as_bytes(), message).into()
    }
}

/// The carrier by one broker. Make, use and drop it on one runtime.
pub(crate) struct BrokerCarrier {
    url: Arc<BrokerUrl>,
    me: Me,
    channels: Arc<Channels>,
    outbox: Arc<Outbox>,
    gauges: Arc<Gauges>,
    tasks: TaskTracker,
    stop: CancellationToken,
    hall: Option<Hall>,
    /// Whom each link hears; the hall's hears nobody in particular.
    links: HashMap<LinkId, Option<Origin>>,
    sender: mpsc::Sender<CarrierEvent>,
    events: mpsc::Receiver<CarrierEvent>,
}

/// The session of the hall that was dialled last.
struct Hall {
    link: LinkId,
    orders: mpsc::Sender<Order>,
    _ends_it: DropGuard,
}

impl BrokerCarrier {
    /// Carries by this broker, once its hall is dialled. Sessions run as `tasks` until hung up or until
    /// `stop`.
    pub(crate) fn new(
        url: BrokerUrl,
        me: Me,
        gauges: Arc<Gauges>,
        tasks: TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        Self {
            channels: Arc::new(Channels::of(url.engine(), &me.mesh)),
            outbox: Arc::new(Outbox::new(me.origin, Arc::clone(&gauges))),
            url: Arc::new(url),
            me,
            gauges,
            tasks,
            stop: stop.child_token(),
            hall: None,
            links: HashMap::new(),
            sender,
            events,
        }
    }

    /// Whether an endpoint that is dialled is at this broker.
    pub(crate) fn is_at(&self, endpoint: &str) -> bool {
        let rest = endpoint.strip_prefix(self.url.shown());
        // Of two brokers one's URL may begin as the other's does.
        let is_in_hall = |rest: &str| rest.starts_with('#') && heard_at(endpoint).is_some();
        rest.is_some_and(|rest| rest.is_empty() || is_in_hall(rest))
    }

    fn dial(&mut self, link: LinkId, endpoint: &str, speech: Speech) {
        match (speech, heard_at(endpoint)) {
            (Speech::Hall, _) => self.dial_hall(link),
            (_, Some(origin)) => self.hear(link, origin),
            (_, None) => self.fail(link, Fault::new(Why::Unreachable, "no node is named there")),
        }
    }

    fn dial_hall(&mut self, link: LinkId) {
        let (orders, given) = mpsc::channel(ORDERS_MAX);
        let stop = self.stop.child_token();
        self.links.clear();
        self.links.insert(link, None);
        self.outbox.clear();
        self.gauges.dials.add(1);
        self.hall = Some(Hall {
            link,
            orders,
            _ends_it: stop.clone().drop_guard(),
        });
        let session = Session {
            link,
            me: self.me.clone(),
            url: Arc::clone(&self.url),
            channels: Arc::clone(&self.channels),
            outbox: Arc::clone(&self.outbox),
            gauges: Arc::clone(&self.gauges),
            sender: self.sender.clone(),
        };
        self.tasks.spawn(async move {
            stop.run_until_cancelled(session.run(given)).await;
        });
    }

    fn hear(&mut self, link: LinkId, origin: Origin) {
        self.links.insert(link, Some(origin));
        let order = Order::Hear(link, origin);
        let given = match &self.hall {
            Some(hall) => hall.orders.try_send(order).is_ok(),
            None => false,
        };
        if !given {
            let fault = Fault::new(Why::Unreachable, "there is no connection to the broker");
            self.fail(link, fault);
        }
    }

    fn fail(&mut self, link: LinkId, fault: Fault) {
        self.links.insert(link, None);
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            // An error means that the carrier is gone.
            let _ = sender.send(CarrierEvent::Closed(link, fault)).await;
        });
    }

    fn hang_up(&mut self, link: LinkId) {
        let Some(origin) = self.links.remove(&link) else {
            return;
        };
        if self.hall.as_ref().is_some_and(|hall| hall.link == link) {
            self.end_hall();
        } else if let (Some(hall), Some(origin)) = (&self.hall, origin) {
            // A session that takes no orders any more ends by itself.
            let _ = hall.orders.try_send(Order::Leave(link, origin));
        }
    }

    fn end_hall(&mut self) {
        self.hall = None;
        self.outbox.clear();
    }

    fn publish(&mut self, topic: Topic, body: Bytes) {
        if self.hall.is_none() {
            return self.gauges.dropped_away.add(1);
        }
        if body.len() > self.gauges.frame_len_max() {
            return self.gauges.dropped_long.add(1);
        }
        self.outbox.push(topic, body);
    }
}

impl Carrier for BrokerCarrier {
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
            let event = self.events.recv().await;
            let event = event.expect("the carrier holds a sender itself");
            let link = event.link();
            // What was queued when its link was hung up is dropped here.
            if !self.links.contains_key(&link) {
                continue;
            }
            if let CarrierEvent::Closed(..) = &event {
                // Of one that is heard the broker still brings what it says.
                self.hang_up(link);
            }
            return event;
        }
    }

    async fn close(mut self, grace: Duration) {
        if self.hall.is_some() {
            // Elapsed: the broker takes nothing.
            let _ = tokio::time::timeout(grace, self.outbox.is_taken()).await;
            if self.url.engine() == Engine::Proxy {
                tokio::time::sleep(HAND_ON).await;
            }
        }
        self.end_hall();
    }
}

impl fmt::Debug for BrokerCarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerCarrier")
            .field("url", &self.url)
            .field("me", &self.me.origin)
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}
