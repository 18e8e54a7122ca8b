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
    /// peer holds of this node's log, the most first.
    pub(super) fn settle(
        &mut self,
        now: Duration,
        acknowledged: &[u64],
        copies: impl Fn(EntryId) -> usize,
        mut settled: impl FnMut(Wait, usize),
    ) {
        let mut count = 0;
        for (need, waits) in &mut self.own {
            let through = need.checked_sub(1).and_then(|nth| acknowledged.get(nth));
            let through = through.copied().unwrap_or_default();
            let late = |wait: &Wait| rules::is_over(now, wait.until);
            let done = |wait: &mut Wait| wait.id.seq <= through || late(wait);
            while let Some(wait) = waits.pop_front_if(done) {
                let copies = acknowledged.partition_point(|held| *held >= wait.id.seq);
                settled(wait, copies);
                count += 1;
            }
        }
        self.own.retain(|_, waits| !waits.is_empty());
        self.others.retain(|wait| {
            let copies = copies(wait.id);
            let done = copies >= wait.need || now >= wait.until;
            if done {
                settled(*wait, copies);
                count += 1;
            }
            !done
        });
        self.count -= count;
    }
}
