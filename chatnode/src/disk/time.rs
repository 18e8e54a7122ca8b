//! The clocks of the disk's threads: the one place of the store that reads them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::core::clock::WALL_MAX_US;

/// Microseconds since 1970 now. For the age of entries only, never for order.
#[expect(
    clippy::disallowed_methods,
    reason = "the disk's threads are the rim: the age of entries is against the wall clock"
)]
pub(super) fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).map_or(WALL_MAX_US, |us| us.min(WALL_MAX_US))
    })
}

/// Measures how long something takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the disk's threads are the rim: how long work takes is read where it is done"
    )]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
