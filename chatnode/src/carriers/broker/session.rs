//! One dial of a hall: connect, subscribe, and then publish and hear until something ends it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::seal::Opener;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::channels::{Channel, Channels, Said, from_message, to_answer, to_ask};
use super::ears::{Connection, Ears, Nonce, Seal};
use super::gauges::Gauges;
use super::outbox::Outbox;
use super::strangers::Stranger;
use super::url::{BrokerUrl, Engine};
use super::{Me, amqp, nats, proxy, redis};
use crate::carriers::CarrierEvent;
use crate::carriers::dial::DIAL_TIMEOUT;
use crate::core::links::LinkId;
use crate::core::links::fault::{Fault, Why};
use crate::model::names::Origin;
use crate::wire::frame::{self, Topic};

/// Frames, and bytes, that are published together.
const TOGETHER_FRAMES: usize = 64;
const TOGETHER_BYTES: usize = 256 << 10;
/// Subscriptions that are asked for together.
const TOGETHER_ORDERS: usize = 64;

/// How often a node is asked that has not answered.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What a session is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Hear a node on this link.
    Hear(LinkId, Origin),
    /// Hear it no more.
    Leave(LinkId, Origin),
}

/// Publishes by one connection.
pub(super) trait Publish: Send {
    /// Hands messages to the broker, in order. How many it gave the last one to, if it says so.
    fn publish(
        &mut self,
        messages: &[(String, Bytes)],
    ) -> impl Future<Output = Result<Option<u64>, Fault>> + Send;
}

/// Subscribes by one connection.
pub(super) trait Subscribe: Send {
    /// Hears these channels from now on: the broker has confirmed it, if it does so at all.
    fn subscribe(&mut self, names: &[String]) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Hears these no more.
    fn unsubscribe(&mut self, names: &[String]) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What comes on the channels that are subscribed to.
pub(super) trait Messages: Send {
    /// The next message: the name of its channel, and its body. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<(Bytes, Bytes), Fault>> + Send;
}

/// Connections to a broker.
pub(super) struct Connected<P, S, M> {
    pub(super) publisher: P,
    pub(super) subscriber: S,
    pub(super) messages: M,
    /// Runs as long as they do, and says why they ended.
    pub(super) driver: BoxFuture<'static, Fault>,
}

/// One dial of a hall.
pub(super) struct Session {
    pub(super) link: LinkId,
    pub(super) me: Me,
    pub(super) url: Arc<BrokerUrl>,
    pub(super) channels: Arc<Channels>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) sender: mpsc::Sender<CarrierEvent>,
}

impl Session {
    /// Carries until something ends it. Dropped when the hall is hung up.
    pub(super) async fn run(self, orders: mpsc::Receiver<Order>) {
        let (url, me, gauges) = (&self.url, &self.me, &self.gauges);
        let fault = match url.engine() {
            Engine::Proxy => {
                let connecting = Box::pin(proxy::connect(url));
                self.connect(connecting, orders).await
            }
            Engine::Redis => {
                let connecting = Box::pin(redis::connect(url, me));
                self.connect(connecting, orders).await
            }
            Engine::Nats => {
                let connecting = Box::pin(nats::connect(url, me, gauges));
                self.connect(connecting, orders).await
            }
            Engine::Amqp => {
                let connecting = Box::pin(amqp::connect(url, me, gauges, amqp::Exchange::of(me)));
                self.connect(connecting, orders).await
            }
        };
        self.report(CarrierEvent::Closed(self.link, fault)).await;
    }

    async fn connect<P: Publish, S: Subscribe, M: Messages>(
        &self,
        connecting: impl Future<Output = Result<Connected<P, S, M>, Fault>>,
        orders: mpsc::Receiver<Order>,
    ) -> Fault {
        match timeout(DIAL_TIMEOUT, connecting).await {
            Ok(Ok(connected)) => self.carry(connected, orders).await,
            Ok(Err(fault)) => fault,
            Err(_) => Fault::new(Why::TimedOut, "timed out: no answer from there"),
        }
    }

    async fn carry<P: Publish, S: Subscribe, M: Messages>(
        &self,
        connected: Connected<P, S, M>,
        orders: mpsc::Receiver<Order>,
    ) -> Fault {
        let Connected {
            publisher,
            mut subscriber,
            messages,
            driver,
        } = connected;
        let ears = Mutex::new(Ears::default());
        let subscribed = async {
            let own = [Channel::Hall, Channel::To(self.me.origin)];
            let own = own.map(|channel| self.channels.name(channel));
            match timeout(DIAL_TIMEOUT, subscriber.subscribe(&own)).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => return fault,
                Err(_) => {
                    let text = "timed out: it confirms no subscription";
                    return Fault::new(Why::TimedOut, text);
                }
            }
            self.gauges.sessions.add(1);
            self.report(CarrierEvent::Connected(self.link, None)).await;
            tokio::select! {
                fault = self.publish(publisher) => fault,
                fault = self.obey(orders, subscriber, &ears) => fault,
            }
        };
        tokio::select! {
            fault = driver => fault,
            fault = subscribed => fault,
            fault = self.hear(messages, &ears) => fault,
        }
    }

    /// Publishes what waits.
    async fn publish(&self, mut publisher: impl Publish) -> Fault {
        loop {
            let messages = self.outbox.take(TOGETHER_FRAMES, TOGETHER_BYTES).await;
            let messages: Vec<(String, Bytes)> = messages
                .into_iter()
                .map(|(channel, message)| {
                    let name = self.channels.name(channel);
                    let message = match &self.me.seals {
                        Some(seals) => seals.seal(&name, &message),
                        None => message,
                    };
                    (name, message)
                })
                .collect();
            let bytes: usize = messages.iter().map(|(_, message)| message.len()).sum();
            match publisher.publish(&messages).await {
                Ok(receivers) => self.gauges.receivers.set(receivers),
                Err(fault) => return fault,
            }
            self.gauges.published.add(messages.len() as u64);
            self.gauges.published_bytes.add(bytes as u64);
            self.outbox.said();
        }
    }

    /// Subscribes and unsubscribes as it is told, several at once where several wait.
    async fn obey(
        &self,
        mut orders: mpsc::Receiver<Order>,
        mut subscriber: impl Subscribe,
        ears: &Mutex<Ears>,
    ) -> Fault {
        let mut waiting = Vec::new();
        let mut look = tokio::time::interval(ASK_EVERY);
        loop {
            // Each is cancel safe.
            let taken = tokio::select! {
                count = orders.recv_many(&mut waiting, TOGETHER_ORDERS) => count,
                _ = look.tick() => {
                    self.look_after(ears).await;
                    continue;
                }
            };
            if taken == 0 {
                // The carrier is gone, and ends this task.
                return std::future::pending().await;
            }
            // In order: who is left and heard again at once is subscribed to in the end.
            for group in waiting.chunk_by(|a, b| is_hear(a) == is_hear(b)) {
                if let Err(fault) = self.obey_alike(group, &mut subscriber, ears).await {
                    return fault;
                }
            }
            waiting.clear();
        }
    }

    /// All of these subscribe, or all unsubscribe.
    async fn obey_alike(
        &self,
        orders: &[Order],
        subscriber: &mut impl Subscribe,
        ears: &Mutex<Ears>,
    ) -> Result<(), Fault> {
        let name = |origin: Origin| self.channels.name(Channel::Of(origin));
        let mut begun = Vec::new();
        let mut left = Vec::new();
        for order in orders {
            match *order {
                Order::Hear(link, origin) => {
                    let nonce = self.me.seals.is_some().then(rand::random::<Nonce>);
                    lock(ears).hear(origin, link, nonce);
                    if let Some(nonce) = nonce {
                        self.ask(origin, nonce);
                    }
                    begun.push((origin, link));
                }
                Order::Leave(link, origin) if lock(ears).leave(origin, link) => {
                    left.push(name(origin));
                }
                Order::Leave(..) => {}
            }
        }
        if !left.is_empty() {
            subscriber.unsubscribe(&left).await?;
        }
        if !begun.is_empty() {
            let names: Vec<String> = begun.iter().map(|(origin, _)| name(*origin)).collect();
            subscriber.subscribe(&names).await?;
        }
        for (origin, link) in begun {
            let connected = lock(ears).subscribed(origin, link);
            self.connected(connected).await;
        }
        Ok(())
    }

    fn ask(&self, origin: Origin, nonce: Nonce) {
        self.outbox.push_message(Channel::To(origin), to_ask(nonce));
    }

    /// Asks again who has not answered, and gives up who never does, or whose key was removed.
    async fn look_after(&self, ears: &Mutex<Ears>) {
        let Some(seals) = &self.me.seals else { return };
        let silent = lock(ears).silent();
        for (origin, nonce) in lock(ears).ask_again() {
            self.ask(origin, nonce);
        }
        let removed = lock(ears).without_key(|key| seals.ring.accepts(key));
        for (links, why, text) in [
            (
                silent,
                Why::TimedOut,
                "timed out: it does not answer by the broker",
            ),
            (
                removed,
                Why::OtherKey,
                "its key was removed from the mesh secret",
            ),
        ] {
            for link in links {
                // The carrier has it left then.
                self.report(CarrierEvent::Closed(link, Fault::new(why, text)))
                    .await;
            }
        }
    }

    /// Hands on what comes.
    async fn hear(&self, mut messages: impl Messages, ears: &Mutex<Ears>) -> Fault {
        let mut opener = self
            .me
            .seals
            .as_ref()
            .map(|seals| Opener::new(seals.ring.clone()));
        loop {
            let (name, message) = match messages.next().await {
                Ok(message) => message,
                Err(fault) => return fault,
            };
            self.gauges.received.add(1);
            self.gauges.received_bytes.add(message.len() as u64);
            let Some((channel, said, seal)) = self.read(opener.as_mut(), &name, &message) else {
                self.gauges.refused.add(1);
                self.look_at(&name, &message);
                continue;
            };
            match said {
                Said::Frame(topic, frame) => self.heard(ears, channel, topic, frame, seal).await,
                Said::Ask(nonce) => {
                    if let Some(seal) = seal {
                        let back = Channel::To(seal.author);
                        self.outbox.push_message(back, to_answer(nonce));
                    }
                }
                Said::Answer(nonce) => {
                    let connected = seal.and_then(|seal| lock(ears).answered(seal, nonce));
                    self.connected(connected).await;
                }
            }
        }
    }

    /// A beat that could not be read may be that of somebody with another mesh secret.
    fn look_at(&self, name: &[u8], message: &Bytes) {
        if self.channels.channel(name) == Some(Channel::Hall)
            && let Some(stranger) = Stranger::of(self.me.seals.as_ref(), message)
        {
            self.gauges.strangers.came(stranger);
        }
    }

    /// What came, if it is of this mesh.
    fn read(
        &self,
        opener: Option<&mut Opener>,
        name: &[u8],
        message: &Bytes,
    ) -> Option<(Channel, Said, Option<Seal>)> {
        let channel = self.channels.channel(name)?;
        let Some(opener) = opener else {
            return Some((channel, from_message(channel, message)?, None));
        };
        let opened = opener.open(name, message)?;
        let seal = Seal {
            author: Origin::from_bytes(opened.author)?,
            count: opened.count,
            key: opened.key,
        };
        let said = from_message(channel, &opened.message.into())?;
        Some((channel, said, Some(seal)))
    }

    /// A frame came.
    async fn heard(
        &self,
        ears: &Mutex<Ears>,
        channel: Channel,
        topic: Topic,
        frame: Bytes,
        seal: Option<Seal>,
    ) {
        let of = frame::origin_of(&frame);
        let is_its = seal.is_none_or(|seal| of == Some(seal.author));
        let Some(author) = of.filter(|_| is_its) else {
            return self.gauges.refused.add(1);
        };
        let link = match channel {
            // What was said before, and says somebody again, proves nothing.
            Channel::Hall if author == self.me.origin => {
                self.outbox.came_back(&frame).then_some(self.link)
            }
            // It says the same there, in order. If nothing comes there, it is left, and introduced again.
            Channel::Hall if lock(ears).hears(author) => return,
            Channel::Hall => Some(self.link),
            Channel::Of(_) | Channel::To(_) => {
                let taken = lock(ears).takes(channel, author, seal);
                let (link, connection) = taken.unzip();
                self.connected(connection.flatten()).await;
                link
            }
        };
        match link {
            Some(link) => self.report(CarrierEvent::Frame(link, topic, frame)).await,
            // It came after it was left, or is not to be believed.
            None => self.gauges.refused.add(1),
        }
    }

    async fn connected(&self, connected: Option<Connection>) {
        if let Some((link, key)) = connected {
            self.report(CarrierEvent::Connected(link, key)).await;
        }
    }

    async fn report(&self, event: CarrierEvent) {
        // An error means that the carrier is gone, and then so is this task.
        let _ = self.sender.send(event).await;
    }
}

fn is_hear(order: &Order) -> bool {
    matches!(order, Order::Hear(..))
}

fn lock(ears: &Mutex<Ears>) -> MutexGuard<'_, Ears> {
    ears.lock().unwrap_or_else(PoisonError::into_inner)
}
