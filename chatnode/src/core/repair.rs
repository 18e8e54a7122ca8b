//! What is missing, whom to ask, when to give up.
//!
//! The origin is asked first, then whoever says that it holds the numbers, and, when the origin is
//! gone, everybody: some may hold back what they cannot place. A number is lost only when each has said
//! no, and nobody is awaited who may have it ([`super::presence`]). Each origin has one request at a time; there
//! are a few in all, within a budget of bytes. A peer that fails is left alone for a while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, rngs::StdRng};

use super::log::{Log, Span};
use super::peers::Peers;
use super::rules;
use crate::model::names::Origin;

/// Repair requests under way at the most, over all origins.
pub(super) const FETCHES_MAX: usize = 8;
/// Requests to one peer at the most: one that is frozen must not keep the others' turn.
pub(super) const FETCHES_OF_PEER_MAX: usize = 4;
/// While a node joins it has nobody to serve, and may have thousands of logs to read, most of them
/// short: the same two then.
pub(super) const FETCHES_JOINING_MAX: usize = 32;
/// As [`FETCHES_OF_PEER_MAX`].
pub(super) const FETCHES_OF_PEER_JOINING_MAX: usize = 16;
/// After an answer so many origins are looked at, in turn, for one that is to be asked for next.
const LOOKED_AT_MAX: usize = 64;
/// An answer lets so many requests begin: the one whose place it was, and one more.
const BEGUN_MAX: u64 = 2;
/// Bytes of entries a second that repair brings at the most, so that live traffic has its share,
const BYTES_PER_SECOND: u32 = 64 << 20;
/// and how far ahead of that it may be: a first page comes at once.
const BUDGET_AHEAD: Duration = Duration::from_millis(100);
/// How long an origin's own link may take to bring what another node already holds.
const BEHIND_GRACE: Duration = Duration::from_millis(200);
/// Random delay before a first request, so that not all nodes ask at once.
const JITTER_MAX: Duration = Duration::from_millis(15);
/// After a failure a peer is asked again after this, doubling,
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// up to this.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A peer that has failed so often in a row, which takes nine seconds at the least, is not waited for
/// any longer: nothing is shown that stands behind a hole, and one peer whose answers never come must
/// not silence an origin for ever. It goes on being asked for the hole,
pub(super) const FAILURES_MAX: u32 = 8;
/// as often as this.
const FAILING_ASKED_EVERY: Duration = Duration::from_secs(4);
/// Holes that wait to be asked for again at the most.
const HOLES_ASKED_MAX: usize = 1024;
/// Some peer is asked for all holes again after this, doubling,
const HOLES_FIRST: Duration = Duration::from_millis(500);
/// up to this. A peer may have come to what it had not.
const HOLES_MAX: Duration = Duration::from_secs(60);
/// Stands for "whatever its position": the origin knows its own log.
const ALWAYS: u64 = u64::MAX;

/// Names a request, so that its answer finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FetchId(pub(super) u64);

/// A request to a peer for entries of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetch {
    /// Its name.
    pub(crate) id: FetchId,
    /// Whom to ask.
    pub(crate) from: Origin,
    /// Whose entries.
    pub(crate) origin: Origin,
    /// Which.
    pub(crate) span: Span,
}

/// What to do about an origin's missing numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing now.
    Wait,
    /// Nothing before this time.
    WaitUntil(Duration),
    /// Ask.
    Fetch(Fetch),
    /// Nobody has them: go on behind this number.
    Pass(u64),
}

#[derive(Debug, Default)]
struct State {
    after: u64,
    not_before: Duration,
    since: Duration,
    in_flight: Option<FetchId>,
    last_call: bool,
    /// Who said that it has not the next number, what its position was then, and through which
    /// number it was asked.
    lacks: BTreeMap<Origin, (u64, u64)>,
    failures: BTreeMap<Origin, (Duration, u32)>,
}

impl State {
    fn new(span: Span, now: Duration, rng: &mut StdRng) -> Self {
        Self {
            after: span.after,
            since: now,
            not_before: now + JITTER_MAX.mul_f64(rng.random()),
            ..Self::default()
        }
    }

    /// What is missing begins here now.
    fn goes_on(&mut self, span: Span, now: Duration) {
        if self.after != span.after {
            self.after = span.after;
            self.since = now;
            self.lacks.clear();
        }
    }

    /// Whether a peer has failed so often that it is not waited for.
    fn is_hopeless(&self, peer: Origin) -> bool {
        let failed = self.failures.get(&peer);
        failed.is_some_and(|(_, times)| rules::is_hopeless(*times, FAILURES_MAX))
    }
}

/// Requests at the most: over all origins, and to one peer.
fn limits(joining: bool) -> (usize, usize) {
    if joining {
        (FETCHES_JOINING_MAX, FETCHES_OF_PEER_JOINING_MAX)
    } else {
        (FETCHES_MAX, FETCHES_OF_PEER_MAX)
    }
}

/// The requests under way and what is known of each origin's repair.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    next: u64,
    /// Whether this node takes no clients yet.
    joining: bool,
    states: BTreeMap<Origin, State>,
    /// Whose turn it was last.
    turn: Option<Origin>,
    /// With the position that the peer had shown when it was asked: one shown meanwhile is no
    /// part of its answer.
    fetches: BTreeMap<FetchId, (Fetch, u64)>,
    holes: VecDeque<(Origin, Origin, Span)>,
    holes_due: Duration,
    holes_pause: Duration,
    /// Peers that were not waited for any longer, and may have what was passed.
    failing: BTreeSet<Origin>,
    failing_turn: bool,
    /// Until when the pages that came have used up the budget.
    spent_until: Duration,
}

impl Repairs {
    /// Decides about one origin.
    pub(super) fn step(
        &mut self,
        now: Duration,
        origin: Origin,
        log: &Log,
        peers: &Peers,
        rng: &mut StdRng,
    ) -> Step {
        let Some(span) = log.missing() else {
            self.states.remove(&origin);
            return Step::Wait;
        };
        let state = self.states.entry(origin);
        let state = state.or_insert_with(|| State::new(span, now, rng));
        state.goes_on(span, now);
        let affordable = self.spent_until.saturating_sub(BUDGET_AHEAD);
        let not_before = state.not_before.max(affordable);
        if now < not_before {
            return Step::WaitUntil(not_before);
        }
        let asked = rules::is_asked_for(state.in_flight.is_some());
        let (most, most_of_peer) = limits(self.joining);
        if asked || self.fetches.len() >= most {
            return Step::Wait;
        }
        let linked = peers.hears(origin);
        // One that speaks and cannot be asked is as good as gone: others may hold what it said.
        let gone = if linked {
            state.is_hopeless(origin)
        } else {
            let trimmed = log.is_trimmed_elsewhere(span.through);
            peers.is_given_up(origin, span, trimmed, now)
        };
        if gone != state.last_call {
            state.last_call = gone;
            state.lacks.clear();
        }
        let position = |peer: Origin| peers.position(peer, origin);
        let lacks = |peer: Origin| match state.lacks.get(&peer) {
            Some(&(shown, through)) => {
                through >= span.through && (shown == ALWAYS || shown == position(peer))
            }
            None => false,
        };
        let rested = |peer: Origin| match state.failures.get(&peer) {
            Some((until, _)) => now >= *until,
            None => true,
        };
        let fetches = &self.fetches;
        let free = |peer: Origin| {
            let of_peer = fetches.values().filter(|(fetch, _)| fetch.from == peer);
            rules::may_ask_more(of_peer.count(), most_of_peer)
        };
        let patient = linked && !lacks(origin) && rested(origin);
        let holders: Vec<Origin> = peers
            .heard()
            .map(|(peer, _)| peer)
            .filter(|&peer| peer != origin && rules::is_left_to_ask(lacks(peer)))
            .filter(|&peer| rules::may_have(gone, position(peer), span.after))
            .collect();
        let grace = state.since + BEHIND_GRACE;
        let from = if patient && position(origin) > span.after {
            free(origin).then_some(origin)
        } else if patient && now < grace {
            return Step::WaitUntil(grace);
        } else {
            let able = |&peer: &Origin| rested(peer) && free(peer);
            holders.iter().copied().filter(able).choose(rng)
        };
        if let Some(from) = from {
            let own = from == origin;
            let shown = if own { ALWAYS } else { position(from) };
            let fetch = self.begin(from, origin, span, shown);
            if let Some(state) = self.states.get_mut(&origin) {
                state.in_flight = Some(fetch.id);
            }
            return Step::Fetch(fetch);
        }
        let origin_cannot = rules::cannot_give(gone, linked, lacks(origin));
        // The origin's own word is enough; without it, who is away may have them too.
        let awaited = || !linked && peers.others_are_awaited(origin, now);
        let none_left = origin_cannot && holders.iter().all(|peer| state.is_hopeless(*peer));
        if none_left && !awaited() {
            let asked = holders.iter().copied().chain(linked.then_some(origin));
            self.failing
                .extend(asked.filter(|peer| state.is_hopeless(*peer)));
            return Step::Pass(span.through);
        }
        Step::Wait
    }

    /// Of a node that joins.
    pub(super) fn joining() -> Self {
        Self {
            joining: true,
            ..Self::default()
        }
    }

    /// This node takes clients from now on.
    pub(super) fn has_joined(&mut self) {
        self.joining = false;
    }

    /// Origins with something missing that are to be looked at after an answer, each in its turn.
    pub(super) fn turns(&self) -> usize {
        self.states.len().min(LOOKED_AT_MAX)
    }

    /// Whose turn it is.
    pub(super) fn next_open(&mut self) -> Option<Origin> {
        let behind = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.states.range((behind, Bound::Unbounded)).next();
        let next = next.or_else(|| self.states.first_key_value());
        self.turn = next.map(|(origin, _)| *origin);
        self.turn
    }

    /// How many requests have begun.
    pub(super) fn begun(&self) -> u64 {
        self.next
    }

    /// Whether an answer has let as many begin as it may, `begun` being how many had before.
    pub(super) fn has_gone_on(&self, begun: u64) -> bool {
        self.next >= begun + BEGUN_MAX
    }

    /// Asks a peer for holes that were passed: it may come from where they are known.
    pub(super) fn ask_for_holes(&mut self, from: Origin, origin: Origin, log: &Log) {
        for &hole in log.holes() {
            self.ask_for_hole(from, origin, hole);
        }
    }

    /// Asks a peer for one of them.
    pub(super) fn ask_for_hole(&mut self, from: Origin, origin: Origin, hole: Span) {
        if rules::has_room_for_hole(self.holes.len(), HOLES_ASKED_MAX) {
            self.holes.push_back((from, origin, hole));
        }
    }

    /// A peer that failed again and again, and may have what was passed, if there is one.
    pub(super) fn failing(&mut self, peers: &Peers, rng: &mut StdRng) -> Option<Origin> {
        self.failing.retain(|peer| peers.hears(*peer));
        self.failing.iter().copied().choose(rng)
    }

    /// Whether it is such a peer's turn to be asked for holes, and not another's.
    pub(super) fn next_turn(&mut self) -> bool {
        self.failing_turn = !self.failing_turn;
        self.failing_turn
    }

    /// A page of so many bytes came.
    pub(super) fn spend(&mut self, now: Duration, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let cost = Duration::from_secs(1).mul_f64(f64::from(bytes) / f64::from(BYTES_PER_SECOND));
        self.spent_until = self.spent_until.max(now) + cost;
    }

    /// The next request for an old hole, if there is room for one, `useful` being whether there
    /// still is such a hole and such a peer.
    pub(super) fn step_holes(
        &mut self,
        now: Duration,
        useful: impl Fn(Origin, Origin, Span) -> bool,
    ) -> Option<Fetch> {
        if self.spent_until > now + BUDGET_AHEAD {
            return None;
        }
        // Half of the requests at the most: what is missing now is more urgent.
        while self.fetches.len() < FETCHES_MAX / 2 {
            let (from, origin, span) = self.holes.pop_front()?;
            if useful(from, origin, span) {
                return Some(self.begin(from, origin, span, ALWAYS));
            }
        }
        None
    }

    /// A hole was passed, or filled: others may have news of holes too.
    pub(super) fn holes_changed(&mut self, now: Duration) {
        self.holes_pause = HOLES_FIRST;
        self.holes_due = now + HOLES_FIRST;
    }

    /// Whether it is time to ask some peer for all holes again.
    pub(super) fn holes_are_due(&mut self, now: Duration) -> bool {
        let due = now >= self.holes_due && self.holes.is_empty();
        if due {
            let most = if self.failing.is_empty() {
                HOLES_MAX
            } else {
                FAILING_ASKED_EVERY
            };
            self.holes_due = now + self.holes_pause.min(most);
            self.holes_pause = (self.holes_pause * 2).clamp(HOLES_FIRST, HOLES_MAX);
        }
        due
    }

    /// An answer came, and the position that the peer had shown when it was asked. `None` if the
    /// request is not known (any more).
    pub(super) fn end(&mut self, id: FetchId) -> Option<(Fetch, u64)> {
        let (fetch, shown) = self.fetches.remove(&id)?;
        if let Some(state) = self.states.get_mut(&fetch.origin)
            && state.in_flight == Some(id)
        {
            state.in_flight = None;
        }
        Some((fetch, shown))
    }

    /// The peer answered. Whether it is one that failed again and again before.
    pub(super) fn answered(&mut self, fetch: &Fetch) -> bool {
        if let Some(state) = self.states.get_mut(&fetch.origin) {
            state.failures.remove(&fetch.from);
        }
        self.failing.remove(&fetch.from)
    }

    /// The peer answered, and has not the number asked for first, or had not when it had shown
    /// this position.
    pub(super) fn lacks(&mut self, fetch: &Fetch, shown: u64) {
        if let Some(state) = self.states.get_mut(&fetch.origin)
            && state.after == fetch.span.after
        {
            state.lacks.insert(fetch.from, (shown, fetch.span.through));
        }
    }

    /// The peer did not answer, or with nonsense.
    pub(super) fn failed(&mut self, fetch: &Fetch, now: Duration) {
        let Some(state) = self.states.get_mut(&fetch.origin) else {
            return;
        };
        let (until, times) = state.failures.entry(fetch.from).or_default();
        *until = now + (RETRY_FIRST * 2u32.saturating_pow((*times).min(8))).min(RETRY_MAX);
        *times = times.saturating_add(1);
    }

    /// Forgets what is known of an origin.
    pub(super) fn forget(&mut self, origin: Origin) {
        self.states.remove(&origin);
    }

    /// Origins with something missing.
    pub(super) fn open(&self) -> impl Iterator<Item = Origin> {
        self.states.keys().copied()
    }

    fn begin(&mut self, from: Origin, origin: Origin, span: Span, shown: u64) -> Fetch {
        self.next += 1;
        let fetch = Fetch {
            id: FetchId(self.next),
            from,
            origin,
            span,
        };
        self.fetches.insert(fetch.id, (fetch, shown));
        fetch
    }
}
