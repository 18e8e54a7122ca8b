//! Senders at a steady rate, and what became of each message.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use super::client::Client;
use super::spawn;
use super::wire::{Refused, Sent};

/// One send and what its sender knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) mid: String,
    pub(crate) from: String,
    pub(crate) text: String,
    /// The origin of the node it was given to.
    pub(crate) origin: String,
    pub(crate) sent_at: Instant,
    pub(crate) replied_at: Instant,
    pub(crate) fate: Fate,
}

/// What the sender knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Accepted, under this id.
    Accepted(Sent),
    /// Refused: it must never be seen.
    Refused(String),
    /// The connection ended before the reply: it may have been accepted or not.
    Unknown,
}

impl Attempt {
    /// The id under which it was accepted.
    pub(crate) fn id(&self) -> Option<&str> {
        match &self.fate {
            Fate::Accepted(sent) => Some(&sent.id),
            Fate::Refused(_) | Fate::Unknown => None,
        }
    }

    /// How long the reply took.
    pub(crate) fn delay(&self) -> Duration {
        self.replied_at - self.sent_at
    }
}

/// Clients that send until they are stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    senders: Vec<JoinHandle<Result<Vec<Attempt>>>>,
}

impl Load {
    /// A load without senders.
    pub(crate) fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            senders: Vec::new(),
        }
    }

    /// Each of these clients sends `per_second` messages to the room, evenly. A client whose
    /// connection ends, ends: what it had under way is of unknown fate.
    pub(crate) fn start(
        clients: impl IntoIterator<Item = Client>,
        room: &str,
        per_second: u32,
    ) -> Self {
        let mut load = Self::new();
        for client in clients {
            load.add(client, room, per_second);
        }
        load
    }

    /// Each send of these clients asks that one other node holds it before the reply.
    pub(crate) fn start_with_a_copy(
        clients: impl IntoIterator<Item = Client>,
        room: &str,
        per_second: u32,
    ) -> Self {
        let mut load = Self::new();
        for client in clients {
            load.begin(client, room, per_second, 1);
        }
        load
    }

    /// One more sender.
    pub(crate) fn add(&mut self, client: Client, room: &str, per_second: u32) {
        self.begin(client, room, per_second, 0);
    }

    fn begin(&mut self, client: Client, room: &str, per_second: u32, copies: u32) {
        let stop = self.stop.subscribe();
        let body = json!({ "room": room, "copies": copies });
        self.senders
            .push(spawn(send_until(stop, client, body, per_second)));
    }

    /// Stops, waits for the replies, and gives all attempts.
    ///
    /// # Errors
    /// A reply did not come though the connection lived, or was not of the contract.
    pub(crate) async fn stop(self) -> Result<Vec<Attempt>> {
        self.stop.send_replace(true);
        let mut attempts = Vec::new();
        for sender in self.senders {
            attempts.extend(sender.await??);
        }
        ensure!(!attempts.is_empty(), "the load sent nothing");
        Ok(attempts)
    }
}

async fn send_until(
    mut stop: watch::Receiver<bool>,
    client: Client,
    body: Value,
    per_second: u32,
) -> Result<Vec<Attempt>> {
    let origin = client.welcome["origin"]
        .as_str()
        .context("hello names the origin")?
        .to_owned();
    let client = std::sync::Arc::new(client);
    let mut beat = interval(Duration::from_secs(1) / per_second);
    // A late test machine makes up for it: the rate is part of the claim.
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    let mut attempts = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|&stopped| stopped) => break,
            Some(done) = under_way.join_next() => attempts.push(done??),
            _ = beat.tick() => {
                if client.is_closed().is_some() {
                    break;
                }
                under_way.spawn(send_one(std::sync::Arc::clone(&client), body.clone(), origin.clone()));
            }
        }
    }
    while let Some(done) = under_way.join_next().await {
        attempts.push(done??);
    }
    Ok(attempts)
}

async fn send_one(
    client: std::sync::Arc<Client>,
    mut body: Value,
    origin: String,
) -> Result<Attempt> {
    let mid = client.new_mid();
    let text = format!("text of {mid}");
    let sent_at = Instant::now();
    body["mid"] = json!(mid);
    body["text"] = json!(text);
    let reply = client.send_with(body).await;
    let replied_at = Instant::now();
    let fate = match reply {
        Ok(sent) => Fate::Accepted(sent),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) => Fate::Refused(refused.code.clone()),
            None if client.is_closed().is_some() => Fate::Unknown,
            None => return Err(error),
        },
    };
    Ok(Attempt {
        mid,
        from: client.name.clone(),
        text,
        origin,
        sent_at,
        replied_at,
        fate,
    })
}

/// The middle, the 99th of a hundred, and the largest of these times.
pub(crate) fn spread(times: impl IntoIterator<Item = Duration>) -> (Duration, Duration, Duration) {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    (at(50), at(99), times.last().copied().unwrap_or_default())
}
