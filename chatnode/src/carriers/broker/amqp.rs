//! By AMQP 0-9-1, as RabbitMQ speaks it: one connection to publish, one to hear.
//!
//! All of a mesh goes by one topic exchange. Each session has a queue of its own, which the broker names and
//! which ends with the connection, bound to what is heard. The queue is bounded in bytes; of what a node does
//! not take the broker drops the oldest, and repair brings it.
//!
//! The protocol is spoken here ([`wire`]): the library for it ends the process, by an overflow of its
//! stack, at a message whose headers nest a thousand deep, which anybody can publish; it panics where a
//! broker answers out of turn, and runs a thread for each connection.
//!
//! A broker that is short of memory or disk takes nothing from whoever publishes. It is told so, and what
//! is to be published waits in the [`outbox`](super::outbox). It reads nothing at all from such a
//! connection: hence two.

mod kept;
mod line;
mod method;
mod wire;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::io::{ReadHalf, split};
use tokio::sync::{Notify, watch};
use tokio::time::interval;

pub(super) use self::kept::{consume, keep};
use self::line::open;
use self::wire::{Arg, Frames, SIGN, Said, Taken, Unread};
use super::Me;
use super::gauges::Gauges;
use super::net::Stream;
use super::session::{Connected, Messages, Publish, Subscribe};
use super::speech::{Mouth, said, said_already, speak};
use super::url::{BrokerUrl, Place};
use crate::core::links::fault::{Fault, Why};

/// So many that came are confirmed together, at the most.
const CONFIRMED_TOGETHER: u32 = 64;
/// Messages that are published before the broker has confirmed those before them.
const UNCONFIRMED_MAX: usize = 64;
/// The one channel on each connection.
const CHANNEL: u16 = 1;
/// What a broker says that refuses: access, and a vhost that it does not have.
const REFUSED: [u16; 2] = [403, 530];

/// Connects twice.
pub(super) async fn connect(
    url: &BrokerUrl,
    me: &Me,
    gauges: &Arc<Gauges>,
    place: Exchange,
) -> Result<Connected<Publisher, Subscriber, Heard>, Fault> {
    let Place::Vhost(vhost) = &url.place else {
        return Err(Fault::new(Why::Unreachable, "no vhost is named"));
    };
    let place = Arc::new(place);
    let publishing = async {
        let mut line = open(url, vhost, me).await?;
        line.declare(&place).await?;
        line.ask(method::CONFIRM_SELECT, &[Arg::U8(0)], method::CONFIRM_OK)
            .await?;
        Ok(line)
    };
    let hearing = async {
        let mut line = open(url, vhost, me).await?;
        line.declare(&place).await?;
        let queue = line.consume().await?;
        Ok((line, queue))
    };
    let (publishing, (hearing, queue)) = futures::try_join!(publishing, hearing)?;

    let (half, other) = split(publishing.stream);
    let sign = Arc::new(Notify::new());
    let (mouth, speaking) = speak(other, Arc::clone(&sign), SIGN);
    let (taken_up_to, taken) = watch::channel(0);
    let listening = listen(half, publishing.unread, taken_up_to, Arc::clone(gauges));
    let (own_half, own_other) = split(hearing.stream);
    let own_sign = Arc::new(Notify::new());
    let (own_mouth, own_speaking) = speak(own_other, Arc::clone(&own_sign), SIGN);
    let (done, is_done) = watch::channel(0);
    let signs = signs(vhost.heartbeat, [sign, own_sign]);
    let driver = async move {
        tokio::select! {
            fault = speaking => fault,
            fault = listening => fault,
            fault = own_speaking => fault,
            fault = signs => fault,
        }
    };
    Ok(Connected {
        publisher: Publisher {
            mouth,
            place: Arc::clone(&place),
            published: 0,
            taken,
            gauges: Arc::clone(gauges),
        },
        subscriber: Subscriber {
            mouth: own_mouth.clone(),
            place: Arc::clone(&place),
            queue,
            asks: 0,
            done: is_done,
        },
        messages: Heard {
            stream: own_half,
            unread: hearing.unread,
            mouth: own_mouth,
            place,
            done,
            last: 0,
            unconfirmed: 0,
        },
        driver: driver.boxed(),
    })
}

/// Gives a sign of life twice in each time after which the broker takes a silent node to be gone. Whether
/// the broker lives, the own beats tell.
async fn signs<const N: usize>(heartbeat: u16, all: [Arc<Notify>; N]) -> Fault {
    if heartbeat == 0 {
        return pending().await;
    }
    let mut ticks = interval(Duration::from_secs(heartbeat.into()) / 2);
    loop {
        ticks.tick().await;
        for sign in &all {
            sign.notify_one();
        }
    }
}

/// Where messages go, and how they are named there.
pub(super) struct Exchange {
    name: String,
    kind: &'static str,
    /// What stands before a key in the name of a channel.
    root: String,
    /// Whether what goes there is to outlive the broker.
    lasts: bool,
}

impl Exchange {
    /// That of a mesh.
    pub(super) fn of(me: &Me) -> Self {
        let name = format!("chatmesh.{}", me.mesh);
        let root = format!("{name}.");
        Self {
            name,
            kind: "topic",
            root,
            lasts: false,
        }
    }

    /// One of foreign programs, which gives all to all.
    pub(super) fn fanout(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: "fanout",
            root: String::new(),
            lasts: false,
        }
    }

    fn key<'a>(&self, channel: &'a str) -> &'a str {
        channel.strip_prefix(&self.root).unwrap_or(channel)
    }
}

fn out_of_turn() -> Fault {
    Fault::new(Why::NoBroker, "what listens there answers out of turn")
}

/// The broker closes the connection, or the channel, which is all that it is for.
fn closed(code: u16, text: &str) -> Fault {
    match REFUSED.contains(&code) {
        true => Fault::new(Why::NotLetIn, format!("the broker refuses: {code} {text}")),
        false => Fault::new(Why::Ended, format!("the broker ended it: {code} {text}")),
    }
}

/// Hears what the broker says on the connection for publishing.
async fn listen(
    mut stream: ReadHalf<Box<dyn Stream>>,
    mut unread: Unread,
    taken_up_to: watch::Sender<u64>,
    gauges: Arc<Gauges>,
) -> Fault {
    let mut taken = Taken::default();
    loop {
        match said(&mut stream, &mut unread).await {
            Err(fault) => return fault,
            Ok(Said::Close { code, text }) => return closed(code, &text),
            Ok(Said::Blocked(why)) => {
                tracing::warn!("the broker takes nothing for now: {why}");
                gauges.blocked.set(1);
            }
            Ok(Said::Unblocked) => gauges.blocked.set(0),
            Ok(Said::Taken { tag, multiple }) => match taken.take(tag, multiple) {
                Some(up_to) => {
                    taken_up_to.send_replace(up_to);
                }
                None => return out_of_turn(),
            },
            Ok(Said::NotTaken) => {
                return Fault::new(Why::Ended, "the broker could not take a message");
            }
            Ok(Said::Returned) => {
                return Fault::new(Why::Ended, "the broker has no queue for what is to be kept");
            }
            Ok(_) => {}
        }
    }
}

/// Publishes.
pub(super) struct Publisher {
    mouth: Mouth,
    place: Arc<Exchange>,
    /// Messages so far, which are numbered so.
    published: u64,
    /// Up to which all were taken.
    taken: watch::Receiver<u64>,
    gauges: Arc<Gauges>,
}

impl Publish for Publisher {
    async fn publish(&mut self, messages: &[(String, Bytes)]) -> Result<Option<u64>, Fault> {
        for some in messages.chunks(UNCONFIRMED_MAX) {
            let mut frames = Frames::default();
            for (name, message) in some {
                let place = &self.place;
                let to = (&*place.name, place.key(name));
                frames = frames.message(CHANNEL, to, message, place.lasts);
                self.published += 1;
            }
            self.mouth.say(frames.into_bytes()).await;
            let published = self.published;
            let all = self.taken.wait_for(|taken| *taken >= published);
            if all.await.is_err() {
                // Why the connection has ended is said elsewhere.
                return pending().await;
            }
            // Of one that ended while the broker took nothing nobody says that it takes again.
            self.gauges.blocked.set(0);
        }
        Ok(None)
    }
}

/// Subscribes.
pub(super) struct Subscriber {
    mouth: Mouth,
    place: Arc<Exchange>,
    queue: String,
    /// What was asked for, and what was done of it.
    asks: u64,
    done: watch::Receiver<u64>,
}

impl Subscriber {
    async fn ask(&mut self, names: &[String], is_hear: bool) -> Result<(), Fault> {
        let mut frames = Frames::default();
        for name in names {
            let (queue, exchange) = (Arg::Short(&self.queue), Arg::Short(&self.place.name));
            let (key, none) = (Arg::Short(self.place.key(name)), Arg::Table(&[]));
            let args = [Arg::U16(0), queue, exchange, key];
            frames = match is_hear {
                true => {
                    let args = [&args[..], &[Arg::U8(0), none]].concat();
                    frames.method(CHANNEL, method::BIND, &args)
                }
                false => {
                    let args = [&args[..], &[none]].concat();
                    frames.method(CHANNEL, method::UNBIND, &args)
                }
            };
            self.asks += 1;
        }
        self.mouth.say(frames.into_bytes()).await;
        let asks = self.asks;
        if self.done.wait_for(|done| *done >= asks).await.is_err() {
            // Why the connection has ended is said elsewhere.
            return pending().await;
        }
        Ok(())
    }
}

impl Subscribe for Subscriber {
    async fn subscribe(&mut self, names: &[String]) -> Result<(), Fault> {
        self.ask(names, true).await
    }

    async fn unsubscribe(&mut self, names: &[String]) -> Result<(), Fault> {
        self.ask(names, false).await
    }
}

/// What comes.
pub(super) struct Heard {
    stream: ReadHalf<Box<dyn Stream>>,
    unread: Unread,
    mouth: Mouth,
    place: Arc<Exchange>,
    /// How much of what was asked for is done.
    done: watch::Sender<u64>,
    /// The number of the last message, and how many were not confirmed.
    last: u64,
    unconfirmed: u32,
}

impl Heard {
    /// Confirms all that came.
    async fn confirm(&mut self) {
        if self.unconfirmed > 0 {
            let args = [Arg::U64(self.last), Arg::U8(1)];
            let frames = Frames::default().method(CHANNEL, method::ACK, &args);
            self.unconfirmed = 0;
            self.mouth.say(frames.into_bytes()).await;
        }
    }
}

impl Messages for Heard {
    async fn next(&mut self) -> Result<(Bytes, Bytes), Fault> {
        loop {
            if self.unconfirmed >= CONFIRMED_TOGETHER {
                self.confirm().await;
            }
            let next = match said_already(&mut self.unread)? {
                Some(next) => next,
                None => {
                    self.confirm().await;
                    said(&mut self.stream, &mut self.unread).await?
                }
            };
            match next {
                Said::Message {
                    tag,
                    exchange,
                    key,
                    body,
                    again: _,
                } => {
                    self.last = tag;
                    self.unconfirmed += 1;
                    // What came by another way, straight to the queue, is nobody's.
                    let is_ours = exchange == self.place.name;
                    let name = match is_ours {
                        true => [self.place.root.as_bytes(), &key[..]].concat().into(),
                        false => Bytes::new(),
                    };
                    return Ok((name, body));
                }
                Said::Done(method::BIND_OK | method::UNBIND_OK) => {
                    self.done.send_modify(|count| *count += 1);
                }
                Said::Close { code, text } => return Err(closed(code, &text)),
                Said::Cancelled => {
                    let text = "the broker brings nothing any more: its queue is gone";
                    return Err(Fault::new(Why::Ended, text));
                }
                _ => {}
            }
        }
    }
}
