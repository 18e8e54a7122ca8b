//! A connection to RabbitMQ, until it is ready to publish or to bring what comes.

use base::seal::SEAL_LEN;

use super::wire::{Arg, FRAME_LEN_MAX, Frames, HELLO, Said, Unread};
use super::{CHANNEL, Exchange, closed, method, out_of_turn};
use crate::carriers::broker::Me;
use crate::carriers::broker::channels::MESSAGE_LEN_MAX;
use crate::carriers::broker::net::{self, Stream};
use crate::carriers::broker::speech::{said, write};
use crate::carriers::broker::url::{BrokerUrl, Vhost};
use crate::core::links::fault::{Fault, Why};

/// Messages that a broker brings before those before them are confirmed.
const PREFETCH: u16 = 256;
/// Bytes that the broker holds for a node that does not take them.
const QUEUE_BYTES_MAX: u64 = 32 << 20;
/// Bits of what is declared.
const DURABLE: u8 = 2;
const EXCLUSIVE: u8 = 4;
const AUTO_DELETE: u8 = 8;

/// A connection with an open channel.
pub(super) struct Line {
    pub(super) stream: Box<dyn Stream>,
    pub(super) unread: Unread,
}

/// A connection that has let this node in.
pub(super) async fn open(url: &BrokerUrl, vhost: &Vhost, me: &Me) -> Result<Line, Fault> {
    let Some(server) = vhost.servers.first() else {
        return Err(Fault::new(Why::Unreachable, "no server is named"));
    };
    let stream = net::tcp(server, url.tls).await?;
    let unread = Unread::new(MESSAGE_LEN_MAX + SEAL_LEN);
    let mut line = Line { stream, unread };
    write(&mut line.stream, HELLO).await?;
    match line.next().await? {
        Said::Start { mechanisms } if mechanisms.split(' ').any(|it| it == "PLAIN") => {}
        Said::Start { mechanisms } => {
            let text = format!("the broker takes no password, but {mechanisms}");
            return Err(Fault::new(Why::NotLetIn, text));
        }
        _ => return Err(out_of_turn()),
    }
    let user = url.login.user.as_deref().unwrap_or("guest");
    let password = url.login.password.as_deref().unwrap_or("guest");
    let login = format!("\0{user}\0{password}");
    let name = me.client_name();
    let capabilities = [
        // It says why it does not let somebody in,
        ("authentication_failure_close", Arg::Flag(true)),
        // that it takes nothing for now, and that it brings nothing any more.
        ("connection.blocked", Arg::Flag(true)),
        ("consumer_cancel_notify", Arg::Flag(true)),
        ("publisher_confirms", Arg::Flag(true)),
        ("basic.nack", Arg::Flag(true)),
    ];
    let properties = [
        ("product", Arg::Short("chatmesh")),
        ("version", Arg::Short(env!("CARGO_PKG_VERSION"))),
        ("connection_name", Arg::Short(&name)),
        ("capabilities", Arg::Table(&capabilities)),
    ];
    let who = [
        Arg::Table(&properties),
        Arg::Short("PLAIN"),
        Arg::Long(login.as_bytes()),
        Arg::Short("en_US"),
    ];
    line.say(Frames::default().method(0, method::START_OK, &who))
        .await?;
    let Said::Tune { frame_max } = line.next().await? else {
        return Err(out_of_turn());
    };
    let len_max = u32::try_from(FRAME_LEN_MAX).unwrap_or(u32::MAX);
    if frame_max != 0 && frame_max < len_max {
        let text = format!("its frame_max is {frame_max}, too short: set {len_max} or more");
        return Err(Fault::new(Why::NoBroker, text));
    }
    let limits = [
        Arg::U16(CHANNEL),
        Arg::U32(len_max),
        Arg::U16(vhost.heartbeat),
    ];
    let place = [Arg::Short(&vhost.name), Arg::Short(""), Arg::U8(0)];
    let frames = Frames::default().method(0, method::TUNE_OK, &limits);
    line.say(frames.method(0, method::OPEN, &place)).await?;
    line.is_done(method::OPEN_OK).await?;
    line.ask(
        method::CHANNEL_OPEN,
        &[Arg::Short("")],
        method::CHANNEL_OPEN_OK,
    )
    .await?;
    Ok(line)
}

impl Line {
    pub(super) async fn say(&mut self, frames: Frames) -> Result<(), Fault> {
        write(&mut self.stream, &frames.into_bytes()).await
    }

    /// What is said next, but signs of life; also that something is over.
    pub(super) async fn said(&mut self) -> Result<Said, Fault> {
        loop {
            match said(&mut self.stream, &mut self.unread).await? {
                Said::Sign => {}
                said => return Ok(said),
            }
        }
    }

    async fn next(&mut self) -> Result<Said, Fault> {
        match self.said().await? {
            Said::Close { code, text } => Err(closed(code, &text)),
            said => Ok(said),
        }
    }

    async fn is_done(&mut self, id: method::Id) -> Result<(), Fault> {
        match self.next().await? {
            Said::Done(done) if done == id => Ok(()),
            _ => Err(out_of_turn()),
        }
    }

    pub(super) async fn ask(
        &mut self,
        id: method::Id,
        args: &[Arg<'_>],
        answer: method::Id,
    ) -> Result<(), Fault> {
        self.say(Frames::default().method(CHANNEL, id, args))
            .await?;
        self.is_done(answer).await
    }

    pub(super) async fn declare(&mut self, place: &Exchange) -> Result<(), Fault> {
        let exchange = [
            Arg::U16(0),
            Arg::Short(&place.name),
            Arg::Short(place.kind),
            Arg::U8(DURABLE),
            Arg::Table(&[]),
        ];
        self.ask(method::EXCHANGE_DECLARE, &exchange, method::EXCHANGE_OK)
            .await
    }

    /// Hears what comes to a queue of its own, which the broker names.
    pub(super) async fn consume(&mut self) -> Result<String, Fault> {
        let limits = [
            ("x-max-length-bytes", Arg::U64(QUEUE_BYTES_MAX)),
            ("x-overflow", Arg::Short("drop-head")),
        ];
        let queue = [
            Arg::U16(0),
            Arg::Short(""),
            Arg::U8(EXCLUSIVE | AUTO_DELETE),
            Arg::Table(&limits),
        ];
        self.say(Frames::default().method(CHANNEL, method::QUEUE_DECLARE, &queue))
            .await?;
        let Said::Queue(queue, _) = self.next().await? else {
            return Err(out_of_turn());
        };
        self.consume_from(&queue).await?;
        Ok(queue)
    }

    /// Hears what comes to this queue.
    pub(super) async fn consume_from(&mut self, queue: &str) -> Result<(), Fault> {
        let qos = [Arg::U32(0), Arg::U16(PREFETCH), Arg::U8(0)];
        self.ask(method::QOS, &qos, method::QOS_OK).await?;
        let consume = [
            Arg::U16(0),
            Arg::Short(queue),
            Arg::Short(""),
            Arg::U8(0),
            Arg::Table(&[]),
        ];
        self.ask(method::CONSUME, &consume, method::CONSUME_OK)
            .await
    }
}
