//! Which origins positions name, and what the marks in them stand for: see [`position`](super::position).

use std::collections::{BTreeMap, BTreeSet};

use super::bounds::ORIGINS_MAX;
use super::clock::{AHEAD_MAX_US, Now};
use super::log::{Log, Span};
use super::memory::scoped::View;
use super::news::Beat;
use super::output::Output;
use super::position::{FRESH_MAX, Marks, NAMED_DEAD_MAX, NAMED_SPENT_MAX, Unnamed};
use super::presence::SETTLED_AFTER;
use super::rules;
use super::state::Core;
use crate::model::names::{EntryId, Origin};

impl Core {
    /// The time, for positions.
    fn position_time(&self) -> u64 {
        self.positions.time.max(self.clock.last())
    }

    /// Time has passed.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        self.positions.time = self.positions.time.max(now.wall_us);
        self.positions.now = now.wall_us;
    }

    /// It turns out to be so late, before any position was given to anybody.
    pub(super) fn limit_positions(&mut self, wall_us: u64) {
        self.positions.time = self.positions.time.min(wall_us);
    }

    /// The time of this node's positions, if it is ahead of the node's.
    pub(super) fn ahead_of(&self, now: Now) -> Option<EntryId> {
        let (origin, seq) = (Origin::MADE, self.position_time());
        (seq > now.wall_us).then_some(EntryId { origin, seq })
    }

    /// Another node told what time it is there, and that of its positions if that is ahead.
    pub(super) fn heard_clock(&mut self, beat: &Beat, now: Now) {
        let made = beat.position.iter().filter(|id| id.origin == Origin::MADE);
        let ts = made.map(|id| id.seq).fold(beat.ts, u64::max);
        let ahead = ts.saturating_sub(now.wall_us).min(AHEAD_MAX_US);
        self.positions.skew = self.positions.skew.max(ahead);
        let behind = now.wall_us.saturating_sub(beat.ts).min(AHEAD_MAX_US);
        self.positions.behind = self.positions.behind.max(behind);
    }

    /// A log has accepted entries from these times.
    pub(super) fn note_times(&mut self, origin: Origin, times: impl Iterator<Item = u64>) {
        let late_at = self.position_time() + 1;
        let positions = &mut self.positions;
        let log = self.logs.entry(origin).or_default();
        positions.fresh += usize::from(log.times.mark == 0);
        for ts in times {
            if ts <= positions.rest {
                positions.time = late_at;
                log.times.late = late_at;
            }
            log.times.mark = log.times.mark.max(ts).max(log.times.late);
        }
    }

    /// The time for what is trimmed now: later than all positions before it.
    pub(super) fn trim_time(&mut self, now: Now) -> u64 {
        self.positions.time = now.wall_us.max(self.position_time() + 1);
        self.positions.time
    }

    /// Many logs have begun: it is time to look which need not be named.
    pub(super) fn has_fresh(&self) -> bool {
        self.positions.fresh > FRESH_MAX
    }

    /// Decides which origins positions name. Only between two inputs: what is accepted by now has
    /// been brought to all clients.
    pub(super) fn settle_positions(&mut self, now: Now) {
        self.positions.fresh = 0;
        let alive = self.alive(now);
        let time = self.position_time();
        let (mut kept, mut spent) = (Vec::new(), Vec::new());
        for (origin, log) in &self.logs {
            let wild = log.times.mark > time;
            if log.held() == 0 || wild || alive.contains(origin) || log.missing().is_some() {
                continue;
            }
            let of = if log.held() <= log.floor() {
                &mut spent
            } else {
                &mut kept
            };
            of.push(log.times.mark);
        }
        for (marks, most) in [(&mut kept, NAMED_DEAD_MAX), (&mut spent, NAMED_SPENT_MAX)] {
            if let Some(surplus) = marks.len().checked_sub(most + 1) {
                let (_, mark, _) = marks.select_nth_unstable(surplus);
                self.positions.rest = self.positions.rest.max(*mark);
            }
        }
        self.positions.alive = alive;
    }

    /// Origins that may go on speaking: this one, and those that somebody hears, or heard just now.
    fn alive(&self, now: Now) -> BTreeSet<Origin> {
        let just_now = |at| now.mono < at + SETTLED_AFTER;
        let own = self.peers.iter();
        let own = own.filter(|(_, peer)| peer.linked || just_now(peer.linked_since));
        let own = own.map(|(origin, _)| origin);
        let others = self.peers.heard().flat_map(|(_, peer)| &peer.hears);
        own.chain(others.copied()).chain([self.me.origin]).collect()
    }

    /// Whether positions name an origin that this node knows.
    pub(crate) fn names(&self, origin: Origin) -> bool {
        self.logs.get(&origin).is_some_and(|log| {
            log.held() > 0
                && (self.positions.rest == 0
                    || log.times.mark > self.positions.rest
                    || self.positions.alive.contains(&origin)
                    || log.missing().is_some())
        })
    }

    /// The marks of a position that is made now. By a node whose time was taken back far it is as if made
    /// at no time: others would believe it when that time has come, whatever happened until then.
    pub(super) fn marks(&self) -> Marks {
        let time = self.position_time();
        let ahead = time > self.positions.now.saturating_add(AHEAD_MAX_US);
        Marks {
            made: if ahead { 1 } else { time },
            rest: self.positions.rest,
        }
    }

    /// The origins that a position names, and how far this node's logs reach.
    pub(super) fn named(&self) -> BTreeMap<Origin, u64> {
        let named = self.logs.iter().filter(|(origin, _)| self.names(**origin));
        named.map(|(origin, log)| (*origin, log.held())).collect()
    }

    /// Takes the marks out of a client's position.
    pub(super) fn marks_of(&self, seen: &mut BTreeMap<Origin, u64>) -> Marks {
        Marks::take(seen, self.position_time())
    }

    /// What a client has seen of an origin that it does not name.
    pub(super) fn unnamed(
        &self,
        rooms: &View<'_>,
        origin: Origin,
        log: &Log,
        marks: Marks,
    ) -> Unnamed {
        let times = log.times;
        if marks.rest > 0 && times.mark <= marks.rest {
            return Unnamed::Seen;
        }
        // The disk may have trimmed what is in memory still.
        let gone = log.floor().min(rooms.let_go(origin));
        let seq = gone.max(log.unknown());
        let after = EntryId { origin, seq };
        if seq > 0 && !self.was_before(times.trimmed, marks) {
            return Unnamed::Missed;
        }
        if times.late > marks.rest && marks.rest > 0 {
            // It came late here, and in time perhaps where the position was made.
            let early = rooms
                .shown_beyond(after)
                .any(|entry| entry.ts <= marks.rest);
            if early || self.archived_of(rooms, after, log).is_some() {
                return Unnamed::Missed;
            }
        }
        Unnamed::Beyond(rules::unnamed_begins(seq))
    }

    /// From now on clients are taken: what is said is owed to them.
    pub(super) fn begin_to_owe(&mut self, now: Now) {
        self.positions.taken_since = Some(now.mono);
        self.positions.owed_since = self.positions.owed_since.min(now.wall_us);
    }

    /// A client has got all beyond this position, if it has one.
    pub(super) fn has_resumed(&mut self, since: Option<&[EntryId]>) {
        let made = |since: &[EntryId]| {
            let made = since.iter().filter(|id| id.origin == Origin::MADE);
            made.map(|id| id.seq).max().unwrap_or_default()
        };
        if let Some(since) = since {
            self.positions.owed_since = self.positions.owed_since.min(made(since));
        }
    }

    /// A log begins here behind what others have trimmed, which was said until then at the latest. What of
    /// that was said since clients are owed it they are told to be lost; what is older is history that they
    /// never were to get.
    pub(super) fn tell_skipped(&mut self, origin: Origin, until: u64, now: Now) {
        let Some(taken) = self.positions.taken_since else {
            return;
        };
        // By the time as it is now: the clock may have been set since.
        let ago = u64::try_from(now.mono.saturating_sub(taken).as_micros()).unwrap_or(u64::MAX);
        let since = now
            .wall_us
            .saturating_sub(ago)
            .min(self.positions.owed_since);
        let until = until.saturating_add(self.positions.behind);
        if rules::is_owed(since, until) {
            let through = self.logs.get(&origin).map_or(0, Log::started_behind);
            let span = Span { after: 0, through };
            self.outputs.push(Output::Gap(origin, span));
        }
    }

    /// Whether a client may have missed something of which not even the origin is known any more.
    pub(super) fn has_forgotten(&self, marks: Marks) -> bool {
        self.positions.forgotten > 0 && !self.was_before(self.positions.forgotten, marks)
    }

    /// Whether what was trimmed then was gone when a position was made, by any clock.
    fn was_before(&self, trimmed: u64, marks: Marks) -> bool {
        rules::was_gone(trimmed.saturating_add(self.positions.skew), marks.made)
    }

    /// A log of which nothing is kept is forgotten.
    pub(super) fn forget_log(&mut self, origin: Origin) {
        if let Some(log) = self.logs.remove(&origin) {
            let positions = &mut self.positions;
            positions.forgotten = positions.forgotten.max(log.times.trimmed);
            positions.rest = positions.rest.max(log.times.mark.min(positions.time));
        }
        self.repairs.forget(origin);
    }

    /// Whether logs of dead origins that this node has not are not fetched, since it has too many.
    pub(super) fn is_full_of_logs(&self) -> bool {
        self.logs.len() >= ORIGINS_MAX && self.first_spent().is_none()
    }

    /// The log of which nothing is kept, and nobody adds to, that was trimmed first.
    pub(super) fn first_spent(&self) -> Option<Origin> {
        let spent = self.logs.iter().filter(|(origin, log)| {
            let spent = log.held() <= log.floor() && log.missing().is_none();
            spent && **origin != self.me.origin && !self.peers.hears(**origin)
        });
        let first = spent.min_by_key(|(_, log)| log.times.trimmed);
        first.map(|(origin, _)| *origin)
    }
}
