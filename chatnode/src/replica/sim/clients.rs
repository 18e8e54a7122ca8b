//! Clients: they say things, retry, move between nodes, and judge what they get.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::world::{Event, Input, NodeId, Reply, World};
use crate::replica::Say;
use crate::replica::copies::Ticket;
use crate::replica::entry::Entry;
use crate::replica::log::Span;
use crate::replica::names::{EntryId, Mid, Origin, RoomName, UserName};
use crate::replica::resume::Resumed;

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

/// What a node sends to a client.
#[derive(Debug)]
pub(super) enum Push {
    Joined(Resumed),
    Message(Arc<Entry>),
    Gap(Origin, Span),
    Said(Option<Mid>, EntryId),
}

/// What a client asks of a node.
#[derive(Debug)]
pub(super) enum Call {
    Join(Option<Vec<EntryId>>),
    Say(Option<Mid>, String, usize, bool),
    Leave,
}

/// A connection, as the node sees it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) ahead: BTreeMap<Origin, u64>,
    last: Duration,
}

/// A connection, as the client sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub(super) node: NodeId,
    pub(super) conn: u64,
    pub(super) joined: bool,
    since: Duration,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: UserName,
    pub(super) room: RoomName,
    pub(super) home: Option<Home>,
    /// The position it resumes from; `None` before it entered for the first time.
    pub(super) position: Option<BTreeMap<Origin, u64>>,
    /// What it need not have seen: said before it came, or told to be beyond recovery.
    pub(super) base: BTreeMap<Origin, u64>,
    pub(super) seen: BTreeSet<EntryId>,
    pub(super) mids: BTreeMap<Mid, EntryId>,
    pub(super) gaps: Vec<(Origin, Span)>,
    /// Whether a resume found it ahead of the node in what another node had said.
    was_ahead: bool,
    pending: BTreeMap<Mid, (String, usize, Duration)>,
    said: u64,
}

impl Client {
    pub(super) fn new(index: usize, room: usize) -> Self {
        Self {
            // Some share a name: it counts once.
            name: format!("user{}", index % 9).parse().unwrap(),
            room: format!("room{room}").parse().unwrap(),
            home: None,
            position: None,
            base: BTreeMap::new(),
            seen: BTreeSet::new(),
            mids: BTreeMap::new(),
            gaps: Vec::new(),
            was_ahead: false,
            pending: BTreeMap::new(),
            said: 0,
        }
    }

    pub(super) fn was_told_of(&self, id: EntryId) -> bool {
        let inside = |(origin, span): &(Origin, Span)| {
            *origin == id.origin && span.after < id.seq && id.seq <= span.through
        };
        self.gaps.iter().any(inside)
    }

    fn advance(&mut self, id: EntryId) {
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
                    self.counters.note("fault: client lost its node");
                }
            }
        }
    }

    fn act(&mut self, index: usize) {
        let Some(home) = self.clients[index].home else {
            return self.connect(index);
        };
        if !home.joined {
            if self.now > home.since + PATIENCE {
                self.clients[index].home = None;
                let leave = Input::Client(index, home.conn, Call::Leave);
                self.at(Duration::ZERO, Event::Input(home.node, leave));
            }
            return;
        }
        if !self.healed && self.chance(0.05) {
            self.clients[index].home = None;
            let after = self.up_to(Duration::from_millis(20));
            let leave = Input::Client(index, home.conn, Call::Leave);
            self.at(after, Event::Input(home.node, leave));
            return;
        }
        self.say_again(index, home);
        if !self.healed && self.chance(0.6) {
            self.say(index, home);
        }
    }

    fn say(&mut self, index: usize, home: Home) {
        let copies = self.rng.random_range(0..3);
        let with_mid = self.chance(0.8);
        let client = &mut self.clients[index];
        client.said += 1;
        let text = format!("{index} says {}", client.said);
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
            Event::Input(home.node, Input::Client(index, home.conn, call)),
        );
        if mid.is_some() && self.chance(0.1) {
            // The same through another node, without a connection: a retry that was too hasty.
            let live = self.live();
            if let Some(node) = self.pick(&live) {
                let after = self.up_to(Duration::from_millis(300));
                let call = Call::Say(mid, text, copies, false);
                self.at(after, Event::Input(node, Input::Client(index, 0, call)));
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
                Event::Input(home.node, Input::Client(index, home.conn, call)),
            );
        }
    }

    fn connect(&mut self, index: usize) {
        let mut ready = self.live();
        ready.retain(|id| self.nodes[*id].replica.is_ready());
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
            joined: false,
            since: now,
        });
        let since = client.position.as_ref().map(|position| {
            let ids = position.iter();
            ids.map(|(origin, seq)| EntryId {
                origin: *origin,
                seq: *seq,
            })
            .collect()
        });
        let after = self.up_to(Duration::from_millis(20));
        let join = Input::Client(index, conn, Call::Join(since));
        self.at(after, Event::Input(node, join));
    }

    /// A client's call arrives at its node.
    pub(super) fn call(&mut self, id: NodeId, index: usize, conn: u64, call: Call) {
        let now = self.now_of(id);
        let room = self.clients[index].room.clone();
        let name = self.clients[index].name.clone();
        match call {
            Call::Join(since) => {
                // It may have given up meanwhile; then its leaving is on its way.
                let replica = &mut self.nodes[id].replica;
                let resumed = replica.resume(&room, since.as_deref(), HISTORY);
                replica.enter(&room, &name);
                let conn_of = Conn {
                    client: index,
                    ahead: resumed.ahead.clone(),
                    last: self.now,
                };
                self.nodes[id].conns.insert(conn, conn_of);
                self.push(id, conn, Push::Joined(resumed));
            }
            Call::Leave => {
                if self.nodes[id].conns.remove(&conn).is_some() {
                    self.nodes[id].replica.leave(&room, &name);
                }
            }
            Call::Say(mid, text, copies, connected) => {
                if connected && !self.nodes[id].conns.contains_key(&conn) {
                    return;
                }
                self.serial += 1;
                let ticket = Ticket(self.serial);
                let whose = connected.then_some(conn);
                self.tickets.insert(ticket, (index, whose, mid.clone()));
                let before = self.ledger.len();
                let say = Say {
                    ticket,
                    room: &room,
                    from: &name,
                    mid: mid.as_ref(),
                    text: &text,
                    copies,
                };
                self.nodes[id].replica.say(now, say);
                self.settle(id);
                if self.ledger.len() == before {
                    self.counters.note("mid repeated here");
                }
            }
        }
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

    pub(super) fn deliver(&mut self, id: NodeId, entry: &Arc<Entry>) {
        let node = &self.nodes[id];
        let wants = |conn: &Conn| {
            let ahead = conn.ahead.get(&entry.origin).copied().unwrap_or_default();
            self.clients[conn.client].room == entry.room && entry.seq > ahead
        };
        let conns: Vec<u64> = node
            .conns
            .iter()
            .filter(|(_, conn)| wants(conn))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            self.push(id, conn, Push::Message(Arc::clone(entry)));
        }
    }

    /// A reply: it must be honest the moment that it is given.
    pub(super) fn said(&mut self, id: NodeId, ticket: Ticket, entry: EntryId, copies: usize) {
        let Some((client, conn, mid)) = self.tickets.remove(&ticket) else {
            self.broken(format!("{ticket:?} was answered twice"));
        };
        let holders: Vec<NodeId> = (0..self.nodes.len())
            .filter(|other| *other != id && self.holds(*other, entry))
            .collect();
        if holders.len() < copies && !self.plan.trims {
            self.broken(format!(
                "n{id} says that {copies} others hold {entry:?}, but only {holders:?} do"
            ));
        }
        if copies > 0 {
            self.counters.note("copies answered");
        }
        self.tell(|_| format!("n{id} replies {entry:?} copies {copies} {mid:?}"));
        self.replies.push(Reply {
            node: id,
            id: entry,
            copies,
            holders,
        });
        if let Some(conn) = conn {
            self.push(id, conn, Push::Said(mid, entry));
        } else if let Some(mid) = mid {
            self.clients[client].pending.remove(&mid);
        }
    }

    fn got(&mut self, index: usize, conn: u64, push: Push) {
        let Some(home) = self.clients[index].home else {
            return;
        };
        if home.conn != conn {
            return;
        }
        match push {
            Push::Joined(resumed) => self.joined(index, resumed),
            Push::Message(entry) => {
                self.see(index, &entry, true);
                self.clients[index].advance(entry.id());
            }
            Push::Gap(origin, span) => self.clients[index].gaps.push((origin, span)),
            Push::Said(mid, _) => {
                if let Some(mid) = mid {
                    self.clients[index].pending.remove(&mid);
                }
            }
        }
    }

    fn joined(&mut self, index: usize, resumed: Resumed) {
        self.tell(|w| {
            let had = &w.clients[index].position;
            let ids: Vec<_> = resumed.entries.iter().map(|e| e.id()).collect();
            let (at, ahead, gaps) = (&resumed.at, &resumed.ahead, &resumed.gaps);
            format!(
                "client {index} had {had:?}, gets {ids:?} at {at:?} ahead {ahead:?} gaps {gaps:?}"
            )
        });
        let client = &mut self.clients[index];
        if let Some(home) = &mut client.home {
            home.joined = true;
        }
        let resumes = client.position.is_some();
        if !resumed.ahead.is_empty() {
            client.was_ahead = true;
            self.counters.note("resume with ahead filter");
        }
        client.gaps.extend(resumed.gaps);
        if resumes && resumed.recovered {
            if !resumed.entries.is_empty() {
                self.counters.note("resume with replay");
            }
            for entry in &resumed.entries {
                self.see(index, entry, true);
            }
        } else {
            if resumes {
                self.counters.note("resume told recovered:false");
                if !self.plan.trims {
                    self.broken(format!("client {index} could not resume"));
                }
            }
            // It starts anew: what the page shows it may have had.
            let client = &mut self.clients[index];
            client.position = Some(BTreeMap::new());
            client.base.clear();
            client
                .base
                .extend(resumed.at.iter().map(|id| (id.origin, id.seq)));
            for entry in &resumed.entries {
                client.seen.insert(entry.id());
                if let Some(mid) = &entry.mid {
                    client.mids.insert(mid.clone(), entry.id());
                }
            }
        }
        for id in resumed.at {
            self.clients[index].advance(id);
        }
    }

    /// A client sees a message: once, and in its origin's order.
    fn see(&mut self, index: usize, entry: &Arc<Entry>, ordered: bool) {
        let id = entry.id();
        self.tell(|_| format!("client {index} sees {id:?} {:?}", entry.mid));
        if self.ledger.get(&id).is_none_or(|said| said != entry) {
            self.broken(format!("client {index} sees {id:?}, which nobody said"));
        }
        let client = &self.clients[index];
        if entry.room != client.room {
            self.broken(format!("client {index} sees {id:?} of another room"));
        }
        if client.seen.contains(&id) {
            self.broken(format!("client {index} sees {id:?} twice"));
        }
        if let Some(mid) = &entry.mid
            && let Some(other) = client.mids.get(mid)
            && !client.was_ahead
        {
            self.broken(format!(
                "client {index} sees {mid:?} as {other:?} and {id:?}"
            ));
        }
        let had = client.position.as_ref().and_then(|p| p.get(&id.origin));
        let late = had.is_some_and(|had| *had >= id.seq);
        let before_it_came = client
            .base
            .get(&id.origin)
            .is_some_and(|seq| *seq >= id.seq);
        if ordered && late && !before_it_came && !client.was_told_of(id) {
            self.broken(format!(
                "client {index} sees {id:?} after {had:?}, out of order"
            ));
        }
        let client = &mut self.clients[index];
        client.seen.insert(id);
        if let Some(mid) = &entry.mid {
            client.mids.insert(mid.clone(), id);
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
