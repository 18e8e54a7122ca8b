//! What links, registries and hellos tell of the other nodes.

use std::collections::BTreeSet;

use super::bounds::BEAT_SOON;
use super::clock::Now;
use super::state::Core;
use crate::model::names::Origin;

impl Core {
    /// The link to a node came up: its first beat has proved who it is.
    pub(crate) fn linked(&mut self, now: Now, origin: Origin) {
        self.look(now);
        self.peers.link(origin, true, now.mono);
        self.beat_due = self.beat_due.min(now.mono + BEAT_SOON);
    }

    /// The link to a node went down.
    pub(crate) fn unlinked(&mut self, now: Now, origin: Origin) {
        self.look(now);
        self.peers.link(origin, false, now.mono);
        self.beat_due = self.beat_due.min(now.mono + BEAT_SOON);
        self.check_ready(now);
        self.check_roll(now);
    }

    /// The registries have answered: these nodes are alive, and joining waits for them.
    pub(crate) fn expect(&mut self, now: Now, origins: BTreeSet<Origin>) {
        self.expected = Some(origins);
        self.check_ready(now);
    }

    /// Registries that answer list these nodes, and no others; `None` if none answers.
    pub(crate) fn listed(&mut self, now: Now, origins: Option<&BTreeSet<Origin>>) {
        self.look(now);
        self.peers.presence.list(origins, now.mono);
    }

    /// A node was said hello to: it is there, or nobody listens at its HTTP, or another node does. That
    /// there was no answer tells nothing, and is not said here.
    pub(crate) fn greeted(&mut self, now: Now, origin: Origin, there: bool) {
        self.look(now);
        self.peers.presence.greeted(origin, there);
        self.check_ready(now);
    }
}
