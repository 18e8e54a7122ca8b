//! What is kept at RabbitMQ: all of a mesh goes by one fanout exchange into a durable queue for each archive.
//!
//! A message is persistent and mandatory, and confirmed when every queue has it on its disk; where there are
//! quorum queues, a majority of servers has. Who publishes declares the queue too, so that it is there before
//! any archive is. It is declared with nothing but its type: what limits it has is set by policies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{ReadHalf, split};
use tokio::sync::{Notify, watch};

use super::line::{Line, open};
use super::wire::{Arg, Frames, SIGN, Said, Unread};
use super::{CHANNEL, Exchange, Publisher, closed, listen, method, out_of_turn, signs};
use crate::carriers::broker::Me;
use crate::carriers::broker::gauges::Gauges;
use crate::carriers::broker::keeper::{Connected, Consume, Held, Keep, KeepUrl, Name, channel_of};
use crate::carriers::broker::net::Stream;
use crate::carriers::broker::session::Publish as _;
use crate::carriers::broker::speech::{Mouth, said, speak};
use crate::carriers::broker::url::{Place, Vhost};
use crate::core::links::fault::{Fault, Why};

/// Bits of what is declared.
const PASSIVE: u8 = 1;
const DURABLE: u8 = 2;
/// What a new quorum queue confirms in its first second, RabbitMQ 3.10 forgets if it is killed then, and never
/// finds the queue's leader again. One that is empty may be new, whoever made it: nothing is given to it for so
/// long. One that is not is older, since nobody gave it anything before.
const EMPTY_RESTS: Duration = Duration::from_secs(2);
/// What a broker says where something is declared otherwise than it is there.
const OTHERWISE: u16 = 406;
/// What one says that does not know a kind of queue.
const NOT_KNOWN: [u16; 3] = [OTHERWISE, 503, 540];

impl Exchange {
    /// The one of what is kept.
    fn of_kept(me: &Me) -> Self {
        Self {
            name: channel_of(me),
            kind: "fanout",
            root: String::new(),
            lasts: true,
        }
    }
}

/// The queue of an archive.
fn queue_of(url: &KeepUrl, me: &Me) -> String {
    format!("chatmesh.{}.{}", me.mesh, url.archive())
}

fn vhost(url: &KeepUrl) -> Result<&Vhost, Fault> {
    match &url.broker().place {
        Place::Vhost(vhost) => Ok(vhost),
        _ => Err(Fault::new(Why::Unreachable, "no vhost is named")),
    }
}

/// A connection where the exchange and the queue are there.
struct Prepared {
    line: Line,
    exchange: Exchange,
    /// How many messages wait in the queue.
    waiting: u32,
}

/// Asks how many messages wait in a queue.
fn look_at(queue: &str) -> Frames {
    let args = [
        Arg::U16(0),
        Arg::Short(queue),
        Arg::U8(PASSIVE),
        Arg::Table(&[]),
    ];
    Frames::default().method(CHANNEL, method::QUEUE_DECLARE, &args)
}

async fn prepared(url: &KeepUrl, me: &Me) -> Result<Prepared, Fault> {
    let queue = queue_of(url, me);
    let kinds: [&[(&str, Arg<'_>)]; 2] = [&[("x-queue-type", Arg::Short("quorum"))], &[]];
    for kind in kinds {
        let mut line = open(url.broker(), vhost(url)?, me).await?;
        let exchange = Exchange::of_kept(me);
        line.declare(&exchange).await?;
        let args = [
            Arg::U16(0),
            Arg::Short(&queue),
            Arg::U8(DURABLE),
            Arg::Table(kind),
        ];
        let frames = Frames::default().method(CHANNEL, method::QUEUE_DECLARE, &args);
        line.say(frames).await?;
        let waiting = match line.said().await? {
            Said::Queue(_, waiting) => waiting,
            // It is there already and classic, or the broker has no quorum queues.
            Said::Close { code, .. } if NOT_KNOWN.contains(&code) && !kind.is_empty() => continue,
            Said::Close { code, text } if code == OTHERWISE => {
                let text =
                    format!("the queue {queue} is there and does not last: remove it ({text})");
                return Err(Fault::new(Why::NoBroker, text));
            }
            Said::Close { code, text } => return Err(closed(code, &text)),
            _ => return Err(out_of_turn()),
        };
        let bind = [
            Arg::U16(0),
            Arg::Short(&queue),
            Arg::Short(&exchange.name),
            Arg::Short(""),
            Arg::U8(0),
            Arg::Table(&[]),
        ];
        line.ask(method::BIND, &bind, method::BIND_OK).await?;
        return Ok(Prepared {
            line,
            exchange,
            waiting,
        });
    }
    Err(out_of_turn())
}

/// Connects to keep.
pub(in crate::carriers::broker) async fn keep(
    url: &KeepUrl,
    me: &Me,
    gauges: &Arc<Gauges>,
) -> Result<Connected<Publisher>, Fault> {
    let prepared = prepared(url, me).await?;
    let (mut line, exchange) = (prepared.line, prepared.exchange);
    line.ask(method::CONFIRM_SELECT, &[Arg::U8(0)], method::CONFIRM_OK)
        .await?;
    let (half, other) = split(line.stream);
    let sign = Arc::new(Notify::new());
    let (mouth, speaking) = speak(other, Arc::clone(&sign), SIGN);
    let (taken_up_to, taken) = watch::channel(0);
    let listening = listen(half, line.unread, taken_up_to, Arc::clone(gauges));
    let signs = signs(vhost(url)?.heartbeat, [sign]);
    let driver = async move {
        tokio::select! {
            fault = speaking => fault,
            fault = listening => fault,
            fault = signs => fault,
        }
    };
    let keeper = Publisher {
        mouth,
        place: Arc::new(exchange),
        published: 0,
        taken,
        gauges: Arc::clone(gauges),
    };
    Ok(Connected {
        keeper,
        driver: driver.boxed(),
        counts: Ok(()),
        rests: match prepared.waiting {
            0 => EMPTY_RESTS,
            _ => Duration::ZERO,
        },
    })
}

impl Keep for Publisher {
    async fn keep(&mut self, messages: Vec<Bytes>) -> Result<(), Fault> {
        // All goes to all queues, whatever the key.
        let messages = messages.into_iter().map(|message| (String::new(), message));
        self.publish(&messages.collect::<Vec<_>>()).await.map(drop)
    }
}

/// Connects to take in what is kept, and how much waits there.
pub(in crate::carriers::broker) async fn consume(
    url: &KeepUrl,
    me: &Me,
) -> Result<(Consumer, BoxFuture<'static, Fault>), Fault> {
    let Prepared {
        mut line, waiting, ..
    } = prepared(url, me).await?;
    let queue = queue_of(url, me);
    line.consume_from(&queue).await?;
    let (stream, other) = split(line.stream);
    let sign = Arc::new(Notify::new());
    let (mouth, speaking) = speak(other, Arc::clone(&sign), SIGN);
    let signs = signs(vhost(url)?.heartbeat, [sign]);
    let driver = async move {
        tokio::select! {
            fault = speaking => fault,
            fault = signs => fault,
        }
    };
    let consumer = Consumer {
        stream,
        unread: line.unread,
        mouth,
        queue,
        waiting: waiting.into(),
    };
    Ok((consumer, driver.boxed()))
}

/// Takes in what is kept.
pub(in crate::carriers::broker) struct Consumer {
    stream: ReadHalf<Box<dyn Stream>>,
    unread: Unread,
    mouth: Mouth,
    queue: String,
    /// How many waited there when it was asked last.
    waiting: u64,
}

impl Consume for Consumer {
    async fn next(&mut self) -> Result<Held, Fault> {
        loop {
            match said(&mut self.stream, &mut self.unread).await? {
                Said::Message {
                    tag, again, body, ..
                } => {
                    self.waiting = self.waiting.saturating_sub(1);
                    return Ok(Held {
                        name: Name::Tag(tag),
                        again,
                        body,
                    });
                }
                Said::Queue(_, waiting) => self.waiting = waiting.into(),
                Said::Close { code, text } => return Err(closed(code, &text)),
                Said::Cancelled => {
                    let text = "the broker brings nothing any more: its queue is gone";
                    return Err(Fault::new(Why::Ended, text));
                }
                _ => {}
            }
        }
    }

    async fn settle(&mut self, names: &[Name]) -> Result<(), Fault> {
        let mut frames = Frames::default();
        for name in names {
            if let Name::Tag(tag) = name {
                frames = frames.method(CHANNEL, method::ACK, &[Arg::U64(*tag), Arg::U8(0)]);
            }
        }
        self.mouth.say(frames.into_bytes()).await;
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Fault> {
        self.mouth.say(look_at(&self.queue).into_bytes()).await;
        Ok(())
    }

    fn waiting(&self) -> u64 {
        self.waiting
    }
}
