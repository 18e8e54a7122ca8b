//! The record of a test: the connections of all its clients, and the one check at its end.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use super::PATIENCE;
use super::check::{Losses, losses, parsed, settled};
use super::client::Client;
use super::cluster::{Node, each};
use super::judge::{Evidence, Kind, Trace, Verdict, awaited, judge};
use super::load::spread;
use super::reader::Reader;
use super::record::Attempt;
use super::socket::Socket;
use super::wire::Msg;

/// What a test expects beside the promises that always hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect {
    /// From the check until all nodes keep the same, and again until all readers were shown it.
    pub(crate) within: Duration,
    /// Entries may be lost for good: gaps may be announced and counted.
    pub(crate) holes: bool,
    /// The test made the bus lose frames: the nodes must have counted gaps and repairs.
    pub(crate) repaired: bool,
    /// Retention may have trimmed what nodes count, or what one that came meanwhile could not read any
    /// more: it announces and counts that.
    pub(crate) trimmed: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            within: PATIENCE,
            holes: false,
            repaired: false,
            trimmed: false,
        }
    }
}

/// What a check found.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) verdict: Verdict,
    /// What all nodes keep of the room.
    pub(crate) history: Vec<Msg>,
    /// From the check until they did.
    pub(crate) converged: Duration,
    pub(crate) losses: Losses,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.verdict;
        write!(
            f,
            "{} messages, {} acknowledged ({} with a copy), {} unknown ({} of them kept), {} \
             retries; lost {}, doubled {}, out of order {}; excused {}, vanished {}, too far \
             behind {}; {} readers ({} to the end) were shown {} over {} moves; the same everywhere after {:?}; counted: \
             {} gaps, {} repaired, {} lost",
            v.messages,
            v.acknowledged,
            v.copied,
            v.unknown,
            v.unknown_kept,
            v.retries,
            v.count(Kind::Lost),
            v.count(Kind::Doubled),
            v.count(Kind::Misordered),
            v.excused,
            v.vanished,
            v.too_far,
            v.readers,
            v.to_the_end,
            v.shown,
            v.moves,
            self.converged,
            self.losses.gaps,
            self.losses.repaired,
            self.losses.lost
        )
    }
}

#[derive(Debug)]
struct Watched {
    person: String,
    origin: String,
    socket: Arc<Socket>,
}

#[derive(Debug, Default)]
struct Book {
    watched: Vec<Watched>,
    killed: HashSet<String>,
    durable: HashSet<String>,
}

/// Keeps the records of all connections that were added, also when their clients are gone. A
/// handle: clones are the same record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Book>>);

impl Recorder {
    /// An empty record.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a client that has said hello on record. Clients of one name are one person, on one
    /// connection after the other.
    pub(crate) fn add(&self, client: &Client) {
        self.book().watched.push(Watched {
            person: client.name.clone(),
            origin: client.origin().to_owned(),
            socket: Arc::clone(&client.socket),
        });
    }

    /// A client on record that has said hello.
    pub(crate) async fn client(&self, node: &Node, name: &str) -> Result<Client> {
        self.client_at(&node.http, name).await
    }

    /// Clients on record that have said hello, each at its node.
    pub(crate) async fn clients<const N: usize>(
        &self,
        who: [(&Node, &str); N],
    ) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for (node, name) in who {
            clients.push(self.client(node, name).await?);
        }
        Ok(clients)
    }

    /// Like [`Recorder::client`], at a node's HTTP endpoint.
    pub(crate) async fn client_at(&self, http: &str, name: &str) -> Result<Client> {
        let client = Client::hello_at(http, name).await?;
        self.add(&client);
        Ok(client)
    }

    /// A person on record who reads a room from now on.
    pub(crate) async fn reader(&self, node: &Node, name: &str, room: &str) -> Result<Reader> {
        Reader::start(self, node, name, room).await
    }

    /// A reader of a room on each of these nodes: `reader0` and so on.
    pub(crate) async fn readers(
        &self,
        nodes: &[impl Borrow<Node>],
        room: &str,
    ) -> Result<Vec<Reader>> {
        let mut readers = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            let name = format!("reader{place}");
            readers.push(self.reader(node.borrow(), &name, room).await?);
        }
        Ok(readers)
    }

    /// `kill -9`. What the node acknowledged without copies may be lost from now on, unless it has
    /// a data directory: then it must be there when it has been started again.
    pub(crate) async fn kill(&self, node: &mut Node) -> Result<()> {
        if node.keeps_data() {
            self.book().durable.insert(node.origin.clone());
        }
        self.book().killed.insert(node.origin.clone());
        node.process.kill().await
    }

    /// All attempts to send to a room so far.
    pub(crate) fn attempts(&self, room: &str) -> Vec<Attempt> {
        let book = self.book();
        let mut attempts = Vec::new();
        for watched in &book.watched {
            let record = watched.socket.inbox.record();
            let in_room = record
                .attempts
                .iter()
                .filter(|attempt| attempt.room == room);
            attempts.extend(in_room.cloned());
        }
        attempts
    }

    /// Whether a person has been shown this message on a connection that stands.
    pub(crate) fn reads(&self, person: &str, id: &str) -> bool {
        let book = self.book();
        let mut own = book.watched.iter().filter(|it| it.person == person);
        own.any(|watched| {
            let record = watched.socket.inbox.record();
            let joined = record.joins.iter().flat_map(|join| &join.joined.messages);
            let mut shown = joined.chain(record.messages.iter().map(|(_, message)| message));
            record.closed.is_none() && shown.any(|message| message.id == id)
        })
    }

    /// How long each of these messages took to this person, from the first attempt to send it until
    /// it was shown live. `which` sees that attempt.
    pub(crate) fn deliveries(
        &self,
        person: &str,
        which: impl Fn(&Attempt) -> bool,
    ) -> Vec<Duration> {
        let book = self.book();
        let mut sent: HashMap<String, Attempt> = HashMap::new();
        for watched in &book.watched {
            for attempt in &watched.socket.inbox.record().attempts {
                let known = sent.get(&attempt.mid);
                if known.is_none_or(|known| attempt.sent_at < known.sent_at) {
                    sent.insert(attempt.mid.clone(), attempt.clone());
                }
            }
        }
        sent.retain(|_, attempt| which(attempt));
        let mut found = Vec::new();
        let own = book.watched.iter().filter(|it| it.person == person);
        for watched in own {
            for (at, message) in &watched.socket.inbox.record().messages {
                let attempt = message.mid.as_ref().and_then(|mid| sent.get(mid));
                found.extend(attempt.map(|attempt| *at - attempt.sent_at));
            }
        }
        found
    }

    /// What is on record of a room, to be judged against a history; `holes`: gaps may be announced.
    pub(super) fn evidence(&self, room: &str, history: Vec<Msg>, holes: bool) -> Evidence {
        let book = self.book();
        let traces = book.watched.iter().filter_map(|watched| {
            let record = watched.socket.inbox.record();
            if !record.concerns(room) {
                return None;
            }
            let gaps = record.pushes.iter().filter_map(|push| push.get("gap"));
            let of_pattern = |gap: &&Value| {
                let rooms = gap["rooms"]
                    .as_str()
                    .and_then(|rooms| rooms.strip_suffix('*'));
                gap["rooms"] == room || rooms.is_some_and(|rooms| room.starts_with(rooms))
            };
            Some(Trace {
                person: watched.person.clone(),
                origin: watched.origin.clone(),
                attempts: record.attempts.clone(),
                joins: record
                    .joins
                    .iter()
                    .filter_map(|join| join.of(room))
                    .collect(),
                messages: record.messages.clone(),
                gaps: gaps
                    .filter(|gap| gap["room"] == room || of_pattern(gap))
                    .cloned()
                    .collect(),
                is_open: record.closed.is_none(),
            })
        });
        Evidence {
            room: room.to_owned(),
            traces: traces.collect(),
            history,
            killed: book.killed.clone(),
            durable: book.durable.clone(),
            holes,
        }
    }

    /// Nothing that was on its way to a client of the room is left there: its node has answered a
    /// ping behind it.
    async fn fence(&self, room: &str) -> Result<()> {
        let sockets: Vec<_> = {
            let book = self.book();
            let sockets = book.watched.iter().map(|watched| &watched.socket);
            let open = sockets.filter(|socket| {
                let record = socket.inbox.record();
                record.closed.is_none() && record.concerns(room)
            });
            open.cloned().collect()
        };
        for socket in sockets {
            let answer = socket.ping("", PATIENCE).await;
            if socket.inbox.record().closed.is_none() {
                answer?;
            }
        }
        Ok(())
    }

    /// Judges all that is on record of a room against what these nodes keep, when nobody sends any
    /// more: waits until they keep the same, and all readers were shown it.
    ///
    /// # Errors
    /// A node does not answer. What breaks a promise is in the verdict.
    pub(crate) async fn judge(
        &self,
        nodes: &[impl Borrow<Node>],
        room: &str,
        expect: Expect,
    ) -> Result<Checked> {
        let nodes = &each(nodes);
        let (converged, history, diverged) =
            match settled(nodes, room, expect.within, expect.trimmed).await {
                Ok((took, history)) => (took, history, None),
                Err(difference) => {
                    let node = nodes.first().context("no node to ask")?;
                    let history = super::check::history(node, room).await?;
                    (expect.within, history, Some(difference))
                }
            };
        let mut evidence = self.evidence(room, parsed(&history)?, expect.holes);
        let until = Instant::now() + expect.within;
        while !awaited(&evidence).is_empty() && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
            evidence = self.evidence(room, evidence.history, expect.holes);
        }
        self.fence(room).await?;
        let evidence = self.evidence(room, evidence.history, expect.holes);
        let mut verdict = judge(&evidence);
        if let Some(difference) = diverged {
            let text = format!("after {:?}: {difference:#}", expect.within);
            verdict.fault(Kind::Diverged, text);
        }
        let losses = losses(nodes, &expect, &mut verdict).await?;
        Ok(Checked {
            verdict,
            history: evidence.history,
            converged,
            losses,
        })
    }

    /// Like [`Recorder::judge`]; what breaks a promise is an error.
    ///
    /// # Errors
    /// A promise is broken; the text says which, by what.
    pub(crate) async fn check_with(
        &self,
        nodes: &[impl Borrow<Node>],
        room: &str,
        expect: Expect,
    ) -> Result<Checked> {
        let checked = self.judge(nodes, room, expect).await?;
        let verdict = &checked.verdict;
        if verdict.fault_count() > 0 {
            let faults = verdict.faults.join("\n");
            bail!("{} faults:\n{faults}\nin {checked}", verdict.fault_count());
        }
        Ok(checked)
    }

    /// The same, where nothing is expected beside the promises.
    pub(crate) async fn check(&self, nodes: &[impl Borrow<Node>], room: &str) -> Result<Checked> {
        self.check_with(nodes, room, Expect::default()).await
    }

    /// How long the replies to accepted sends took: the middle, the 99th of a hundred, the longest.
    pub(crate) fn replies(&self, room: &str) -> (Duration, Duration, Duration) {
        let attempts = self.attempts(room);
        let accepted = attempts.iter().filter(|attempt| attempt.sent().is_some());
        spread(accepted.map(Attempt::delay))
    }
}
