//! What a node's effects do to the world.

use std::time::Duration;

use super::fetches::Ask;
use super::witness::Push;
use super::world::{Event, NodeId, World};
use crate::core::members::Change;
use crate::core::news::{Entries, News};
use crate::core::{Effect, JOIN_MAX};

impl World {
    /// Carries out a node's effects, then sees to its next tick.
    pub(super) fn settle(&mut self, id: NodeId) {
        while self.nodes[id].core.has_effects() {
            let effects = self.nodes[id].core.take_effects();
            let mut batch: Option<Entries> = None;
            for effect in effects {
                if let Effect::Append {
                    entry, ack_wanted, ..
                } = effect
                {
                    self.appended(id, &entry);
                    let frame = batch.get_or_insert_with(|| Entries {
                        origin: entry.origin,
                        ack_wanted: false,
                        entries: Vec::new(),
                    });
                    frame.ack_wanted |= ack_wanted;
                    frame.entries.push(entry);
                    continue;
                }
                if matches!(effect, Effect::Publish(..))
                    && let Some(frame) = batch.take()
                {
                    self.publish(id, News::Entries(frame));
                }
                self.effect(id, effect);
            }
            if let Some(frame) = batch {
                self.publish(id, News::Entries(frame));
            }
        }
        self.feed_disk(id);
        let node = &mut self.nodes[id];
        let offset = self.machines[node.slot].mono_offset;
        let due = node.core.deadline() + node.stood_still;
        let due = due.saturating_sub(offset).max(self.now);
        if node.tick_at.is_none_or(|at| due < at) {
            node.tick_at = Some(due);
            let after = due - self.now;
            self.at(after, Event::Tick(id, due));
        }
    }

    fn effect(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Append { .. } => unreachable!("batched by the caller"),
            Effect::Publish(news) => {
                self.tells_the_truth(id, &news);
                self.publish(id, news);
            }
            Effect::Deliver(entry, whole) => {
                self.tell(|_| format!("n{id} delivers {:?}", entry.id()));
                self.delivered(id, &entry);
                self.deliver(id, &entry, whole);
            }
            Effect::Said {
                ticket,
                id: entry,
                ts,
                copies,
            } => self.said(id, ticket, (entry, ts), copies),
            Effect::NotSaid { ticket, .. } => {
                self.note("refused for the disk");
                if self.tickets.remove(&ticket).is_none() {
                    self.broken(format!("{ticket:?} was answered twice"));
                }
            }
            Effect::Fetch(fetch) => {
                self.tell(|_| format!("n{id} asks {fetch:?}"));
                self.ask(id, fetch.from, Ask::Log(fetch));
            }
            Effect::AskPosition(from) => self.ask(id, from, Ask::Position(from)),
            Effect::RollOver(number) => {
                let waiting = std::mem::take(&mut self.nodes[id].wait_for_roll);
                for (of, input) in waiting {
                    if of <= number {
                        self.at(Duration::ZERO, Event::Input(id, input));
                    } else {
                        self.nodes[id].wait_for_roll.push((of, input));
                    }
                }
            }
            Effect::CaughtUp => {
                self.tell(|_| format!("n{id} has caught up"));
                for input in std::mem::take(&mut self.nodes[id].held) {
                    self.at(Duration::ZERO, Event::Input(id, input));
                }
            }
            Effect::FetchMembers(from) => self.ask(id, from, Ask::Members(from)),
            Effect::Gap(origin, span) => {
                self.tell(|_| format!("n{id} gives up {origin} {span:?}"));
                self.note("hole passed");
                self.gave_up(id, origin, span);
                self.nodes[id].gaps.push((origin, span));
                let conns: Vec<u64> = self.nodes[id].conns.keys().copied().collect();
                for conn in conns {
                    self.push(id, conn, Push::Gap(origin, span));
                }
            }
            Effect::Members(change, count) => self.members_told(id, change, count),
            Effect::Typing(..) => {}
            Effect::Whole => {}
            Effect::Ready { unlinked, lacking } => {
                self.tell(|_| format!("n{id} is ready, lacks {unlinked:?}, {lacking:?}"));
                let late = self.now >= self.nodes[id].started + JOIN_MAX;
                self.note(if late {
                    "ready after 5 s"
                } else {
                    "ready with all"
                });
                if !late {
                    self.ready_with_all(id, &unlinked);
                } else {
                    self.ready_says_what_it_lacks(id, &unlinked, &lacking);
                }
                self.nodes[id].takes_clients = true;
                self.nodes[id].passed_before_ready = self.passed(id);
            }
        }
    }

    fn members_told(&mut self, id: NodeId, change: Change, count: usize) {
        let told = &mut self.nodes[id].told_members;
        let names = told.entry(change.room).or_default();
        let mut wrong = None;
        for name in change.left {
            if !names.remove(&name) {
                wrong = Some(format!("{name} left twice"));
            }
        }
        for name in change.joined {
            if !names.insert(name.clone()) {
                wrong = Some(format!("{name} joined twice"));
            }
        }
        if names.len() != count {
            wrong = Some(format!("{count} members, told were {names:?}"));
        }
        if let Some(wrong) = wrong {
            self.broken(format!("n{id} says: {wrong}"));
        }
    }
}
