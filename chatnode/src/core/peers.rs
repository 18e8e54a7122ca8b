//! What this node knows of the others: their beats, and whether it hears them.
//!
//! Who is not heard may come back, or is gone: that is decided in [`super::presence`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::log::Span;
use super::news::Beat;
use super::presence::{AWAITED_MAX, Presence};
use super::rules;
use super::time::Told;
use crate::model::names::Origin;

/// What is known of another node.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Whether its link is up.
    pub(super) linked: bool,
    /// When the link came up or went down.
    pub(super) linked_since: Duration,
    /// When its last beat came; `None` before the first.
    pub(super) beat_at: Option<Duration>,
    /// Its display name.
    pub(super) name: String,
    /// Where its HTTP is.
    pub(crate) http: String,
    /// What time it was there, by its last beat.
    pub(super) time: Told,
    /// How old its last beat was when it came, by the two wall clocks. Microseconds.
    pub(crate) lag_us: u64,
    /// Whether it takes clients.
    pub(crate) ready: bool,
    /// What it holds of each origin, but for holes.
    pub(crate) position: BTreeMap<Origin, u64>,
    /// Of origins in whose log it has holes: what it holds before the first.
    solid: BTreeMap<Origin, u64>,
    /// Which origins it hears.
    pub(crate) hears: Vec<Origin>,
}

impl Peer {
    /// The number through which it holds all of an origin's log.
    pub(super) fn solid(&self, origin: Origin) -> u64 {
        let position = self.position.get(&origin).copied().unwrap_or_default();
        let solid = self.solid.get(&origin).copied();
        solid.map_or(position, |solid| solid.min(position))
    }
}

/// The other nodes.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<Origin, Peer>,
    pub(super) presence: Presence,
}

impl Peers {
    /// Nobody is known yet.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            presence: Presence::new(now),
            ..Self::default()
        }
    }

    /// What is known of a node.
    pub(crate) fn get(&self, origin: Origin) -> Option<&Peer> {
        self.peers.get(&origin)
    }

    /// All that are known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Origin, &Peer)> {
        self.peers.iter().map(|(origin, peer)| (*origin, peer))
    }

    /// Those that this node hears, and that have beaten since it does.
    pub(crate) fn heard(&self) -> impl Iterator<Item = (Origin, &Peer)> {
        self.iter()
            .filter(|(_, peer)| peer.linked && peer.beat_at.is_some())
    }

    /// Whether this node hears an origin.
    pub(super) fn hears(&self, origin: Origin) -> bool {
        self.peers.get(&origin).is_some_and(|peer| peer.linked)
    }

    /// The last number of an origin that a node has shown to hold.
    pub(super) fn position(&self, peer: Origin, origin: Origin) -> u64 {
        let peer = self.peers.get(&peer);
        let position = peer.and_then(|peer| peer.position.get(&origin));
        position.copied().unwrap_or_default()
    }

    /// The link to a node came up or went down.
    pub(super) fn link(&mut self, origin: Origin, linked: bool, now: Duration) {
        let peer = self.peers.entry(origin).or_default();
        peer.linked = linked;
        peer.linked_since = now;
        if linked {
            peer.beat_at = None;
            self.presence.greeted(origin, true);
        }
        self.presence.heard(origin, now);
    }

    /// A beat came.
    pub(super) fn beat(&mut self, beat: &Beat, now: Duration, wall_us: u64) {
        let peer = self.peers.entry(beat.origin).or_default();
        peer.beat_at = Some(now);
        peer.name.clone_from(&beat.name);
        peer.http.clone_from(&beat.http);
        peer.lag_us = wall_us.saturating_sub(beat.ts);
        peer.ready = beat.ready;
        self.told(beat, now);
    }

    /// A node that is known told what it holds, by a beat or because it was asked.
    pub(super) fn told(&mut self, beat: &Beat, now: Duration) {
        let Some(peer) = self.peers.get_mut(&beat.origin) else {
            return;
        };
        peer.position.clear();
        peer.solid.clear();
        for id in beat.position.iter().filter(|id| !id.origin.is_mark()) {
            // An origin in whose log there is a hole is there twice: before it, and in all.
            if let Some(before) = peer.position.insert(id.origin, id.seq) {
                peer.solid.insert(id.origin, before.min(id.seq));
            }
        }
        peer.position.insert(beat.origin, beat.head);
        peer.solid.remove(&beat.origin);
        peer.hears.clone_from(&beat.hears);
        for origin in beat.hears.iter().chain([&beat.origin]) {
            self.presence.heard(*origin, now);
        }
    }

    /// A node's beat told what time it is there.
    pub(super) fn told_time(&mut self, origin: Origin, time: Told) {
        if let Some(peer) = self.peers.get_mut(&origin) {
            peer.time = time;
        }
    }

    /// A node has shown that it holds all of an origin's log through a number.
    pub(super) fn acknowledge(&mut self, from: Origin, origin: Origin, through: u64) {
        if let Some(peer) = self.peers.get_mut(&from) {
            let held = peer.position.entry(origin).or_default();
            *held = (*held).max(through);
            if let Some(solid) = peer.solid.get_mut(&origin) {
                *solid = (*solid).max(through);
            }
        }
    }

    /// Those that are heard and say that they hear an origin.
    fn hearers(&self, origin: Origin) -> impl Iterator<Item = &Peer> {
        self.heard()
            .map(|(_, peer)| peer)
            .filter(move |peer| peer.hears.contains(&origin))
    }

    /// Whether an origin is not heard by anybody, and is not waited for any longer.
    pub(super) fn is_gone(&self, origin: Origin, now: Duration) -> bool {
        let heard = self.hears(origin) || self.hearers(origin).next().is_some();
        !heard && self.presence.is_gone(origin, now)
    }

    /// Whether an origin that this node does not hear is not waited for, should nobody who is heard have
    /// these numbers. If somebody hears it, he is to bring them, and is given time: so long as this
    /// node might hear it again itself. If nobody does, it must be gone; but a node that never knew it
    /// need not find out anew what others have found: `trimmed` is whether one of them had the
    /// numbers and let them go.
    pub(super) fn is_given_up(
        &self,
        origin: Origin,
        span: Span,
        trimmed: bool,
        now: Duration,
    ) -> bool {
        let passed = |peer: &Peer| {
            let position = peer.position.get(&origin).copied().unwrap_or_default();
            peer.solid(origin) <= span.after && position >= span.through
        };
        let mut hearers = self.hearers(origin).peekable();
        if hearers.peek().is_some() {
            let over = now >= self.heard_here(origin) + AWAITED_MAX;
            return rules::have_given_up(over && hearers.all(passed));
        }
        let known = !self.presence.was_heard(origin)
            && (trimmed || self.heard().any(|(_, peer)| passed(peer)));
        known || self.is_gone(origin, now)
    }

    /// When this node itself heard another last; if it never did, since when it may have known of it.
    fn heard_here(&self, origin: Origin) -> Duration {
        let known = || self.presence.known_since(origin);
        self.peers
            .get(&origin)
            .map_or_else(known, |peer| peer.linked_since)
    }

    /// Whether a node, other than an origin, is not heard, may come back, and may then have what is
    /// missing of that origin.
    pub(super) fn others_are_awaited(&self, origin: Origin, now: Duration) -> bool {
        let awaited = |peer: Origin| {
            let over = now >= self.heard_here(peer) + AWAITED_MAX;
            // One that is dead brings nothing, whether or not all that it sent has arrived.
            let dead = self.presence.is_absent(peer) || self.is_gone(peer, now);
            peer != origin && !over && !self.hears(peer) && !dead
        };
        let known = self.peers.keys().copied().chain(self.presence.listed());
        rules::is_awaited(known.into_iter().any(awaited))
    }

    /// This node was itself stopped for so long, and could not have heard anybody.
    pub(super) fn excuse(&mut self, stall: Duration) {
        self.presence.excuse(stall);
        for peer in self.peers.values_mut().filter(|peer| !peer.linked) {
            peer.linked_since += stall;
        }
    }

    /// Forgets nodes that are gone and whose silence was dealt with.
    pub(super) fn forget(&mut self, origin: Origin) {
        self.peers.remove(&origin);
        self.presence.forget(origin);
    }
}
