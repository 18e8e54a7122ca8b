//! Fan-out: what one turn of the loop brought is framed once and written once per client.
//!
//! Everything for clients is collected here first. A message for a room is framed into the room's
//! batch, once for all that want that form of it; what is for one client alone is framed into its
//! private output. At the end of the turn [`Fanout::flush`] writes to each client, with one system
//! call, its private output and the batches of its rooms. An idle connection owns no buffer. Only
//! one whose socket did not take all gets a backlog of its own, bounded; if it stays over the bound
//! it is closed as slow, and resumes from its position. Nothing is ever skipped.

mod backlog;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use slab::Slab;
use tokio::io::AsyncWrite as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::AbortHandle;

use self::backlog::Backlog;
pub use self::backlog::{QUEUE_BYTES_HARD_MAX, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX, SLOW_FOR};
use crate::replica::entry::Entry;
use crate::replica::names::{Origin, RoomName};
use crate::websocket::{Close, append_close, append_text};

/// A batch buffer larger than this is given back after its turn.
const BATCH_KEPT_BYTES: usize = 256 << 10;
/// How long a closed connection may take to say goodbye.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// The same for one that was slow, and has much to read before it sees why.
const CLOSING_SLOW_MAX: Duration = Duration::from_secs(10);

/// Its queue was too long for too long.
pub const SLOW: Close = Close::new(
    4000,
    "slow: too much waits to be read; come back and resume",
);

/// A connection; never the same again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    key: u32,
    serial: u32,
}

/// How a connection ended while it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its socket failed: drop it.
    Broken,
    /// It was slow: it takes no part any more, and is told so when it reads.
    Slow,
}

/// In which form a connection gets messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Bare text.
    Plain,
    /// `chat.v1` objects.
    Chat,
}

/// One client's connection: where its output goes, and the session `S` behind it.
#[derive(Debug)]
pub struct Conn<S> {
    /// What the protocol keeps of it.
    pub session: S,
    serial: u32,
    style: Style,
    touched: bool,
    draining: bool,
    closing: Option<Duration>,
    write: OwnedWriteHalf,
    reader: Option<AbortHandle>,
    private: Vec<u8>,
    private_messages: u32,
    backlog: Option<Box<Backlog>>,
}

impl<S> Conn<S> {
    /// All was written. If that ended with a close frame, nothing more will be: the client reads
    /// that, and the end of the stream behind it, while this node still reads what the client had
    /// under way. Dropping the socket now would reset it, and the close frame could be lost.
    fn finish(&mut self) {
        if self.closing.is_some() {
            let mut nobody = Context::from_waker(Waker::noop());
            // Shutting a TCP socket down never waits; if it fails, the client has gone already.
            let _ = Pin::new(&mut self.write).poll_shutdown(&mut nobody);
        }
    }
}

/// A connection in a room.
#[derive(Debug)]
struct Subscriber {
    key: u32,
    /// How much of this turn's batch was before it entered.
    skip: usize,
    /// What it has seen before this node: it gets its messages one by one until that has passed.
    #[expect(
        clippy::box_collection,
        reason = "rare, and a word instead of three for all others"
    )]
    ahead: Option<Box<BTreeMap<Origin, u64>>>,
}

/// What goes to a room's clients of one style.
#[derive(Debug, Default)]
struct Audience {
    subscribers: Vec<Subscriber>,
    filtered: usize,
    batch: Vec<u8>,
    messages: u32,
}

#[derive(Debug, Default)]
struct Room {
    chat: Audience,
    plain: Audience,
    touched: bool,
}

/// A part of what one client is written.
#[derive(Debug, Clone, Copy)]
enum Part {
    Private,
    Batch {
        room: u32,
        style: Style,
        skip: usize,
    },
}

/// All connections, and what the turn has for them.
#[derive(Debug)]
pub struct Fanout<S> {
    conns: Slab<Conn<S>>,
    serial: u32,
    rooms: Slab<Room>,
    names: HashMap<RoomName, u32>,
    touched_conns: Vec<u32>,
    touched_rooms: Vec<u32>,
    parts: Vec<(u32, Part)>,
    /// Connections that ended while writing, for the caller to clean up after.
    ended: Vec<(ConnId, Ended)>,
    /// Connections whose socket is full, for the caller to start a drain for.
    full: Vec<ConnId>,
    /// Messages written or queued, times clients.
    pub deliveries: u64,
    /// Connections closed as slow.
    pub slow: u64,
}

impl<S> Default for Fanout<S> {
    fn default() -> Self {
        Self {
            conns: Slab::new(),
            serial: 0,
            rooms: Slab::new(),
            names: HashMap::new(),
            touched_conns: Vec::new(),
            touched_rooms: Vec::new(),
            parts: Vec::new(),
            ended: Vec::new(),
            full: Vec::new(),
            deliveries: 0,
            slow: 0,
        }
    }
}

fn narrow(key: usize) -> u32 {
    u32::try_from(key).expect("fewer connections and rooms than 2^32: descriptors run out first")
}

impl<S> Fanout<S> {
    /// Takes a connection's writing half.
    pub fn adopt(&mut self, write: OwnedWriteHalf, style: Style, session: S) -> ConnId {
        self.serial = self.serial.wrapping_add(1);
        let key = self.conns.insert(Conn {
            session,
            serial: self.serial,
            style,
            touched: false,
            draining: false,
            closing: None,
            write,
            reader: None,
            private: Vec::new(),
            private_messages: 0,
            backlog: None,
        });
        ConnId {
            key: narrow(key),
            serial: self.serial,
        }
    }

    /// Names the task that reads the connection, to be stopped when the connection ends.
    pub fn set_reader(&mut self, id: ConnId, reader: AbortHandle) {
        if let Some(conn) = self.get_mut(id) {
            conn.reader = Some(reader);
        }
    }

    /// A connection, if it has not ended.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn<S>> {
        self.conns
            .get_mut(id.key as usize)
            .filter(|conn| conn.serial == id.serial)
    }

    /// Whether a connection takes part: neither ended nor closing.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.conns
            .get(id.key as usize)
            .is_some_and(|conn| conn.serial == id.serial && conn.closing.is_none())
    }

    /// Whether a connection speaks `chat.v1`.
    pub fn is_chat(&self, id: ConnId) -> bool {
        self.conns
            .get(id.key as usize)
            .is_some_and(|conn| conn.style == Style::Chat)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Connections whose slot lies in one of `of` equal shares of the table, for work that is
    /// spread over time.
    pub fn share(&self, which: usize, of: usize) -> Vec<ConnId> {
        (which..self.conns.capacity())
            .step_by(of)
            .filter_map(|key| {
                let conn = self.conns.get(key)?;
                Some(ConnId {
                    key: narrow(key),
                    serial: conn.serial,
                })
            })
            .collect()
    }

    /// Queues a text frame for one client alone. `granted`: it asked for it, however long it is.
    pub fn send(&mut self, id: ConnId, text: &str, granted: bool) {
        self.append(id, |output| append_text(output, &[text.as_bytes()]));
        if granted && let Some(conn) = self.get_mut(id) {
            conn.backlog.get_or_insert_default().grant(text.len());
        }
    }

    /// Queues what `append` frames for one client alone.
    pub fn append(&mut self, id: ConnId, append: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_open(id) {
            return;
        }
        let conn = &mut self.conns[id.key as usize];
        append(&mut conn.private);
        conn.private_messages += 1;
        if !conn.touched {
            conn.touched = true;
            self.touched_conns.push(id.key);
        }
    }

    /// Lets a client hear a room from now on, except what it has seen ahead of this node.
    pub fn subscribe(&mut self, id: ConnId, room: &RoomName, ahead: BTreeMap<Origin, u64>) {
        let Some(style) = self.get_mut(id).map(|conn| conn.style) else {
            return;
        };
        let index = match self.names.get(room) {
            Some(index) => *index,
            None => {
                let index = narrow(self.rooms.insert(Room::default()));
                self.names.insert(room.clone(), index);
                index
            }
        };
        let audience = audience(&mut self.rooms[index as usize], style);
        let ahead = (!ahead.is_empty()).then(|| Box::new(ahead));
        audience.filtered += usize::from(ahead.is_some());
        let skip = audience.batch.len();
        audience.subscribers.push(Subscriber {
            key: id.key,
            skip,
            ahead,
        });
    }

    /// Stops a client's hearing a room.
    pub fn unsubscribe(&mut self, id: ConnId, room: &RoomName) {
        let Some(style) = self.get_mut(id).map(|conn| conn.style) else {
            return;
        };
        let Some(index) = self.names.get(room).copied() else {
            return;
        };
        let hall = &mut self.rooms[index as usize];
        let audience = audience(hall, style);
        if let Some(place) = audience.subscribers.iter().position(|s| s.key == id.key) {
            let left = audience.subscribers.swap_remove(place);
            audience.filtered -= usize::from(left.ahead.is_some());
        }
        if hall.chat.subscribers.is_empty() && hall.plain.subscribers.is_empty() {
            self.names.remove(room);
            self.rooms.remove(index as usize);
            self.touched_rooms.retain(|touched| *touched != index);
        }
    }

    /// Brings an entry to all that hear its room.
    pub fn deliver(&mut self, entry: &Entry) {
        let Some(index) = self.names.get(&entry.room).copied() else {
            return;
        };
        let room = &mut self.rooms[index as usize];
        for style in [Style::Chat, Style::Plain] {
            let audience = audience(room, style);
            if audience.subscribers.is_empty() {
                continue;
            }
            let start = audience.batch.len();
            match style {
                Style::Chat => {
                    append_text(&mut audience.batch, &[b"{\"msg\":", &entry.json, b"}"]);
                }
                Style::Plain => {
                    let Some(text) = entry.text() else { continue };
                    append_text(&mut audience.batch, &[text.as_bytes()]);
                }
            }
            audience.messages += 1;
            if audience.filtered > 0 {
                alone(
                    audience,
                    start,
                    Some(entry),
                    &mut self.conns,
                    &mut self.touched_conns,
                );
            }
        }
        touch(room, index, &mut self.touched_rooms);
    }

    /// Brings a push to all `chat.v1` clients of a room.
    pub fn push(&mut self, room: &RoomName, text: &str) {
        let Some(index) = self.names.get(room).copied() else {
            return;
        };
        let room = &mut self.rooms[index as usize];
        if room.chat.subscribers.is_empty() {
            return;
        }
        let start = room.chat.batch.len();
        append_text(&mut room.chat.batch, &[text.as_bytes()]);
        room.chat.messages += 1;
        if room.chat.filtered > 0 {
            alone(
                &mut room.chat,
                start,
                None,
                &mut self.conns,
                &mut self.touched_conns,
            );
        }
        touch(room, index, &mut self.touched_rooms);
    }

    /// Rooms that `chat.v1` clients of this node hear.
    pub fn rooms(&self) -> Vec<RoomName> {
        self.names.keys().cloned().collect()
    }

    /// Closes a connection: what is queued goes out, then the close frame. It takes no part any
    /// more; its slot is freed when the client has answered, or after two seconds.
    pub fn close(&mut self, id: ConnId, close: &Close, now: Duration) {
        self.append(id, |output| append_close(output, close));
        if let Some(conn) = self.get_mut(id) {
            conn.closing.get_or_insert(now + CLOSING_MAX);
        }
    }

    /// When a closing connection is dropped, whatever its client does.
    pub fn closing(&mut self, id: ConnId) -> Option<Duration> {
        self.get_mut(id)?.closing
    }

    /// Drops a connection and gives back its session. The caller has unsubscribed it.
    pub fn remove(&mut self, id: ConnId) -> Option<S> {
        self.get_mut(id)?;
        self.touched_conns.retain(|key| *key != id.key);
        let conn = self.conns.remove(id.key as usize);
        if let Some(reader) = conn.reader {
            reader.abort();
        }
        Some(conn.session)
    }

    /// Whether the turn has anything to write.
    pub fn has_output(&self) -> bool {
        !self.touched_conns.is_empty() || !self.touched_rooms.is_empty()
    }

    /// Connections that ended, since the last call.
    pub fn take_ended(&mut self) -> Vec<(ConnId, Ended)> {
        std::mem::take(&mut self.ended)
    }

    /// Connections that need [`Fanout::drain`] to be polled, since the last call.
    pub fn take_full(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.full)
    }

    /// Writes to each client, once, all that the turn brought.
    pub fn flush(&mut self, now: Duration) {
        let mut parts = std::mem::take(&mut self.parts);
        let sources = usize::from(!self.touched_conns.is_empty()) + 2 * self.touched_rooms.len();
        parts.extend(self.touched_conns.drain(..).map(|key| (key, Part::Private)));
        for room in &self.touched_rooms {
            for style in [Style::Chat, Style::Plain] {
                let audience = audience(&mut self.rooms[*room as usize], style);
                let length = audience.batch.len();
                for subscriber in &mut audience.subscribers {
                    let skip = std::mem::take(&mut subscriber.skip);
                    if skip < length && subscriber.ahead.is_none() {
                        parts.push((
                            subscriber.key,
                            Part::Batch {
                                room: *room,
                                style,
                                skip,
                            },
                        ));
                    }
                }
            }
        }
        if sources > 1 {
            // Stable: a client's private output, the reply to a join say, precedes its rooms'.
            parts.sort_by_key(|(key, _)| *key);
        }
        for group in parts.chunk_by(|a, b| a.0 == b.0) {
            self.write(group, now);
        }
        parts.clear();
        self.parts = parts;
        for room in self.touched_rooms.drain(..) {
            let room = &mut self.rooms[room as usize];
            room.touched = false;
            for audience in [&mut room.chat, &mut room.plain] {
                audience.batch.clear();
                audience.batch.shrink_to(BATCH_KEPT_BYTES);
                audience.messages = 0;
            }
        }
    }

    /// Writes one client's parts.
    fn write(&mut self, group: &[(u32, Part)], now: Duration) {
        let key = group[0].0;
        let Some(conn) = self.conns.get_mut(key as usize) else {
            return;
        };
        let id = ConnId {
            key,
            serial: conn.serial,
        };
        let private = std::mem::take(&mut conn.private);
        let mut messages = std::mem::take(&mut conn.private_messages);
        conn.touched = false;
        let mut slices = [IoSlice::new(&[]); 64];
        let mut count = 0;
        for (_, part) in group.iter().take(slices.len()) {
            slices[count] = IoSlice::new(match *part {
                Part::Private => &private,
                Part::Batch { room, style, skip } => {
                    let room = &self.rooms[room as usize];
                    let audience = if style == Style::Chat {
                        &room.chat
                    } else {
                        &room.plain
                    };
                    messages += audience.messages;
                    &audience.batch[skip..]
                }
            });
            count += 1;
        }
        self.deliveries += u64::from(messages);
        let slices = &slices[..count];
        let waiting = conn
            .backlog
            .as_ref()
            .is_some_and(|backlog| !backlog.is_empty());
        let written = if waiting {
            Ok(0)
        } else {
            try_write(&conn.write, slices)
        };
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        match written {
            Ok(written) if written == total => {
                conn.backlog = None;
                return conn.finish();
            }
            Ok(written) => {
                let backlog = conn.backlog.get_or_insert_default();
                backlog.queue(slices, written, messages);
            }
            Err(_) => return self.ended.push((id, Ended::Broken)),
        }
        if !std::mem::replace(&mut conn.draining, true) {
            self.full.push(id);
        }
        if conn.closing.is_none() && conn.backlog.as_mut().is_some_and(|b| b.is_slow(now)) {
            self.close_slow(id, now);
        }
    }

    /// Closes a connection that reads too little. Its queue is given up: it resumes elsewhere.
    fn close_slow(&mut self, id: ConnId, now: Duration) {
        self.slow += 1;
        let Some(conn) = self.get_mut(id) else { return };
        let backlog = conn.backlog.get_or_insert_default();
        let mut frame = Vec::new();
        append_close(&mut frame, &SLOW);
        backlog.give_up(&frame);
        conn.closing = Some(now + CLOSING_SLOW_MAX);
        self.ended.push((id, Ended::Slow));
    }

    /// Looks whether a client has been slow for too long.
    pub fn check_slow(&mut self, id: ConnId, now: Duration) {
        let Some(conn) = self.get_mut(id) else { return };
        if conn.closing.is_none() && conn.backlog.as_mut().is_some_and(|b| b.is_slow(now)) {
            self.close_slow(id, now);
        }
    }

    /// Writes a backlog as the socket takes it; ready when nothing is left, or when the connection
    /// has ended.
    ///
    /// # Errors
    /// The socket's: the connection has ended.
    pub fn drain(&mut self, id: ConnId, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(conn) = self.get_mut(id) else {
            return Poll::Ready(Ok(()));
        };
        while let Some(backlog) = &mut conn.backlog
            && !backlog.is_empty()
        {
            let written = ready!(Pin::new(&mut conn.write).poll_write(cx, backlog.front()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            backlog.drain(written);
        }
        conn.backlog = None;
        conn.draining = false;
        conn.finish();
        Poll::Ready(Ok(()))
    }
}

fn audience(room: &mut Room, style: Style) -> &mut Audience {
    match style {
        Style::Chat => &mut room.chat,
        Style::Plain => &mut room.plain,
    }
}

fn touch(room: &mut Room, index: u32, touched: &mut Vec<u32>) {
    if !std::mem::replace(&mut room.touched, true) {
        touched.push(index);
    }
}

/// Gives the newest message of a batch to those who do not take the batch: clients that have seen
/// some of it elsewhere. One that has caught up takes the batches from here on.
fn alone<S>(
    audience: &mut Audience,
    start: usize,
    entry: Option<&Entry>,
    conns: &mut Slab<Conn<S>>,
    touched: &mut Vec<u32>,
) {
    for subscriber in &mut audience.subscribers {
        let Some(ahead) = &mut subscriber.ahead else {
            continue;
        };
        let mut seen = false;
        if let Some(entry) = entry
            && let Some(through) = ahead.get(&entry.origin).copied()
        {
            seen = entry.seq <= through;
            if entry.seq >= through {
                ahead.remove(&entry.origin);
            }
        }
        if !seen && let Some(conn) = conns.get_mut(subscriber.key as usize) {
            conn.private.extend_from_slice(&audience.batch[start..]);
            conn.private_messages += 1;
            if !std::mem::replace(&mut conn.touched, true) {
                touched.push(subscriber.key);
            }
        }
        if ahead.is_empty() {
            subscriber.ahead = None;
            subscriber.skip = audience.batch.len();
            audience.filtered -= 1;
        }
    }
}

fn try_write(write: &OwnedWriteHalf, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let written = match slices {
        [slice] => write.try_write(slice),
        slices => write.try_write_vectored(slices),
    };
    match written {
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
