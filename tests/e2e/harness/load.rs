//! Senders at a steady rate.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, MissedTickBehavior, interval};

use super::client::Client;
use super::record::Attempt;
use super::spawn;
use super::wire::Refused;

/// Bytes of one frame, of which the contract allows 64 KiB, and of what a send has beside its text.
const FRAME_BYTES: usize = 60_000;
const SEND_BYTES: usize = 120;
/// Frames under way: the replies to more would wait unread, and the node would read no more.
const FRAMES_UNDER_WAY: usize = 8;

/// Clients that send until they are stopped. What they sent is in their records.
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

    /// One more sender.
    pub(crate) fn add(&mut self, client: Client, room: &str, per_second: u32) {
        self.add_long(client, room, per_second, 0);
    }

    /// One more sender, of texts of at least so many bytes.
    pub(crate) fn add_long(&mut self, client: Client, room: &str, per_second: u32, bytes: usize) {
        let (stop, body) = (self.stop.subscribe(), json!({ "room": room }));
        self.senders
            .push(spawn(send_until(stop, client, body, per_second, bytes)));
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
    mut body: Value,
    per_second: u32,
    bytes: usize,
) -> Result<Vec<Attempt>> {
    let mut beat = interval(Duration::from_secs(1) / per_second);
    // A late test machine makes up for it: the rate is part of the claim.
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            _ = beat.tick() => {
                if client.is_closed().is_some() {
                    break;
                }
                let mid = client.new_mid();
                body["text"] = json!(text_of(&mid, bytes));
                body["mid"] = json!(mid);
                under_way.push_back(client.start("send", body.clone()));
                while under_way.front_mut().is_some_and(|reply| !reply.is_empty()) {
                    let reply = under_way.pop_front().context("it was there")?;
                    replied(&client, reply).await?;
                }
            }
        }
    }
    for reply in under_way {
        replied(&client, reply).await?;
    }
    Ok(client.attempts())
}

/// Waits until it is time to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop it is gone, which stops it as well.
    let _gone = stop.wait_for(|&stopped| stopped).await.is_ok();
}

/// Sends so many messages, of at least so many bytes, in frames of many, as fast as they are
/// answered.
pub(crate) async fn send_at_once(
    client: &Client,
    room: &str,
    messages: usize,
    bytes: usize,
) -> Result<()> {
    let frame = FRAME_BYTES / (SEND_BYTES + bytes.max(40));
    let mut under_way = VecDeque::new();
    let mut left = messages;
    while left > 0 || !under_way.is_empty() {
        let count = frame.min(left);
        left -= count;
        let bodies = (0..count).map(|_| {
            let mid = client.new_mid();
            json!({ "room": room, "text": text_of(&mid, bytes), "mid": mid })
        });
        let bodies: Vec<_> = bodies.collect();
        if count > 0 {
            under_way.push_back(client.start_all("send", bodies));
        }
        if left == 0 || under_way.len() >= FRAMES_UNDER_WAY {
            for reply in under_way.pop_front().unwrap_or_default() {
                client.reply("send", reply).await?;
            }
        }
    }
    Ok(())
}

/// A text that only this message has, of at least so many bytes.
pub(crate) fn text_of(mid: &str, bytes: usize) -> String {
    format!("{:.<bytes$}", format!("text of {mid}"))
}

/// Waits for a reply; what it says is in the record.
///
/// # Errors
/// It does not come though the connection lives, or is not of the contract.
async fn replied(client: &Client, reply: oneshot::Receiver<Value>) -> Result<()> {
    match client.reply("send", reply).await {
        Err(error) if !error.is::<Refused>() && client.is_closed().is_none() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
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
