//! Mending: what an origin's log lacks is asked of somebody who has it, and what was passed is asked for
//! again, since somebody may come to have it.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::IteratorRandom as _;

use super::clock::Now;
use super::log::{Log, Span};
use super::output::Output;
use super::pace::Request;
use super::peers::Peer;
use super::question::LogPage;
use super::repair::{FetchId, Step};
use super::rules;
use super::state::Core;
use crate::model::entry::Entry;
use crate::model::names::Origin;

impl Core {
    /// Decides about what an origin's log lacks.
    pub(super) fn repair(&mut self, origin: Origin, now: Now) {
        if self.pauses_repair() {
            return;
        }
        loop {
            let Some(log) = self.logs.get_mut(&origin) else {
                return;
            };
            match self
                .repairs
                .step(now.mono, origin, log, &self.peers, &mut self.rng)
            {
                Step::Wait => return,
                Step::WaitUntil(at) => {
                    self.tick_due = self.tick_due.min(at);
                    return;
                }
                Step::Fetch(fetch) => {
                    log.asked_for(!self.ready);
                    return self.requests.push(Request::Entries(fetch));
                }
                Step::Pass(through) => {
                    let mut accepted = Vec::new();
                    let joining = !self.ready && self.journal.is_none();
                    if joining && log.is_trimmed_elsewhere(through) {
                        log.skip(through, &mut accepted);
                        let at = self.trim_time(now);
                        self.log_mut(origin).times.skip(at);
                    } else {
                        let span = log.pass(through, &mut accepted);
                        self.repairs.holes_changed(now.mono);
                        let gap = Output::Gap(origin, span);
                        self.outputs.extend(rules::announced(gap));
                    }
                    self.accept(origin, accepted, now);
                }
            }
        }
    }

    /// A peer answered a request for entries within this time, or did not.
    pub(super) fn fetched(&mut self, id: FetchId, page: Option<LogPage>, took: Duration, now: Now) {
        let is_known = |peer| self.peers.get(peer).is_some();
        self.paces.answered(id, page.is_some(), took, is_known);
        let Some((fetch, shown)) = self.repairs.end(id) else {
            return;
        };
        let origin = fetch.origin;
        let fits = |entry: &Arc<Entry>| rules::is_of_log(entry.origin, origin);
        let page = page.filter(|page| page.entries.iter().all(fits));
        if let Some(page) = page {
            let bytes = page.entries.iter().map(|entry| entry.json.len()).sum();
            self.repairs.spend(now.mono, bytes);
            let recovered = self.repairs.answered(&fetch);
            let log = self.log_mut(origin);
            let before = log.held();
            let mut accepted = Vec::new();
            log.trimmed_elsewhere(page.floor);
            log.start_behind(page.floor, page.floor_ts, &mut accepted);
            if fetch.from == origin {
                log.settle(page.floor);
            }
            if log.started_behind() > before {
                let at = self.trim_time(now);
                self.log_mut(origin).times.skip(at);
                let first = page.entries.iter().find(|entry| entry.seq > page.floor);
                let until = first.map_or(page.floor_ts, |first| first.ts.min(page.floor_ts));
                self.tell_skipped(origin, until, now);
            }
            self.accept(origin, accepted, now);
            let count = self.arrive(origin, page.entries, now);
            let log = self.log_mut(origin);
            log.counts.repaired += count as u64;
            if log.held() == before {
                self.repairs.lacks(&fetch, shown);
            }
            if fetch.span.after < before && count > 0 {
                self.repairs.holes_changed(now.mono);
                let rest = |hole: &&Span| hole.through == fetch.span.through && !recovered;
                if let Some(rest) = self.logs[&origin].holes().iter().find(rest) {
                    self.repairs.ask_for_hole(fetch.from, origin, *rest);
                }
            }
            if recovered {
                self.ask_for_holes(fetch.from);
            }
        } else {
            self.repairs.failed(&fetch, now.mono);
        }
        let begun = self.repairs.begun();
        self.repair(origin, now);
        self.repair_next(begun, now);
        self.repair_holes(now);
        self.acknowledge(origin, now);
        self.check_ready(now);
        self.check_roll(now);
        self.check_whole();
    }

    /// An answer came: its place among the requests is for whatever origin is next, not for a tick.
    fn repair_next(&mut self, begun: u64, now: Now) {
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
            requests,
            ..
        } = self;
        let useful = |from: Origin, origin: Origin, hole: Span| {
            let still = |log: &Log| log.holes().contains(&hole);
            peers.hears(from) && logs.get(&origin).is_some_and(still)
        };
        while let Some(fetch) = repairs.step_holes(now.mono, useful) {
            requests.push(Request::Entries(fetch));
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
