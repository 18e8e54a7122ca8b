//! The connections of clients, where their nodes are: the bytes that come, and what a node writes is
//! read, and judged, the moment that it does.

use std::sync::Arc;
use std::time::Duration;

use super::bytes::{self, Joined, Line};
use super::clients::{Doing, Entering};
use super::exempt::Exempt;
use super::judge::Asked;
use super::program::Program;
use super::witness::{Push, Told};
use super::world::{Event, NodeId, World};
use crate::clients::backlog::SLOW_FOR;
use crate::clients::socket::{self, Pipe};
use crate::core::log::{Log, Span};
use crate::core::members::Change;
use crate::core::resumed::{Ahead, Resumed};
use crate::core::{Now, Say, Source};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin};

/// What a client does with a node.
#[derive(Debug)]
pub(super) enum Call {
    /// It connects. The first bytes come with the handshake, or just behind.
    Connect(Vec<u8>, Box<Request>, bool),
    /// Bytes of it come, and with them the rest of a request.
    Bytes(Vec<u8>, Option<Box<Request>>),
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
    Join(u64, Entering),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    client: usize,
    pipe: Pipe,
    /// What its node has not read.
    unread: Vec<(u64, Asked)>,
    /// How it wants to enter its room.
    pub(super) entering: Option<(u64, Entering)>,
    /// The beginning of a frame that is not all there.
    begun: Vec<u8>,
    /// Since when it reads nothing, if it does.
    pub(super) slow: Option<Duration>,
    /// For how long it had read nothing, at the moment at which it reads again.
    lagged: Duration,
    /// It was told that it was slow: nothing that it says is answered any more.
    closed: bool,
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
            Call::Connect(bytes, request, at_once) => {
                let pipe = Pipe::default();
                pipe.ways().room = self.plan.socket_bytes;
                let of = Conn {
                    client,
                    pipe: pipe.clone(),
                    unread: Vec::new(),
                    entering: None,
                    begun: Vec::new(),
                    slow: None,
                    lagged: Duration::ZERO,
                    closed: false,
                    ended: false,
                    last: self.now,
                };
                self.nodes[id].conns.insert(conn, of);
                let begun = if at_once { &bytes[..] } else { &[] };
                self.runs(id, |program, now| program.adopt(pipe, begun, now));
                let bytes = if at_once { Vec::new() } else { bytes };
                self.call(id, client, conn, Call::Bytes(bytes, Some(request)));
            }
            Call::Bytes(bytes, request) => {
                let Some(of) = self.nodes[id].conns.get_mut(&conn) else {
                    return;
                };
                of.pipe.ways().said.extend(bytes);
                match request.map(|request| *request) {
                    Some(Request::Say(number, asked)) => {
                        says = true;
                        of.unread.push((number, asked));
                        self.nodes[id].reads = true;
                    }
                    Some(Request::Join(number, entering)) => {
                        of.entering = Some((number, entering));
                    }
                    None => {}
                }
                self.ready(id, conn, (true, false, false));
            }
            Call::ReadsOn => {
                if let Some(of) = self.nodes[id].conns.get_mut(&conn) {
                    let since = of.slow.take().unwrap_or(self.now);
                    of.lagged = self.now - since;
                    while self.takes(id, conn) {}
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
            if of.closed {
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
            self.passes(Exempt::ClosedAsSlow);
        }
    }

    /// What a node has written goes to its clients.
    pub(super) fn hand_out(&mut self, id: NodeId) {
        let conns: Vec<u64> = self.nodes[id].conns.keys().copied().collect();
        for conn in conns {
            while self.takes(id, conn) {}
        }
    }

    /// A client takes what there is for it; whether its node may have more.
    fn takes(&mut self, id: NodeId, conn: u64) -> bool {
        let Some(of) = self.nodes[id].conns.get_mut(&conn) else {
            return false;
        };
        if of.slow.is_some() {
            return false;
        }
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
        let mut pushes = Vec::new();
        for (first, payload) in frames {
            self.hears_frame(id, (client, conn), first, &payload, &mut pushes);
        }
        for push in &pushes {
            if let Push::Joined(told, entering) = push {
                self.resumed(id, client, entering, &told.resumed);
            }
        }
        if ends {
            pushes.push(Push::Ended);
        }
        if !pushes.is_empty() {
            self.push(id, conn, pushes);
        }
        if dropped {
            self.nodes[id].conns.remove(&conn);
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

    /// A frame that a node has written is what it should be.
    fn hears_frame(
        &mut self,
        id: NodeId,
        (client, conn): (usize, u64),
        first: u8,
        payload: &[u8],
        pushes: &mut Vec<Push>,
    ) {
        let text = str::from_utf8(payload).unwrap_or_default();
        match first {
            // It is closed, and the end follows.
            0x88 => return self.hears_close(id, (client, conn), payload),
            0x81 => {}
            other => self.broken(format!("n{id} writes a frame of {other:#x}: {text:?}")),
        }
        if text == "{}" {
            return pushes.push(Push::Ping);
        }
        let message = text.strip_prefix("{\"msg\":");
        if let Some(message) = message.and_then(|text| text.strip_suffix('}')) {
            let entry = self.entry_of(id, message);
            return pushes.push(Push::Message(entry));
        }
        if text.starts_with("{\"nodes\":") {
            return;
        }
        self.hears_line(id, (client, conn), text, pushes);
    }

    /// A node closes a connection: one whose client has ended it, or has read nothing for long.
    fn hears_close(&mut self, id: NodeId, (client, conn): (usize, u64), payload: &[u8]) {
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        self.tell(|_| format!("n{id} closes {conn} of client {client}: {code:?}"));
        let Some(of) = self.nodes[id].conns.get_mut(&conn) else {
            return;
        };
        let left = of.pipe.ways().left;
        match code {
            Some(4000) if of.lagged >= SLOW_FOR => {
                of.closed = true;
                of.unread.clear();
                let owes = self.tickets.len();
                self.tickets.retain(|_, asked| asked.conn != Some(conn));
                if self.tickets.len() < owes {
                    self.passes(Exempt::ClosedAsSlow);
                }
                self.note("client closed as slow");
            }
            Some(1000) if left => self.note("client closed"),
            _ => self.broken(format!("n{id} closes {conn} of client {client}: {code:?}")),
        }
    }

    /// A line that is no message is what it should be.
    fn hears_line(
        &mut self,
        id: NodeId,
        (client, conn): (usize, u64),
        text: &str,
        pushes: &mut Vec<Push>,
    ) {
        let line: Line<'_> = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(why) => self.broken(format!("n{id} writes {text:?}: {why}")),
        };
        let room = &self.clients[client].room;
        let number = line.id.unwrap_or_default();
        if let Some(joined) = line.join {
            let joined = self.joins(id, (client, conn), number, &joined);
            pushes.push(joined);
        } else if let Some(sent) = line.send {
            let entry = self.ids(id, &[sent.id])[0];
            let asked = self.said(id, number, (entry, sent.ts), sent.copies);
            if asked.conn != Some(conn) {
                self.broken(format!(
                    "n{id} replies to client {client} on {conn} for {asked:?}"
                ));
            }
            pushes.push(Push::Said(asked.mid));
        } else if let Some(error) = line.error {
            if error.code == "mids_wanted" {
                self.note("mids wanted");
                pushes.push(Push::MidsWanted(self.ids(id, &error.behind)));
            } else {
                self.refused(id, number);
                pushes.push(Push::Said(None));
            }
        } else if let Some(gap) = line.gap {
            if gap.room != room.as_str() {
                self.broken(format!("n{id} tells client {client} of {gap:?}"));
            }
            let span = Span {
                after: gap.after,
                through: gap.through,
            };
            let gap = (gap.origin.parse().expect("an origin"), span);
            // Those of the time before come behind the reply.
            match pushes.last_mut() {
                Some(Push::Joined(told, _)) => told.resumed.gaps.push(gap),
                _ => pushes.push(Push::Gap(gap.0, gap.1)),
            }
        } else if let Some(told) = line.members {
            let names = |names: &[String]| {
                let names = names.iter();
                names.map(|name| name.parse().expect("a name")).collect()
            };
            let change = Change {
                room: told.room.parse().expect("a room"),
                joined: names(&told.joined),
                left: names(&told.left),
            };
            pushes.push(Push::Members(change, told.count));
        }
    }

    /// A client is let in that wanted to be, and gets what was said.
    fn joins(
        &mut self,
        id: NodeId,
        (client, conn): (usize, u64),
        number: u64,
        joined: &Joined<'_>,
    ) -> Push {
        let entering = self.nodes[id].conns.get_mut(&conn);
        let entering = entering.and_then(|of| of.entering.take_if(|(it, _)| *it == number));
        let room = self.clients[client].room.as_str();
        let Some((_, entering)) = entering.filter(|_| joined.room == room) else {
            self.broken(format!("n{id} lets client {client} in that did not ask"));
        };
        let names = joined.members.iter();
        let messages = joined.messages.iter();
        let told = Told {
            resumed: Resumed {
                recovered: joined.recovered,
                entries: messages.map(|it| self.entry_of(id, it.get())).collect(),
                ahead: self.ahead(id, &entering),
                at: self.ids(id, &joined.at),
                ..Resumed::default()
            },
            members: names.map(|name| name.parse().expect("a name")).collect(),
            count: joined.count,
            trimmed: self.trimmed(),
        };
        Push::Joined(Box::new(told), Box::new(entering))
    }

    /// Something was not taken: the disk is full, or slow.
    pub(super) fn refused(&mut self, id: NodeId, request: u64) {
        self.note("refused for the disk");
        if self.tickets.remove(&request).is_none() || self.disk_of(id).is_none() {
            self.broken(format!("n{id} refuses {request}"));
        }
    }

    /// The entry whose JSON this is, to the byte.
    fn entry_of(&self, id: NodeId, json: &str) -> Arc<Entry> {
        let name = json.split_once("\"id\":\"").and_then(|(_, rest)| {
            let (name, _) = rest.split_once('"')?;
            name.parse().ok()
        });
        let said = name.and_then(|name| self.ledger.get(name));
        match said.filter(|said| said.entry.json == json) {
            Some(said) => Arc::clone(&said.entry),
            None => self.broken(format!("n{id} shows {json}, which nobody said")),
        }
    }

    fn ids(&self, id: NodeId, names: &[String]) -> Vec<EntryId> {
        let parsed = names.iter().map(|name| match name.parse() {
            Ok(name) => name,
            Err(why) => self.broken(format!("n{id} names {name:?}: {why}")),
        });
        parsed.collect()
    }

    /// What a client that enters has seen and its node has not.
    fn ahead(&self, id: NodeId, entering: &Entering) -> Ahead {
        let whole = |origin: Origin| self.nodes[id].core.log(origin).map_or(0, Log::whole);
        let since = entering.since.iter().flatten();
        let ahead = since.filter(|it| !it.origin.is_mark() && whole(it.origin) < it.seq);
        Ahead {
            origins: ahead.map(|it| (it.origin, it.seq)).collect(),
            ..Ahead::default()
        }
    }
}
