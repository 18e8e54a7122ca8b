//! Reading clients: one task and one buffer for all of them.
//!
//! Their sockets have a poll of their own, and tokio watches that. When it tells that sockets are
//! ready, all that they have is read first, in one go, and the turn task then writes what came of
//! it: so a turn holds all that was there, and a connection is a slot in a table, with no task, no
//! timer and no buffer.
//!
//! Readiness is told once (it is edge-triggered), so what is told must be used up: a socket is read
//! until it has given less than was asked for, and one that may have more is listed in
//! [`Reads::again`], which the next turn begins with.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::time::Duration;

use base::serve::Admission;
use mio::event::Event;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use super::{Errand, Hub, Node, SCRATCH_BYTES};
use crate::clients::seats::Seat;
use crate::clients::session::{ENDED, Session};
use crate::clients::websocket::{Close, Message, append_pong};
use crate::clients::{Conn, ConnId, Style};
use crate::core::Now;
use crate::model::names::RoomName;

/// Sockets that are read before the turn ends; more are the next turn's.
const READS_MAX: usize = 1024;

/// How often a stopping node looks whether clients are left.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whom to read without being told that there is something. Each connection is in here once or
/// twice at the most.
#[derive(Debug, Default)]
pub(super) struct Reads {
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
    /// The node catches up: nobody is read.
    nobody: bool,
}

impl Reads {
    /// When a turn is needed for reading.
    pub(super) fn due(&self) -> Duration {
        if self.nobody {
            Duration::MAX
        } else if self.again.is_empty() && self.said_all.is_empty() {
            let first = self.paused.first();
            first.map_or(Duration::MAX, |(until, _)| *until)
        } else {
            Duration::ZERO
        }
    }
}

/// Lets the runtime watch a poll.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe, as a descriptor must stay open while it is watched; a \
              poll owns its own"
)]
fn watched(poll: mio::Poll) -> io::Result<AsyncFd<mio::Poll>> {
    AsyncFd::new(poll)
}

impl Hub {
    /// Serves a WebSocket whose handshake is done. `begun` is what came with the handshake.
    /// `plain`: the room, for the plain form. `seat`: what it was given at the handshake.
    pub(crate) async fn serve_websocket(
        &self,
        stream: TcpStream,
        begun: &[u8],
        plain: Option<RoomName>,
        seat: Seat,
        admission: Admission,
    ) {
        // A client that comes early waits, so that its history and its stream are one cut.
        let mut comes = match stream.into_std() {
            Ok(stream) => {
                let socket = mio::net::TcpStream::from_std(stream);
                Some((socket, plain, seat, admission))
            }
            Err(why) => return tracing::warn!("a client cannot be served: {why}"),
        };
        let closing = self.look(|node| node.closing.clone());
        while comes.is_some() {
            tokio::select! {
                biased;
                () = self.ready() => {}
                () = closing.cancelled() => {}
            }
            let adopted = self.with(|node, now| {
                match comes.take_if(|_| closing.is_cancelled() || node.takes_clients()) {
                    Some((socket, plain, seat, admission)) => {
                        node.adopt(socket, begun, plain, seat, admission, now)
                    }
                    // It was stopped between the two.
                    None => Ok(()),
                }
            });
            if let Err(why) = adopted {
                tracing::warn!("a client cannot be served: {why}");
            }
        }
    }

    /// Reads clients as long as the process runs, and then until the last one has ended.
    ///
    /// # Errors
    /// The poll failed.
    pub(crate) async fn run_clients(self, poll: mio::Poll) -> anyhow::Result<()> {
        let mut poll = watched(poll)?;
        let mut events = mio::Events::with_capacity(READS_MAX);
        let stopping = self.tasks().stopping();
        let mut stopped = std::pin::pin!(stopping.cancelled());
        while !stopping.is_cancelled() || self.look(|node| !node.clients.is_empty()) {
            let is_stopping = stopping.is_cancelled();
            if is_stopping && self.with(Node::read_out) {
                tokio::task::yield_now().await;
                continue;
            }
            // Cancel safe: readiness stays until it is cleared.
            tokio::select! {
                biased;
                ready = poll.readable_mut() => ready?.clear_ready(),
                () = &mut stopped, if !is_stopping => continue,
                // The last turn, which is still to come, may end the last client.
                () = tokio::time::sleep(LOOK_EVERY), if is_stopping => continue,
            }
            // Readiness was cleared first: what comes from here on wakes this task again.
            loop {
                match poll.get_mut().poll(&mut events, Some(Duration::ZERO)) {
                    Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                    polled => polled?,
                }
                let count = events.iter().count();
                if count > 0 {
                    self.with(|node, now| events.iter().for_each(|event| node.ready(event, now)));
                }
                if count < READS_MAX {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Starts a task for what has to wait.
    pub(super) fn run(&self, errand: Errand) {
        let hub = self.clone();
        match errand {
            Errand::Fetch(fetch, url, bytes) => {
                self.tasks().spawn(hub.fetch(fetch, url, bytes));
            }
            Errand::FetchMembers(origin, url) => {
                self.tasks().spawn(hub.fetch_members(origin, url));
            }
            Errand::AskPosition(origin, url) => {
                self.tasks().spawn(hub.ask_position(origin, url));
            }
            Errand::Late(late) => {
                self.tasks().spawn(hub.late(late));
            }
            Errand::Search(conn, request, search) => {
                self.tasks().spawn(hub.late_search(conn, request, search));
            }
            Errand::Hello(origin, url) => {
                self.tasks().spawn(hub.hello(origin, url));
            }
        }
    }
}

impl Node {
    fn adopt(
        &mut self,
        socket: mio::net::TcpStream,
        begun: &[u8],
        plain: Option<RoomName>,
        seat: Seat,
        admission: Admission,
        now: Now,
    ) -> io::Result<()> {
        let style = if plain.is_some() {
            Style::Plain
        } else {
            Style::Chat
        };
        let name = plain.is_some().then(|| self.guest_name());
        let session = Session::new(name, now.mono);
        let id = self
            .clients
            .adopt(socket, (admission, seat), style, session)?;
        self.counters.accepted += 1;
        if self.closing.is_cancelled() {
            self.close(id, &crate::clients::session::GOING_AWAY, now);
            return Ok(());
        }
        if let Some(room) = plain {
            self.plain_open(id, &room, now);
        }
        if !begun.is_empty() {
            self.feed(id, &mut begun.to_vec(), now);
        }
        Ok(())
    }

    /// A socket has something, or room, or has ended.
    fn ready(&mut self, event: &Event, now: Now) {
        let Some(id) = self.clients.at(event.token()) else {
            return;
        };
        if event.is_writable() {
            if self.clients.drain(id).is_err() {
                return self.end(id);
            }
            self.if_said_all(id);
        }
        let ended = event.is_read_closed() || event.is_error();
        if event.is_readable() || ended {
            self.read(id, ended, now);
        }
    }

    /// Reads no client from now on, or those again that have something.
    pub(super) fn read_nobody(&mut self, nobody: bool) {
        self.reads.nobody = nobody;
        if !nobody {
            self.reads
                .again
                .extend(std::mem::take(&mut self.reads.held));
        }
    }

    /// Reads those that were not read to the end, and those whose pause is over.
    pub(super) fn read_on(&mut self, now: Now) {
        if self.reads.nobody {
            return;
        }
        for id in std::mem::take(&mut self.reads.again) {
            self.read(id, true, now);
        }
        while let Some((until, id)) = self.reads.paused.first().copied()
            && until <= now.mono
        {
            self.reads.paused.pop_first();
            let Some(conn) = self.clients.get_mut(id) else {
                continue;
            };
            conn.paused = false;
            // What it was told meanwhile was not used up.
            self.reads.again.push(id);
            self.feed(id, &mut [], now);
        }
    }

    /// Reads those of which nobody will tell that there is more, once turns have ended: their end may
    /// have been told with what they said last, or while they were paused. Whether there are more.
    fn read_out(&mut self, now: Now) -> bool {
        let paused = std::mem::take(&mut self.reads.paused);
        self.reads
            .again
            .extend(paused.into_iter().map(|(_, id)| id));
        for id in std::mem::take(&mut self.reads.again) {
            self.read(id, true, now);
        }
        !self.reads.again.is_empty()
    }

    /// Reads a client once. `to_end`: nobody will tell that there is more.
    fn read(&mut self, id: ConnId, to_end: bool, now: Now) {
        // One that is closed is read whatever it said: its end frees the slot.
        let is_read = |conn: &&mut Conn<Session>| !conn.paused || conn.is_closing();
        let Some(conn) = self.clients.get_mut(id).filter(is_read) else {
            return;
        };
        if self.reads.nobody && !conn.is_closing() {
            self.reads.held.insert(id);
            return;
        }
        let stream = conn.is_stream();
        let mut scratch = std::mem::take(&mut self.scratch);
        // Empty only if a panic left it behind.
        scratch.resize(SCRATCH_BYTES, 0);
        match conn.read(&mut scratch) {
            // Who ends its side of an event stream has gone; it has nothing to say, and not so much.
            Ok(0 | SCRATCH_BYTES) if stream => self.end(id),
            Ok(0) => {
                conn.said_all = true;
                self.if_said_all(id);
            }
            Ok(count) => {
                if to_end || count == SCRATCH_BYTES {
                    self.reads.again.push(id);
                }
                if !stream {
                    self.feed(id, &mut scratch[..count], now);
                }
            }
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            Err(why) if why.kind() == ErrorKind::Interrupted => self.reads.again.push(id),
            Err(_) => self.end(id),
        }
        self.scratch = scratch;
    }

    /// A client that has said all may be through: it is looked at when the turn has been written.
    /// One that is closed has nothing more to wait for.
    pub(super) fn if_said_all(&mut self, id: ConnId) {
        let Some(conn) = self.clients.get_mut(id).filter(|conn| conn.said_all) else {
            return;
        };
        if self.reads.turns_ended || (conn.is_closing() && conn.is_written()) {
            return self.end(id);
        }
        self.reads.said_all.push(id);
    }

    /// There are no turns any more: who has said all goes at once.
    pub(super) fn end_turns(&mut self) {
        self.reads.turns_ended = true;
        // Nobody would look any more whether an event stream has taken all: it comes back for that.
        for id in self.clients.share(0, 1) {
            if self.clients.is_stream(id) {
                self.end(id);
            }
        }
        for id in std::mem::take(&mut self.reads.said_all) {
            self.end(id);
        }
    }

    /// Closes those that have said all, once they have got all that they asked for. Whoever is
    /// owed something still, or has not read it, is looked at again when that has changed; if it
    /// never does, silence and slowness end it as they end any other.
    pub(super) fn close_those_who_said_all(&mut self, now: Now) {
        for id in std::mem::take(&mut self.reads.said_all) {
            let Some(conn) = self.clients.get_mut(id) else {
                continue;
            };
            let closing = conn.is_closing();
            if conn.has_backlog() || (!closing && conn.session.is_owed()) {
                continue;
            }
            if closing && conn.is_written() {
                self.end(id);
                continue;
            }
            self.close(id, &ENDED, now);
            self.reads.said_all.push(id);
        }
    }

    /// Takes bytes of a client; what it must not say yet is kept until its pause is over.
    fn feed(&mut self, id: ConnId, bytes: &mut [u8], now: Now) {
        if !self.clients.is_open(id) {
            // Closed here; what still comes is read and dropped until the client ends it too.
            return;
        }
        let Some(conn) = self.clients.get_mut(id) else {
            return;
        };
        let rest = conn.session.rest.take();
        let held_up = rest.is_some_and(|rest| self.chat_text(id, &rest, now).is_break());
        if !held_up {
            self.decode(id, bytes, now);
        }
        if let Some(wait) = self.pause.take()
            && let Some(conn) = self.clients.get_mut(id)
        {
            conn.paused = true;
            self.reads.paused.insert((now.mono + wait, id));
        }
    }

    fn decode(&mut self, id: ConnId, bytes: &mut [u8], now: Now) {
        let Some(conn) = self.clients.get_mut(id) else {
            return;
        };
        let mut decoder = std::mem::take(&mut conn.decoder);
        match decoder.feed(bytes, |message| self.message(id, message, now)) {
            Ok(()) => {
                if let Some(conn) = self.clients.get_mut(id) {
                    conn.decoder = decoder;
                }
            }
            Err(close) => {
                self.counters.refused += 1;
                self.close(id, &close, now);
            }
        }
    }

    fn message(&mut self, id: ConnId, message: Message<'_>, now: Now) -> ControlFlow<()> {
        let rate_limit = self.settings.rate_limit;
        let chat = self.clients.is_chat(id);
        let Some(conn) = self.clients.get_mut(id) else {
            return ControlFlow::Break(());
        };
        // A message that trickles is no sign of life until it is whole.
        if message != Message::Fragment {
            conn.session.heard(now.mono);
        }
        // Whatever comes is counted here, and nowhere else. An empty text is a line as well.
        let count = match message {
            Message::Text(text) if chat => text.lines().count().max(1),
            // It has a pace of its own.
            Message::Text(_) => 0,
            Message::Ping(_) | Message::Pong | Message::Fragment | Message::Close(_) => 1,
        };
        let counted = conn.session.count_frames(count, rate_limit, now.mono);
        if let Err(flooding) = counted {
            self.close(id, &flooding, now);
            return ControlFlow::Break(());
        }
        match message {
            Message::Text(text) if chat => self.chat_text(id, text, now),
            Message::Text(text) => self.plain_text(id, text, now),
            Message::Ping(payload) => {
                self.clients
                    .append(id, |output| append_pong(output, payload));
                ControlFlow::Continue(())
            }
            Message::Pong | Message::Fragment => ControlFlow::Continue(()),
            Message::Close(code) => {
                // RFC 6455 section 5.5.1: the answer carries the same code; 1005 stands for none.
                let code = if code == 1005 { 1000 } else { code };
                self.close(id, &Close::new(code, ""), now);
                ControlFlow::Break(())
            }
        }
    }
}
