//! What time alone brings: beats, acknowledgements, and the end of what was waited for.

use std::time::Duration;

use super::bounds::{BEAT_EVERY, BEAT_REST, BEAT_SOON, ORIGINS_MAX, SILENCE_MAX, TICK_EVERY};
use super::clock::Now;
use super::log::Log;
use super::members::Change;
use super::news::{Ack, Entries, News};
use super::output::Output;
use super::rules;
use super::state::Core;
use crate::model::names::Origin;

impl Core {
    /// Time has passed.
    pub(super) fn tick(&mut self, now: Now) {
        self.look_at_clock(now);
        self.send_acks(now);
        self.send_beat(now);
        if now.mono >= self.tick_due {
            self.see_what_is_due(now);
        }
        let effects = self.links.tick(now.mono);
        self.link_effects(effects, now);
        self.greet(now);
    }

    fn see_what_is_due(&mut self, now: Now) {
        if self.has_fresh() {
            self.settle_positions(now);
        }
        let (stopped, unread) = self.stops.tick(now.mono, self.tick_due);
        if !stopped.is_zero() {
            self.links.excuse(now.mono, stopped);
        }
        self.tick_due = now.mono + TICK_EVERY;
        if !unread {
            self.forget_silent(now);
        }
        let open: Vec<Origin> = self.repairs.open().collect();
        for origin in open {
            self.repair(origin, now);
        }
        if self.repairs.holes_are_due(now.mono) {
            self.ask_somebody_for_holes();
        }
        self.repair_holes(now);
        self.refill(now);
        self.settle_waits(now);
        self.mids.expire(now.mono);
        self.expect_listed(now);
        self.check_ready(now);
        self.check_roll(now);
        self.check_whole();
    }

    /// Asks all that hear this node to say what they hold of it, by a frame without entries.
    pub(super) fn ask_acks(&mut self, now: Now) {
        let log = Entries {
            origin: self.me.origin,
            ack_wanted: true,
            entries: Vec::new(),
        };
        self.outputs
            .push(Output::Publish(Box::new(News::Entries(log))));
        self.beat_at_once(now);
    }

    /// Another node asks for a beat.
    pub(super) fn ask_beat(&mut self, now: Now) {
        self.beat_after(now, Duration::ZERO);
        self.send_beat(now);
    }

    /// What has changed is worth a beat.
    pub(super) fn beat_soon(&mut self, now: Now) {
        self.beat_after(now, BEAT_SOON);
    }

    fn beat_after(&mut self, now: Now, wait: Duration) {
        let links = u32::try_from(self.links.up_count()).unwrap_or(u32::MAX);
        let rested = self.beat_last + BEAT_REST.saturating_mul(links);
        self.beat_due = self.beat_due.min(rested.max(now.mono + wait));
    }

    /// Beats at once, whatever it costs.
    pub(super) fn beat_at_once(&mut self, now: Now) {
        self.beat_due = now.mono;
        self.send_beat(now);
    }

    fn forget_silent(&mut self, now: Now) {
        let silent: Vec<Origin> = self
            .peers
            .iter()
            .filter(|(_, peer)| {
                let heard = peer.beat_at.unwrap_or(peer.linked_since);
                now.mono >= heard + SILENCE_MAX
            })
            .map(|(origin, _)| origin)
            .collect();
        for origin in silent {
            if rules::leave_with_their_node(self.members.knows(origin)) {
                self.forget_members(origin);
            }
        }
    }

    fn send_beat(&mut self, now: Now) {
        if now.mono < self.beat_due {
            return;
        }
        self.beat_last = now.mono;
        self.beat_due = now.mono + BEAT_EVERY;
        let beat = self.beat(now);
        self.outputs
            .push(Output::Publish(Box::new(News::Beat(beat))));
        for room in std::mem::take(&mut self.crowds) {
            let count = self.members.count(&room);
            let change = Change {
                room,
                joined: Vec::new(),
                left: Vec::new(),
            };
            self.outputs.push(Output::Members(change, count));
        }
        self.forget_origins(now);
        self.update_nodes();
        let full = self.notices.full_of_logs(self.is_full_of_logs());
        self.outputs.extend(full.map(Output::Notice));
    }

    pub(super) fn send_acks(&mut self, now: Now) {
        let Self {
            acks,
            logs,
            outputs,
            me,
            ..
        } = self;
        for (origin, acks) in acks.iter_mut() {
            if acks.due.is_some_and(|due| due <= now.mono) {
                acks.due = None;
                acks.last = Some(now.mono);
                let through = logs.get(origin).map_or(0, Log::solid);
                acks.told = through;
                let ack = Ack {
                    to: *origin,
                    from: me.origin,
                    through,
                };
                outputs.push(Output::Publish(Box::new(News::Ack(ack))));
            }
        }
    }

    /// Forgets peers that are gone for good, and logs of which nothing is kept, if there are many.
    fn forget_origins(&mut self, now: Now) {
        let gone: Vec<Origin> = self
            .peers
            .iter()
            .filter(|(origin, peer)| {
                !peer.linked
                    && now.mono >= peer.linked_since + 20 * SILENCE_MAX
                    && self.peers.is_gone(*origin, now.mono)
            })
            .map(|(origin, _)| origin)
            .collect();
        for origin in gone {
            self.peers.forget(origin);
            self.acks.remove(&origin);
            self.members_asked.remove(&origin);
        }
        while self.logs.len() >= ORIGINS_MAX
            && let Some(origin) = self.first_spent()
        {
            self.forget_log(origin);
        }
        self.settle_positions(now);
    }
}
