//! What a client hears: each frame that its node has written is what it should be, the moment that it is
//! read, and becomes what the client gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bytes::{self, Line, Sent, Watched};
use super::clients::{Client, Entering};
use super::exempt::Exempt;
use super::witness::{Push, Told};
use super::world::{NodeId, World};
use crate::clients::backlog::SLOW_FOR;
use crate::clients::conn::CLOSING_SLOW_MAX;
use crate::clients::pace::SILENT_MAX;
use crate::core::log::{Log, Span};
use crate::core::members::Change;
use crate::core::resumed::{Ahead, Resumed};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};

impl World {
    /// A frame that a node has written is what it should be.
    pub(super) fn hears_frame(
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

    /// A node closes a connection: that of a client which has ended it, or is silent, or has read nothing for
    /// long.
    fn hears_close(&mut self, id: NodeId, (client, conn): (usize, u64), payload: &[u8]) {
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        self.tell(|_| format!("n{id} closes {conn} of client {client}: {code:?}"));
        let Some(of) = self.nodes[id].conns.get_mut(&conn) else {
            return;
        };
        of.closed = code;
        let left = of.pipe.ways().left;
        let silent = self.now >= of.wrote + SILENT_MAX;
        let why = match code {
            Some(1000) if left => return self.note("client closed"),
            Some(4000) if of.lagged >= SLOW_FOR => "client closed as slow",
            Some(4002) if silent => "client closed as silent",
            _ => self.broken(format!("n{id} closes {conn} of client {client}: {code:?}")),
        };
        of.unread.clear();
        self.note(why);
        let owes = self.tickets.len();
        self.tickets.retain(|_, asked| asked.conn != Some(conn));
        if self.tickets.len() < owes {
            self.passes(Exempt::ClosedBefore);
        }
        self.has_left(id, (client, conn));
    }

    /// Who is closed is in no room any more, by this connection.
    fn has_left(&self, id: NodeId, (client, conn): (usize, u64)) {
        let Client { name, room, .. } = &self.clients[client];
        let node = &self.nodes[id];
        // Some share a name.
        let stays = node.conns.iter().any(|(number, of)| {
            let enters = of.joined || !of.entering.is_empty();
            let same = self.clients[of.client].name == *name;
            *number != conn && enters && same
        });
        let own = node.core.members().snapshot().rooms;
        let lists = |(of, names): &(RoomName, Vec<UserName>)| of == room && names.contains(name);
        if !stays && own.iter().any(lists) {
            self.broken(format!("n{id} has closed {conn}, and lists {name} still"));
        }
    }

    /// A connection ends, and its client was told why. Who reads nothing for longer than a node waits with
    /// that is not.
    pub(super) fn ends_with_a_word(&self, id: NodeId, conn: u64, dropped: bool) {
        let of = &self.nodes[id].conns[&conn];
        let told = of.closed.is_some() || of.pipe.ways().broken;
        let waited = dropped && of.lagged >= SLOW_FOR + CLOSING_SLOW_MAX;
        if !told && !waited {
            self.broken(format!(
                "n{id} ends {conn} of client {} without a word",
                of.client
            ));
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
        if let Some((number, sent)) = bytes::sent(text) {
            let said = self.hears_reply(id, (client, conn), number, &sent);
            return pushes.push(said);
        }
        let line: Line<'_> = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(why) => self.broken(format!("n{id} writes {text:?}: {why}")),
        };
        let number = line.id.unwrap_or_default();
        if let Some(joined) = line.join {
            let watched = Watched {
                rooms: String::new(),
                recovered: joined.recovered,
                at: joined.at,
                messages: joined.messages,
            };
            let names = joined.members.iter();
            let names = names.map(|name| name.parse().expect("a name")).collect();
            let members = Some((joined.room.as_str(), names, joined.count));
            let joined = self.enters(id, (client, conn), number, &watched, members);
            pushes.push(joined);
        } else if let Some(watched) = line.watch {
            pushes.push(self.enters(id, (client, conn), number, &watched, None));
        } else if let Some(sent) = line.send {
            let said = self.hears_reply(id, (client, conn), number, &sent);
            pushes.push(said);
        } else if let Some(error) = line.error {
            if error.code == "mids_wanted" {
                self.note("mids wanted");
                let entering = self.takes_entering(id, conn, number);
                let want = entering.map_or(0, |entering| entering.want);
                pushes.push(Push::MidsWanted(want, self.ids(id, &error.behind)));
            } else {
                self.refused(id, number);
                pushes.push(Push::Said(None));
            }
        } else if let Some(gap) = line.gap {
            let (room, rooms) = (gap.room.as_deref(), gap.rooms.as_deref());
            let mut wants = self.clients[client].wants.iter();
            if !wants.any(|want| want.is_named(room, rooms)) {
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

    /// A reply comes on the connection on which it was asked for.
    fn hears_reply(
        &mut self,
        id: NodeId,
        (client, conn): (usize, u64),
        number: u64,
        sent: &Sent,
    ) -> Push {
        let entry = self.ids(id, std::slice::from_ref(&sent.id))[0];
        let asked = self.said(id, number, (entry, sent.ts), sent.copies);
        if asked.conn != Some(conn) {
            self.broken(format!(
                "n{id} replies to client {client} on {conn} for {asked:?}"
            ));
        }
        Push::Said(asked.mid)
    }

    /// A client is let in that wanted to be, and gets what was said; into a room, of which it becomes a
    /// member.
    fn enters(
        &mut self,
        id: NodeId,
        (client, conn): (usize, u64),
        number: u64,
        watched: &Watched<'_>,
        members: Option<(&str, BTreeSet<UserName>, usize)>,
    ) -> Push {
        let entering = self.takes_entering(id, conn, number);
        let room = members.as_ref().map(|(room, ..)| *room);
        let rooms = room.is_none().then_some(watched.rooms.as_str());
        let wants = &self.clients[client].wants;
        let is_it = |entering: &Entering| wants[entering.want].is_named(room, rooms);
        let Some(entering) = entering.filter(is_it) else {
            self.broken(format!("n{id} lets client {client} in that did not ask"));
        };
        let messages = watched.messages.iter();
        let mut told = Told {
            resumed: Resumed {
                recovered: watched.recovered,
                entries: messages.map(|it| self.entry_of(id, it.get())).collect(),
                ahead: self.ahead(id, &entering),
                at: self.ids(id, &watched.at),
                ..Resumed::default()
            },
            members: members.map(|(_, names, count)| (names, count)),
            before: 0,
            trimmed: self.trimmed(),
        };
        if let Some(of) = self.nodes[id].conns.get_mut(&conn) {
            of.joined |= told.members.is_some();
            told.before = of.whole;
            of.whole |= u8::from(watched.recovered) << entering.want;
        }
        Push::Joined(Box::new(told), Box::new(entering))
    }

    /// What a client wanted in this request.
    fn takes_entering(&mut self, id: NodeId, conn: u64, number: u64) -> Option<Entering> {
        let of = self.nodes[id].conns.get_mut(&conn)?;
        let at = of.entering.iter().position(|(it, _)| *it == number)?;
        Some(of.entering.remove(at).1)
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
