//! Entries in memory, up to a count and a size.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::{PAGE_BYTES_MAX, Page, RoomSummary, Store};
use crate::replica::entry::{Entry, Place};
use crate::replica::names::{EntryId, Origin, RoomName};

/// What an entry costs besides its JSON: the entry, its places in three trees, its mid. An estimate.
const ENTRY_OVERHEAD_BYTES: usize = 384;

/// Rooms that were trimmed empty and are remembered, so that a client that comes back to one can be
/// told whether it missed anything. Beyond, the one that was emptied first is forgotten.
const ROOMS_EMPTY_MAX: usize = 4096;

/// How much history is held.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Entries at the most.
    pub messages: usize,
    /// Bytes at the most, bookkeeping included.
    pub bytes: usize,
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
    transcript: BTreeMap<Place, Arc<Entry>>,
    /// What the transcript shows, by name: what lies beyond a position is found without a search.
    shown: BTreeMap<EntryId, Arc<Entry>>,
    /// The last number of each origin that was trimmed here.
    trimmed: BTreeMap<Origin, u64>,
    /// Whether something may have been trimmed here of which `trimmed` does not know.
    forgetful: bool,
}

/// Keeps entries in memory.
#[derive(Debug)]
pub struct MemoryStore {
    retention: Retention,
    logs: BTreeMap<Origin, BTreeMap<u64, Arc<Entry>>>,
    /// The first entry of each log, by age: the oldest of all is at the front of some log, since
    /// timestamps increase along a log.
    fronts: BTreeSet<(u64, Origin)>,
    rooms: HashMap<RoomName, Room>,
    /// Rooms that were trimmed empty, and are remembered for what they had.
    empty: VecDeque<RoomName>,
    has_forgotten: bool,
    count: usize,
    bytes: usize,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            logs: BTreeMap::new(),
            fronts: BTreeSet::new(),
            rooms: HashMap::new(),
            empty: VecDeque::new(),
            has_forgotten: false,
            count: 0,
            bytes: 0,
        }
    }

    fn room_mut(&mut self, name: &RoomName) -> &mut Room {
        let forgetful = self.has_forgotten;
        self.rooms.entry(name.clone()).or_insert_with(|| Room {
            forgetful,
            ..Room::default()
        })
    }

    fn trim_room(&mut self, entry: &Entry) {
        let room = self.room_mut(&entry.room);
        let shown = room.transcript.get(&entry.place());
        if shown.is_some_and(|shown| shown.id() == entry.id()) {
            room.transcript.remove(&entry.place());
        }
        room.shown.remove(&entry.id());
        let trimmed = room.trimmed.entry(entry.origin).or_default();
        *trimmed = (*trimmed).max(entry.seq);
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
                self.has_forgotten = true;
            }
        }
    }
}

fn cost(entry: &Entry) -> usize {
    entry.json.len() + ENTRY_OVERHEAD_BYTES
}

fn front(log: &BTreeMap<u64, Arc<Entry>>) -> Option<(u64, Origin)> {
    log.first_key_value()
        .map(|(_, entry)| (entry.ts, entry.origin))
}

impl Store for MemoryStore {
    fn keep(&mut self, entry: &Arc<Entry>) {
        let log = self.logs.entry(entry.origin).or_default();
        if log.contains_key(&entry.seq) {
            return;
        }
        let before = front(log);
        log.insert(entry.seq, Arc::clone(entry));
        let after = front(log);
        if before != after {
            before.map(|front| self.fronts.remove(&front));
            self.fronts.extend(after);
        }
        self.count += 1;
        self.bytes += cost(entry);
    }

    fn show(&mut self, entry: &Arc<Entry>) {
        let room = self.room_mut(&entry.room);
        room.transcript.insert(entry.place(), Arc::clone(entry));
        room.shown.insert(entry.id(), Arc::clone(entry));
    }

    fn hide(&mut self, room: &RoomName, place: Place) {
        if let Some(room) = self.rooms.get_mut(room)
            && let Some(entry) = room.transcript.remove(&place)
        {
            room.shown.remove(&entry.id());
        }
    }

    fn get(&self, id: EntryId) -> Option<Arc<Entry>> {
        self.logs.get(&id.origin)?.get(&id.seq).cloned()
    }

    fn range(&self, origin: Origin, after: u64, through: u64, bytes_max: usize) -> Vec<Arc<Entry>> {
        let Some(log) = self.logs.get(&origin) else {
            return Vec::new();
        };
        if after >= through {
            return Vec::new();
        }
        let mut bytes = 0;
        log.range(after + 1..=through)
            .map(|(_, entry)| entry)
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += cost(entry);
                first || bytes <= bytes_max
            })
            .cloned()
            .collect()
    }

    fn page(&self, room: &RoomName, before: Option<Place>, limit: usize) -> Page {
        let Some(room) = self.rooms.get(room) else {
            return Page::default();
        };
        let mut older = match before {
            Some(place) => room.transcript.range(..place),
            None => room.transcript.range(..),
        }
        .rev();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < limit
            && bytes < PAGE_BYTES_MAX
            && let Some((_, entry)) = older.next()
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

    fn shown_beyond(
        &self,
        room: &RoomName,
        after: EntryId,
    ) -> Box<dyn Iterator<Item = &Arc<Entry>> + '_> {
        let last = EntryId {
            seq: u64::MAX,
            ..after
        };
        match self.rooms.get(room) {
            Some(room) if after < last => {
                let beyond = (Bound::Excluded(after), Bound::Included(last));
                Box::new(room.shown.range(beyond).map(|(_, entry)| entry))
            }
            _ => Box::new(std::iter::empty()),
        }
    }

    fn has_trimmed(&self, room: &RoomName, after: EntryId) -> bool {
        match self.rooms.get(room) {
            Some(room) => {
                let trimmed = room.trimmed.get(&after.origin);
                room.forgetful || trimmed.is_some_and(|seq| *seq > after.seq)
            }
            None => self.has_forgotten,
        }
    }

    fn rooms(&self) -> Vec<RoomSummary> {
        let mut rooms: Vec<_> = self
            .rooms
            .iter()
            .filter(|(_, room)| !room.transcript.is_empty())
            .map(|(name, room)| RoomSummary {
                room: name.clone(),
                messages: room.transcript.len(),
                newest: room.transcript.last_key_value().map(|(place, _)| *place),
            })
            .collect();
        rooms.sort_by(|a, b| a.room.cmp(&b.room));
        rooms
    }

    fn trim(&mut self) -> Option<Arc<Entry>> {
        if self.count <= self.retention.messages && self.bytes <= self.retention.bytes {
            return None;
        }
        let (_, origin) = self.fronts.pop_first()?;
        let log = self.logs.get_mut(&origin)?;
        let (_, entry) = log.pop_first()?;
        self.fronts.extend(front(log));
        if log.is_empty() {
            self.logs.remove(&origin);
        }
        self.count -= 1;
        self.bytes -= cost(&entry);
        self.trim_room(&entry);
        Some(entry)
    }

    fn size(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(origin: &str, seq: u64, ts: u64) -> Arc<Entry> {
        let id = EntryId {
            origin: origin.parse().unwrap(),
            seq,
        };
        let name = "ada".parse().unwrap();
        Arc::new(Entry::new(
            id,
            ts,
            "lobby".parse().unwrap(),
            None,
            &name,
            "hello",
        ))
    }

    #[test]
    fn a_page_ends_before_a_place_and_says_whether_there_is_more() {
        let mut store = MemoryStore::new(Retention::default());
        for seq in 1..=5 {
            let entry = entry("aaaaaaaaaa", seq, 10 * seq);
            store.keep(&entry);
            store.show(&entry);
        }
        let room = "lobby".parse().unwrap();
        let seqs = |page: &Page| page.entries.iter().map(|e| e.seq).collect::<Vec<_>>();
        let newest = store.page(&room, None, 2);
        assert_eq!((seqs(&newest), newest.more), (vec![4, 5], true));
        let older = store.page(&room, Some(newest.entries[0].place()), 9);
        assert_eq!((seqs(&older), older.more), (vec![1, 2, 3], false));
    }

    #[test]
    fn retention_removes_the_oldest_of_all_logs() {
        let mut store = MemoryStore::new(Retention {
            messages: 2,
            bytes: 1 << 20,
        });
        for entry in [
            entry("aaaaaaaaaa", 1, 10),
            entry("bbbbbbbbbb", 1, 5),
            entry("aaaaaaaaaa", 2, 20),
        ] {
            store.keep(&entry);
            store.show(&entry);
        }
        assert_eq!(store.trim().unwrap().ts, 5);
        assert!(store.trim().is_none());
        assert_eq!(store.size().0, 2);
        assert_eq!(
            store.page(&"lobby".parse().unwrap(), None, 9).entries.len(),
            2
        );
    }
}
