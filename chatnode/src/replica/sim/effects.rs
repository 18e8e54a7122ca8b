//! What a node's effects do to the world.

use std::sync::Arc;

use super::fetches::Ask;
use super::judge::Push;
use super::world::{Event, NodeId, World};
use crate::bus::Topic;
use crate::bus::frame::{Frame, LogFrame};
use crate::replica::members::Change;
use crate::replica::{Effect, JOIN_MAX};

impl World {
    /// Carries out a node's effects, then sees to its next tick.
    pub(super) fn settle(&mut self, id: NodeId) {
        while self.nodes[id].replica.has_effects() {
            let effects = self.nodes[id].replica.take_effects(Vec::new());
            let mut batch: Option<LogFrame> = None;
            for effect in effects {
                if let Effect::Append(entry, ack_wanted) = effect {
                    self.tell(|_| format!("n{id} appends {:?} {:?}", entry.id(), entry.mid));
                    self.ledger.insert(entry.id(), Arc::clone(&entry));
                    let frame = batch.get_or_insert_with(|| LogFrame {
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
                    self.publish(id, Topic::Log, &Frame::Log(frame));
                }
                self.effect(id, effect);
            }
            if let Some(frame) = batch {
                self.publish(id, Topic::Log, &Frame::Log(frame));
            }
        }
        let node = &mut self.nodes[id];
        let due = node
            .replica
            .deadline()
            .saturating_sub(node.mono_offset)
            .max(self.now);
        if node.tick_at.is_none_or(|at| due < at) {
            node.tick_at = Some(due);
            let after = due - self.now;
            self.at(after, Event::Tick(id, due));
        }
    }

    fn effect(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Append(..) => unreachable!("batched by the caller"),
            Effect::Publish(topic, frame) => self.publish(id, topic, &frame),
            Effect::Deliver(entry) => {
                self.tell(|_| format!("n{id} delivers {:?}", entry.id()));
                self.deliver(id, &entry);
            }
            Effect::Said {
                ticket,
                id: entry,
                copies,
                ..
            } => self.said(id, ticket, entry, copies),
            Effect::Fetch(fetch) => {
                self.tell(|_| format!("n{id} asks {fetch:?}"));
                self.ask(id, fetch.from, Ask::Log(fetch));
            }
            Effect::FetchMembers(from) => self.ask(id, from, Ask::Members(from)),
            Effect::Gap(origin, span) => {
                self.tell(|_| format!("n{id} gives up {origin} {span:?}"));
                self.counters.note("hole passed");
                self.gave_up(id, origin);
                self.nodes[id].gaps.push((origin, span));
                let conns: Vec<u64> = self.nodes[id].conns.keys().copied().collect();
                for conn in conns {
                    self.push(id, conn, Push::Gap(origin, span));
                }
            }
            Effect::Members(change, count) => self.members_told(id, change, count),
            Effect::Typing(..) => {}
            Effect::Ready(lacking) => {
                self.tell(|_| format!("n{id} is ready, lacks {lacking:?}"));
                let late = self.now >= self.nodes[id].started + JOIN_MAX;
                let how = if late {
                    "ready after 5 s"
                } else {
                    "ready with all"
                };
                self.counters.note(how);
                self.nodes[id].holes_before_ready = self.holes(id);
            }
        }
    }

    fn members_told(&mut self, id: NodeId, change: Change, count: usize) {
        let names = self.nodes[id].told_members.entry(change.room).or_default();
        for name in change.left {
            if !names.remove(&name) {
                panic!("SEED={}: {name} left twice", self.seed);
            }
        }
        for name in change.joined {
            if !names.insert(name.clone()) {
                panic!("SEED={}: {name} joined twice", self.seed);
            }
        }
        if names.len() != count {
            let names = names.clone();
            self.broken(format!("n{id} counts {count} members, told were {names:?}"));
        }
    }
}
