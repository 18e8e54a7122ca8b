//! What memory has, and has let go of, of some rooms together: those of a pattern.
//!
//! Of one room all is at hand. For a pattern the rooms that it has are found by the order of their names,
//! and where little lies beyond a position that is looked at, and not the rooms.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::shelf::{BySeq, Shelf};
use super::{MemoryStore, Room};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName};
use crate::model::pattern::Scope;

/// So many entries of a log are looked at one by one; where more lie beyond a position, the rooms are.
const LOOKED_AT_MAX: u64 = 512;

/// A store as far as it is of these rooms.
#[derive(Debug)]
pub(in crate::core) struct View<'a> {
    store: &'a MemoryStore,
    scope: &'a Scope,
    rooms: OnceCell<Rooms<'a>>,
}

/// What the rooms of a pattern have together.
#[derive(Debug, Default)]
struct Rooms<'a> {
    shown: BTreeMap<Origin, Vec<&'a Shelf<BySeq>>>,
    /// The last number of each origin that was trimmed in one of them.
    trimmed: BTreeMap<Origin, u64>,
    /// Whether something may have been trimmed of which that does not know,
    forgetful: bool,
    /// of origins of which nothing is kept.
    forgot_spent: bool,
}

impl<'a> Rooms<'a> {
    fn add(&mut self, room: &'a Room) {
        for (origin, shown) in &room.shown {
            self.shown.entry(*origin).or_default().push(shown);
        }
        for (origin, seq) in &room.trimmed {
            let trimmed = self.trimmed.entry(*origin).or_default();
            *trimmed = (*trimmed).max(*seq);
        }
        self.forgetful |= room.forgetful;
        self.forgot_spent |= room.forgot_spent;
    }
}

impl MemoryStore {
    /// What there is of these rooms.
    pub(in crate::core) fn view<'a>(&'a self, scope: &'a Scope) -> View<'a> {
        View {
            store: self,
            scope,
            rooms: OnceCell::new(),
        }
    }

    /// Rooms that begin so, by name.
    fn named<'a>(&'a self, beginning: &'a str) -> impl Iterator<Item = &'a RoomName> {
        let from = (Bound::Included(beginning), Bound::Unbounded);
        let names = self.names.range::<str, _>(from);
        names.take_while(move |name| name.as_str().starts_with(beginning))
    }
}

impl<'a> View<'a> {
    fn rooms(&self) -> &Rooms<'a> {
        self.rooms.get_or_init(|| {
            let mut rooms = Rooms::default();
            let names = self.store.named(self.scope.rooms.beginning());
            for name in names.filter(|name| self.scope.has(name)) {
                rooms.add(&self.store.rooms[name]);
            }
            rooms
        })
    }

    /// Entries of one origin that are shown in these rooms and lie beyond a number; of one room, ascending.
    pub(in crate::core) fn shown_beyond(
        &self,
        after: EntryId,
    ) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + '_> {
        if let Some(room) = self.scope.room() {
            return Box::new(self.store.shown_beyond(room, after));
        }
        self.shown_in(after, LOOKED_AT_MAX)
    }

    /// The same of the rooms of a pattern, in no order; of a log so many entries are looked at.
    pub(in crate::core) fn shown_in(
        &self,
        after: EntryId,
        most: u64,
    ) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + '_> {
        let Some(log) = self.store.logs.get(&after.origin) else {
            return Box::new(std::iter::empty());
        };
        let last = log.last().map_or(0, |entry| entry.seq);
        if last.saturating_sub(after.seq) <= most {
            let of_rooms =
                |entry: &&Arc<Entry>| self.scope.has(&entry.room) && self.store.is_shown(entry);
            return Box::new(log.beyond(after.seq).filter(of_rooms));
        }
        let shown = self.rooms().shown.get(&after.origin);
        let shown = shown.into_iter().flatten();
        Box::new(shown.flat_map(move |shown| shown.beyond(after.seq)))
    }

    /// Through which number these rooms may have lost something of an origin. All beyond that is here.
    pub(in crate::core) fn let_go(&self, origin: Origin) -> u64 {
        if let Some(room) = self.scope.room() {
            return self.store.let_go(room, origin);
        }
        let rooms = self.rooms();
        let spent = !self.store.logs.contains_key(&origin);
        // A room that was forgotten may have been one of these.
        let unsure = rooms.forgetful || self.store.has_forgotten || (rooms.forgot_spent && spent);
        if unsure {
            return u64::MAX;
        }
        let trimmed = rooms.trimmed.get(&origin).copied().unwrap_or_default();
        trimmed.max(self.store.unknown.get(&origin).copied().unwrap_or_default())
    }

    /// Whether something of one origin beyond a number was trimmed in these rooms, or may have been.
    pub(in crate::core) fn has_trimmed(&self, after: EntryId) -> bool {
        self.let_go(after.origin) > after.seq
    }
}
