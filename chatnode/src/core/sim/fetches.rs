//! The fetches that repair asks for, by HTTP.

use std::sync::Arc;
use std::time::Duration;

use super::nodes::Input;
use super::world::{Event, NodeId, World};
use crate::core::LogPage;
use crate::core::log::Span;
use crate::core::members::Snapshot;
use crate::core::news::Beat;
use crate::core::pace::FETCH_MAX;
use crate::core::repair::Fetch;
use crate::model::entry::Entry;
use crate::model::names::Origin;
use crate::peers::POSITION_MAX;
use crate::wire::frame::{self, EntriesPage};

/// A slow answer takes so long at the most: it may come when nobody waits for it any more.
const SLOW_MAX: Duration = FETCH_MAX.saturating_mul(2);
/// What a wire carries in a second, where that matters: 100 Mbit.
const WIRE_BYTES_PER_S: f64 = 12_500_000.0;

/// What is asked by HTTP.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Log(Fetch),
    Members(Origin),
    Position(Origin),
}

/// What comes back.
#[derive(Debug)]
pub(super) enum Answer {
    /// Entries, and when they were looked up.
    Log(LogPage, Duration),
    Members(Snapshot),
    Position(Box<Beat>),
    Failed,
    Refused,
    TimedOut,
}

/// What a peer told of its entries.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) by: NodeId,
    pub(super) of: Origin,
    pub(super) span: Span,
    pub(super) at: Duration,
}

impl World {
    /// A node asks another by HTTP. It hears of the outcome within the timeout, come what may.
    pub(super) fn ask(&mut self, id: NodeId, from: Origin, ask: Ask) {
        if let Ask::Log(fetch) = &ask {
            self.fetches_are_few(id, fetch);
        }
        self.serial += 1;
        let request = self.serial;
        self.nodes[id].asked.insert(request, ask);
        let timeout = Event::Input(id, Input::Answer(request, Answer::TimedOut));
        let most = if matches!(ask, Ask::Position(_)) {
            POSITION_MAX
        } else {
            FETCH_MAX
        };
        self.at(most, timeout);
        let Some(server) = self.ledger.node(from) else {
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
        if self.now < self.nodes[id].stuck_until {
            return self.note("fault: fetch not answered");
        }
        let way = self.way(id, to);
        let refuses = self.now < self.nodes[id].refuses_until;
        let answer = match ask {
            _ if refuses => Answer::Refused,
            Ask::Log(fetch) => {
                let page = self.page(id, to, fetch, way.ill);
                Answer::Log(page, self.now)
            }
            Ask::Members(_) => Answer::Members(self.nodes[id].core.members().snapshot()),
            Ask::Position(_) => {
                let now = self.now_of(id);
                Answer::Position(Box::new(self.nodes[id].core.beat(now)))
            }
        };
        if way.cut_until.is_none() {
            let mut after = self.delay(way) + self.on_the_wire(to, &answer);
            if let Ask::Log(fetch) = ask
                && self.nodes[id]
                    .core
                    .archived(fetch.origin, fetch.span)
                    .is_some()
            {
                after += self.disk_takes(id);
            }
            if way.ill && self.chance(self.plan.fetch_failure / 2.0) {
                self.note("fault: fetch answered slowly");
                after += self.up_to(SLOW_MAX);
            }
            self.at(after, Event::Input(to, Input::Answer(request, answer)));
        }
    }

    /// The page that a node answers with: what it was asked for, or, where things are ill, now and
    /// then of another origin.
    fn page(&mut self, id: NodeId, to: NodeId, fetch: &Fetch, ill: bool) -> LogPage {
        if ill && self.chance(self.plan.fetch_failure / 4.0) {
            let origins: Vec<Origin> = self.nodes.iter().map(|node| node.origin).collect();
            let other = self.pick(&origins).unwrap_or(fetch.origin);
            let core = &self.nodes[id].core;
            let page = core.log_page(other, fetch.span, self.plan.page_bytes);
            if other != fetch.origin && !page.entries.is_empty() {
                self.note("fault: foreign page");
                return page;
            }
        }
        let page = self.page_of_log(id, to, fetch);
        let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
        let fits = |seq: &u64| fetch.span.after < *seq && *seq <= fetch.span.through;
        if !seqs.iter().all(fits) || !seqs.is_sorted_by(|a, b| a < b) {
            self.broken(format!("n{id} answers {fetch:?} with {seqs:?}"));
        }
        if !self.plan.encodes {
            return page;
        }
        let bytes = frame::encode_entries(&EntriesPage {
            origin: fetch.origin,
            floor: page.floor,
            entries: page.entries,
        });
        match frame::decode_entries(&bytes) {
            Ok(page) => LogPage {
                floor: page.floor,
                entries: page.entries,
            },
            Err(why) => self.broken(format!("n{id} answers {fetch:?}, but {why}")),
        }
    }

    /// A part of a log, from memory or from the disk, as the rim gives it.
    fn page_of_log(&self, id: NodeId, to: NodeId, fetch: &Fetch) -> LogPage {
        let core = &self.nodes[id].core;
        let whole = self.nodes[to].core.is_durable();
        if let Some(archived) = core.archived(fetch.origin, fetch.span)
            && let Some(disk) = self.disk_of(id)
            && (whole || fetch.span.after > 0)
        {
            let mut entries = disk.range(fetch.origin, archived);
            let mut bytes = 0;
            let fit = entries.iter().take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.json.len();
                first || bytes <= self.plan.page_bytes
            });
            entries.truncate(fit.count());
            if !entries.is_empty() {
                let floor = disk.floor(fetch.origin);
                return LogPage { floor, entries };
            }
        }
        let mut page = core.log_page(fetch.origin, fetch.span, self.plan.page_bytes);
        if !whole && fetch.span.after == 0 {
            let window = core.log(fetch.origin).map_or(0, |log| log.window());
            page.floor = page.floor.max(window);
        }
        page
    }

    /// How long an answer waits for the wire of who asked, and is on it.
    fn on_the_wire(&mut self, to: NodeId, answer: &Answer) -> Duration {
        let Answer::Log(page, _) = answer else {
            return Duration::ZERO;
        };
        if !self.plan.costs {
            return Duration::ZERO;
        }
        let bytes: usize = page
            .entries
            .iter()
            .map(|entry| frame::entry_len(entry))
            .sum();
        let takes = Duration::from_secs_f64(bytes as f64 / WIRE_BYTES_PER_S);
        let wire = &mut self.nodes[to].wire_until;
        *wire = (*wire).max(self.now) + takes;
        *wire - self.now
    }

    pub(super) fn answered(&mut self, id: NodeId, request: u64, answer: Answer) {
        let Some(ask) = self.nodes[id].asked.remove(&request) else {
            if !matches!(answer, Answer::TimedOut) {
                self.note("fault: fetch answered too late");
            }
            return;
        };
        match answer {
            Answer::Failed => self.note("fault: fetch failed"),
            Answer::Refused => self.note("fault: fetch refused"),
            Answer::TimedOut => self.note("fault: fetch timed out"),
            Answer::Log(..) | Answer::Members(_) | Answer::Position(_) => {}
        }
        if let Ask::Log(fetch) = &ask {
            let failed = &mut self.nodes[id].failed_in_row;
            let failed = failed.entry((fetch.from, fetch.origin)).or_default();
            let well = matches!(answer, Answer::Log(..));
            *failed = if well { 0 } else { *failed + 1 };
        }
        match (ask, answer) {
            (Ask::Log(fetch), Answer::Log(page, at)) => self.page_came(id, &fetch, page, at),
            (Ask::Log(fetch), _) => {
                let now = self.now_of(id);
                self.nodes[id].core.fetched(now, fetch.id, None);
            }
            (Ask::Members(origin), Answer::Members(snapshot)) => {
                self.note("members snapshot");
                let core = &mut self.nodes[id].core;
                core.members_fetched(origin, Some(snapshot));
            }
            (Ask::Position(origin), answer) => {
                let told = match answer {
                    Answer::Position(beat) => Some(beat),
                    _ => None,
                };
                let now = self.now_of(id);
                let core = &mut self.nodes[id].core;
                core.position_told(now, origin, told.as_deref());
            }
            (Ask::Members(origin), _) => {
                let core = &mut self.nodes[id].core;
                core.members_fetched(origin, None);
            }
        }
    }

    fn page_came(&mut self, id: NodeId, fetch: &Fetch, page: LogPage, at: Duration) {
        let foreign = |entry: &Arc<Entry>| entry.origin != fetch.origin;
        let is_foreign = page.entries.iter().any(foreign);
        let by = self.ledger.node(fetch.from);
        let of = self.ledger.node(fetch.origin);
        let (Some(by), Some(of)) = (by, of) else {
            return;
        };
        let node = &mut self.nodes[id];
        let mut is_new = false;
        if !is_foreign {
            is_new = node.arrived(of, &page.entries, self.now);
            node.told.push(Told {
                by,
                of: fetch.origin,
                span: fetch.span,
                at,
            });
        }
        let log = |world: &Self| {
            let log = world.nodes[id].core.log(fetch.origin);
            log.map_or((0, 0, 0), |log| {
                (log.counts.lost, log.started_behind(), log.held())
            })
        };
        let (lost, _, held) = log(self);
        let now = self.now_of(id);
        self.nodes[id].core.fetched(now, fetch.id, Some(page));
        let (lost_now, behind_now, _) = log(self);
        if held == 0 && behind_now > 0 {
            self.note("joined behind a trimmed front");
            self.nodes[id].began_behind.insert(fetch.origin, behind_now);
        }
        if lost_now < lost {
            self.note("hole filled");
            self.hole_filled = Some(self.now);
        }
        if is_new {
            let own = fetch.from == fetch.origin;
            let how = ["repaired from another node", "repaired from the origin"];
            self.note(how[usize::from(own)]);
            if !self.nodes[of].alive {
                self.note("dead origin's entry fetched");
            }
        }
    }
}
