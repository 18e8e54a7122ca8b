//! Reading clients: one buffer for all of them.
//!
//! Their sockets have a poll of their own. When it tells that sockets are ready, all that they have
//! is read first, in one go, and the turn then writes what came of it: so a turn holds all that was
//! there, and a connection is a slot in a table, with no task, no timer and no buffer.
//!
//! Readiness is told once (it is edge-triggered), so what is told must be used up: a socket is read
//! until it has given less than was asked for, and one that may have more is listed in
//! [`Sockets::again`], which the next turn begins with.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use super::conn::Conn;
use super::pace::ENDED;
use super::rules;
use super::slot::ConnId;
use super::socket::Told;
use super::{Client, Clients};
use crate::core::{Core, Now};

/// Bytes read from a client at once.
const SCRATCH_BYTES: usize = 64 << 10;

/// Whom to read without being told that there is something. Each connection is in here once or
/// twice at the most.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Those that may have more than was read.
    again: Vec<ConnId>,
    /// Those that are not read for a while, by when that ends.
    paused: BTreeSet<(Duration, ConnId)>,
    /// Those that have said all, and that are looked at when the turn has been written.
    said_all: Vec<ConnId>,
    /// Nobody will look at those.
    turns_ended: bool,
    /// Those that have something, while nobody is read.
    held: BTreeSet<ConnId>,
    scratch: Vec<u8>,
}

impl Sockets {
    /// When a turn is needed for reading. While the node catches up, nobody is read.
    pub(super) fn due(&self, catches_up: bool) -> Duration {
        if catches_up {
            Duration::MAX
        } else if self.again.is_empty() && self.said_all.is_empty() && self.held.is_empty() {
            let first = self.paused.first();
            first.map_or(Duration::MAX, |(until, _)| *until)
        } else {
            Duration::ZERO
        }
    }

    /// Whether no turn comes any more.
    pub(super) fn turns_ended(&self) -> bool {
        self.turns_ended
    }

    /// A client is not read until then.
    pub(super) fn pause(&mut self, id: ConnId, until: Duration) {
        self.paused.insert((until, id));
    }
}

impl Clients {
    /// A socket has something, or room, or has ended.
    pub(crate) fn ready(&mut self, core: &mut Core, told: Told, now: Now) {
        let Some(id) = self.table.at(told.token) else {
            return;
        };
        if told.writable {
            if self.table.drain(id).is_err() {
                return self.end(core, id, now);
            }
            self.if_said_all(core, id, now);
        }
        if told.readable || told.ended {
            self.read(core, id, told.ended, now);
        }
    }

    /// Reads those that were not read to the end, and those whose pause is over.
    pub(super) fn read_on(&mut self, core: &mut Core, now: Now) {
        if core.is_catching_up() {
            return;
        }
        let held = std::mem::take(&mut self.sockets.held);
        self.sockets.again.extend(held);
        for id in std::mem::take(&mut self.sockets.again) {
            self.read(core, id, true, now);
        }
        while let Some((until, id)) = self.sockets.paused.first().copied()
            && until <= now.mono
        {
            self.sockets.paused.pop_first();
            let Some(conn) = self.table.get_mut(id) else {
                continue;
            };
            conn.paused = false;
            // What it was told meanwhile was not used up.
            self.sockets.again.push(id);
            self.feed(core, id, &mut [], now);
        }
    }

    /// Reads those of which nobody will tell that there is more, once turns have ended: their end may
    /// have been told with what they said last, or while they were paused. Whether there are more.
    pub(crate) fn read_out(&mut self, core: &mut Core, now: Now) -> bool {
        let paused = std::mem::take(&mut self.sockets.paused);
        let paused = paused.into_iter().map(|(_, id)| id);
        let held = std::mem::take(&mut self.sockets.held);
        self.sockets.again.extend(paused.chain(held));
        for id in std::mem::take(&mut self.sockets.again) {
            self.read(core, id, true, now);
        }
        !self.sockets.again.is_empty()
    }

    /// Reads a client once. `to_end`: nobody will tell that there is more.
    fn read(&mut self, core: &mut Core, id: ConnId, to_end: bool, now: Now) {
        // One that is closed is read whatever it said: its end frees the slot.
        let is_read = |conn: &&mut Conn<Client>| !conn.paused || conn.is_closing();
        let Some(conn) = self.table.get_mut(id).filter(is_read) else {
            return;
        };
        if core.is_catching_up() && !conn.is_closing() {
            self.sockets.held.insert(id);
            return;
        }
        let stream = conn.is_stream();
        let mut scratch = std::mem::take(&mut self.sockets.scratch);
        scratch.resize(SCRATCH_BYTES, 0);
        match conn.read(&mut scratch) {
            // Who ends its side of an event stream has gone; it has nothing to say, and not so much.
            Ok(0 | SCRATCH_BYTES) if stream => self.end(core, id, now),
            Ok(0) => {
                conn.said_all = true;
                self.if_said_all(core, id, now);
            }
            Ok(count) => {
                if to_end || count == SCRATCH_BYTES {
                    self.sockets.again.push(id);
                }
                if !stream {
                    self.feed(core, id, &mut scratch[..count], now);
                }
            }
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            Err(why) if why.kind() == ErrorKind::Interrupted => self.sockets.again.push(id),
            Err(_) => self.end(core, id, now),
        }
        self.sockets.scratch = scratch;
    }

    /// A client that has said all may be through: it is looked at when the turn has been written.
    /// One that is closed has nothing more to wait for.
    pub(super) fn if_said_all(&mut self, core: &mut Core, id: ConnId, now: Now) {
        let Some(conn) = self.table.get_mut(id).filter(|conn| conn.said_all) else {
            return;
        };
        if self.sockets.turns_ended || (conn.is_closing() && conn.is_written()) {
            return self.end(core, id, now);
        }
        self.sockets.said_all.push(id);
    }

    /// There are no turns any more: who has said all goes at once.
    pub(crate) fn end_turns(&mut self, core: &mut Core, now: Now) {
        self.sockets.turns_ended = true;
        // Nobody would look any more whether an event stream has taken all: it comes back for that.
        for id in self.table.share(0, 1) {
            if self.table.is_stream(id) {
                self.end(core, id, now);
            }
        }
        for id in std::mem::take(&mut self.sockets.said_all) {
            self.end(core, id, now);
        }
    }

    /// Closes those that have said all, once they have got all that they asked for. Whoever is
    /// owed something still, or has not read it, is looked at again when that has changed; if it
    /// never does, silence and slowness end it as they end any other.
    pub(super) fn close_those_who_said_all(&mut self, core: &mut Core, now: Now) {
        for id in std::mem::take(&mut self.sockets.said_all) {
            let Some(conn) = self.table.get_mut(id) else {
                continue;
            };
            let closing = conn.is_closing();
            let owed = rules::is_owed(conn.client.waits, conn.client.awaits);
            if conn.has_backlog() || (!closing && owed) {
                continue;
            }
            if closing && conn.is_written() {
                self.end(core, id, now);
                continue;
            }
            self.close(core, id, &ENDED, now);
            self.sockets.said_all.push(id);
        }
    }
}
