//! Entries in one order, for a store to which they mostly come at the end and from which they mostly
//! go at the front.
//!
//! A row of pieces of bounded length: either end is at hand, what comes in the middle moves a piece
//! at the most, and an entry takes one word. In a tree it takes four to eight, and a walk from the
//! root each time.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::model::entry::{Entry, Place};

/// Entries of a piece at the most; a full one in the middle is halved.
const PIECE_MAX: usize = 512;

/// By what entries stand in order.
pub(super) trait Order {
    type Key: Ord + Copy;
    fn key(entry: &Entry) -> Self::Key;
}

/// Those of one origin by their number.
#[derive(Debug)]
pub(super) struct BySeq;

/// Those of one room by their place.
#[derive(Debug)]
pub(super) struct ByPlace;

impl Order for BySeq {
    type Key = u64;
    fn key(entry: &Entry) -> u64 {
        entry.seq
    }
}

impl Order for ByPlace {
    type Key = Place;
    fn key(entry: &Entry) -> Place {
        entry.place()
    }
}

/// Entries in an order, each key once.
#[derive(Debug)]
pub(super) struct Shelf<O> {
    /// None of them is empty.
    pieces: VecDeque<VecDeque<Arc<Entry>>>,
    len: usize,
    order: PhantomData<O>,
}

/// Where an entry is, or would be: the piece, and the place in it.
type Spot = (usize, usize);

impl<O> Default for Shelf<O> {
    fn default() -> Self {
        Self {
            pieces: VecDeque::new(),
            len: 0,
            order: PhantomData,
        }
    }
}

impl<O: Order> Shelf<O> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn first(&self) -> Option<&Arc<Entry>> {
        self.pieces.front()?.front()
    }

    pub(super) fn last(&self) -> Option<&Arc<Entry>> {
        self.pieces.back()?.back()
    }

    pub(super) fn get(&self, key: O::Key) -> Option<&Arc<Entry>> {
        self.at(self.find(key).ok()?)
    }

    /// Takes an entry in; instead of the one with its key, if there is one, which is returned.
    pub(super) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let spot = self.find(O::key(&entry));
        if let Ok((piece, index)) = spot {
            return Some(std::mem::replace(&mut self.pieces[piece][index], entry));
        }
        self.len += 1;
        match spot {
            Err((piece, index)) if piece < self.pieces.len() => {
                let full = &mut self.pieces[piece];
                full.insert(index, entry);
                if full.len() > PIECE_MAX {
                    let half = full.split_off(PIECE_MAX / 2);
                    self.pieces.insert(piece + 1, half);
                }
            }
            _ => match self.pieces.back_mut() {
                Some(piece) if piece.len() < PIECE_MAX => piece.push_back(entry),
                _ => self.pieces.push_back(VecDeque::from([entry])),
            },
        }
        None
    }

    pub(super) fn remove(&mut self, key: O::Key) -> Option<Arc<Entry>> {
        self.take(self.find(key).ok()?)
    }

    pub(super) fn pop_first(&mut self) -> Option<Arc<Entry>> {
        self.take((0, 0))
    }

    /// Those beyond a key, ascending.
    pub(super) fn beyond(&self, key: O::Key) -> impl Iterator<Item = &Arc<Entry>> + use<'_, O> {
        let (piece, index) = match self.find(key) {
            Ok((piece, index)) => (piece, index + 1),
            Err(spot) => spot,
        };
        let rest = self.pieces.get(piece).map(|piece| piece.range(index..));
        let later = self.pieces.iter().skip(piece + 1).flatten();
        rest.into_iter().flatten().chain(later)
    }

    /// Those before a key, or all, the last first.
    pub(super) fn before(
        &self,
        key: Option<O::Key>,
    ) -> impl Iterator<Item = &Arc<Entry>> + use<'_, O> {
        let (piece, index) = match key.map(|key| self.find(key)) {
            Some(Ok(spot) | Err(spot)) => spot,
            None => (self.pieces.len(), 0),
        };
        let rest = self.pieces.get(piece).map(|piece| piece.range(..index));
        let earlier = self.pieces.range(..piece).rev();
        let rest = rest.into_iter().flat_map(Iterator::rev);
        rest.chain(earlier.flat_map(|piece| piece.iter().rev()))
    }

    fn at(&self, (piece, index): Spot) -> Option<&Arc<Entry>> {
        self.pieces.get(piece)?.get(index)
    }

    fn take(&mut self, (piece, index): Spot) -> Option<Arc<Entry>> {
        let from = self.pieces.get_mut(piece)?;
        let taken = from.remove(index)?;
        self.len -= 1;
        if from.is_empty() {
            self.pieces.remove(piece);
        }
        Some(taken)
    }

    /// Where the entry with this key is, or would be: in the piece whose last is not before it.
    fn find(&self, key: O::Key) -> Result<Spot, Spot> {
        // The ends are asked for most, and a search would look at entries all over memory.
        if self.last().is_none_or(|last| O::key(last) < key) {
            return Err((self.pieces.len(), 0));
        }
        match self.first().map(|first| O::key(first).cmp(&key)) {
            Some(Ordering::Equal) => return Ok((0, 0)),
            Some(Ordering::Greater) => return Err((0, 0)),
            Some(Ordering::Less) | None => {}
        }
        let before = |piece: &VecDeque<Arc<Entry>>| {
            let last = piece.back();
            last.is_some_and(|last| O::key(last) < key)
        };
        let piece = self.pieces.partition_point(before);
        let Some(found) = self.pieces.get(piece) else {
            return Err((piece, 0));
        };
        match found.binary_search_by(|entry| O::key(entry).cmp(&key)) {
            Ok(index) => Ok((piece, index)),
            Err(index) => Err((piece, index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::names::EntryId;

    fn entry(seq: u64) -> Arc<Entry> {
        let id = EntryId {
            origin: "aaaaaaaaaa".parse().unwrap(),
            seq,
        };
        let name = "ada".parse().unwrap();
        let room = "lobby".parse().unwrap();
        Arc::new(Entry::new(id, seq, room, None, &name, "hello"))
    }

    fn seqs<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Vec<u64> {
        entries.map(|entry| entry.seq).collect()
    }

    /// Goal: entries that come in any order and go from anywhere stand in order, through pieces that
    /// are filled, halved and emptied. Method: many at random in a narrow range, so that all of that
    /// happens, compared with a tree.
    #[test]
    fn a_shelf_is_an_ordered_map() {
        let steps = prop::collection::vec((0u8..8, 0u64..3000), 0..6000);
        let config = ProptestConfig::with_cases(16);
        proptest!(config, |(steps in steps, probe in 0u64..3000)| {
            let mut shelf: Shelf<BySeq> = Shelf::default();
            let mut tree = BTreeMap::new();
            for (what, seq) in steps {
                match what {
                    0 => prop_assert_eq!(
                        shelf.remove(seq).map(|e| e.seq),
                        tree.remove(&seq)
                    ),
                    1 => prop_assert_eq!(
                        shelf.pop_first().map(|e| e.seq),
                        tree.pop_first().map(|(_, seq)| seq)
                    ),
                    _ => prop_assert_eq!(
                        shelf.insert(entry(seq)).map(|e| e.seq),
                        tree.insert(seq, seq)
                    ),
                }
                prop_assert_eq!(shelf.len(), tree.len());
            }
            prop_assert!(shelf.pieces.iter().all(|p| (1..=PIECE_MAX).contains(&p.len())));
            prop_assert_eq!(shelf.first().map(|e| e.seq), tree.keys().next().copied());
            prop_assert_eq!(shelf.last().map(|e| e.seq), tree.keys().last().copied());
            prop_assert_eq!(shelf.get(probe).is_some(), tree.contains_key(&probe));
            let beyond: Vec<u64> = tree.range(probe + 1..).map(|(seq, _)| *seq).collect();
            prop_assert_eq!(seqs(shelf.beyond(probe)), beyond);
            let before: Vec<u64> = tree.range(..probe).rev().map(|(seq, _)| *seq).collect();
            prop_assert_eq!(seqs(shelf.before(Some(probe))), before);
            prop_assert_eq!(seqs(shelf.before(None)), tree.into_keys().rev().collect::<Vec<_>>());
        });
    }
}
