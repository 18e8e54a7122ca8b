//! What clients of this node do: they say something, enter and leave rooms, and type.

use std::sync::Arc;

use super::clock::Now;
use super::copies::{COPIES_WAIT_MAX, Wait};
use super::input::Say;
use super::members::{self, Change, Snapshot};
use super::news::{Live, LiveEvent, News};
use super::output::Effect;
use super::peers::Peer;
use super::state::Core;
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

    pub(super) fn told_members(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let count = self.members.count(&change.room);
            if count > members::MEMBERS_LISTED_MAX {
                self.crowds.insert(change.room);
            } else {
                self.effects.push(Effect::Members(change, count));
            }
        }
    }

    pub(super) fn settle_waits(&mut self, now: Now) {
        if self.waits.is_empty() {
            return;
        }
        let mut waits = std::mem::take(&mut self.waits);
        let mut said = Vec::new();
        let solid = |(_, peer): (_, &Peer)| peer.solid(self.me.origin);
        let mut acknowledged: Vec<u64> = self.peers.heard().map(solid).collect();
        acknowledged.sort_unstable_by(|a, b| b.cmp(a));
        waits.settle(
            now.mono,
            &acknowledged,
            |id| self.copies(id),
            |wait, copies| {
                said.push(Effect::Said {
                    ticket: wait.ticket,
                    id: wait.id,
                    ts: wait.ts,
                    copies,
                });
            },
        );
        self.waits = waits;
        self.effects.append(&mut said);
    }

    pub(super) fn forget_members(&mut self, origin: Origin) {
        let changes: Vec<Change> = self.members.forget(origin);
        self.told_members(changes);
    }

    pub(super) fn replace_members(&mut self, origin: Origin, snapshot: Snapshot) {
        let changes = self.members.replace(origin, snapshot);
        self.told_members(changes);
    }
}
