//! How many may stay at once: WebSockets and event streams.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Event streams of one node at the most.
pub(crate) const STREAMS_MAX: usize = 1024;

/// One seat for each client that may stay.
#[derive(Debug)]
pub(crate) struct Seats {
    clients: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A client's seat; dropping it gives it back. That of a stream is boxed, since it is rare: two words
/// instead of four for all others.
#[derive(Debug)]
#[expect(dead_code, reason = "dropping it is its use")]
pub(crate) enum Seat {
    /// Of a WebSocket.
    Socket(OwnedSemaphorePermit),
    /// Of an event stream.
    Stream(Box<[OwnedSemaphorePermit; 2]>),
}

impl Seats {
    /// So many, [`STREAMS_MAX`] of them for event streams.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            clients: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// One for somebody who comes, if one is free. It is taken before anything is promised or waited
    /// for, and held to the end, so that a crowd that comes while the node still joins does not get
    /// the connections of peers and probes.
    pub(crate) fn take(&self) -> Option<Seat> {
        let client = Arc::clone(&self.clients).try_acquire_owned().ok()?;
        Some(Seat::Socket(client))
    }

    /// One for an event stream, alike.
    pub(crate) fn take_stream(&self) -> Option<Seat> {
        let stream = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        let client = Arc::clone(&self.clients).try_acquire_owned().ok()?;
        Some(Seat::Stream(Box::new([client, stream])))
    }

    /// How many event streams there are, those that are about to begin among them.
    pub(crate) fn streams(&self) -> usize {
        STREAMS_MAX - self.streams.available_permits()
    }
}
