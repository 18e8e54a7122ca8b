//! Taking in what a keeper holds: each message is handed on, and acknowledged when the node says that it has
//! stored it. What is no message is handed on as that, and acknowledged when it was set aside.

use std::sync::Arc;
use std::time::Duration;

use base::seal::Opener;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Consume, Held, KeepUrl, Name, Status, channel_of, lock};
use crate::carriers::broker::again::Again;
use crate::carriers::broker::channels::{Channel, Said, from_message};
use crate::carriers::broker::url::Engine;
use crate::carriers::broker::{Me, amqp, nats, redis};
use crate::carriers::dial::DIAL_TIMEOUT;
use crate::core::links::fault::{Fault, Why};
use crate::core::news::News;
use crate::model::entry::Entry;
use crate::wire::frame::{self, Topic};

/// How often it is asked how many wait.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Messages that wait for the node. When full, nothing more is read.
const DELIVERIES_MAX: usize = 64;
/// Lists of what was stored that wait for the broker.
const SETTLED_MAX: usize = 16;

/// Something that a keeper held, or that it has begun anew.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// There is a new connection, with this number: all that came before and was not acknowledged comes again.
    Anew(u64),
    /// A message.
    Message(Name, Came),
    /// All that waited there when this began has come.
    Empty,
}

/// What was stored of what came on a connection. Names mean nothing on another one.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) connection: u64,
    pub(crate) names: Vec<Name>,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Came {
    /// Consecutive entries of one origin, one at least.
    Entries(Vec<Arc<Entry>>),
    /// None of ours: its bytes, and why.
    Poison(Bytes, String),
}

/// Takes in from one keeper.
pub(crate) struct Archive {
    url: KeepUrl,
    me: Me,
    status: Arc<Status>,
    deliveries: mpsc::Sender<Delivery>,
    settled: mpsc::Receiver<Settled>,
    /// How many there were.
    connections: u64,
    stop: CancellationToken,
}

impl Archive {
    /// An archive, what it brings, and where it is told what was stored.
    pub(crate) fn new(
        url: KeepUrl,
        me: Me,
        status: Arc<Status>,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<Delivery>, mpsc::Sender<Settled>) {
        let (deliveries, brought) = mpsc::channel(DELIVERIES_MAX);
        let (stored, settled) = mpsc::channel(SETTLED_MAX);
        let archive = Self {
            url,
            me,
            status,
            deliveries,
            settled,
            connections: 0,
            stop,
        };
        (archive, brought, stored)
    }

    /// Takes in until it is stopped.
    pub(crate) async fn run(mut self) {
        let mut again = Again::new();
        let stop = self.stop.clone();
        loop {
            again.dials();
            let Some(fault) = stop.run_until_cancelled(self.dial()).await else {
                return;
            };
            *lock(&self.status.archive.trouble) = Some(fault.text.clone());
            self.status.archive.lag.set(None);
            let pause = again.ended(&fault);
            if pause.is_news {
                tracing::warn!(keeper = self.url.shown(), "not archived: {}", fault.text);
            }
            if stop.run_until_cancelled(sleep(pause.wait)).await.is_none() {
                return;
            }
        }
    }

    async fn dial(&mut self) -> Fault {
        let (url, me) = (self.url.clone(), self.me.clone());
        match url.broker().engine() {
            Engine::Redis => self.connect(redis::consume(&url, &me)).await,
            Engine::Nats => self.connect(nats::consume(&url, &me)).await,
            _ => self.connect(amqp::consume(&url, &me)).await,
        }
    }

    async fn connect<C: Consume>(
        &mut self,
        connecting: impl Future<Output = Result<(C, BoxFuture<'static, Fault>), Fault>>,
    ) -> Fault {
        match Box::pin(timeout(DIAL_TIMEOUT, connecting)).await {
            Ok(Ok((consumer, driver))) => match self.take_in(consumer, driver).await {
                Ok(never) => match never {},
                Err(fault) => fault,
            },
            Ok(Err(fault)) => fault,
            Err(_) => Fault::new(Why::TimedOut, "timed out: no answer from there"),
        }
    }

    async fn take_in(
        &mut self,
        mut consumer: impl Consume,
        mut driver: BoxFuture<'static, Fault>,
    ) -> Result<std::convert::Infallible, Fault> {
        let status = Arc::clone(&self.status);
        tracing::info!(keeper = self.url.shown(), "archived");
        *lock(&status.archive.trouble) = None;
        self.connections += 1;
        self.hand_on(Delivery::Anew(self.connections)).await?;
        let mut opener = self
            .me
            .seals
            .as_ref()
            .map(|seals| Opener::new(seals.ring.clone()));
        let mut left = Some(consumer.waiting());
        let mut unsettled = 0_u64;
        let mut looks = interval(LOOK_EVERY);
        loop {
            if left == Some(0) {
                left = None;
                self.hand_on(Delivery::Empty).await?;
            }
            status.archive.lag.set(Some(consumer.waiting() + unsettled));
            // Each is cancel safe; what is sent waits for the driver.
            tokio::select! {
                fault = &mut driver => return Err(fault),
                names = self.settled.recv() => {
                    let Settled { connection, names } = names.ok_or_else(Fault::ended)?;
                    if connection != self.connections {
                        continue;
                    }
                    unsettled = unsettled.saturating_sub(names.len() as u64);
                    tokio::select! {
                        fault = &mut driver => return Err(fault),
                        settled = consumer.settle(&names) => settled?,
                    }
                }
                held = consumer.next() => {
                    let Held { name, again, body } = held?;
                    unsettled += 1;
                    left = left.map(|left| left.saturating_sub(1));
                    status.archive.redelivered.add(u64::from(again));
                    let came = self.read(&body, opener.as_mut());
                    let delivery = Delivery::Message(name, came);
                    tokio::select! {
                        fault = &mut driver => return Err(fault),
                        handed = self.hand_on(delivery) => handed?,
                    }
                }
                _ = looks.tick() => tokio::select! {
                    fault = &mut driver => return Err(fault),
                    looked = consumer.look() => looked?,
                },
            }
        }
    }

    async fn hand_on(&self, delivery: Delivery) -> Result<(), Fault> {
        // An error means that the node ends.
        let handed = self.deliveries.send(delivery).await;
        handed.map_err(|_| Fault::ended())
    }

    fn read(&self, body: &Bytes, opener: Option<&mut Opener>) -> Came {
        let poison = |why: &str| Came::Poison(body.clone(), why.to_owned());
        let opened: Bytes = match opener {
            None => body.clone(),
            Some(opener) => match opener.open(channel_of(&self.me).as_bytes(), body) {
                Some(opened) => opened.message.into(),
                None => return poison("it is not sealed with a key of this mesh"),
            },
        };
        let at = Channel::Of(self.me.origin);
        let Some(Said::Frame(Topic::Log, frame)) = from_message(at, &opened) else {
            return poison("it is no log of a node");
        };
        match frame::decode(Topic::Log, &frame) {
            Ok(News::Entries(log)) if !log.entries.is_empty() && !log.origin.is_mark() => {
                Came::Entries(log.entries)
            }
            Ok(_) => poison("it has no entries"),
            Err(why) => poison(&why.to_string()),
        }
    }
}
