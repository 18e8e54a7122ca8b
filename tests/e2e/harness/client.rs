//! Clients: one that speaks `chat.v1`, and one that speaks the chapter's bare text.
//!
//! A client records all that it was told, with the time of arrival, and never forgets: what a
//! test claims is looked up in the record. Waiting on it is waiting for news, not for time.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::cluster::Node;
use super::socket::{Closed, Order, Push, Socket, request};
use super::wire::{Joined, Msg, Refused, Sent};

/// How long a reply may take before a test calls it missing. A send with `copies` waits 2 s.
pub(crate) const REPLY_WITHIN: Duration = Duration::from_secs(10);

/// A client that speaks `chat.v1`.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    /// The reply to its hello.
    pub(crate) welcome: Value,
    socket: Socket,
    next_request: AtomicU64,
    next_mid: AtomicU64,
}

impl Client {
    /// A connection that has not said hello.
    ///
    /// # Errors
    /// The node does not let it in.
    pub(crate) async fn silent(node: &Node) -> Result<Self> {
        let socket = Socket::open(request(node, "/ws")?).await?;
        Ok(Self {
            name: String::new(),
            welcome: Value::Null,
            socket,
            next_request: AtomicU64::new(1),
            next_mid: AtomicU64::new(1),
        })
    }

    /// A connection that has said hello.
    ///
    /// # Errors
    /// The node does not let it in.
    pub(crate) async fn hello(node: &Node, name: &str) -> Result<Self> {
        let mut client = Self::silent(node).await?;
        client.welcome = client.ask("hello", json!({ "name": name })).await?;
        name.clone_into(&mut client.name);
        Ok(client)
    }

    /// A connection that has said hello and joined a room.
    ///
    /// # Errors
    /// The node does not let it in.
    pub(crate) async fn joined(node: &Node, name: &str, room: &str) -> Result<Self> {
        let client = Self::hello(node, name).await?;
        client.join(room).await?;
        Ok(client)
    }

    /// A request by its verb; the reply's object, or the error as [`Refused`].
    ///
    /// # Errors
    /// Refused, closed, or no reply in time.
    pub(crate) async fn ask(&self, verb: &str, body: Value) -> Result<Value> {
        let waiting = self.start(verb, body);
        self.reply(verb, waiting).await
    }

    /// Sends a request and does not wait.
    pub(crate) fn start(&self, verb: &str, body: Value) -> oneshot::Receiver<Value> {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (asker, reply) = oneshot::channel();
        let mut record = self.socket.inbox.record();
        if record.closed.is_none() {
            record.waiting.insert(id, asker);
        }
        drop(record);
        let mut object = json!({ "id": id });
        object[verb] = body;
        self.socket.say(Message::text(object.to_string()));
        reply
    }

    /// Waits for the reply to a request that was started.
    ///
    /// # Errors
    /// Refused, closed, or no reply in time.
    pub(crate) async fn reply(
        &self,
        verb: &str,
        waiting: oneshot::Receiver<Value>,
    ) -> Result<Value> {
        let mut reply = timeout(REPLY_WITHIN, waiting)
            .await
            .with_context(|| format!("{}: no reply to {verb} in {REPLY_WITHIN:?}", self.name))?
            .with_context(|| format!("{}: closed before a reply to {verb}", self.name))?;
        if let Some(error) = reply.get("error") {
            let refused: Refused = serde_json::from_value(error.clone())
                .with_context(|| format!("an error of another form: {reply}"))?;
            return Err(refused.into());
        }
        ensure!(
            reply.get(verb).is_some(),
            "the reply to {verb} has another verb: {reply}"
        );
        Ok(reply[verb].take())
    }

    async fn typed<T: DeserializeOwned>(&self, verb: &str, body: Value) -> Result<T> {
        let reply = self.ask(verb, body).await?;
        serde_json::from_value(reply.clone()).with_context(|| format!("reply to {verb}: {reply}"))
    }

    /// Joins a room without history.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn join(&self, room: &str) -> Result<Joined> {
        self.typed("join", json!({ "room": room })).await
    }

    /// Joins a room with other fields too.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn join_with(&self, body: Value) -> Result<Joined> {
        self.typed("join", body).await
    }

    /// Sends a text under a new mid.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn send(&self, room: &str, text: &str) -> Result<Sent> {
        let mid = self.new_mid();
        self.send_with(json!({ "room": room, "mid": mid, "text": text }))
            .await
    }

    /// Sends with fields of one's own.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn send_with(&self, body: Value) -> Result<Sent> {
        self.typed("send", body).await
    }

    /// A mid that no other client of this run has.
    pub(crate) fn new_mid(&self) -> String {
        let count = self.next_mid.fetch_add(1, Ordering::Relaxed);
        format!("{}-{:08x}-{count}", self.name, rand::random::<u32>())
    }

    /// The code of the error that a request earns.
    ///
    /// # Errors
    /// It was not refused.
    pub(crate) async fn refusal(&self, verb: &str, body: Value) -> Result<Refused> {
        let shown = excerpt(&body.to_string());
        match self.ask(verb, body).await {
            Ok(reply) => bail!("{verb} {shown} was not refused: {reply}"),
            Err(error) => error
                .downcast::<Refused>()
                .map_err(|error| error.context(format!("{verb} {shown} was not refused"))),
        }
    }

    /// Sends any frame.
    pub(crate) fn say(&self, message: Message) {
        self.socket.say(message);
    }

    /// Stops taking anything from the socket.
    pub(crate) fn freeze(&self) {
        self.socket.reads.send_replace(false);
    }

    /// Reads again.
    pub(crate) fn thaw(&self) {
        self.socket.reads.send_replace(true);
    }

    /// Ends the connection without a word.
    pub(crate) fn vanish(&self) {
        let _gone = self.socket.orders.send(Order::Drop);
    }

    /// The pushes of one verb so far, their bodies.
    pub(crate) fn pushed(&self, verb: &str) -> Vec<Value> {
        let record = self.socket.inbox.record();
        record
            .pushes
            .iter()
            .filter_map(|push| push.value.get(verb).cloned())
            .collect()
    }

    /// The messages so far, with the time of arrival.
    pub(crate) fn messages(&self) -> Vec<(Instant, Msg)> {
        let record = self.socket.inbox.record();
        let message = |push: &Push| {
            let message = serde_json::from_value(push.value.get("msg")?.clone()).ok()?;
            Some((push.at, message))
        };
        record.pushes.iter().filter_map(message).collect()
    }

    /// Waits for a push of this verb whose body pleases.
    ///
    /// # Errors
    /// None in time.
    pub(crate) async fn push(
        &self,
        within: Duration,
        verb: &str,
        pleases: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("{} gets a certain push {verb}", self.name);
        self.socket
            .inbox
            .until(within, &what, |record| {
                let mut bodies = record.pushes.iter().filter_map(|push| push.value.get(verb));
                bodies.find(|body| pleases(body)).cloned()
            })
            .await
    }

    /// Waits for the message with this text.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn message(&self, within: Duration, text: &str) -> Result<Msg> {
        let found = self.push(within, "msg", |body| body["text"] == text).await;
        let found = found.with_context(|| format!("the text is {:?}", excerpt(text)))?;
        Ok(serde_json::from_value(found)?)
    }

    /// Waits until the connection is closed.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn closed(&self, within: Duration) -> Result<Closed> {
        let what = format!("{} is closed", self.name);
        self.socket
            .inbox
            .until(within, &what, |record| record.closed.clone())
            .await
    }

    /// How it was closed, if it was.
    pub(crate) fn is_closed(&self) -> Option<Closed> {
        self.socket.inbox.record().closed.clone()
    }

    /// Sends `{}`, after these lines in the same frame, and waits for the answer.
    ///
    /// # Errors
    /// None in time.
    pub(crate) async fn ping(&self, lines: &str, within: Duration) -> Result<()> {
        let before = {
            let mut record = self.socket.inbox.record();
            record.pings_out += 1;
            record.pongs
        };
        self.say(Message::text(format!("{lines}{{}}")));
        let inbox = &self.socket.inbox;
        inbox
            .until(within, "{} is answered", |record| {
                (record.pongs > before).then_some(())
            })
            .await
    }

    /// Waits until `{}` has come from the node of its own, `count` times in all.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn pinged(&self, within: Duration, count: usize) -> Result<()> {
        let inbox = &self.socket.inbox;
        inbox
            .until(within, "the node pings", |record| {
                (record.pings >= count).then_some(())
            })
            .await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.vanish();
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A client of the chapter: bare text at `/`.
#[derive(Debug)]
pub(crate) struct Plain {
    socket: Socket,
}

impl Plain {
    /// Connects at `/` with this query, e.g. `?room=tea`.
    ///
    /// # Errors
    /// The node does not let it in.
    pub(crate) async fn connect(node: &Node, query: &str) -> Result<Self> {
        Ok(Self {
            socket: Socket::open(request(node, &format!("/{query}"))?).await?,
        })
    }

    /// Says a text.
    pub(crate) fn say(&self, text: &str) {
        self.socket.say(Message::text(text));
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let record = self.socket.inbox.record();
        let text = |push: &Push| match &push.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        record.pushes.iter().map(text).collect()
    }

    /// Waits for a line.
    ///
    /// # Errors
    /// It does not come in time.
    pub(crate) async fn line(&self, within: Duration, text: &str) -> Result<()> {
        let what = format!("the bare text {text:?} comes");
        self.socket
            .inbox
            .until(within, &what, |record| {
                record
                    .pushes
                    .iter()
                    .any(|push| push.value == text)
                    .then_some(())
            })
            .await
    }

    /// Waits until the connection is closed.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn closed(&self, within: Duration) -> Result<Closed> {
        self.socket
            .inbox
            .until(within, "closed", |record| record.closed.clone())
            .await
    }
}
