//! Which patterns clients of this node watch, and which of them each room is of.
//!
//! A room is of the patterns whose beginnings its name begins with: one look for each length that there
//! is, however many patterns. What was found is kept for the room's next message, until the patterns
//! change. So a message costs one look into a table, and a change of patterns costs nothing at once:
//!
//! | | time | memory |
//! | --- | --- | --- |
//! | a message | one look | |
//! | … the first of its room since patterns changed | a look for each length, 257 at the most | |
//! | a pattern that comes or goes | two looks | a slot of the table of rooms |
//! | a room that is remembered | | four bytes for each pattern that it is of: 66 at the most |

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::rules;
use crate::model::names::RoomName;
use crate::model::pattern::Pattern;

/// Rooms of which it is remembered at the most which patterns they are of. Beyond, all are forgotten
/// and looked at again.
pub(super) const MATCHED_ROOMS_MAX: usize = 16_384;

/// All patterns that are watched.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    rooms: HashMap<RoomName, u32>,
    beginnings: HashMap<Arc<str>, u32>,
    /// How many beginnings have so many bytes.
    lengths: BTreeMap<usize, usize>,
    /// Changes with the patterns.
    version: u64,
    /// Where in `matched` a room is.
    known: HashMap<RoomName, usize>,
    matched: Vec<Matched>,
}

/// The patterns of a room.
#[derive(Debug)]
struct Matched {
    version: u64,
    slots: Box<[u32]>,
}

impl Patterns {
    /// Whether nobody watches.
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.beginnings.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rooms.len() + self.beginnings.len()
    }

    /// The slot of a pattern.
    pub(super) fn slot(&self, pattern: &Pattern) -> Option<u32> {
        let slot = match pattern {
            Pattern::Room(room) => self.rooms.get(room),
            Pattern::Beginning(beginning) => self.beginnings.get(beginning),
        };
        slot.copied()
    }

    /// All slots.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.rooms.values().chain(self.beginnings.values()).copied()
    }

    /// Somebody begins to watch one that nobody watched.
    pub(super) fn insert(&mut self, pattern: &Pattern, slot: u32) {
        self.version += 1;
        match pattern {
            Pattern::Room(room) => drop(self.rooms.insert(room.clone(), slot)),
            Pattern::Beginning(beginning) => {
                *self.lengths.entry(beginning.len()).or_default() += 1;
                self.beginnings.insert(Arc::clone(beginning), slot);
            }
        }
    }

    /// Nobody watches one any more.
    pub(super) fn remove(&mut self, pattern: &Pattern) {
        self.version += 1;
        match pattern {
            Pattern::Room(room) => drop(self.rooms.remove(room)),
            Pattern::Beginning(beginning) => {
                self.beginnings.remove(beginning);
                if let Some(count) = self.lengths.get_mut(&beginning.len()) {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&beginning.len());
                    }
                }
            }
        }
        if self.is_empty() {
            self.known = HashMap::new();
            self.matched = Vec::new();
        }
    }

    /// The slots of the patterns that a room is of.
    pub(super) fn of(&mut self, room: &RoomName) -> &[u32] {
        let at = match self.known.get(room) {
            Some(at) => *at,
            None => self.remember(room),
        };
        if !rules::is_current(self.matched[at].version, self.version) {
            self.matched[at] = self.look(room);
        }
        &self.matched[at].slots
    }

    fn remember(&mut self, room: &RoomName) -> usize {
        if self.matched.len() >= MATCHED_ROOMS_MAX {
            self.known.clear();
            self.matched.clear();
        }
        let at = self.matched.len();
        self.matched.push(self.look(room));
        self.known.insert(room.clone(), at);
        at
    }

    fn look(&self, room: &RoomName) -> Matched {
        let name = room.as_str();
        let beginnings = self.lengths.range(..=name.len());
        let beginnings = beginnings.filter_map(|(length, _)| name.get(..*length));
        let slots = beginnings.filter_map(|beginning| self.beginnings.get(beginning));
        Matched {
            version: self.version,
            slots: slots.chain(self.rooms.get(room)).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A room is of the patterns that have it, whenever it or they came.
        #[test]
        fn a_room_is_of_the_patterns_that_have_it(
            deeds in prop::collection::vec(
                prop_oneof![
                    "[aé.]{0,3}\\*".prop_map(Ok),
                    "[aé.]{1,3}b".prop_map(Ok),
                    "[aé.]{1,4}b".prop_map(Err),
                ],
                1..60,
            ),
        ) {
            let (mut patterns, mut list): (Patterns, Vec<Pattern>) = Default::default();
            for deed in deeds {
                match deed {
                    // One that is there goes.
                    Ok(pattern) => {
                        let pattern: Pattern = pattern.parse().unwrap();
                        if let Some(at) = list.iter().position(|other| *other == pattern) {
                            prop_assert!(patterns.slot(&pattern).is_some());
                            patterns.remove(&pattern);
                            list.remove(at);
                        } else {
                            let slot = u32::try_from(pattern.to_string().len()).unwrap();
                            patterns.insert(&pattern, slot);
                            list.push(pattern);
                        }
                    }
                    Err(room) => {
                        let room: RoomName = room.parse().unwrap();
                        let having = list.iter().filter(|pattern| pattern.has(&room));
                        let slot = |pattern: &Pattern| u32::try_from(pattern.to_string().len());
                        let mut wanted: Vec<_> = having.map(|it| slot(it).unwrap()).collect();
                        let mut found = patterns.of(&room).to_vec();
                        wanted.sort_unstable();
                        found.sort_unstable();
                        prop_assert_eq!(found, wanted);
                    }
                }
                prop_assert_eq!(patterns.len(), list.len());
            }
        }
    }

    #[test]
    fn so_many_rooms_are_remembered_and_none_when_nobody_watches() {
        let mut patterns = Patterns::default();
        let all = "*".parse().unwrap();
        patterns.insert(&all, 7);
        for n in 0..=MATCHED_ROOMS_MAX {
            assert_eq!(patterns.of(&format!("room{n}").parse().unwrap()), [7]);
            assert!(patterns.known.len() <= MATCHED_ROOMS_MAX);
        }
        patterns.remove(&all);
        assert_eq!((patterns.known.len(), patterns.lengths.len()), (0, 0));
        assert_eq!(patterns.matched.capacity(), 0);
    }
}
