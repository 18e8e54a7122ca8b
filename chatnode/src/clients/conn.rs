//! One client's connection: its socket, and what waits for it.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use base::serve::Admission;

use super::backlog::{Backlog, QUEUE_BYTES_MAX};
use super::rooms::Place;
use super::rules;
use super::seats::Seat;
use super::slot::{SLOW, Style};
use super::socket::Socket;
use super::spool::Spool;
use super::watching::Watch;
use super::websocket::append_close;

/// How long a closed connection may take to say goodbye.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// The same for one that was slow, and has much to read before it sees why.
pub(crate) const CLOSING_SLOW_MAX: Duration = Duration::from_secs(10);

/// Bytes of a backlog that are written before others have their turn.
const DRAINED_MAX: usize = 256 << 10;

/// One client's connection: where its output goes, and the client `S` behind it.
#[derive(Debug)]
pub(crate) struct Conn<S> {
    /// Whose it is.
    pub(crate) client: S,
    pub(super) serial: u32,
    pub(super) style: Style,
    pub(super) touched: bool,
    /// It is not read for a while.
    pub(crate) paused: bool,
    /// Its client has ended its side: it says nothing more, and may still read.
    pub(crate) said_all: bool,
    /// Nothing more may be written to it.
    pub(super) closed_as_slow: bool,
    pub(super) closing: Option<Duration>,
    pub(super) socket: Socket,
    pub(super) private: Vec<u8>,
    pub(super) private_messages: u32,
    backlog: Option<Box<Backlog>>,
    /// The rooms that it has joined,
    pub(super) places: Vec<Place>,
    /// and what it watches.
    #[expect(
        clippy::box_collection,
        reason = "a word instead of three for all who watch nothing"
    )]
    pub(super) watches: Option<Box<Vec<Watch>>>,
    _held: (Admission, Seat),
}

impl<S> Conn<S> {
    pub(super) fn new(
        socket: Socket,
        held: (Admission, Seat),
        style: Style,
        serial: u32,
        client: S,
    ) -> Self {
        Self {
            client,
            serial,
            style,
            touched: false,
            paused: false,
            said_all: false,
            closed_as_slow: false,
            closing: None,
            socket,
            private: Vec::new(),
            private_messages: 0,
            backlog: None,
            places: Vec::new(),
            watches: None,
            _held: held,
        }
    }

    /// Whether it is an event stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.style == Style::Events
    }

    /// Its place in an audience of a slot.
    pub(super) fn place_in(&mut self, slot: u32, is_quiet: bool) -> Option<&mut Place> {
        let watches = self.watches.iter_mut().flat_map(|it| it.iter_mut());
        let watched = watches.filter_map(|watch| watch.place.as_mut());
        let mut all = self.places.iter_mut().chain(watched);
        all.find(|place| place.room == slot && place.is_quiet == is_quiet)
    }

    /// Bytes that wait for this client alone.
    pub(super) fn pending(&self) -> usize {
        self.private.len() + self.backlog.as_ref().map_or(0, |backlog| backlog.len())
    }

    /// Whether something waits that its socket did not take.
    pub(crate) fn has_backlog(&self) -> bool {
        let backlog = self.backlog.as_ref();
        backlog.is_some_and(|backlog| !backlog.is_empty())
    }

    /// Whether all that was for it alone has been written.
    pub(crate) fn is_written(&self) -> bool {
        !self.touched && !self.has_backlog()
    }

    /// Bytes of a reply that the client asked for do not make it slow.
    pub(super) fn grant(&mut self, bytes: usize) {
        self.backlog.get_or_insert_default().grant(bytes);
    }

    /// Whether it takes no part any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    pub(super) fn begin_closing(&mut self, now: Duration) {
        self.closing.get_or_insert(now + CLOSING_MAX);
    }

    /// Reads what the socket has, into a buffer that is lent.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` if nothing is there.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }

    /// Writes what the socket takes now, unless something waits already: how many bytes.
    ///
    /// # Errors
    /// The socket's: the connection has ended.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.has_backlog() {
            return Ok(0);
        }
        let written = try_write(&mut self.socket, slices)?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if written == total {
            self.backlog = None;
            self.finish();
        }
        Ok(written)
    }

    /// What waits, to be added to.
    pub(super) fn backlog(&mut self) -> &mut Backlog {
        self.backlog.get_or_insert_default()
    }

    /// The oldest chunk that waits.
    pub(super) fn oldest(&self) -> Option<u64> {
        let backlog = self.backlog.as_ref().filter(|_| self.closing.is_none());
        backlog.and_then(|backlog| backlog.oldest())
    }

    /// All was written. If that ended with a close frame, nothing more will be: the client reads
    /// that, and the end of the stream behind it, while this node still reads what the client had
    /// under way. Dropping the socket now would reset it, and the close frame could be lost.
    fn finish(&mut self) {
        if self.closing.is_some() {
            // If it fails, the client has gone already.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Closes the connection if it reads too little; `true` if that happened now.
    pub(super) fn close_if_slow(&mut self, spool: &mut Spool, now: Duration) -> bool {
        // A stream's own are copies of what was said, for who has seen something ahead of this node.
        let most = match self.style {
            Style::Events => QUEUE_BYTES_MAX,
            Style::Chat | Style::Plain | Style::Quiet => usize::MAX,
        };
        let is_slow = |backlog: &mut Box<Backlog>| backlog.is_slow(now) || backlog.own() > most;
        let slow = self.closing.is_none() && self.backlog.as_mut().is_some_and(is_slow);
        if slow {
            self.close_as_slow(spool, now);
        }
        slow
    }

    /// Closes the connection as slow. Its queue is given up: it comes back and resumes.
    pub(super) fn close_as_slow(&mut self, spool: &mut Spool, now: Duration) {
        let mut frame = Vec::new();
        if self.style == Style::Events {
            // An event that is cut off counts for nothing: the client comes back and gets it.
            self.backlog().clear(spool);
        } else {
            append_close(&mut frame, &SLOW);
            let frame = rules::last_words(frame);
            self.backlog().give_up(spool, &frame);
        }
        self.private = Vec::new();
        self.closed_as_slow = true;
        self.closing = Some(now + CLOSING_SLOW_MAX);
        if self.style == Style::Events {
            self.finish();
        }
    }

    /// Gives back what it holds of others'.
    pub(super) fn release(&mut self, spool: &mut Spool) {
        if let Some(backlog) = &mut self.backlog {
            backlog.clear(spool);
        }
    }

    /// Writes of the backlog what the socket takes, but not much more than [`DRAINED_MAX`]; whether it
    /// may take more.
    ///
    /// # Errors
    /// The socket's: the connection has ended.
    pub(super) fn drain(&mut self, spool: &mut Spool) -> io::Result<bool> {
        let Some(backlog) = &mut self.backlog else {
            return Ok(false);
        };
        if backlog.is_empty() && self.closing.is_none() {
            // What was granted is for what comes.
            return Ok(false);
        }
        let socket = &mut self.socket;
        let mut drained = 0;
        while !backlog.is_empty() {
            if drained >= DRAINED_MAX {
                return Ok(true);
            }
            let (offered, taken) = backlog.write(spool, |slices| try_write(socket, slices))?;
            if taken < offered {
                return Ok(false);
            }
            drained += taken;
        }
        self.backlog = None;
        self.finish();
        Ok(false)
    }
}

/// Writes what the socket takes; none if it would block.
fn try_write(socket: &mut Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        let written = match slices {
            [slice] => socket.write(slice),
            slices => socket.write_vectored(slices),
        };
        match written {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            written => return written,
        }
    }
}
