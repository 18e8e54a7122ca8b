//! What a node's effects do to the world.

use std::time::Duration;

use super::fetches::Ask;
use super::witness::Push;
use super::world::{Event, NodeId, World};
use crate::core::Output;
use crate::core::bounds::JOIN_MAX;
use crate::core::members::Change;
use crate::core::news::{Entries, News};

impl World {
    /// Carries out a node's effects, then sees to its next tick.
    pub(super) fn settle(&mut self, id: NodeId) {
        let now = self.now_of(id);
        self.nodes[id].core.send_requests(now);
        while self.nodes[id].core.has_outputs() {
            let effects = self.nodes[id].core.take_outputs();
            let mut batch: Option<Entries> = None;
            for effect in effects {
                if let Output::Append {
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
                if matches!(effect, Output::Publish(..))
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

    fn effect(&mut self, id: NodeId, effect: Output) {
        match effect {
            Output::Append { .. } => unreachable!("batched by the caller"),
            Output::Publish(news) => {
                self.tells_the_truth(id, &news);
                self.publish(id, *news);
            }
            Output::Deliver(entry, whole) => {
                self.tell(|_| format!("n{id} delivers {:?}", entry.id()));
                self.delivered(id, &entry);
                self.deliver(id, &entry, whole);
            }
            Output::Said {
                ticket,
                id: entry,
                ts,
                copies,
            } => self.said(id, ticket, (entry, ts), copies),
            Output::NotSaid { ticket, .. } => {
                self.note("refused for the disk");
                if self.tickets.remove(&ticket).is_none() {
                    self.broken(format!("{ticket:?} was answered twice"));
                }
            }
            Output::Fetch { fetch, .. } => {
                self.tell(|_| format!("n{id} asks {fetch:?}"));
                self.ask(id, fetch.from, Ask::Log(fetch));
            }
            Output::AskPosition { from, .. } => self.ask(id, from, Ask::Position(from)),
            Output::RollOver(number) => {
                let waiting = std::mem::take(&mut self.nodes[id].wait_for_roll);
                for (of, input) in waiting {
                    if of <= number {
                        self.at(Duration::ZERO, Event::Input(id, input));
                    } else {
                        self.nodes[id].wait_for_roll.push((of, input));
                    }
                }
            }
            Output::CaughtUp => {
                self.tell(|_| format!("n{id} has caught up"));
                for input in std::mem::take(&mut self.nodes[id].held) {
                    self.at(Duration::ZERO, Event::Input(id, input));
                }
            }
            Output::FetchMembers { from, .. } => self.ask(id, from, Ask::Members(from)),
            Output::Gap(origin, span) => {
                self.tell(|_| format!("n{id} gives up {origin} {span:?}"));
                self.note("hole passed");
                self.gave_up(id, origin, span);
                self.nodes[id].gaps.push((origin, span));
                let conns: Vec<u64> = self.nodes[id].conns.keys().copied().collect();
                for conn in conns {
                    self.push(id, conn, Push::Gap(origin, span));
                }
            }
            Output::Members(change, count) => self.members_told(id, change, count),
            // Clients of this world ask what they need of the core themselves.
            Output::Typing(..) | Output::Answer(..) | Output::Read(..) => {}
            Output::Whole | Output::CatchingUp | Output::NodesChanged | Output::Notice(_) => {}
            Output::PublishPlain(_)
            | Output::Dial { .. }
            | Output::HangUp(_)
            | Output::Hello { .. }
            | Output::Write(_) => unreachable!("the world plays this part"),
            Output::Ready { unlinked, lacking } => {
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
                    self.ready_says_what_it_lacks(id, &lacking);
                }
                self.nodes[id].passed_before_ready = self.passed(id);
                self.nodes[id].ready_at = Some(self.now);
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
