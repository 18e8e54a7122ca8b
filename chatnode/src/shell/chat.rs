//! The verbs of `chat.v1`.

use std::ops::ControlFlow;
use std::time::Duration;

use super::pages::{Halt, search_of};
use crate::clients::ConnId;
use crate::core::archive::{Archive, Need};
use crate::core::{Input, Now, Source};
use crate::model::names::{RoomName, UserName};
use crate::shell::disk::Late;
use crate::shell::{Answer, Errand, Node};
use crate::wire::protocol::{self, Hello, InRoom, Refusal, Request, Send};
use serde::Serialize;

/// When more than so many bytes wait for a client, its next requests wait too.
pub(crate) const REPLIES_BYTES_MAX: usize = 512 << 10;
/// Then it is looked at again after this.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

pub(super) type RequestId = Option<serde_json::Number>;

impl Node {
    /// A `chat.v1` client sent a frame. Breaks when the connection is not to be read further for
    /// now; lines that were not looked at wait in the session.
    pub(crate) fn chat_text(&mut self, id: ConnId, text: &str, now: Now) -> ControlFlow<()> {
        let mut rest = text;
        while !rest.is_empty() {
            // Who asks faster than it reads, or than the disk or other nodes answer, waits.
            let waits = self
                .clients
                .get_mut(id)
                .is_some_and(|conn| conn.session.waits);
            if waits || self.clients.pending(id) > REPLIES_BYTES_MAX {
                if let Some(conn) = self.clients.get_mut(id) {
                    conn.session.rest = Some(rest.into());
                }
                self.pause = Some(BUSY_PAUSE);
                return ControlFlow::Break(());
            }
            let line;
            (line, rest) = rest.split_once('\n').unwrap_or((rest, ""));
            if !self.clients.is_open(id) {
                return ControlFlow::Break(());
            }
            self.chat_line(id, line.trim(), now)?;
        }
        ControlFlow::Continue(())
    }

    fn chat_line(&mut self, id: ConnId, line: &str, now: Now) -> ControlFlow<()> {
        let Some(conn) = self.clients.get_mut(id) else {
            return ControlFlow::Break(());
        };
        if line.is_empty() {
            return ControlFlow::Continue(());
        }
        if line == "{}" {
            if conn.session.answer_ping(now.mono) {
                self.clients.send(id, "{}");
            }
            return ControlFlow::Continue(());
        }
        match protocol::parse(line) {
            Ok(request) => {
                let request_id = request.id.clone();
                match self.request(id, request, line, None, now) {
                    Ok(()) => {}
                    Err(Halt::Refused(refusal)) => self.refuse(id, request_id.as_ref(), &refusal),
                    Err(Halt::Needs(room, need)) => {
                        let (conn, line) = (id, line.into());
                        let late = Late {
                            conn,
                            line,
                            room,
                            need,
                        };
                        self.wait_for_disk(id, Errand::Late(late));
                    }
                }
            }
            Err((request_id, refusal)) => self.refuse(id, request_id.as_ref(), &refusal),
        }
        ControlFlow::Continue(())
    }

    fn refuse(&mut self, id: ConnId, rid: Option<&serde_json::Number>, refusal: &Refusal) {
        self.counters.refused += 1;
        self.clients.send(id, &protocol::error(rid, refusal));
    }

    /// A request is made again with what was read for it.
    ///
    /// # Errors
    /// What else has to be read.
    pub(crate) fn chat_again(
        &mut self,
        id: ConnId,
        line: &str,
        archive: &Archive,
        now: Now,
    ) -> Result<(), Need> {
        let Ok(request) = protocol::parse(line) else {
            return Ok(());
        };
        let request_id = request.id.clone();
        if !self.clients.is_open(id) {
            return Ok(());
        }
        match self.request(id, request, line, Some(archive), now) {
            Ok(()) => Ok(()),
            Err(Halt::Needs(_, need)) => Err(need),
            Err(Halt::Refused(refusal)) => {
                self.refuse(id, request_id.as_ref(), &refusal);
                Ok(())
            }
        }
    }

    /// A request could not be read for.
    pub(crate) fn chat_refused(&mut self, id: ConnId, line: &str, refusal: &Refusal) {
        let request_id = protocol::parse(line).ok().and_then(|request| request.id);
        self.refuse(id, request_id.as_ref(), refusal);
    }

    /// Counts requests that cost more than a message.
    fn count_asks(&mut self, id: ConnId, count: usize, now: Now) -> Result<(), Refusal> {
        let rate_limit = self.settings.rate_limit;
        let Some(conn) = self.clients.get_mut(id) else {
            return Ok(());
        };
        let counted = conn.session.count_asks(count, rate_limit, now.mono);
        counted.map_err(|wait| rate_limited("too many requests".to_owned(), wait))
    }

    /// Carries out a request; `archive` is what was read for it, if it is made again.
    fn request(
        &mut self,
        id: ConnId,
        request: Request<'_>,
        line: &str,
        archive: Option<&Archive>,
        now: Now,
    ) -> Result<(), Halt> {
        let rid = request.id;
        if let Some(hello) = request.hello {
            return Ok(self.hello(id, rid, &hello, now)?);
        }
        let Some(name) = self.session_name(id) else {
            return Err(Refusal::new("hello_required", "the first request is hello").into());
        };
        let asks = request.join.is_some()
            || request.leave.is_some()
            || request.seen.is_some()
            || request.history.is_some()
            || request.search.is_some()
            || request.who.is_some();
        if asks && archive.is_none() {
            self.count_asks(id, 1, now)?;
        }
        let nothing = Archive::default();
        let archive = archive.unwrap_or(&nothing);
        if let Some(send) = request.send {
            self.send(id, rid, &name, &send, now)?;
        } else if let Some(join) = request.join {
            self.join(id, rid, &name, &join, archive, now)?;
        } else if let Some(seen) = request.seen {
            self.seen(id, rid, &seen, now)?;
        } else if let Some(leave) = request.leave {
            self.leave(id, rid, &name, &leave)?;
        } else if let Some(typing) = request.typing {
            self.typing(id, rid, &name, &typing, now)?;
        } else if let Some(history) = request.history {
            self.history(id, rid, &history, archive)?;
        } else if let Some(search) = request.search {
            let search = search_of(
                &search.room,
                &search.q,
                search.before.as_deref(),
                search.limit,
            )?;
            self.wait_for_disk(id, Errand::Search(id, rid, search));
        } else if let Some(who) = request.who {
            self.who(id, rid, &who)?;
        } else {
            return Err(unknown_verb(line).into());
        }
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        id: ConnId,
        rid: RequestId,
        verb: &str,
        body: &impl Serialize,
        long: bool,
    ) {
        if let Some(rid) = rid {
            let reply = protocol::reply(&rid, verb, body);
            if long {
                self.clients.send_asked(id, &reply);
            } else {
                self.clients.send(id, &reply);
            }
        }
    }

    fn hello(
        &mut self,
        id: ConnId,
        rid: RequestId,
        hello: &Hello<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let name: UserName = match &hello.name {
            Some(name) => name.parse()?,
            None => self.guest_name(),
        };
        let rooms: Vec<RoomName> = self.clients.rooms_of(id).cloned().collect();
        self.count_asks(id, rooms.len() + 1, now)?;
        let Some(conn) = self.clients.get_mut(id) else {
            return Ok(());
        };
        // A second hello is a change of name.
        if let Some(before) = conn.session.name.replace(name.clone()) {
            for room in &rooms {
                self.core.handle(Input::Enter(room, &name), now);
                self.core.handle(Input::Leave(room, &before), now);
            }
            self.carry_out(now);
        }
        let me = self.core.identity();
        let body = serde_json::json!({
            "origin": me.origin.as_str(),
            "node": me.name,
            "name": name.as_str(),
            "limits": protocol::Limits::new(self.settings.rate_limit),
            "nodes": self.core.nodes(),
        });
        self.answer(id, rid, "hello", &body, false);
        Ok(())
    }

    fn leave(
        &mut self,
        id: ConnId,
        rid: RequestId,
        name: &UserName,
        leave: &InRoom<'_>,
    ) -> Result<(), Refusal> {
        let room = self.joined_room(id, leave)?;
        self.clients.unsubscribe(id, &room);
        let now = self.core.now();
        self.core.handle(Input::Leave(&room, name), now);
        self.answer(
            id,
            rid,
            "leave",
            &serde_json::json!({ "room": room.as_str() }),
            false,
        );
        Ok(())
    }

    fn typing(
        &mut self,
        id: ConnId,
        rid: RequestId,
        name: &UserName,
        typing: &InRoom<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let room = self.joined_room(id, typing)?;
        if self
            .clients
            .get_mut(id)
            .is_some_and(|conn| conn.session.may_type(now.mono))
        {
            self.core.handle(Input::Typing(&room, name), now);
        }
        self.answer(
            id,
            rid,
            "typing",
            &serde_json::json!({ "room": room.as_str() }),
            false,
        );
        Ok(())
    }

    fn send(
        &mut self,
        id: ConnId,
        rid: RequestId,
        name: &UserName,
        send: &Send<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let room: RoomName = send.room.parse()?;
        let mid = send.mid.as_ref().map(|mid| mid.parse()).transpose()?;
        protocol::check_text(&send.text)?;
        let rate_limit = self.settings.rate_limit;
        let Some(conn) = self.clients.get_mut(id) else {
            return Ok(());
        };
        if let Err(wait) = conn.session.count_say(rate_limit, now.mono) {
            return Err(rate_limited(
                format!("at most {rate_limit} messages a second"),
                wait,
            ));
        }
        // Without a disk nothing is refused from here on: nobody need be told.
        let answer = if rid.is_some() || self.disk.is_some() {
            Answer::Chat(id, rid)
        } else {
            Answer::Nobody
        };
        self.say(
            &room,
            name,
            mid.as_ref(),
            &send.text,
            send.copies as usize,
            answer,
            Source::Client,
            now,
        );
        Ok(())
    }

    fn who(&mut self, id: ConnId, rid: RequestId, who: &InRoom<'_>) -> Result<(), Refusal> {
        let room: RoomName = who.room.parse()?;
        let members = self.core.members();
        let (list, count) = (members.list(&room), members.count(&room));
        let body = serde_json::json!({ "room": room.as_str(), "members": list, "count": count });
        self.answer(id, rid, "who", &body, true);
        Ok(())
    }

    fn joined_room(&mut self, id: ConnId, request: &InRoom<'_>) -> Result<RoomName, Refusal> {
        let room: RoomName = request.room.parse()?;
        let joined = self.clients.hears(id, &room);
        joined
            .then_some(room)
            .ok_or_else(|| Refusal::new("not_joined", "join the room first"))
    }
}

fn rate_limited(message: String, wait: Duration) -> Refusal {
    let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) + 1;
    Refusal {
        retry_ms: Some(retry_ms),
        ..Refusal::new("rate_limited", message)
    }
}

fn unknown_verb(line: &str) -> Refusal {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let verb = value
        .as_object()
        .and_then(|fields| fields.keys().find(|key| *key != "id"));
    match verb {
        Some(verb) => {
            let verb: String = verb.chars().take(32).collect();
            Refusal::new("unknown_verb", format!("no such verb: {verb:?}"))
        }
        None => Refusal::bad_request("a request names a verb"),
    }
}
