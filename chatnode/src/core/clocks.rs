//! What a node makes of its clocks: what time it is, and whether it was itself stopped.

use std::time::Duration;

use super::clock::{Now, STALL_MIN};
use super::news::Beat;
use super::state::Core;
use super::time::EARLIEST_US;

impl Core {
    /// The time by which this node goes, when its clocks show `now`. What it gives is the `now` of all
    /// other inputs.
    pub(crate) fn time(&mut self, now: Now) -> Now {
        let peers = &self.peers;
        self.time.read(now, || peers.heard().next().is_some())
    }

    /// The monotonic clock stood still for so long, since the process was stopped.
    pub(crate) fn slept(&mut self, stopped: Duration) {
        self.time.slept(stopped);
    }

    /// How far this node's time is from its wall clock, in microseconds: zero as long as that can be
    /// followed.
    pub(crate) fn correction_us(&self) -> i64 {
        self.time.off_us()
    }

    /// A beat tells what time it is there; what time that makes it here. Those that join go by the time of
    /// those that take clients already, and nobody by theirs.
    pub(super) fn compare_times(&mut self, now: Now, beat: &Beat) -> Now {
        let told = self.time.told(beat.ts, beat.clock, now);
        self.peers.told_time(beat.origin, told);
        let settled = self.ready || self.peers.heard().any(|(_, peer)| peer.ready);
        let joining = !self.ready && settled;
        let others = self.peers.heard();
        let others = others.filter(|(_, peer)| peer.ready || !settled);
        let others = others.map(|(_, peer)| peer.time);
        let others = others.filter(|told| told.ts >= EARLIEST_US);
        let then = self.time.compare(now, others, joining);
        if then.wall_us < now.wall_us {
            // What was seen of the wrong time pulls no further than the right one lets it.
            self.clock.limit(then.wall_us);
            if !self.ready {
                self.limit_positions(then.wall_us);
            }
        }
        then
    }

    /// If nothing was looked at for long this node was stopped: nobody is to blame that was not heard.
    pub(super) fn look(&mut self, now: Now) {
        let stall = now.mono.saturating_sub(self.looked.max(self.tick_due));
        self.looked = now.mono;
        if stall > STALL_MIN {
            self.peers.excuse(stall);
        }
    }
}
