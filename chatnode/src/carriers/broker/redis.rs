//! By Redis and Valkey: one connection to publish, one to subscribe.
//!
//! The library speaks the protocol; what it does beside that is kept away from here. It is given
//! connections of ours and never makes one, so that nothing reconnects in silence. It queues without
//! bound what subscribers do not take, so it is fed no faster than that is taken ([`throttle`]): then TCP
//! pushes back, Redis cuts us off when its own buffer is full, and repair does the rest.
//!
//! One connection for both is not possible: a subscriber's, in the older protocol that every server
//! knows, says nothing else.

mod kept;
mod sentinels;
mod throttle;

use std::sync::Arc;

use ::redis::aio::{MultiplexedConnection, PubSub, PubSubSink, PubSubStream};
use ::redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value, cmd, pipe};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(super) use self::kept::{consume, keep};
use self::throttle::{Gate, Throttled};
use super::Me;
use super::net::{self, Stream};
use super::session::{Connected, Messages, Publish, Subscribe};
use super::url::{BrokerUrl, Login, Place};
use crate::core::links::fault::{Fault, Why};

/// Longest line that a server answers the first words with.
const LINE_LEN_MAX: usize = 512;

/// Connects twice.
pub(super) async fn connect(
    url: &BrokerUrl,
    me: &Me,
) -> Result<Connected<Publisher, Subscriber, Heard>, Fault> {
    let primary;
    let place = match &url.place {
        Place::Sentinels(watch) => {
            primary = Place::Servers(vec![sentinels::primary(watch, me).await?]);
            &primary
        }
        place => place,
    };
    let (one, other) = futures::try_join!(
        dial(place, url.tls, &url.login, me),
        dial(place, url.tls, &url.login, me)
    )?;
    let (publisher, mut driver) = commands(one).await?;
    tokio::select! {
        checked = check_role(publisher.clone()) => checked?,
        fault = &mut driver => return Err(fault),
    }
    let gate = Arc::new(Gate::default());
    let stream = Throttled::new(other, Arc::clone(&gate));
    let heard = PubSub::new(&RedisConnectionInfo::default(), stream).await;
    let (sink, stream) = heard.map_err(|why| fault(&why))?.split();
    let driver: BoxFuture<'static, Fault> = match (&url.place, place) {
        (Place::Sentinels(watch), Place::Servers(primary)) => {
            let moves = sentinels::moves(watch.clone(), me.clone(), primary.clone());
            Box::pin(async move {
                tokio::select! {
                    fault = driver => fault,
                    fault = moves => fault,
                }
            })
        }
        _ => driver,
    };
    Ok(Connected {
        publisher: Publisher(publisher),
        subscriber: Subscriber(sink),
        messages: Heard { stream, gate },
        driver,
    })
}

/// A connection that has let this node in.
async fn dial(place: &Place, tls: bool, login: &Login, me: &Me) -> Result<Box<dyn Stream>, Fault> {
    let mut stream = match (place, place.servers()) {
        (Place::Socket(path), _) => net::unix(path).await?,
        (_, [server, ..]) => net::tcp(server, tls).await?,
        (_, []) => return Err(Fault::new(Why::Unreachable, "no server is named")),
    };
    greet(&mut stream, login, me).await?;
    Ok(stream)
}

/// Says who this node is and asks for a sign of life, and reads what comes: the one place where a server
/// that is none, or that does not let this node in, says so in its own words.
async fn greet(stream: &mut Box<dyn Stream>, login: &Login, me: &Me) -> Result<(), Fault> {
    let mut words: Vec<Cmd> = Vec::new();
    let mut say = |word: &mut Cmd| words.push(std::mem::take(word));
    if let Some(password) = &login.password {
        let mut auth = cmd("AUTH");
        if let Some(user) = &login.user {
            auth.arg(user);
        }
        say(auth.arg(password));
    }
    say(cmd("CLIENT").arg("SETNAME").arg(me.client_name()));
    say(&mut cmd("PING"));
    let bytes: Vec<u8> = words.iter().flat_map(Cmd::get_packed_command).collect();
    stream.write_all(&bytes).await.map_err(|why| cut(&why))?;
    let last = words.len() - 1;
    for (nth, _) in words.iter().enumerate() {
        let line = line(stream).await?;
        match line.as_bytes().first() {
            Some(b'+') => {}
            // The name is for people: who may not give one goes without.
            Some(b'-') if nth + 1 == last => {}
            Some(b'-') => {
                let text = format!("the broker refuses: {}", &line[1..]);
                return Err(Fault::new(Why::NotLetIn, text));
            }
            _ => {
                let text = format!("what listens there is no Redis; it says {line:?}");
                return Err(Fault::new(Why::NoBroker, text));
            }
        }
    }
    Ok(())
}

fn cut(why: &std::io::Error) -> Fault {
    Fault::new(Why::Ended, format!("the connection ended: {why}"))
}

async fn line(stream: &mut Box<dyn Stream>) -> Result<String, Fault> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < LINE_LEN_MAX {
        // Byte by byte: what follows is the library's.
        line.push(stream.read_u8().await.map_err(|why| cut(&why))?);
    }
    let line = String::from_utf8_lossy(&line);
    Ok(line.trim_end().replace(char::is_control, " "))
}

/// A connection for commands, and what drives it.
async fn commands(
    stream: Box<dyn Stream>,
) -> Result<(MultiplexedConnection, BoxFuture<'static, Fault>), Fault> {
    // A broker that does not answer is noticed by the beats that do not come back.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let info = RedisConnectionInfo::default();
    let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (connection, driver) = made.map_err(|why| fault(&why))?;
    let driver = async move {
        driver.await;
        Fault::new(Why::Ended, "the connection for publishing ended")
    };
    Ok((connection, Box::pin(driver)))
}

/// What is published on a replica goes no further up: nodes on two replicas would never meet, though each
/// hears itself.
async fn check_role(mut connection: MultiplexedConnection) -> Result<(), Fault> {
    match cmd("ROLE").query_async::<Value>(&mut connection).await {
        Ok(Value::Array(words)) => match words.first() {
            Some(Value::BulkString(role)) if role == b"slave" => {
                let text = "it is a replica, and what is said there stays there: name the primary, \
                            or its sentinels by redis+sentinel://";
                Err(Fault::new(Why::NoBroker, text))
            }
            _ => Ok(()),
        },
        // Not every server knows the word, nor may everybody say it.
        _ => Ok(()),
    }
}

fn fault(why: &RedisError) -> Fault {
    // In the server's own words, as in what greets: the library's are others. Of several that it refuses
    // together the first.
    let refused = why.clone().into_server_errors();
    if let Some((_, refused)) = refused.as_deref().and_then(<[_]>::first) {
        let text = refused.details().unwrap_or_default();
        let text = format!("the broker refuses: {} {text}", refused.code());
        return Fault::new(Why::NotLetIn, text.replace(char::is_control, " "));
    }
    let text = why.to_string().replace(char::is_control, " ");
    Fault::new(Why::Ended, format!("the connection ended: {text}"))
}

/// Publishes.
pub(super) struct Publisher(MultiplexedConnection);

impl Publish for Publisher {
    async fn publish(&mut self, messages: &[(String, Bytes)]) -> Result<Option<u64>, Fault> {
        let mut all = pipe();
        for (name, message) in messages {
            all.cmd("PUBLISH").arg(name).arg(&message[..]);
        }
        // Its answer is to how many each went: on a cluster, of those on the server that was asked.
        let receivers = all.query_async::<Vec<u64>>(&mut self.0).await;
        let receivers = receivers.map_err(|why| fault(&why))?;
        Ok(receivers.last().copied())
    }
}

/// Subscribes.
pub(super) struct Subscriber(PubSubSink);

impl Subscribe for Subscriber {
    async fn subscribe(&mut self, names: &[String]) -> Result<(), Fault> {
        self.0.subscribe(names).await.map_err(|why| fault(&why))
    }

    async fn unsubscribe(&mut self, names: &[String]) -> Result<(), Fault> {
        self.0.unsubscribe(names).await.map_err(|why| fault(&why))
    }
}

/// What comes.
pub(super) struct Heard {
    stream: PubSubStream,
    gate: Arc<Gate>,
}

impl Messages for Heard {
    async fn next(&mut self) -> Result<(Bytes, Bytes), Fault> {
        let message = match futures::poll!(self.stream.next()) {
            std::task::Poll::Ready(message) => message,
            std::task::Poll::Pending => {
                self.gate.all_is_taken();
                self.stream.next().await
            }
        };
        let Some(message) = message else {
            return Err(Fault::new(Why::Ended, "the connection for hearing ended"));
        };
        self.gate.one_is_taken();
        let name = Bytes::copy_from_slice(message.get_channel_name().as_bytes());
        Ok((name, Bytes::copy_from_slice(message.get_payload_bytes())))
    }
}
