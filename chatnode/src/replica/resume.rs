//! Resume: what a client that was elsewhere has not seen.
//!
//! A client's position is a list of ids, per origin the highest it has seen in the room. It may
//! come from any node, so it may be behind this node's logs, and it may be ahead of them: the
//! client has seen what has not arrived here yet. What is behind is replayed; what is ahead must
//! not be delivered again when it arrives, and is handed to the caller as a filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::archive::{Archive, Need};
use super::entry::Entry;
use super::log::Span;
use super::names::{EntryId, Origin, RoomName};
use super::{Log, Replica};

/// Messages that a resume replays at the most; a client further behind starts anew and is told so.
pub const RESUME_MESSAGES_MAX: usize = 10_000;
/// Bytes of JSON that a resume replays at the most.
pub const RESUME_BYTES_MAX: usize = 4 << 20;

/// Origins of which a client may have seen more than this node at the most. One that claims more
/// has no position that means anything, and starts anew.
pub const AHEAD_ORIGINS_MAX: usize = 256;

/// What a client gets when it enters a room.
#[derive(Debug, Default)]
pub struct Resumed {
    /// Whether `entries` is all that the client has not seen.
    pub recovered: bool,
    /// The position from which the live stream goes on, for this client.
    pub at: Vec<EntryId>,
    /// In the one order.
    pub entries: Vec<Arc<Entry>>,
    /// What the client has seen before this node: not to be delivered to it.
    pub ahead: BTreeMap<Origin, u64>,
    /// Numbers beyond the client's position that nobody has.
    pub gaps: Vec<(Origin, Span)>,
}

impl Replica {
    /// What a client gets that enters a room: all that lies beyond `since`, or, without `since` or
    /// when that cannot be replayed, the newest `history` messages.
    ///
    /// # Errors
    /// What has to be read from the disk first.
    pub fn resume(
        &self,
        room: &RoomName,
        since: Option<&[EntryId]>,
        history: usize,
        archive: &Archive,
    ) -> Result<Resumed, Need> {
        let mut seen: BTreeMap<Origin, u64> = BTreeMap::new();
        for id in since.unwrap_or_default() {
            let seq = seen.entry(id.origin).or_default();
            *seq = (*seq).max(id.seq);
        }
        // Beyond a hole that this node has passed the client may have seen what is in the hole.
        let first_lacking = |origin: &Origin| match self.logs.get(origin) {
            Some(log) => log.holes().first().map_or(log.held(), |hole| hole.after),
            None => 0,
        };
        let mut resumed = Resumed {
            ahead: seen
                .iter()
                .filter(|(origin, seq)| **seq > first_lacking(origin))
                .filter(|_| !mutated!(AheadNotFiltered))
                .map(|(origin, seq)| (*origin, *seq))
                .collect(),
            ..Resumed::default()
        };
        // Nobody can have seen more of this node's own log than there is.
        let forged = resumed.ahead.contains_key(&self.me.origin);
        let since = since.filter(|_| !forged && resumed.ahead.len() <= AHEAD_ORIGINS_MAX);
        if since.is_none() {
            resumed.ahead.clear();
        }
        let held = |origin: &Origin| self.logs.get(origin).map_or(0, Log::held);
        let mut at: BTreeMap<Origin, u64> =
            self.position().iter().map(|i| (i.origin, i.seq)).collect();
        at.extend(resumed.ahead.iter().filter(|(o, seq)| **seq > held(o)));
        resumed.at = at
            .into_iter()
            .map(|(origin, seq)| EntryId { origin, seq })
            .collect();
        if since.is_some()
            && let Some(entries) = self.beyond(room, &seen, archive)?
        {
            resumed.recovered = true;
            resumed.entries = entries;
            for (origin, log) in &self.logs {
                let after = seen.get(origin).copied().unwrap_or_default();
                let beyond = log.holes().iter().filter(|hole| hole.through > after);
                resumed.gaps.extend(beyond.map(|hole| (*origin, *hole)));
            }
        } else {
            resumed.entries = self.page_before(room, None, history, archive)?.entries;
        }
        Ok(resumed)
    }

    /// All of a room beyond a position, or `None` if some of it is not kept, or is too much.
    fn beyond(
        &self,
        room: &RoomName,
        seen: &BTreeMap<Origin, u64>,
        archive: &Archive,
    ) -> Result<Option<Vec<Arc<Entry>>>, Need> {
        if archive.is_beyond_reach() {
            return Ok(None);
        }
        let had = |id: EntryId| seen.get(&id.origin).is_some_and(|seq| *seq >= id.seq);
        let mut entries = Vec::new();
        let mut needed = Vec::new();
        let mut bytes = 0;
        for (&origin, log) in &self.logs {
            let seq = match seen.get(&origin) {
                Some(seq) => *seq,
                // A node that came when all of it was trimmed knows nothing of a dead origin.
                None if self.is_spent(origin, log) => continue,
                None if mutated!(UnnamedOriginForgotten) => continue,
                None => 0,
            };
            let after = EntryId { origin, seq };
            let trimmed = seq < log.started_behind()
                || (seq < log.floor() && self.store.has_trimmed(room, after));
            if trimmed && !mutated!(TrimmedNotTold) {
                return Ok(None);
            }
            let mut read: &[Arc<Entry>] = &[];
            if let Some(span) = self.archived_of(room, after, log) {
                read = archive.read();
                let after = archive.read_through(origin, span.after);
                if after < span.through {
                    needed.push((origin, Span { after, ..span }));
                }
            }
            let of_log = |entry: &&Arc<Entry>| {
                let id = entry.id();
                id.origin == origin && id.seq > seq && self.store.get(id).is_none()
            };
            let read = read.iter().filter(of_log);
            for entry in self.store.shown_beyond(room, after).chain(read) {
                if self.mids.repeats(entry).any(had) {
                    continue;
                }
                bytes += entry.json.len();
                if entries.len() >= RESUME_MESSAGES_MAX || bytes > RESUME_BYTES_MAX {
                    return Ok(None);
                }
                entries.push(Arc::clone(entry));
            }
        }
        if !needed.is_empty() {
            if archive.is_last {
                return Ok(None);
            }
            return Err(Need::Beyond(needed));
        }
        entries.sort_unstable_by_key(|entry| entry.place());
        Ok(Some(entries))
    }

    /// Whether nothing of a log is kept, and nobody adds to it.
    fn is_spent(&self, origin: Origin, log: &Log) -> bool {
        log.held() <= log.floor() && origin != self.me.origin && !self.peers.hears(origin)
    }
}
