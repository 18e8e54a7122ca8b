//! What a client of `chat.v1` asks for, its values checked. A line is parsed once, here.

use std::borrow::Cow;

use crate::core::question::Search;
use crate::model::names::{EntryId, Mid, RoomName, UserName};
use crate::model::pattern::Pattern;
use crate::model::query::InvalidQuery;
use crate::wire::protocol::{self, PAGE_DEFAULT, PAGE_MAX, Refusal, SINCE_MAX, check_text};

/// Mids in one request at the most; who has more to name sends several.
const MIDS_MAX: usize = 512;

/// For so many requests counts one that watches: what a client has missed of many rooms is looked for.
const WATCH_ASKS: usize = 4;

/// A request.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    /// It says who it is; without a name it is a guest. A second hello is a change of name.
    Hello(Option<UserName>),
    /// It says something.
    Say(Say<'a>),
    /// It enters a room, or comes back to it.
    Join(Join),
    /// It watches rooms, or comes back to that.
    Watch(Watch),
    /// It watches no more.
    Unwatch(Pattern),
    /// It names what it was shown, before it joins or watches.
    Seen(Seen),
    /// It leaves a room that it is in.
    Leave(RoomName),
    /// It types in a room that it is in. Whether the others are to be told.
    Typing(RoomName, bool),
    /// It pages back.
    History {
        /// Where.
        room: RoomName,
        /// Before this message; without it the newest.
        before: Option<EntryId>,
        /// How many.
        limit: usize,
    },
    /// It searches.
    Search(Search),
    /// It asks who is in a room.
    Who(RoomName),
}

/// Something that is said.
#[derive(Debug)]
pub(crate) struct Say<'a> {
    /// Where; `None` is the room of a client of the plain form.
    pub(crate) room: Option<RoomName>,
    /// The client's own id.
    pub(crate) mid: Option<Mid>,
    /// What.
    pub(crate) text: Cow<'a, str>,
    /// How many other nodes must hold it before the reply.
    pub(crate) copies: usize,
}

/// How a client enters a room.
#[derive(Debug)]
pub(crate) struct Join {
    /// The room.
    pub(crate) room: RoomName,
    /// What it has seen of it.
    pub(crate) since: Option<Vec<EntryId>>,
    /// By origin, the number behind which it has named the mids of all that it was shown.
    pub(crate) named: Option<Vec<EntryId>>,
    /// Mids that it names now.
    pub(crate) mids: Vec<Mid>,
    /// Messages that it wants if nothing is resumed.
    pub(crate) history: usize,
}

/// How a client watches.
#[derive(Debug)]
pub(crate) struct Watch {
    /// These rooms.
    pub(crate) rooms: Pattern,
    /// What it has seen of them.
    pub(crate) since: Option<Vec<EntryId>>,
    /// By origin, the number behind which it has named the mids of all that it was shown.
    pub(crate) named: Option<Vec<EntryId>>,
}

/// What a client names that it was shown.
#[derive(Debug)]
pub(crate) struct Seen {
    /// In this room.
    pub(crate) room: RoomName,
    /// For what it is to join or watch next.
    pub(crate) rooms: Pattern,
    /// The mids.
    pub(crate) mids: Vec<Mid>,
}

/// How many of the requests that cost more than a message one counts for: pages, lists, and changes of
/// members.
pub(super) fn asks(request: &protocol::Request<'_>) -> usize {
    let is_ask = request.join.is_some()
        || request.leave.is_some()
        || request.unwatch.is_some()
        || request.seen.is_some()
        || request.history.is_some()
        || request.search.is_some()
        || request.who.is_some();
    let is_watch = request.watch.is_some();
    usize::from(is_ask) + if is_watch { WATCH_ASKS } else { 0 }
}

/// Checks something that is said.
///
/// # Errors
/// `room_invalid`, `mid_invalid`, `text_empty`, `text_too_long`.
pub(super) fn say(send: protocol::Send<'_>) -> Result<Say<'_>, Refusal> {
    let room = Some(send.room.parse()?);
    let mid = send.mid.as_ref().map(|mid| mid.parse()).transpose()?;
    check_text(&send.text)?;
    Ok(Say {
        room,
        mid,
        text: send.text,
        copies: send.copies as usize,
    })
}

/// Checks a request that is none of those that say something or who somebody is.
///
/// # Errors
/// What is wrong with a value; `unknown_verb`.
pub(super) fn ask<'a>(request: protocol::Request<'a>, line: &str) -> Result<Request<'a>, Refusal> {
    if let Some(join) = request.join {
        return Ok(Request::Join(Join {
            room: join.room.parse()?,
            since: join.since.as_deref().map(parse_since).transpose()?,
            named: join.named.as_deref().map(parse_since).transpose()?,
            mids: parse_mids(&join.mids)?,
            history: limit(join.history),
        }));
    }
    if let Some(watch) = request.watch {
        return Ok(Request::Watch(Watch {
            rooms: watch.rooms.parse()?,
            since: watch.since.as_deref().map(parse_since).transpose()?,
            named: watch.named.as_deref().map(parse_since).transpose()?,
        }));
    }
    if let Some(unwatch) = request.unwatch {
        return Ok(Request::Unwatch(unwatch.rooms.parse()?));
    }
    if let Some(seen) = request.seen {
        return self::seen(&seen).map(Request::Seen);
    }
    if let Some(leave) = request.leave {
        return Ok(Request::Leave(leave.room.parse()?));
    }
    if let Some(typing) = request.typing {
        return Ok(Request::Typing(typing.room.parse()?, true));
    }
    if let Some(history) = request.history {
        let before = history.before.as_ref().map(|before| before.parse());
        return Ok(Request::History {
            room: history.room.parse()?,
            before: before.transpose()?,
            limit: limit(history.limit),
        });
    }
    if let Some(search) = request.search {
        let before = search.before.as_deref();
        return search_of(&search.room, &search.q, before, search.limit).map(Request::Search);
    }
    if let Some(who) = request.who {
        return Ok(Request::Who(who.room.parse()?));
    }
    Err(unknown_verb(line))
}

/// Checks what a client names.
fn seen(seen: &protocol::Seen<'_>) -> Result<Seen, Refusal> {
    let room: RoomName = seen.room.parse()?;
    let rooms = match &seen.rooms {
        Some(rooms) => rooms.parse()?,
        None => Pattern::Room(room.clone()),
    };
    Ok(Seen {
        room,
        rooms,
        mids: parse_mids(&seen.mids)?,
    })
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
