//! Clients: one that speaks `chat.v1`, and one that speaks the plain form.
//!
//! A client records all that it was told, with the time of arrival, and never forgets: what a
//! test claims is looked up in the record. Waiting on it is waiting for news, not for time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::cluster::Node;
use super::record::{Attempt, Closed, Record};
use super::socket::{Order, Socket, request};
use super::wire::{Joined, Msg, Position, Refused, Sent, Shown};

/// How long a reply may take before a test calls it missing. A send with `copies` waits 2 s.
pub(crate) const REPLY_WITHIN: Duration = Duration::from_secs(10);

/// A client that speaks `chat.v1`.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    /// The reply to its hello.
    pub(crate) welcome: Value,
    pub(super) socket: Arc<Socket>,
    next_request: AtomicU64,
    next_mid: AtomicU64,
}

impl Client {
    /// A connection that has not said hello.
    pub(crate) async fn silent(node: &Node) -> Result<Self> {
        Self::silent_at(&node.http).await
    }

    async fn silent_at(http: &str) -> Result<Self> {
        let socket = Socket::open(request(http, "/ws")?).await?;
        Ok(Self {
            name: String::new(),
            welcome: Value::Null,
            socket: Arc::new(socket),
            next_request: AtomicU64::new(1),
            next_mid: AtomicU64::new(1),
        })
    }

    /// A connection that has said hello.
    pub(crate) async fn hello(node: &Node, name: &str) -> Result<Self> {
        Self::hello_at(&node.http, name).await
    }

    /// Like [`Client::hello`], at a node's HTTP endpoint, as other nodes tell of it.
    pub(crate) async fn hello_at(http: &str, name: &str) -> Result<Self> {
        let mut client = Self::silent_at(http).await?;
        client.welcome = client.ask("hello", json!({ "name": name })).await?;
        name.clone_into(&mut client.name);
        Ok(client)
    }

    /// A connection that has said hello and joined a room.
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

    /// The origin of its node, once it has said hello.
    pub(crate) fn origin(&self) -> &str {
        self.welcome["origin"].as_str().unwrap_or_default()
    }

    /// Sends a request and does not wait.
    pub(crate) fn start(&self, verb: &str, body: Value) -> oneshot::Receiver<Value> {
        let mut replies = self.start_all(verb, [body]);
        replies.remove(0)
    }

    /// Sends requests in one frame and does not wait.
    pub(crate) fn start_all(
        &self,
        verb: &str,
        bodies: impl IntoIterator<Item = Value>,
    ) -> Vec<oneshot::Receiver<Value>> {
        let mut lines = Vec::new();
        let mut replies = Vec::new();
        let mut record = self.socket.inbox.record();
        for body in bodies {
            let id = self.next_request.fetch_add(1, Ordering::Relaxed);
            let (asker, reply) = oneshot::channel();
            if record.closed.is_none() {
                record.waiting.insert(id, asker);
                record.asked(id, verb, &body, (&self.name, self.origin()));
            }
            let mut object = json!({ "id": id });
            object[verb] = body;
            lines.push(object.to_string());
            replies.push(reply);
        }
        // With the record in hand, so that the order in it is the order on the wire.
        self.socket.say(Message::text(lines.join("\n")));
        drop(record);
        replies
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
    pub(crate) async fn join(&self, room: &str) -> Result<Joined> {
        self.typed("join", json!({ "room": room })).await
    }

    /// Joins a room with other fields too.
    pub(crate) async fn join_with(&self, body: Value) -> Result<Joined> {
        self.typed("join", body).await
    }

    /// Watches the rooms of a pattern, from a position if there is one.
    pub(crate) async fn watch(&self, rooms: &str, since: Option<&[String]>) -> Result<Joined> {
        let mut body = json!({ "rooms": rooms });
        if let Some(since) = since {
            body["since"] = json!(since);
        }
        self.typed("watch", body).await
    }

    /// Joins a room, or watches some, and names of what was shown what it is asked for, as the page does.
    pub(crate) async fn enter_naming(
        &self,
        verb: &str,
        mut body: Value,
        shown: &Shown,
    ) -> Result<Joined> {
        let mut named: Vec<String> = Vec::new();
        loop {
            body["named"] = json!(named);
            let why = match self.typed(verb, body.clone()).await {
                Ok(joined) => return Ok(joined),
                Err(why) => why,
            };
            let asked = why.downcast_ref::<Refused>();
            let asked = asked.filter(|refused| refused.code == "mids_wanted");
            let Some(behind) = asked.map(|refused| refused.behind.clone()) else {
                return Err(why);
            };
            for (room, mids) in shown.behind(&Position::parse(&behind)?) {
                for mids in mids.chunks(500) {
                    let mut seen = json!({ "room": room, "mids": mids });
                    if let Some(rooms) = body.get("rooms") {
                        seen["rooms"] = rooms.clone();
                    }
                    self.ask("seen", seen).await?;
                }
            }
            named.extend(behind);
        }
    }

    /// Sends a text under a new mid.
    pub(crate) async fn send(&self, room: &str, text: &str) -> Result<Sent> {
        let mid = self.new_mid();
        self.send_with(json!({ "room": room, "mid": mid, "text": text }))
            .await
    }

    /// Sends with fields of one's own.
    pub(crate) async fn send_with(&self, body: Value) -> Result<Sent> {
        self.typed("send", body).await
    }

    /// A mid that no other client of this run has.
    pub(crate) fn new_mid(&self) -> String {
        let count = self.next_mid.fetch_add(1, Ordering::Relaxed);
        format!("{}-{:08x}-{count}", self.name, rand::random::<u32>())
    }

    /// The code of the error that a request earns.
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

    /// Ends the connection without a word. What comes from now on is not shown to it.
    pub(crate) fn vanish(&self) {
        let left = Closed {
            code: 1006,
            reason: "left".to_owned(),
        };
        self.socket.inbox.change(|record| record.ended(left));
        let _gone = self.socket.orders.send(Order::Drop);
    }

    /// The pushes of one verb so far, their bodies.
    pub(crate) fn pushed(&self, verb: &str) -> Vec<Value> {
        let record = self.socket.inbox.record();
        record
            .pushes
            .iter()
            .filter_map(|push| push.get(verb).cloned())
            .collect()
    }

    /// The messages so far, with the time of arrival.
    pub(crate) fn messages(&self) -> Vec<(Instant, Msg)> {
        self.socket.inbox.record().messages.clone()
    }

    /// What it sent so far, and what became of it.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.socket.inbox.record().attempts.clone()
    }

    /// Waits for a push of this verb whose body pleases.
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
                let mut bodies = record.pushes.iter().filter_map(|push| push.get(verb));
                bodies.find(|body| pleases(body)).cloned()
            })
            .await
    }

    /// Waits for a look at its record to find something.
    pub(crate) async fn until<T>(
        &self,
        within: Duration,
        what: &str,
        look: impl FnMut(&Record) -> Option<T>,
    ) -> Result<T> {
        let what = format!("{} {what}", self.name);
        self.socket.inbox.until(within, &what, look).await
    }

    /// Waits for the message with this text.
    pub(crate) async fn message(&self, within: Duration, text: &str) -> Result<Msg> {
        let mut looked = 0;
        let what = format!("is shown {:?}", excerpt(text));
        self.until(within, &what, |record| {
            let fresh = &record.messages[looked..];
            looked = record.messages.len();
            let found = fresh.iter().find(|(_, message)| message.text == text);
            found.map(|(_, message)| message.clone())
        })
        .await
    }

    /// Waits until the connection is closed.
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
    pub(crate) async fn ping(&self, lines: &str, within: Duration) -> Result<()> {
        self.socket.ping(lines, within).await
    }

    /// Waits until `{}` has come from the node of its own, `count` times in all.
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

/// A client of the plain form: bare text at `/`.
#[derive(Debug)]
pub(crate) struct Plain {
    socket: Socket,
}

impl Plain {
    /// Connects at `/` with this query, e.g. `?room=tea`.
    pub(crate) async fn connect(node: &Node, query: &str) -> Result<Self> {
        Self::connect_at(&node.http, query).await
    }

    /// Like [`Plain::connect`], at an HTTP endpoint.
    pub(crate) async fn connect_at(http: &str, query: &str) -> Result<Self> {
        Ok(Self {
            socket: Socket::open(request(http, &format!("/{query}"))?).await?,
        })
    }

    /// Says a text.
    pub(crate) fn say(&self, text: &str) {
        self.socket.say(Message::text(text));
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let record = self.socket.inbox.record();
        let text = |push: &Value| match push {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        record.pushes.iter().map(text).collect()
    }

    /// Waits for a line.
    pub(crate) async fn line(&self, within: Duration, text: &str) -> Result<()> {
        let what = format!("the bare text {text:?} comes");
        self.socket
            .inbox
            .until(within, &what, |record| {
                record.pushes.iter().any(|push| push == text).then_some(())
            })
            .await
    }

    /// Waits until the connection is closed.
    pub(crate) async fn closed(&self, within: Duration) -> Result<Closed> {
        self.socket
            .inbox
            .until(within, "closed", |record| record.closed.clone())
            .await
    }
}
