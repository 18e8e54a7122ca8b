//! The verbs of `chat.v1`.

use std::ops::ControlFlow;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::FLOODING;
use crate::fanout::ConnId;
use crate::hub::{Answer, Node};
use crate::protocol::{
    self, Hello, History, InRoom, Join, PAGE_DEFAULT, PAGE_MAX, ROOMS_MAX, Refusal, Request,
    SINCE_MAX, Send,
};
use crate::replica::Now;
use crate::replica::names::{EntryId, RoomName, UserName};

/// When more than so many bytes wait for a client, its next requests wait too.
const REPLIES_BYTES_MAX: usize = 512 << 10;
/// Then it is looked at again after this.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

type RequestId = Option<serde_json::Number>;

/// What `join` is answered.
#[derive(Debug, Serialize)]
struct Joined<'a> {
    room: &'a RoomName,
    recovered: bool,
    at: Box<RawValue>,
    messages: Box<RawValue>,
    members: Vec<UserName>,
    count: usize,
}

/// A page of history, as `history` and the HTTP API answer it.
#[derive(Debug, Serialize)]
pub struct HistoryPage {
    /// Oldest first.
    pub messages: Box<RawValue>,
    /// Whether there are older ones.
    pub more: bool,
}

/// Numbers that nobody has.
#[derive(Debug, Serialize)]
pub(crate) struct Gap<'a> {
    pub room: &'a RoomName,
    pub origin: &'a str,
    pub after: u64,
    pub through: u64,
}

impl Node {
    /// A `chat.v1` client sent a frame. Breaks when the connection is not to be read further for
    /// now; lines that were not looked at wait in the session.
    pub(crate) fn chat_text(&mut self, id: ConnId, text: &str, now: Now) -> ControlFlow<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let line;
            (line, rest) = rest.split_once('\n').unwrap_or((rest, ""));
            if !self.fanout.is_open(id) {
                return ControlFlow::Break(());
            }
            self.chat_line(id, line.trim(), now)?;
            // Who asks faster than it reads is not listened to until it has read.
            if self.fanout.pending(id) > REPLIES_BYTES_MAX {
                if let Some(conn) = self.fanout.get_mut(id) {
                    conn.session.rest = (!rest.is_empty()).then(|| rest.into());
                }
                self.pause = Some(BUSY_PAUSE);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn chat_line(&mut self, id: ConnId, line: &str, now: Now) -> ControlFlow<()> {
        let rate_limit = self.settings.rate_limit;
        let Some(conn) = self.fanout.get_mut(id) else {
            return ControlFlow::Break(());
        };
        if conn.session.count_frame(rate_limit, now.mono).is_err() {
            self.close(id, &FLOODING, now);
            return ControlFlow::Break(());
        }
        if line.is_empty() {
            return ControlFlow::Continue(());
        }
        if line == "{}" {
            if conn.session.answer_ping(now.mono) {
                self.fanout.send(id, "{}");
            }
            return ControlFlow::Continue(());
        }
        let outcome = match protocol::parse(line) {
            Ok(request) => {
                let request_id = request.id.clone();
                self.request(id, request, line, now)
                    .map_err(|why| (request_id, why))
            }
            Err(why) => Err(why),
        };
        if let Err((request_id, refusal)) = outcome {
            self.counters.refused += 1;
            self.fanout
                .send(id, &protocol::error(request_id.as_ref(), &refusal));
        }
        ControlFlow::Continue(())
    }

    /// Counts requests that cost more than a message.
    fn count_asks(&mut self, id: ConnId, count: usize, now: Now) -> Result<(), Refusal> {
        let rate_limit = self.settings.rate_limit;
        let Some(conn) = self.fanout.get_mut(id) else {
            return Ok(());
        };
        let counted = conn.session.count_asks(count, rate_limit, now.mono);
        counted.map_err(|wait| rate_limited("too many requests".to_owned(), wait))
    }

    fn request(
        &mut self,
        id: ConnId,
        request: Request<'_>,
        line: &str,
        now: Now,
    ) -> Result<(), Refusal> {
        let rid = request.id;
        if let Some(hello) = request.hello {
            return self.hello(id, rid, &hello, now);
        }
        let Some(name) = self.session_name(id) else {
            return Err(Refusal::new("hello_required", "the first request is hello"));
        };
        if let Some(send) = request.send {
            self.send(id, rid, &name, &send, now)
        } else if let Some(join) = request.join {
            self.join(id, rid, &name, &join, now)
        } else if let Some(leave) = request.leave {
            self.leave(id, rid, &name, &leave)
        } else if let Some(typing) = request.typing {
            self.typing(id, rid, &name, &typing, now)
        } else if let Some(history) = request.history {
            self.count_asks(id, 1, now)?;
            self.history(id, rid, &history)
        } else if let Some(who) = request.who {
            self.count_asks(id, 1, now)?;
            self.who(id, rid, &who)
        } else {
            Err(unknown_verb(line))
        }
    }

    fn answer(
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
                self.fanout.send_asked(id, &reply);
            } else {
                self.fanout.send(id, &reply);
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
        let rooms: Vec<RoomName> = self.fanout.rooms_of(id).cloned().collect();
        self.count_asks(id, rooms.len() + 1, now)?;
        let Some(conn) = self.fanout.get_mut(id) else {
            return Ok(());
        };
        // A second hello is a change of name.
        if let Some(before) = conn.session.name.replace(name.clone()) {
            for room in &rooms {
                self.replica.enter(room, &name);
                self.replica.leave(room, &before);
            }
            self.carry_out(now);
        }
        let me = self.replica.identity();
        let body = serde_json::json!({
            "origin": me.origin.as_str(),
            "node": me.name,
            "name": name.as_str(),
            "limits": protocol::Limits::new(self.settings.rate_limit),
            "nodes": self.nodes,
        });
        self.answer(id, rid, "hello", &body, false);
        Ok(())
    }

    fn join(
        &mut self,
        id: ConnId,
        rid: RequestId,
        name: &UserName,
        join: &Join<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let room: RoomName = join.room.parse()?;
        let since = join.since.as_deref().map(parse_since).transpose()?;
        let history = limit(join.history);
        self.count_asks(id, 1, now)?;
        let again = self.fanout.hears(id, &room);
        if !again {
            if self.fanout.rooms_of(id).len() >= ROOMS_MAX {
                let message = format!("at most {ROOMS_MAX} rooms a connection");
                return Err(Refusal::new("room_limit", message));
            }
            self.replica.enter(&room, name);
            self.carry_out(now);
        } else {
            self.fanout.unsubscribe(id, &room);
        }
        let resumed = self.replica.resume(&room, since.as_deref(), history);
        let joined = Joined {
            room: &room,
            recovered: resumed.recovered,
            at: protocol::position(&resumed.at),
            messages: protocol::entries(resumed.entries.iter().map(|entry| &**entry)),
            members: self.replica.members().list(&room),
            count: self.replica.members().count(&room),
        };
        self.answer(id, rid, "join", &joined, true);
        for (origin, span) in &resumed.gaps {
            let gap = Gap {
                room: &room,
                origin: origin.as_str(),
                after: span.after,
                through: span.through,
            };
            self.fanout.send_asked(id, &protocol::push("gap", &gap));
        }
        self.fanout.subscribe(id, &room, resumed.ahead);
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
        self.fanout.unsubscribe(id, &room);
        self.replica.leave(&room, name);
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
            .fanout
            .get_mut(id)
            .is_some_and(|conn| conn.session.may_type(now.mono))
        {
            self.replica.typing(&room, name);
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
        let Some(conn) = self.fanout.get_mut(id) else {
            return Ok(());
        };
        if let Err(wait) = conn.session.count_say(rate_limit, now.mono) {
            return Err(rate_limited(
                format!("at most {rate_limit} messages a second"),
                wait,
            ));
        }
        let answer = rid.map_or(Answer::Nobody, |rid| Answer::Chat(id, rid));
        self.say(
            &room,
            name,
            mid.as_ref(),
            &send.text,
            send.copies as usize,
            answer,
            now,
        );
        Ok(())
    }

    fn history(
        &mut self,
        id: ConnId,
        rid: RequestId,
        history: &History<'_>,
    ) -> Result<(), Refusal> {
        let room: RoomName = history.room.parse()?;
        let before = history
            .before
            .as_ref()
            .map(|before| before.parse())
            .transpose()?;
        let page = self.history_page(&room, before, limit(history.limit))?;
        self.answer(id, rid, "history", &page, true);
        Ok(())
    }

    /// A page of a room's history.
    ///
    /// # Errors
    /// `id_unknown` if `before` is not a message that this node holds.
    pub(crate) fn history_page(
        &self,
        room: &RoomName,
        before: Option<EntryId>,
        limit: usize,
    ) -> Result<HistoryPage, Refusal> {
        let unknown = || Refusal::new("id_unknown", "no message of this id is held here");
        let page = self.replica.page(room, before, limit).ok_or_else(unknown)?;
        let messages = protocol::entries(page.entries.iter().map(|entry| &**entry));
        Ok(HistoryPage {
            messages,
            more: page.more,
        })
    }

    fn who(&mut self, id: ConnId, rid: RequestId, who: &InRoom<'_>) -> Result<(), Refusal> {
        let room: RoomName = who.room.parse()?;
        let members = self.replica.members();
        let (list, count) = (members.list(&room), members.count(&room));
        let body = serde_json::json!({ "room": room.as_str(), "members": list, "count": count });
        self.answer(id, rid, "who", &body, true);
        Ok(())
    }

    fn joined_room(&mut self, id: ConnId, request: &InRoom<'_>) -> Result<RoomName, Refusal> {
        let room: RoomName = request.room.parse()?;
        let joined = self.fanout.hears(id, &room);
        joined
            .then_some(room)
            .ok_or_else(|| Refusal::new("not_joined", "join the room first"))
    }
}

/// A page's size: what was asked for, within bounds.
pub(crate) fn limit(asked: Option<u64>) -> usize {
    asked.map_or(PAGE_DEFAULT, |asked| {
        usize::try_from(asked).unwrap_or(PAGE_MAX).min(PAGE_MAX)
    })
}

/// The ids of a position.
///
/// # Errors
/// `bad_request` for too many, `id_invalid` for what is no id.
pub(crate) fn parse_since(since: &[impl AsRef<str>]) -> Result<Vec<EntryId>, Refusal> {
    if since.len() > SINCE_MAX {
        return Err(Refusal::bad_request(format!(
            "since: at most {SINCE_MAX} ids"
        )));
    }
    since
        .iter()
        .map(|id| id.as_ref().parse().map_err(Refusal::from))
        .collect()
}

fn rate_limited(message: String, wait: Duration) -> Refusal {
    let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) + 1;
    Refusal {
        code: "rate_limited",
        message,
        retry_ms: Some(retry_ms),
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
