//! Senders in a closed loop that never give a message up: when their node dies, they send what had
//! no reply again, with the same mid, to the next one. All that they sent is on a record of theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep, timeout};

use super::check::parsed;
use super::client::Client;
use super::cluster::Node;
use super::eventually::{eventually, holds};
use super::judge::{Evidence, Kind, judge};
use super::record::{Attempt, Fate};
use super::recorder::Recorder;
use super::wire::Refused;
use super::{PATIENCE, ms, spawn};

/// Pause after a refusal or a failed connection.
const PAUSE: Duration = ms(5);

/// What senders knew of their messages at one moment. No node of theirs may lose what it accepted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Evidence);

impl Ledger {
    fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.0.traces.iter().flat_map(|trace| &trace.attempts)
    }

    /// How many messages were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.attempts().filter_map(Attempt::sent).count()
    }

    /// How many were accepted after they had been sent more than once.
    pub(crate) fn retried(&self) -> usize {
        let mut tries: HashMap<&str, usize> = HashMap::new();
        self.attempts()
            .for_each(|it| *tries.entry(&it.mid).or_default() += 1);
        let retried = |it: &&Attempt| it.sent().is_some() && tries[it.mid.as_str()] > 1;
        self.attempts().filter(retried).count()
    }

    /// How many were refused.
    pub(crate) fn refused(&self) -> usize {
        let refused = |it: &&Attempt| matches!(it.fate, Fate::Refused(_));
        self.attempts().filter(refused).count()
    }

    /// Takes in what another ledger of the room has.
    pub(crate) fn merge(&mut self, other: Self) {
        let mut own = std::mem::replace(&mut self.0, other.0);
        self.0.traces.append(&mut own.traces);
    }

    /// The mids of accepted messages that a history lacks under the id of the reply.
    pub(crate) fn lost(&self, history: &[String]) -> Result<Vec<&str>> {
        let history = parsed(history)?;
        let there: HashMap<_, _> = history.iter().map(|it| (&it.id, it.mid.as_ref())).collect();
        let accepted = self.attempts().filter_map(|it| Some((&it.mid, it.sent()?)));
        let lost = accepted.filter(|(mid, sent)| there.get(&sent.id) != Some(&Some(mid)));
        Ok(lost.map(|(mid, _)| mid.as_str()).collect())
    }

    /// Whether a history keeps the promises, but that something may be missing.
    pub(crate) fn explains(&self, history: &[String]) -> Result<()> {
        let verdict = judge(&Evidence {
            history: parsed(history)?,
            ..self.0.clone()
        });
        let others = verdict.fault_count() - verdict.count(Kind::Lost);
        ensure!(
            others == 0,
            "{others} faults:\n{}",
            verdict.faults.join("\n")
        );
        Ok(())
    }

    /// Both: nothing accepted is missing, and all that is there is explained.
    pub(crate) fn check(&self, history: &[String]) -> Result<()> {
        let (lost, all) = (self.lost(history)?, self.accepted());
        ensure!(
            lost.is_empty(),
            "of {all} accepted messages are lost: {lost:?}"
        );
        self.explains(history)
    }
}

#[derive(Debug, Clone, Default)]
struct Orders {
    to: Option<String>,
    holds: bool,
    ends: bool,
}

/// The senders.
#[derive(Debug)]
pub(crate) struct Pump {
    orders: watch::Sender<Orders>,
    room: String,
    recorder: Recorder,
    accepted: Arc<AtomicUsize>,
    senders: Vec<JoinHandle<Result<()>>>,
}

impl Pump {
    /// So many senders, with texts of about so many bytes. They begin at this node.
    pub(crate) fn start(senders: usize, node: &Node, room: &str, bytes: usize) -> Self {
        let orders = watch::Sender::new(Orders::default());
        let (recorder, accepted) = (Recorder::new(), Arc::<AtomicUsize>::default());
        let run = rand::random::<u32>();
        let senders = (0..senders).map(|count| {
            spawn(pump(Sender {
                name: format!("pump-{run:08x}-{count}"),
                room: room.to_owned(),
                bytes,
                orders: orders.subscribe(),
                recorder: recorder.clone(),
                accepted: Arc::clone(&accepted),
            }))
        });
        let senders = senders.collect();
        let pump = Self {
            orders,
            room: room.to_owned(),
            recorder,
            accepted,
            senders,
        };
        pump.go_on_at(node);
        pump
    }

    /// They go on at this node.
    pub(crate) fn go_on_at(&self, node: &Node) {
        self.orders
            .send_modify(|orders| orders.to = Some(node.http.clone()));
    }

    /// Their node is gone, and what listens at its port from now on is another.
    pub(crate) fn has_no_node(&self) {
        self.orders.send_modify(|orders| orders.to = None);
    }

    /// They begin nothing new, or go on.
    pub(crate) fn hold(&self, holds: bool) {
        self.orders.send_modify(|orders| orders.holds = holds);
    }

    /// What they know now.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger(self.recorder.evidence(&self.room, Vec::new(), false))
    }

    /// Waits until so many more are accepted.
    pub(crate) async fn accepts(&self, more: usize) -> Result<()> {
        let accepted = || self.accepted.load(Ordering::Relaxed);
        let due = accepted() + more;
        eventually(PATIENCE, "more messages are accepted", async || {
            let ended = self.senders.iter().any(JoinHandle::is_finished);
            holds(!ended || accepted() >= due, "a sender has ended")?;
            holds(accepted() >= due, format_args!("{} of {due}", accepted()))
        })
        .await
    }

    /// Waits until none of them waits for a reply; they must be told to hold before.
    pub(crate) async fn is_idle(&self) -> Result<()> {
        eventually(PATIENCE, "every sender has its reply", async || {
            let ledger = self.ledger();
            let open = ledger.0.traces.iter().filter(|trace| trace.is_open);
            let last = open.filter_map(|trace| trace.attempts.last());
            let left = last.filter(|it| it.fate == Fate::Unknown).count();
            holds(left == 0, format_args!("{left} wait"))
        })
        .await
    }

    /// Stops them, each when it has a reply to what it sent last.
    pub(crate) async fn stop(mut self) -> Result<Ledger> {
        self.orders.send_modify(|orders| orders.ends = true);
        for sender in std::mem::take(&mut self.senders) {
            timeout(PATIENCE, sender)
                .await
                .context("a sender gets no reply")???;
        }
        Ok(self.ledger())
    }
}

struct Sender {
    name: String,
    room: String,
    bytes: usize,
    orders: watch::Receiver<Orders>,
    recorder: Recorder,
    accepted: Arc<AtomicUsize>,
}

async fn pump(mut sender: Sender) -> Result<()> {
    let mut client = None;
    for count in 0.. {
        if ends(&mut sender.orders).await? {
            break;
        }
        let mid = format!("{}-{count}", sender.name);
        let text = filled(&format!("text of {mid}"), sender.bytes);
        let body = json!({ "room": sender.room, "mid": mid, "text": text });
        loop {
            let connection = match client.take() {
                Some(client) => client,
                None => sender.connected().await?,
            };
            match connection.send_with(body.clone()).await {
                Ok(_) => drop(sender.accepted.fetch_add(1, Ordering::Relaxed)),
                Err(error) if error.is::<Refused>() => sleep(PAUSE).await,
                Err(error) if connection.is_closed().is_none() => return Err(error),
                // Once more, elsewhere.
                Err(_) => continue,
            }
            client = Some(connection);
            break;
        }
    }
    Ok(())
}

impl Sender {
    /// A connection to the node of now, as soon as there is one that lets it in.
    async fn connected(&mut self) -> Result<Client> {
        let mut last = None;
        let connecting = async {
            loop {
                let http = target(&mut self.orders).await?;
                match self.recorder.client_at(&http, &self.name).await {
                    Ok(client) => return Ok::<_, anyhow::Error>(client),
                    Err(error) => last = Some(error),
                }
                sleep(PAUSE).await;
            }
        };
        let connected = timeout(PATIENCE, connecting).await;
        connected.with_context(|| format!("{} finds no node: {last:?}", self.name))?
    }
}

/// Whether a sender ends, as soon as it may begin a message or ends.
async fn ends(orders: &mut watch::Receiver<Orders>) -> Result<bool> {
    let order = orders.wait_for(|orders| orders.ends || !orders.holds);
    Ok(order.await?.ends)
}

/// Where the node is, as soon as there is one.
async fn target(orders: &mut watch::Receiver<Orders>) -> Result<String> {
    let order = orders.wait_for(|orders| orders.to.is_some()).await?;
    Ok(order.to.clone().unwrap_or_default())
}

/// A text that begins so and goes on with words that differ, to about so many bytes.
pub(crate) fn filled(begin: &str, bytes: usize) -> String {
    use std::fmt::Write as _;
    let mut text = begin.to_owned();
    while text.len() < bytes {
        write!(text, " {:x}", rand::random::<u32>()).expect("a string takes all");
    }
    text
}
