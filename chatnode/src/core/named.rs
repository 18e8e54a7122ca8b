//! What a client that comes back names of what it was shown elsewhere: the mids of messages that no
//! node holds any more.
//!
//! A node may show a message and be killed before any other has it; then its sender, who got no reply,
//! says it again elsewhere, under another id. Only who saw the first knows that it is the same, by its
//! mid. So a node that lacks what a client says to have seen asks it for those mids, and keeps them
//! beside the client's subscription while a retry may still come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, RoomName};

/// Mids that a client may name for one room, or one pattern; one that was shown more of what nobody has starts anew.
const NAMED_MIDS_MAX: usize = 10_000;
/// Bytes of named mids that a node keeps for all its clients; beyond, a client that would name more
/// starts anew.
const NAMED_BYTES_MAX: usize = 32 << 20;
/// What a mid takes in memory beside its letters, about.
const OVERHEAD_BYTES: usize = 64;

/// How much of [`NAMED_BYTES_MAX`] is taken. Cheap to clone: all clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamedBudget(Arc<AtomicUsize>);

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
struct Share {
    budget: NamedBudget,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// It is too much: nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more mids than are kept: join without since")]
pub(crate) struct TooManyNamed;

/// Mids of messages that a client was shown.
#[derive(Debug, Default)]
pub(crate) struct Mids {
    /// Each with the room where it was shown.
    mids: BTreeSet<(RoomName, Mid)>,
    share: Option<Share>,
    /// When no retry of them counts any more.
    until: Duration,
}

impl Mids {
    /// Adds those of a room that are new, which mean something until then.
    ///
    /// # Errors
    /// [`TooManyNamed`].
    pub(crate) fn add(
        &mut self,
        room: &RoomName,
        mids: impl IntoIterator<Item = Mid>,
        budget: &NamedBudget,
        until: Duration,
    ) -> Result<(), TooManyNamed> {
        let mids = mids.into_iter().map(|mid| (room.clone(), mid));
        let mids: BTreeSet<_> = mids.filter(|named| !self.mids.contains(named)).collect();
        if mids.is_empty() {
            return Ok(());
        }
        let bytes: usize = mids
            .iter()
            .map(|(_, mid)| mid.as_str().len() + OVERHEAD_BYTES)
            .sum();
        let taken = budget.0.fetch_add(bytes, Ordering::Relaxed);
        let mut share = Share {
            budget: budget.clone(),
            bytes,
        };
        if taken + bytes > NAMED_BYTES_MAX || self.mids.len() + mids.len() > NAMED_MIDS_MAX {
            return Err(TooManyNamed);
        }
        // One share has it all: this one, and what was taken before.
        if let Some(before) = &mut self.share {
            share.bytes += std::mem::take(&mut before.bytes);
        }
        self.share = Some(share);
        self.until = self.until.max(until);
        self.mids.extend(mids);
        Ok(())
    }

    /// Whether that of an entry is among them.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        let mut of = self.of(entry);
        of.any(|named| self.mids.contains(&named))
    }

    /// Whether that of an entry is among them; it is no longer then.
    pub(super) fn take(&mut self, entry: &Entry) -> bool {
        let of = self.of(entry).next();
        of.is_some_and(|named| self.mids.remove(&named))
    }

    /// As what an entry would be among them, if it may.
    fn of(&self, entry: &Entry) -> impl Iterator<Item = (RoomName, Mid)> + use<> {
        let mid = entry.mid.as_ref().filter(|_| !self.is_empty());
        let named = mid.map(|mid| (entry.room.clone(), mid.clone()));
        named.into_iter()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.mids.is_empty()
    }

    /// Keeps those of which this holds.
    pub(super) fn retain(&mut self, mut holds: impl FnMut(&RoomName, &Mid) -> bool) {
        self.mids.retain(|(room, mid)| holds(room, mid));
    }

    /// Forgets all when their time is over.
    pub(crate) fn expire(&mut self, now: Duration) {
        if now >= self.until {
            *self = Self::default();
        }
    }
}

/// What a client names.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Mids of messages that it was shown.
    pub(crate) mids: Mids,
    /// By origin, the number behind which it has named all that it was shown. `None`: it names no
    /// mids, whatever is asked.
    pub(crate) behind: Option<Vec<EntryId>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lobby() -> RoomName {
        "lobby".parse().unwrap()
    }

    fn mids(count: usize) -> Vec<Mid> {
        (0..count)
            .map(|n| format!("m{n}").parse().unwrap())
            .collect()
    }

    #[test]
    fn what_was_taken_of_the_budget_is_given_back() {
        let budget = NamedBudget::default();
        let taken = |budget: &NamedBudget| budget.0.load(Ordering::Relaxed);
        let mut named = Mids::default();
        let minute = Duration::from_secs(60);
        named.add(&lobby(), mids(100), &budget, minute).unwrap();
        assert!(taken(&budget) > 100 * OVERHEAD_BYTES);
        let before = taken(&budget);
        let again = mids(100).into_iter().chain(mids(100));
        named.add(&lobby(), again, &budget, Duration::MAX).unwrap();
        assert_eq!(taken(&budget), before, "what is known costs nothing");
        let more = named.add(&lobby(), mids(NAMED_MIDS_MAX + 1), &budget, minute);
        assert_eq!((more, named.mids.len()), (Err(TooManyNamed), 100));
        named.expire(minute - Duration::from_nanos(1));
        assert!(named.mids.contains(&(lobby(), "m7".parse().unwrap())));
        named.expire(minute);
        assert_eq!((named.mids.len(), taken(&budget)), (0, 0));
    }

    #[test]
    fn many_clients_share_one_budget() {
        let budget = NamedBudget::default();
        let each = || {
            let mut named = Mids::default();
            let added = named.add(&lobby(), mids(NAMED_MIDS_MAX), &budget, Duration::MAX);
            added.map(|()| named)
        };
        let taken: Vec<_> = std::iter::from_fn(|| each().ok()).collect();
        assert!((40..60).contains(&taken.len()), "{}", taken.len());
        drop(taken);
        assert!(each().is_ok());
    }
}
