//! When a node may give numbers up: when nobody who is heard, or may come back, has them.

use std::collections::BTreeSet;

use super::exempt::Exempt;
use super::world::{NodeId, World};
use crate::core::log::Span;
use crate::core::repair::FAILURES_MAX;
use crate::model::names::{EntryId, Origin};

impl World {
    /// A node gives numbers up. It may not while it hears their origin, or somebody who does; nor
    /// if somebody whom it hears has them and was not asked since. But it does not wait for who
    /// failed again and again.
    pub(super) fn gave_up(&mut self, id: NodeId, origin: Origin, span: Span) {
        let log = self.nodes[id].core.log(origin);
        if log.is_some_and(|log| span.through <= log.started_behind()) {
            // The front of a log that begins here: nobody gives it any more.
            return self.is_nobodys(id, origin, span);
        }
        let failed = &self.nodes[id].failed_in_row;
        let fails = |peer: &Origin| {
            let times = failed.get(&(*peer, origin));
            times.is_some_and(|times| *times >= FAILURES_MAX)
        };
        let heard = self.nodes[id].core.peers().heard();
        let failing: BTreeSet<Origin> = heard.map(|(peer, _)| peer).filter(fails).collect();
        if !failing.is_empty() {
            self.note("hole passed that a failing peer may have");
        }
        let failing = |peer: Origin| failing.contains(&peer) && self.passes(Exempt::PeerFails);
        // What an origin has trimmed itself it cannot give any more.
        let spent = self.ledger.node(origin).is_some_and(|of| {
            (span.after + 1..=span.through).all(|seq| {
                let name = EntryId { origin, seq };
                self.has_let_go(of, name) && self.passes(Exempt::TrimmedElsewhere)
            })
        });
        let node = &self.nodes[id];
        let peers = node.core.peers();
        let waited_for = peers.heard().filter(|(peer, _)| !failing(*peer));
        if node.hears.contains(&origin) && !spent && !failing(origin) {
            self.broken(format!("n{id} gives up on {origin}, which it hears"));
        }
        self.is_no_false_alarm(id, origin, span, spent || failing(origin));
        for (other, peer) in waited_for {
            if peer.hears.contains(&origin) && !spent && !failing(origin) {
                self.broken(format!("n{id} gives up on {origin}, which {other} hears"));
            }
            let by = self.ledger.node(other);
            let of = self.ledger.node(origin);
            let (Some(by), Some(of)) = (by, of) else {
                continue;
            };
            for seq in span.after + 1..=span.through {
                let Some(since) = self.nodes[by].arrivals.at(of, seq) else {
                    continue;
                };
                // One that was asked before it had it counts as asked.
                let was_asked = node.told.iter().any(|told| {
                    let covers = told.span.after < seq && seq <= told.span.through;
                    told.by == by && told.of == origin && covers && told.at < since
                });
                let name = EntryId { origin, seq };
                // The word of an origin that is heard and has trimmed this is enough, where others came to
                // have it since they told.
                let told = peer.position.get(&origin).copied().unwrap_or_default();
                let trimmed = peers.hears(origin) && self.has_let_go(of, name);
                let late = trimmed && told <= span.after;
                let passed_over = late && self.passes(Exempt::TrimmedElsewhere);
                if self.nodes[by].alive && !was_asked && !passed_over && self.holds(by, name) {
                    self.broken(format!(
                        "n{id} gives up {name:?}, which n{by} has since {since:?}"
                    ));
                }
            }
        }
    }

    /// What a node skips of a log that it did not know somebody has let go of, in memory at least.
    fn is_nobodys(&self, id: NodeId, origin: Origin, span: Span) {
        let gone = |other: NodeId| {
            let log = self.nodes[other].core.log(origin);
            other != id && log.is_some_and(|log| log.window() >= span.through)
        };
        let gone = (0..self.nodes.len()).any(gone) && self.passes(Exempt::TrimmedElsewhere);
        if !gone {
            self.broken(format!(
                "n{id} skips {origin} {span:?}, which nobody has let go"
            ));
        }
    }

    /// What is given up is not to be had from who was not heard only for a while: neither from its origin,
    /// nor from another who has it.
    fn is_no_false_alarm(&self, id: NodeId, origin: Origin, span: Span, fails: bool) {
        let Some(of) = self.ledger.node(origin) else {
            return;
        };
        if self.is_awaited(id, of) && !fails {
            self.broken(format!("n{id} gives up on n{of}, which is not there yet"));
        }
        let peers = self.nodes[id].core.peers();
        for other in self.live() {
            let hears = |other: NodeId| peers.hears(self.nodes[other].origin);
            if other == of || hears(other) || hears(of) || !self.is_awaited(id, other) {
                continue;
            }
            for seq in span.after + 1..=span.through {
                if self.holds(other, EntryId { origin, seq }) {
                    self.broken(format!(
                        "n{id} gives up {origin}.{seq}, which n{other} has, that is not there yet"
                    ));
                }
            }
        }
    }
}
