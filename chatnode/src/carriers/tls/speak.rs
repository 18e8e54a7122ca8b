//! Those who hear this node: what is published is queued for each, encrypted when the socket takes it,
//! and bounded.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::tls::KeyRing;
use bytes::Bytes;
use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::model::names::Origin;

/// What waits for one peer; a peer that has more to take is cut off, dials again, and fetches what it
/// has missed. What is published to several waits once.
pub(crate) const WAITING_BYTES_MAX: usize = 8 << 20;
/// A peer that has taken nothing for so long, though there is something, is cut off.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// So much is encrypted at once: what is encrypted has to be sent, whatever becomes of the peer's queue.
const ENCRYPTED_MAX: usize = 64 << 10;
/// Pieces of frames that are encrypted at once.
const PIECES_MAX: usize = 64;

/// One who hears this node. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    pub(super) origin: Origin,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: TcpStream,
    state: Mutex<State>,
    /// Its task has something to look at.
    news: Notify,
}

#[derive(Debug)]
struct State {
    tls: ServerConnection,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// The socket takes nothing now.
    is_blocked: bool,
    /// When it took something last, or was first asked to.
    taken: Instant,
    /// It is over: nothing more is said to it.
    is_over: bool,
}

/// Bytes to and from a socket, as far as it gives and takes them now.
struct Now<'a>(&'a TcpStream);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Now<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Subscriber {
    /// Of a connection that has shaken hands; both have said hello.
    pub(super) fn new(origin: Origin, socket: TcpStream, mut tls: ServerConnection) -> Self {
        // The bound is that of what waits.
        tls.set_buffer_limit(None);
        Self {
            origin,
            inner: Arc::new(Inner {
                socket,
                state: Mutex::new(State {
                    tls,
                    waiting: VecDeque::new(),
                    waiting_bytes: 0,
                    is_blocked: false,
                    taken: Instant::now(),
                    is_over: false,
                }),
                news: Notify::new(),
            }),
        }
    }

    /// Whether it is the same one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues pieces of what is said. It goes out at the next [`Self::flush`].
    pub(super) fn say(&self, pieces: &[Bytes]) {
        let mut state = self.state();
        if state.is_over {
            return;
        }
        state.waiting_bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        state.waiting.extend(pieces.iter().cloned());
        if state.waiting_bytes > WAITING_BYTES_MAX {
            tracing::info!(peer = %self.origin, "it takes too little of what is said, and is cut off");
            state.end();
            self.inner.news.notify_one();
        }
    }

    /// Sends what the socket takes now; its task sends the rest. Whether it is still there.
    pub(super) fn flush(&self) -> bool {
        let mut state = self.state();
        if state.is_over {
            return false;
        }
        if !state.is_blocked {
            state.send(&self.inner.socket);
            if state.is_blocked || state.is_over {
                self.inner.news.notify_one();
            }
        }
        !state.is_over
    }

    /// Whether all has been sent.
    pub(super) fn has_all(&self) -> bool {
        let state = self.state();
        state.is_over || (state.waiting.is_empty() && !state.tls.wants_write())
    }

    /// Says that nothing more comes, and is over.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if !state.is_over {
            state.tls.send_close_notify();
            // What the socket does not take now is not waited for.
            let _ = state.tls.write_tls(&mut Now(&self.inner.socket));
            state.end();
        }
        self.inner.news.notify_one();
    }

    /// Sends what waited for the socket, and notices the end, until there is one: that of the
    /// connection, of what may wait, of a key that is accepted no more, or [`Self::close`].
    pub(super) async fn attend(&self, keys: &KeyRing) {
        let mut changes = keys.changes();
        loop {
            let (is_over, blocked_until) = {
                let state = self.state();
                let until = state.is_blocked.then(|| state.taken + TAKEN_WITHIN);
                (state.is_over, until)
            };
            if is_over {
                return;
            }
            let interest = match blocked_until {
                Some(_) => Interest::READABLE | Interest::WRITABLE,
                None => Interest::READABLE,
            };
            let far = Instant::now() + TAKEN_WITHIN;
            let ready = timeout_at(
                blocked_until.unwrap_or(far),
                self.inner.socket.ready(interest),
            );
            // Each branch is cancel safe: readiness stays, and what has changed is looked at again.
            let ready = tokio::select! {
                biased;
                () = self.inner.news.notified() => continue,
                () = keys.is_removed(&mut changes, || {
                    keys.accepts(self.state().tls.peer_certificates())
                }) => return self.state().end(),
                ready = ready => ready,
            };
            let mut state = self.state();
            match ready {
                Ok(Ok(ready)) => {
                    if ready.is_readable() || ready.is_read_closed() {
                        state.read(&self.inner.socket);
                    }
                    if ready.is_writable() {
                        state.is_blocked = false;
                        state.send(&self.inner.socket);
                    }
                }
                Ok(Err(_)) => state.end(),
                Err(_) if blocked_until.is_some() => {
                    tracing::info!(peer = %self.origin, "it takes nothing, and is cut off");
                    state.end();
                }
                Err(_) => {}
            }
        }
    }
}

impl State {
    fn end(&mut self) {
        self.is_over = true;
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
    }

    /// Sends until the socket takes no more, or nothing is left.
    fn send(&mut self, socket: &TcpStream) {
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut Now(socket)) {
                    Ok(0) => return self.end(),
                    Ok(_) => self.taken = Instant::now(),
                    Err(why) if why.kind() == ErrorKind::WouldBlock => {
                        self.is_blocked = true;
                        return;
                    }
                    Err(_) => return self.end(),
                }
            }
            if self.waiting.is_empty() {
                return;
            }
            self.encrypt();
        }
    }

    /// Encrypts some of what waits; what was not asked for before is asked for now.
    fn encrypt(&mut self) {
        let mut room = ENCRYPTED_MAX;
        let mut pieces = Vec::with_capacity(PIECES_MAX.min(self.waiting.len()));
        for piece in self.waiting.iter().take(PIECES_MAX) {
            let part = &piece[..piece.len().min(room)];
            room -= part.len();
            pieces.push(IoSlice::new(part));
            if room == 0 {
                break;
            }
        }
        let Ok(mut taken) = self.tls.writer().write_vectored(&pieces) else {
            return self.end();
        };
        self.waiting_bytes -= taken;
        while let Some(piece) = self.waiting.front_mut() {
            if piece.len() > taken {
                bytes::Buf::advance(piece, taken);
                break;
            }
            taken -= piece.len();
            self.waiting.pop_front();
        }
        // From here on the peer has something to take.
        self.taken = Instant::now();
    }

    /// Takes what TLS itself has to say. A peer says nothing else behind its hello.
    fn read(&mut self, socket: &TcpStream) {
        match self.tls.read_tls(&mut Now(socket)) {
            Ok(0) => return self.end(),
            Ok(_) => {}
            Err(why) if why.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return self.end(),
        }
        if self.tls.process_new_packets().is_err() {
            return self.end();
        }
        let said = self.tls.reader().read(&mut [0]);
        if !said.is_err_and(|why| why.kind() == ErrorKind::WouldBlock) {
            self.end();
        }
    }
}
