//! Where others connect to the publisher: closed for a while when this process has no files left.
//!
//! The crate's own accept loop does not pause when it cannot accept. What waits at the port cannot
//! be accepted the next moment either, so it would use up the processor until some file is closed.
//! Here that is seen by the crate's news of itself, the crate is told to stop accepting, and is
//! given the port again a moment later. Who connects meanwhile waits in the kernel's queue.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt as _, StreamExt as _};
use rustix::io::Errno;
use tokio::time::Instant;
use zeromq::{Endpoint, PubSocket, Socket as _, SocketEvent, ZmqError};

/// The door stays closed for so long.
const CLOSED_FOR: Duration = Duration::from_millis(200);

/// The publisher's port, which is this side's to keep.
pub(super) struct Door {
    listener: TcpListener,
    endpoint: Endpoint,
    news: mpsc::Receiver<SocketEvent>,
    /// While it is closed: until then.
    closed: Option<Instant>,
    /// Whether the log has been told, and nobody has come in since.
    told: bool,
}

/// What is to be done about the door.
#[derive(Debug)]
pub(super) enum Turn {
    Close,
    Open,
}

impl Door {
    /// Lets the publisher accept on this listener.
    ///
    /// # Errors
    /// The listener has no address or cannot be used by the runtime.
    pub(super) async fn open(
        listener: TcpListener,
        publisher: &mut PubSocket,
    ) -> Result<Self, ZmqError> {
        let news = publisher.monitor();
        let endpoint = publisher.bind_listener(listener.try_clone()?).await?;
        Ok(Self {
            listener,
            endpoint,
            news,
            closed: None,
            told: false,
        })
    }

    /// Where it is.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits until something is to be done. Cancel safe.
    pub(super) async fn turn(&mut self) -> Turn {
        if let Some(until) = self.closed {
            tokio::time::sleep_until(until).await;
            return Turn::Open;
        }
        loop {
            match self.news.next().await {
                Some(SocketEvent::AcceptFailed(error)) if is_exhausted(&error) => {
                    if !std::mem::replace(&mut self.told, true) {
                        tracing::warn!("no peer can connect for now: {error}");
                    }
                    return Turn::Close;
                }
                Some(SocketEvent::Accepted(..)) => self.told = false,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Does it. May be dropped half-way: then the door is closed, and opened in time.
    pub(super) async fn take(&mut self, turn: Turn, publisher: &mut PubSocket) {
        self.closed = Some(Instant::now() + CLOSED_FOR);
        match turn {
            Turn::Close => {
                // It fails if it was closed already.
                drop(publisher.unbind(self.endpoint.clone()).await);
            }
            Turn::Open => {
                // What it said before it was closed is no news now.
                while let Some(Some(_)) = self.news.next().now_or_never() {}
                // A file is needed for this as well; perhaps the next time.
                if let Ok(listener) = self.listener.try_clone()
                    && publisher.bind_listener(listener).await.is_ok()
                {
                    self.closed = None;
                }
            }
        }
    }
}

/// Whether accepting failed for want of something that this process or machine has run out of.
fn is_exhausted(error: &ZmqError) -> bool {
    let ZmqError::Network(error) = error else {
        return false;
    };
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    wants.into_iter().any(|want| is(error, want))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
