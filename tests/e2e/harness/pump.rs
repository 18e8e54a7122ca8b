//! Senders in a closed loop that never give a message up: when their node dies, they send what had
//! no reply again, with the same mid, to the next one. What they were told is in a ledger.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep, timeout};

use super::client::Client;
use super::cluster::Node;
use super::eventually::{eventually, holds};
use super::wire::{Msg, Refused, Sent};
use super::{PATIENCE, ms, spawn};

/// Pause after a refusal or a failed connection.
const PAUSE: Duration = ms(5);

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No reply yet.
    Unknown,
    /// Accepted: it is promised to be kept.
    Accepted(Sent),
    /// Refused: it must never be seen.
    Refused(String),
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) from: String,
    pub(crate) text: String,
    /// How often it was sent.
    pub(crate) tries: u32,
    pub(crate) fate: Fate,
}

/// Messages by mid, and what their senders know of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(BTreeMap<String, Said>);

impl Ledger {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// How many were accepted.
    pub(crate) fn accepted(&self) -> usize {
        let accepted = |said: &&Said| matches!(said.fate, Fate::Accepted(_));
        self.0.values().filter(accepted).count()
    }

    /// How many were accepted after they had been sent more than once.
    pub(crate) fn retried(&self) -> usize {
        let retried = |said: &&Said| said.tries > 1 && matches!(said.fate, Fate::Accepted(_));
        self.0.values().filter(retried).count()
    }

    /// How many were refused.
    pub(crate) fn refused(&self) -> usize {
        let refused = |said: &&Said| matches!(said.fate, Fate::Refused(_));
        self.0.values().filter(refused).count()
    }

    /// Notes a message that a test has sent itself.
    pub(crate) fn note(&mut self, mid: String, from: &str, text: String, fate: Fate) {
        let said = Said {
            from: from.to_owned(),
            text,
            tries: 1,
            fate,
        };
        self.0.insert(mid, said);
    }

    /// Takes in what another ledger has.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The mids of accepted messages that a history lacks.
    pub(crate) fn lost(&self, history: &[String]) -> Result<Vec<&str>> {
        let mut there = HashMap::new();
        for text in history {
            let message: Msg = serde_json::from_str(text)?;
            there.insert(message.id.clone(), message);
        }
        let lost = self.0.iter().filter(|(mid, said)| {
            let Fate::Accepted(sent) = &said.fate else {
                return false;
            };
            let kept = there.get(&sent.id);
            kept.and_then(|message| message.mid.as_ref()) != Some(*mid)
        });
        Ok(lost.map(|(mid, _)| mid.as_str()).collect())
    }

    /// Whether a history is in order and has each message once, only what was sent, as it was sent
    /// and accepted, and nothing that was refused.
    pub(crate) fn explains(&self, history: &[String]) -> Result<()> {
        let mut seen = HashMap::new();
        let mut last: Option<Msg> = None;
        for text in history {
            let message: Msg = serde_json::from_str(text)?;
            let mid = message.mid.clone().unwrap_or_default();
            let Some(said) = self.0.get(&mid) else {
                bail!("nobody sent {text}");
            };
            ensure!(
                said.text == message.text && said.from == message.from,
                "{text} is not what was sent: {said:?}"
            );
            match &said.fate {
                Fate::Unknown => {}
                Fate::Accepted(sent) => ensure!(
                    (&sent.id, sent.ts) == (&message.id, message.ts),
                    "{text} was accepted as {sent:?}"
                ),
                Fate::Refused(code) => bail!("{text} was refused with {code}"),
            }
            if let Some(before) = seen.insert(mid, text) {
                bail!("doubled: {before} and {text}");
            }
            if let Some(last) = last {
                ensure!(last.place() < message.place(), "{text} after {last:?}");
            }
            last = Some(message);
        }
        Ok(())
    }

    /// Both: nothing accepted is missing, and all that is there is explained.
    pub(crate) fn check(&self, history: &[String]) -> Result<()> {
        let lost = self.lost(history)?;
        ensure!(
            lost.is_empty(),
            "{} of {} accepted messages are lost, first {:?}",
            lost.len(),
            self.accepted(),
            lost[0]
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
    book: Arc<Book>,
    senders: Vec<JoinHandle<Result<()>>>,
}

/// What all senders write into.
#[derive(Debug, Default)]
struct Book {
    ledger: Mutex<Ledger>,
    accepted: AtomicUsize,
}

impl Book {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, mid: &str, change: impl FnOnce(&mut Said)) {
        if let Some(said) = self.ledger().0.get_mut(mid) {
            change(said);
        }
    }
}

impl Pump {
    /// So many senders, with texts of about so many bytes. They begin at this node.
    pub(crate) fn start(senders: usize, node: &Node, room: &str, bytes: usize) -> Self {
        let orders = watch::Sender::new(Orders::default());
        let book = Arc::<Book>::default();
        let run = rand::random::<u32>();
        let senders = (0..senders).map(|count| {
            spawn(pump(
                Sender {
                    name: format!("pump-{run:08x}-{count}"),
                    room: room.to_owned(),
                    bytes,
                },
                orders.subscribe(),
                Arc::clone(&book),
            ))
        });
        let senders = senders.collect();
        let pump = Self {
            orders,
            book,
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
        self.book.ledger().clone()
    }

    /// How many messages were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.book.accepted.load(Ordering::Relaxed)
    }

    /// Waits until so many more are accepted.
    pub(crate) async fn accepts(&self, more: usize, within: Duration) -> Result<()> {
        let due = self.accepted() + more;
        eventually(within, "more messages are accepted", async || {
            let ended = self.senders.iter().any(JoinHandle::is_finished);
            holds(!ended || self.accepted() >= due, "a sender has ended")?;
            let accepted = self.accepted();
            holds(accepted >= due, format_args!("{accepted} of {due}"))
        })
        .await
    }

    /// Waits until none of them waits for a reply; they must be told to hold before.
    pub(crate) async fn is_idle(&self, within: Duration) -> Result<()> {
        eventually(within, "every sender has its reply", async || {
            let ledger = self.ledger();
            let left = ledger.count() - ledger.accepted() - ledger.refused();
            holds(left == 0, format_args!("{left} wait"))
        })
        .await
    }

    /// Stops them, each when it has a reply to what it sent last.
    pub(crate) async fn stop(self) -> Result<Ledger> {
        self.orders.send_modify(|orders| orders.ends = true);
        for sender in self.senders {
            timeout(PATIENCE, sender)
                .await
                .context("a sender gets no reply")???;
        }
        Ok(self.book.ledger().clone())
    }
}

struct Sender {
    name: String,
    room: String,
    bytes: usize,
}

async fn pump(sender: Sender, mut orders: watch::Receiver<Orders>, book: Arc<Book>) -> Result<()> {
    let mut client = None;
    for count in 0.. {
        if ends(&mut orders).await? {
            break;
        }
        let mid = format!("{}-{count}", sender.name);
        let text = filled(&format!("text of {mid}"), sender.bytes);
        let body = json!({ "room": sender.room, "mid": mid, "text": text });
        book.ledger()
            .note(mid.clone(), &sender.name, text, Fate::Unknown);
        let fate = loop {
            let connection = match client.take() {
                Some(client) => client,
                None => connected(&sender.name, &mut orders).await?,
            };
            let reply = connection.send_with(body.clone()).await;
            match reply {
                Ok(sent) => {
                    client = Some(connection);
                    break Fate::Accepted(sent);
                }
                Err(error) => match error.downcast_ref::<Refused>() {
                    Some(refused) => {
                        client = Some(connection);
                        sleep(PAUSE).await;
                        break Fate::Refused(refused.code.clone());
                    }
                    None if connection.is_closed().is_none() => return Err(error),
                    None => {}
                },
            }
            book.change(&mid, |said| said.tries += 1);
        };
        let accepted = matches!(fate, Fate::Accepted(_));
        book.change(&mid, |said| said.fate = fate);
        if accepted {
            book.accepted.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// A connection to the node of now, as soon as there is one that lets it in.
async fn connected(name: &str, orders: &mut watch::Receiver<Orders>) -> Result<Client> {
    let mut last = None;
    let connecting = async {
        loop {
            let http = target(orders).await?;
            match Client::hello_at(&http, name).await {
                Ok(client) => return Ok::<_, anyhow::Error>(client),
                Err(error) => last = Some(error),
            }
            sleep(PAUSE).await;
        }
    };
    let connected = timeout(PATIENCE, connecting).await;
    connected.with_context(|| format!("{name} finds no node: {last:?}"))?
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

/// The checks are checked: each fault of a program that they are there for makes them fail.
#[cfg(test)]
mod tests {
    use super::{Fate, Ledger, Sent};

    fn message(id: &str, mid: &str, ts: u64) -> String {
        format!(
            r#"{{"room":"tea","id":"{id}","mid":"{mid}","from":"ada","ts":{ts},"text":"text of {mid}"}}"#
        )
    }

    #[test]
    fn a_ledger_finds_out_a_history_with_a_fault() {
        let mut ledger = Ledger::default();
        let accepted = |id: &str, ts| {
            Fate::Accepted(Sent {
                id: id.to_owned(),
                ts,
                copies: 0,
            })
        };
        let fates = [
            ("1", accepted("a.1", 1)),
            ("2", accepted("a.2", 2)),
            ("3", Fate::Refused("storage_full".to_owned())),
            ("4", Fate::Unknown),
        ];
        for (mid, fate) in fates {
            ledger.note(mid.to_owned(), "ada", format!("text of {mid}"), fate);
        }
        let (one, two) = (message("a.1", "1", 1), message("a.2", "2", 2));
        let unknown = message("a.4", "4", 4);
        for history in [
            vec![one.clone(), two.clone()],
            vec![one.clone(), two.clone(), unknown.clone()],
        ] {
            assert!(ledger.check(&history).is_ok(), "{history:?}");
        }
        let altered = two.replace("text of 2", "text of 3");
        for (what, history) in [
            ("lost", vec![one.clone()]),
            ("lost, all", vec![]),
            ("altered", vec![one.clone(), altered]),
            ("out of order", vec![two.clone(), one.clone()]),
            (
                "refused",
                vec![one.clone(), two.clone(), message("a.3", "3", 3)],
            ),
            (
                "phantom",
                vec![one.clone(), two.clone(), message("a.9", "9", 9)],
            ),
            (
                "doubled",
                vec![
                    one.clone(),
                    two.clone(),
                    unknown.clone(),
                    message("b.1", "4", 5),
                ],
            ),
            ("under another id", vec![one, message("b.2", "2", 2)]),
        ] {
            assert!(ledger.check(&history).is_err(), "{what} was not found");
        }
    }
}
