//! The inputs of a [`Core`]: what clients, peers and time bring.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::clock::STALL_MIN;
use super::copies::{COPIES_WAIT_MAX, Wait};
use super::log::{Log, Span};
use super::members::{Change, Snapshot};
use super::peers::SILENCE_MAX;
use super::repair::FetchId;
use super::{
    ACK_EVERY, BEAT_EVERY, BEAT_SOON, Core, Effect, LogPage, Now, ORIGINS_MAX, Say, TICK_EVERY,
};
use crate::core::news::{Ack, Beat, Entries, Live, LiveEvent, News};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};

impl Core {
    /// A client says something. Answered by [`Effect::Said`], on a node with a disk once it is there,
    /// or by [`Effect::NotSaid`]; a mid that was seen before makes no second entry, and the answer is
    /// the first one's.
    pub(crate) fn say(&mut self, now: Now, say: Say<'_>) {
        let first = say.mid.and_then(|mid| self.mids.get(say.room, mid));
        let first = first.filter(|_| !mutated!(MidNotLookedUp));
        let (id, ts) = match first {
            Some(first) => first,
            None if self.is_durable() && !mutated!(SaidBeforeStored) => {
                return self.stage(now, say);
            }
            None => self.append(now, say),
        };
        let wait = Wait {
            ticket: say.ticket,
            id,
            ts,
            need: say.copies,
            until: now.mono + COPIES_WAIT_MAX,
        };
        self.answer_or_wait(wait, first.is_none());
    }

    /// Answers a say, or lets it wait for its copies. `own` if it is for the newest own entry.
    pub(super) fn answer_or_wait(&mut self, wait: Wait, own: bool) {
        let copies = self.copies(wait.id);
        if copies >= wait.need || !self.waits.add(wait, own) {
            self.effects.push(Effect::Said {
                ticket: wait.ticket,
                id: wait.id,
                ts: wait.ts,
                copies,
            });
        }
    }

    fn append(&mut self, now: Now, say: Say<'_>) -> (EntryId, u64) {
        let ts = self.clock.stamp(now.wall_us);
        let origin = self.me.origin;
        let seq = self.log_mut(origin).held() + 1;
        let id = EntryId { origin, seq };
        let entry = Entry::new(
            id,
            ts,
            say.room.clone(),
            say.mid.cloned(),
            say.from,
            say.text,
        );
        let entry = Arc::new(entry);
        self.effects.push(Effect::Append {
            entry: Arc::clone(&entry),
            ack_wanted: say.copies > 0,
            source: say.source,
        });
        self.arrive(origin, [entry], now);
        (id, ts)
    }

    /// A connection of this node enters a room under a name.
    pub(crate) fn enter(&mut self, room: &RoomName, name: &UserName) {
        let (version, change) = self.members.enter(room, name);
        self.changed_members(room, version, vec![name.clone()], Vec::new(), change);
    }

    /// A connection of this node leaves a room.
    pub(crate) fn leave(&mut self, room: &RoomName, name: &UserName) {
        let (version, change) = self.members.leave(room, name);
        self.changed_members(room, version, Vec::new(), vec![name.clone()], change);
    }

    fn changed_members(
        &mut self,
        room: &RoomName,
        version: Option<u64>,
        joined: Vec<UserName>,
        left: Vec<UserName>,
        change: Option<Change>,
    ) {
        if let Some(version) = version {
            self.live(LiveEvent::Members {
                version,
                room: room.clone(),
                joined,
                left,
            });
        }
        self.told_members(change);
    }

    /// A client of this node types.
    pub(crate) fn typing(&mut self, room: &RoomName, name: &UserName) {
        self.live(LiveEvent::Typing {
            room: room.clone(),
            name: name.clone(),
        });
        self.effects
            .push(Effect::Typing(room.clone(), name.clone()));
    }

    /// Publishes an event that may be lost; those of one turn travel together.
    fn live(&mut self, event: LiveEvent) {
        if let Some(Effect::Publish(News::Live(live))) = self.effects.last_mut() {
            return live.events.push(event);
        }
        let live = Live {
            origin: self.me.origin,
            events: vec![event],
        };
        self.effects.push(Effect::Publish(News::Live(live)));
    }

    /// News came on the link to `from`.
    pub(crate) fn news(&mut self, now: Now, from: Origin, news: News) {
        self.look(now);
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
    fn acknowledge(&mut self, origin: Origin, now: Now) {
        let Some(acks) = self.acks.get_mut(&origin) else {
            return;
        };
        let solid = self.logs.get(&origin).map_or(0, Log::solid);
        let earliest = acks.last.map_or(now.mono, |last| last + ACK_EVERY);
        let dropped = mutated!(SoonAckDropped) && earliest > now.mono;
        if solid > acks.told && acks.told < acks.wanted && !dropped {
            acks.due.get_or_insert(earliest.max(now.mono));
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
            self.ask_for_holes(beat.origin);
            self.beat_due = self.beat_due.min(now.mono + BEAT_SOON);
        }
        self.settle_waits(now);
        self.check_ready(now);
    }

    /// A peer says what it holds: what of that is not here is missing.
    pub(super) fn claim_position(&mut self, beat: &Beat, now: Now) {
        for (origin, seq) in beat.reaches() {
            let known = self.logs.contains_key(&origin);
            let ignored = mutated!(HeadNotCompared) && origin == beat.origin;
            let ignored = ignored || (mutated!(DeadOriginNotFetched) && !self.peers.hears(origin));
            let full = !known && self.logs.len() >= ORIGINS_MAX;
            if origin == self.me.origin || seq == 0 || full || ignored {
                continue;
            }
            let log = self.log_mut(origin);
            if seq > log.held() {
                log.claim(seq);
                self.repair(origin, now);
            }
        }
    }

    fn live_frame(&mut self, frame: Live) {
        for event in frame.events {
            match event {
                LiveEvent::Typing { room, name } => self.effects.push(Effect::Typing(room, name)),
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
            self.effects.push(Effect::FetchMembers(origin));
        }
    }

    /// The link to a node came up: its first beat has proved who it is.
    pub(crate) fn linked(&mut self, now: Now, origin: Origin) {
        self.look(now);
        self.peers.link(origin, true, now.mono);
        self.beat_due = self.beat_due.min(now.mono + BEAT_SOON);
    }

    /// The link to a node went down.
    pub(crate) fn unlinked(&mut self, now: Now, origin: Origin) {
        self.look(now);
        self.peers.link(origin, false, now.mono);
        self.beat_due = self.beat_due.min(now.mono + BEAT_SOON);
        self.check_ready(now);
        self.check_roll(now);
    }

    /// The registries have answered: these nodes are alive, and joining waits for them.
    pub(crate) fn expect(&mut self, now: Now, origins: BTreeSet<Origin>) {
        self.expected = Some(origins);
        self.check_ready(now);
    }

    /// A peer answered a [`Fetch`](super::repair::Fetch), or did not.
    pub(crate) fn fetched(&mut self, now: Now, id: FetchId, page: Option<LogPage>) {
        self.look(now);
        let Some((fetch, shown)) = self.repairs.end(id) else {
            return;
        };
        let origin = fetch.origin;
        let fits = |entry: &Arc<Entry>| entry.origin == origin || mutated!(ForeignPageTaken);
        let page = page.filter(|page| page.entries.iter().all(fits));
        if let Some(page) = page {
            let bytes = page.entries.iter().map(|entry| entry.json.len()).sum();
            self.repairs.spend(now.mono, bytes);
            let recovered = self.repairs.answered(&fetch);
            let log = self.log_mut(origin);
            let before = log.held();
            let mut accepted = Vec::new();
            log.trimmed_elsewhere(page.floor);
            log.start_behind(page.floor, &mut accepted);
            if fetch.from == origin {
                log.settle(page.floor);
            }
            if log.started_behind() > before {
                let at = self.trim_time(now);
                self.log_mut(origin).times.skip(at);
            }
            self.accept(origin, accepted, now);
            let count = self.arrive(origin, page.entries, now);
            let log = self.log_mut(origin);
            log.counts.repaired += count as u64;
            if log.held() == before {
                self.repairs.lacks(&fetch, shown);
            }
            if fetch.span.after < before && count > 0 {
                self.repairs.holes_changed(now.mono);
                let rest = |hole: &&Span| hole.through == fetch.span.through && !recovered;
                if let Some(rest) = self.logs[&origin].holes().iter().find(rest) {
                    self.repairs.ask_for_hole(fetch.from, origin, *rest);
                }
            }
            if recovered {
                self.ask_for_holes(fetch.from);
            }
        } else {
            self.repairs.failed(&fetch, now.mono);
        }
        let begun = self.repairs.begun();
        self.repair(origin, now);
        self.repair_next(begun, now);
        self.repair_holes(now);
        self.acknowledge(origin, now);
        self.check_ready(now);
        self.check_roll(now);
        self.check_whole();
    }

    /// A peer sent its members, or did not.
    pub(crate) fn members_fetched(&mut self, origin: Origin, snapshot: Option<Snapshot>) {
        self.members_asked.remove(&origin);
        if let Some(snapshot) = snapshot
            && self.peers.hears(origin)
        {
            self.replace_members(origin, snapshot);
            self.fetch_members(origin);
        }
    }

    /// Asks all that hear this node to say what they hold of it, by a frame without entries.
    pub(crate) fn ask_acks(&mut self, now: Now) {
        let log = Entries {
            origin: self.me.origin,
            ack_wanted: true,
            entries: Vec::new(),
        };
        self.effects.push(Effect::Publish(News::Entries(log)));
        self.ask_beat(now);
    }

    /// Somebody asks for a beat now.
    pub(crate) fn ask_beat(&mut self, now: Now) {
        self.beat_due = now.mono;
        self.send_beat(now);
    }

    /// Time has passed. Must be called by [`Core::deadline`].
    pub(crate) fn tick(&mut self, now: Now) {
        self.look_at_clock(now);
        self.look(now);
        self.send_acks(now);
        self.send_beat(now);
        if now.mono < self.tick_due {
            return;
        }
        if self.has_fresh() {
            self.settle_positions(now);
        }
        // After a suspension what has arrived meanwhile is still to be read: nobody is judged yet.
        let suspended = now.mono > self.tick_due + STALL_MIN;
        self.tick_due = now.mono + TICK_EVERY;
        if !suspended {
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
        self.check_ready(now);
        self.check_roll(now);
        self.check_whole();
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
            if self.members.knows(origin) && !mutated!(DeadMembersStay) {
                self.forget_members(origin);
            }
        }
    }

    fn send_beat(&mut self, now: Now) {
        if now.mono < self.beat_due {
            return;
        }
        self.beat_due = now.mono + BEAT_EVERY;
        let beat = self.beat(now);
        self.effects.push(Effect::Publish(News::Beat(beat)));
        for room in std::mem::take(&mut self.crowds) {
            let count = self.members.count(&room);
            let change = Change {
                room,
                joined: Vec::new(),
                left: Vec::new(),
            };
            self.effects.push(Effect::Members(change, count));
        }
        self.forget_origins(now);
    }

    fn send_acks(&mut self, now: Now) {
        let Self {
            acks,
            logs,
            effects,
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
                effects.push(Effect::Publish(News::Ack(ack)));
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
