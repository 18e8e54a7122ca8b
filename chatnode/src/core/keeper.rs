//! What a keeper has: a broker that confirms durably what it is given, and so is one more copy.
//!
//! It has no queue here. The node's own log is what waits for it, and one number tells how far it has that.
//! One batch is under way at a time; whatever was said meanwhile is the next. While the keeper is away
//! nothing grows, and what has left memory when it is back it never gets: nobody was told that it has that.

use std::collections::VecDeque;
use std::sync::Arc;

use super::copies::{Kept, OTHERS_WAITING_MAX};
use super::rules;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin};

/// Others' entries that are known to be kept, of those that were asked for.
pub(super) const OTHERS_KEPT_MAX: usize = 1024;

/// How a keeper is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeeperStatus {
    /// Whether it is there.
    pub(crate) is_up: bool,
    /// Whether what it confirms counts as a copy.
    pub(crate) counts: bool,
    /// This node's own messages that it has not confirmed yet.
    pub(crate) behind: u64,
    /// Those that it will never get, since they had left memory.
    pub(crate) skipped: u64,
}

/// What is given to a keeper at once: consecutive entries of each origin.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeeperBatch {
    /// By which its outcome is known.
    pub(crate) number: u64,
    /// What.
    pub(crate) entries: Vec<Arc<Entry>>,
}

/// A batch under way: through which own number, and which entries of others.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) through: u64,
    pub(super) others: Vec<EntryId>,
}

/// What a keeper has, and what it is given next.
#[derive(Debug)]
pub(super) struct Keeping {
    pub(super) is_up: bool,
    /// Until it is known: a client that asked for copies waits.
    pub(super) counts: bool,
    pub(super) flight: Option<Flight>,
    /// Batches so far.
    pub(super) batches: u64,
    /// What it has of this node's own log.
    pub(super) own: Kept,
    pub(super) skipped: u64,
    /// Entries of others that it is to have, since a client waits for that.
    pub(super) asked: VecDeque<EntryId>,
    pub(super) others: VecDeque<EntryId>,
}

impl Keeping {
    pub(super) fn new() -> Self {
        Self {
            is_up: false,
            counts: true,
            flight: None,
            batches: 0,
            own: Kept::default(),
            skipped: 0,
            asked: VecDeque::new(),
            others: VecDeque::new(),
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.is_up && self.flight.is_none()
    }

    /// What it has of the own log, if that counts as a copy.
    pub(super) fn counted(&self) -> Option<Kept> {
        self.counts.then_some(self.own)
    }

    pub(super) fn has(&self, id: EntryId, me: Origin) -> bool {
        let is_kept = match id.origin == me {
            true => self.own.has(id.seq),
            false => self.others.contains(&id),
        };
        rules::is_kept(is_kept) && self.counts
    }

    /// Somebody waits for it to have this, which another node said.
    pub(super) fn ask(&mut self, id: EntryId) {
        let is_known = self.asked.contains(&id) || self.others.contains(&id);
        if !is_known && self.asked.len() < OTHERS_WAITING_MAX {
            self.asked.push_back(id);
        }
    }
}
