//! The two clocks of a node, and the one place that reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::core::Now;
use crate::core::clock::WALL_MAX_US;

/// A clock that stood still for so long was stopped with its process, and not its peers.
const STALL_MIN: Duration = crate::core::stops::STALL_MIN;

/// The two clocks. The monotonic one stands still while the process is stopped (SIGSTOP), so that a node
/// that wakes does not believe everybody else dead, as it does of itself while the machine sleeps.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    stopped: Duration,
    /// What the clock showed that goes on while the machine sleeps; how long it had slept by then.
    booted: Duration,
    slept: Duration,
    /// When it was looked at last, the time that it was stopped included. No decision is made by this.
    looked: Duration,
    /// For how long the process was found to have been stopped, and that was not asked yet.
    woke: Duration,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            stopped: Duration::ZERO,
            booted: since_boot(),
            slept: Duration::ZERO,
            looked: Duration::ZERO,
            woke: Duration::ZERO,
        }
    }

    pub(super) fn now(&mut self) -> Now {
        let passed = self.started.elapsed();
        let stalled = passed.saturating_sub(self.looked);
        // The turn task looks every tenth of a second at the latest.
        if stalled > STALL_MIN {
            self.stopped += stalled;
            self.woke += stalled;
            tracing::warn!(
                elapsed_ms = stalled.as_millis(),
                "this process was stopped for a while"
            );
        }
        let slept = since_boot().saturating_sub(self.booted);
        let slept = slept.saturating_sub(passed + self.slept);
        if slept > STALL_MIN {
            self.slept += slept;
            self.woke += slept;
            tracing::warn!(
                elapsed_ms = slept.as_millis(),
                "this machine slept for a while"
            );
        }
        self.looked = passed;
        Now {
            mono: self.last(),
            wall_us: wall_us(),
        }
    }

    /// The time that was told last, by the one clock by which all is decided.
    pub(super) fn last(&self) -> Duration {
        self.looked.saturating_sub(self.stopped)
    }

    /// For how long the process was found to have been stopped since this was asked last.
    pub(super) fn woke(&mut self) -> Duration {
        std::mem::take(&mut self.woke)
    }

    /// The instant of a monotonic time, if the process is not stopped until then.
    pub(super) fn instant(&self, mono: Duration) -> Instant {
        self.started + self.stopped + mono
    }
}

/// How long the machine has run, sleep included, where the system tells.
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(time).unwrap_or_default()
    }
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

/// Microseconds since 1970, none before that.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub(crate) fn wall_us() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_micros()).map_or(WALL_MAX_US, |us| us.min(WALL_MAX_US))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whatever is decided, it is decided by one clock, also when the process was stopped: the disk,
    /// say, is not wanted by one and left alone by the other, which would keep the turn task busy for as
    /// long as the process was stopped. Method: both are read after a long stop, and after time that was
    /// no stop.
    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_has_one_time() {
        let mut clock = Clock::new();
        let mut passed = Duration::ZERO;
        for (step, is_stop) in [(500, false), (10_000, true), (900, false), (1_001, true)] {
            let step = Duration::from_millis(step);
            tokio::time::advance(step).await;
            passed += if is_stop { Duration::ZERO } else { step };
            let now = clock.now();
            assert_eq!((now.mono, clock.last()), (passed, passed));
            assert_eq!(!clock.woke().is_zero(), is_stop);
        }
    }
}
