//! The time by which a node goes: its wall clock's, unless that is far from those of the others.
//!
//! Messages stand in the order of their stamps, so a node whose wall clock is hours wrong would put what
//! it says hours before or behind what others say. The others' beats tell what time it is there. As
//! long as this node's clock is within [`AHEAD_MAX_US`] of that it is followed; if not, the node goes by
//! the others' time, and its beats tell that: one that joins by the time that it finds, any other by that
//! of most, itself counted, and of two by the earlier. A clock that is set while the node runs is
//! noticed, since the monotonic one is not, and changes nothing before the others have told theirs.
//!
//! So a mesh may go by the wrong clock of its first node. When the clocks of most, as beats tell them,
//! agree again, all go back to them, a tenth slower or faster than time: what is said meanwhile stands in
//! its order.

use std::time::Duration;

use super::clock::{AHEAD_MAX_US, Now};
use super::rules;

/// What a node goes by instead of its wall clock alone.
#[derive(Debug, Default)]
pub(super) struct Time {
    /// How far this node's time is from its wall clock, in microseconds.
    correction_us: i64,
    /// By how much the wall clock was set since others told theirs.
    set_us: i64,
    /// Whether most clocks, its own among them, agree with its own.
    agreed: bool,
    /// The clocks when they were looked at last.
    looked: Option<Now>,
    /// How long the monotonic clock stood still.
    slept: Duration,
}

/// What time it is at a peer, and when it told so, by a clock that never stands still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) ts: u64,
    clock: u64,
    at: Duration,
}

/// The lower median: of two the earlier.
fn median(times: &mut [i64]) -> Option<i64> {
    times.sort_unstable();
    times.get(times.len().checked_sub(1)? / 2).copied()
}

fn apart(one: u64, other: u64) -> i64 {
    one.wrapping_sub(other).cast_signed()
}

fn is_near(apart: i64) -> bool {
    apart.unsigned_abs() <= AHEAD_MAX_US
}

/// The year 2025 begins. Whose clock shows less has none that was ever set, and is not asked.
pub(super) const EARLIEST_US: u64 = 1_735_689_600_000_000;

/// A mesh goes back to its clocks by so small a part of the time that passes.
const SLEW: u64 = 10;

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Time {
    /// How far this node's time is from its wall clock.
    pub(super) fn off_us(&self) -> i64 {
        self.correction_us.saturating_sub(self.set_us)
    }

    /// The time, when the clocks show `now`. That the wall clock was set is not believed while others
    /// are `heard` and have not told theirs since; alone, a node goes by its clock.
    pub(super) fn read(&mut self, now: Now, heard: impl Fn() -> bool) -> Now {
        let before = self.looked.replace(now).unwrap_or(now);
        let passed = micros(now.mono.saturating_sub(before.mono));
        let set = apart(now.wall_us, before.wall_us.saturating_add(passed));
        let was_set = !is_near(set);
        if was_set {
            self.set_us = self.set_us.saturating_add(set);
        }
        let alone = (self.set_us != 0 || self.correction_us != 0) && !heard();
        if alone {
            self.set_us = 0;
            if was_set {
                self.correction_us = 0;
            }
        }
        if self.correction_us != 0 && (self.agreed || alone) {
            let step = i64::try_from(passed / SLEW).unwrap_or(i64::MAX);
            self.correction_us -= self.correction_us.clamp(-step, step);
        }
        Now {
            wall_us: now.wall_us.saturating_add_signed(self.off_us()),
            ..now
        }
    }

    /// The monotonic clock stood still for so long, and the wall clock did not.
    pub(super) fn slept(&mut self, stopped: Duration) {
        self.slept += stopped;
        if let Some(looked) = &mut self.looked {
            looked.wall_us = looked.wall_us.saturating_add(micros(stopped));
        }
    }

    /// What the wall clock shows at this time of the node.
    pub(super) fn clock(&self, now: Now) -> u64 {
        now.wall_us
            .saturating_add_signed(self.off_us().saturating_neg())
    }

    pub(super) fn told(&self, ts: u64, clock: u64, now: Now) -> Told {
        let at = now.mono + self.slept;
        Told { ts, clock, at }
    }

    /// Compares this node's time, which is `now`, with what others have told; its time from now on.
    pub(super) fn compare(
        &mut self,
        now: Now,
        others: impl Iterator<Item = Told>,
        joining: bool,
    ) -> Now {
        let real = now.mono + self.slept;
        let clock = self.clock(now);
        let (mut all, mut agree) = (1, 1);
        let ahead = |told: Told| {
            let passed = micros(real.saturating_sub(told.at));
            all += 1;
            agree += usize::from(is_near(apart(told.clock.saturating_add(passed), clock)));
            apart(told.ts.saturating_add(passed), now.wall_us)
        };
        let mut ahead: Vec<i64> = others.map(ahead).collect();
        self.agreed = 2 * agree > all;
        let Some(theirs) = median(&mut ahead) else {
            return now;
        };
        let off = self.off_us();
        let by = if is_near(theirs.saturating_add(off)) {
            // The wall clock is right; the last minute of a way back is gone as the rest was.
            if self.agreed && is_near(off) {
                0
            } else {
                off.saturating_neg()
            }
        } else if rules::goes_by_own_clock(is_near(theirs)) {
            0
        } else if joining {
            theirs
        } else {
            ahead.push(0);
            median(&mut ahead).filter(|by| !is_near(*by)).unwrap_or(0)
        };
        (self.correction_us, self.set_us) = (off.saturating_add(by), 0);
        Now {
            wall_us: now.wall_us.saturating_add_signed(by),
            ..now
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::Clock;

    const HOUR_US: i64 = 3_600_000_000;
    const START_US: u64 = 1_760_000_000_000_000;

    /// A time, on a machine whose wall clock is so wrong.
    fn at(seconds: u64, wrong_us: i64) -> Now {
        let right = START_US + seconds * 1_000_000;
        Now {
            mono: Duration::from_secs(seconds),
            wall_us: right.saturating_add_signed(wrong_us),
        }
    }

    /// Nodes of a mesh whose clocks are so wrong, that hear each other's beats once a second; how wrong
    /// each then goes, in hours.
    fn mesh(wrong: &[i64], seconds: u64) -> Vec<i64> {
        let mut times: Vec<Time> = wrong.iter().map(|_| Time::default()).collect();
        let mut goes = Vec::new();
        for second in 0..seconds {
            let clocks = wrong.iter().map(|wrong| at(second, wrong * HOUR_US));
            let nows = times
                .iter_mut()
                .zip(clocks)
                .map(|(it, now)| it.read(now, || true));
            let nows: Vec<Now> = nows.collect();
            let right = at(second, 0).wall_us;
            goes = nows
                .iter()
                .map(|now| apart(now.wall_us, right) / HOUR_US)
                .collect();
            for (me, (time, now)) in times.iter_mut().zip(&nows).enumerate() {
                let others = nows.iter().enumerate().filter(|(other, _)| *other != me);
                let told = others.map(|(other, there)| Told {
                    ts: there.wall_us,
                    clock: at(second, wrong[other] * HOUR_US).wall_us,
                    at: now.mono,
                });
                time.compare(*now, told, false);
            }
        }
        goes
    }

    /// Goal: a mesh goes by one time, whatever clocks are wrong in it. Method: clocks that are hours wrong,
    /// some or most of them.
    #[test]
    fn a_mesh_goes_by_the_time_of_most_and_of_two_by_the_earlier() {
        for (wrong, goes) in [
            (&[0, 2][..], 0),
            (&[0, -2], -2),
            (&[0, 0, 2], 0),
            (&[-2, 0, 0, 0], 0),
            (&[3, 3, 0], 3),
            (&[0, 5, -7], 0),
            (&[0, 0, 2, 2], 0),
        ] {
            assert_eq!(mesh(wrong, 10), vec![goes; wrong.len()], "{wrong:?}");
        }
    }

    /// Goal: one that comes goes by the time of those that are there, be its own clock ahead or behind, and
    /// is not held back by stamps of the time when it was alone.
    #[test]
    fn who_joins_goes_by_the_time_that_it_finds() {
        for wrong in [-2, 2] {
            let (mut time, mut clock) = (Time::default(), Clock::default());
            let now = time.read(at(0, wrong * HOUR_US), || false);
            clock.observe(now.wall_us, now.wall_us);
            let told = time.told(START_US, START_US, now);
            let now = time.compare(now, [told].into_iter(), true);
            assert_eq!(now.wall_us, START_US);
            clock.limit(now.wall_us);
            assert!(clock.stamp(now.wall_us) <= START_US + AHEAD_MAX_US + 1);
            let later = time.read(at(1, wrong * HOUR_US), || true);
            assert_eq!(later.wall_us, at(1, 0).wall_us);
        }
    }

    /// Goal: a clock that is set changes nothing while others are heard, and is followed as soon as it is
    /// right again; alone it is followed at once. Method: by hours, forward and back.
    #[test]
    fn a_clock_that_is_set_is_followed_when_it_is_right() {
        for wrong in [-HOUR_US, HOUR_US] {
            let mut time = Time::default();
            time.read(at(0, 0), || true);
            let now = time.read(at(1, wrong), || true);
            assert_eq!(now.wall_us, at(1, 0).wall_us);
            let told = time.told(at(2, 0).wall_us, at(2, 0).wall_us, at(2, wrong));
            let now = time.read(at(2, wrong), || true);
            let now = time.compare(now, [told].into_iter(), false);
            assert_eq!(now.wall_us, at(2, 0).wall_us);
            assert_eq!(time.correction_us, -wrong);
            let now = time.read(at(3, 0), || true);
            let told = time.told(at(3, 0).wall_us, at(3, 0).wall_us, now);
            time.compare(now, [told].into_iter(), false);
            assert_eq!((time.correction_us, time.set_us), (0, 0));
            let alone = time.read(at(4, wrong), || false);
            assert_eq!(alone.wall_us, at(4, wrong).wall_us);
            time.read(at(5, 0), || true);
            assert_ne!(time.set_us, 0, "not believed yet");
            let left = time.read(at(6, 0), || false);
            assert_eq!(left.wall_us, at(6, 0).wall_us, "whom it heard is gone");
        }
    }

    /// Goal: a mesh that goes by the clock of its first node goes back to its clocks when most are right, in
    /// order. Method: two that are right and two hours ahead by the time that they found; a day passes.
    #[test]
    fn a_mesh_goes_back_to_its_clocks_when_they_agree() {
        for wrong in [2 * HOUR_US, -2 * HOUR_US] {
            let found = || Time {
                correction_us: wrong,
                ..Time::default()
            };
            let mut times = [found(), found()];
            let mut last = [0, 0];
            for minute in 0..24 * 60 {
                let clocks = at(60 * minute, 0);
                let nows = [0, 1].map(|me| times[me].read(clocks, || true));
                for me in [0, 1] {
                    let there = nows[1 - me].wall_us;
                    let told = times[me].told(there, clocks.wall_us, nows[me]);
                    times[me].compare(nows[me], [told].into_iter(), false);
                    assert!(nows[me].wall_us > last[me], "time goes on");
                    last[me] = nows[me].wall_us;
                }
                assert!(is_near(apart(nows[0].wall_us, nows[1].wall_us)));
            }
            assert_eq!(times.map(|time| time.correction_us), [0, 0]);
        }
    }

    /// Goal: a machine that slept is no machine whose clock was set. Method: the wall clock goes on while the
    /// monotonic one stands still.
    #[test]
    fn who_slept_has_no_wrong_clock() {
        let mut time = Time::default();
        let told = time.told(at(1, 0).wall_us, at(1, 0).wall_us, at(1, 0));
        time.read(at(1, 0), || true);
        time.slept(Duration::from_secs(3600));
        let woken = time.read(at(1, HOUR_US), || true);
        assert_eq!(woken.wall_us, at(1, HOUR_US).wall_us);
        let now = time.compare(woken, [told].into_iter(), false);
        assert_eq!((now.wall_us, time.correction_us), (woken.wall_us, 0));
    }
}
