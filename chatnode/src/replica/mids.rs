//! Which client ids were seen: what makes a retry no second message.
//!
//! Of the entries that are kept, the one that stands first in the order is shown; the others with
//! the same mid are not. So nodes that keep the same entries show the same ones, in whatever order
//! these came. A mid outlives its entries for some minutes, lest a late retry be delivered anew.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Now;
use super::entry::{Entry, Place};
use super::names::{EntryId, Mid, RoomName};

/// How long after its entry was said a mid is known at least, though the entry was trimmed.
pub(crate) const MID_KEPT: Duration = Duration::from_secs(5 * 60);
/// Mids of trimmed entries that are known at the most; the oldest is forgotten first.
pub(crate) const MIDS_TRIMMED_MAX: usize = 500_000;

/// A mid means something in its room only.
type Key = (RoomName, Mid);

/// What is known of a mid.
#[derive(Debug, Clone)]
struct Use {
    /// Where the entry stands that is shown, or that was until it was trimmed.
    shown: Place,
    id: EntryId,
    /// Set if no entry with this mid is kept: when to forget it.
    forget_at: Option<Duration>,
    /// Other kept entries with the same mid, in order: retries through other nodes.
    hidden: Vec<(Place, EntryId)>,
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

/// The mids of the entries in memory, and of those that were not long ago.
#[derive(Debug, Default)]
pub(super) struct Mids {
    /// What memory has kept no more is on the disk, and shown there.
    pub(super) archived: bool,
    uses: HashMap<Key, Use>,
    trimmed: VecDeque<(Duration, Key)>,
}

fn key(entry: &Entry) -> Option<Key> {
    Some((entry.room.clone(), entry.mid.clone()?))
}

/// How much longer a mid is known whose entry was said then.
fn remaining(ts: u64, now: Now) -> Duration {
    let age = Duration::from_micros(now.wall_us.saturating_sub(ts));
    MID_KEPT.saturating_sub(age)
}

impl Mids {
    /// The entry that a mid stands for: its id and timestamp.
    pub(super) fn get(&self, room: &RoomName, mid: &Mid) -> Option<(EntryId, u64)> {
        let known = self.uses.get(&(room.clone(), mid.clone()));
        known.map(|known| (known.id, known.shown.ts))
    }

    /// Notes an accepted entry.
    pub(super) fn note(&mut self, entry: &Entry) -> Verdict {
        let Some(key) = key(entry) else {
            return Verdict::First;
        };
        let (place, id) = (entry.place(), entry.id());
        let Some(known) = self.uses.get_mut(&key) else {
            let fresh = Use {
                shown: place,
                id,
                forget_at: None,
                hidden: Vec::new(),
            };
            self.uses.insert(key, fresh);
            return Verdict::First;
        };
        if !self.archived && known.forget_at.take().is_some() {
            (known.shown, known.id) = (place, id);
            return Verdict::Outlives;
        }
        if known.id == id || known.hidden.contains(&(place, id)) {
            return Verdict::Repeats;
        }
        if (known.shown <= place) ^ mutated!(LaterShown) {
            let index = known.hidden.partition_point(|other| *other < (place, id));
            known.hidden.insert(index, (place, id));
            return Verdict::Repeats;
        }
        let replaced = (known.shown, known.id);
        let replaced_too = (!mutated!(ReplacedForgotten)).then_some(replaced);
        known.hidden.splice(0..0, replaced_too);
        (known.shown, known.id) = (place, id);
        known.forget_at = None;
        Verdict::Replaces(replaced.0, replaced.1)
    }

    /// Notes the mid of an entry that a disk keeps and memory does not.
    pub(super) fn recall(&mut self, now: Now, room: RoomName, mid: Mid, place: Place, id: EntryId) {
        let at = now.mono + remaining(place.ts, now);
        let key = (room, mid);
        let known = Use {
            shown: place,
            id,
            forget_at: Some(at),
            hidden: Vec::new(),
        };
        self.uses.insert(key.clone(), known);
        self.trimmed.push_back((at, key));
    }

    /// Other entries that said the same as this one.
    pub(super) fn repeats(&self, entry: &Entry) -> impl Iterator<Item = EntryId> {
        let known = key(entry).and_then(|key| self.uses.get(&key));
        known
            .into_iter()
            .flat_map(|known| known.hidden.iter().map(|(_, id)| *id))
    }

    /// Notes that an entry is in memory no more. Returns the one to be shown in its stead: none if
    /// the disk goes on showing it.
    pub(super) fn trimmed(&mut self, entry: &Entry, now: Now) -> Option<EntryId> {
        let key = key(entry)?;
        let known = self.uses.get_mut(&key)?;
        if known.id != entry.id() {
            known.hidden.retain(|(_, id)| *id != entry.id());
            return None;
        }
        if !self.archived && !known.hidden.is_empty() {
            (known.shown, known.id) = known.hidden.remove(0);
            return Some(known.id);
        }
        let remaining = if mutated!(MidTrimmed) {
            Duration::ZERO
        } else {
            remaining(entry.ts, now)
        };
        let at = now.mono + remaining;
        known.forget_at = Some(at);
        self.trimmed.push_back((at, key));
        None
    }

    /// Forgets the mids of trimmed entries that are old enough, or too many.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some((at, _)) = self.trimmed.front() {
            if *at > now && self.trimmed.len() <= MIDS_TRIMMED_MAX {
                break;
            }
            if let Some((at, key)) = self.trimmed.pop_front()
                && self
                    .uses
                    .get(&key)
                    .is_some_and(|known| known.forget_at == Some(at))
            {
                self.uses.remove(&key);
            }
        }
    }
}
