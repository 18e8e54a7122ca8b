//! How many may stay at once: WebSockets and event streams.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One seat for each client that may stay.
#[derive(Debug)]
pub struct Seats(Arc<Semaphore>);

/// A client's seat; dropping it gives it back.
#[derive(Debug)]
pub struct Seat(#[expect(dead_code, reason = "dropping it is its use")] OwnedSemaphorePermit);

impl Seats {
    /// So many.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))))
    }

    /// One for somebody who comes, if one is free. It is taken before anything is promised or waited
    /// for, and held to the end, so that a crowd that comes while the node still joins does not get
    /// the connections of peers and probes.
    pub fn take(&self) -> Option<Seat> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(Seat)
    }
}
