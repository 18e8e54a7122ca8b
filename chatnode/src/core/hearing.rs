//! What comes on the links: entries, beats, events that may be lost, and acknowledgements.

use super::bounds::{ACK_EVERY, ORIGINS_MAX};
use super::clock::Now;
use super::log::Log;
use super::members::{Change, Snapshot};
use super::news::{Ack, Beat, Entries, Live, LiveEvent, News};
use super::output::Output;
use super::pace::Request;
use super::rules;
use super::state::Core;
use crate::model::names::Origin;

impl Core {
    /// News came on the link to `from`.
    pub(super) fn news(&mut self, now: Now, from: Origin, news: News) {
        if from == self.me.origin || from.is_mark() {
            return;
        }
        match news {
            News::Entries(log) if log.origin == from => self.log_frame(now, log),
            News::Beat(beat) if beat.origin == from => self.beat_frame(now, &beat),
            News::Live(live) if live.origin == from => self.live_frame(live),
            News::Ack(ack) if ack.from == from && ack.to == self.me.origin => {
                self.ack_frame(now, &ack)
            }
            News::Entries(_) | News::Beat(_) | News::Live(_) | News::Ack(_) => {}
        }
    }

    fn log_frame(&mut self, now: Now, frame: Entries) {
        let origin = frame.origin;
        if let Some(last) = frame.entries.last() {
            self.peers.acknowledge(origin, origin, last.seq);
        }
        self.arrive(origin, frame.entries, now);
        if self.logs[&origin].missing().is_some() {
            self.repair(origin, now);
        }
        if frame.ack_wanted {
            self.acks.entry(origin).or_default().wanted = self.logs[&origin].reaches();
            self.acknowledge(origin, now);
        }
        self.check_roll(now);
    }

    /// Acknowledges an origin's log, now or when it is time to.
    pub(super) fn acknowledge(&mut self, origin: Origin, now: Now) {
        let Some(acks) = self.acks.get_mut(&origin) else {
            return;
        };
        let solid = self.logs.get(&origin).map_or(0, Log::solid);
        let earliest = acks.last.map_or(now.mono, |last| last + ACK_EVERY);
        if solid > acks.told && acks.told < acks.wanted {
            let due = rules::acknowledged_at(earliest, now.mono);
            acks.due.get_or_insert(due);
            self.send_acks(now);
        }
    }

    fn beat_frame(&mut self, now: Now, beat: &Beat) {
        let first = self
            .peers
            .get(beat.origin)
            .is_some_and(|peer| peer.beat_at.is_none());
        let holes_before = self.holes_of_both(beat.origin);
        self.peers.beat(beat, now.mono, now.wall_us);
        let now = self.compare_times(now, beat);
        self.clock.observe(beat.ts, now.wall_us);
        self.heard_clock(beat, now);
        self.claim_position(beat, now);
        self.members.claim(beat.origin, beat.members_version);
        self.fetch_members(beat.origin);
        let holes_now = self.holes_of_both(beat.origin);
        let gone = |origin: &&Origin| !first && !holes_now.contains(origin);
        for origin in holes_before.iter().filter(gone) {
            // Somebody came back who had it, and this peer was quicker.
            self.repairs
                .ask_for_holes(beat.origin, *origin, &self.logs[origin]);
            self.repairs.holes_changed(now.mono);
        }
        if first {
            self.await_position_of(beat.origin);
            self.ask_for_holes(beat.origin);
            self.beat_soon(now);
        }
        self.settle_waits(now);
        self.check_ready(now);
    }

    /// A peer says what it holds: what of that is not here is missing.
    pub(super) fn claim_position(&mut self, beat: &Beat, now: Now) {
        for (origin, seq) in beat.reaches() {
            let known = self.logs.contains_key(&origin);
            let full = !known && self.logs.len() >= ORIGINS_MAX;
            if origin == self.me.origin || seq == 0 || full {
                continue;
            }
            let log = self.log_mut(origin);
            if rules::is_behind(log.held(), seq) {
                log.claim(seq);
                self.repair(origin, now);
            }
        }
    }

    fn live_frame(&mut self, frame: Live) {
        for event in frame.events {
            match event {
                LiveEvent::Typing { room, name } => self.outputs.push(Output::Typing(room, name)),
                LiveEvent::Members {
                    version,
                    room,
                    joined,
                    left,
                } => {
                    let told = Change { room, joined, left };
                    let seen = self.members.told(frame.origin, version, &told);
                    self.told_members(seen);
                }
            }
        }
        self.fetch_members(frame.origin);
    }

    fn ack_frame(&mut self, now: Now, frame: &Ack) {
        let me = self.me.origin;
        let through = frame.through.min(self.logs[&me].held());
        self.peers.acknowledge(frame.from, me, through);
        self.settle_waits(now);
    }

    fn fetch_members(&mut self, origin: Origin) {
        if self.members.is_stale(origin) && self.members_asked.insert(origin) {
            self.requests.push(Request::Members(origin));
        }
    }

    /// A peer sent its members, or did not.
    pub(super) fn members_fetched(&mut self, origin: Origin, snapshot: Option<Snapshot>) {
        self.members_asked.remove(&origin);
        if let Some(snapshot) = snapshot
            && self.peers.hears(origin)
        {
            self.replace_members(origin, snapshot);
            self.fetch_members(origin);
        }
    }
}
