//! Holes that were passed: whom to ask for them again, since somebody may come to have them; and whose
//! turn it is to be asked for when an answer has come.

use rand::seq::IteratorRandom as _;

use super::log::{Log, Span};
use super::peers::Peer;
use super::{Core, Effect, Now};
use crate::model::names::Origin;

impl Core {
    /// An answer came: its place among the requests is for whatever origin is next, not for a tick.
    pub(super) fn repair_next(&mut self, begun: u64, now: Now) {
        for _ in 0..self.repairs.turns() {
            if self.repairs.has_gone_on(begun) {
                return;
            }
            if let Some(origin) = self.repairs.next_open() {
                self.repair(origin, now);
            }
        }
    }

    /// Asks for the next holes, if it is their turn.
    pub(super) fn repair_holes(&mut self, now: Now) {
        let Self {
            repairs,
            peers,
            logs,
            effects,
            ..
        } = self;
        let useful = |from: Origin, origin: Origin, hole: Span| {
            let still = |log: &Log| log.holes().contains(&hole);
            peers.hears(from) && logs.get(&origin).is_some_and(still)
        };
        while let Some(fetch) = repairs.step_holes(now.mono, useful) {
            effects.push(Effect::Fetch(fetch));
        }
    }

    /// Origins in whose log there is a hole here that a peer does not say to have none of.
    pub(super) fn holes_of_both(&self, from: Origin) -> Vec<Origin> {
        let peer = self.peers.get(from);
        let both = |(origin, log): &(&Origin, &Log)| {
            let solid = peer.map_or(0, |peer| peer.solid(**origin));
            log.holes().first().is_some_and(|hole| solid < hole.through)
        };
        self.logs.iter().filter(both).map(|(o, _)| *o).collect()
    }

    /// Asks some peer for what was passed: in turn one that failed again and again, if there is one, and
    /// any other.
    pub(super) fn ask_somebody_for_holes(&mut self) {
        let failing = self.repairs.failing(&self.peers, &mut self.rng);
        let others = |(peer, _): &(Origin, &Peer)| Some(*peer) != failing;
        let turn = self.repairs.next_turn() || !self.peers.heard().any(|peer| others(&peer));
        if let Some(from) = failing.filter(|_| turn) {
            let first = |(origin, log): (&Origin, &Log)| Some((*origin, *log.holes().first()?));
            if let Some((origin, hole)) = self.logs.iter().find_map(first) {
                self.repairs.ask_for_hole(from, origin, hole);
            }
            return;
        }
        for (origin, log) in &self.logs {
            let Some(first) = log.holes().first() else {
                continue;
            };
            // Somebody who says that he has it, or else somebody.
            let heard = || self.peers.heard().filter(others);
            let has = |(_, peer): &(Origin, &Peer)| peer.solid(*origin) >= first.through;
            let from = heard().filter(has).choose(&mut self.rng);
            if let Some((from, _)) = from.or_else(|| heard().choose(&mut self.rng)) {
                self.repairs.ask_for_holes(from, *origin, log);
            }
        }
    }

    /// Asks a peer for what was passed: it may come from where that is known.
    pub(super) fn ask_for_holes(&mut self, from: Origin) {
        for (origin, log) in &self.logs {
            self.repairs.ask_for_holes(from, *origin, log);
        }
    }
}
