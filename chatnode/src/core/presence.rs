//! Who is not there yet, and who is gone.
//!
//! Silence tells little: a wire may lose, stall or be cut for a while, and a process may be stopped.
//! So a node that nobody hears is **not there yet** for half a minute after it was last heard, and
//! what only it may have is waited for. It is **gone** before that if there is proof:
//!
//! - nobody listens at its HTTP, or another start of a node does: this node says hello to it and is
//!   refused, or answered by somebody else;
//! - or nobody has heard it for a lease, and no registry that answers lists it: it does not renew.
//!   Registries that do not answer prove nothing, nor does one that has just come back, until
//!   every living node had the time to be listed there again.
//!
//! A node that this one has never heard is known since a registry listed it, or else since this
//! node started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bounds::ORIGINS_MAX;
use super::rules;
use crate::model::names::Origin;

/// A node that nobody hears is waited for so long after it was last heard.
pub(crate) const AWAITED_MAX: Duration = Duration::from_secs(30);
/// A lease: a node that nobody has heard for so long, and that no registry lists, is gone.
pub(super) const UNHEARD_MAX: Duration = Duration::from_secs(6);
/// A registry that has begun to answer, or that lists a node no more, is believed that the node is not
/// there after so long: one that came back empty knows all nodes again by then.
const UNLISTED_MIN: Duration = Duration::from_secs(3);
/// Whatever proves that a node is gone, it is so no sooner than this after it was last heard. Longer
/// than a beat: what was under way when it died has arrived, and the beats which say that nobody
/// hears it are newer than its death.
pub(super) const SETTLED_AFTER: Duration = Duration::from_millis(1500);

/// When nodes were heard and listed, and who is proven to be gone.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// When this node started, whether or not it was stopped since; and as if it had not been.
    born: Duration,
    started: Duration,
    heard: BTreeMap<Origin, Duration>,
    /// Since when registries answer.
    answered: Option<Duration>,
    /// Who is listed, since when.
    listed: BTreeMap<Origin, Duration>,
    /// Who was, and is not any more, since when.
    dropped: BTreeMap<Origin, Duration>,
    /// At whose HTTP nobody listens, or somebody else.
    absent: BTreeSet<Origin>,
}

impl Presence {
    /// Nobody is known.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            born: now,
            started: now,
            ..Self::default()
        }
    }

    /// Somebody hears a node.
    pub(super) fn heard(&mut self, origin: Origin, now: Duration) {
        if self.heard.len() >= ORIGINS_MAX && !self.heard.contains_key(&origin) {
            self.heard.retain(|_, at| now < *at + AWAITED_MAX);
            if self.heard.len() >= ORIGINS_MAX {
                return;
            }
        }
        self.heard.insert(origin, now);
    }

    /// Registries that answer list these and no others; `None` if none answers.
    pub(super) fn list(&mut self, origins: Option<&BTreeSet<Origin>>, now: Duration) {
        let Some(origins) = origins else {
            self.answered = None;
            self.dropped.clear();
            return;
        };
        self.answered.get_or_insert(now);
        let before = std::mem::take(&mut self.listed);
        self.dropped
            .retain(|origin, at| now < *at + UNLISTED_MIN && !origins.contains(origin));
        for origin in before.keys().filter(|origin| !origins.contains(*origin)) {
            self.dropped.insert(*origin, now);
        }
        for origin in origins.iter().take(ORIGINS_MAX) {
            let since = before.get(origin).copied().unwrap_or(now);
            self.listed.insert(*origin, since);
        }
    }

    /// A node was said hello to: it is there, or nobody is, or somebody else.
    pub(super) fn greeted(&mut self, origin: Origin, there: bool) {
        if there {
            self.absent.remove(&origin);
            return;
        }
        if self.absent.len() >= ORIGINS_MAX {
            let (listed, heard) = (&self.listed, &self.heard);
            let known = |it: &Origin| listed.contains_key(it) || heard.contains_key(it);
            self.absent.retain(known);
        }
        if self.absent.len() < ORIGINS_MAX {
            self.absent.insert(origin);
        }
    }

    /// Whether nobody listens at a node's HTTP.
    pub(super) fn is_absent(&self, origin: Origin) -> bool {
        self.absent.contains(&origin)
    }

    /// Whom the registries list.
    pub(super) fn listed(&self) -> impl Iterator<Item = Origin> {
        self.listed.keys().copied()
    }

    /// Whether somebody has heard a node since this one started.
    pub(super) fn was_heard(&self, origin: Origin) -> bool {
        self.heard.contains_key(&origin)
    }

    /// When a node that nobody has heard may have come to be known here.
    pub(super) fn known_since(&self, origin: Origin) -> Duration {
        let listed = self.listed.get(&origin).copied();
        listed.unwrap_or(self.started)
    }

    /// Whether a node that nobody hears is gone, or is not waited for any longer.
    pub(super) fn is_gone(&self, origin: Origin, now: Duration) -> bool {
        let heard = self.heard.get(&origin).copied();
        let since = heard.unwrap_or_else(|| self.known_since(origin));
        let settled = heard.is_none_or(|at| now >= at + SETTLED_AFTER);
        let unheard = heard.or_else(|| self.listed.get(&origin).copied());
        let unheard = unheard.unwrap_or(self.born) + UNHEARD_MAX;
        let unlisted = now >= unheard && self.is_unlisted(origin, now);
        let over = now >= since + AWAITED_MAX;
        rules::is_gone(settled, self.absent.contains(&origin), unlisted, over)
    }

    fn is_unlisted(&self, origin: Origin, now: Duration) -> bool {
        let dropped = self.dropped.get(&origin).copied();
        self.answered.is_some_and(|answered| {
            let since = dropped.map_or(answered, |dropped| dropped.max(answered));
            !self.listed.contains_key(&origin) && now >= since + UNLISTED_MIN
        })
    }

    /// This node was itself stopped for so long, and could not have heard anybody.
    pub(super) fn excuse(&mut self, stall: Duration) {
        let listed = self.listed.values_mut().chain(self.dropped.values_mut());
        let since = self.answered.iter_mut().chain([&mut self.started]);
        for at in self.heard.values_mut().chain(listed).chain(since) {
            *at += stall;
        }
    }

    /// A node is of no interest any more.
    pub(super) fn forget(&mut self, origin: Origin) {
        self.heard.remove(&origin);
        if !self.listed.contains_key(&origin) {
            self.absent.remove(&origin);
        }
    }
}
