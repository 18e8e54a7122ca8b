//! The two sockets of a node at a ZeroMQ proxy: a PUB that connects to where publishers come, and a SUB.
//!
//! What the crate does by itself is known from [`super`]. Here besides: a PUB that connects does not connect
//! again, and its socket is the crate's own, so that no timeout of the kernel's bounds what it queues. Who
//! uses it has to: a socket that is dropped while its peer takes nothing keeps what it queued until the
//! peer goes on or is gone.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc as news;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use zeromq::{
    PubSocket, Socket as _, SocketEvent, SocketOptions, SocketRecv as _, SocketSend as _,
    SubSocket, ZmqError, ZmqMessage,
};

use super::{PROBE_MAX, not_dialled};
use crate::carriers::dial;
use crate::core::links::fault::{Fault, Why};

/// What is kept of the time of a dial, so that why it failed can be asked for.
const TO_ASK: Duration = PROBE_MAX.saturating_add(Duration::from_millis(200));
/// Messages that wait for the session. When full, the socket is not read and TCP pushes back.
const MESSAGES_MAX: usize = 16;
/// Subscriptions that wait for the socket; who asks waits for it.
const ORDERS_MAX: usize = 4;
/// In this time the crate hands on what it was given. A socket that is dropped before sends nothing.
pub(crate) const HAND_ON: Duration = Duration::from_millis(1);

/// A socket that publishes.
pub(crate) struct Publisher(PubSocket);

/// What tells that a socket's connection has ended.
pub(crate) struct End(news::Receiver<SocketEvent>);

impl Publisher {
    /// Connects to where publishers come.
    pub(crate) async fn connect(endpoint: &str) -> Result<(Self, End), Fault> {
        let (endpoint, left) = by_address(endpoint).await?;
        let mut options = SocketOptions::default();
        options.connect_timeout(left);
        let mut socket = PubSocket::with_options(options);
        let end = End(socket.monitor());
        match socket.connect(&endpoint).await {
            Ok(()) => Ok((Self(socket), end)),
            Err(error) => Err(no_proxy(&endpoint, &error).await),
        }
    }

    /// Publishes these, each under its topic.
    pub(crate) async fn publish(&mut self, messages: &[(String, Bytes)]) {
        for (topic, message) in messages {
            let parts = vec![Bytes::copy_from_slice(topic.as_bytes()), message.clone()];
            if let Ok(message) = ZmqMessage::try_from(parts) {
                // The crate only pushes to a queue, which neither waits nor fails.
                let sent = self.0.send(message).now_or_never();
                debug_assert!(matches!(sent, Some(Ok(()))), "PUB never waits");
            }
        }
        // The crate's task that writes has its turn: what is said meanwhile goes together.
        tokio::task::yield_now().await;
    }
}

impl End {
    /// Waits until the connection ends.
    pub(crate) async fn come(&mut self) -> Fault {
        loop {
            match self.0.next().await {
                Some(SocketEvent::Disconnected(_)) | None => return Fault::ended(),
                Some(_) => {}
            }
        }
    }
}

/// Subscribe to these topics, or unsubscribe; and who waits for it.
type Order = (Vec<String>, bool, oneshot::Sender<()>);

/// Tells a socket that subscribes to what.
pub(crate) struct Subscriber(mpsc::Sender<Order>);

impl Subscriber {
    /// Waits until it is said to the proxy, which confirms nothing. When the connection has ended nothing
    /// goes on here.
    pub(crate) async fn tell(&self, topics: &[String], is_hear: bool) {
        let (done, is_done) = oneshot::channel();
        let order = (topics.to_vec(), is_hear, done);
        if self.0.send(order).await.is_err() || is_done.await.is_err() {
            std::future::pending().await
        }
    }
}

/// A topic and what was published under it; nothing where that has another form.
pub(crate) type Heard = mpsc::Receiver<(Bytes, Bytes)>;

/// A socket that subscribes, and hears.
pub(crate) struct Hearing {
    socket: SubSocket,
    end: End,
    orders: mpsc::Receiver<Order>,
    heard: mpsc::Sender<(Bytes, Bytes)>,
    topics: HashSet<String>,
}

impl Hearing {
    /// Connects to where subscribers come.
    pub(crate) async fn connect(endpoint: &str) -> Result<(Self, Subscriber, Heard), Fault> {
        let (endpoint, left) = by_address(endpoint).await?;
        let mut options = SocketOptions::default();
        options.connect_timeout(left);
        let mut socket = SubSocket::with_options(options);
        let end = End(socket.monitor());
        if let Err(error) = socket.connect(&endpoint).await {
            return Err(no_proxy(&endpoint, &error).await);
        }
        let (subscriber, orders) = mpsc::channel(ORDERS_MAX);
        let (heard, messages) = mpsc::channel(MESSAGES_MAX);
        let hearing = Self {
            socket,
            end,
            orders,
            heard,
            topics: HashSet::new(),
        };
        Ok((hearing, Subscriber(subscriber), messages))
    }

    /// Hears until the connection ends; then the socket is gone, and its reconnecting with it.
    pub(crate) async fn run(mut self) -> Fault {
        let broken = |error: &ZmqError| Fault::new(Why::Ended, error.to_string());
        loop {
            // All are cancel safe: a message is in the socket or returned whole.
            let message = tokio::select! {
                biased;
                fault = self.end.come() => return fault,
                Some(order) = self.orders.recv() => {
                    match self.obey(order).await {
                        Ok(()) => continue,
                        Err(error) => return broken(&error),
                    }
                }
                message = self.socket.recv() => match message {
                    Ok(message) => message,
                    Err(error) => return broken(&error),
                },
            };
            // Copies: what is read is a piece of something larger.
            let heard = match message.into_vec().as_slice() {
                [topic, body] => (Bytes::copy_from_slice(topic), Bytes::copy_from_slice(body)),
                _ => (Bytes::new(), Bytes::new()),
            };
            if self.heard.send(heard).await.is_err() {
                return Fault::ended();
            }
        }
    }

    async fn obey(&mut self, (topics, is_hear, done): Order) -> Result<(), ZmqError> {
        for topic in topics {
            if is_hear {
                // Subscribed to twice, it would have to be left twice.
                if self.topics.insert(topic.clone()) {
                    self.socket.subscribe(&topic).await?;
                }
            } else if self.topics.remove(&topic) {
                self.socket.unsubscribe(&topic).await?;
            }
        }
        // Who does not wait any more does not mind.
        let _ = done.send(());
        Ok(())
    }
}

/// The endpoint with an address instead of a name, and how long a dial of it may take.
async fn by_address(endpoint: &str) -> Result<(String, Duration), Fault> {
    match dial::by_address(endpoint).await {
        Ok((endpoint, left)) => Ok((endpoint, left.saturating_sub(TO_ASK))),
        Err(why) => {
            let text = format!("no way there: {why}");
            Err(Fault::new(Why::Unreachable, text))
        }
    }
}

async fn no_proxy(endpoint: &str, error: &ZmqError) -> Fault {
    let fault = not_dialled(endpoint, error).await;
    match fault.why {
        Why::NoPublisher => {
            let text = format!("what listens at {endpoint} is no such socket of a proxy: {error}");
            Fault::new(Why::NoBroker, text)
        }
        _ => fault,
    }
}
