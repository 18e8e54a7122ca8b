//! The hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014), as one integer.
//!
//! A stamp is microseconds since 1970, larger than every stamp this node gave or saw, so that an
//! answer never sorts before what it answers, whatever the wall clocks say.

use std::time::Duration;

use super::rules;

/// How far a stamp that was seen may pull this clock ahead of the node's time, in microseconds. One
/// node with a wild clock must not drag the mesh along. A wall clock further from those of the others
/// is not followed, see [`time`](super::time).
pub(crate) const AHEAD_MAX_US: u64 = 60_000_000;

/// The last microsecond of the year 9999. A wall clock that is beyond is taken to stand still there,
/// so that what comes after an entry has room to be later.
pub(crate) const WALL_MAX_US: u64 = 253_402_300_799_999_999;

/// The time: what [`Core::time`](super::Core::time) makes of what the caller's clocks show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Monotonic, from any fixed point. Decides all waiting.
    pub(crate) mono: Duration,
    /// Microseconds since 1970. Only for timestamps.
    pub(crate) wall_us: u64,
}

/// Gives timestamps that increase.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: u64,
    /// The last that was given.
    given: u64,
}

impl Clock {
    /// A timestamp after all that were given or seen.
    pub(super) fn stamp(&mut self, wall_us: u64) -> u64 {
        self.last = wall_us.max(self.last.saturating_add(1));
        self.given = self.last;
        self.last
    }

    /// Notes a timestamp that another node gave.
    pub(super) fn observe(&mut self, ts: u64, wall_us: u64) {
        let most = wall_us.saturating_add(AHEAD_MAX_US);
        self.last = self.last.max(rules::observed(ts, most));
    }

    /// It turns out that it is only so late: what was seen of other times pulls no further ahead of
    /// that than it may.
    pub(super) fn limit(&mut self, wall_us: u64) {
        self.last = self
            .given
            .max(self.last.min(wall_us.saturating_add(AHEAD_MAX_US)));
    }

    /// The last timestamp given or seen.
    pub(super) fn last(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_increase_though_the_wall_clock_goes_back() {
        let mut clock = Clock::default();
        assert_eq!(clock.stamp(100), 100);
        assert_eq!(clock.stamp(50), 101);
        clock.observe(500, 100);
        assert_eq!(clock.stamp(100), 501);
    }

    #[test]
    fn a_wild_clock_pulls_a_minute_at_the_most() {
        let mut clock = Clock::default();
        clock.observe(u64::MAX / 2, 1_000);
        assert_eq!(clock.stamp(1_000), 1_000 + AHEAD_MAX_US + 1);
    }
}
