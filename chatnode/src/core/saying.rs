//! What clients of this node do: they say something, enter and leave rooms, and type.

use std::sync::Arc;

use super::clock::Now;
use super::copies::{COPIES_WAIT_MAX, Ticket, Wait};
use super::input::{Foreign, Say, Source};
use super::members::{self, Change, Snapshot};
use super::news::{Live, LiveEvent, News};
use super::output::Output;
use super::peers::Peer;
use super::rules;
use super::state::Core;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};

/// The room that the plain form speaks of.
pub(crate) const PLAIN_ROOM: &str = "lobby";
/// The ticket of what nobody waits for.
const NOBODYS: Ticket = Ticket(0);

impl Core {
    /// A client says something. Answered by [`Output::Said`], on a node with a disk once it is there,
    /// or by [`Output::NotSaid`]; a mid that was seen before makes no second entry, and the answer is
    /// the first one's.
    pub(super) fn say(&mut self, now: Now, say: Say<'_>) {
        let first = say.mid.and_then(|mid| self.mids.get(say.room, mid));
        let (id, ts) = match rules::said_before(first) {
            Some(first) => first,
            None if rules::waits_for_disk(self.is_durable()) => {
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
        let held = self.held(wait.id);
        let is_enough = held.is_enough(wait.need, self.counted_by_keeper().is_some());
        if is_enough || !self.waits.add(wait, own) {
            self.outputs.push(Output::Said {
                ticket: wait.ticket,
                id: wait.id,
                ts: wait.ts,
                held,
            });
        } else {
            self.ask_keeper(wait.id);
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
        self.publish(&entry, say.copies > 0, say.source);
        self.arrive(origin, [entry], now);
        (id, ts)
    }

    /// A foreign program said something: it becomes this node's own message.
    pub(super) fn foreign(&mut self, said: Foreign<'_>, now: Now) {
        let room = PLAIN_ROOM.parse().expect("a valid room name");
        let say = Say {
            ticket: NOBODYS,
            room: &room,
            from: said.by,
            mid: Some(said.mid),
            text: said.text,
            copies: 0,
            source: Source::Foreign,
        };
        self.say(now, say);
    }

    /// Publishes an entry of this node's own log; in the plain form too if that is wanted, and it does not
    /// come from there.
    pub(super) fn publish(&mut self, entry: &Arc<Entry>, ack_wanted: bool, source: Source) {
        let plain = self.publish_plain && source == Source::Client;
        if plain
            && entry.room.as_str() == PLAIN_ROOM
            && let Some(text) = entry.text()
        {
            let text = text.into_owned();
            self.outputs.push(Output::PublishPlain(text));
        }
        self.outputs.push(Output::Append {
            entry: Arc::clone(entry),
            ack_wanted,
        });
    }

    /// A connection of this node enters a room under a name.
    pub(super) fn enter(&mut self, room: &RoomName, name: &UserName) {
        let (version, change) = self.members.enter(room, name);
        self.changed_members(room, version, vec![name.clone()], Vec::new(), change);
    }

    /// A connection of this node leaves a room.
    pub(super) fn leave(&mut self, room: &RoomName, name: &UserName) {
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
    pub(super) fn typing(&mut self, room: &RoomName, name: &UserName) {
        self.live(LiveEvent::Typing {
            room: room.clone(),
            name: name.clone(),
        });
        self.outputs
            .push(Output::Typing(room.clone(), name.clone()));
    }

    /// Publishes an event that may be lost; those of one turn travel together.
    fn live(&mut self, event: LiveEvent) {
        if let Some(Output::Publish(news)) = self.outputs.last_mut()
            && let News::Live(live) = &mut **news
        {
            return live.events.push(event);
        }
        let live = Live {
            origin: self.me.origin,
            events: vec![event],
        };
        self.outputs
            .push(Output::Publish(Box::new(News::Live(live))));
    }

    pub(super) fn told_members(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let count = self.members.count(&change.room);
            if count > members::MEMBERS_LISTED_MAX {
                self.crowds.insert(change.room);
            } else {
                self.outputs.push(Output::Members(change, count));
            }
        }
    }

    pub(super) fn settle_waits(&mut self, now: Now) {
        if self.waits.is_empty() {
            return;
        }
        let mut waits = std::mem::take(&mut self.waits);
        let mut said = Vec::new();
        let kept = self.counted_by_keeper();
        let solid = |(_, peer): (_, &Peer)| peer.solid(self.me.origin);
        let mut acknowledged: Vec<u64> = self.peers.heard().map(solid).collect();
        acknowledged.sort_unstable_by(|a, b| b.cmp(a));
        waits.settle(
            now.mono,
            &acknowledged,
            kept,
            |id| self.held(id),
            |wait, held| {
                said.push(Output::Said {
                    ticket: wait.ticket,
                    id: wait.id,
                    ts: wait.ts,
                    held,
                });
            },
        );
        self.waits = waits;
        self.outputs.append(&mut said);
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
