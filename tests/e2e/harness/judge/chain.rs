//! One reader over all of its connections.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{Evidence, Kind, Known, Verdict, once};
use crate::harness::record::Join;
use crate::harness::wire::{Msg, Position};

/// The contract: of so many messages, or bytes, a node need not replay more.
const REPLAYED_MAX: usize = 10_000;
const REPLAYED_BYTES: usize = 4 << 20;
/// Names of fields, quotes and the timestamp of a message's JSON.
const FIELD_BYTES: usize = 70;

/// What a connection was shown of the room from one join on.
struct Segment<'a> {
    /// Those in the reply to the join first, then live.
    shown: Vec<&'a Msg>,
    replayed: usize,
    gaps: &'a [Value],
}

/// A reader from a join without position on, over all connections on which it went on from there.
pub(super) struct Chain<'a> {
    pub(super) person: &'a str,
    base: Position,
    segments: Vec<Segment<'a>>,
    /// Whether it began with a position of its own.
    recovered_first: bool,
    /// Whether it still reads.
    pub(super) open: bool,
    /// Joins with a position that were not recovered.
    unrecovered: Vec<&'a Join>,
}

pub(super) fn chains(evidence: &Evidence) -> Vec<Chain<'_>> {
    let mut chains: Vec<Chain<'_>> = Vec::new();
    let mut last: HashMap<&str, usize> = HashMap::new();
    for trace in &evidence.traces {
        let joins = trace.joins.iter().filter(|join| join.room == evidence.room);
        let mut joins = joins.peekable();
        while let Some(join) = joins.next() {
            let end = joins
                .peek()
                .map_or(trace.messages.len(), |next| next.before);
            let live = trace.messages[join.before..end].iter().map(|(_, msg)| msg);
            let live = live.filter(|message| message.room == evidence.room);
            let segment = Segment {
                shown: join.joined.messages.iter().chain(live).collect(),
                replayed: join.joined.messages.len(),
                gaps: &trace.gaps,
            };
            let open = trace.is_open && joins.peek().is_none();
            let goes_on = join.since.is_some() && join.joined.recovered == Some(true);
            let mut unrecovered: Vec<_> = join.since.iter().map(|_| join).collect();
            unrecovered.retain(|_| !goes_on);
            if let Some(chain) = last.get(trace.person.as_str()).map(|&at| &mut chains[at]) {
                // Whoever is elsewhere now has left the connection before.
                chain.open = open && goes_on;
                chain.unrecovered.append(&mut unrecovered);
                if goes_on {
                    chain.segments.push(segment);
                    continue;
                }
            }
            let at = Position::parse(&join.joined.at).unwrap_or_default();
            let base = join.since.clone().filter(|_| goes_on).unwrap_or(at);
            last.insert(&trace.person, chains.len());
            chains.push(Chain {
                person: &trace.person,
                base,
                segments: vec![segment],
                recovered_first: goes_on,
                open,
                unrecovered,
            });
        }
    }
    chains
}

/// Messages, and bytes of them at least, between the position of a client that came back and the
/// one from which it was let go on.
fn missed(join: &Join, evidence: &Evidence) -> (usize, usize) {
    let at = Position::parse(&join.joined.at).unwrap_or_default();
    let since = join.since.clone().unwrap_or_default();
    let between = |message: &&Msg| at.covers(message) && !since.covers(message);
    let missed = evidence.history.iter().filter(between);
    missed.fold((0, 0), |(count, bytes), message| {
        let named = message.id.len() + message.room.len() + message.from.len();
        let mid = message.mid.as_ref().map_or(0, String::len);
        (
            count + 1,
            bytes + named + mid + message.text.len() + FIELD_BYTES,
        )
    })
}

impl Chain<'_> {
    fn shown(&self) -> impl Iterator<Item = &Msg> {
        self.segments
            .iter()
            .flat_map(|segment| &segment.shown)
            .copied()
    }

    /// Notes what is wrong with it.
    pub(super) fn judge(&self, evidence: &Evidence, known: &Known<'_>, verdict: &mut Verdict) {
        verdict.readers += 1;
        verdict.to_the_end += usize::from(self.open);
        verdict.moves += self.segments.len() - 1;
        verdict.shown += self.shown().count();
        for join in &self.unrecovered {
            let (messages, bytes) = missed(join, evidence);
            if messages > REPLAYED_MAX || bytes > REPLAYED_BYTES {
                verdict.too_far += 1;
                continue;
            }
            let text = format!("{} was not recovered over {messages} messages", self.person);
            verdict.fault(Kind::Unrecovered, text);
        }
        // Others may know of what a killed node said by its position, and have none of it. That it is no
        // message which must be kept is judged where messages are.
        let may_be = |gap: &&Value| {
            evidence.holes
                || gap["origin"]
                    .as_str()
                    .is_some_and(|it| evidence.may_lose(it))
        };
        let mut gaps = self.segments.iter().flat_map(|segment| segment.gaps);
        if let Some(gap) = gaps.find(|gap| !may_be(gap)) {
            let text = format!("{} was told of a gap: {gap}", self.person);
            verdict.fault(Kind::Unrecovered, text);
        }
        for message in self.missing(known, evidence) {
            let text = format!("{} was not shown {message:?}", self.person);
            verdict.fault(Kind::Lost, text);
        }
        for segment in &self.segments {
            once(segment.shown.iter().copied(), self.person, verdict);
        }
        self.once_over_all(verdict);
        self.order(verdict);
        self.was_kept(evidence, known, verdict);
    }

    /// What it should have been shown and was not.
    pub(super) fn missing<'a>(&self, known: &Known<'_>, evidence: &'a Evidence) -> Vec<&'a Msg> {
        let mut ids = HashSet::new();
        let mut mids = HashSet::new();
        let mut last: HashMap<&str, u64> = HashMap::new();
        for message in self.shown() {
            ids.insert(message.id.as_str());
            mids.extend(message.mid.as_deref());
            let seq = last.entry(message.origin()).or_default();
            *seq = (*seq).max(message.seq());
        }
        // One that is cut off has been shown a run without holes of each origin.
        let reached = |message: &Msg| {
            let last = last.get(message.origin()).copied().unwrap_or_default();
            self.open || (message.seq() <= last && !self.in_told_gap(message))
        };
        let had = |message: &Msg| {
            let mid = message.mid.as_deref();
            let mut others = mid.and_then(|mid| known.ids.get(mid)).into_iter().flatten();
            ids.contains(message.id.as_str())
                || mid.is_some_and(|mid| mids.contains(mid))
                || self.base.covers(message)
                || others.any(|id| self.base.covers_id(id))
        };
        let due = evidence.history.iter();
        due.filter(|message| reached(message) && !had(message))
            .collect()
    }

    fn in_told_gap(&self, message: &Msg) -> bool {
        let mut gaps = self.segments.iter().flat_map(|segment| segment.gaps);
        gaps.any(|gap| {
            let number = |field: &str| gap[field].as_u64().unwrap_or_default();
            gap["origin"] == message.origin()
                && (number("after") + 1..=number("through")).contains(&message.seq())
        })
    }

    /// No id and no mid on two connections.
    fn once_over_all(&self, verdict: &mut Verdict) {
        let mut ids = HashMap::new();
        let mut mids = HashMap::new();
        for (number, segment) in self.segments.iter().enumerate() {
            for message in &segment.shown {
                let before = ids.insert(&message.id, number);
                if before.is_some_and(|before| before != number) {
                    let text = format!("{}: again {message:?}", self.person);
                    verdict.fault(Kind::Doubled, text);
                    continue;
                }
                let Some(mid) = &message.mid else { continue };
                let before = mids.insert(mid, number);
                if before.is_some_and(|before| before != number) {
                    let text = format!("{}: again by mid {message:?}", self.person);
                    verdict.fault(Kind::Doubled, text);
                }
            }
        }
    }

    /// Each origin's by number, but for what fills a gap that was announced.
    fn order(&self, verdict: &mut Verdict) {
        let mut last: HashMap<&str, u64> = HashMap::new();
        // A page of history is of before it began; nothing after that is.
        let page = if self.recovered_first {
            0
        } else {
            self.segments[0].replayed
        };
        for message in self.shown().skip(page) {
            if self.base.covers(message) && !self.in_told_gap(message) {
                let text = format!("{}: {message:?} was before it began", self.person);
                verdict.fault(Kind::Doubled, text);
            }
        }
        for message in self.shown() {
            let seq = last.entry(message.origin()).or_default();
            if *seq >= message.seq() && !self.in_told_gap(message) {
                let text = format!("{}: {message:?} came after {seq}", self.person);
                verdict.fault(Kind::Misordered, text);
            }
            *seq = (*seq).max(message.seq());
        }
    }

    /// What was shown is kept, or was lost as the contract allows.
    fn was_kept(&self, evidence: &Evidence, known: &Known<'_>, verdict: &mut Verdict) {
        for message in self.shown() {
            let kept = known.by_id.contains_key(message.id.as_str())
                || message
                    .mid
                    .as_deref()
                    .is_some_and(|mid| known.by_mid.contains_key(mid));
            if kept {
                continue;
            }
            if evidence.killed.contains(message.origin()) {
                verdict.vanished += 1;
            } else {
                let text = format!("{} was shown {message:?}, which nobody keeps", self.person);
                verdict.fault(Kind::Phantom, text);
            }
        }
    }
}
