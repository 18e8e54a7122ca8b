//! Joining: when a node takes clients, and what it lacks if it does so without having all.

use std::collections::BTreeMap;

use super::bounds::{JOIN_MAX, ORIGINS_MAX};
use super::clock::Now;
use super::log::{Log, SEQ_MAX, Span};
use super::output::Output;
use super::peers::Peer;
use super::rules;
use super::state::Core;
use crate::model::names::Origin;

impl Core {
    /// Becomes ready when everybody who was listed is linked both ways and all that they held then
    /// is here, or when that took too long.
    pub(super) fn check_ready(&mut self, now: Now) {
        if self.ready {
            return;
        }
        let linked = |origin: &Origin| {
            self.peers
                .heard()
                .any(|(o, peer)| o == *origin && peer.hears.contains(&self.me.origin))
        };
        let lacking: Vec<Origin> = match &self.awaited.expected {
            Some(expected) => {
                // One where nobody listens is dead, and not waited for.
                let lacking = |o: &Origin| !linked(o) && !self.peers.presence.is_absent(*o);
                expected.iter().copied().filter(lacking).collect()
            }
            None => Vec::new(),
        };
        let late = rules::takes_clients_anyhow(now.mono, self.started + JOIN_MAX);
        if !late {
            if self.awaited.expected.is_none() || !lacking.is_empty() || self.awaited.keeper {
                return;
            }
            if rules::waits_for_history(self.lacks()) {
                return;
            }
        }
        self.lacks();
        self.ready = true;
        self.begin_to_owe(now);
        self.repairs.has_joined();
        self.beat_due = now.mono;
        let behind = self.awaited.position.iter().flatten();
        let behind = behind.map(|(origin, _)| *origin).collect();
        self.outputs.push(Output::Ready {
            unlinked: lacking,
            lacking: behind,
        });
        self.update_nodes();
    }

    /// Whether something is not here of what others held when this was asked first.
    fn lacks(&mut self) -> bool {
        let target = self.awaited.position.get_or_insert_with(|| {
            let mut target = BTreeMap::new();
            for (_, peer) in self.peers.heard() {
                add_position(&mut target, peer);
            }
            target
        });
        target.retain(|origin, seq| {
            let log = self.logs.get(origin);
            // A log that was not begun because there are too many is not waited for.
            let refused = log.is_none() && self.logs.len() >= ORIGINS_MAX;
            log.map_or(0, Log::held) < *seq && !refused
        });
        !target.is_empty()
    }

    /// Who is heard for the first time while this node joins may hold what nobody else does.
    pub(super) fn await_position_of(&mut self, peer: Origin) {
        if let (Some(target), Some(peer)) = (&mut self.awaited.position, self.peers.get(peer))
            && !self.ready
        {
            add_position(target, peer);
        }
    }

    /// Says so when that is here which was not when clients began to be taken.
    pub(super) fn check_whole(&mut self) {
        let behind = self
            .awaited
            .position
            .as_ref()
            .is_some_and(|it| !it.is_empty());
        if self.ready && behind && !self.lacks() {
            self.outputs.push(Output::Whole);
        }
    }

    /// What is not here yet, on a node that takes clients, of what others held when it joined.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = (Origin, Span)> {
        let behind = self
            .awaited
            .position
            .iter()
            .filter(|_| self.ready)
            .flatten();
        behind.map(|(origin, seq)| {
            let after = self.logs.get(origin).map_or(0, Log::held);
            let through = *seq;
            (*origin, Span { after, through })
        })
    }
}

/// Adds what a peer says to hold.
fn add_position(target: &mut BTreeMap<Origin, u64>, peer: &Peer) {
    for (origin, seq) in peer.position.iter().filter(|(_, seq)| **seq <= SEQ_MAX) {
        let most = target.entry(*origin).or_default();
        *most = (*most).max(*seq);
    }
}
