//! Entries in memory, up to a count and a size.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Page, RoomSummary, Store};
use crate::replica::entry::{Entry, Place};
use crate::replica::names::{EntryId, Origin, RoomName};

/// What an entry costs besides its JSON: the entry, its places in two trees. An estimate.
const ENTRY_OVERHEAD_BYTES: usize = 256;

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

/// Keeps entries in memory.
#[derive(Debug)]
pub struct MemoryStore {
    retention: Retention,
    logs: BTreeMap<Origin, BTreeMap<u64, Arc<Entry>>>,
    rooms: HashMap<RoomName, BTreeMap<Place, Arc<Entry>>>,
    count: usize,
    bytes: usize,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            logs: BTreeMap::new(),
            rooms: HashMap::new(),
            count: 0,
            bytes: 0,
        }
    }
}

fn cost(entry: &Entry) -> usize {
    entry.json.len() + ENTRY_OVERHEAD_BYTES
}

impl Store for MemoryStore {
    fn keep(&mut self, entry: &Arc<Entry>) {
        let log = self.logs.entry(entry.origin).or_default();
        if log.insert(entry.seq, Arc::clone(entry)).is_none() {
            self.count += 1;
            self.bytes += cost(entry);
        }
    }

    fn show(&mut self, entry: &Arc<Entry>) {
        let room = match self.rooms.get_mut(&entry.room) {
            Some(room) => room,
            None => self.rooms.entry(entry.room.clone()).or_default(),
        };
        room.insert(entry.place(), Arc::clone(entry));
    }

    fn hide(&mut self, room: &RoomName, place: Place) {
        if let Some(transcript) = self.rooms.get_mut(room) {
            transcript.remove(&place);
            if transcript.is_empty() {
                self.rooms.remove(room);
            }
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
        let Some(transcript) = self.rooms.get(room) else {
            return Page::default();
        };
        let mut older = match before {
            Some(place) => transcript.range(..place),
            None => transcript.range(..),
        }
        .rev();
        let mut entries: Vec<_> = older
            .by_ref()
            .take(limit)
            .map(|(_, entry)| Arc::clone(entry))
            .collect();
        entries.reverse();
        Page {
            entries,
            more: older.next().is_some(),
        }
    }

    fn shown_from(&self, room: &RoomName, ts: u64) -> Box<dyn Iterator<Item = &Arc<Entry>> + '_> {
        match self.rooms.get(room) {
            Some(transcript) => {
                let first = Place {
                    ts,
                    origin: Origin::LEAST,
                };
                Box::new(transcript.range(first..).map(|(_, entry)| entry))
            }
            None => Box::new(std::iter::empty()),
        }
    }

    fn rooms(&self) -> Vec<RoomSummary> {
        let mut rooms: Vec<_> = self
            .rooms
            .iter()
            .map(|(room, transcript)| RoomSummary {
                room: room.clone(),
                messages: transcript.len(),
                newest: transcript.last_key_value().map(|(place, _)| *place),
            })
            .collect();
        rooms.sort_by(|a, b| a.room.cmp(&b.room));
        rooms
    }

    fn trim(&mut self) -> Option<Arc<Entry>> {
        if self.count <= self.retention.messages && self.bytes <= self.retention.bytes {
            return None;
        }
        // The oldest entry of all is at the front of some log: timestamps increase along a log.
        let origin = self
            .logs
            .iter()
            .filter_map(|(origin, log)| log.first_key_value().map(|(_, e)| (e.ts, *origin)))
            .min()?
            .1;
        let log = self.logs.get_mut(&origin)?;
        let (_, entry) = log.pop_first()?;
        if log.is_empty() {
            self.logs.remove(&origin);
        }
        self.count -= 1;
        self.bytes -= cost(&entry);
        let shown = self
            .rooms
            .get(&entry.room)
            .and_then(|transcript| transcript.get(&entry.place()))
            .is_some_and(|shown| shown.id() == entry.id());
        if shown {
            self.hide(&entry.room, entry.place());
        }
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
