//! One client's connection: its socket's writing half, and what waits for it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::AsyncWrite as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::AbortHandle;

use super::backlog::Backlog;
use super::rooms::Place;
use super::{SLOW, Style};
use crate::websocket::append_close;

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
    /// A task writes the backlog.
    draining: bool,
    /// Nothing more may be written to it.
    closed_as_slow: bool,
    pub(super) closing: Option<Duration>,
    write: OwnedWriteHalf,
    pub(super) reader: Option<AbortHandle>,
    pub(super) private: Vec<u8>,
    pub(super) private_messages: u32,
    backlog: Option<Box<Backlog>>,
    pub(super) places: Vec<Place>,
}

/// How a write went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrote {
    /// All is out, or waits behind what waited already.
    Fine,
    /// The socket took not all: somebody must [`Conn::drain`].
    Full,
    /// The socket failed.
    Broken,
}

impl<S> Conn<S> {
    pub(super) fn new(write: OwnedWriteHalf, style: Style, serial: u32, session: S) -> Self {
        Self {
            session,
            serial,
            style,
            touched: false,
            draining: false,
            closed_as_slow: false,
            closing: None,
            write,
            reader: None,
            private: Vec::new(),
            private_messages: 0,
            backlog: None,
            places: Vec::new(),
        }
    }

    /// Bytes that wait for this client alone.
    pub(super) fn pending(&self) -> usize {
        self.private.len() + self.backlog.as_ref().map_or(0, |backlog| backlog.len())
    }

    /// Bytes of a reply that the client asked for do not make it slow.
    pub(super) fn grant(&mut self, bytes: usize) {
        self.backlog.get_or_insert_default().grant(bytes);
    }

    pub(super) fn begin_closing(&mut self, now: Duration) {
        self.closing.get_or_insert(now + CLOSING_MAX);
    }

    /// Writes, or queues behind what waits.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], messages: u32) -> Wrote {
        if self.closed_as_slow {
            return Wrote::Fine;
        }
        let waiting = self
            .backlog
            .as_ref()
            .is_some_and(|backlog| !backlog.is_empty());
        let written = if waiting {
            Ok(0)
        } else {
            self.try_write(slices)
        };
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        match written {
            Ok(written) if written == total => {
                self.backlog = None;
                self.finish();
                return Wrote::Fine;
            }
            Ok(written) => {
                let backlog = self.backlog.get_or_insert_default();
                backlog.queue(slices, written, messages);
            }
            Err(_) => return Wrote::Broken,
        }
        if std::mem::replace(&mut self.draining, true) {
            Wrote::Fine
        } else {
            Wrote::Full
        }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match slices {
            [slice] => self.write.try_write(slice),
            slices => self.write.try_write_vectored(slices),
        };
        match written {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

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

    /// Writes the backlog as the socket takes it.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(backlog) = &mut self.backlog
            && !backlog.is_empty()
        {
            let written = ready!(Pin::new(&mut self.write).poll_write(cx, backlog.front()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            backlog.drain(written);
        }
        self.backlog = None;
        self.draining = false;
        self.finish();
        Poll::Ready(Ok(()))
    }
}
