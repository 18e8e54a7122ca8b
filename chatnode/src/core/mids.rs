//! Which client ids were seen: what makes a retry no second message.
//!
//! Of the entries that are kept, the one that stands first in the order is shown; the others with
//! the same mid are not. So nodes that keep the same entries show the same ones, in whatever order
//! these came. A mid outlives its entries for some minutes, lest a late retry be delivered anew.
//!
//! They can be many, and each message asks for one: so a name is known by a hash, a known mid is a few
//! words, and only those that several entries have are kept in order elsewhere. And nothing here takes
//! long at once: a table that grows moves all that it has, so there are many small ones, and what is
//! to be forgotten is forgotten some at a time.

use std::collections::hash_map::{Entry as MapEntry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::clock::Now;
use super::journal::LoadedMid;
use super::rules;
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, Mid, RoomName};

/// How long after its entry was said a mid is known at least, though the entry was trimmed.
pub(crate) const MID_KEPT: Duration = Duration::from_secs(5 * 60);
/// Mids of entries that memory has let go that are known at the most; the oldest is forgotten first.
/// They take about 60 MB. With a disk a mid is known as long as its entry is there, or until there are
/// so many: a browser may have kept a message over night.
pub(crate) const MIDS_TRIMMED_MAX: usize = 500_000;
/// Mids whose time is over that are forgotten at once at the most; the others are soon after.
const FORGOTTEN_AT_ONCE_MAX: usize = 4096;
/// Mids that are too many are forgotten so many together: far apart in memory, they are fetched
/// together too.
const FORGOTTEN_TOGETHER: usize = 64;
/// Entries that are noted together at the most, for the same reason.
pub(super) const NOTED_TOGETHER: usize = 16;
/// Entries that repeat one mid and are known to do so at the most; what a sick node says again and again
/// beyond that is hidden all the same, and known no more.
const HIDDEN_MAX: usize = 16;
/// Tables. With so many, one of a full number of mids is not much larger than it must be.
const TABLES: usize = 192;

/// Stands for a mid and its room, where alone it means something: 128 bits of a hash whose keys are
/// random and secret. So nobody can choose two names that are the same here, and that by chance two
/// of a million are has odds of one in 10^26.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key([u64; 2]);

impl Key {
    /// Which table it is in. A table uses the other half.
    fn table(self) -> usize {
        let [.., high, low] = self.0[1].to_be_bytes();
        usize::from(u16::from_be_bytes([high, low])) % TABLES
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// Gives half of a key, which is a hash already.
#[derive(Debug, Default)]
struct Half(u64);

impl Hasher for Half {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key gives one number");
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Table<T> = HashMap<Key, T, BuildHasherDefault<Half>>;

/// The entry of a mid that is shown, or that was until it was trimmed.
#[derive(Debug, Clone, Copy)]
struct Shown {
    ts: u64,
    id: EntryId,
}

impl Shown {
    fn of(entry: &Entry) -> Self {
        let (ts, id) = (entry.ts, entry.id());
        Self { ts, id }
    }

    fn place(self) -> Place {
        Place {
            ts: self.ts,
            origin: self.id.origin,
        }
    }
}

/// What to do with an entry because of its mid.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody said this before: show it and deliver it.
    First,
    /// Another entry with this mid stands earlier in the order: do not show this one.
    Repeats,
    /// It stands earlier than the one that is shown: it takes that one's place in the transcript.
    /// Clients have had the message.
    Replaces(Place, EntryId),
    /// Clients have had the message, but what said it is kept no more: show this one.
    Outlives,
}

/// A mid whose shown entry was trimmed.
#[derive(Debug)]
struct Trimmed {
    /// When to forget it, if that is the one still.
    at: Duration,
    key: Key,
    id: EntryId,
}

/// The mids of the entries in memory, and of those that were not long ago.
#[derive(Debug)]
pub(super) struct Mids {
    /// What memory has kept no more is on the disk, and shown there.
    pub(super) archived: bool,
    hashers: [RandomState; 2],
    tables: Vec<Table<Shown>>,
    /// Other entries with the same mid, in order: retries through other nodes, and what was shown before them
    /// and is gone. Few, and no more than [`HIDDEN_MAX`] for one mid.
    hidden: Table<Vec<(Place, EntryId)>>,
    trimmed: VecDeque<Trimmed>,
}

impl Default for Mids {
    fn default() -> Self {
        Self {
            archived: false,
            hashers: [RandomState::new(), RandomState::new()],
            tables: vec![Table::default(); TABLES],
            hidden: Table::default(),
            trimmed: VecDeque::new(),
        }
    }
}

/// Notes another entry with the mid of one that is shown.
fn remember(hidden: &mut Vec<(Place, EntryId)>, other: Shown) {
    let other = (other.place(), other.id);
    let index = hidden.partition_point(|before| *before < other);
    hidden.insert(index, other);
    hidden.truncate(HIDDEN_MAX);
}

/// How much longer a mid is known whose entry was said then.
fn remaining(ts: u64, now: Now) -> Duration {
    let age = Duration::from_micros(now.wall_us.saturating_sub(ts));
    MID_KEPT.saturating_sub(age)
}

impl Mids {
    fn key(&self, room: &RoomName, mid: &Mid) -> Key {
        let name = (room.as_str(), mid.as_str());
        Key(self.hashers.each_ref().map(|hasher| hasher.hash_one(name)))
    }

    fn key_of(&self, entry: &Entry) -> Option<Key> {
        Some(self.key(&entry.room, entry.mid.as_ref()?))
    }

    /// When the mid of an entry that is in memory no more, and was said then, need not be known any
    /// longer: never, if the disk goes on showing it, and there are not too many.
    fn known_until(&self, ts: u64, now: Now) -> Duration {
        if self.archived {
            Duration::MAX
        } else {
            now.mono + remaining(ts, now)
        }
    }

    /// The entry that a mid stands for: its id and timestamp.
    pub(super) fn get(&self, room: &RoomName, mid: &Mid) -> Option<(EntryId, u64)> {
        let key = self.key(room, mid);
        let shown = self.tables[key.table()].get(&key)?;
        Some((shown.id, shown.ts))
    }

    /// Notes accepted entries, [`NOTED_TOGETHER`] at the most. `kept` says whether another is in memory.
    pub(super) fn note_together(
        &mut self,
        entries: &[Arc<Entry>],
        kept: impl Fn(EntryId) -> bool,
    ) -> [Verdict; NOTED_TOGETHER] {
        debug_assert!(entries.len() <= NOTED_TOGETHER);
        let keys: [Option<Key>; NOTED_TOGETHER] =
            std::array::from_fn(|nth| self.key_of(entries.get(nth)?));
        std::array::from_fn(|nth| match (keys[nth], entries.get(nth)) {
            (Some(key), Some(entry)) => self.note_as(key, entry, &kept),
            _ => Verdict::First,
        })
    }

    /// Notes an accepted entry.
    pub(super) fn note(&mut self, entry: &Entry, kept: impl Fn(EntryId) -> bool) -> Verdict {
        match self.key_of(entry) {
            Some(key) => self.note_as(key, entry, kept),
            None => Verdict::First,
        }
    }

    fn note_as(&mut self, key: Key, entry: &Entry, kept: impl Fn(EntryId) -> bool) -> Verdict {
        let new = Shown::of(entry);
        let known = match self.tables[key.table()].entry(key) {
            MapEntry::Vacant(free) => {
                free.insert(new);
                return Verdict::First;
            }
            MapEntry::Occupied(known) => known.into_mut(),
        };
        if !self.archived && !kept(known.id) {
            let gone = std::mem::replace(known, new);
            remember(self.hidden.entry(key).or_default(), gone);
            return Verdict::Outlives;
        }
        let (place, id) = (new.place(), new.id);
        let hidden = self.hidden.get(&key);
        if known.id == id || hidden.is_some_and(|hidden| hidden.contains(&(place, id))) {
            return Verdict::Repeats;
        }
        let hidden = self.hidden.entry(key).or_default();
        if hidden.len() >= HIDDEN_MAX && !self.archived {
            hidden.retain(|(_, other)| kept(*other));
        }
        if rules::stands_before(known.place(), place) {
            remember(hidden, new);
            return Verdict::Repeats;
        }
        let replaced = std::mem::replace(known, new);
        if let Some(replaced) = rules::remembered(replaced) {
            remember(hidden, replaced);
        }
        Verdict::Replaces(replaced.place(), replaced.id)
    }

    /// Notes the mid of an entry that a disk keeps and memory does not. They come oldest first: one that is
    /// not shown repeats what is known, or what the disk has no more. Whether it is alone so.
    pub(super) fn recall(&mut self, now: Now, loaded: &LoadedMid) -> bool {
        let (key, id, ts) = (
            self.key(&loaded.room, &loaded.mid),
            loaded.id,
            loaded.place.ts,
        );
        let known = self.tables[key.table()].entry(key);
        let is_alone = !loaded.shown && matches!(known, MapEntry::Vacant(_));
        if loaded.shown || is_alone {
            known.insert_entry(Shown { ts, id });
        } else {
            remember(self.hidden.entry(key).or_default(), Shown { ts, id });
        }
        let at = self.known_until(ts, now);
        self.trimmed.push_back(Trimmed { at, key, id });
        is_alone
    }

    /// Other entries that said the same as this one.
    pub(super) fn repeats(&self, entry: &Entry) -> impl Iterator<Item = EntryId> {
        let some = !self.hidden.is_empty();
        let key = some.then(|| self.key_of(entry)).flatten();
        let hidden = key.and_then(|key| self.hidden.get(&key));
        hidden.into_iter().flatten().map(|(_, id)| *id)
    }

    /// Notes that an entry is in memory no more. Returns the one to be shown in its stead: none if
    /// the disk goes on showing it. `kept` says whether another is in memory.
    pub(super) fn trimmed(
        &mut self,
        entry: &Entry,
        now: Now,
        kept: impl Fn(EntryId) -> bool,
    ) -> Option<EntryId> {
        let (key, id) = (self.key_of(entry)?, entry.id());
        if !self.hidden.is_empty()
            && let Some(hidden) = self.hidden.get_mut(&key)
            && let Some(known) = self.tables[key.table()].get_mut(&key)
        {
            let was_shown = known.id == id;
            let mut instead = None;
            if !was_shown && !self.archived {
                hidden.retain(|(_, other)| *other != id);
            } else if was_shown
                && !self.archived
                && let Some(index) = hidden.iter().position(|(_, other)| kept(*other))
            {
                let (place, id) = hidden.remove(index);
                // Who has seen the one that is gone has seen what the other says.
                remember(hidden, std::mem::replace(known, Shown { ts: place.ts, id }));
                instead = Some(id);
            }
            if hidden.is_empty() {
                self.hidden.remove(&key);
            }
            // A hidden one that is on the disk counts as a mid does, and is forgotten in its turn.
            if instead.is_some() || (!was_shown && !self.archived) {
                return instead;
            }
        }
        let at = rules::known_until(self.known_until(entry.ts, now));
        self.trimmed.push_back(Trimmed { at, key, id });
        if self.trimmed.len() >= MIDS_TRIMMED_MAX + FORGOTTEN_TOGETHER {
            for _ in 0..FORGOTTEN_TOGETHER {
                self.forget_first();
            }
        }
        None
    }

    /// Forgets mids of trimmed entries that are old enough, or too many; the rest next time.
    pub(super) fn expire(&mut self, now: Duration) {
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            let Some(first) = self.trimmed.front() else {
                break;
            };
            if first.at > now && self.trimmed.len() <= MIDS_TRIMMED_MAX {
                break;
            }
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(Trimmed { key, id, .. }) = self.trimmed.pop_front() else {
            return;
        };
        if let MapEntry::Occupied(known) = self.tables[key.table()].entry(key)
            && known.get().id == id
        {
            known.remove();
            self.hidden.remove(&key);
        } else if let Some(hidden) = self.hidden.get_mut(&key) {
            hidden.retain(|(_, other)| *other != id);
            if hidden.is_empty() {
                self.hidden.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        let id = EntryId {
            origin: "aaaaaaaaaa".parse().unwrap(),
            seq,
        };
        let mid = format!("mid-{seq}").parse().unwrap();
        let name = "ada".parse().unwrap();
        Entry::new(id, seq, "lobby".parse().unwrap(), Some(mid), &name, "")
    }

    /// Goal: no input waits until very many mids are moved or forgotten. Method: many are noted, and no
    /// table has much more than its share; all are trimmed and their time is over, and one call forgets
    /// some, oldest first, several calls all.
    #[test]
    fn many_mids_are_moved_and_forgotten_some_at_a_time() {
        let count = 3 * FORGOTTEN_AT_ONCE_MAX as u64;
        let mut mids = Mids::default();
        for seq in 1..=count {
            assert_eq!(mids.note(&entry(seq), |_| true), Verdict::First);
        }
        let share = 3 * FORGOTTEN_AT_ONCE_MAX / TABLES;
        assert!(mids.tables.iter().all(|table| table.len() < 2 * share));
        let now = Now {
            mono: Duration::ZERO,
            wall_us: 0,
        };
        for seq in 1..=count {
            mids.trimmed(&entry(seq), now, |_| false);
        }
        let known = |mids: &Mids, seq: u64| {
            let entry = entry(seq);
            mids.get(&entry.room, &entry.mid.unwrap()).is_some()
        };
        mids.expire(2 * MID_KEPT);
        let at_once = FORGOTTEN_AT_ONCE_MAX as u64;
        assert!(!known(&mids, at_once) && known(&mids, at_once + 1));
        mids.expire(2 * MID_KEPT);
        mids.expire(2 * MID_KEPT);
        assert!((1..=count).all(|seq| !known(&mids, seq)));
    }

    /// Goal: what repeats a mid takes no more room than is said, however often it comes, and none when
    /// that is over. Method: one mid is said a thousand times at a node with a disk, memory lets all go.
    #[test]
    fn a_mid_that_is_said_again_and_again_takes_little() {
        let mut mids = Mids {
            archived: true,
            ..Mids::default()
        };
        let of = |seq| {
            let mut again = entry(seq);
            again.mid = Some("m".parse().unwrap());
            again
        };
        let now = Now {
            mono: Duration::ZERO,
            wall_us: 0,
        };
        for seq in 1..=1000 {
            mids.note(&of(seq), |_| true);
            assert!(
                mids.hidden
                    .values()
                    .all(|hidden| hidden.len() <= HIDDEN_MAX)
            );
        }
        for seq in 1..=1000 {
            mids.trimmed(&of(seq), now, |_| false);
        }
        assert_eq!(mids.repeats(&of(1)).count(), HIDDEN_MAX);
        while !mids.trimmed.is_empty() {
            mids.forget_first();
        }
        assert!(mids.hidden.is_empty());
    }
}
