//! What a node's effects do to the world.

use std::time::Duration;

use super::exempt::Exempt;
use super::fetches::Ask;
use super::phases::GIVEN_UP_MAX;
use super::world::{Event, NodeId, World};
use crate::core::bounds::JOIN_MAX;
use crate::core::members::Change;
use crate::core::news::{Entries, News};
use crate::core::output::Notice;
use crate::core::question::LogPart;
use crate::core::{Input, Now, Output};
use crate::model::names::Origin;

impl World {
    /// Carries out all that a node wants, then ends its turn and sees to its next tick.
    pub(super) fn settle(&mut self, id: NodeId) {
        let now = self.now_of(id);
        self.nodes[id].core.begin_turn(now);
        self.were_read(id);
        self.carry_out_at(id, now);
        if self.disk_of(id).is_some() {
            self.nodes[id].core.handle(Input::TurnOver, now);
            self.carry_out_at(id, now);
        }
        let writes = self.nodes[id].core.has_output();
        self.nodes[id].core.end_turn(now);
        self.carry_out_at(id, now);
        if writes {
            self.hand_out(id);
        }
        let node = &mut self.nodes[id];
        let offset = self.machines[node.slot].mono_offset;
        let due = node.core.due() + node.stood_still;
        let due = due.saturating_sub(offset).max(self.now);
        if node.tick_at.is_none_or(|at| due < at) {
            node.tick_at = Some(due);
            let after = due - self.now;
            self.at(after, Event::Tick(id, due));
        }
    }

    /// Carries out all that a node wants, in order.
    pub(super) fn carry_out(&mut self, id: NodeId) {
        let now = self.now_of(id);
        self.carry_out_at(id, now);
    }

    fn carry_out_at(&mut self, id: NodeId, now: Now) {
        loop {
            let effects = self.nodes[id].core.settle(now);
            if effects.is_empty() {
                break;
            }
            let mut batch: Option<Entries> = None;
            for effect in effects {
                if let Output::Append { entry, ack_wanted } = effect {
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
        self.take_answers(id);
    }

    pub(super) fn effect(&mut self, id: NodeId, effect: Output) {
        match effect {
            Output::Append { .. } => unreachable!("batched by the caller"),
            Output::Publish(news) => {
                self.tells_the_truth(id, &news);
                self.publish(id, *news);
            }
            Output::Deliver(entry, _) => {
                self.tell(|_| format!("n{id} delivers {:?}", entry.id()));
                self.delivered(id, &entry);
            }
            Output::Dial { link, endpoint, .. } => self.dial(id, link, endpoint),
            Output::HangUp(link) => self.hang_up(id, link),
            Output::Hello { to, url } => self.ask(id, &url, Ask::Hello(to)),
            Output::Fetch { fetch, url, bytes } => {
                self.tell(|_| format!("n{id} asks {fetch:?}"));
                let part = LogPart {
                    origin: fetch.origin,
                    span: fetch.span,
                    whole: self.nodes[id].core.is_durable(),
                    bytes,
                };
                self.ask(id, &url, Ask::Log(fetch, part));
            }
            Output::AskPosition { from, url } => {
                if !self.nodes[id].core.is_catching_up() {
                    self.note("others asked for what a client has seen");
                }
                self.ask(id, &url, Ask::Position(from));
            }
            Output::Read(ticket, read) => self.reads(id, ticket, read),
            Output::Write(batch) => self.writes(id, batch),
            Output::CaughtUp => {
                self.tell(|_| format!("n{id} has caught up"));
                self.lets_in(id);
            }
            Output::FetchMembers { from, url } => self.ask(id, &url, Ask::Members(from)),
            Output::Gap(origin, span) => {
                self.tell(|_| format!("n{id} gives up {origin} {span:?}"));
                self.note("hole passed");
                self.gave_up(id, origin, span);
                self.nodes[id].gaps.push((origin, span));
            }
            Output::Members(change, count) => self.members_told(id, change, count),
            Output::Notice(notice) => self.noticed(id, &notice),
            Output::Whole | Output::CatchingUp => {}
            Output::PublishPlain(_) => unreachable!("nobody speaks the plain form here"),
            Output::Keep(_) => unreachable!("nobody has a keeper here"),
            Output::Said { .. }
            | Output::NotSaid { .. }
            | Output::Answer(..)
            | Output::Typing(..)
            | Output::NodesChanged => unreachable!("clients are told"),
            Output::Ready { unlinked, lacking } => self.takes_clients(id, &unlinked, &lacking),
        }
    }

    /// A node takes clients from now on.
    fn takes_clients(&mut self, id: NodeId, unlinked: &[Origin], lacking: &[Origin]) {
        self.tell(|_| format!("n{id} is ready, lacks {unlinked:?}, {lacking:?}"));
        if self.now < self.nodes[id].started + JOIN_MAX {
            self.note("ready with all");
            self.ready_with_all(id, unlinked);
        } else {
            self.note("ready after 5 s");
            self.nothing_was_in_its_way(id);
            self.ready_says_what_it_lacks(id, lacking);
        }
        self.nodes[id].ready_at = Some(self.now);
        self.nodes[id].passed_before_ready = self.passed(id);
        self.lets_in(id);
    }

    /// Those who waited for a node to take clients come in.
    fn lets_in(&mut self, id: NodeId) {
        for input in std::mem::take(&mut self.nodes[id].held) {
            self.at(Duration::ZERO, Event::Input(id, input));
        }
    }

    /// A node that starts when all faults are over joins with all that is there, and not when its time is
    /// up, unless it waits for what only one had that is perhaps not dead.
    fn nothing_was_in_its_way(&self, id: NodeId) {
        let node = &self.nodes[id];
        let awaited = self.dead_awaited.map(|at| at + GIVEN_UP_MAX);
        let awaits = awaited >= Some(self.now) && self.passes(Exempt::SaysWhomItLacks);
        if node.started >= self.plan.faults_end && !node.kept_waiting && !awaits {
            self.broken(format!("n{id} joined without all, though all is well"));
        }
    }

    fn noticed(&mut self, id: NodeId, notice: &Notice) {
        self.tell(|_| format!("n{id} notices {notice:?}"));
        let node = &mut self.nodes[id];
        match notice {
            Notice::LinkUp(origin) => drop(node.hears.insert(*origin)),
            Notice::LinkDown(origin) => {
                node.hears.remove(origin);
                node.unheard = self.now;
                self.clocks_changed = self.now;
            }
            Notice::Silent { .. } => self.note("fault: link silent"),
            _ => {}
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
