//! Programs that use the HTTP API for as long as a test lasts: one that posts, one that listens to
//! the events of a room. Each has one address, that of a load balancer, and comes back to it as the
//! contract asks: with the same `mid`, with the last event's id.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::cluster::http;
use super::eventually::{eventually, holds};
use super::tools::Events;
use super::wire::Msg;
use super::{PATIENCE, ms, spawn};

/// The pause before the next try after a failure.
const PAUSE: Duration = ms(50);
/// An event that does not come for so long: the stream is opened anew. Longer than any pause of a
/// test, as comments of the node do not count here.
const EVENT_WITHIN: Duration = Duration::from_secs(30);

/// Posts messages one after the other, and each until it has an answer.
#[derive(Debug)]
pub(crate) struct Poster {
    stops: Arc<AtomicBool>,
    tries: Arc<AtomicU32>,
    task: JoinHandle<Result<BTreeMap<String, Posted>>>,
}

/// What was answered to a message.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) copies: u64,
    /// When it was posted first.
    pub(crate) at: Instant,
}

impl Poster {
    /// Begins, with one message each `pause`.
    pub(crate) fn start(address: &str, room: &str, pause: Duration) -> Self {
        let stops = Arc::<AtomicBool>::default();
        let tries = Arc::<AtomicU32>::default();
        let url = format!("{address}/api/rooms/{room}/messages");
        let post = post(url, pause, Arc::clone(&stops), Arc::clone(&tries));
        Self {
            stops,
            tries,
            task: spawn(post),
        }
    }

    /// Stops it: what was answered to each mid, and how often it posted in all.
    pub(crate) async fn stop(self) -> Result<(BTreeMap<String, Posted>, u32)> {
        self.stops.store(true, Ordering::Relaxed);
        let posted = timeout(PATIENCE, self.task).await;
        let posted = posted.context("a post has no answer")???;
        Ok((posted, self.tries.load(Ordering::Relaxed)))
    }
}

async fn post(
    url: String,
    pause: Duration,
    stops: Arc<AtomicBool>,
    tries: Arc<AtomicU32>,
) -> Result<BTreeMap<String, Posted>> {
    let mut posted = BTreeMap::new();
    let client = http()?;
    let run = rand::random::<u32>();
    while !stops.load(Ordering::Relaxed) {
        let mid = format!("bot-{run:08x}-{}", posted.len());
        let text = format!("text of {mid}");
        let body = json!({ "from": "bot", "text": text, "mid": mid, "copies": 1 });
        let at = Instant::now();
        loop {
            tries.fetch_add(1, Ordering::Relaxed);
            let answer = match client.post(&url).json(&body).send().await {
                Ok(answer) if answer.status().is_success() => answer.json::<Value>().await,
                // The balancer's answer, or a node's that is going away: it may have been taken.
                Ok(answer) if answer.status().is_server_error() => {
                    sleep(PAUSE).await;
                    continue;
                }
                Ok(answer) => bail!("{}: {}", answer.status(), answer.text().await?),
                Err(error) => Err(error),
            };
            if let Ok(answer) = answer {
                let posting = Posted {
                    copies: answer["copies"].as_u64().unwrap_or_default(),
                    at,
                };
                posted.insert(mid, posting);
                break;
            }
            sleep(PAUSE).await;
        }
        sleep(pause).await;
    }
    Ok(posted)
}

/// Listens to the events of a room.
#[derive(Debug)]
pub(crate) struct Listener {
    shown: Arc<Mutex<Vec<(Instant, Msg)>>>,
    opened: Arc<AtomicUsize>,
    task: JoinHandle<Result<()>>,
}

impl Listener {
    /// Begins, and waits until it listens.
    pub(crate) async fn start(address: &str, room: &str) -> Result<Self> {
        let shown = Arc::default();
        let opened = Arc::<AtomicUsize>::default();
        let path = format!("/api/rooms/{room}/events");
        let listen = listen(
            address.to_owned(),
            path,
            Arc::clone(&shown),
            Arc::clone(&opened),
        );
        let listener = Self {
            shown,
            opened,
            task: spawn(listen),
        };
        eventually(PATIENCE, "the stream is open", async || {
            holds(listener.opened() > 0, "not yet")
        })
        .await?;
        Ok(listener)
    }

    /// How often it has opened the stream.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// All that it was shown so far, with the time of arrival.
    pub(crate) fn shown(&self) -> Vec<(Instant, Msg)> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }

    /// Waits until it was shown all of this history, and it was shown nothing else: nothing twice,
    /// of each origin in order. What an origin had shown that was killed may have been said again.
    pub(crate) async fn was_shown(&self, history: &[Msg], killed: &[String]) -> Result<()> {
        eventually(PATIENCE, "a listener is shown all", async || {
            ensure!(!self.task.is_finished(), "it has ended");
            let shown = self.shown();
            let shown: HashSet<_> = shown.iter().map(|(_, it)| &it.mid).collect();
            let missing = history.iter().filter(|kept| !shown.contains(&kept.mid));
            let missing: Vec<_> = missing.take(3).collect();
            ensure!(missing.is_empty(), "it lacks {missing:?}");
            Ok(())
        })
        .await?;
        let kept: HashSet<_> = history.iter().map(|it| &it.mid).collect();
        let mut last: HashMap<String, u64> = HashMap::new();
        let mut ids: HashMap<Option<String>, String> = HashMap::new();
        for (_, message) in self.shown() {
            let (origin, number) = message.id.split_once('.').context("an id")?;
            let before = last.insert(origin.to_owned(), number.parse()?);
            ensure!(
                before < last.get(origin).copied(),
                "{message:?} after {before:?}"
            );
            ensure!(
                kept.contains(&message.mid) || killed.contains(&origin.to_owned()),
                "not kept: {message:?}"
            );
            if let Some(first) = ids.insert(message.mid.clone(), message.id.clone()) {
                let excused = killed
                    .iter()
                    .any(|killed| first.starts_with(killed.as_str()) || origin == killed);
                ensure!(excused, "doubled: {message:?} and {first}");
            }
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    address: String,
    path: String,
    shown: Arc<Mutex<Vec<(Instant, Msg)>>>,
    opened: Arc<AtomicUsize>,
) -> Result<()> {
    let mut last: Option<String> = None;
    loop {
        let Ok(mut events) = Events::open_at(&address, &path, last.as_deref()).await else {
            sleep(PAUSE).await;
            continue;
        };
        opened.fetch_add(1, Ordering::Relaxed);
        while let Ok(event) = events.next(EVENT_WITHIN).await {
            match event.kind.as_str() {
                "" | "message" => {}
                kind => bail!("an event {kind:?}: {}", event.data),
            }
            let message = serde_json::from_str(&event.data).context(event.data)?;
            let mut all = shown.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((Instant::now(), message));
        }
        last = Some(events.last_id.clone()).filter(|id| !id.is_empty());
    }
}
