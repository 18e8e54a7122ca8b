//! What this node knows of the others: their beats, and whether it hears them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::names::Origin;
use crate::bus::frame::Beat;

/// A node that said nothing for so long is dead: its link is torn down, its members leave (P9).
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Nobody hears an origin for so long: it is gone, and what nobody holds of it is lost. Longer
/// than a beat, so that the beats which say that nobody hears it are newer than its death.
pub const GONE_AFTER: Duration = Duration::from_millis(1500);

/// What is known of another node.
#[derive(Debug, Default)]
pub struct Peer {
    /// Whether its link is up.
    pub linked: bool,
    /// When the link came up or went down.
    pub linked_since: Duration,
    /// When its last beat came; `None` before the first.
    pub beat_at: Option<Duration>,
    /// Its display name.
    pub name: String,
    /// Where its HTTP is.
    pub http: String,
    /// How old its last beat was when it came, by the two wall clocks. Microseconds.
    pub lag_us: u64,
    /// Whether it takes clients.
    pub ready: bool,
    /// What it holds of each origin, but for holes.
    pub position: BTreeMap<Origin, u64>,
    /// Of origins in whose log it has holes: what it holds before the first.
    pub solid: BTreeMap<Origin, u64>,
    /// Which origins it hears.
    pub hears: Vec<Origin>,
}

impl Peer {
    /// The number through which it holds all of an origin's log.
    pub fn solid(&self, origin: Origin) -> u64 {
        let position = self.position.get(&origin).copied().unwrap_or_default();
        let solid = self.solid.get(&origin).copied();
        solid.map_or(position, |solid| solid.min(position))
    }
}

/// The other nodes.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<Origin, Peer>,
}

impl Peers {
    /// What is known of a node.
    pub fn get(&self, origin: Origin) -> Option<&Peer> {
        self.peers.get(&origin)
    }

    /// All that are known.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, &Peer)> {
        self.peers.iter().map(|(origin, peer)| (*origin, peer))
    }

    /// Those that this node hears, and that have beaten since it does.
    pub fn heard(&self) -> impl Iterator<Item = (Origin, &Peer)> {
        self.iter()
            .filter(|(_, peer)| peer.linked && peer.beat_at.is_some())
    }

    /// Whether this node hears an origin.
    pub fn hears(&self, origin: Origin) -> bool {
        self.peers.get(&origin).is_some_and(|peer| peer.linked)
    }

    /// The last number of an origin that a node has shown to hold.
    pub fn position(&self, peer: Origin, origin: Origin) -> u64 {
        let peer = self.peers.get(&peer);
        let position = peer.and_then(|peer| peer.position.get(&origin));
        position.copied().unwrap_or_default()
    }

    /// The link to a node came up or went down.
    pub fn link(&mut self, origin: Origin, linked: bool, now: Duration) {
        let peer = self.peers.entry(origin).or_default();
        peer.linked = linked;
        peer.linked_since = now;
        if linked {
            peer.beat_at = None;
        }
    }

    /// A beat came.
    pub fn beat(&mut self, beat: &Beat, now: Duration, wall_us: u64) {
        let peer = self.peers.entry(beat.origin).or_default();
        peer.beat_at = Some(now);
        peer.name.clone_from(&beat.name);
        peer.http.clone_from(&beat.http);
        peer.lag_us = wall_us.saturating_sub(beat.ts);
        peer.ready = beat.ready;
        self.told(beat);
    }

    /// A node that is known told what it holds, by a beat or because it was asked.
    pub fn told(&mut self, beat: &Beat) {
        let Some(peer) = self.peers.get_mut(&beat.origin) else {
            return;
        };
        peer.position.clear();
        peer.solid.clear();
        for id in &beat.position {
            // An origin in whose log there is a hole is there twice: before it, and in all.
            if let Some(before) = peer.position.insert(id.origin, id.seq) {
                peer.solid.insert(id.origin, before.min(id.seq));
            }
        }
        peer.position.insert(beat.origin, beat.head);
        peer.solid.remove(&beat.origin);
        peer.hears.clone_from(&beat.hears);
    }

    /// A node has shown that it holds all of an origin's log through a number.
    pub fn acknowledge(&mut self, from: Origin, origin: Origin, through: u64) {
        if let Some(peer) = self.peers.get_mut(&from) {
            let held = peer.position.entry(origin).or_default();
            *held = (*held).max(through);
            if let Some(solid) = peer.solid.get_mut(&origin) {
                *solid = (*solid).max(through);
            }
        }
    }

    /// Whether nobody that this node hears has heard an origin for a while.
    pub fn is_gone(&self, origin: Origin, now: Duration) -> bool {
        let ended = match self.peers.get(&origin) {
            Some(peer) if peer.linked => return false,
            Some(peer) => peer.linked_since,
            None => Duration::ZERO,
        };
        let mut others = self.heard().filter(|_| !mutated!(OthersHearingIgnored));
        now >= ended + GONE_AFTER && !others.any(|(_, peer)| peer.hears.contains(&origin))
    }

    /// Forgets nodes that are gone and whose silence was dealt with.
    pub fn forget(&mut self, origin: Origin) {
        self.peers.remove(&origin);
    }
}
