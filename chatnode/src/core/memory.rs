//! Entries in memory, up to a count and a size.

pub(super) mod scoped;
mod shelf;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use self::shelf::{ByPlace, BySeq, Shelf};
use super::bounds::ORIGINS_MAX;
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, Origin, RoomName};
use crate::model::page::{PAGE_BYTES_MAX, Page, RoomSummary};

/// What an entry costs besides its JSON: the entry, its places in three rows, its mid, which costs most.
/// An estimate: with a mid it is as much, without one half of it.
const ENTRY_OVERHEAD_BYTES: usize = 384;

/// Rooms that were trimmed empty and are remembered, so that a client that comes back to one can be
/// told whether it missed anything. Beyond, the one that was emptied first is forgotten.
const ROOMS_EMPTY_MAX: usize = 4096;

/// Origins of which entries are kept at the most; beyond, the oldest entries go until there are fewer.
/// Well below [`ORIGINS_MAX`], so that there is room for those of which nothing is kept any more.
const ORIGINS_KEPT_MAX: usize = ORIGINS_MAX - 1024;

/// Origins of which something was trimmed in a room and that are remembered there. Beyond, those of
/// which nothing is kept any more, anywhere, are forgotten: whoever missed the end of one of them is
/// told so, and whoever only may have, too.
const ROOM_MARKS_MAX: usize = 1024;

/// How much history is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Entries at the most.
    pub(crate) messages: usize,
    /// Bytes at the most, bookkeeping included.
    pub(crate) bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            messages: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// One room.
#[derive(Debug, Default)]
struct Room {
    transcript: Shelf<ByPlace>,
    /// What the transcript shows, by name: what lies beyond a position is found without a search.
    shown: BTreeMap<Origin, Shelf<BySeq>>,
    /// The last number of each origin that was trimmed here.
    trimmed: BTreeMap<Origin, u64>,
    /// Whether something may have been trimmed here of which `trimmed` does not know,
    forgetful: bool,
    /// of origins of which nothing is kept.
    forgot_spent: bool,
    /// How often something was trimmed.
    trims: u64,
}

impl Room {
    /// Notes that an entry is shown no more.
    fn unshown(&mut self, id: EntryId) {
        if let Some(shown) = self.shown.get_mut(&id.origin) {
            shown.remove(id.seq);
            if shown.is_empty() {
                self.shown.remove(&id.origin);
            }
        }
    }
}

/// Keeps entries in memory.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    retention: Retention,
    logs: BTreeMap<Origin, Shelf<BySeq>>,
    /// The first entry of each log, by age: the oldest of all is at the front of some log, since
    /// timestamps increase along a log.
    fronts: BTreeSet<(u64, Origin)>,
    rooms: HashMap<RoomName, Room>,
    /// Their names, in order: which begin alike is found without a look at all.
    names: BTreeSet<RoomName>,
    /// Rooms that were trimmed empty, and are remembered for what they had.
    empty: VecDeque<RoomName>,
    has_forgotten: bool,
    /// What stood before these was here before the node started, and in which room is not known.
    unknown: BTreeMap<Origin, u64>,
    /// Whether the disk has some of that.
    has_older: bool,
    /// The last place of all that was trimmed.
    trimmed_through: Option<Place>,
    count: usize,
    bytes: usize,
}

impl MemoryStore {
    /// An empty store.
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            retention,
            logs: BTreeMap::new(),
            fronts: BTreeSet::new(),
            rooms: HashMap::new(),
            names: BTreeSet::new(),
            empty: VecDeque::new(),
            has_forgotten: false,
            unknown: BTreeMap::new(),
            has_older: false,
            trimmed_through: None,
            count: 0,
            bytes: 0,
        }
    }

    fn room_mut(&mut self, name: &RoomName) -> &mut Room {
        if !self.rooms.contains_key(name) {
            let room = Room {
                forgetful: self.has_forgotten,
                ..Room::default()
            };
            self.rooms.insert(name.clone(), room);
            self.names.insert(name.clone());
        }
        self.rooms.get_mut(name).expect("it is there by now")
    }

    fn trim_room(&mut self, entry: &Entry) {
        self.trimmed_through = self.trimmed_through.max(Some(entry.place()));
        self.room_mut(&entry.room);
        let Some(room) = self.rooms.get_mut(&entry.room) else {
            return;
        };
        room.trims += 1;
        let shown = room.transcript.get(entry.place());
        if shown.is_some_and(|shown| shown.id() == entry.id()) {
            room.transcript.remove(entry.place());
        }
        room.unshown(entry.id());
        let trimmed = room.trimmed.entry(entry.origin).or_default();
        *trimmed = (*trimmed).max(entry.seq);
        if room.trimmed.len() > ROOM_MARKS_MAX {
            let logs = &self.logs;
            let before = room.trimmed.len();
            room.trimmed.retain(|origin, _| logs.contains_key(origin));
            room.forgot_spent |= room.trimmed.len() < before;
        }
        if room.transcript.is_empty() {
            self.empty.push_back(entry.room.clone());
        }
        while self.empty.len() > ROOMS_EMPTY_MAX
            && let Some(name) = self.empty.pop_front()
        {
            if self
                .rooms
                .get(&name)
                .is_some_and(|room| room.transcript.is_empty())
            {
                self.rooms.remove(&name);
                self.names.remove(&name);
                self.has_forgotten = true;
            }
        }
    }
}

/// What an entry costs in memory.
pub(crate) fn cost(entry: &Entry) -> usize {
    entry.json.len() + ENTRY_OVERHEAD_BYTES
}

fn front(log: &Shelf<BySeq>) -> Option<(u64, Origin)> {
    log.first().map(|entry| (entry.ts, entry.origin))
}

impl MemoryStore {
    /// Keeps an entry in its log, not yet in a transcript. Keeping it twice is once.
    pub(crate) fn keep(&mut self, entry: &Arc<Entry>) {
        let log = self.logs.entry(entry.origin).or_default();
        if log.get(entry.seq).is_some() {
            return;
        }
        let before = front(log);
        log.insert(Arc::clone(entry));
        let after = front(log);
        if before != after {
            before.map(|front| self.fronts.remove(&front));
            self.fronts.extend(after);
        }
        self.count += 1;
        self.bytes += cost(entry);
    }

    /// Shows a kept entry in its room's transcript.
    pub(crate) fn show(&mut self, entry: &Arc<Entry>) {
        let room = self.room_mut(&entry.room);
        room.transcript.insert(Arc::clone(entry));
        let shown = room.shown.entry(entry.origin).or_default();
        shown.insert(Arc::clone(entry));
    }

    /// Takes an entry out of its room's transcript; its log keeps it.
    pub(super) fn hide(&mut self, room: &RoomName, place: Place) {
        if let Some(room) = self.rooms.get_mut(room)
            && let Some(entry) = room.transcript.remove(place)
        {
            room.unshown(entry.id());
        }
    }

    /// The entry of this name, if it is kept.
    pub(super) fn get(&self, id: EntryId) -> Option<Arc<Entry>> {
        self.logs.get(&id.origin)?.get(id.seq).cloned()
    }

    /// Entries of one origin with `after < seq <= through`, ascending, until `bytes_max` of JSON
    /// are reached (at least one). Numbers that are not kept are passed over.
    pub(super) fn range(
        &self,
        origin: Origin,
        after: u64,
        through: u64,
        bytes_max: usize,
    ) -> Vec<Arc<Entry>> {
        let Some(log) = self.logs.get(&origin) else {
            return Vec::new();
        };
        if after >= through {
            return Vec::new();
        }
        let mut bytes = 0;
        log.beyond(after)
            .take_while(|entry| entry.seq <= through)
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += cost(entry);
                first || bytes <= bytes_max
            })
            .cloned()
            .collect()
    }

    /// The newest `limit` entries shown in a room that stand before a place; fewer, but one at
    /// least, if they hold more than [`PAGE_BYTES_MAX`].
    pub(crate) fn page(&self, room: &RoomName, before: Option<Place>, limit: usize) -> Page {
        let Some(room) = self.rooms.get(room) else {
            return Page::default();
        };
        let mut older = room.transcript.before(before);
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < limit
            && bytes < PAGE_BYTES_MAX
            && let Some(entry) = older.next()
        {
            bytes += entry.json.len();
            entries.push(Arc::clone(entry));
        }
        entries.reverse();
        Page {
            entries,
            more: older.next().is_some(),
        }
    }

    /// All entries shown in a room that stand before a place, the newest first.
    pub(super) fn transcript(&self, room: &RoomName, before: Option<Place>) -> Vec<Arc<Entry>> {
        let room = self.rooms.get(room).into_iter();
        let entries = room.flat_map(|room| room.transcript.before(before));
        entries.cloned().collect()
    }

    /// Entries of one origin that are shown in a room and lie beyond a number, ascending.
    pub(super) fn shown_beyond(
        &self,
        room: &RoomName,
        after: EntryId,
    ) -> impl Iterator<Item = &Arc<Entry>> {
        let room = self.rooms.get(room);
        let shown = room.and_then(|room| room.shown.get(&after.origin));
        shown
            .into_iter()
            .flat_map(move |shown| shown.beyond(after.seq))
    }

    /// Through which number a room may have lost something of an origin. All beyond that is here.
    pub(super) fn let_go(&self, room: &RoomName, origin: Origin) -> u64 {
        let trimmed = match self.rooms.get(room) {
            Some(room) if room.forgetful => u64::MAX,
            Some(room) => match room.trimmed.get(&origin) {
                Some(seq) => *seq,
                None if room.forgot_spent && !self.logs.contains_key(&origin) => u64::MAX,
                None => 0,
            },
            None if self.has_forgotten => u64::MAX,
            None => 0,
        };
        trimmed.max(self.unknown.get(&origin).copied().unwrap_or_default())
    }

    /// Whether a kept entry is shown in its room's transcript.
    pub(super) fn is_shown(&self, entry: &Entry) -> bool {
        let room = self.rooms.get(&entry.room);
        let shown = room.and_then(|room| room.shown.get(&entry.origin));
        shown.is_some_and(|shown| shown.get(entry.seq).is_some())
    }

    /// Says that of each origin there were entries through a number, of which this store knows nothing, all
    /// before this place; and whether the disk has some of them.
    pub(super) fn begins_behind(
        &mut self,
        unknown: BTreeMap<Origin, u64>,
        place: Option<Place>,
        has_older: bool,
    ) {
        self.unknown = unknown;
        self.has_older = has_older;
        self.trimmed_through = self.trimmed_through.max(place);
    }

    /// Whether a page has all that stands there: nothing that was trimmed, or may have been, would
    /// have a place in it.
    pub(super) fn is_whole(&self, room: &RoomName, page: &Page, limit: usize) -> bool {
        let trimmed = match self.rooms.get(room) {
            Some(room) => room.forgetful || room.forgot_spent || !room.trimmed.is_empty(),
            None => self.has_forgotten,
        };
        let trimmed = trimmed || self.has_older;
        let behind_all = page
            .entries
            .first()
            .is_some_and(|first| Some(first.place()) > self.trimmed_through);
        // A full page behind which memory has nothing more is no last page: the disk may have more.
        limit == 0 || !trimmed || (behind_all && page.more)
    }

    /// Changes whenever something of a room is trimmed.
    pub(super) fn trims_of(&self, room: &RoomName) -> u64 {
        self.rooms.get(room).map_or(0, |room| room.trims)
    }

    /// Rooms with entries shown, by name.
    pub(super) fn rooms(&self) -> Vec<RoomSummary> {
        let mut rooms: Vec<_> = self
            .rooms
            .iter()
            .filter(|(_, room)| !room.transcript.is_empty())
            .map(|(name, room)| RoomSummary {
                room: name.clone(),
                messages: room.transcript.len(),
                newest: room.transcript.last().map(|entry| entry.place()),
            })
            .collect();
        rooms.sort_by(|a, b| a.room.cmp(&b.room));
        rooms
    }

    /// Removes the oldest entry while there are more than retention allows, if it `may` go; called
    /// until `None`.
    pub(super) fn trim(&mut self, may: impl FnOnce(&Entry) -> bool) -> Option<Arc<Entry>> {
        let fits = self.count <= self.retention.messages && self.bytes <= self.retention.bytes;
        if fits && self.logs.len() <= ORIGINS_KEPT_MAX {
            return None;
        }
        let origin = self.fronts.first()?.1;
        let log = self.logs.get_mut(&origin)?;
        if !log.first().is_some_and(|entry| may(entry)) {
            return None;
        }
        self.fronts.pop_first();
        let entry = log.pop_first()?;
        self.fronts.extend(front(log));
        if log.is_empty() {
            self.logs.remove(&origin);
        }
        self.count -= 1;
        self.bytes -= cost(&entry);
        self.trim_room(&entry);
        Some(entry)
    }

    /// How many entries are kept, and the bytes they take.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }
}

#[cfg(test)]
mod tests;
