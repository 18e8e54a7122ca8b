//! One row of the table of entries, from and to an [`Entry`], and what makes it whole.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::sums::Sum;
use crate::model::entry::{self, Entry, EntryJson, Place};
use crate::model::names::{Mid, Origin, RoomName};

/// The columns that [`read`] takes, in its order. The table is called `e`.
pub(super) const COLUMNS: &str =
    "e.id, e.origin, e.seq, e.ts, e.mid, e.shown, e.json, e.sum, e.room";

/// The row is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotten;

/// What is read of a whole row.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// The row's number: the order in which entries were written.
    pub(super) id: i64,
    pub(super) entry: Arc<Entry>,
    pub(super) shown: bool,
}

/// The sum of a row: all that matters of it is in there, the number of the row, and the room's
/// name, which is elsewhere in the file.
pub(super) fn sum(id: i64, entry: &Entry, shown: bool) -> i64 {
    sum_spelled(id, entry, shown, entry.room.as_str())
}

/// The same of a room whose name is spelled in this way, as an older version may have written it.
pub(super) fn sum_spelled(id: i64, entry: &Entry, shown: bool, room: &str) -> i64 {
    let parts = Parts {
        id,
        origin: entry.origin.as_bytes(),
        seq: entry.seq,
        ts: entry.ts,
        room,
        mid: entry.mid.as_ref().map(Mid::as_str),
        shown,
        json: &entry.json,
    };
    parts.sum()
}

struct Parts<'a> {
    id: i64,
    origin: &'a [u8],
    seq: u64,
    ts: u64,
    room: &'a str,
    mid: Option<&'a str>,
    shown: bool,
    json: &'a [u8],
}

impl Parts<'_> {
    fn sum(&self) -> i64 {
        let mid = match self.mid {
            Some(mid) => Sum::new().number(1).field(mid.as_bytes()),
            None => Sum::new().number(0),
        };
        mid.number(self.id.cast_unsigned())
            .number(self.seq)
            .number(self.ts)
            .number(u64::from(self.shown))
            .field(self.origin)
            .field(self.room.as_bytes())
            .field(self.json)
            .end()
    }
}

/// The row's number and its room's, which may be wrong.
pub(super) fn numbers(row: &Row<'_>) -> rusqlite::Result<(i64, i64)> {
    let number = |column| match row.get_ref(column)? {
        ValueRef::Integer(number) => Ok::<_, rusqlite::Error>(number),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => Ok(-1),
    };
    Ok((number(0)?, number(8)?))
}

/// The entry of a row, if the row is what was written. Columns must be [`COLUMNS`]; the room is the
/// one that the row's number of a room stands for.
pub(super) fn read(row: &Row<'_>, room: &RoomName) -> rusqlite::Result<Result<Kept, Rotten>> {
    let mut values = [ValueRef::Null; 8];
    for (column, value) in values.iter_mut().enumerate() {
        *value = row.get_ref(column)?;
    }
    Ok(entry(values, room).ok_or(Rotten))
}

/// The same from the values of the first eight columns. No type but the one written will do: the
/// type is in the row too, and may rot.
pub(super) fn entry(values: [ValueRef<'_>; 8], room: &RoomName) -> Option<Kept> {
    let [
        ValueRef::Integer(id),
        ValueRef::Text(origin),
        ValueRef::Integer(seq),
        ValueRef::Integer(ts),
        mid,
        ValueRef::Integer(shown @ (0 | 1)),
        ValueRef::Blob(json),
        ValueRef::Integer(sum),
    ] = values
    else {
        return None;
    };
    let mid = match mid {
        ValueRef::Null => None,
        ValueRef::Text(mid) => Some(std::str::from_utf8(mid).ok()?),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => return None,
    };
    let mut parts = Parts {
        id,
        origin,
        seq: seq.cast_unsigned(),
        ts: ts.cast_unsigned(),
        room: room.as_str(),
        mid,
        shown: shown == 1,
        json,
    };
    let mut respelled = None;
    if parts.sum() != sum {
        // The first schema kept the names of rooms as clients spelled them.
        parts.room = spelled_otherwise(json, room)?;
        if parts.sum() != sum {
            return None;
        }
        respelled = entry::respelled(json, parts.room, room);
    }
    let mid = match mid {
        Some(mid) => Some(mid.parse().ok()?),
        None => None,
    };
    let entry = Arc::new(Entry {
        origin: Origin::from_bytes(origin.try_into().ok()?)?,
        seq: parts.seq,
        ts: parts.ts,
        room: room.clone(),
        mid,
        json: respelled.unwrap_or_else(|| Bytes::copy_from_slice(json)),
    });
    Some(Kept {
        id,
        entry,
        shown: parts.shown,
    })
}

/// How the JSON of an entry spells the name of its room, if not as it is spelled here.
fn spelled_otherwise<'a>(json: &'a [u8], room: &RoomName) -> Option<&'a str> {
    let spelled = serde_json::from_slice::<EntryJson<'_>>(json).ok()?.room;
    let is_of = RoomName::of_peer(spelled).is_ok_and(|name| name == *room);
    (is_of && spelled != room.as_str()).then_some(spelled)
}

/// A place, as SQLite compares it.
pub(super) fn place_params(place: Place) -> (i64, String) {
    // Timestamps end at i64::MAX (TS_MAX): what is beyond is after all.
    let ts = i64::try_from(place.ts).unwrap_or(i64::MAX);
    (ts, place.origin.as_str().to_owned())
}
