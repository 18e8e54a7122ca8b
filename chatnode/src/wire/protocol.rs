//! `chat.v1`: the JSON that clients and this node exchange at `/ws`, and its limits.
//!
//! A frame holds one or more objects, one per line; one field of an object names the verb. What
//! comes in is parsed into [`Request`]; what goes out is built here and nowhere else.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::model::entry::Entry;
use crate::model::names::{EntryId, InvalidName, RoomName};
use crate::model::page::Page;
use crate::model::pattern::Pattern;

/// Longest text of a message, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;
/// Longest frame that a client may send, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Rooms that one connection may be in.
pub(crate) const ROOMS_MAX: usize = 50;
/// Patterns that one connection may watch.
pub(crate) const PATTERNS_MAX: usize = 20;
/// Messages in a page of history at the most, and when no limit is given
pub(crate) const PAGE_MAX: usize = 200;
/// that many.
pub(crate) const PAGE_DEFAULT: usize = 50;
/// Ids in a `since` at the most.
pub(crate) const SINCE_MAX: usize = 4096;

/// One object from a client. Fields that are not known are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Request<'a> {
    /// Echoed in the reply.
    pub(crate) id: Option<serde_json::Number>,
    /// Who comes.
    #[serde(borrow)]
    pub(crate) hello: Option<Hello<'a>>,
    /// Enter a room.
    #[serde(borrow)]
    pub(crate) join: Option<Join<'a>>,
    /// Hear the rooms of a pattern.
    #[serde(borrow)]
    pub(crate) watch: Option<Watch<'a>>,
    /// Hear them no more.
    #[serde(borrow)]
    pub(crate) unwatch: Option<Unwatch<'a>>,
    /// Name what was shown, before a join or a watch.
    #[serde(borrow)]
    pub(crate) seen: Option<Seen<'a>>,
    /// Leave a room.
    #[serde(borrow)]
    pub(crate) leave: Option<InRoom<'a>>,
    /// Say something.
    #[serde(borrow)]
    pub(crate) send: Option<Send<'a>>,
    /// Is typing.
    #[serde(borrow)]
    pub(crate) typing: Option<InRoom<'a>>,
    /// A page of a room's history.
    #[serde(borrow)]
    pub(crate) history: Option<History<'a>>,
    /// Messages of a room with certain words.
    #[serde(borrow)]
    pub(crate) search: Option<Search<'a>>,
    /// Who is in a room.
    #[serde(borrow)]
    pub(crate) who: Option<InRoom<'a>>,
}

/// `hello`
#[derive(Debug, Deserialize)]
pub(crate) struct Hello<'a> {
    /// The name to show; without it a guest's name is made.
    #[serde(borrow, default)]
    pub(crate) name: Option<Cow<'a, str>>,
}

/// `join`
#[derive(Debug, Deserialize)]
pub(crate) struct Join<'a> {
    /// The room.
    #[serde(borrow)]
    pub(crate) room: Cow<'a, str>,
    /// The position up to which the client has seen the room.
    #[serde(default)]
    pub(crate) since: Option<Vec<String>>,
    /// With `since`: mids of messages that it was shown and nobody has, so that none comes again as
    /// a retry that another node took.
    #[serde(default)]
    pub(crate) mids: Vec<String>,
    /// By origin, the number behind which it has named the mids of all that it was shown. Whoever
    /// sends this, an empty list too, is asked for mids (`mids_wanted`) where they are needed.
    #[serde(default)]
    pub(crate) named: Option<Vec<String>>,
    /// How many messages it wants if nothing is resumed.
    #[serde(default)]
    pub(crate) history: Option<u64>,
}

/// `watch`
#[derive(Debug, Deserialize)]
pub(crate) struct Watch<'a> {
    /// The pattern: a room, or what rooms begin with and `*`.
    #[serde(borrow)]
    pub(crate) rooms: Cow<'a, str>,
    /// The position up to which the client has seen these rooms.
    #[serde(default)]
    pub(crate) since: Option<Vec<String>>,
    /// As in `join`; the mids come in `seen`.
    #[serde(default)]
    pub(crate) named: Option<Vec<String>>,
}

/// `unwatch`
#[derive(Debug, Deserialize)]
pub(crate) struct Unwatch<'a> {
    /// The pattern.
    #[serde(borrow)]
    pub(crate) rooms: Cow<'a, str>,
}

/// `seen`
#[derive(Debug, Deserialize)]
pub(crate) struct Seen<'a> {
    /// The pattern for whose watch they are named; without it they are for the join of the room.
    #[serde(borrow, default)]
    pub(crate) rooms: Option<Cow<'a, str>>,
    /// The room.
    #[serde(borrow)]
    pub(crate) room: Cow<'a, str>,
    /// Mids of messages that it was shown there; those of several requests count together.
    pub(crate) mids: Vec<String>,
}

/// `leave`, `typing`, `who`
#[derive(Debug, Deserialize)]
pub(crate) struct InRoom<'a> {
    /// The room.
    #[serde(borrow)]
    pub(crate) room: Cow<'a, str>,
}

/// `send`, and the body of a publish over HTTP.
#[derive(Debug, Deserialize)]
pub(crate) struct Send<'a> {
    /// The room.
    #[serde(borrow)]
    pub(crate) room: Cow<'a, str>,
    /// The client's own id for it.
    #[serde(borrow, default)]
    pub(crate) mid: Option<Cow<'a, str>>,
    /// What is said.
    #[serde(borrow)]
    pub(crate) text: Cow<'a, str>,
    /// How many other nodes must hold it before the reply.
    #[serde(default)]
    pub(crate) copies: u32,
}

/// `history`
#[derive(Debug, Deserialize)]
pub(crate) struct History<'a> {
    /// The room.
    #[serde(borrow)]
    pub(crate) room: Cow<'a, str>,
    /// Messages before this one; without it the newest.
    #[serde(borrow, default)]
    pub(crate) before: Option<Cow<'a, str>>,
    /// How many.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
}

/// `search`
#[derive(Debug, Deserialize)]
pub(crate) struct Search<'a> {
    /// The room.
    #[serde(borrow)]
    pub(crate) room: Cow<'a, str>,
    /// Words and "phrases", all of which a message has.
    #[serde(borrow)]
    pub(crate) q: Cow<'a, str>,
    /// Messages before this one; without it the newest.
    #[serde(borrow, default)]
    pub(crate) before: Option<Cow<'a, str>>,
    /// How many.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
}

/// Why a request was refused: a stable code, a sentence, and for some a time to wait. Nothing
/// changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    /// Stable, for programs.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
    /// When to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_ms: Option<u64>,
    /// Of `mids_wanted`: behind which ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) behind: Vec<String>,
}

impl Refusal {
    /// A refusal without a time to wait.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_ms: None,
            behind: Vec::new(),
        }
    }

    /// What is not JSON, or not of the shape that its verb has.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new("bad_request", message)
    }
}

impl From<InvalidName> for Refusal {
    fn from(why: InvalidName) -> Self {
        Self::new(why.code(), why.to_string())
    }
}

/// Numbers that nobody has, as clients are told.
#[derive(Debug, Serialize)]
pub(crate) struct Gap<'a> {
    /// Of a room that the client has joined,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<&'a RoomName>,
    /// or of those that it watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rooms: Option<&'a Pattern>,
    pub(crate) origin: &'a str,
    pub(crate) after: u64,
    pub(crate) through: u64,
}

/// A page of history, as `history` and the HTTP API answer it.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryPage {
    /// Oldest first.
    pub(crate) messages: Box<serde_json::value::RawValue>,
    /// Whether there are older ones.
    pub(crate) more: bool,
}

impl HistoryPage {
    /// A page of a transcript as clients get it.
    pub(crate) fn of(page: &Page) -> Self {
        Self {
            messages: entries(page.entries.iter().map(|entry| &**entry)),
            more: page.more,
        }
    }
}

/// The limits that a client is told in `hello`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limits {
    text_bytes: usize,
    frame_bytes: usize,
    name_chars: usize,
    room_chars: usize,
    mid_chars: usize,
    rooms: usize,
    patterns: usize,
    history: usize,
    messages_per_second: u32,
}

impl Limits {
    /// With this rate limit; 0 is none.
    pub(crate) fn new(messages_per_second: u32) -> Self {
        Self {
            text_bytes: TEXT_BYTES_MAX,
            frame_bytes: FRAME_BYTES_MAX,
            name_chars: crate::model::names::NAME_CHARS_MAX,
            room_chars: crate::model::names::ROOM_CHARS_MAX,
            mid_chars: crate::model::names::MID_CHARS_MAX,
            rooms: ROOMS_MAX,
            patterns: PATTERNS_MAX,
            history: PAGE_MAX,
            messages_per_second,
        }
    }
}

/// Parses one line. On failure gives what can be found of the request's id, and why.
///
/// # Errors
/// `bad_request` for what is not an object of the right shape.
pub(crate) fn parse(line: &str) -> Result<Request<'_>, (Option<serde_json::Number>, Refusal)> {
    if !line.starts_with('{') {
        return Err((None, Refusal::bad_request("a request is a JSON object")));
    }
    serde_json::from_str(line).map_err(|why| {
        let id = serde_json::from_str::<serde_json::Value>(line)
            .ok()
            .and_then(|value| value.get("id").and_then(|id| id.as_number().cloned()));
        (id, Refusal::bad_request(why.to_string()))
    })
}

/// Checks a text at the door.
///
/// # Errors
/// `text_empty` and `text_too_long`.
pub(crate) fn check_text(text: &str) -> Result<(), Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!(
            "a text is at most {TEXT_BYTES_MAX} bytes, this has {}",
            text.len()
        );
        return Err(Refusal::new("text_too_long", message));
    }
    if text.trim().is_empty() {
        return Err(Refusal::new("text_empty", "a text has something to see"));
    }
    Ok(())
}

/// `{"id":…,"<verb>":<body>}`
pub(crate) fn reply(id: &serde_json::Number, verb: &str, body: &impl Serialize) -> String {
    format!("{{\"id\":{id},\"{verb}\":{}}}", json(body))
}

/// `{"id":…,"error":{…}}`, without `id` if the request had none.
pub(crate) fn error(id: Option<&serde_json::Number>, refusal: &Refusal) -> String {
    match id {
        Some(id) => reply(id, "error", refusal),
        None => push("error", refusal),
    }
}

/// `{"<verb>":<body>}`
pub(crate) fn push(verb: &str, body: &impl Serialize) -> String {
    format!("{{\"{verb}\":{}}}", json(body))
}

/// Serializes what cannot fail to serialize: structs of strings and numbers.
pub(crate) fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("strings and numbers always serialize")
}

/// A list of entries as they are, without parsing them.
pub(crate) fn entries<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Box<serde_json::value::RawValue> {
    let mut list = String::from("[");
    for entry in entries {
        if list.len() > 1 {
            list.push(',');
        }
        // Decoding checked that it is UTF-8; an own entry is serialized from strings.
        list.push_str(std::str::from_utf8(&entry.json).unwrap_or("null"));
    }
    list.push(']');
    raw(list)
}

/// A position as a list of ids.
pub(crate) fn position(ids: &[EntryId]) -> Box<serde_json::value::RawValue> {
    let mut list = String::from("[");
    for id in ids {
        let comma = if list.len() > 1 { "," } else { "" };
        write!(list, "{comma}\"{id}\"").expect("a string takes all");
    }
    list.push(']');
    raw(list)
}

fn raw(json: String) -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string(json)
        .unwrap_or_else(|_| serde_json::value::RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_is_refused_with_its_id_if_it_has_one() {
        for bad in [
            "[]",
            "null",
            "\"x\"",
            "{",
            "{\"id\":1e400}",
            "{\"id\":1,\"id\":2}",
        ] {
            assert_eq!(parse(bad).unwrap_err().1.code, "bad_request", "{bad}");
        }
        let deep = format!("{{\"send\":{}", "[".repeat(100_000));
        assert_eq!(parse(&deep).unwrap_err().1.code, "bad_request");
        let (id, _) = parse("{\"id\":7,\"send\":{\"room\":1}}").unwrap_err();
        assert_eq!(id.unwrap().as_u64(), Some(7));
        let lone = parse("{\"id\":7,\"send\":{\"room\":\"a\",\"text\":\"\\ud800\"}}");
        assert_eq!(lone.unwrap_err().1.code, "bad_request");
    }

    #[test]
    fn unknown_fields_are_ignored_and_strings_borrow() {
        let line = "{\"id\":3,\"x\":[1],\"send\":{\"room\":\"lobby\",\"text\":\"hi\",\"seq\":9}}";
        let request = parse(line).unwrap();
        let send = request.send.unwrap();
        assert!(matches!(send.text, Cow::Borrowed("hi")));
        assert_eq!(send.copies, 0);
    }
}
