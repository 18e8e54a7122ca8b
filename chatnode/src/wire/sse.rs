//! Server-sent events: a room's messages as they are told over plain HTTP.
//!
//! An event's id is a position: the event's own entry first, then up to where its client has seen the
//! others, so that `Last-Event-ID` resumes on any node as `since` does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::protocol::{self, Gap};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin};

/// What a stream begins with: whoever loses it comes back after a second.
pub(crate) const OPEN: &str = ": open\nretry: 1000\n\n";
/// What could not be replayed is missing; the newest page follows.
pub(crate) const RESET: &str = "event: reset\ndata: {\"recovered\":false}\n\n";
/// Said when nothing was for a while.
pub(crate) const QUIET: &str = ": quiet\n\n";

/// A position, by origin.
pub(crate) type Seen = BTreeMap<Origin, u64>;

/// Reads a position.
pub(crate) fn position(ids: &[EntryId]) -> Seen {
    let mut seen = Seen::new();
    see(&mut seen, ids.iter().copied());
    seen
}

/// A position goes on to these.
pub(crate) fn see(seen: &mut Seen, ids: impl IntoIterator<Item = EntryId>) {
    for id in ids {
        let seq = seen.entry(id.origin).or_default();
        *seq = (*seq).max(id.seq);
    }
}

/// A position as ids with commas, that of an entry first. `ahead` is seen too.
pub(crate) fn id(first: Option<EntryId>, seen: &Seen, ahead: &Seen) -> String {
    let mut text = first.map(|id| id.to_string()).unwrap_or_default();
    let further = |origin: &Origin, seq: u64| seen.get(origin).is_some_and(|other| *other >= seq);
    let ahead = ahead.iter().filter(|(origin, seq)| !further(origin, **seq));
    let ahead: Seen = ahead.map(|(origin, seq)| (*origin, *seq)).collect();
    let seen = seen
        .iter()
        .filter(|(origin, _)| !ahead.contains_key(*origin));
    for (&origin, &seq) in seen.chain(&ahead) {
        // Of an entry's own origin the client may have seen more: the entry filled a hole.
        if first != Some(EntryId { origin, seq }) {
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{}", EntryId { origin, seq }).expect("a string takes all");
        }
    }
    text
}

/// The event of a message; without an id its client stays where it was.
pub(crate) fn event(entry: &Entry, id: Option<&str>) -> String {
    let mut event = String::with_capacity(entry.json.len() + id.map_or(0, str::len) + 16);
    if let Some(id) = id {
        event.push_str("id: ");
        event.push_str(id);
        event.push('\n');
    }
    event.push_str("data: ");
    // Decoding checked that it is UTF-8; an own entry is serialized from strings.
    event.push_str(std::str::from_utf8(&entry.json).unwrap_or("null"));
    event.push_str("\n\n");
    event
}

/// Where a client is, without an event.
pub(crate) fn here(seen: &Seen) -> String {
    format!("id: {}\n\n", id(None, seen, &Seen::new()))
}

/// The event of numbers that nobody has.
pub(crate) fn gap(gap: &Gap<'_>) -> String {
    format!("event: gap\ndata: {}\n\n", protocol::json(gap))
}
