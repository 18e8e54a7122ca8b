//! What a node makes of its clocks: what time it is, and whether it was itself stopped.

use std::time::Duration;

use super::clock::Now;
use super::news::Beat;
use super::output::Output;
use super::rules;
use super::state::Core;
use super::stops::CATCH_UP_AFTER;
use super::time::EARLIEST_US;
use crate::model::names::Origin;

impl Core {
    /// The time by which this node goes, when its clocks show `clocks` and the monotonic one was `stopped`
    /// for so long since they were read last. It is the `now` of all inputs that follow. A node that was
    /// stopped has outputs by that, to be carried out before the next input.
    pub(crate) fn time(&mut self, clocks: Now, stopped: Duration) -> Now {
        self.time.slept(stopped);
        let peers = &self.peers;
        let now = self.time.read(clocks, || peers.heard().next().is_some());
        if !stopped.is_zero() {
            // By its own clock, which stood still, it is not time yet; the others' did not.
            self.beat_at_once(now);
        }
        if rules::has_to_catch_up(stopped, CATCH_UP_AFTER) {
            self.outputs.push(Output::CatchingUp);
            self.catch_up(now);
            self.send_requests(now);
            self.go_on_answering(now);
        }
        now
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

    /// Looks whether this node was stopped until now: nobody is to blame that was not heard.
    pub(super) fn look(&mut self, now: Now) {
        if let Some(stopped) = self.stops.notice(now.mono, self.tick_due) {
            self.peers.excuse(stopped);
            self.links.excuse(now.mono, stopped);
        }
    }

    /// A peer's beat came, when this node's wall clock showed this: tells of clocks that are too far from
    /// those of the others.
    pub(super) fn tell_wrong_clocks(&mut self, peer: Origin, ts: u64, clock: u64) {
        let off_us = self.time.off_us();
        let wall_us = clock.saturating_add_signed(off_us);
        let notices = [
            self.notices.correction(off_us),
            self.notices.peer_time(peer, ts, wall_us),
        ];
        let notices = notices.into_iter().flatten();
        self.outputs.extend(notices.map(Output::Notice));
    }
}
