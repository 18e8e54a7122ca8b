//! Time, read in one place, and pauses of a fraction of a millisecond.

use std::sync::OnceLock;
use std::time::Instant;

use rustix::thread::{Timespec, nanosleep};

/// A second, in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// A millisecond, in nanoseconds.
pub(crate) const MILLI: u64 = 1_000_000;

/// Nanoseconds since the first call in this process.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub(crate) fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Rests for this many nanoseconds. It paces what a loop looks at, and stands for no condition.
pub(crate) fn rest(nanos: u64) {
    let seconds = i64::try_from(nanos / SECOND).unwrap_or(i64::MAX);
    let rest = i64::try_from(nanos % SECOND).unwrap_or(0);
    // A signal may end it early; nobody relies on its length.
    let _early = nanosleep(&Timespec {
        tv_sec: seconds,
        tv_nsec: rest,
    });
}

/// Looks every few milliseconds until `condition` gives something, for `within` nanoseconds at most.
pub(crate) fn eventually<T>(within: u64, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = now() + within;
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if now() > end {
            return None;
        }
        rest(5 * MILLI);
    }
}
