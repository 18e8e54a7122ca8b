//! The table of connections: what one turn of the loop brought is framed once and written once per
//! client.
//!
//! Everything for clients is collected here first. A message for a room is framed into the room's
//! batch, once for all that want that form of it; what is for one client alone is framed into its
//! private output. At the end of the turn [`Table::flush`] writes to each client, with one system
//! call, its private output and the batches of its rooms. An idle connection owns no buffer. One
//! whose socket did not take all is behind: it holds where it is in what was said, which is kept once
//! for all that are (`spool`). If it stays too far behind it is closed as slow, and resumes from its
//! position. Nothing is ever skipped.

use std::io;
use std::time::Duration;

use base::serve::Admission;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::backlog::Replay;
use super::conn::Conn;
use super::rooms::Rooms;
use super::seats::Seat;
use super::slot::{ConnId, Ended, Heard, Part, Style, narrow};
use super::socket::Socket;
use super::spool::Spool;
use super::websocket::{Close, append_close, append_text};
use crate::core::resumed::Ahead;
use crate::model::entry::Entry;
use crate::model::names::RoomName;
use crate::wire::sse;

/// Those who are pushed what is no message: clients of `chat.v1`, wherever they hear messages.
const PUSHED_TO: [Style; 2] = [Style::Chat, Style::Quiet];

/// All connections, and what the turn has for them.
#[derive(Debug)]
pub(crate) struct Table<S> {
    /// Tells of sockets that can be read, or written to again.
    readiness: Registry,
    pub(super) conns: Slab<Conn<S>>,
    serial: u32,
    pub(super) rooms: Rooms,
    /// What was said and is not taken by all.
    pub(super) spool: Spool,
    pub(super) touched: Vec<u32>,
    pub(super) parts: Vec<(u32, Part)>,
    pub(super) ended: Vec<(ConnId, Ended)>,
    /// Those of whose backlog a turn has written as much as it does, and whose sockets took all.
    pub(super) unfinished: Vec<ConnId>,
    /// Those that did not take all that this turn had for them.
    pub(super) behind: Vec<ConnId>,
    /// Patterns that a message goes to; empty between two.
    slots: Vec<u32>,
    /// Event streams among the connections.
    streams: usize,
    /// Messages written or queued, times clients.
    pub(crate) deliveries: u64,
    /// Connections closed as slow.
    pub(crate) slow: u64,
}

impl<S> Table<S> {
    /// Nobody yet. Sockets will be registered here, each with its slot as the token.
    pub(crate) fn new(readiness: Registry) -> Self {
        Self {
            readiness,
            conns: Slab::new(),
            serial: 0,
            rooms: Rooms::default(),
            spool: Spool::default(),
            unfinished: Vec::new(),
            behind: Vec::new(),
            touched: Vec::new(),
            parts: Vec::new(),
            ended: Vec::new(),
            slots: Vec::new(),
            streams: 0,
            deliveries: 0,
            slow: 0,
        }
    }

    /// Takes a connection, which must not block, and what it holds until it ends.
    ///
    /// # Errors
    /// The kernel has no memory for watching one more.
    pub(crate) fn adopt(
        &mut self,
        socket: impl Into<Socket>,
        held: (Admission, Seat),
        style: Style,
        client: S,
    ) -> io::Result<ConnId> {
        let mut socket = socket.into();
        let slot = self.conns.vacant_entry();
        let key = narrow(slot.key());
        let both = Interest::READABLE | Interest::WRITABLE;
        self.readiness
            .register(&mut socket, Token(slot.key()), both)?;
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        self.streams += usize::from(style == Style::Events);
        slot.insert(Conn::new(socket, held, style, serial, client));
        Ok(ConnId { key, serial })
    }

    /// The connection that an event is about. It may be about one that has ended since, and then
    /// concerns nobody or whoever has its slot now, who is read in vain.
    pub(crate) fn at(&self, token: Token) -> Option<ConnId> {
        let serial = self.conns.get(token.0)?.serial;
        let key = narrow(token.0);
        Some(ConnId { key, serial })
    }

    /// A connection, if it has not ended.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn<S>> {
        self.conns
            .get_mut(id.key as usize)
            .filter(|conn| conn.serial == id.serial)
    }

    /// The same, to look at.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Conn<S>> {
        self.conns
            .get(id.key as usize)
            .filter(|conn| conn.serial == id.serial)
    }

    /// Whether a connection takes part: neither ended nor closing.
    pub(crate) fn is_open(&self, id: ConnId) -> bool {
        self.get(id).is_some_and(|conn| conn.closing.is_none())
    }

    /// In which form a connection gets messages.
    pub(crate) fn style(&self, id: ConnId) -> Option<Style> {
        self.get(id).map(|conn| conn.style)
    }

    /// Whether a connection is an event stream: it says nothing.
    pub(crate) fn is_stream(&self, id: ConnId) -> bool {
        self.get(id).is_some_and(|conn| conn.style == Style::Events)
    }

    /// How many of the connections are event streams.
    pub(crate) fn streams(&self) -> usize {
        self.streams
    }

    /// Queues what is made for one client as it takes it, before all that comes from now on.
    pub(crate) fn replay(&mut self, id: ConnId, replay: Replay) {
        if let Some(conn) = self.get_mut(id) {
            conn.backlog().queue_replay(replay);
        }
    }

    /// Bytes that wait for a client alone.
    pub(crate) fn pending(&self, id: ConnId) -> usize {
        self.get(id).map_or(0, Conn::pending)
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Connections whose slot lies in one of `of` equal shares of the table, for work that is
    /// spread over time.
    pub(crate) fn share(&self, which: usize, of: usize) -> Vec<ConnId> {
        let id = |key| {
            let conn = self.conns.get(key)?;
            Some(ConnId {
                key: narrow(key),
                serial: conn.serial,
            })
        };
        (which..self.conns.capacity())
            .step_by(of)
            .filter_map(id)
            .collect()
    }

    /// Queues a text frame for one client alone.
    pub(crate) fn send(&mut self, id: ConnId, text: &str) {
        self.append(id, |output| append_text(output, &[text.as_bytes()]));
    }

    /// Queues a reply whose length the client chose: it does not make it slow.
    pub(crate) fn send_asked(&mut self, id: ConnId, text: &str) {
        self.send(id, text);
        if let Some(conn) = self.get_mut(id) {
            conn.grant(text.len());
        }
    }

    /// Queues what `append` frames for one client alone.
    pub(crate) fn append(&mut self, id: ConnId, append: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_open(id) {
            return;
        }
        let conn = &mut self.conns[id.key as usize];
        append(&mut conn.private);
        conn.private_messages += 1;
        if !std::mem::replace(&mut conn.touched, true) {
            self.touched.push(id.key);
        }
    }

    /// Lets a client hear a room from now on, except what it has seen ahead of this node.
    pub(crate) fn subscribe(&mut self, id: ConnId, room: &RoomName, ahead: Ahead) {
        let Some(style) = self.get(id).map(|conn| conn.style) else {
            return;
        };
        let heard = Heard::Room(room.clone());
        let place = self.rooms.enter(id.key, style, &heard, ahead);
        let places = &mut self.conns[id.key as usize].places;
        // Mostly it is the only one.
        places.reserve_exact(1);
        places.push(place);
    }

    /// Stops a client's hearing a room.
    pub(crate) fn unsubscribe(&mut self, id: ConnId, room: &RoomName) {
        let Some(index) = self.rooms.index(room) else {
            return;
        };
        let Some(conn) = self.get_mut(id) else { return };
        let Some(which) = conn.places.iter().position(|place| place.room == index) else {
            return;
        };
        let place = conn.places.swap_remove(which);
        self.leave(id, place);
    }

    /// Whether a client hears a room.
    pub(crate) fn hears(&self, id: ConnId, room: &RoomName) -> bool {
        let index = self.rooms.index(room);
        self.get(id)
            .is_some_and(|conn| conn.places.iter().any(|place| Some(place.room) == index))
    }

    /// The rooms that a client hears.
    pub(crate) fn rooms_of(&self, id: ConnId) -> impl ExactSizeIterator<Item = &RoomName> {
        let places = self.get(id).map_or(&[][..], |conn| &conn.places);
        places
            .iter()
            .map(|place| match self.rooms.heard(place.room) {
                Heard::Room(room) => room,
                Heard::Pattern(_) => unreachable!("what a client has joined is a room"),
            })
    }

    /// Rooms that clients of this node hear.
    pub(crate) fn rooms(&self) -> Vec<RoomName> {
        self.rooms.names().cloned().collect()
    }

    /// Brings an entry to all that hear its room. `id`: its event's id for who has seen so much ahead
    /// of this node.
    pub(crate) fn deliver(&mut self, entry: &Entry, whole: u64, id: impl Fn(&Ahead) -> String) {
        if let Some(index) = self.rooms.index(&entry.room) {
            self.deliver_at(index, entry, whole, &id);
        }
        if !self.rooms.patterns.is_empty() {
            let mut slots = std::mem::take(&mut self.slots);
            slots.extend_from_slice(self.rooms.patterns.of(&entry.room));
            for index in slots.drain(..) {
                self.deliver_at(index, entry, whole, &id);
            }
            self.slots = slots;
        }
    }

    fn deliver_at(
        &mut self,
        index: u32,
        entry: &Entry,
        whole: u64,
        id: &impl Fn(&Ahead) -> String,
    ) {
        let has_seen = |ahead: &mut Ahead| ahead.has_seen(entry, whole);
        if self.has_audience(index, Style::Chat) {
            let json: [&[u8]; 3] = [b"{\"msg\":", &entry.json, b"}"];
            self.add(index, Style::Chat, &json, has_seen, |_| None);
        }
        if self.has_audience(index, Style::Plain)
            && let Some(text) = entry.text()
        {
            let text = [text.as_bytes()];
            self.add(index, Style::Plain, &text, has_seen, |_| None);
        }
        if self.has_audience(index, Style::Events) {
            let event = |ahead: &Ahead| sse::event(entry, Some(&id(ahead)));
            let all = event(&Ahead::default());
            let own = |ahead: &Ahead| Some(event(ahead).into_bytes());
            self.add(index, Style::Events, &[all.as_bytes()], has_seen, own);
        }
    }

    /// Whether a room has `chat.v1` clients.
    pub(crate) fn is_pushed_to(&self, room: &RoomName) -> bool {
        let index = self.rooms.index(room);
        let pushed_to = |index| {
            PUSHED_TO
                .iter()
                .any(|style| self.has_audience(index, *style))
        };
        index.is_some_and(pushed_to)
    }

    /// Brings a push to all `chat.v1` clients of a room.
    pub(crate) fn push(&mut self, room: &RoomName, text: &str) {
        if let Some(index) = self.rooms.index(room) {
            self.push_at(index, text);
        }
    }

    pub(super) fn push_at(&mut self, index: u32, text: &str) {
        for style in PUSHED_TO {
            if self.has_audience(index, style) {
                self.add(index, style, &[text.as_bytes()], |_| false, |_| None);
            }
        }
    }

    /// Brings an event to all event streams of a room.
    pub(crate) fn push_event(&mut self, room: &RoomName, event: &str) {
        if let Some(index) = self.rooms.index(room) {
            self.push_event_at(index, event);
        }
    }

    pub(super) fn push_event_at(&mut self, index: u32, event: &str) {
        if self.has_audience(index, Style::Events) {
            let event = [event.as_bytes()];
            self.add(index, Style::Events, &event, |_| false, |_| None);
        }
    }

    fn has_audience(&self, room: u32, style: Style) -> bool {
        !self.rooms.room(room).audience(style).subscribers.is_empty()
    }

    /// Adds to a room's batch, but not for those who `have_seen` it; some get one of their `own`.
    fn add(
        &mut self,
        room: u32,
        style: Style,
        parts: &[&[u8]],
        have_seen: impl FnMut(&mut Ahead) -> bool,
        own: impl Fn(&Ahead) -> Option<Vec<u8>>,
    ) {
        let Self {
            rooms,
            conns,
            touched,
            ..
        } = self;
        let alone = |key: u32, ahead: &Ahead, frame: &[u8]| {
            let Some(conn) = conns.get_mut(key as usize) else {
                return;
            };
            match own(ahead) {
                Some(own) => conn.private.extend_from_slice(&own),
                None => conn.private.extend_from_slice(frame),
            }
            conn.private_messages += 1;
            if !std::mem::replace(&mut conn.touched, true) {
                touched.push(key);
            }
        };
        rooms.append(
            room,
            style,
            |batch| match style {
                Style::Events => parts.iter().for_each(|part| batch.extend_from_slice(part)),
                Style::Chat | Style::Plain | Style::Quiet => append_text(batch, parts),
            },
            have_seen,
            alone,
        );
    }

    /// Closes a connection: what is queued goes out, then the close frame, then the end of the
    /// stream. It takes no part any more; its slot is freed when the client has ended it too, or
    /// after two seconds.
    pub(crate) fn close(&mut self, id: ConnId, close: &Close, now: Duration) {
        let is_stream = self.is_stream(id);
        self.append(id, |output| {
            if !is_stream {
                append_close(output, close);
            }
        });
        if let Some(conn) = self.get_mut(id) {
            conn.begin_closing(now);
        }
    }

    /// When a closing connection is dropped, whatever its client does.
    pub(crate) fn closing(&self, id: ConnId) -> Option<Duration> {
        self.get(id)?.closing
    }

    /// Drops a connection and gives back whose it was. The caller has unsubscribed it.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<S> {
        self.get(id)?;
        let mut conn = self.conns.remove(id.key as usize);
        conn.release(&mut self.spool);
        self.streams -= usize::from(conn.style == Style::Events);
        if conn.touched {
            self.touched.retain(|key| *key != id.key);
        }
        Some(conn.client)
    }

    /// Whether the turn has anything to write.
    pub(crate) fn has_output(&self) -> bool {
        !self.touched.is_empty() || self.rooms.has_output() || !self.unfinished.is_empty()
    }

    /// Connections that ended while they were written to, since the last call: to be cleaned up
    /// after.
    pub(crate) fn take_ended(&mut self) -> Vec<(ConnId, Ended)> {
        std::mem::take(&mut self.ended)
    }

    /// Those of whose backlog [`Table::drain`] has written as much as it does at once, and whose sockets
    /// may take more: nobody tells of them.
    pub(crate) fn take_unfinished(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.unfinished)
    }

    /// Bytes that are kept because some have not read them yet.
    pub(crate) fn spooled(&self) -> usize {
        self.spool.size()
    }
}
