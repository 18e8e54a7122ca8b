//! What one connection sent, was told and was shown, with times; nothing is forgotten.
//!
//! Whatever a test claims of a client is looked up here, and [`super::recorder`] checks the
//! promises on the records of all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::wire::{Joined, Msg, Position, Refused, Sent};

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The code of the close frame; 1006 if there was none.
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// One try to send a message, and what its sender knows of it. A retry is another attempt with
/// the same mid.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) mid: String,
    pub(crate) room: String,
    pub(crate) from: String,
    pub(crate) text: String,
    /// The origin of the node it was given to.
    pub(crate) origin: String,
    pub(crate) sent_at: Instant,
    /// When the reply came, or the end of the connection.
    pub(crate) replied_at: Instant,
    pub(crate) fate: Fate,
}

/// What the sender knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Accepted, under this id.
    Accepted(Sent),
    /// Refused: it must never be seen, unless another attempt was accepted.
    Refused(String),
    /// There was no reply: it may have been accepted or not.
    Unknown,
}

impl Attempt {
    /// The reply, if it was accepted.
    pub(crate) fn sent(&self) -> Option<&Sent> {
        match &self.fate {
            Fate::Accepted(sent) => Some(sent),
            Fate::Refused(_) | Fate::Unknown => None,
        }
    }

    /// The id under which it was accepted.
    pub(crate) fn id(&self) -> Option<&str> {
        self.sent().map(|sent| sent.id.as_str())
    }

    /// How long the reply took.
    pub(crate) fn delay(&self) -> Duration {
        self.replied_at - self.sent_at
    }
}

/// A join that was answered, or a watch.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// The room; of a watch, the pattern.
    pub(crate) room: String,
    /// The position that the client brought.
    pub(crate) since: Option<Position>,
    pub(crate) joined: Joined,
    /// How many messages the connection had been shown before.
    pub(crate) before: usize,
}

impl Join {
    /// As it is of one room: a watch of a pattern that has it is as good as a join.
    pub(crate) fn of(&self, room: &str) -> Option<Self> {
        let has = match self.room.strip_suffix('*') {
            Some(beginning) => room.starts_with(beginning),
            None => self.room == room,
        };
        let mut own = self.clone();
        own.joined.messages.retain(|message| message.room == room);
        room.clone_into(&mut own.room);
        has.then_some(own)
    }
}

/// The record of a connection.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) joins: Vec<Join>,
    pub(crate) messages: Vec<(Instant, Msg)>,
    /// What the node said without being asked, other than messages: objects; for the bare-text
    /// client strings.
    pub(crate) pushes: Vec<Value>,
    pub(crate) closed: Option<Closed>,
    /// The last list of live nodes.
    pub(crate) nodes: Option<Value>,
    pub(crate) goaway: Option<Value>,
    /// `{}` sent and not yet answered.
    pub(crate) pings_out: usize,
    /// When it pinged last.
    pub(super) pinged_at: Option<Instant>,
    /// Answers to pings of this client.
    pub(crate) pongs: usize,
    /// Pings of the node.
    pub(crate) pings: usize,
    pub(super) waiting: HashMap<u64, oneshot::Sender<Value>>,
    /// Attempts and joins without a reply, by the number of the request.
    pub(super) sending: HashMap<u64, usize>,
    pub(super) joining: HashMap<u64, Value>,
}

impl Record {
    /// Whether anything of a room is in it.
    pub(super) fn concerns(&self, room: &str) -> bool {
        self.joins.iter().any(|join| join.of(room).is_some())
            || self.attempts.iter().any(|attempt| attempt.room == room)
    }

    /// Notes what a request asks, so that its reply finds it.
    pub(super) fn asked(&mut self, id: u64, verb: &str, body: &Value, who: (&str, &str)) {
        let text = |field: &str| body[field].as_str().map(str::to_owned);
        match verb {
            "join" | "watch" => drop(self.joining.insert(id, body.clone())),
            "send" => {
                // What has no mid, or no text, is not a message that a test counts.
                let parts = (text("mid"), text("room"), text("text"));
                let (Some(mid), Some(room), Some(text)) = parts else {
                    return;
                };
                let now = Instant::now();
                self.sending.insert(id, self.attempts.len());
                self.attempts.push(Attempt {
                    mid,
                    room,
                    from: who.0.to_owned(),
                    text,
                    origin: who.1.to_owned(),
                    sent_at: now,
                    replied_at: now,
                    fate: Fate::Unknown,
                });
            }
            _ => {}
        }
    }

    fn replied(&mut self, id: u64, reply: &Value) {
        if let Some(attempt) = self.sending.remove(&id).map(|at| &mut self.attempts[at]) {
            attempt.replied_at = Instant::now();
            if let Ok(sent) = Sent::deserialize(&reply["send"]) {
                attempt.fate = Fate::Accepted(sent);
            } else if let Ok(refused) = Refused::deserialize(&reply["error"]) {
                attempt.fate = Fate::Refused(refused.code);
            }
        }
        if let Some(body) = self.joining.remove(&id)
            && let Some((room, reply)) = ["join", "watch"]
                .iter()
                .zip(["room", "rooms"])
                .find_map(|(verb, room)| Some((&body[room], reply.get(verb)?)))
            && let Ok(joined) = Joined::deserialize(reply)
        {
            let since: Option<Vec<String>> = Deserialize::deserialize(&body["since"]).ok();
            self.joins.push(Join {
                room: room.as_str().unwrap_or_default().to_owned(),
                since: since.and_then(|since| Position::parse(&since).ok()),
                joined,
                before: self.messages.len(),
            });
        }
    }

    /// The connection is over: nothing waits any more.
    pub(super) fn ended(&mut self, closed: Closed) {
        self.closed.get_or_insert(closed);
        self.waiting.clear();
        self.joining.clear();
        let now = Instant::now();
        for (_, at) in self.sending.drain() {
            self.attempts[at].replied_at = now;
        }
    }

    /// Takes a line of a frame in; whether it was a ping that wants an answer.
    fn line(&mut self, at: Instant, line: &str) -> bool {
        #[derive(Deserialize)]
        struct Shown {
            msg: Msg,
        }
        // Most of what comes is messages, read without a detour over `Value`.
        if line.starts_with("{\"msg\":")
            && let Ok(shown) = serde_json::from_str::<Shown>(line)
        {
            self.messages.push((at, shown.msg));
            return false;
        }
        match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(object)) if object.is_empty() => {
                if self.pings_out > 0 {
                    self.pings_out -= 1;
                    self.pongs += 1;
                    return false;
                }
                self.pings += 1;
                return true;
            }
            Ok(value) if value.is_object() => {
                let id = value["id"].as_u64();
                if let Some(id) = id {
                    self.replied(id, &value);
                }
                match id.and_then(|id| self.waiting.remove(&id)) {
                    // The asker may have given up.
                    Some(asker) => drop(asker.send(value)),
                    None => self.pushed(value),
                }
            }
            _ => self.pushed(Value::from(line)),
        }
        false
    }

    fn pushed(&mut self, value: Value) {
        if let Some(nodes) = value.get("nodes") {
            self.nodes = Some(nodes.clone());
        }
        if let Some(goaway) = value.get("goaway") {
            self.goaway = Some(goaway.clone());
        }
        self.pushes.push(value);
    }
}

/// A record that is filled by one task and awaited by others.
#[derive(Debug)]
pub(crate) struct Inbox {
    record: Mutex<Record>,
    news: watch::Sender<u64>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            record: Mutex::default(),
            news: watch::Sender::new(0),
        }
    }

    /// The record as it is now. Not to be held across an await.
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let changed = change(&mut self.record());
        self.news.send_modify(|count| *count += 1);
        changed
    }

    /// Takes a frame in; how many pings in it want an answer.
    pub(super) fn frame(&self, message: Message) -> usize {
        let at = Instant::now();
        match message {
            Message::Text(text) => self.change(|record| {
                // Who has left is shown nothing more: it has told others its position.
                if record.closed.is_some() {
                    return 0;
                }
                let pings = text.as_str().lines().filter(|line| record.line(at, line));
                pings.count()
            }),
            Message::Close(frame) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (frame.code.into(), frame.reason.to_string())
                });
                self.change(|record| _ = record.closed.get_or_insert(Closed { code, reason }));
                0
            }
            Message::Pong(_) | Message::Binary(_) | Message::Ping(_) | Message::Frame(_) => 0,
        }
    }

    /// Waits until a look at the record finds something.
    pub(crate) async fn until<T>(
        &self,
        within: Duration,
        what: &str,
        mut look: impl FnMut(&Record) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        let mut news = self.news.subscribe();
        loop {
            news.mark_unchanged();
            if let Some(found) = look(&self.record()) {
                return Ok(found);
            }
            if timeout_at(deadline, news.changed()).await.is_err() {
                let record = self.record();
                let last = record.pushes.last().map(Value::to_string);
                bail!(
                    "after {within:?} not: {what}; {} messages and {} pushes came, the last \
                     {last:?}, closed: {:?}",
                    record.messages.len(),
                    record.pushes.len(),
                    record.closed
                );
            }
        }
    }
}

/// Who has the record of a connection: its task, its client, and the recorder of the test.
pub(crate) type SharedInbox = Arc<Inbox>;
