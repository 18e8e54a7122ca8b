//! Clients: they say things, retry, move between nodes, and judge what they get.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::judge::Asked;
use super::nodes::Comes;
use super::phases::Phase;
use super::questions::Waits;
use super::witness::{Push, Trimmed};
use super::world::{Event, NodeId, World};
use crate::core::copies::Ticket;
use crate::core::log::Span;
use crate::core::named::{Named, NamedBudget};
use crate::core::question::{Question, Resume};
use crate::core::resumed::{Ahead, Resumed};
use crate::core::{Input, Say, Source};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin, RoomName, UserName};

/// A client without an answer goes elsewhere after this.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a client asks for when it enters a room for the first time.
const HISTORY: usize = 10;

/// What a client does of itself.
#[derive(Debug)]
pub(super) enum Doing {
    Act,
    Got(u64, Push),
    Lost(u64),
}

/// What a client asks of a node.
#[derive(Debug)]
pub(super) enum Call {
    Join(Box<Entering>),
    Say(Option<Mid>, String, usize, bool),
    Leave,
}

/// What a client that enters has seen.
#[derive(Debug)]
pub(super) struct Entering {
    /// The position that it has.
    pub(super) since: Option<Vec<EntryId>>,
    /// The mids of what it has seen behind these, if it names them.
    named: Option<Vec<EntryId>>,
    pub(super) mids: Vec<Mid>,
    /// How often its node has read for it, and whether that took too long.
    pub(super) reads: usize,
    pub(super) slow: bool,
}

/// A connection, as the node sees it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) ahead: Ahead,
    last: Duration,
}

/// A connection, as the client sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub(super) node: NodeId,
    pub(super) conn: u64,
    /// Since when it is in its room, if it is.
    pub(super) joined: Option<Duration>,
    since: Duration,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: UserName,
    pub(super) room: RoomName,
    pub(super) home: Option<Home>,
    /// It lost its node and never came back.
    pub(super) gone: bool,
    /// The position it resumes from; `None` before it entered for the first time.
    pub(super) position: Option<BTreeMap<Origin, u64>>,
    /// What it need not have seen: said before it came, or told to be beyond recovery.
    pub(super) base: BTreeMap<Origin, u64>,
    /// What nodes had let go of when its position was made.
    pub(super) trimmed: Trimmed,
    pub(super) seen: BTreeSet<EntryId>,
    pub(super) mids: BTreeMap<Mid, EntryId>,
    pub(super) gaps: Vec<(Origin, Span)>,
    /// What it had seen and the node that it came to last had not.
    pub(super) ahead: BTreeMap<Origin, u64>,
    /// Whether it names the mids of what it has seen when it is asked for them.
    pub(super) names_mids: bool,
    pub(super) pending: BTreeMap<Mid, (String, usize, Duration)>,
    said: u64,
    index: usize,
}

impl Client {
    pub(super) fn new(index: usize, room: usize) -> Self {
        Self {
            // Some share a name: it counts once.
            name: format!("user{}", index % 9).parse().unwrap(),
            room: format!("room{room}").parse().unwrap(),
            home: None,
            gone: false,
            position: None,
            base: BTreeMap::new(),
            trimmed: Trimmed::default(),
            seen: BTreeSet::new(),
            mids: BTreeMap::new(),
            gaps: Vec::new(),
            ahead: BTreeMap::new(),
            index,
            names_mids: index % 2 == 1,
            pending: BTreeMap::new(),
            said: 0,
        }
    }

    /// How all that it says begins.
    pub(super) fn says(&self) -> String {
        format!("{} says ", self.index)
    }

    pub(super) fn was_told_of(&self, id: EntryId) -> bool {
        let inside = |(origin, span): &(Origin, Span)| {
            *origin == id.origin && span.after < id.seq && id.seq <= span.through
        };
        self.gaps.iter().any(inside)
    }

    pub(super) fn advance(&mut self, id: EntryId) {
        let position = self.position.get_or_insert_default();
        let seq = position.entry(id.origin).or_default();
        *seq = (*seq).max(id.seq);
    }
}

impl World {
    pub(super) fn client(&mut self, index: usize, doing: Doing) {
        match doing {
            Doing::Act => {
                self.act(index);
                let next = self.plan.act_every.mul_f64(self.rng.random_range(0.2..2.0));
                self.at(next, Event::Client(index, Doing::Act));
            }
            Doing::Got(conn, push) => self.got(index, conn, push),
            Doing::Lost(conn) => {
                let client = &mut self.clients[index];
                if client.home.is_some_and(|home| home.conn == conn) {
                    client.home = None;
                    self.note("fault: client lost its node");
                    // Some never come back: their names must go with their node.
                    let leaves = self.chance(0.2);
                    self.clients[index].gone = leaves;
                }
            }
        }
    }

    fn act(&mut self, index: usize) {
        if self.clients[index].gone {
            return;
        }
        let Some(home) = self.clients[index].home else {
            return self.connect(index);
        };
        if home.joined.is_none() {
            if self.now > home.since + PATIENCE {
                self.clients[index].home = None;
                let leave = Comes::Client(index, home.conn, Call::Leave);
                self.at(Duration::ZERO, Event::Input(home.node, leave));
            }
            return;
        }
        if self.phase == Phase::Faults && self.chance(0.05) {
            self.clients[index].home = None;
            let after = self.up_to(Duration::from_millis(20));
            let leave = Comes::Client(index, home.conn, Call::Leave);
            self.at(after, Event::Input(home.node, leave));
            return;
        }
        if self.phase != Phase::Rest {
            self.say_again(index, home);
        }
        if self.clients_talk() && self.chance(0.6) {
            self.say(index, home);
        }
    }

    fn say(&mut self, index: usize, home: Home) {
        let copies = self.rng.random_range(0..3);
        let with_mid = self.chance(0.8);
        let client = &mut self.clients[index];
        client.said += 1;
        let text = format!("{}{}", client.says(), client.said);
        let mid: Option<Mid> =
            with_mid.then(|| format!("m{index}-{}", client.said).parse().unwrap());
        if let Some(mid) = &mid {
            let pending = (text.clone(), copies, self.now);
            client.pending.insert(mid.clone(), pending);
        }
        let after = self.up_to(Duration::from_millis(5));
        let call = Call::Say(mid.clone(), text.clone(), copies, true);
        self.at(
            after,
            Event::Input(home.node, Comes::Client(index, home.conn, call)),
        );
        if mid.is_some() && self.chance(0.1) {
            // The same through another node, without a connection: a retry that was too hasty.
            let live = self.live();
            if let Some(node) = self.pick(&live) {
                let after = self.up_to(Duration::from_millis(300));
                let call = Call::Say(mid, text, copies, false);
                self.at(after, Event::Input(node, Comes::Client(index, 0, call)));
            }
        }
    }

    fn say_again(&mut self, index: usize, home: Home) {
        let now = self.now;
        let old = |(_, (_, _, at)): &(&Mid, &(String, usize, Duration))| now > *at + PATIENCE;
        let client = &mut self.clients[index];
        let again = client.pending.iter().find(old);
        let again = again.map(|(mid, (text, copies, _))| (mid.clone(), text.clone(), *copies));
        if let Some((mid, text, copies)) = again {
            let pending = (text.clone(), copies, now);
            client.pending.insert(mid.clone(), pending);
            let call = Call::Say(Some(mid), text, copies, true);
            let after = self.up_to(Duration::from_millis(5));
            self.at(
                after,
                Event::Input(home.node, Comes::Client(index, home.conn, call)),
            );
        }
    }

    fn connect(&mut self, index: usize) {
        let mut ready = self.live();
        ready.retain(|id| self.nodes[*id].core.is_ready());
        let Some(node) = self.pick(&ready) else {
            return;
        };
        self.serial += 1;
        let conn = self.serial;
        let now = self.now;
        let client = &mut self.clients[index];
        client.home = Some(Home {
            node,
            conn,
            joined: None,
            since: now,
        });
        let named = client.names_mids.then(Vec::new);
        self.comes_in(index, node, conn, named);
    }

    /// Asks a node to let it in. It names what it has seen behind these positions.
    pub(super) fn comes_in(
        &mut self,
        index: usize,
        node: NodeId,
        conn: u64,
        named: Option<Vec<EntryId>>,
    ) {
        let client = &self.clients[index];
        let since = client.position.as_ref().map(|position| {
            let ids = position.iter();
            ids.map(|(origin, seq)| EntryId {
                origin: *origin,
                seq: *seq,
            })
            .collect()
        });
        let behind = |id: &EntryId| {
            let mut asked = named.iter().flatten();
            asked.any(|from| from.origin == id.origin && from.seq < id.seq)
        };
        let mids = client.mids.iter().filter(|(_, id)| behind(id));
        let mids = mids.map(|(mid, _)| mid.clone()).collect();
        let entering = Entering {
            since,
            named,
            mids,
            reads: 0,
            slow: false,
        };
        let after = self.up_to(Duration::from_millis(20));
        let join = Comes::Client(index, conn, Call::Join(Box::new(entering)));
        self.at(after, Event::Input(node, join));
    }

    /// A client's call arrives at its node.
    pub(super) fn call(&mut self, id: NodeId, index: usize, conn: u64, call: Call) {
        let room = self.clients[index].room.clone();
        let name = self.clients[index].name.clone();
        match call {
            Call::Join(entering) => self.enters(id, index, conn, entering),
            Call::Leave => {
                let node = &mut self.nodes[id];
                node.left.insert(conn);
                if node.conns.remove(&conn).is_some() {
                    self.give(id, Input::Leave(&room, &name));
                }
            }
            Call::Say(mid, text, copies, connected) => {
                if connected && !self.nodes[id].conns.contains_key(&conn) {
                    return;
                }
                self.serial += 1;
                let ticket = Ticket(self.serial);
                let asked = Asked {
                    node: id,
                    at: self.now,
                    stood_still: self.nodes[id].stood_still,
                    client: index,
                    conn: connected.then_some(conn),
                    mid: mid.clone(),
                    copies,
                };
                self.tickets.insert(ticket, asked);
                let before = self.ledger.len();
                let say = Say {
                    ticket,
                    room: &room,
                    from: &name,
                    mid: mid.as_ref(),
                    text: &text,
                    copies,
                    source: Source::Client,
                };
                self.give(id, Input::Say(say));
                self.settle(id);
                if self.ledger.len() == before && self.disk_of(id).is_none() {
                    self.note("mid repeated here");
                }
            }
        }
    }

    /// A client wants to enter its room. It may have given up meanwhile; then its leaving was quicker than
    /// this, or will be than the answer.
    fn enters(&mut self, id: NodeId, index: usize, conn: u64, entering: Box<Entering>) {
        if self.nodes[id].left.contains(&conn) {
            return;
        }
        let mut named = Named {
            behind: entering.named.clone(),
            ..Named::default()
        };
        let mids = entering.mids.iter().cloned();
        let budget = NamedBudget::default();
        let added = named.mids.add(mids, &budget, Duration::MAX);
        added.expect("a client of the simulator has not seen so much");
        let resume = Resume {
            room: self.clients[index].room.clone(),
            since: entering.since.clone(),
            named,
            history: HISTORY,
        };
        let waits = Waits::Client(index, conn, entering);
        self.asks(id, waits, Question::Resume(resume));
    }

    /// A node lets a client into its room, or asks it what it has seen.
    pub(super) fn lets_in(
        &mut self,
        id: NodeId,
        (index, conn): (usize, u64),
        entering: &Entering,
        mut resumed: Resumed,
    ) {
        if self.nodes[id].left.contains(&conn) {
            return;
        }
        if !resumed.unnamed.is_empty() {
            self.note("mids wanted");
            let after = self.up_to(Duration::from_millis(20));
            let wanted = Push::MidsWanted(id, resumed.unnamed);
            return self.at(after, Event::Client(index, Doing::Got(conn, wanted)));
        }
        let Client { room, name, .. } = &self.clients[index];
        let (room, name) = (room.clone(), name.clone());
        self.give(id, Input::Enter(&room, &name));
        self.resumed(id, index, entering, &resumed);
        let ahead = std::mem::take(&mut resumed.ahead);
        resumed.ahead.origins.clone_from(&ahead.origins);
        let conn_of = Conn {
            client: index,
            ahead,
            last: self.now,
        };
        self.nodes[id].conns.insert(conn, conn_of);
        let trimmed = self.trimmed();
        self.push(id, conn, Push::Joined(Box::new(resumed), trimmed));
    }

    /// Sends something down a connection, in order.
    pub(super) fn push(&mut self, id: NodeId, conn: u64, push: Push) {
        let delay = Duration::from_micros(50) + self.up_to(Duration::from_millis(20));
        let Some(of) = self.nodes[id].conns.get_mut(&conn) else {
            return;
        };
        of.last = (of.last + Duration::from_nanos(1)).max(self.now + delay);
        let (client, after) = (of.client, of.last - self.now);
        self.at(after, Event::Client(client, Doing::Got(conn, push)));
    }

    pub(super) fn deliver(&mut self, id: NodeId, entry: &Arc<Entry>, whole: u64) {
        let clients = &self.clients;
        let mut conns = Vec::new();
        let node = &mut self.nodes[id];
        for (conn, of) in &mut node.conns {
            if clients[of.client].room == entry.room && !of.ahead.has_seen(entry, whole) {
                conns.push(*conn);
            }
        }
        for conn in conns {
            self.push(id, conn, Push::Message(Arc::clone(entry)));
        }
    }

    /// A node is gone: its clients notice at once, or when they hear nothing.
    pub(super) fn clients_lose(&mut self, id: NodeId, at_once: bool) {
        for index in 0..self.clients.len() {
            let Some(home) = self.clients[index].home else {
                continue;
            };
            if home.node == id {
                let most = if at_once { 50 } else { 4000 };
                let after = self.up_to(Duration::from_millis(most));
                self.at(after, Event::Client(index, Doing::Lost(home.conn)));
            }
        }
    }
}
