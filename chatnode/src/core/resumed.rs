//! What a client gets when it enters a room, and what it has seen ahead of this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::log::Span;
use super::named::Mids;
use super::rules;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin};
use crate::model::pattern::Pattern;

/// What a client has seen of a room, or of those of a pattern, before this node: not to be delivered to it.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// By origin, the highest number.
    pub(crate) origins: BTreeMap<Origin, u64>,
    /// Mids of messages that this node does not know: what it may get is a retry of one.
    pub(crate) mids: Mids,
    /// What it has seen besides of some of these rooms, which it hears by the same subscription.
    pub(crate) within: Vec<(Pattern, Ahead)>,
}

impl Ahead {
    /// Whether all has passed.
    pub(crate) fn is_empty(&self) -> bool {
        self.origins.is_empty() && self.mids.is_empty() && self.within.is_empty()
    }

    /// Forgets what was named whose time is over.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.mids.expire(now);
        self.within.retain_mut(|(_, ahead)| {
            ahead.expire(now);
            !ahead.is_empty()
        });
    }

    /// Whether the client has seen an entry that is delivered. What has passed is forgotten: when the
    /// node lacked nothing of the origin through `whole`, for a hole before may be filled later.
    pub(crate) fn has_seen(&mut self, entry: &Entry, whole: u64) -> bool {
        let mut seen = false;
        self.within.retain_mut(|(rooms, ahead)| {
            seen |= rooms.has(&entry.room) && ahead.has_seen(entry, whole);
            !ahead.is_empty()
        });
        self.has_seen_itself(entry, whole) || seen
    }

    fn has_seen_itself(&mut self, entry: &Entry, whole: u64) -> bool {
        let by_mid = self.mids.take(entry);
        let by_mid = rules::is_named(by_mid);
        let Some(through) = self.origins.get(&entry.origin).copied() else {
            return by_mid;
        };
        if whole >= through && entry.seq >= through {
            self.origins.remove(&entry.origin);
        }
        by_mid || entry.seq <= through
    }
}

/// What a client gets when it enters a room.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    /// Whether `entries` is all that the client has not seen.
    pub(crate) recovered: bool,
    /// The position from which the live stream goes on, for this client.
    pub(crate) at: Vec<EntryId>,
    /// In the one order.
    pub(crate) entries: Vec<Arc<Entry>>,
    /// What the client has seen before this node.
    pub(crate) ahead: Ahead,
    /// Numbers beyond the client's position that nobody has.
    pub(crate) gaps: Vec<(Origin, Span)>,
    /// If there are any, this is no answer yet: the client has to name the mids of all that it was
    /// shown behind these, for nobody has it.
    pub(crate) unnamed: Vec<EntryId>,
}
