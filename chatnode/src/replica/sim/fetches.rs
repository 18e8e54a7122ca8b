//! The fetches that repair asks for, by HTTP.

use std::time::Duration;

use super::nodes::Input;
use super::world::{Event, NodeId, World};
use crate::replica::LogPage;
use crate::replica::log::Span;
use crate::replica::members::Snapshot;
use crate::replica::names::Origin;
use crate::replica::repair::Fetch;

/// A fetch without an answer fails after this.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a page of entries: small, so that pages matter here.
const PAGE_BYTES: usize = 4096;

/// What is asked by HTTP.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Log(Fetch),
    Members(Origin),
}

/// What comes back.
#[derive(Debug)]
pub(super) enum Answer {
    Log(LogPage),
    Members(Snapshot),
    Failed,
    TimedOut,
}

impl World {
    /// A node asks another by HTTP. It hears of the outcome within the timeout, come what may.
    pub(super) fn ask(&mut self, id: NodeId, from: Origin, ask: Ask) {
        self.serial += 1;
        let request = self.serial;
        self.nodes[id].asked.insert(request, ask);
        let timeout = Event::Input(id, Input::Answer(request, Answer::TimedOut));
        self.at(FETCH_TIMEOUT, timeout);
        let Some(server) = self.by_origin(from) else {
            self.broken(format!("n{id} asks {from}, which never was"));
        };
        let way = self.way(id, server);
        if way.cut_until.is_some() {
            return;
        }
        let after = self.delay(way);
        if !self.nodes[server].alive || (way.ill && self.chance(self.plan.fetch_failure)) {
            let failed = Event::Input(id, Input::Answer(request, Answer::Failed));
            self.at(2 * after, failed);
            return;
        }
        self.at(after, Event::Input(server, Input::Serve(id, request, ask)));
    }

    pub(super) fn serve(&mut self, id: NodeId, to: NodeId, request: u64, ask: &Ask) {
        let replica = &self.nodes[id].replica;
        let answer = match ask {
            Ask::Log(fetch) => Answer::Log(replica.log_page(fetch.origin, fetch.span, PAGE_BYTES)),
            Ask::Members(_) => Answer::Members(replica.members().snapshot()),
        };
        let way = self.way(id, to);
        if way.cut_until.is_none() {
            let after = self.delay(way);
            self.at(after, Event::Input(to, Input::Answer(request, answer)));
        }
    }

    pub(super) fn answered(&mut self, id: NodeId, request: u64, answer: Answer) {
        let Some(ask) = self.nodes[id].asked.remove(&request) else {
            return;
        };
        match answer {
            Answer::Failed => self.counters.note("fault: fetch failed"),
            Answer::TimedOut => self.counters.note("fault: fetch timed out"),
            Answer::Log(_) | Answer::Members(_) => {}
        }
        match (ask, answer) {
            (Ask::Log(fetch), answer) => {
                let page = match answer {
                    Answer::Log(page) => Some(page),
                    Answer::Members(_) | Answer::Failed | Answer::TimedOut => None,
                };
                self.log_answered(id, &fetch, page);
            }
            (Ask::Members(origin), Answer::Members(snapshot)) => {
                self.counters.note("members snapshot");
                let replica = &mut self.nodes[id].replica;
                replica.members_fetched(origin, Some(snapshot));
            }
            (Ask::Members(origin), _) => {
                let replica = &mut self.nodes[id].replica;
                replica.members_fetched(origin, None);
            }
        }
    }

    fn log_answered(&mut self, id: NodeId, fetch: &Fetch, page: Option<LogPage>) {
        let now = self.now_of(id);
        let wanted = |span: Span, seq: u64| span.after < seq && seq <= span.through;
        let new = page.as_ref().map_or(0, |page| {
            let seqs = page.entries.iter().map(|entry| entry.id());
            seqs.filter(|entry| wanted(fetch.span, entry.seq) && !self.holds(id, *entry))
                .count()
        });
        let log = |world: &Self| {
            let log = world.nodes[id].replica.log(fetch.origin);
            log.map_or((0, 0, 0), |log| (log.counts.lost, log.floor(), log.held()))
        };
        let before = log(self);
        self.nodes[id].replica.fetched(now, fetch.id, page);
        let after = log(self);
        if new > 0 {
            let origin_lives = self
                .by_origin(fetch.origin)
                .is_some_and(|id| self.nodes[id].alive);
            let how = if fetch.from == fetch.origin {
                "repaired from the origin"
            } else {
                "repaired from another node"
            };
            self.counters.note(how);
            if !origin_lives {
                self.counters.note("dead origin's entry fetched");
            }
        }
        if after.0 < before.0 {
            self.counters.note("hole filled");
        }
        if before.2 == 0 && after.1 > 0 {
            self.counters.note("joined behind a trimmed front");
        }
    }
}
