//! Who waits to hear that others hold an entry.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::rules;
use crate::model::names::EntryId;

/// How long a send waits for its copies.
pub(super) const COPIES_WAIT_MAX: Duration = Duration::from_secs(2);
/// Sends that wait at the most; beyond, a send is answered at once with the copies there are.
pub(super) const COPIES_WAITING_MAX: usize = 65_536;

/// Of these, retries that wait for an entry said before.
pub(super) const OTHERS_WAITING_MAX: usize = 256;

/// The number by which whoever waits for the core is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// A send that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    /// Whom to tell.
    pub(super) ticket: Ticket,
    /// For which entry.
    pub(super) id: EntryId,
    /// The entry's timestamp, for the reply.
    pub(super) ts: u64,
    /// How many copies.
    pub(super) need: usize,
    /// When to answer whatever has come.
    pub(super) until: Duration,
}

/// What a keeper has of this node's own log: the numbers behind the one, through the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// What comes before it may have, or not.
    pub(super) after: u64,
    /// The last.
    pub(super) through: u64,
}

impl Kept {
    /// Whether it has this number.
    pub(super) fn has(self, seq: u64) -> bool {
        self.after < seq && seq <= self.through
    }
}

/// Who holds an entry besides its origin, as a reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// How many nodes and keepers.
    pub(crate) copies: usize,
    /// Whether a keeper is among them; `None` without one.
    pub(crate) keeper: Option<bool>,
}

impl Held {
    /// By so many nodes, and by the keeper.
    pub(super) fn by(nodes: usize, keeper: Option<bool>) -> Self {
        Self {
            copies: nodes + usize::from(keeper == Some(true)),
            keeper,
        }
    }

    /// Whether a send that needs so many copies is answered by this. A keeper that counts is one of them.
    pub(super) fn is_enough(self, need: usize, keeper_counts: bool) -> bool {
        let is_kept = !keeper_counts || self.keeper == Some(true);
        self.copies >= need && (is_kept || need == 0)
    }
}

/// Sends that wait. Those for this node's own entries are kept by how many copies they need, in
/// the order of their numbers, so that an acknowledgement touches only what it settles.
#[derive(Debug, Default)]
pub(super) struct Waits {
    own: BTreeMap<usize, VecDeque<Wait>>,
    others: Vec<Wait>,
    count: usize,
}

impl Waits {
    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one; `own` if it is for the newest of this node's own entries. `false` if too many wait.
    pub(super) fn add(&mut self, wait: Wait, own: bool) -> bool {
        if self.count >= COPIES_WAITING_MAX {
            return false;
        }
        if own {
            self.own.entry(wait.need).or_default().push_back(wait);
        } else if self.others.len() < OTHERS_WAITING_MAX {
            self.others.push(wait);
        } else {
            return false;
        }
        self.count += 1;
        true
    }

    /// Takes those that have their copies, or that waited long enough. `acknowledged` is what each
    /// peer holds of this node's log, the most first; `kept` what the keeper has of it, if there is one whose
    /// word counts. `held` tells of any entry.
    pub(super) fn settle(
        &mut self,
        now: Duration,
        acknowledged: &[u64],
        kept: Option<Kept>,
        held: impl Fn(EntryId) -> Held,
        mut settled: impl FnMut(Wait, Held),
    ) {
        let mut count = 0;
        for (need, waits) in &mut self.own {
            // The keeper is one of the copies.
            let nodes = need.saturating_sub(usize::from(kept.is_some()));
            let through = match nodes.checked_sub(1) {
                None => u64::MAX,
                Some(nth) => acknowledged.get(nth).copied().unwrap_or_default(),
            };
            let has_all = |seq: u64| seq <= through && kept.is_none_or(|kept| kept.has(seq));
            let late = |wait: &Wait| rules::is_over(now, wait.until);
            let done = |wait: &mut Wait| has_all(wait.id.seq) || late(wait);
            while let Some(wait) = waits.pop_front_if(done) {
                settled(wait, held(wait.id));
                count += 1;
            }
        }
        self.own.retain(|_, waits| !waits.is_empty());
        self.others.retain(|wait| {
            let held = held(wait.id);
            let done = held.is_enough(wait.need, kept.is_some()) || now >= wait.until;
            if done {
                settled(*wait, held);
                count += 1;
            }
            !done
        });
        self.count -= count;
    }
}
