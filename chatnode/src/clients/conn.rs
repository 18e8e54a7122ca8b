//! One client's connection: its socket, and what waits for it.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use base::serve::Admission;
use mio::net::TcpStream;

use super::backlog::Backlog;
use super::rooms::Place;
use super::seats::Seat;
use super::{SLOW, Style};
use crate::clients::websocket::{Decoder, append_close};

/// How long a closed connection may take to say goodbye.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// The same for one that was slow, and has much to read before it sees why.
const CLOSING_SLOW_MAX: Duration = Duration::from_secs(10);

/// One client's connection: where its output goes, and the session `S` behind it.
#[derive(Debug)]
pub struct Conn<S> {
    /// What the protocol keeps of it.
    pub session: S,
    pub(super) serial: u32,
    pub(super) style: Style,
    pub(super) touched: bool,
    /// It is not read for a while.
    pub paused: bool,
    /// Its client has ended its side: it says nothing more, and may still read.
    pub said_all: bool,
    /// Nothing more may be written to it.
    closed_as_slow: bool,
    pub(super) closing: Option<Duration>,
    pub(super) socket: TcpStream,
    /// What has come of a frame that is not whole yet.
    pub decoder: Decoder,
    pub(super) private: Vec<u8>,
    pub(super) private_messages: u32,
    backlog: Option<Box<Backlog>>,
    pub(super) places: Vec<Place>,
    _held: (Admission, Seat),
}

impl<S> Conn<S> {
    pub(super) fn new(
        socket: TcpStream,
        held: (Admission, Seat),
        style: Style,
        serial: u32,
        session: S,
    ) -> Self {
        Self {
            session,
            serial,
            style,
            touched: false,
            paused: false,
            said_all: false,
            closed_as_slow: false,
            closing: None,
            socket,
            decoder: Decoder::default(),
            private: Vec::new(),
            private_messages: 0,
            backlog: None,
            places: Vec::new(),
            _held: held,
        }
    }

    /// Bytes that wait for this client alone.
    pub(super) fn pending(&self) -> usize {
        self.private.len() + self.backlog.as_ref().map_or(0, |backlog| backlog.len())
    }

    /// Whether something waits that its socket did not take.
    pub fn has_backlog(&self) -> bool {
        let backlog = self.backlog.as_ref();
        backlog.is_some_and(|backlog| !backlog.is_empty())
    }

    /// Whether all that was for it alone has been written.
    pub fn is_written(&self) -> bool {
        !self.touched && !self.has_backlog()
    }

    /// Bytes of a reply that the client asked for do not make it slow.
    pub(super) fn grant(&mut self, bytes: usize) {
        self.backlog.get_or_insert_default().grant(bytes);
    }

    /// Whether it takes no part any more.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    pub(super) fn begin_closing(&mut self, now: Duration) {
        self.closing.get_or_insert(now + CLOSING_MAX);
    }

    /// Reads what the socket has, into a buffer that is lent.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` if nothing is there.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }

    /// Writes, or queues behind what waits: what the socket does not take now is written when it
    /// has room ([`Conn::drain`]).
    ///
    /// # Errors
    /// The socket's: the connection has ended.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], messages: u32) -> io::Result<()> {
        if self.closed_as_slow {
            return Ok(());
        }
        let written = if self.has_backlog() {
            Ok(0)
        } else {
            self.try_write(slices)
        };
        let written = written?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if written == total {
            self.backlog = None;
            self.finish();
        } else {
            let backlog = self.backlog.get_or_insert_default();
            backlog.queue(slices, written, messages);
        }
        Ok(())
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let written = match slices {
                [slice] => self.socket.write(slice),
                slices => self.socket.write_vectored(slices),
            };
            match written {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
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

    /// Closes the connection if it reads too little; `true` if that happened now. Its queue is
    /// given up: it comes back and resumes.
    pub(super) fn close_if_slow(&mut self, now: Duration) -> bool {
        let Some(backlog) = self.backlog.as_mut().filter(|_| self.closing.is_none()) else {
            return false;
        };
        if !backlog.is_slow(now) {
            return false;
        }
        let mut frame = Vec::new();
        append_close(&mut frame, &SLOW);
        backlog.give_up(&frame);
        self.private = Vec::new();
        self.closed_as_slow = true;
        self.closing = Some(now + CLOSING_SLOW_MAX);
        true
    }

    /// Writes of the backlog what the socket takes: it has room again.
    ///
    /// # Errors
    /// The socket's: the connection has ended.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let Some(backlog) = &mut self.backlog else {
            return Ok(());
        };
        while !backlog.is_empty() {
            match self.socket.write(backlog.front()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => backlog.drain(written),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        self.backlog = None;
        self.finish();
        Ok(())
    }
}
