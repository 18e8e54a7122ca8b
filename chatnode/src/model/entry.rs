//! One thing said.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;

use super::names::{EntryId, Mid, Origin, RoomName, UserName};

/// Latest acceptable wire timestamp: positive in a signed 64-bit integer, so any client reads it.
pub(crate) const TS_MAX: u64 = i64::MAX as u64;

/// An entry of an origin's log. What order and repair need stands beside the JSON that clients
/// get; the JSON is built once, at the origin, and is the same bytes on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Who said it.
    pub(crate) origin: Origin,
    /// Which of the origin's entries, from 1 without holes.
    pub(crate) seq: u64,
    /// Hybrid logical clock, microseconds since 1970, increasing per origin.
    pub(crate) ts: u64,
    /// Where it was said.
    pub(crate) room: RoomName,
    /// The client's own id for it, if it gave one.
    pub(crate) mid: Option<Mid>,
    /// `{"room":…,"id":…,"mid":…,"from":…,"ts":…,"text":…}`, valid UTF-8 without line breaks.
    pub(crate) json: Bytes,
}

/// The JSON of an entry, in the order of its fields.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "what lacks one of these is no entry")
)]
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(crate) struct EntryJson<'a> {
    /// The room.
    pub(crate) room: &'a str,
    /// `<origin>.<seq>`.
    id: &'a str,
    /// Absent if the client gave none.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    #[serde(default)]
    mid: Option<Cow<'a, str>>,
    /// The sender's name.
    #[serde(borrow)]
    from: Cow<'a, str>,
    /// Microseconds since 1970.
    ts: u64,
    /// What was said.
    #[serde(borrow)]
    pub(crate) text: Cow<'a, str>,
}

impl Entry {
    /// Builds the entry and its JSON.
    pub(crate) fn new(
        id: EntryId,
        ts: u64,
        room: RoomName,
        mid: Option<Mid>,
        from: &UserName,
        text: &str,
    ) -> Self {
        let json = json(id, ts, &room, mid.as_ref(), from, text);
        Self {
            origin: id.origin,
            seq: id.seq,
            ts,
            room,
            mid,
            json,
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> EntryId {
        EntryId {
            origin: self.origin,
            seq: self.seq,
        }
    }

    /// Its place in the one order that every node shows.
    pub(crate) fn place(&self) -> Place {
        Place {
            ts: self.ts,
            origin: self.origin,
        }
    }

    /// The text, for clients that get it bare. `None` if another node sent JSON of another shape.
    pub(crate) fn text(&self) -> Option<Cow<'_, str>> {
        if let Some(text) = self.bare_text() {
            return Some(Cow::Borrowed(text));
        }
        serde_json::from_slice::<EntryJson<'_>>(&self.json)
            .ok()
            .map(|json| json.text)
    }

    /// The text, if it stands at the end and in it nothing is escaped, as mostly.
    fn bare_text(&self) -> Option<&str> {
        let before = self.json.strip_suffix(b"\"}")?;
        let quote = before.iter().rposition(|byte| *byte == b'"')?;
        let (before, text) = before.split_at(quote + 1);
        // A quote within a string has a backslash before it, so this one begins a value.
        if !before.ends_with(b",\"text\":\"") || text.contains(&b'\\') {
            return None;
        }
        std::str::from_utf8(text).ok()
    }
}

/// The JSON of an entry. Written by hand, so that what needs no escaping is not looked at, and the
/// bytes are allocated once.
fn json(
    id: EntryId,
    ts: u64,
    room: &RoomName,
    mid: Option<&Mid>,
    from: &UserName,
    text: &str,
) -> Bytes {
    const KEYS_LEN: usize = r#"{"room":"","id":".","from":"","ts":,"text":""}"#.len();
    const MID_LEN: usize = r#","mid":"""#.len() - 1;
    let mid_len = mid.map_or(0, |mid| MID_LEN + mid.as_str().len());
    let texts = room.as_str().len() + from.as_str().len() + text.len();
    let numbers = Origin::LEN + digits(id.seq) + digits(ts);
    // So much exactly, if nothing is escaped.
    let mut json = Vec::with_capacity(KEYS_LEN + mid_len + texts + numbers);
    json.extend_from_slice(b"{\"room\":\"");
    json.extend_from_slice(room.as_str().as_bytes());
    json.extend_from_slice(b"\",\"id\":\"");
    json.extend_from_slice(id.origin.as_bytes());
    json.push(b'.');
    number(&mut json, id.seq);
    json.push(b'"');
    if let Some(mid) = mid {
        json.extend_from_slice(b",\"mid\":");
        string(&mut json, mid.as_str());
    }
    json.extend_from_slice(b",\"from\":");
    string(&mut json, from.as_str());
    json.extend_from_slice(b",\"ts\":");
    number(&mut json, ts);
    json.extend_from_slice(b",\"text\":");
    string(&mut json, text);
    json.push(b'}');
    // Bytes without room to grow need no second allocation to be shared.
    json.into_boxed_slice().into()
}

/// The JSON with the room's name as it is spelled here, if a node of an older version spelled it as
/// its client did. Every node makes the same bytes of it.
pub(crate) fn respelled(json: &[u8], spelled: &str, room: &RoomName) -> Option<Bytes> {
    if spelled == room.as_str() {
        return None;
    }
    let rest = json.strip_prefix(b"{\"room\":\"")?;
    let rest = rest.strip_prefix(spelled.as_bytes())?;
    let parts = [b"{\"room\":\"", room.as_str().as_bytes(), rest];
    rest.starts_with(b"\"").then(|| parts.concat().into())
}

fn string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("strings always serialize");
}

/// How long a number is.
fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn number(json: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(json, &number).expect("integers always serialize");
}

/// A place in the one order: by timestamp, then origin. Unique, since a timestamp is unique per
/// origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Hybrid logical clock.
    pub(crate) ts: u64,
    /// Who said it.
    pub(crate) origin: Origin,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_json_has_the_fields_in_order_and_gives_the_text_back() {
        let entry = Entry::new(
            "k3f7q2m7xa.43".parse().unwrap(),
            1_760_000_000_000_123,
            "lobby".parse().unwrap(),
            Some("7c1\"".parse().unwrap()),
            &"ada".parse().unwrap(),
            "a \"b\"\n\u{2028}",
        );
        assert_eq!(
            std::str::from_utf8(&entry.json).unwrap(),
            "{\"room\":\"lobby\",\"id\":\"k3f7q2m7xa.43\",\"mid\":\"7c1\\\"\",\"from\":\"ada\",\
             \"ts\":1760000000000123,\"text\":\"a \\\"b\\\"\\n\u{2028}\"}"
        );
        assert_eq!(entry.text().unwrap(), "a \"b\"\n\u{2028}");
    }
    /// Goal: the JSON written by hand is what a serializer writes, in bytes that are all used, and the
    /// text comes back, escaped or not, whatever it imitates. Method: texts of all sorts, among them
    /// those that look like the end of an entry.
    #[test]
    fn the_json_is_what_a_serializer_writes() {
        let tricky = prop::sample::select(vec![
            "",
            "\"",
            "\\",
            ",\"text\":\"b",
            "\"}",
            "\u{1}\n",
            "\u{1F980}",
        ]);
        let text = (tricky.clone(), ".{0,40}", tricky).prop_map(|(a, b, c)| [a, &b, c].concat());
        let mid = prop::option::of("[ -~]{1,64}");
        proptest!(|(text in text, mid in mid, seq in 0..=TS_MAX, ts in 0..=TS_MAX)| {
            let id = EntryId { origin: "k3f7q2m7xa".parse().unwrap(), seq };
            let room: RoomName = "lobby".parse().unwrap();
            let from: UserName = "a\"da".parse().unwrap();
            let parsed = mid.as_ref().map(|mid| mid.parse().unwrap());
            let entry = Entry::new(id, ts, room, parsed, &from, &text);
            let expected = EntryJson {
                room: "lobby",
                id: &id.to_string(),
                mid: mid.as_ref().map(Into::into),
                from: from.as_str().into(),
                ts,
                text: text.as_str().into(),
            };
            prop_assert_eq!(&entry.json, &serde_json::to_vec(&expected).unwrap());
            prop_assert_eq!(entry.text().unwrap(), text);
        });
    }
}
