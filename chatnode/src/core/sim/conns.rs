//! The connections of clients, where their nodes are: the bytes that come, and what a node writes is
//! read the moment that it does.

use std::time::Duration;

use super::bytes;
use super::clients::{Doing, Entering};
use super::exempt::Exempt;
use super::judge::Asked;
use super::program::Program;
use super::wants::Wants;
use super::witness::Push;
use super::world::{Event, NodeId, World};
use crate::clients::socket::{self, Pipe};
use crate::core::{Now, Say, Source};
use crate::model::names::Mid;

/// What a client does with a node.
#[derive(Debug)]
pub(super) enum Call {
    /// It connects. The first bytes come with the handshake, or just behind.
    Connect(Vec<u8>, Vec<Request>, bool),
    /// Bytes of it come, and with them the rest of requests.
    Bytes(Vec<u8>, Vec<Request>),
    /// It reads again.
    ReadsOn,
    /// It has said all and closes the connection, or is gone.
    Leave(Leaves),
    /// It says something over HTTP.
    Post(Option<Mid>, String, usize),
}

/// How a client ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// It reads what is still for it.
    Reading,
    /// What is still for it is lost.
    AtOnce,
}

/// What it asks in bytes, under a number that comes back.
#[derive(Debug)]
pub(super) enum Request {
    Say(u64, Asked),
    Enter(u64, Entering),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) pipe: Pipe,
    /// What its node has not read.
    pub(super) unread: Vec<(u64, Asked)>,
    /// What it wants to be let into.
    pub(super) entering: Vec<(u64, Entering)>,
    /// The beginning of a frame that is not all there.
    begun: Vec<u8>,
    /// Since when it reads nothing, if it does.
    pub(super) slow: Option<Duration>,
    /// For how long it had read nothing, at the moment at which it reads again.
    pub(super) lagged: Duration,
    /// When it wrote last.
    pub(super) wrote: Duration,
    /// It was let into its room.
    pub(super) joined: bool,
    /// Of what of all that it wants it was told that it has all.
    pub(super) whole: Wants,
    /// With which code it was told that it is closed.
    pub(super) closed: Option<u16>,
    /// It was told that nothing more comes.
    ended: bool,
    last: Duration,
}

impl Conn {
    /// Whether it is the one that is registered so.
    pub(super) fn is(&self, token: mio::Token) -> bool {
        self.pipe.ways().token == Some(token)
    }
}

impl World {
    /// A client's call arrives at its node.
    pub(super) fn call(&mut self, id: NodeId, client: usize, conn: u64, call: Call) {
        let entries = self.ledger.len();
        let mut says = false;
        match call {
            Call::Connect(bytes, requests, at_once) => {
                let pipe = Pipe::default();
                pipe.ways().room = self.plan.socket_bytes;
                let of = Conn {
                    client,
                    pipe: pipe.clone(),
                    unread: Vec::new(),
                    entering: Vec::new(),
                    begun: Vec::new(),
                    slow: None,
                    lagged: Duration::ZERO,
                    wrote: self.now,
                    joined: false,
                    whole: 0,
                    closed: None,
                    ended: false,
                    last: self.now,
                };
                self.nodes[id].conns.insert(conn, of);
                let begun = if at_once { &bytes[..] } else { &[] };
                self.runs(id, |program, now| program.adopt(pipe, begun, now));
                let bytes = if at_once { Vec::new() } else { bytes };
                self.call(id, client, conn, Call::Bytes(bytes, requests));
            }
            Call::Bytes(bytes, requests) => {
                let Some(of) = self.nodes[id].conns.get_mut(&conn) else {
                    return;
                };
                if !bytes.is_empty() {
                    of.wrote = self.now;
                }
                of.pipe.ways().said.extend(bytes);
                for request in requests {
                    match request {
                        Request::Say(number, asked) => {
                            says = true;
                            of.unread.push((number, asked));
                        }
                        Request::Enter(number, entering) => of.entering.push((number, entering)),
                    }
                }
                self.nodes[id].reads |= says;
                self.ready(id, conn, (true, false, false));
            }
            Call::ReadsOn => {
                if let Some(of) = self.nodes[id].conns.get_mut(&conn) {
                    let since = of.slow.take().unwrap_or(self.now);
                    of.lagged = self.now - since;
                    self.reads_all(id, conn);
                    if let Some(of) = self.nodes[id].conns.get_mut(&conn) {
                        of.lagged = Duration::ZERO;
                    }
                }
            }
            Call::Leave(how) => {
                self.nodes[id].forget(conn);
                let mut asked = self.tickets.values();
                let owes = asked.any(|asked| asked.node == id && asked.client == client);
                if let Some(of) = self.nodes[id].conns.get_mut(&conn) {
                    let mut ways = of.pipe.ways();
                    ways.left = true;
                    // What becomes of a message is judged.
                    ways.broken = how == Leaves::AtOnce && of.unread.is_empty() && !owes;
                    drop(ways);
                    self.ready(id, conn, (true, false, true));
                }
            }
            Call::Post(mid, text, copies) => {
                says = true;
                self.post(id, client, mid.as_ref(), &text, copies);
            }
        }
        self.carry_out(id);
        if says && self.ledger.len() == entries && self.disk_of(id).is_none() {
            self.note("mid repeated here");
        }
    }

    fn post(&mut self, id: NodeId, client: usize, mid: Option<&Mid>, text: &str, copies: usize) {
        self.serial += 1;
        let request = self.serial;
        let asked = Asked {
            node: id,
            at: self.now,
            stood_still: self.nodes[id].stood_still,
            client,
            conn: None,
            mid: mid.cloned(),
            copies,
        };
        self.tickets.insert(request, asked);
        let (room, from) = (&self.clients[client].room, &self.clients[client].name);
        let (room, from) = (room.clone(), from.clone());
        let say = Say {
            ticket: crate::core::copies::Ticket(0),
            room: &room,
            from: &from,
            mid,
            text,
            copies,
            source: Source::Client,
        };
        let outcome = self.runs(id, |program, now| program.post(say, now));
        self.nodes[id].posted.push((outcome, request));
    }

    fn runs<T>(&mut self, id: NodeId, act: impl FnOnce(&mut Program, Now) -> T) -> T {
        let now = self.now_of(id);
        act(&mut self.nodes[id].core, now)
    }

    /// A node is told that a client's pipe has something, or room, or has ended.
    fn ready(&mut self, id: NodeId, conn: u64, (readable, writable, ended): (bool, bool, bool)) {
        let Some(token) = self.nodes[id].conns[&conn].pipe.ways().token else {
            return;
        };
        let told = socket::Told {
            token,
            readable,
            writable,
            ended,
        };
        self.runs(id, |program, now| program.ready(told, now));
        self.were_read(id);
    }

    /// Notes what a node has read by now.
    pub(super) fn were_read(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        if !std::mem::take(&mut node.reads) {
            return;
        }
        let mut dropped = false;
        for of in node.conns.values_mut().filter(|of| !of.unread.is_empty()) {
            if !of.pipe.ways().said.is_empty() {
                node.reads = true;
                continue;
            }
            if of.closed.is_some() {
                // What comes to a connection that is closed is read and dropped.
                of.unread.clear();
                dropped = true;
            }
            for (number, asked) in of.unread.drain(..) {
                let asked = Asked {
                    at: self.now,
                    stood_still: node.stood_still,
                    ..asked
                };
                self.tickets.insert(number, asked);
            }
        }
        if dropped {
            self.passes(Exempt::ClosedBefore);
        }
    }

    /// What a node has written goes to its clients.
    pub(super) fn hand_out(&mut self, id: NodeId) {
        let conns: Vec<u64> = self.nodes[id].conns.keys().copied().collect();
        for conn in conns {
            self.reads_all(id, conn);
        }
    }

    /// A client reads all that there is for it. What its node says in one breath may come in parts.
    fn reads_all(&mut self, id: NodeId, conn: u64) {
        let of = self.nodes[id].conns.get(&conn);
        if of.is_some_and(|of| of.slow.is_some()) {
            return;
        }
        let mut pushes = Vec::new();
        while self.takes(id, conn, &mut pushes) {}
        let Some(of) = self.nodes[id].conns.get(&conn) else {
            return;
        };
        let (client, dropped) = (of.client, of.pipe.is_dropped());
        for push in &pushes {
            if let Push::Joined(told, entering) = push {
                self.resumed(id, client, entering, told);
            }
        }
        if !pushes.is_empty() {
            self.push(id, conn, pushes);
        }
        if dropped {
            self.nodes[id].conns.remove(&conn);
        }
    }

    /// A client takes what there is in its pipe; whether its node may have more.
    fn takes(&mut self, id: NodeId, conn: u64, pushes: &mut Vec<Push>) -> bool {
        let Some(of) = self.nodes[id].conns.get_mut(&conn) else {
            return false;
        };
        let mut ways = of.pipe.ways();
        let was_full = ways.told.len() >= ways.room;
        of.begun.append(&mut ways.told);
        let ended = ways.ended && !was_full;
        drop(ways);
        let dropped = of.pipe.is_dropped();
        let mut frames = Vec::new();
        while let Some(frame) = bytes::next_frame(&mut of.begun) {
            frames.push(frame);
        }
        let ends = (ended || dropped) && !std::mem::replace(&mut of.ended, ended || dropped);
        if dropped {
            of.unread.clear();
        }
        let (client, slow) = (of.client, was_full && !dropped);
        for (first, payload) in frames {
            self.hears_frame(id, (client, conn), first, &payload, pushes);
        }
        if ends {
            self.ends_with_a_word(id, conn, dropped);
            pushes.push(Push::Ended);
        }
        if slow {
            self.ready(id, conn, (false, true, false));
            self.carry_out(id);
        }
        slow
    }

    /// Sends what a node has written down a connection, in order.
    fn push(&mut self, id: NodeId, conn: u64, pushes: Vec<Push>) {
        let delay = Duration::from_micros(50) + self.up_to(Duration::from_millis(20));
        let Some(of) = self.nodes[id].conns.get_mut(&conn) else {
            return;
        };
        of.last = (of.last + Duration::from_nanos(1)).max(self.now + delay);
        let (client, after) = (of.client, of.last - self.now);
        self.at(after, Event::Client(client, Doing::Got(conn, pushes)));
    }
}
