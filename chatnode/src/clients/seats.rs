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

/// A client's seat; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat(
    #[expect(dead_code, reason = "dropping it is its use")]
    (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
);

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
        Some(Seat((client, None)))
    }

    /// One for an event stream, alike.
    pub(crate) fn take_stream(&self) -> Option<Seat> {
        let stream = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        let client = Arc::clone(&self.clients).try_acquire_owned().ok()?;
        Some(Seat((client, Some(stream))))
    }

    /// How many event streams there are, those that are about to begin among them.
    pub(crate) fn streams(&self) -> usize {
        STREAMS_MAX - self.streams.available_permits()
    }
}
