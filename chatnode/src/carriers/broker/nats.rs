//! By NATS, without JetStream: one connection, to publish and to hear.
//!
//! The protocol is a few lines of text ([`wire`]), and it is spoken here: the makers' library panics at
//! lines that a server can send, which would end the node, reconnects in silence, drops what finds its
//! queues full, and cannot be given a connection of ours. So nothing is dropped on this side: what the
//! node does not take is not read, TCP pushes back, and the server cuts off whoever is too slow for it;
//! then repair does the rest.
//!
//! A server says nothing of a subscription that it has taken. But it does in order what it is told, so a
//! subscription is with it, or refused, when it answers a PING that was sent after it.

mod jetstream;
mod kept;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::endpoint::Endpoint;
use base::seal::SEAL_LEN;
use bytes::Bytes;
use futures::FutureExt as _;
use rand::seq::SliceRandom as _;
use serde_json::json;
use tokio::io::ReadHalf;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub(super) use self::kept::{consume, keep};
use self::wire::{Info, Said, Unread};
use super::Me;
use super::channels::MESSAGE_LEN_MAX;
use super::gauges::Gauges;
use super::net::{self, Stream};
use super::session::{Connected, Messages, Publish, Subscribe};
use super::speech::{Mouth, Unread as _, said, speak, write};
use super::url::{BrokerUrl, Login};
use crate::carriers::dial::DIAL_TIMEOUT;
use crate::core::links::fault::{Fault, Why};
use crate::wire::frame::FRAME_LEN_MAX;

/// What stands around a frame in a message.
const AROUND_LEN: usize = MESSAGE_LEN_MAX - FRAME_LEN_MAX + SEAL_LEN;
/// A server that takes no longer messages cannot carry: the entries of one turn, and some more.
const PAYLOAD_LEN_MIN: usize = (64 << 10) + (16 << 10);
/// A server speaks first. One that has not after this time is asked, so that it says what it is.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// Of the time of a dial, what the servers together may take; each has a share, but this at the least.
const SERVERS_WITHIN: Duration = DIAL_TIMEOUT.saturating_sub(Duration::from_millis(200));
const SERVER_WITHIN_MIN: Duration = Duration::from_millis(600);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// What others publish.
    Messages,
    /// What the server answers.
    Answers,
}

/// Connects to one of the servers.
pub(super) async fn connect(
    url: &BrokerUrl,
    me: &Me,
    gauges: &Arc<Gauges>,
) -> Result<Connected<Publisher, Subscriber, Heard>, Fault> {
    let (stream, unread, info) = met(url, me, Wants::Messages).await?;
    take_in(&info, gauges)?;
    Ok(connected(stream, unread, Arc::clone(gauges)))
}

/// A connection to one of the servers, which has let this node in.
async fn met(
    url: &BrokerUrl,
    me: &Me,
    wants: Wants,
) -> Result<(Box<dyn Stream>, Unread, Info), Fault> {
    let mut servers = url.servers().to_vec();
    servers.shuffle(&mut rand::rng());
    let share = SERVERS_WITHIN / u32::try_from(servers.len()).unwrap_or(1).max(1);
    let mut last = Fault::new(Why::Unreachable, "no server is named");
    for server in &servers {
        let greeted = greet(server, url, me, wants);
        match timeout(share.max(SERVER_WITHIN_MIN), greeted).await {
            Ok(Ok(met)) => return Ok(met),
            Ok(Err(why)) => last = why,
            Err(_) => {
                let text = "timed out: it is silent, where NATS speaks first";
                last = Fault::new(Why::TimedOut, text);
            }
        }
    }
    Err(last)
}

/// A connection that has let this node in, what was read of it, and what the server is.
async fn greet(
    server: &Endpoint,
    url: &BrokerUrl,
    me: &Me,
    wants: Wants,
) -> Result<(Box<dyn Stream>, Unread, Info), Fault> {
    let mut plain = net::connected(server).await?;
    let mut unread = Unread::new(MESSAGE_LEN_MAX + SEAL_LEN);
    let info = match timeout(QUIET_MAX, said(&mut plain, &mut unread)).await {
        Ok(said) => said,
        Err(_) => {
            // What waits for a line of HTTP, or of another protocol, may answer with its own.
            write(&mut plain, b"PING\r\n").await?;
            said(&mut plain, &mut unread).await
        }
    };
    let Said::Info(info) = info? else {
        return Err(odd("another word than INFO"));
    };
    check(&info, url)?;
    let mut stream: Box<dyn Stream> = match url.tls {
        // What came before the handshake is nobody's word.
        true if !unread.bytes().is_empty() => return Err(odd("more than INFO")),
        true => net::in_tls(server, plain).await?,
        false => Box::new(plain),
    };
    write(
        &mut stream,
        hello(&url.login, url.tls, me, wants).as_bytes(),
    )
    .await?;
    loop {
        match said(&mut stream, &mut unread).await? {
            Said::Pong => return Ok((stream, unread, info)),
            Said::Ping => write(&mut stream, b"PONG\r\n").await?,
            Said::Refused(text) => return Err(refused(&text)),
            Said::Info(_) | Said::Ok | Said::Message(_) => {}
        }
    }
}

/// Whether nodes can meet at this server.
fn check(info: &Info, url: &BrokerUrl) -> Result<(), Fault> {
    let no_broker = |text: String| Err(Fault::new(Why::NoBroker, text));
    if info.tls_required && !url.tls {
        let text = "the broker wants TLS: write tls+nats://";
        return Err(Fault::new(Why::NotSealed, text));
    }
    if url.tls && !info.tls_required && !info.tls_available {
        let text = "the broker has no TLS there: write nats://, or give it a certificate";
        return Err(Fault::new(Why::NotSealed, text));
    }
    if url.servers().len() > 1 && info.cluster.is_none() {
        return no_broker(
            "it is in no cluster, so that nodes at the other servers would never meet: give each \
             server a --bus of its own"
                .to_owned(),
        );
    }
    if info.max_payload < PAYLOAD_LEN_MIN {
        return no_broker(format!(
            "its max_payload is {}, too short for this mesh: set {PAYLOAD_LEN_MIN} or more, better \
             the default of 1 MB",
            info.max_payload
        ));
    }
    Ok(())
}

/// A server has said what it is, now or once more.
fn take_in(info: &Info, gauges: &Gauges) -> Result<(), Fault> {
    if info.ldm {
        let text = "the broker is about to end (lame duck), and tells to go elsewhere";
        return Err(Fault::new(Why::Ended, text));
    }
    if info.max_payload > 0 {
        let len = info.max_payload.saturating_sub(AROUND_LEN);
        let len = len.clamp(1, FRAME_LEN_MAX);
        gauges.len_max.set(u64::try_from(len).ok());
    }
    Ok(())
}

/// Who this node is, and a question to which the answer is that it is let in.
fn hello(login: &Login, tls: bool, me: &Me, wants: Wants) -> String {
    let is_asked = wants == Wants::Answers;
    let (user, password, token) = match (&login.user, &login.password) {
        (Some(token), None) => (None, None, Some(token)),
        (user, password) => (user.as_ref(), password.as_ref(), None),
    };
    let mut connect = json!({
        "verbose": false,
        "pedantic": false,
        "tls_required": tls,
        "name": me.client_name(),
        "lang": "rust",
        "version": env!("CARGO_PKG_VERSION"),
        // News of the server, such as that it ends, are wanted.
        "protocol": 1,
        // The own beat is to come back.
        "echo": true,
        "headers": is_asked,
        // Who is asked and is not there is told by the server.
        "no_responders": is_asked,
    });
    for (key, value) in [("user", user), ("pass", password), ("auth_token", token)] {
        if let Some(value) = value {
            connect[key] = json!(value);
        }
    }
    format!("CONNECT {connect}\r\nPING\r\n")
}

fn odd(what: &str) -> Fault {
    let text = format!("what listens there is no NATS; it says {what}");
    Fault::new(Why::NoBroker, text)
}

/// What the server refuses. A channel that it forbids makes a node deaf or dumb: that is an end too.
fn refused(text: &str) -> Fault {
    let word = text.to_lowercase();
    let forbids = ["authorization", "authentication", "permissions violation"];
    match forbids.iter().any(|forbidden| word.contains(forbidden)) {
        true => Fault::new(Why::NotLetIn, format!("the broker refuses: {text}")),
        false => Fault::new(Why::Ended, format!("the broker ended it: {text}")),
    }
}

fn connected(
    stream: Box<dyn Stream>,
    unread: Unread,
    gauges: Arc<Gauges>,
) -> Connected<Publisher, Subscriber, Heard> {
    let (half, other) = tokio::io::split(stream);
    let asked = Arc::new(Notify::new());
    let (mouth, driver) = speak(other, Arc::clone(&asked), b"PONG\r\n");
    let (answered, answers) = watch::channel(0);
    Connected {
        publisher: Publisher(mouth.clone()),
        subscriber: Subscriber {
            mouth,
            sids: HashMap::new(),
            last_sid: 0,
            asks: 0,
            answers,
        },
        messages: Heard {
            stream: half,
            unread,
            gauges,
            asked,
            answered,
        },
        driver: driver.boxed(),
    }
}

/// Publishes.
pub(super) struct Publisher(Mouth);

impl Publish for Publisher {
    async fn publish(&mut self, messages: &[(String, Bytes)]) -> Result<Option<u64>, Fault> {
        let len = messages
            .iter()
            .map(|(name, message)| name.len() + message.len() + 32);
        let mut bytes = Vec::with_capacity(len.sum());
        for (name, message) in messages {
            bytes.extend_from_slice(format!("PUB {name} {}\r\n", message.len()).as_bytes());
            bytes.extend_from_slice(message);
            bytes.extend_from_slice(b"\r\n");
        }
        self.0.say(bytes).await;
        Ok(None)
    }
}

/// Subscribes.
pub(super) struct Subscriber {
    mouth: Mouth,
    /// By which number each is subscribed to.
    sids: HashMap<String, u64>,
    last_sid: u64,
    /// How often the server was asked for a sign.
    asks: u64,
    /// How often it gave one.
    answers: watch::Receiver<u64>,
}

impl Subscribe for Subscriber {
    async fn subscribe(&mut self, names: &[String]) -> Result<(), Fault> {
        let mut words = String::new();
        for name in names {
            // Subscribed to twice, all would come twice.
            if !self.sids.contains_key(name) {
                self.last_sid += 1;
                self.sids.insert(name.clone(), self.last_sid);
                words.push_str(&format!("SUB {name} {}\r\n", self.last_sid));
            }
        }
        words.push_str("PING\r\n");
        self.asks += 1;
        self.mouth.say(words.into_bytes()).await;
        let asks = self.asks;
        // An error means that the connection has ended, and why is said elsewhere.
        let is_answered = self
            .answers
            .wait_for(|answers| *answers >= asks)
            .await
            .is_ok();
        match is_answered {
            true => Ok(()),
            false => std::future::pending().await,
        }
    }

    async fn unsubscribe(&mut self, names: &[String]) -> Result<(), Fault> {
        let sids = names.iter().filter_map(|name| self.sids.remove(name));
        let words: String = sids.map(|sid| format!("UNSUB {sid}\r\n")).collect();
        if !words.is_empty() {
            self.mouth.say(words.into_bytes()).await;
        }
        Ok(())
    }
}

/// What comes.
pub(super) struct Heard {
    stream: ReadHalf<Box<dyn Stream>>,
    unread: Unread,
    gauges: Arc<Gauges>,
    /// The server asks for a sign of life.
    asked: Arc<Notify>,
    /// How often it gave one.
    answered: watch::Sender<u64>,
}

impl Messages for Heard {
    async fn next(&mut self) -> Result<(Bytes, Bytes), Fault> {
        loop {
            match said(&mut self.stream, &mut self.unread).await? {
                Said::Message(message) => return Ok((message.subject, message.body)),
                Said::Ping => self.asked.notify_one(),
                Said::Pong => self.answered.send_modify(|count| *count += 1),
                Said::Info(info) => take_in(&info, &self.gauges)?,
                Said::Refused(text) => return Err(refused(&text)),
                Said::Ok => {}
            }
        }
    }
}
