//! What clients ask for becomes inputs of the core; what can be told at once is.

use serde::Serialize;

use super::request::{Join, Request, Say, Seen};
use super::rules;
use super::session::{Command, Desk, Next, RequestId, Rules};
use super::slot::{ConnId, Heard, Style};
use super::waiting::{Answer, Said, Waiting};
use super::websocket::append_pong;
use super::{Clients, Session, Side};
use crate::core::mids::MID_KEPT;
use crate::core::named::{Mids, Named};
use crate::core::question::{Question, Resume};
use crate::core::resumed::Ahead;
use crate::core::{self, Core, Input, Now, Source};
use crate::model::names::{Mid, RoomName, UserName};
use crate::model::pattern::Pattern;
use crate::wire::protocol::{self, ROOMS_MAX, Refusal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// When more than so many bytes wait for a client, its next requests wait too.
pub(super) const REPLIES_BYTES_MAX: usize = 512 << 10;
/// Questions and messages of clients and HTTP that wait at the most; beyond, HTTP is answered
/// `overloaded`.
const WAITING_MAX: usize = 100_000;

/// What `hello` is answered.
#[derive(Debug, Serialize)]
struct Welcome<'a> {
    origin: &'a str,
    node: &'a str,
    name: &'a UserName,
    limits: protocol::Limits,
    nodes: &'a [String],
    /// Whether there is a keeper, which is one more copy.
    keeper: bool,
}

/// Serves one client's session.
struct Server<'a> {
    clients: &'a mut Clients,
    core: &'a mut Core,
    id: ConnId,
    now: Now,
}

impl Desk for Server<'_> {
    fn rooms(&self) -> usize {
        self.clients.table.rooms_of(self.id).len()
    }

    fn is_in(&self, room: &RoomName) -> bool {
        self.clients.table.hears(self.id, room)
    }

    fn is_busy(&self) -> bool {
        let conn = self.clients.table.get(self.id);
        conn.is_some_and(|conn| conn.client.waits || conn.pending() > REPLIES_BYTES_MAX)
    }

    fn take(&mut self, command: Command<'_>) {
        let (clients, id) = (&mut *self.clients, self.id);
        match command {
            Command::Serve(rid, request) => clients.serve(self.core, id, rid, request, self.now),
            Command::Refuse(rid, refusal) => clients.refuse(id, &rid, &refusal),
            Command::Echo => clients.table.send(id, "{}"),
            Command::Pong(payload) => {
                let pong = |output: &mut Vec<u8>| append_pong(output, payload);
                clients.table.append(id, pong);
            }
        }
    }
}

impl Clients {
    /// Takes bytes of a client; what it must not say yet is kept until its pause is over.
    pub(super) fn feed(&mut self, core: &mut Core, id: ConnId, bytes: &mut [u8], now: Now) {
        if !self.table.is_open(id) {
            // Closed here; what still comes is read and dropped until the client ends it too.
            return;
        }
        let Some(mut session) = self.lend(id) else {
            return;
        };
        let rules = Rules {
            rate_limit: self.rate_limit,
            now: now.mono,
        };
        let next = session.feed(
            bytes,
            rules,
            &mut Server {
                clients: self,
                core,
                id,
                now,
            },
        );
        self.give_back(id, session);
        match next {
            Next::Read => {}
            Next::Pause(wait) => {
                if let Some(conn) = self.table.get_mut(id) {
                    conn.paused = true;
                    self.sockets.pause(id, now.mono + wait);
                }
            }
            Next::Close(close) => self.close(core, id, &close, now),
            Next::Broken(close) => {
                self.totals.refused += 1;
                self.close(core, id, &close, now);
            }
        }
    }

    fn lend(&mut self, id: ConnId) -> Option<Session> {
        let side = &mut self.client(id)?.side;
        match std::mem::replace(side, Side::Fed) {
            Side::Says(session) => Some(session),
            other => {
                *side = other;
                None
            }
        }
    }

    fn give_back(&mut self, id: ConnId, session: Session) {
        if let Some(client) = self.client(id) {
            client.side = Side::Says(session);
        }
    }

    pub(super) fn refuse(&mut self, id: ConnId, rid: &RequestId, refusal: &Refusal) {
        self.totals.refused += 1;
        let error = protocol::error(rid.as_ref(), refusal);
        self.table.send(id, &error);
    }

    /// A reply whose length has a bound.
    pub(super) fn reply(&mut self, id: ConnId, rid: &RequestId, verb: &str, body: &impl Serialize) {
        if let Some(rid) = rid {
            self.table.send(id, &protocol::reply(rid, verb, body));
        }
    }

    /// A reply as long as the client wanted it: it does not make it slow.
    pub(super) fn reply_asked(
        &mut self,
        id: ConnId,
        rid: &RequestId,
        verb: &str,
        body: &impl Serialize,
    ) {
        if let Some(rid) = rid {
            self.table.send_asked(id, &protocol::reply(rid, verb, body));
        }
    }

    fn serve(
        &mut self,
        core: &mut Core,
        id: ConnId,
        rid: RequestId,
        request: Request<'_>,
        now: Now,
    ) {
        let Some(client) = self.client(id) else {
            return;
        };
        if let Request::Hello(name) = request {
            return self.hello(core, id, &rid, name, now);
        }
        let Some(name) = client.name.clone() else {
            return;
        };
        match request {
            Request::Hello(_) => {}
            Request::Say(say) => self.say(core, id, rid, &name, &say, now),
            Request::Join(join) => {
                let again = rid.clone();
                if let Err(refusal) = self.join(core, id, rid, join, now) {
                    self.refuse(id, &again, &refusal);
                }
            }
            Request::Watch(watch) => self.watch(core, id, rid, watch, now),
            Request::Unwatch(rooms) => self.unwatch(id, &rid, &rooms),
            Request::Seen(seen) => self.seen(id, &rid, seen, now),
            Request::Leave(room) => {
                self.table.unsubscribe(id, &room);
                core.handle(Input::Leave(&room, &name), now);
                self.reply(id, &rid, "leave", &in_room(&room));
            }
            Request::Typing(room, tell) => {
                if tell {
                    core.handle(Input::Typing(&room, &name), now);
                }
                self.reply(id, &rid, "typing", &in_room(&room));
            }
            Request::History {
                room,
                before,
                limit,
            } => {
                let page = Question::Page {
                    room,
                    before,
                    limit,
                };
                self.ask_for(core, id, Waiting::History(id, rid), page, now);
            }
            Request::Search(search) => {
                let waiting = Waiting::Search(id, rid, search.room.clone());
                self.ask_for(core, id, waiting, Question::Search(search), now);
            }
            Request::Who(room) => {
                let members = core.members();
                let (list, count) = (members.list(&room), members.count(&room));
                let who = serde_json::json!({ "room": room, "members": list, "count": count });
                self.reply_asked(id, &rid, "who", &who);
            }
        }
    }

    fn hello(
        &mut self,
        core: &mut Core,
        id: ConnId,
        rid: &RequestId,
        name: Option<UserName>,
        now: Now,
    ) {
        let name = name.unwrap_or_else(|| self.guest_name(core));
        let before = self.client(id).and_then(|it| it.name.replace(name.clone()));
        // A second hello is a change of name.
        if let Some(before) = before {
            for room in self.table.rooms_of(id) {
                core.handle(Input::Enter(room, &name), now);
                core.handle(Input::Leave(room, &before), now);
            }
            self.carry_out(core, now);
        }
        let me = core.identity();
        let welcome = Welcome {
            origin: me.origin.as_str(),
            node: &me.name,
            name: &name,
            limits: protocol::Limits::new(self.rate_limit),
            nodes: core.nodes(),
            keeper: core.keeper().is_some(),
        };
        self.reply(id, rid, "hello", &welcome);
    }

    fn say(
        &mut self,
        core: &mut Core,
        id: ConnId,
        rid: RequestId,
        name: &UserName,
        say: &Say<'_>,
        now: Now,
    ) {
        let only = || self.table.rooms_of(id).next().cloned();
        let Some(room) = say.room.clone().or_else(only) else {
            return;
        };
        // Without a disk nothing is refused from here on: nobody need be told.
        let ticket = if rid.is_some() || core.is_durable() {
            if let Some(client) = self.client(id) {
                client.awaits += 1;
            }
            self.wait(Waiting::Said(id, rid))
        } else {
            self.ticket()
        };
        let say = core::Say {
            ticket,
            room: &room,
            from: name,
            mid: say.mid.as_ref(),
            text: &say.text,
            copies: say.copies,
            source: Source::Client,
        };
        core.handle(Input::Say(say), now);
        self.carry_out(core, now);
    }

    fn join(
        &mut self,
        core: &mut Core,
        id: ConnId,
        rid: RequestId,
        join: Join,
        now: Now,
    ) -> Result<(), Refusal> {
        let room = join.room;
        let rooms = Pattern::Room(room.clone());
        self.name(id, (&rooms, &room), join.mids, now)?;
        if !self.table.hears(id, &room) && self.table.rooms_of(id).len() >= ROOMS_MAX {
            let message = format!("at most {ROOMS_MAX} rooms a connection");
            return Err(Refusal::new("room_limit", message));
        }
        let resume = Resume {
            scope: self.scope(id, &Heard::Room(room.clone())),
            since: join.since,
            named: Named {
                mids: self.take_named(id, &rooms),
                behind: join.named,
            },
            history: join.history,
        };
        let waiting = Waiting::Join(id, rid, room);
        self.ask_for(core, id, waiting, Question::Resume(resume), now);
        Ok(())
    }

    /// Asks the core for a client, whose next requests wait until it is answered.
    pub(super) fn ask_for(
        &mut self,
        core: &mut Core,
        id: ConnId,
        waiting: Waiting,
        question: Question,
        now: Now,
    ) {
        if let Some(client) = self.client(id) {
            client.waits = true;
        }
        self.ask(core, waiting, question, now);
    }

    pub(super) fn ask(&mut self, core: &mut Core, waiting: Waiting, question: Question, now: Now) {
        let ticket = self.wait(waiting);
        core.handle(Input::Ask(ticket, question), now);
        self.carry_out(core, now);
    }

    /// Asks the core for a task of this node.
    ///
    /// # Errors
    /// `overloaded` if too many wait.
    pub(crate) fn ask_for_task(
        &mut self,
        core: &mut Core,
        (question, answer): (Question, Answer),
        gone: CancellationToken,
        now: Now,
    ) -> Result<(), Refusal> {
        // What a peer lacks may be what the others wait for.
        if question.is_of_clients() && self.waiting.len() >= WAITING_MAX {
            return Err(Refusal::new("overloaded", "too many requests wait"));
        }
        self.ask(core, Waiting::Task(answer, gone), question, now);
        Ok(())
    }

    /// Says something for a request over HTTP; what `say` names as its ticket is replaced.
    ///
    /// # Errors
    /// `overloaded` if too many wait.
    pub(crate) fn post(
        &mut self,
        core: &mut Core,
        say: core::Say<'_>,
        answer: oneshot::Sender<Result<Said, Refusal>>,
        now: Now,
    ) -> Result<(), Refusal> {
        if self.waiting.len() >= WAITING_MAX {
            let message = "too many messages wait for their copies";
            return Err(Refusal::new("overloaded", message));
        }
        let ticket = self.wait(Waiting::Posted(answer));
        core.handle(Input::Say(core::Say { ticket, ..say }), now);
        self.carry_out(core, now);
        Ok(())
    }

    /// A client of the plain form enters its room under a guest's name.
    pub(super) fn enter_plain(&mut self, core: &mut Core, id: ConnId, room: &RoomName, now: Now) {
        let Some(name) = self.client(id).and_then(|client| client.name.clone()) else {
            return;
        };
        core.handle(Input::Enter(room, &name), now);
        self.carry_out(core, now);
        self.table.subscribe(id, room, Ahead::default());
    }

    /// A client names what it was shown.
    fn seen(&mut self, id: ConnId, rid: &RequestId, seen: Seen, now: Now) {
        match self.name(id, (&seen.rooms, &seen.room), seen.mids, now) {
            Ok(()) => self.reply(id, rid, "seen", &in_room(&seen.room)),
            Err(refusal) => self.refuse(id, rid, &refusal),
        }
    }

    /// Adds to what a client has named of rooms, of one of them. One that names those of others begins
    /// anew.
    fn name(
        &mut self,
        id: ConnId,
        (rooms, room): (&Pattern, &RoomName),
        mids: Vec<Mid>,
        now: Now,
    ) -> Result<(), Refusal> {
        let mut named = rules::named_before(self.take_named(id, rooms));
        named
            .add(room, mids, &self.named, now.mono + MID_KEPT)
            .map_err(|why| Refusal::new("too_many_mids", why.to_string()))?;
        self.put_named(id, rooms, named);
        Ok(())
    }

    pub(super) fn take_named(&mut self, id: ConnId, rooms: &Pattern) -> Mids {
        let seen = self.client(id).and_then(|client| client.seen.take());
        match seen {
            Some(seen) if seen.0 == *rooms => seen.1,
            Some(_) | None => Mids::default(),
        }
    }

    pub(super) fn put_named(&mut self, id: ConnId, rooms: &Pattern, named: Mids) {
        if let Some(client) = self.client(id).filter(|_| !named.is_empty()) {
            client.seen = Some(Box::new((rooms.clone(), named)));
        }
    }

    /// Sends a push to all `chat.v1` clients that have said hello.
    pub(crate) fn push_to_all(&mut self, push: &str) {
        for id in self.table.share(0, 1) {
            let greeted = self.client(id).is_some_and(|client| client.name.is_some());
            if greeted && self.table.style(id) == Some(Style::Chat) {
                self.table.send(id, push);
            }
        }
    }
}

fn in_room(room: &RoomName) -> serde_json::Value {
    serde_json::json!({ "room": room })
}
