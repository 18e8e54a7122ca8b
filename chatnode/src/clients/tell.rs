//! What the core tells clients, framed for all who hear it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Clients;
use super::session::RequestId;
use super::slot::{ConnId, Heard, Style};
use super::waiting::{Said, Waiting};
use crate::core::copies::Ticket;
use crate::core::journal::NotTaken;
use crate::core::log::Span;
use crate::core::members::Change;
use crate::core::named::Named;
use crate::core::news::News;
use crate::core::question::{Found, Unread};
use crate::core::resumed::{Ahead, Resumed};
use crate::core::saying::PLAIN_ROOM;
use crate::core::{Core, Input, Now, Output};
use crate::model::names::{Origin, RoomName, UserName};
use crate::model::pattern::Pattern;
use crate::wire::protocol::{self, Gap, HistoryPage};
use crate::wire::refusals::{id_unknown, mids_wanted, not_taken, unread};
use crate::wire::sse;

/// What `join` is answered.
#[derive(Debug, Serialize)]
struct Joined<'a> {
    room: &'a RoomName,
    recovered: bool,
    at: Box<RawValue>,
    messages: Box<RawValue>,
    members: Vec<&'a UserName>,
    count: usize,
}

impl Clients {
    /// Carries out what the core wants, in order: what it tells clients here, the rest is set aside.
    pub(crate) fn settle(&mut self, core: &mut Core, now: Now) {
        self.carry_out(core, now);
        self.streams.refresh_if_stale(core, self.table.streams());
    }

    /// The same while something is being done for a client.
    pub(super) fn carry_out(&mut self, core: &mut Core, now: Now) {
        while core.has_outputs() {
            let mut outputs = core.take_outputs(std::mem::take(&mut self.spare));
            for output in outputs.drain(..) {
                self.tell(core, output, now);
            }
            self.spare = outputs;
        }
    }

    fn tell(&mut self, core: &mut Core, output: Output, now: Now) {
        #[cfg(test)]
        self.beyond.extend(output.to_be_judged());
        match output {
            Output::Deliver(entry, whole) => {
                self.streams.saw(&entry);
                let id = |ahead: &Ahead| self.streams.id(core, &entry, ahead);
                self.table.deliver(&entry, whole, id);
                if self.is_bridged && entry.room.as_str() == PLAIN_ROOM {
                    self.beyond.push(Output::Deliver(entry, whole));
                }
            }
            Output::Said {
                ticket,
                id,
                ts,
                held,
            } => self.said(core, ticket, Said { id, ts, held }, now),
            Output::NotSaid { ticket, why } => self.not_said(core, ticket, why, now),
            Output::Answer(ticket, found) => self.answered(core, ticket, *found, now),
            Output::Gap(origin, span) => self.gap(origin, span),
            Output::Members(change, count) => self.members(&change, count),
            Output::NodesChanged => {
                self.push_to_all(&protocol::push("nodes", &core.nodes()));
            }
            Output::Typing(room, name) => {
                let push = serde_json::json!({ "room": room, "name": name });
                self.table.push(&room, &protocol::push("typing", &push));
            }
            output => {
                if let Output::Publish(news) = &output
                    && matches!(**news, News::Beat(_))
                {
                    // With a beat it is decided anew whom positions name.
                    self.streams.is_stale = true;
                }
                self.beyond.push(output);
            }
        }
    }

    fn said(&mut self, core: &mut Core, ticket: Ticket, said: Said, now: Now) {
        if self.waiting.is_empty() {
            return;
        }
        match self.waiting.remove(&ticket) {
            Some(Waiting::Said(conn, request)) => {
                if let Some(request) = request {
                    let Said { id, ts, held } = said;
                    let keeper = match held.keeper {
                        Some(true) => ",\"keeper\":true",
                        Some(false) => ",\"keeper\":false",
                        None => "",
                    };
                    let copies = held.copies;
                    let reply = format!(
                        "{{\"id\":{request},\"send\":{{\"id\":\"{id}\",\"ts\":{ts},\"copies\":{copies}{keeper}}}}}"
                    );
                    self.table.send(conn, &reply);
                }
                self.outcome_known(core, conn, now);
            }
            Some(Waiting::Posted(outcome)) => {
                // Fails if the client has gone, which concerns nobody.
                let _ = outcome.send(Ok(said));
            }
            _ => {}
        }
    }

    fn not_said(&mut self, core: &mut Core, ticket: Ticket, why: NotTaken, now: Now) {
        self.totals.not_taken += 1;
        let refusal = not_taken(why);
        match self.waiting.remove(&ticket) {
            Some(Waiting::Said(conn, request)) => {
                // In the plain form nothing can be told.
                if self.table.style(conn) == Some(Style::Chat) {
                    let error = protocol::error(request.as_ref(), &refusal);
                    self.table.send(conn, &error);
                }
                self.outcome_known(core, conn, now);
            }
            Some(Waiting::Posted(outcome)) => {
                // Fails if the client has gone, which concerns nobody.
                let _ = outcome.send(Err(refusal));
            }
            _ => {}
        }
    }

    /// What became of a client's message is known.
    fn outcome_known(&mut self, core: &mut Core, conn: ConnId, now: Now) {
        if let Some(client) = self.client(conn) {
            client.awaits = client.awaits.saturating_sub(1);
            self.if_said_all(core, conn, now);
        }
    }

    fn answered(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        found: Result<Found, Unread>,
        now: Now,
    ) {
        let Some(waiting) = self.waiting.remove(&ticket) else {
            return;
        };
        match waiting {
            Waiting::Task(answer, _) => {
                // Fails if who asked has gone.
                let _ = answer.send(found.map_err(|unread| unread.why));
            }
            Waiting::Stream(comes) => self.begin_stream(core, *comes, found, now),
            Waiting::Join(conn, rid, room) => {
                self.goes_on(conn, |clients| match found {
                    Ok(Found::Resumed(resumed, named)) => {
                        clients.joined(core, conn, &rid, &room, *resumed, named, now);
                    }
                    Err(Unread { why, named }) => {
                        // It names only once what it was shown.
                        clients.put_named(conn, &Pattern::Room(room), named.mids);
                        clients.refuse(conn, &rid, &unread(&why));
                    }
                    Ok(_) => {}
                });
                self.if_said_all(core, conn, now);
            }
            Waiting::Watch(conn, rid, rooms) => {
                self.goes_on(conn, |clients| match found {
                    Ok(Found::Resumed(resumed, named)) => {
                        clients.watched(conn, &rid, &rooms, *resumed, named);
                    }
                    Err(Unread { why, named }) => {
                        clients.put_named(conn, &rooms, named.mids);
                        clients.refuse(conn, &rid, &unread(&why));
                    }
                    Ok(_) => {}
                });
                self.if_said_all(core, conn, now);
            }
            Waiting::History(conn, rid) => {
                self.goes_on(conn, |clients| match found {
                    Ok(Found::Page(page)) => {
                        clients.reply_asked(conn, &rid, "history", &HistoryPage::of(&page));
                    }
                    found => clients.no_page(conn, &rid, &found),
                });
                self.if_said_all(core, conn, now);
            }
            Waiting::Search(conn, rid, room) => {
                self.goes_on(conn, |clients| match found {
                    Ok(Found::Page(page)) => {
                        let page = HistoryPage::of(&page);
                        let found = serde_json::json!({
                            "room": room, "messages": page.messages, "more": page.more,
                        });
                        clients.reply_asked(conn, &rid, "search", &found);
                    }
                    found => clients.no_page(conn, &rid, &found),
                });
                self.if_said_all(core, conn, now);
            }
            Waiting::Said(..) | Waiting::Posted(_) => {}
        }
    }

    /// A client's request is answered, if it has not gone: its next ones are looked at. What waits
    /// behind it is looked at when its pause is over, which is soon.
    fn goes_on(&mut self, conn: ConnId, answer: impl FnOnce(&mut Self)) {
        if let Some(client) = self.client(conn) {
            client.waits = false;
            if self.table.is_open(conn) {
                answer(self);
            }
        }
    }

    /// There is no answer but this.
    fn no_page(&mut self, conn: ConnId, rid: &RequestId, found: &Result<Found, Unread>) {
        let refusal = match found {
            Err(unanswered) => unread(&unanswered.why),
            Ok(_) => id_unknown(),
        };
        self.refuse(conn, rid, &refusal);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "who joins what, and what it gets, differ in type"
    )]
    fn joined(
        &mut self,
        core: &mut Core,
        id: ConnId,
        rid: &RequestId,
        room: &RoomName,
        resumed: Resumed,
        named: Named,
        now: Now,
    ) {
        if !resumed.unnamed.is_empty() {
            self.put_named(id, &Pattern::Room(room.clone()), named.mids);
            return self.refuse(id, rid, &mids_wanted(&resumed.unnamed));
        }
        self.table.bring_watched(id);
        if self.table.hears(id, room) {
            self.table.unsubscribe(id, room);
        } else if let Some(name) = self.client(id).and_then(|client| client.name.clone()) {
            core.handle(Input::Enter(room, &name), now);
            self.carry_out(core, now);
        }
        let joined = Joined {
            room,
            recovered: resumed.recovered,
            at: protocol::position(&resumed.at),
            messages: protocol::entries(resumed.entries.iter().map(|entry| &**entry)),
            members: core.members().list(room),
            count: core.members().count(room),
        };
        self.reply_asked(id, rid, "join", &joined);
        let heard = Heard::Room(room.clone());
        for (origin, span) in &resumed.gaps {
            let gap = gap_of(&heard, origin, span);
            self.table.send_asked(id, &protocol::push("gap", &gap));
        }
        self.table.join(id, room, resumed.ahead, resumed.recovered);
    }

    fn gap(&mut self, origin: Origin, span: Span) {
        self.totals.holes += 1;
        tracing::warn!(
            %origin, after = span.after, through = span.through,
            "entries are lost: no node that is heard has them"
        );
        for room in self.table.rooms() {
            let heard = Heard::Room(room);
            let gap = gap_of(&heard, &origin, &span);
            if let Heard::Room(room) = &heard {
                self.table.push(room, &protocol::push("gap", &gap));
                self.table.push_event(room, &sse::gap(&gap));
            }
        }
        self.table.tell_watchers(|heard| {
            let gap = gap_of(heard, &origin, &span);
            [protocol::push("gap", &gap), sse::gap(&gap)]
        });
    }

    fn members(&mut self, change: &Change, count: usize) {
        if !self.table.is_pushed_to(&change.room) {
            return;
        }
        let push = serde_json::json!({
            "room": change.room, "joined": change.joined, "left": change.left, "count": count,
        });
        let push = protocol::push("members", &push);
        self.table.push(&change.room, &push);
    }
}

/// A gap, as clients are told of what they hear.
pub(super) fn gap_of<'a>(heard: &'a Heard, origin: &'a Origin, span: &Span) -> Gap<'a> {
    let (room, rooms) = match heard {
        Heard::Room(room) => (Some(room), None),
        Heard::Pattern(rooms) => (None, Some(rooms)),
    };
    Gap {
        room,
        rooms,
        origin: origin.as_str(),
        after: span.after,
        through: span.through,
    }
}
