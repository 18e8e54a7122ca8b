//! The verbs of `chat.v1` that bring messages: entering a room, paging back, searching. On a node
//! with a disk they may have to wait for it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::chat::RequestId;
use crate::clients::ConnId;
use crate::core::archive::{Archive, Need};
use crate::core::mids::MID_KEPT;
use crate::core::named::{Mids, Named};
use crate::core::{Input, Now};
use crate::model::names::{EntryId, Mid, RoomName, UserName};
use crate::model::page::Page;
use crate::model::query::InvalidQuery;
use crate::shell::Node;
use crate::shell::disk::Search;
use crate::wire::protocol::{
    self, Gap, History, Join, PAGE_DEFAULT, PAGE_MAX, ROOMS_MAX, Refusal, SINCE_MAX, Seen,
};

/// Mids in one request at the most; who has more to name sends several.
const MIDS_MAX: usize = 512;

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
pub(crate) struct HistoryPage {
    /// Oldest first.
    pub(crate) messages: Box<RawValue>,
    /// Whether there are older ones.
    pub(crate) more: bool,
}

impl HistoryPage {
    /// A page of the store as clients get it.
    pub(crate) fn of(page: &Page) -> Self {
        Self {
            messages: protocol::entries(page.entries.iter().map(|entry| &**entry)),
            more: page.more,
        }
    }
}

/// Why a request has no answer yet.
#[derive(Debug)]
pub(super) enum Halt {
    /// It is refused.
    Refused(Refusal),
    /// Something of this room must be read first.
    Needs(RoomName, Need),
}

impl<E> From<E> for Halt
where
    Refusal: From<E>,
{
    fn from(why: E) -> Self {
        Self::Refused(why.into())
    }
}

impl Node {
    pub(super) fn join(
        &mut self,
        id: ConnId,
        rid: RequestId,
        name: &UserName,
        join: &Join<'_>,
        archive: &Archive,
        now: Now,
    ) -> Result<(), Halt> {
        let room: RoomName = join.room.parse()?;
        let since = join.since.as_deref().map(parse_since).transpose()?;
        let behind = join.named.as_deref().map(parse_since).transpose()?;
        self.name(id, &room, parse_mids(&join.mids)?, now)?;
        let history = limit(join.history);
        let again = self.clients.hears(id, &room);
        if !again && self.clients.rooms_of(id).len() >= ROOMS_MAX {
            let message = format!("at most {ROOMS_MAX} rooms a connection");
            return Err(Refusal::new("room_limit", message).into());
        }
        let mut named = Named {
            mids: self.take_named(id, &room),
            behind,
        };
        let since = since.as_deref();
        let resumed = match self.core.resume(&room, since, &mut named, history, archive) {
            Ok(resumed) => resumed,
            Err(need) => {
                self.put_named(id, &room, named.mids);
                return Err(Halt::Needs(room, need));
            }
        };
        if !resumed.unnamed.is_empty() {
            self.put_named(id, &room, named.mids);
            return Err(mids_wanted(&resumed.unnamed).into());
        }
        if !again {
            self.core.handle(Input::Enter(&room, name), now);
            self.carry_out(now);
        } else {
            self.clients.unsubscribe(id, &room);
        }
        let joined = Joined {
            room: &room,
            recovered: resumed.recovered,
            at: protocol::position(&resumed.at),
            messages: protocol::entries(resumed.entries.iter().map(|entry| &**entry)),
            members: self.core.members().list(&room),
            count: self.core.members().count(&room),
        };
        self.answer(id, rid, "join", &joined, true);
        for (origin, span) in &resumed.gaps {
            let gap = Gap {
                room: &room,
                origin: origin.as_str(),
                after: span.after,
                through: span.through,
            };
            self.clients.send_asked(id, &protocol::push("gap", &gap));
        }
        self.clients.subscribe(id, &room, resumed.ahead);
        Ok(())
    }

    /// A client names what it was shown of a room, before it joins.
    pub(super) fn seen(
        &mut self,
        id: ConnId,
        rid: RequestId,
        seen: &Seen<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        let room: RoomName = seen.room.parse()?;
        self.name(id, &room, parse_mids(&seen.mids)?, now)?;
        let body = serde_json::json!({ "room": room.as_str() });
        self.answer(id, rid, "seen", &body, false);
        Ok(())
    }

    /// Adds to what a client has named of a room. One that names those of another begins anew.
    fn name(
        &mut self,
        id: ConnId,
        room: &RoomName,
        mids: Vec<Mid>,
        now: Now,
    ) -> Result<(), Refusal> {
        let mut named = self.take_named(id, room);
        // Those of a join that had to wait and is made again are there already.
        named
            .add(mids, &self.named, now.mono + MID_KEPT)
            .map_err(|why| Refusal::new("too_many_mids", why.to_string()))?;
        self.put_named(id, room, named);
        Ok(())
    }

    fn take_named(&mut self, id: ConnId, room: &RoomName) -> Mids {
        let seen = self
            .clients
            .get_mut(id)
            .and_then(|conn| conn.session.seen.take());
        match seen {
            Some(seen) if seen.0 == *room => seen.1,
            Some(_) | None => Mids::default(),
        }
    }

    fn put_named(&mut self, id: ConnId, room: &RoomName, named: Mids) {
        if let Some(conn) = self.clients.get_mut(id).filter(|_| !named.is_empty()) {
            conn.session.seen = Some(Box::new((room.clone(), named)));
        }
    }

    pub(super) fn history(
        &mut self,
        id: ConnId,
        rid: RequestId,
        history: &History<'_>,
        archive: &Archive,
    ) -> Result<(), Halt> {
        let room: RoomName = history.room.parse()?;
        let before = history
            .before
            .as_ref()
            .map(|before| before.parse())
            .transpose()?;
        let page = self
            .core
            .page_with(&room, before, limit(history.limit), archive)
            .map_err(|need| Halt::Needs(room.clone(), need))?;
        let page = HistoryPage::of(&page.ok_or_else(id_unknown)?);
        self.answer(id, rid, "history", &page, true);
        Ok(())
    }
}

/// `before` names no message that is kept.
pub(crate) fn id_unknown() -> Refusal {
    Refusal::new("id_unknown", "no message of this id is held here")
}

/// The client was shown what nobody has: only it can tell the retries of that.
fn mids_wanted(behind: &[EntryId]) -> Refusal {
    let message = "nobody has what you were shown behind these: name its mids, and join again";
    Refusal {
        behind: behind.iter().map(EntryId::to_string).collect(),
        ..Refusal::new("mids_wanted", message)
    }
}

/// Checks what a search asks for.
///
/// # Errors
/// `query_invalid`, `room_invalid`, `id_invalid`.
pub(crate) fn search_of(
    room: &str,
    query: &str,
    before: Option<&str>,
    asked: Option<u64>,
) -> Result<Search, Refusal> {
    let invalid = |why: InvalidQuery| Refusal::new("query_invalid", why.to_string());
    Ok(Search {
        room: room.parse()?,
        query: query.parse().map_err(invalid)?,
        before: before.map(str::parse).transpose()?,
        limit: limit(asked),
    })
}

/// A page's size: what was asked for, within bounds.
pub(crate) fn limit(asked: Option<u64>) -> usize {
    asked.map_or(PAGE_DEFAULT, |asked| {
        usize::try_from(asked).unwrap_or(PAGE_MAX).min(PAGE_MAX)
    })
}

/// The mids of what a client has seen.
fn parse_mids(mids: &[String]) -> Result<Vec<Mid>, Refusal> {
    if mids.len() > MIDS_MAX {
        return Err(Refusal::bad_request(format!("mids: at most {MIDS_MAX}")));
    }
    let parsed = mids.iter().map(|mid| mid.parse().map_err(Refusal::from));
    parsed.collect()
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
