//! The clients of this node: their connections, what they ask for and what they are told.
//!
//! A connection is a slot in a [`Table`], with a [`Session`] that turns its bytes into commands. What a
//! client asks for becomes an input of the core ([`serve`]); what the core then tells clients is
//! framed for all who hear it ([`tell`]), and written when the turn ends ([`Table::flush`]). What the
//! core wants of others than clients is left to the caller ([`Clients::take_beyond`]).

pub(crate) mod backlog;
pub(crate) mod conn;
mod flush;
pub(crate) mod pace;
mod patterns;
pub(crate) mod request;
mod rooms;
pub(crate) mod rules;
pub(crate) mod seats;
mod serve;
pub(crate) mod session;
pub(crate) mod slot;
pub(crate) mod socket;
mod sockets;
mod spool;
pub(crate) mod streams;
mod sweep;
mod table;
mod tell;
#[cfg(test)]
mod tests;
mod waiting;
mod watch;
mod watching;
pub(crate) mod websocket;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use base::serve::Admission;
use tokio_util::sync::CancellationToken;

use self::pace::GOING_AWAY;
use self::seats::{Seat, Seats};
use self::session::{Form, Session};
use self::slot::{ConnId, Style};
use self::socket::Socket;
use self::sockets::Sockets;
use self::streams::Streams;
use self::sweep::Sweep;
use self::table::Table;
use self::waiting::Waiting;
use self::websocket::Close;
use crate::core::copies::Ticket;
use crate::core::named::{Mids, NamedBudget};
use crate::core::{Core, Input, Now, Output};
use crate::model::names::{RoomName, UserName};
use crate::model::pattern::Pattern;

pub(crate) use self::waiting::Said;

/// What a connection is to the node.
#[derive(Debug)]
struct Client {
    side: Side,
    /// The name that messages of it carry; `None` before hello, and of an event stream.
    name: Option<UserName>,
    /// What it has named of a room, or of those of a pattern, for the join or watch that follows.
    seen: Option<Box<(Pattern, Mids)>>,
    /// A request of it waits for the disk or for other nodes; those behind it wait.
    waits: bool,
    /// Messages of it whose outcome is not known yet: they wait for the disk, or for copies.
    awaits: u32,
}

/// What a client has to say.
#[derive(Debug)]
enum Side {
    /// Requests, or bare texts.
    Says(Session),
    /// It is fed: its session is lent out.
    Fed,
    /// Nothing: it is an event stream, on which something was said last at this time.
    Hears(Duration),
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// WebSocket connections accepted.
    pub(crate) accepted: u64,
    /// Requests refused.
    pub(crate) refused: u64,
    /// Messages that the disk had no room or no time for.
    pub(crate) not_taken: u64,
    /// Spans of entries that nobody had.
    pub(crate) holes: u64,
    /// Messages written or queued, times clients.
    pub(crate) deliveries: u64,
    /// Connections closed as slow.
    pub(crate) slow: u64,
}

/// How many clients there are, and what waits for them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    /// Connections, streams among them.
    pub(crate) all: usize,
    /// Event streams.
    pub(crate) streams: usize,
    /// Seats that event streams have taken, those that are about to begin among them.
    pub(crate) stream_seats: usize,
    /// Bytes that are kept because some have not read them yet.
    pub(crate) spooled: usize,
    /// Patterns that somebody watches.
    pub(crate) patterns: usize,
    /// Totals since the start.
    pub(crate) totals: Totals,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    table: Table<Client>,
    sockets: Sockets,
    streams: Streams,
    /// Who waits for an answer of the core.
    waiting: HashMap<Ticket, Waiting>,
    seats: Seats,
    /// Messages a second that one client may send; 0 is no limit.
    rate_limit: u32,
    /// What clients may name of what they were shown elsewhere.
    named: NamedBudget,
    tickets: u64,
    guests: u64,
    sweep: Sweep,
    /// All were closed; who comes still is closed at once.
    closed: bool,
    totals: Totals,
    spare: Vec<Output>,
    /// What the core wants of others than clients.
    beyond: Vec<Output>,
    /// Whether others than clients are told what is shown in the plain form's room.
    is_bridged: bool,
}

impl Clients {
    /// Nobody yet. Sockets will be registered here, each with its slot as the token; so many clients
    /// may stay at once.
    pub(crate) fn new(
        readiness: mio::Registry,
        clients_max: usize,
        rate_limit: u32,
        is_bridged: bool,
    ) -> Self {
        Self {
            table: Table::new(readiness),
            sockets: Sockets::default(),
            streams: Streams::default(),
            waiting: HashMap::new(),
            seats: Seats::new(clients_max),
            rate_limit,
            named: NamedBudget::default(),
            tickets: 0,
            guests: 0,
            sweep: Sweep::default(),
            closed: false,
            totals: Totals::default(),
            spare: Vec::new(),
            beyond: Vec::new(),
            is_bridged,
        }
    }

    /// Takes a WebSocket whose handshake is done. `begun` is what came with the handshake; `plain` is
    /// the room of a client of the plain form.
    ///
    /// # Errors
    /// The kernel has no memory for watching one more.
    pub(crate) fn adopt(
        &mut self,
        core: &mut Core,
        (socket, held): (impl Into<Socket>, (Admission, Seat)),
        begun: &[u8],
        plain: Option<RoomName>,
        now: Now,
    ) -> io::Result<()> {
        let (style, form) = match plain {
            Some(_) => (Style::Plain, Form::Plain),
            None => (Style::Chat, Form::Chat),
        };
        let client = Client {
            side: Side::Says(Session::new(form, now.mono)),
            name: plain.is_some().then(|| self.guest_name(core)),
            seen: None,
            waits: false,
            awaits: 0,
        };
        let id = self.table.adopt(socket, held, style, client)?;
        self.totals.accepted += 1;
        if self.closed {
            self.close(core, id, &GOING_AWAY, now);
            return Ok(());
        }
        if let Some(room) = plain {
            self.enter_plain(core, id, &room, now);
        }
        if !begun.is_empty() {
            self.feed(core, id, &mut begun.to_vec(), now);
        }
        Ok(())
    }

    /// Closes all, and whoever comes still.
    pub(crate) fn close_all(&mut self, core: &mut Core, now: Now) {
        self.closed = true;
        // Who is about to begin a stream comes back, and not to this node.
        self.waiting
            .retain(|_, waiting| !matches!(waiting, Waiting::Stream(_)));
        for id in self.table.share(0, 1) {
            self.close(core, id, &GOING_AWAY, now);
        }
    }

    /// Closes a connection: it leaves its rooms at once and is told why.
    fn close(&mut self, core: &mut Core, id: ConnId, close: &Close, now: Now) {
        self.leave_all(core, id, now);
        self.table.close(id, close, now.mono);
    }

    /// Drops a connection.
    fn end(&mut self, core: &mut Core, id: ConnId, now: Now) {
        self.leave_all(core, id, now);
        self.table.remove(id);
    }

    fn leave_all(&mut self, core: &mut Core, id: ConnId, now: Now) {
        let Some(name) = self.client(id).map(|client| client.name.clone()) else {
            return;
        };
        self.table.unwatch_all(id);
        let rooms: Vec<RoomName> = self.table.rooms_of(id).cloned().collect();
        for room in rooms {
            self.table.unsubscribe(id, &room);
            // An event stream is no member.
            if let Some(name) = &name {
                core.handle(Input::Leave(&room, name), now);
            }
        }
    }

    fn client(&mut self, id: ConnId) -> Option<&mut Client> {
        self.table.get_mut(id).map(|conn| &mut conn.client)
    }

    /// A name for somebody who gave none.
    fn guest_name(&mut self, core: &Core) -> UserName {
        self.guests += 1;
        let origin = core.identity().origin;
        format!("guest-{}-{}", &origin.as_str()[..4], self.guests)
            .parse()
            .expect("letters, digits and hyphens, 31 characters at the most")
    }

    /// A ticket for who waits for an answer of the core.
    fn wait(&mut self, waiting: Waiting) -> Ticket {
        let ticket = self.ticket();
        self.waiting.insert(ticket, waiting);
        ticket
    }

    /// A ticket for whose answer nobody waits.
    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// What the core wanted of others than clients, in order, leaving `spare` to be filled.
    pub(crate) fn take_beyond(&mut self, spare: Vec<Output>) -> Vec<Output> {
        std::mem::replace(&mut self.beyond, spare)
    }

    /// One seat for each who may stay.
    pub(crate) fn seats(&self) -> &Seats {
        &self.seats
    }

    /// How many there are, and what waits for them.
    pub(crate) fn count(&self) -> Count {
        Count {
            all: self.table.len(),
            streams: self.table.streams(),
            stream_seats: self.seats.streams(),
            spooled: self.table.spooled(),
            patterns: self.table.patterns(),
            totals: Totals {
                deliveries: self.table.deliveries,
                slow: self.table.slow,
                ..self.totals
            },
        }
    }

    /// Tells when whoever waits for an answer has gone, if that may be before the answer.
    pub(crate) fn gone(&self, ticket: Ticket) -> Option<CancellationToken> {
        match self.waiting.get(&ticket) {
            Some(Waiting::Task(_, gone)) => Some(gone.clone()),
            _ => None,
        }
    }

    /// How many wait for an answer of the core.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Whether something waits to be written.
    pub(crate) fn has_output(&self) -> bool {
        self.table.has_output()
    }

    /// When a turn is needed for reading.
    pub(crate) fn reads_due(&self, core: &Core) -> Duration {
        self.sockets.due(core.is_catching_up())
    }
}
