//! The end of a turn: each client is written once what it brought, and whoever does not take all
//! holds its place.

use std::io::{self, IoSlice};
use std::time::Duration;

use super::rules;
use super::slot::{ConnId, Ended, Part, Style, narrow};
use super::table::Table;
use crate::wire::protocol::{PATTERNS_MAX, ROOMS_MAX};

/// Slices that one client is written at once: its own, and one for each room it may be in, and each pattern
/// that it may watch.
const SLICES_MAX: usize = 1 + ROOMS_MAX + PATTERNS_MAX;

/// Clients that one turn closes as slow at the most: to give up what waits for a client takes as long
/// as that is much, and many are slow at the same time. The others are closed by the next turns.
const SLOW_A_TURN: u64 = 32;

impl<S> Table<S> {
    /// Writes to each client, once, all that the turn brought.
    pub(crate) fn flush(&mut self, now: Duration) {
        let mut parts = std::mem::take(&mut self.parts);
        parts.extend(self.touched.drain(..).map(|key| (key, Part::Private)));
        let alone = parts.len();
        let mut sources = usize::from(alone > 0);
        for index in 0..self.rooms.touched().len() {
            let room = self.rooms.touched()[index];
            for style in [Style::Chat, Style::Plain, Style::Events, Style::Quiet] {
                sources += usize::from(self.rooms.collect(room, style, &mut parts));
            }
        }
        if sources > 1 {
            // Stable: a client's private output, the reply to a join say, precedes its rooms'.
            parts.sort_by_key(|(key, _)| *key);
        }
        for group in parts.chunk_by(|a, b| a.0 == b.0) {
            self.write(group);
        }
        parts.clear();
        self.parts = parts;
        self.rooms.clear(&mut self.spool);
        let mut behind = std::mem::take(&mut self.behind);
        let most = self.slow + SLOW_A_TURN;
        for id in behind.drain(..) {
            if self.slow < most {
                self.check_slow(id, now);
            }
        }
        self.behind = behind;
        if self.spool.is_full() {
            self.make_room(now);
        }
    }

    /// Too much waits for all clients together: closes those furthest behind.
    fn make_room(&mut self, now: Duration) {
        let behind = self.conns.iter().filter_map(|(key, conn)| {
            let id = ConnId {
                key: narrow(key),
                serial: conn.serial,
            };
            Some((conn.oldest()?, id))
        });
        let mut behind: Vec<_> = behind.collect();
        behind.sort_unstable();
        for (_, id) in behind {
            if self.spool.has_room() {
                break;
            }
            self.conns[id.key as usize].close_as_slow(&mut self.spool, now);
            self.closed_as_slow(id);
        }
    }

    /// Writes one client's parts. What its socket does not take waits, as a place in what was said.
    fn write(&mut self, group: &[(u32, Part)]) {
        let key = group[0].0;
        let Some(conn) = self.conns.get_mut(key as usize) else {
            return;
        };
        let id = ConnId {
            key,
            serial: conn.serial,
        };
        let mut private = std::mem::take(&mut conn.private);
        let own_messages = std::mem::take(&mut conn.private_messages);
        conn.touched = false;
        let mut messages = own_messages;
        let mut slice = |(_, part): &(u32, Part)| {
            IoSlice::new(match *part {
                Part::Private => &private,
                Part::Batch { room, style, skip } => {
                    let audience = self.rooms.room(room).audience(style);
                    messages += audience.messages;
                    &audience.batch[skip..]
                }
            })
        };
        let (one, mut many);
        // Mostly it is one, and an array for the most there can be would cost more than the rest.
        let slices = if let [part] = group {
            one = [slice(part)];
            &one[..]
        } else {
            many = [IoSlice::new(&[]); SLICES_MAX];
            let parts = many.iter_mut().zip(group);
            let count = parts.map(|(place, part)| *place = slice(part)).count();
            &many[..count]
        };
        self.deliveries += u64::from(messages);
        if conn.closed_as_slow {
            return;
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = match conn.write(slices) {
            Ok(written) if written == total => return,
            Ok(written) => written,
            Err(_) => return self.ended.push((id, Ended::Broken)),
        };
        self.behind.push(id);
        for (_, part) in group {
            match *part {
                Part::Private => {
                    let taken = written.min(private.len());
                    if rules::waits_for_room(private.len(), taken) {
                        let frames = std::mem::take(&mut private);
                        conn.backlog().queue_own(frames, taken, own_messages);
                    }
                    written -= taken;
                }
                Part::Batch { room, style, skip } => {
                    let len = self.rooms.room(room).audience(style).batch.len() - skip;
                    let taken = written.min(len);
                    if taken < len {
                        let chunk = self.rooms.chunk(room, style, &mut self.spool);
                        let backlog = conn.backlog();
                        backlog.queue_chunk(&mut self.spool, chunk, rules::goes_on_at(skip, taken));
                    }
                    written -= taken;
                }
            }
        }
    }

    /// Looks whether a client has been slow for too long.
    pub(crate) fn check_slow(&mut self, id: ConnId, now: Duration) {
        let conn = self.conns.get_mut(id.key as usize);
        let Some(conn) = conn.filter(|conn| conn.serial == id.serial) else {
            return;
        };
        if conn.close_if_slow(&mut self.spool, now) {
            self.closed_as_slow(id);
        }
    }

    fn closed_as_slow(&mut self, id: ConnId) {
        self.slow += 1;
        self.ended.push((id, Ended::Slow));
    }

    /// Writes of a backlog what the socket takes: it has room again.
    ///
    /// # Errors
    /// The socket's: the connection has ended.
    pub(crate) fn drain(&mut self, id: ConnId) -> io::Result<()> {
        let conn = self.conns.get_mut(id.key as usize);
        let conn = conn.filter(|conn| conn.serial == id.serial);
        if let Some(conn) = conn
            && conn.drain(&mut self.spool)?
        {
            // Its socket has room: nobody would tell.
            self.unfinished.push(id);
        }
        Ok(())
    }
}
