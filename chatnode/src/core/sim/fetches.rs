//! What nodes ask each other by HTTP: hellos, and what repair needs.

use std::sync::Arc;
use std::time::Duration;

use super::nodes::Comes;
use super::questions::PeerAsks;
use super::world::{Event, NodeId, World};
use crate::core::links::fault::{Fault, Why};
use crate::core::log::Span;
use crate::core::members::Snapshot;
use crate::core::news::Beat;
use crate::core::pace::FETCH_MAX;
use crate::core::question::{LogPart, Question};
use crate::core::repair::Fetch;
use crate::core::{Input, LogPage};
use crate::model::entry::Entry;
use crate::model::names::Origin;
use crate::peers::{HELLO_MAX, POSITION_MAX};
use crate::wire::frame::{self, EntriesPage};

/// A slow answer takes so long at the most: it may come when nobody waits for it any more.
const SLOW_MAX: Duration = FETCH_MAX.saturating_mul(2);
/// What a wire carries in a second, where that matters: 100 Mbit.
const WIRE_BYTES_PER_S: f64 = 12_500_000.0;

/// What is asked by HTTP.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Hello(Origin),
    Log(Fetch, LogPart),
    Members(Origin),
    Position(Origin),
}

impl Ask {
    /// Who is meant.
    fn to(&self) -> Origin {
        match self {
            Self::Log(fetch, _) => fetch.from,
            Self::Hello(to) | Self::Members(to) | Self::Position(to) => *to,
        }
    }

    /// How long whoever asks waits for the answer.
    fn patience(&self) -> Duration {
        match self {
            Self::Hello(_) => HELLO_MAX,
            Self::Position(_) => POSITION_MAX,
            Self::Log(..) | Self::Members(_) => FETCH_MAX,
        }
    }
}

/// What comes back.
#[derive(Debug)]
pub(super) enum Answer {
    /// The hello was taken.
    Welcome,
    /// Entries, and when they were asked for there.
    Log(LogPage, Duration),
    Members(Snapshot),
    Position(Box<Beat>),
    /// Nobody is there, or somebody else.
    NotThere(Why),
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
    /// A node asks whoever is there by HTTP. It hears of the outcome within the timeout, come what may.
    pub(super) fn ask(&mut self, id: NodeId, url: &str, ask: Ask) {
        if let Ask::Log(fetch, _) = &ask {
            self.fetches_are_few(id, fetch);
        }
        self.serial += 1;
        let request = self.serial;
        self.nodes[id].asked.insert(request, (ask, self.now));
        let timeout = Event::Input(id, Comes::Answer(request, Answer::TimedOut));
        self.at(ask.patience(), timeout);
        let server = self.node_at(url);
        let way = self.way(id, server);
        if way.cut_until.is_some() {
            return;
        }
        let after = self.delay(way);
        let there = &self.nodes[server];
        let fails = if !there.alive {
            Answer::NotThere(Why::Refused)
        } else if way.ill && self.chance(self.plan.fetch_failure) {
            Answer::Failed
        } else {
            let serve = Comes::Serve(id, request, ask);
            return self.at(after, Event::Input(server, serve));
        };
        self.at(2 * after, Event::Input(id, Comes::Answer(request, fails)));
    }

    /// A request comes to a node.
    pub(super) fn serve(&mut self, id: NodeId, to: NodeId, request: u64, ask: Ask) {
        if self.now < self.nodes[id].stuck_until {
            return self.note("fault: fetch not answered");
        }
        let is_meant = self.nodes[id].origin == ask.to();
        let refuses = self.now < self.nodes[id].refuses_until;
        let answer = match ask {
            _ if !is_meant => Answer::NotThere(Why::OtherNode),
            Ask::Hello(_) => {
                let hello = match self.plan.direct {
                    true => Input::Introduced(self.target(to)),
                    false => Input::BeatAsked,
                };
                self.give(id, hello);
                Answer::Welcome
            }
            _ if refuses => Answer::Refused,
            Ask::Log(fetch, part) => {
                let at = self.now;
                let asks = PeerAsks {
                    by: to,
                    request,
                    fetch,
                    at,
                };
                return self.asks_for_log(id, asks, part);
            }
            Ask::Members(_) => Answer::Members(self.nodes[id].core.members().snapshot()),
            Ask::Position(_) => {
                let now = self.now_of(id);
                Answer::Position(Box::new(self.nodes[id].core.beat(now)))
            }
        };
        self.answers(id, to, request, answer);
    }

    /// A node answers a request.
    fn answers(&mut self, id: NodeId, to: NodeId, request: u64, answer: Answer) {
        let way = self.way(id, to);
        if way.cut_until.is_some() {
            return;
        }
        let mut after = self.delay(way) + self.on_the_wire(to, &answer);
        if way.ill && self.chance(self.plan.fetch_failure / 2.0) {
            self.note("fault: fetch answered slowly");
            after += self.up_to(SLOW_MAX);
        }
        self.at(after, Event::Input(to, Comes::Answer(request, answer)));
    }

    /// A part of a log is wanted: it is asked for in the core, as by the door for peers. Where things are
    /// ill, it is of another origin now and then.
    fn asks_for_log(&mut self, id: NodeId, asks: PeerAsks, part: LogPart) {
        let bytes = part.bytes.min(self.plan.page_bytes);
        let fetch = asks.fetch;
        if self.way(id, asks.by).ill && self.chance(self.plan.fetch_failure / 4.0) {
            let origins: Vec<Origin> = self.nodes.iter().map(|node| node.origin).collect();
            let other = self.pick(&origins).unwrap_or(fetch.origin);
            let page = self.nodes[id].core.log_page(other, fetch.span, bytes);
            if other != fetch.origin && !page.entries.is_empty() {
                self.note("fault: foreign page");
                let answer = Answer::Log(page, asks.at);
                return self.answers(id, asks.by, asks.request, answer);
            }
        }
        let part = LogPart { bytes, ..part };
        let now = self.now_of(id);
        let found = self.nodes[id].core.ask(Question::Log(part), now);
        self.nodes[id].owes.push((found, asks));
    }

    /// A node has found a part of a log that another wants.
    pub(super) fn answers_log(&mut self, id: NodeId, asks: &PeerAsks, page: LogPage) {
        self.is_of(id, &asks.fetch, &page);
        let page = self.over_the_wire(id, &asks.fetch, page);
        self.answers(id, asks.by, asks.request, Answer::Log(page, asks.at));
    }

    /// A page has what was asked for, in order.
    fn is_of(&self, id: NodeId, fetch: &Fetch, page: &LogPage) {
        let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
        let fits = |seq: &u64| fetch.span.after < *seq && *seq <= fetch.span.through;
        if !seqs.iter().all(fits) || !seqs.is_sorted_by(|a, b| a < b) {
            self.broken(format!("n{id} answers {fetch:?} with {seqs:?}"));
        }
    }

    fn over_the_wire(&self, id: NodeId, fetch: &Fetch, page: LogPage) -> LogPage {
        if !self.plan.encodes {
            return page;
        }
        let bytes = frame::encode_entries(&EntriesPage {
            origin: fetch.origin,
            floor: page.floor,
            floor_ts: page.floor_ts,
            entries: page.entries,
        });
        match frame::decode_entries(&bytes) {
            Ok(page) => LogPage {
                floor: page.floor,
                floor_ts: page.floor_ts,
                entries: page.entries,
            },
            Err(why) => self.broken(format!("n{id} answers {fetch:?}, but {why}")),
        }
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
        let Some((ask, since)) = self.nodes[id].asked.remove(&request) else {
            if !matches!(answer, Answer::TimedOut) {
                self.note("fault: fetch answered too late");
            }
            return;
        };
        match answer {
            Answer::NotThere(Why::OtherNode) => self.note("another node answered"),
            Answer::NotThere(_) if matches!(ask, Ask::Hello(_)) => self.note("hello refused"),
            Answer::Failed | Answer::NotThere(_) => self.note("fault: fetch failed"),
            Answer::Refused => self.note("fault: fetch refused"),
            Answer::TimedOut => self.note("fault: fetch timed out"),
            Answer::Members(_) => self.note("members snapshot"),
            Answer::Welcome | Answer::Log(..) | Answer::Position(_) => {}
        }
        if let Ask::Log(fetch, _) = &ask {
            let failed = &mut self.nodes[id].failed_in_row;
            let failed = failed.entry((fetch.from, fetch.origin)).or_default();
            let well = matches!(answer, Answer::Log(..));
            *failed = if well { 0 } else { *failed + 1 };
        }
        let took = self.now - since;
        match (ask, answer) {
            (Ask::Hello(to), answer) => {
                let why = match answer {
                    Answer::Welcome => None,
                    Answer::NotThere(why) => Some(why),
                    _ => Some(Why::TimedOut),
                };
                let fault = why.map(|why| Fault::new(why, "it did not take the hello"));
                self.give(id, Input::Greeted(to, fault));
            }
            (Ask::Log(fetch, _), Answer::Log(page, at)) => {
                self.page_came(id, &fetch, page, at, took);
            }
            (Ask::Log(fetch, _), _) => self.give(id, Input::Fetched(fetch.id, None, took)),
            (Ask::Members(origin), answer) => {
                let snapshot = match answer {
                    Answer::Members(snapshot) => Some(snapshot),
                    _ => None,
                };
                self.give(id, Input::MembersFetched(origin, snapshot));
            }
            (Ask::Position(origin), answer) => {
                let told = match answer {
                    Answer::Position(beat) => Some(beat),
                    _ => None,
                };
                self.give(id, Input::PositionTold(origin, told.as_deref()));
            }
        }
    }

    fn page_came(
        &mut self,
        id: NodeId,
        fetch: &Fetch,
        page: LogPage,
        at: Duration,
        took: Duration,
    ) {
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
        self.give(id, Input::Fetched(fetch.id, Some(page), took));
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
