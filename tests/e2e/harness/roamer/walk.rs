//! What such a person does: dials, enters, talks, and goes on when its node is lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::{Habits, Move, Pace, State, Ways};
use crate::harness::client::Client;
use crate::harness::load::text_of;
use crate::harness::recorder::Recorder;
use crate::harness::wire::{Joined, Position, Refused, Shown};

/// The contract: the longest pause before a first dial, which doubles
const JITTER_FIRST: Duration = Duration::from_millis(500);
/// up to this.
const JITTER_MAX: Duration = Duration::from_secs(30);
/// A node that has not let it in after this is given up: it may be frozen.
const GREET_WITHIN: Duration = Duration::from_secs(4);
/// A send without a reply for so long: the node is given up, though the connection stands.
const OVERDUE: Duration = Duration::from_secs(5);

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) struct Walk {
    pub(super) name: String,
    pub(super) recorder: Recorder,
    pub(super) habits: Habits,
    pub(super) ways: Ways,
    /// Nodes to be tried in this round.
    pub(super) queue: VecDeque<String>,
    pub(super) current: String,
    pub(super) attempt: u32,
    pub(super) position: Option<Position>,
    pub(super) shown: Shown,
    /// Bodies of sends without an answer, in the order in which they were said.
    pub(super) pending: BTreeMap<u64, Value>,
    pub(super) next: u64,
    pub(super) talks: watch::Receiver<bool>,
    pub(super) told: watch::Sender<State>,
    pub(super) moves: Arc<Mutex<Vec<Move>>>,
    pub(super) shoved: watch::Receiver<usize>,
}

impl Walk {
    pub(super) async fn run(mut self) -> Result<()> {
        let mut lost: Option<(Instant, Vec<String>)> = None;
        loop {
            let was_sent = lost.as_ref().is_some_and(|(_, named)| !named.is_empty());
            let client = self.dial(was_sent).await;
            if let Some((lost_at, named)) = lost {
                let moved = Move {
                    lost_at,
                    back_at: Instant::now(),
                    named,
                    to: self.current.clone(),
                };
                let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
                moves.push(moved);
            }
            let at = client.origin().to_owned();
            // A shove is for the node at which it was when it came.
            self.shoved.mark_unchanged();
            self.told.send_modify(|state| state.at = Some(at));
            let named = self.stay(&client).await?;
            self.told.send_modify(|state| {
                state.at = None;
                state.left += 1;
            });
            self.leave(&client);
            self.plan(&named);
            lost = Some((Instant::now(), named));
        }
    }

    /// Dials until a node has let it into the room.
    async fn dial(&mut self, mut at_once: bool) -> Client {
        loop {
            if self.queue.is_empty() {
                self.plan(&[]);
            }
            self.current = self.queue.pop_front().unwrap_or_default();
            let first = self.attempt == 0 && self.position.is_none();
            if !std::mem::take(&mut at_once) && !first {
                let most = JITTER_FIRST * 2u32.saturating_pow(self.attempt);
                sleep(most.min(JITTER_MAX).mul_f64(rand::random())).await;
            }
            if let Ok(Ok(client)) = timeout(GREET_WITHIN, self.enter()).await {
                self.attempt = 0;
                return client;
            }
            self.attempt = (self.attempt + 1).min(10);
        }
    }

    /// The nodes that it was sent to, then those that it knows, the present one last.
    fn plan(&mut self, named: &[String]) {
        let mut others = match &self.ways {
            Ways::Nodes(known) => known.clone(),
            Ways::Balancer(address) => return self.queue = VecDeque::from([address.clone()]),
        };
        let is_known = others.contains(&self.current);
        others.retain(|node| *node != self.current && !named.contains(node));
        let mut queue = named.to_vec();
        queue.shuffle(&mut rand::rng());
        others.shuffle(&mut rand::rng());
        queue.append(&mut others);
        queue.retain(|node| *node != self.current);
        if is_known || queue.is_empty() {
            queue.push(self.current.clone());
        }
        self.queue = queue.into();
    }

    async fn enter(&mut self) -> Result<Client> {
        let client = Client::hello_at(&self.current, &self.name).await?;
        self.recorder.add(&client);
        self.learn(&client.welcome["nodes"]);
        let (verb, mut body) = match &self.habits.watches {
            Some(rooms) => ("watch", json!({ "rooms": rooms })),
            None => ("join", json!({ "room": self.habits.room, "history": 0 })),
        };
        if let Some(position) = &self.position {
            body["since"] = json!(position.ids());
        }
        let joined: Joined = client.enter_naming(verb, body, &self.shown).await?;
        let position = self.position.get_or_insert_default();
        position.merge(&Position::parse(&joined.at)?);
        for message in &joined.messages {
            position.advance(message);
            self.shown.note(message);
        }
        Ok(client)
    }

    fn learn(&mut self, nodes: &Value) {
        if let Ways::Nodes(known) = &mut self.ways
            && let Ok(nodes) = serde_json::from_value(nodes.clone())
        {
            *known = nodes;
        }
    }

    /// Leaves a connection: nothing that comes on it is shown any more, what was shown counts.
    fn leave(&mut self, client: &Client) {
        client.vanish();
        let record = client.socket.inbox.record();
        if let Some(nodes) = &record.nodes {
            self.learn(nodes);
        }
        let position = self.position.get_or_insert_default();
        for (_, message) in &record.messages {
            position.advance(message);
            self.shown.note(message);
        }
    }

    /// Talks until the connection is lost, or too slow, or the node sends it away: where to.
    async fn stay(&mut self, client: &Client) -> Result<Vec<String>> {
        let begun = Instant::now();
        let mut replies = FuturesUnordered::new();
        let mut since: BTreeMap<u64, Instant> = BTreeMap::new();
        let mut due = Vec::new();
        let again: Vec<_> = self.pending.keys().copied().collect();
        due.extend(again);
        let mut beat = interval(match self.habits.pace {
            Pace::Steady(rate) => Duration::from_secs(1) / rate,
            Pace::Silent | Pace::Eager(_) => Duration::from_millis(100),
        });
        // A late test machine makes up for it: the rate is part of the claim.
        beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let gone = client.until(FOREVER, "is lost", |record| {
            (record.closed.is_some() || record.goaway.is_some()).then_some(())
        });
        let mut gone = Box::pin(gone);
        let mut leaves: Option<(Instant, Vec<String>)> = None;
        loop {
            for number in due.drain(..) {
                since.insert(number, Instant::now());
                let reply = client.start("send", self.pending[&number].clone());
                replies.push(async move { (number, client.reply("send", reply).await) });
            }
            self.tell();
            let leave_at = leaves.as_ref().map_or(begun, |(at, _)| *at);
            tokio::select! {
                biased;
                _ = &mut gone, if leaves.is_none() => match called_away(client) {
                    Some(called) => leaves = Some(called),
                    None => return Ok(Vec::new()),
                },
                () = sleep_until(leave_at), if leaves.is_some() => {
                    return Ok(leaves.map(|(_, named)| named).unwrap_or_default());
                }
                Ok(()) = self.shoved.changed() => return Ok(Vec::new()),
                Some((number, reply)) = replies.next() => {
                    since.remove(&number);
                    if !self.settle(client, number, &reply)? {
                        return Ok(Vec::new());
                    }
                    if let Pace::Eager(most) = self.habits.pace {
                        due.extend(self.say(most));
                    }
                }
                _ = beat.tick() => {
                    let overdue = since.values().any(|at| at.elapsed() > OVERDUE);
                    if overdue || client.is_closed().is_some() {
                        return Ok(Vec::new());
                    }
                    match self.habits.pace {
                        Pace::Silent => {}
                        Pace::Steady(_) => due.extend(self.say(usize::MAX).first()),
                        Pace::Eager(most) => due.extend(self.say(most)),
                    }
                }
            }
        }
    }

    /// New messages until so many are under way (one, if there is no such bound).
    fn say(&mut self, most: usize) -> Vec<u64> {
        let mut said = Vec::new();
        while *self.talks.borrow() && self.pending.len() < most {
            let number = self.next;
            self.next += 1;
            let mid = format!("{}-{number}-{:08x}", self.name, rand::random::<u32>());
            let text = text_of(&mid, self.habits.bytes);
            let body = json!({
                "room": self.habits.room, "mid": mid, "text": text, "copies": self.habits.copies,
            });
            self.pending.insert(number, body);
            said.push(number);
            if most == usize::MAX {
                break;
            }
        }
        said
    }

    /// Takes a reply; whether the connection goes on. What was refused is not said again.
    fn settle(&mut self, client: &Client, number: u64, reply: &Result<Value>) -> Result<bool> {
        if let Err(error) = reply
            && !error.is::<Refused>()
        {
            ensure!(
                client.is_closed().is_some() || error.to_string().contains("no reply"),
                "{error:#}"
            );
            return Ok(false);
        }
        let known = self.pending.remove(&number);
        known.context("a reply to nothing")?;
        self.told.send_modify(|state| state.answered += 1);
        Ok(true)
    }

    fn tell(&self) {
        let pending = self.pending.len();
        self.told.send_if_modified(|state| {
            let changed = state.pending != pending;
            state.pending = pending;
            changed
        });
    }
}

/// The connection has news of its end: when to leave and for where, if a `goaway` names nodes.
fn called_away(client: &Client) -> Option<(Instant, Vec<String>)> {
    let record = client.socket.inbox.record();
    let goaway = record.goaway.as_ref().filter(|_| record.closed.is_none())?;
    let named: Vec<String> = serde_json::from_value(goaway["nodes"].clone()).ok()?;
    // Spread over the first half of the time that the node gives, as the page does.
    let after = Duration::from_millis(goaway["after_ms"].as_u64().unwrap_or_default());
    (!named.is_empty()).then(|| (Instant::now() + (after / 2).mul_f64(rand::random()), named))
}
