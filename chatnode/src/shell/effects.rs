//! Carries out what the core decided.

use std::sync::Arc;

use super::disk::not_taken;
use super::{Answer, Errand, Node, Said};
use crate::clients::ConnId;
use crate::core::copies::Ticket;
use crate::core::durable::NotTaken;
use crate::core::log::Span;
use crate::core::members::Change;
use crate::core::news::News;
use crate::core::resume::Ahead;
use crate::core::{Effect, Now, ORIGINS_MAX, Source};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};
use crate::wire::protocol::{self, Gap};
use crate::wire::sse;

/// Nodes whose pages are remembered at the most; the oldest is forgotten first.
const NODES_SEEN_MAX: usize = 1024;

/// The room that the plain form speaks of.
pub(crate) const PLAIN_ROOM: &str = "lobby";

impl Node {
    /// Carries out all effects there are, in order.
    pub(crate) fn carry_out(&mut self, now: Now) {
        while self.core.has_effects() {
            let spare = std::mem::take(&mut self.effects_spare);
            let mut effects = self.core.take_effects(spare);
            for effect in effects.drain(..) {
                self.effect(effect, now);
            }
            self.effects_spare = effects;
        }
        if self.events.is_stale {
            self.events.refresh(&self.core, self.clients.streams());
        }
    }

    fn effect(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Append {
                entry,
                ack_wanted,
                source,
            } => self.append(entry, ack_wanted, source, now),
            Effect::Publish(news) => {
                // With a beat it is decided anew whom positions name.
                if matches!(news, News::Beat(_)) {
                    self.events.is_stale = true;
                    self.tell_full_of_logs();
                }
                self.publish(&news, now);
            }
            Effect::Deliver(entry, whole) => {
                self.events.saw(&entry);
                let id = |ahead: &Ahead| self.events.id(&self.core, &entry, ahead);
                self.clients.deliver(&entry, whole, id);
            }
            Effect::Said {
                ticket,
                id,
                ts,
                copies,
            } => self.said(ticket, id, ts, copies),
            Effect::NotSaid { ticket, why } => self.not_said(ticket, why),
            Effect::Fetch(fetch) => match self.http_of(fetch.from) {
                Some(url) => {
                    self.counters.fetches += 1;
                    self.errands.push(Errand::Fetch(fetch, url));
                }
                None => self.core.fetched(now, fetch.id, None),
            },
            Effect::FetchMembers(origin) => match self.http_of(origin) {
                Some(url) => self.errands.push(Errand::FetchMembers(origin, url)),
                None => self.core.members_fetched(origin, None),
            },
            Effect::AskPosition(origin) => match self.http_of(origin) {
                Some(url) => self.errands.push(Errand::AskPosition(origin, url)),
                None => self.core.position_told(now, origin, None),
            },
            Effect::RollOver(number) => {
                self.roll_over.send_replace(number);
            }
            Effect::CaughtUp => self.caught_up(),
            Effect::Gap(origin, span) => self.gap(origin, span),
            Effect::Members(change, count) => self.members(&change, count),
            Effect::Typing(room, name) => self.typing_push(&room, &name),
            Effect::Ready { lacking, .. } => self.now_ready(now, lacking.len()),
            Effect::Whole => tracing::info!("all is here now that others held"),
        }
    }

    /// Says once that what dead nodes said is not fetched any more.
    fn tell_full_of_logs(&mut self) {
        let full = self.core.is_full_of_logs();
        if full && !std::mem::replace(&mut self.full_of_logs, full) {
            tracing::warn!(
                "history of {ORIGINS_MAX} starts of nodes is kept here, as many as can be: what \
                 others hold of dead ones is not fetched until retention lets some go"
            );
        }
        self.full_of_logs = full;
    }

    fn append(&mut self, entry: Arc<Entry>, ack_wanted: bool, source: Source, now: Now) {
        self.counters.said += 1;
        if self.settings.publish_plain
            && source == Source::Client
            && entry.room.as_str() == PLAIN_ROOM
            && let Some(text) = entry.text()
        {
            let text = text.into_owned();
            self.carrier(super::CarrierCommand::PublishPlain(text));
        }
        self.outbox.append(entry, ack_wanted);
        if self.outbox.is_full() {
            self.publish_log(now);
        }
    }

    fn said(&mut self, ticket: Ticket, id: EntryId, ts: u64, copies: usize) {
        if self.answers.is_empty() {
            return;
        }
        let Some(answer) = self.answers.remove(&ticket) else {
            return;
        };
        match answer {
            Answer::Nobody => {}
            Answer::Chat(conn, request) => {
                if let Some(request) = request {
                    let reply = format!(
                        "{{\"id\":{request},\"send\":{{\"id\":\"{id}\",\"ts\":{ts},\"copies\":{copies}}}}}"
                    );
                    self.clients.send(conn, &reply);
                }
                self.outcome_known(conn);
            }
            Answer::Plain(conn) => self.outcome_known(conn),
            Answer::Http(outcome) => {
                // Fails if the client has gone, which concerns nobody.
                let _ = outcome.send(Ok(Said { id, ts, copies }));
            }
        }
    }

    fn not_said(&mut self, ticket: Ticket, why: NotTaken) {
        self.counters.not_taken += 1;
        let refusal = not_taken(why);
        match self.answers.remove(&ticket) {
            None | Some(Answer::Nobody) => {}
            Some(Answer::Chat(conn, request)) => {
                self.clients
                    .send(conn, &protocol::error(request.as_ref(), &refusal));
                self.outcome_known(conn);
            }
            Some(Answer::Plain(conn)) => self.outcome_known(conn),
            Some(Answer::Http(outcome)) => {
                // Fails if the client has gone, which concerns nobody.
                let _ = outcome.send(Err(refusal));
            }
        }
    }

    /// What became of a client's message is known.
    fn outcome_known(&mut self, conn: ConnId) {
        if let Some(of) = self.clients.get_mut(conn) {
            of.session.awaits = of.session.awaits.saturating_sub(1);
            self.if_said_all(conn);
        }
    }

    pub(crate) fn gap(&mut self, origin: Origin, span: Span) {
        self.counters.gaps += 1;
        tracing::warn!(
            %origin, after = span.after, through = span.through,
            "entries are lost: no node that is heard has them"
        );
        for room in self.clients.rooms() {
            let gap = Gap {
                room: &room,
                origin: origin.as_str(),
                after: span.after,
                through: span.through,
            };
            self.clients.push(&room, &protocol::push("gap", &gap));
            self.clients.push_event(&room, &sse::gap(&gap));
        }
    }

    fn members(&mut self, change: &Change, count: usize) {
        if !self.clients.is_pushed_to(&change.room) {
            return;
        }
        let push = serde_json::json!({
            "room": change.room, "joined": change.joined, "left": change.left, "count": count,
        });
        self.clients
            .push(&change.room, &protocol::push("members", &push));
    }

    fn typing_push(&mut self, room: &RoomName, name: &UserName) {
        let push = serde_json::json!({ "room": room, "name": name });
        self.clients.push(room, &protocol::push("typing", &push));
    }

    fn now_ready(&mut self, now: Now, logs: usize) {
        if logs > 0 {
            let count = self.lacking_messages();
            tracing::warn!(
                logs,
                count,
                "ready: takes clients, but lacks messages that others hold, and goes on fetching them"
            );
        }
        let lacking = self.lacking(now);
        if lacking.is_empty() {
            tracing::info!(
                count = self.core.peers().heard().count(),
                "ready: takes clients"
            );
        } else {
            let peers = lacking.join("; ");
            tracing::warn!(peers, "ready: takes clients, but lacks these peers");
        }
        self.ready.send_replace(self.takes_clients());
        self.update_nodes();
    }

    /// Messages that others held when this node joined, and that are not here yet.
    pub(crate) fn lacking_messages(&self) -> u64 {
        let count = |span: Span| span.through.saturating_sub(span.after);
        let lacking = self.core.lacking();
        lacking.fold(0, |sum, (_, span)| count(span).saturating_add(sum))
    }

    /// Tells clients which nodes there are, if that changed.
    pub(crate) fn update_nodes(&mut self) {
        let me = self.core.identity().http.clone();
        let others = self.core.peers().heard().filter(|(_, peer)| peer.ready);
        let mut nodes: Vec<String> = others
            .map(|(_, peer)| peer.http.clone())
            .filter(|http| !http.is_empty())
            .collect();
        nodes.sort();
        nodes.dedup();
        nodes.insert(0, me);
        if nodes != self.nodes {
            self.remember(nodes.iter().cloned());
            self.nodes = nodes;
            let push = protocol::push("nodes", &self.nodes);
            self.push_to_all(&push);
        }
    }

    /// Notes where nodes are: a page that one has served goes on at another when that one is dead.
    pub(crate) fn remember(&mut self, nodes: impl IntoIterator<Item = String>) {
        for node in nodes {
            if !self.nodes_seen.contains(&node) {
                if self.nodes_seen.len() >= NODES_SEEN_MAX {
                    self.nodes_seen.pop_front();
                }
                self.nodes_seen.push_back(node);
            }
        }
    }

    /// Sends a push to all `chat.v1` clients that have said hello.
    pub(crate) fn push_to_all(&mut self, push: &str) {
        for id in self.clients.share(0, 1) {
            if self.clients.is_chat(id) && self.session_name(id).is_some() {
                self.clients.send(id, push);
            }
        }
    }

    pub(super) fn http_of(&self, origin: Origin) -> Option<String> {
        let http = &self.core.peers().get(origin)?.http;
        (!http.is_empty()).then(|| http.clone())
    }
}
