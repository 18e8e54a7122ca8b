//! Carries out what the core decided.

use std::sync::Arc;

use super::disk::not_taken;
use super::{Answer, CarrierCommand, Errand, Node, Said};
use crate::clients::ConnId;
use crate::core::copies::Ticket;
use crate::core::journal::NotTaken;
use crate::core::log::Span;
use crate::core::members::Change;
use crate::core::news::News;
use crate::core::output::Notice;
use crate::core::resume::Ahead;
use crate::core::{Now, ORIGINS_MAX, Output};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};
use crate::wire::protocol::{self, Gap};
use crate::wire::sse;

impl Node {
    /// Carries out all that the core decided, in order.
    pub(crate) fn carry_out(&mut self, now: Now) {
        while self.core.has_outputs() {
            let spare = std::mem::take(&mut self.outputs_spare);
            let mut outputs = self.core.take_outputs(spare);
            for output in outputs.drain(..) {
                self.output(output, now);
            }
            self.outputs_spare = outputs;
        }
        if self.events.is_stale {
            self.events.refresh(&self.core, self.clients.streams());
        }
    }

    fn output(&mut self, output: Output, now: Now) {
        match output {
            Output::Append { entry, ack_wanted } => self.append(entry, ack_wanted, now),
            Output::PublishPlain(text) => self.carrier(CarrierCommand::PublishPlain(text)),
            Output::Publish(news) => {
                // With a beat it is decided anew whom positions name.
                self.events.is_stale |= matches!(news, News::Beat(_));
                self.publish(&news, now);
            }
            Output::Dial {
                link,
                endpoint,
                speech,
            } => self.carrier(CarrierCommand::Dial(link, endpoint, speech)),
            Output::HangUp(link) => self.carrier(CarrierCommand::HangUp(link)),
            Output::Deliver(entry, whole) => {
                self.events.saw(&entry);
                let id = |ahead: &Ahead| self.events.id(&self.core, &entry, ahead);
                self.clients.deliver(&entry, whole, id);
            }
            Output::Said {
                ticket,
                id,
                ts,
                copies,
            } => self.said(ticket, id, ts, copies),
            Output::NotSaid { ticket, why } => self.not_said(ticket, why),
            Output::Gap(origin, span) => self.gap(origin, span),
            Output::Members(change, count) => self.members(&change, count),
            Output::Typing(room, name) => self.typing_push(&room, &name),
            Output::NodesChanged => {
                let push = protocol::push("nodes", &self.core.nodes());
                self.push_to_all(&push);
            }
            Output::Hello { to, url } => self.errands.push(Errand::Hello(to, url)),
            Output::Fetch { fetch, url, bytes } => {
                self.counters.fetches += 1;
                self.errands.push(Errand::Fetch(fetch, url, bytes));
            }
            Output::FetchMembers { from, url } => {
                self.errands.push(Errand::FetchMembers(from, url));
            }
            Output::AskPosition { from, url } => {
                self.errands.push(Errand::AskPosition(from, url));
            }
            Output::Write(batch) => self.write(batch),
            Output::Ready { lacking, .. } => self.now_ready(now, lacking.len()),
            Output::Whole => tracing::info!("all is here now that others held"),
            Output::CatchingUp => self.catching_up(),
            Output::CaughtUp => self.caught_up(),
            Output::RollOver(number) => {
                self.roll_over.send_replace(number);
            }
            Output::Notice(notice) => tell(notice),
        }
    }

    fn append(&mut self, entry: Arc<Entry>, ack_wanted: bool, now: Now) {
        self.counters.said += 1;
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
    }

    /// Messages that others held when this node joined, and that are not here yet.
    pub(crate) fn lacking_messages(&self) -> u64 {
        let count = |span: Span| span.through.saturating_sub(span.after);
        let lacking = self.core.lacking();
        lacking.fold(0, |sum, (_, span)| count(span).saturating_add(sum))
    }

    /// Sends a push to all `chat.v1` clients that have said hello.
    pub(crate) fn push_to_all(&mut self, push: &str) {
        for id in self.clients.share(0, 1) {
            if self.clients.is_chat(id) && self.session_name(id).is_some() {
                self.clients.send(id, push);
            }
        }
    }
}

/// Tells who runs this node.
fn tell(notice: Notice) {
    match notice {
        Notice::LinkUp(peer) => tracing::info!(%peer, "link up"),
        Notice::LinkDown(peer) => tracing::info!(%peer, "link down"),
        Notice::NotLinked {
            origin,
            endpoint,
            fault,
        } => {
            let peer = origin.map(|origin| origin.to_string()).unwrap_or_default();
            let reason = fault.why.as_str();
            tracing::warn!(peer, endpoint, reason, "not linked: {}", fault.text);
        }
        Notice::Silent { link, origin } => {
            let peer = origin.map(|origin| origin.to_string()).unwrap_or_default();
            tracing::warn!(
                link = link.0,
                peer,
                "no beat for 3 s: the link is torn down"
            );
        }
        Notice::ClockWrong { wrong_s } => tracing::warn!(
            wrong_s,
            "this node's clock is more than a minute from the others': it goes by theirs"
        ),
        Notice::PeerSkewed {
            peer,
            apart,
            is_ahead,
        } => {
            let (peer, apart_s) = (peer.as_str(), apart.as_secs());
            let way = if is_ahead { "ahead" } else { "behind" };
            tracing::warn!(
                peer,
                apart_s,
                "the peer's clock is {way} by more than a minute"
            );
        }
        Notice::DiskFull(why) => tracing::error!(
            "the disk is full ({why}): messages are refused until there is room; \
             reading goes on"
        ),
        Notice::DiskHasRoom => tracing::info!("the disk has room again: messages are taken"),
        Notice::FullOfLogs => tracing::warn!(
            "history of {ORIGINS_MAX} starts of nodes is kept here, as many as can be: what \
             others hold of dead ones is not fetched until retention lets some go"
        ),
    }
}
