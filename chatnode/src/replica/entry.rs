//! One thing said.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::names::{EntryId, Mid, Origin, RoomName, UserName};

/// Latest acceptable wire timestamp: positive in a signed 64-bit integer, so any client reads it.
pub const TS_MAX: u64 = i64::MAX as u64;

/// An entry of an origin's log. What order and repair need stands beside the JSON that clients
/// get; the JSON is built once, at the origin, and is the same bytes on every node (P2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who said it.
    pub origin: Origin,
    /// Which of the origin's entries, from 1 without holes.
    pub seq: u64,
    /// Hybrid logical clock, microseconds since 1970, increasing per origin.
    pub ts: u64,
    /// Where it was said.
    pub room: RoomName,
    /// The client's own id for it, if it gave one.
    pub mid: Option<Mid>,
    /// `{"room":…,"id":…,"mid":…,"from":…,"ts":…,"text":…}`, valid UTF-8 without line breaks.
    pub json: Bytes,
}

/// The JSON of an entry, in the order of its fields.
#[derive(Debug, Serialize, Deserialize)]
pub struct EntryJson<'a> {
    /// The room.
    pub room: &'a str,
    /// `<origin>.<seq>`.
    pub id: &'a str,
    /// Absent if the client gave none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mid: Option<std::borrow::Cow<'a, str>>,
    /// The sender's name.
    #[serde(borrow)]
    pub from: std::borrow::Cow<'a, str>,
    /// Microseconds since 1970.
    pub ts: u64,
    /// What was said.
    #[serde(borrow)]
    pub text: std::borrow::Cow<'a, str>,
}

impl Entry {
    /// Builds the entry and its JSON.
    pub fn new(
        id: EntryId,
        ts: u64,
        room: RoomName,
        mid: Option<Mid>,
        from: &UserName,
        text: &str,
    ) -> Self {
        let json = serde_json::to_vec(&EntryJson {
            room: room.as_str(),
            id: &id.to_string(),
            mid: mid.as_ref().map(|mid| mid.as_str().into()),
            from: from.as_str().into(),
            ts,
            text: text.into(),
        })
        .expect("strings and integers always serialize");
        Self {
            origin: id.origin,
            seq: id.seq,
            ts,
            room,
            mid,
            json: json.into(),
        }
    }

    /// Its name.
    pub fn id(&self) -> EntryId {
        EntryId {
            origin: self.origin,
            seq: self.seq,
        }
    }

    /// Its place in the one order that every node shows.
    pub fn place(&self) -> Place {
        Place {
            ts: self.ts,
            origin: self.origin,
        }
    }

    /// The text, for clients that get it bare. `None` if another node sent JSON of another shape.
    pub fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        serde_json::from_slice::<EntryJson<'_>>(&self.json)
            .ok()
            .map(|json| json.text)
    }
}

/// A place in the one order: by timestamp, then origin. Unique, since a timestamp is unique per
/// origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Hybrid logical clock.
    pub ts: u64,
    /// Who said it.
    pub origin: Origin,
}

#[cfg(test)]
mod tests {
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
}
