//! Reading a client: one small task a connection, one buffer for all.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::{Errand, Hub, Node, SCRATCH_BYTES};
use crate::fanout::{ConnId, Style};
use crate::replica::Now;
use crate::replica::names::RoomName;
use crate::session::{FLOODING, Session};
use crate::websocket::{Close, Decoder, Message, append_pong};

/// What became of a read.
enum Read {
    /// Read on.
    More,
    /// Read on after a while.
    Pause(Duration),
    /// The connection is over.
    End,
}

impl Hub {
    /// Serves a WebSocket whose handshake is done. `begun` is what came with the handshake.
    /// `plain`: the room, for the chapter's protocol. `held` is dropped with the connection.
    pub async fn serve_websocket(
        &self,
        stream: TcpStream,
        begun: &[u8],
        plain: Option<RoomName>,
        held: impl Send + 'static,
    ) {
        // A client that comes early waits, so that its history and its stream are one cut.
        self.ready().await;
        let (read, write) = stream.into_split();
        let mut decoder = Decoder::default();
        let (id, outcome) = self.with(|node, now| {
            let style = if plain.is_some() {
                Style::Plain
            } else {
                Style::Chat
            };
            let name = plain.is_some().then(|| node.guest_name());
            let session = Session::new(name, node.settings.rate_limit, now.mono);
            let id = node.fanout.adopt(write, style, session);
            node.counters.accepted += 1;
            if let Some(room) = plain {
                node.plain_open(id, &room, now);
            }
            (id, node.feed(id, &mut decoder, &mut begun.to_vec(), now))
        });
        let hub = self.clone();
        let reader = self.tasks().spawn(async move {
            hub.read(read, id, decoder, outcome).await;
            drop(held);
        });
        self.with(|node, _| node.fanout.set_reader(id, reader));
    }

    async fn read(self, mut read: OwnedReadHalf, id: ConnId, mut decoder: Decoder, begun: Read) {
        let mut outcome = begun;
        loop {
            outcome = match outcome {
                Read::End => break,
                Read::More => {
                    std::future::poll_fn(|cx| self.poll_read(cx, &mut read, id, &mut decoder)).await
                }
                Read::Pause(wait) => {
                    // Boxed: a timer is large, and most connections never need one.
                    Box::pin(tokio::time::sleep(wait)).await;
                    self.with(|node, now| node.feed(id, &mut decoder, &mut [], now))
                }
            };
        }
        self.with(|node, _| node.end(id));
    }

    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        read: &mut OwnedReadHalf,
        id: ConnId,
        decoder: &mut Decoder,
    ) -> Poll<Read> {
        let mut node = self.lock();
        let mut scratch = std::mem::take(&mut node.scratch);
        // Empty only if a panic left it behind.
        scratch.resize(SCRATCH_BYTES, 0);
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = Pin::new(read).poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        let outcome = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(Read::End),
            Poll::Ready(Ok(())) if count == 0 => Poll::Ready(Read::End),
            Poll::Ready(Ok(())) => {
                let now = node.clock.now();
                let outcome = node.feed(id, decoder, &mut scratch[..count], now);
                node.scratch = scratch;
                self.settle(node, now);
                return Poll::Ready(outcome);
            }
        };
        node.scratch = scratch;
        outcome
    }

    /// Writes what a full socket did not take.
    async fn drain(self, id: ConnId) {
        let drained = std::future::poll_fn(|cx| self.lock().fanout.drain(id, cx)).await;
        if drained.is_err() {
            self.with(|node, _| node.end(id));
        }
    }

    /// Starts a task for what has to wait.
    pub(super) fn run(&self, errand: Errand) {
        let hub = self.clone();
        match errand {
            Errand::Drain(id) => {
                self.tasks().spawn(hub.drain(id));
            }
            Errand::Fetch(fetch, url) => {
                self.tasks().spawn(hub.fetch(fetch, url));
            }
            Errand::FetchMembers(origin, url) => {
                self.tasks().spawn(hub.fetch_members(origin, url));
            }
            Errand::Late(late) => {
                self.tasks().spawn(hub.late(late));
            }
            Errand::Search(conn, request, search) => {
                self.tasks().spawn(hub.late_search(conn, request, search));
            }
            Errand::Hello(link, url) => {
                self.tasks().spawn(hub.hello(link, url));
            }
        }
    }
}

impl Node {
    /// Takes bytes of a client.
    fn feed(&mut self, id: ConnId, decoder: &mut Decoder, bytes: &mut [u8], now: Now) -> Read {
        if !self.fanout.is_open(id) {
            // Closed here; what still comes is read and dropped until the client ends it too.
            return if self.fanout.get_mut(id).is_some() {
                Read::More
            } else {
                Read::End
            };
        }
        let rest = self
            .fanout
            .get_mut(id)
            .and_then(|conn| conn.session.rest.take());
        if let Some(rest) = rest
            && self.chat_text(id, &rest, now).is_break()
        {
            return self.pause.take().map_or(Read::More, Read::Pause);
        }
        match decoder.feed(bytes, |message| self.message(id, message, now)) {
            Err(close) => {
                self.counters.refused += 1;
                self.close(id, &close, now);
                Read::More
            }
            Ok(()) => self.pause.take().map_or(Read::More, Read::Pause),
        }
    }

    fn message(&mut self, id: ConnId, message: Message<'_>, now: Now) -> ControlFlow<()> {
        let rate_limit = self.settings.rate_limit;
        let Some(conn) = self.fanout.get_mut(id) else {
            return ControlFlow::Break(());
        };
        // A message that trickles is no sign of life until it is whole.
        if message != Message::Fragment {
            conn.session.heard(now.mono);
        }
        // The lines of a text are counted one by one.
        let counted = !matches!(message, Message::Text(_));
        if counted && conn.session.count_frame(rate_limit, now.mono).is_err() {
            self.close(id, &FLOODING, now);
            return ControlFlow::Break(());
        }
        match message {
            Message::Text(text) if self.fanout.is_chat(id) => self.chat_text(id, text, now),
            Message::Text(text) => self.plain_text(id, text, now),
            Message::Ping(payload) => {
                self.fanout
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
