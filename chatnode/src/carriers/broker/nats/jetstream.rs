//! JetStream's API: requests and answers on one connection, and the stream of a mesh.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::RngExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{ReadHalf, split};
use tokio::sync::{Notify, mpsc};

use super::wire::{Message, Said, Unread};
use super::{Wants, met, refused};
use crate::carriers::broker::Me;
use crate::carriers::broker::keeper::{KeepUrl, channel_of};
use crate::carriers::broker::net::Stream;
use crate::carriers::broker::speech::{Mouth, said, speak};
use crate::core::links::fault::{Fault, Why};

/// Answers and messages that wait to be looked at. When full, nothing more is read.
pub(super) const MESSAGES_MAX: usize = 256;
/// Servers that have a stream, in a cluster.
const REPLICAS: u8 = 3;
/// What a server says where nobody is who could answer.
pub(super) const NO_RESPONDERS: u16 = 503;
/// What JetStream says of what is not there.
const NOT_FOUND: u16 = 404;

/// What JetStream says that went wrong.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Trouble {
    code: u16,
    #[serde(default)]
    description: String,
}

impl Trouble {
    pub(super) fn fault(&self) -> Fault {
        let text = format!("JetStream refuses: {} {}", self.code, self.description);
        Fault::new(Why::NotLetIn, text.replace(char::is_control, " "))
    }
}

/// An answer of JetStream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) error: Option<Trouble>,
    /// To what is published: the stream that has it.
    pub(super) stream: Option<String>,
    /// What a stream is,
    config: Option<StreamConfig>,
    /// or how many messages a consumer has not been brought,
    pub(super) num_pending: u64,
    /// and how many it has been brought and has not acknowledged,
    pub(super) num_ack_pending: u64,
    /// or what consumers there are.
    pub(super) consumers: Vec<ConsumerInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamConfig {
    storage: String,
    retention: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConsumerInfo {
    pub(super) ack_floor: Floor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Floor {
    pub(super) stream_seq: u64,
}

/// How a mesh's stream is called.
pub(super) fn stream_of(me: &Me) -> String {
    format!("CHATMESH_{}", me.mesh)
}

/// A connection on which the server is asked.
pub(super) struct Line {
    pub(super) mouth: Mouth,
    messages: mpsc::Receiver<Message>,
    /// What answers begin with.
    pub(super) inbox: String,
    pub(super) asks: u64,
}

/// Connects.
pub(super) async fn line(
    url: &KeepUrl,
    me: &Me,
) -> Result<(Line, BoxFuture<'static, Fault>, bool), Fault> {
    let (stream, unread, info) = met(url.broker(), me, Wants::Answers).await?;
    if info.ldm {
        let text = "the broker is about to end (lame duck), and tells to go elsewhere";
        return Err(Fault::new(Why::Ended, text));
    }
    let (half, other) = split(stream);
    let sign = Arc::new(Notify::new());
    let (mouth, speaking) = speak(other, Arc::clone(&sign), b"PONG\r\n");
    let (sender, messages) = mpsc::channel(MESSAGES_MAX);
    let listening = listen(half, unread, sign, sender);
    let mut driver = async move {
        tokio::select! {
            fault = speaking => fault,
            fault = listening => fault,
        }
    }
    .boxed();
    let inbox = format!(
        "chatmesh.{}.inbox.{}{:016x}",
        me.mesh,
        me.origin,
        rand::rng().random::<u64>()
    );
    let line = Line {
        mouth,
        messages,
        inbox,
        asks: 0,
    };
    let words = format!("SUB {}.* 1\r\n", line.inbox);
    tokio::select! {
        fault = &mut driver => return Err(fault),
        () = line.mouth.say(words.into_bytes()) => {}
    }
    Ok((line, driver, info.cluster.is_some()))
}

/// Hears the server.
async fn listen(
    mut stream: ReadHalf<Box<dyn Stream>>,
    mut unread: Unread,
    sign: Arc<Notify>,
    messages: mpsc::Sender<Message>,
) -> Fault {
    loop {
        match said(&mut stream, &mut unread).await {
            Err(fault) => return fault,
            Ok(Said::Ping) => sign.notify_one(),
            Ok(Said::Refused(text)) => return refused(&text),
            Ok(Said::Info(info)) if info.ldm => {
                let text = "the broker is about to end (lame duck), and tells to go elsewhere";
                return Fault::new(Why::Ended, text);
            }
            Ok(Said::Message(message)) => {
                if messages.send(message).await.is_err() {
                    return Fault::ended();
                }
            }
            Ok(Said::Info(_) | Said::Pong | Said::Ok) => {}
        }
    }
}

impl Line {
    pub(super) async fn next(&mut self) -> Message {
        match self.messages.recv().await {
            Some(message) => message,
            // Why the connection has ended is said elsewhere.
            None => std::future::pending().await,
        }
    }

    /// What is said to have this done, and answered there.
    pub(super) fn words(&self, subject: &str, answer: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("PUB {subject} {}.{answer} {}\r\n", self.inbox, body.len());
        [head.as_bytes(), body, b"\r\n"].concat()
    }

    /// Asks JetStream for something, and waits.
    async fn ask(&mut self, what: &str, body: &serde_json::Value) -> Result<Answer, Fault> {
        self.asks += 1;
        let answer = format!("a{}", self.asks);
        let body = match body.is_null() {
            true => String::new(),
            false => body.to_string(),
        };
        let words = self.words(&format!("$JS.API.{what}"), &answer, body.as_bytes());
        self.mouth.say(words).await;
        let subject = format!("{}.{answer}", self.inbox);
        loop {
            let message = self.next().await;
            if message.subject == subject.as_bytes() {
                return answered(&message);
            }
        }
    }

    /// Asks, and takes no for a fault.
    pub(super) async fn do_it(
        &mut self,
        what: &str,
        body: &serde_json::Value,
    ) -> Result<Answer, Fault> {
        let answer = self.ask(what, body).await?;
        match &answer.error {
            Some(trouble) => Err(trouble.fault()),
            None => Ok(answer),
        }
    }

    /// The stream is there; whether it is on disk.
    pub(super) async fn stream(
        &mut self,
        me: &Me,
        is_cluster: bool,
    ) -> Result<Result<(), String>, Fault> {
        let stream = stream_of(me);
        let none = serde_json::Value::Null;
        let found = self.ask(&format!("STREAM.INFO.{stream}"), &none).await?;
        let config = match (found.error, found.config) {
            (None, Some(config)) => config,
            (Some(trouble), _) if trouble.code == NOT_FOUND => {
                self.create(me, is_cluster).await?;
                return Ok(Ok(()));
            }
            (Some(trouble), _) => return Err(trouble.fault()),
            (None, None) => return Err(odd()),
        };
        if config.retention != "limits" {
            let text = format!(
                "the stream {stream} is there with retention {}, which forgets what no archive has: \
                 it needs limits",
                config.retention
            );
            return Err(Fault::new(Why::NoBroker, text));
        }
        Ok(match config.storage.as_str() {
            "file" => Ok(()),
            _ => Err(format!("the stream {stream} is in memory")),
        })
    }

    async fn create(&mut self, me: &Me, is_cluster: bool) -> Result<(), Fault> {
        let stream = stream_of(me);
        let what = format!("STREAM.CREATE.{stream}");
        let config = |replicas: u8| {
            json!({
                "name": stream,
                "subjects": [channel_of(me)],
                "retention": "limits",
                "storage": "file",
                // What has no room is refused, not put in the place of something older.
                "discard": "new",
                "num_replicas": replicas,
                "max_consumers": -1,
                "max_msgs": -1,
                "max_bytes": -1,
                "max_age": 0,
            })
        };
        if is_cluster {
            let made = self.ask(&what, &config(REPLICAS)).await?;
            if made.error.is_none() {
                return Ok(());
            }
        }
        self.do_it(&what, &config(1)).await.map(drop)
    }
}

pub(super) fn odd() -> Fault {
    Fault::new(Why::NoBroker, "JetStream answers something else")
}

fn read<T: DeserializeOwned>(message: &Message) -> Result<T, Fault> {
    serde_json::from_slice(&message.body).map_err(|_| odd())
}

pub(super) fn answered(message: &Message) -> Result<Answer, Fault> {
    match message.status() {
        Some(NO_RESPONDERS) => {
            let text = "nobody keeps there: NATS runs without JetStream (start it with -js), or its \
                        stream is gone";
            Err(Fault::new(Why::NoBroker, text))
        }
        Some(_) => Err(odd()),
        None => read(message),
    }
}
