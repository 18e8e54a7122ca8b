//! Resume: what a client that was elsewhere has not seen.
//!
//! A client's position is a list of ids, per origin the highest it has seen in the room. It may
//! come from any node, so it may be behind this node's logs, and it may be ahead of them: the
//! client has seen what has not arrived here yet. What is behind is replayed; what is ahead must
//! not be delivered again when it arrives, and is handed to the caller as a filter.
//!
//! Before a client is taken for ahead, all who are heard are asked what they hold ([`super::rolls`]),
//! and that is waited for: then what is still ahead nobody has, or nobody who can be asked. What a node
//! showed and took with it when it died may be said again through another node, under another id.
//! Only the client knows that this is the same message, by its mid: so it is asked to name those
//! ([`super::named`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::archive::{Archive, Need};
use super::log::{Log, Span};
use super::named::{Mids, Named};
use super::position::{Marks, Unnamed};
use super::resumed::{Ahead, Resumed};
use super::rules;
use super::state::Core;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin, RoomName};
use crate::model::pattern::Scope;

/// Messages that a resume replays at the most; a client further behind starts anew and is told so.
pub(crate) const RESUME_MESSAGES_MAX: usize = 10_000;
/// Bytes of JSON that a resume replays at the most.
pub(crate) const RESUME_BYTES_MAX: usize = 4 << 20;

/// Origins of which a client may have seen more than this node at the most. One that claims more
/// has no position that means anything, and starts anew.
pub(super) const AHEAD_ORIGINS_MAX: usize = 256;

impl Core {
    /// What a client gets that enters a room, or watches some: all that lies beyond `since`, but for
    /// messages that it has `named`, or, without `since` or when that cannot be replayed, of a room the
    /// newest `history` messages. Of the mids named those that this node does not know go into the answer; if there is
    /// no answer yet, they stay.
    ///
    /// # Errors
    /// What has to be read from the disk first, or asked of other nodes.
    pub(super) fn resume(
        &self,
        scope: &Scope,
        since: Option<&[EntryId]>,
        named: &mut Named,
        history: usize,
        archive: &Archive,
    ) -> Result<Resumed, Need> {
        let mut seen: BTreeMap<Origin, u64> = BTreeMap::new();
        for id in since.unwrap_or_default() {
            let seq = seen.entry(id.origin).or_default();
            *seq = (*seq).max(id.seq);
        }
        let mut marks = self.marks_of(&mut seen);
        let whole = |origin: &Origin| self.logs.get(origin).map_or(0, Log::whole);
        let ahead = seen
            .iter()
            .filter(|(origin, seq)| rules::is_ahead(**seq, whole(origin)));
        let ahead = Ahead {
            origins: ahead.map(|(origin, seq)| (*origin, *seq)).collect(),
            ..Ahead::default()
        };
        let mut resumed = Resumed {
            ahead,
            ..Resumed::default()
        };
        // Nobody can have seen more of this node's own log than there is.
        let forged = resumed.ahead.origins.contains_key(&self.me.origin);
        let since = since.filter(|_| !forged && resumed.ahead.origins.len() <= AHEAD_ORIGINS_MAX);
        if since.is_none() {
            resumed.ahead = Ahead::default();
        }
        if !resumed.ahead.is_empty() {
            let asked = rules::may_answer(archive.others_asked, archive.is_last);
            if !asked {
                return Err(Need::Others);
            }
            resumed.unnamed = self.to_be_named(&resumed.ahead, named);
            if !resumed.unnamed.is_empty() {
                return Ok(resumed);
            }
        }
        let held = |origin: &Origin| self.logs.get(origin).map_or(0, Log::held);
        let mut at = self.named();
        at.extend(
            resumed
                .ahead
                .origins
                .iter()
                .filter(|(o, seq)| **seq > held(o)),
        );
        resumed.at = at
            .into_iter()
            .map(|(origin, seq)| EntryId { origin, seq })
            .collect();
        if since.is_some()
            && let Some(entries) = self.beyond(scope, (&seen, marks), &named.mids, archive)?
        {
            resumed.recovered = true;
            let through = marks;
            marks = self.marks().or(marks);
            resumed.entries = entries;
            for (origin, log) in &self.logs {
                if !seen.contains_key(origin) && through.stands_for(log.times) {
                    // It was told when it was there.
                    continue;
                }
                let after = seen.get(origin).copied().unwrap_or_default();
                let beyond = log.holes().iter().filter(|hole| hole.through > after);
                resumed.gaps.extend(beyond.map(|hole| (*origin, *hole)));
            }
        } else {
            marks = self.marks();
            if let Some(room) = scope.room() {
                resumed.entries = self.page_before(room, None, history, archive)?.entries;
            }
        }
        // It was shown them, whether or not it begins anew.
        resumed.ahead.mids = std::mem::take(&mut named.mids);
        let unknown = |room: &RoomName, mid: &Mid| self.mids.get(room, mid).is_none();
        resumed.ahead.mids.retain(unknown);
        resumed.at.extend(marks.ids());
        Ok(resumed)
    }

    /// The position of who has been brought all that was accepted here.
    pub(crate) fn client_position(&self) -> Vec<EntryId> {
        let named = self.named().into_iter();
        let named = named.map(|(origin, seq)| EntryId { origin, seq });
        named.chain(self.marks().ids()).collect()
    }

    /// Of what a client has seen and nobody has, where that begins whose mids it has not named and
    /// can name.
    fn to_be_named(&self, ahead: &Ahead, named: &Named) -> Vec<EntryId> {
        let Some(behind) = &named.behind else {
            return Vec::new();
        };
        let whole = |origin: Origin| EntryId {
            origin,
            seq: self.logs.get(&origin).map_or(0, Log::whole),
        };
        let is_named = |at: &EntryId| {
            behind
                .iter()
                .any(|id| id.origin == at.origin && id.seq <= at.seq)
        };
        let origins = ahead.origins.keys().map(|origin| whole(*origin));
        origins.filter(|at| !is_named(at)).collect()
    }

    /// All of these rooms beyond a position, or `None` if some of it is not kept, or is too much.
    fn beyond(
        &self,
        scope: &Scope,
        (seen, marks): (&BTreeMap<Origin, u64>, Marks),
        mids: &Mids,
        archive: &Archive,
    ) -> Result<Option<Vec<Arc<Entry>>>, Need> {
        if rules::is_left_out(scope.is_empty()) {
            return Ok(Some(Vec::new()));
        }
        let rooms = self.store.view(scope);
        if archive.is_beyond_reach() || self.has_forgotten(marks) {
            return Ok(None);
        }
        let had = |id: EntryId| seen.get(&id.origin).is_some_and(|seq| *seq >= id.seq);
        let mut entries = Vec::new();
        let mut needed = Vec::new();
        let mut bytes = 0;
        for (&origin, log) in &self.logs {
            let named = seen.get(&origin).copied();
            let seq = match named
                .map_or_else(|| self.unnamed(&rooms, origin, log, marks), Unnamed::Beyond)
            {
                Unnamed::Seen => continue,
                Unnamed::Missed => return Ok(None),
                Unnamed::Beyond(seq) => seq,
            };
            let stood_for = |entry: &Entry| named.is_none() && entry.ts <= marks.rest;
            let after = EntryId { origin, seq };
            let trimmed = seq < log.unknown() || (seq < log.floor() && rooms.has_trimmed(after));
            if rules::has_missed(trimmed) {
                return Ok(None);
            }
            let mut read: &[Arc<Entry>] = &[];
            if let Some(span) = self.archived_of(&rooms, after, log) {
                read = archive.read();
                let after = archive.read_through(origin, span.after);
                if after < span.through {
                    needed.push((origin, Span { after, ..span }));
                }
            }
            let of_log = |entry: &&Arc<Entry>| {
                let id = entry.id();
                let of_log = id.origin == origin && id.seq > seq;
                of_log && self.store.get(id).is_none() && self.is_shown_on_disk(entry)
            };
            let read = read.iter().filter(of_log);
            for entry in rooms.shown_beyond(after).chain(read) {
                let by_mid = mids.has(entry);
                let by_mid = rules::is_named(by_mid);
                if by_mid || stood_for(entry) || self.mids.repeats(entry).any(had) {
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
}
