//! The promises as rules on what was recorded. Pure: records and a history in, a verdict out.
//!
//! - **kept**: what was acknowledged is in the history under the id of the reply, unless it was
//!   acknowledged without copies by a node that was then killed; what was refused never is;
//! - **no phantom**: what is in the history, or was shown, was sent, with this text and name;
//! - **one content**: an id means the same message to all who ever saw it;
//! - **once**: ids and mids in the history and over all of a reader's connections;
//! - **order**: the history by `(ts, origin)`; on each connection each origin's by number; what one
//!   sender said on one connection in the order in which it was said;
//! - **the chain**: over all its connections a reader was shown all that the history has beyond
//!   where it began (if its last connection was cut: up to the last that it was shown of each
//!   origin), it was `recovered:true` each time (unless it had missed more than is
//!   replayed), and no gap was announced.
//!
//! A retry (one mid, several attempts) may have become several entries, of which one is in the
//! history; who was shown another of them was shown the message.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;
use tokio::time::Instant;

use super::record::{Attempt, Fate, Join};
use super::wire::{Msg, Sent};

mod chain;
#[cfg(test)]
mod tests;

use chain::{Chain, chains};

/// Faults that are told in full; the others are only counted.
const FAULTS_TOLD_MAX: usize = 20;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Acknowledged and not kept, or kept and not shown.
    Lost,
    /// An id or a mid twice where it may be once.
    Doubled,
    Misordered,
    /// Kept or shown though nobody sent it, or though it was refused.
    Phantom,
    /// Another content, name or id than it had before.
    Altered,
    /// A reader was not recovered, or was told of a gap.
    Unrecovered,
    /// Nodes keep different histories.
    Diverged,
    /// A counter of a node says something else than what happened.
    Untruthful,
}

/// What is judged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) room: String,
    pub(crate) traces: Vec<Trace>,
    /// What all nodes keep of the room.
    pub(crate) history: Vec<Msg>,
    /// Origins that were killed: what they acknowledged without copies may be lost with them.
    pub(crate) killed: HashSet<String>,
    /// Those of them that have a data directory and are back: what they acknowledged may not.
    pub(crate) durable: HashSet<String>,
    /// Whether gaps may be announced.
    pub(crate) holes: bool,
}

impl Evidence {
    /// Whether what this origin alone had may be lost: it was killed, and had it in memory only.
    fn may_lose(&self, origin: &str) -> bool {
        self.killed.contains(origin) && !self.durable.contains(origin)
    }
}

/// The record of one connection, of whom and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace {
    pub(crate) person: String,
    /// The origin of its node.
    pub(crate) origin: String,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) joins: Vec<Join>,
    pub(crate) messages: Vec<(Instant, Msg)>,
    pub(crate) gaps: Vec<Value>,
    pub(crate) is_open: bool,
}

/// The outcome: figures for people, and faults, of which there should be none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    /// In the history.
    pub(crate) messages: usize,
    /// Acknowledged, and those with a copy elsewhere at the reply.
    pub(crate) acknowledged: usize,
    pub(crate) copied: usize,
    /// Without any reply, and those of them that are in the history all the same.
    pub(crate) unknown: usize,
    pub(crate) unknown_kept: usize,
    pub(crate) refused: usize,
    /// Acknowledged without copies and lost with the node, as the contract allows.
    pub(crate) excused: usize,
    /// Shown by a node that was killed before anybody else had it, as the contract allows.
    pub(crate) vanished: usize,
    /// Not recovered since more was missed than a node replays, as the contract allows.
    pub(crate) too_far: usize,
    /// Attempts beyond the first of a message.
    pub(crate) retries: usize,
    /// Readers, those of them that read to the end and so must have been shown everything, what
    /// they were shown in all, and how often they went on elsewhere.
    pub(crate) readers: usize,
    pub(crate) to_the_end: usize,
    pub(crate) shown: usize,
    pub(crate) moves: usize,
    counts: BTreeMap<Kind, usize>,
    pub(crate) faults: Vec<String>,
}

impl Verdict {
    /// How many faults of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// How many faults in all.
    pub(crate) fn fault_count(&self) -> usize {
        self.counts.values().sum()
    }

    /// Notes a fault.
    pub(crate) fn fault(&mut self, kind: Kind, text: impl Into<String>) {
        *self.counts.entry(kind).or_default() += 1;
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(format!("{kind:?}: {}", text.into()));
        }
    }
}

/// Judges all.
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let known = Known::of(evidence);
    let mut verdict = Verdict {
        messages: evidence.history.len(),
        ..Verdict::default()
    };
    contents(evidence, &mut verdict);
    order_and_once_of_history(&evidence.history, &mut verdict);
    kept(evidence, &known, &mut verdict);
    origin_of_history(evidence, &known, &mut verdict);
    senders_order(evidence, &known, &mut verdict);
    for chain in chains(evidence) {
        chain.judge(evidence, &known, &mut verdict);
    }
    verdict
}

/// What open readers have not been shown yet of the history.
pub(crate) fn awaited(evidence: &Evidence) -> Vec<String> {
    let known = Known::of(evidence);
    let open = chains(evidence).into_iter().filter(|chain| chain.open);
    let name = |chain: &Chain<'_>, message: &Msg| format!("{} lacks {}", chain.person, message.id);
    open.flat_map(|chain| {
        let missing = chain.missing(&known, evidence).into_iter();
        missing
            .map(|message| name(&chain, message))
            .collect::<Vec<_>>()
    })
    .collect()
}

/// What is known of all ids and mids.
struct Known<'a> {
    by_id: HashMap<&'a str, &'a Msg>,
    by_mid: HashMap<&'a str, &'a Msg>,
    /// All attempts of a mid in this room, in the order in which they were made.
    attempts: HashMap<&'a str, Vec<&'a Attempt>>,
    /// All ids under which a mid was ever kept, shown or acknowledged.
    ids: HashMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Known<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let history = &evidence.history;
        let mut known = Self {
            by_id: history.iter().map(|msg| (msg.id.as_str(), msg)).collect(),
            by_mid: history
                .iter()
                .filter_map(|msg| Some((msg.mid.as_deref()?, msg)))
                .collect(),
            attempts: HashMap::new(),
            ids: HashMap::new(),
        };
        for message in seen(evidence) {
            if let Some(mid) = &message.mid {
                known.ids.entry(mid).or_default().insert(&message.id);
            }
        }
        for attempt in attempts(evidence) {
            let tries = known.attempts.entry(&attempt.mid).or_default();
            tries.push(attempt);
            if let Some(id) = attempt.id() {
                known.ids.entry(&attempt.mid).or_default().insert(id);
            }
        }
        for tries in known.attempts.values_mut() {
            tries.sort_by_key(|attempt| attempt.sent_at);
        }
        known
    }

    /// Whether the entry may be that of an attempt that got no reply: made at its node.
    fn may_be_unanswered(&self, message: &Msg) -> bool {
        let tries = message
            .mid
            .as_deref()
            .and_then(|mid| self.attempts.get(mid));
        let unanswered = |attempt: &&Attempt| {
            attempt.fate == Fate::Unknown && attempt.origin == message.origin()
        };
        tries.is_some_and(|tries| tries.iter().any(unanswered))
    }
}

/// All attempts in the room.
fn attempts(evidence: &Evidence) -> impl Iterator<Item = &Attempt> {
    let all = evidence.traces.iter().flat_map(|trace| &trace.attempts);
    all.filter(|attempt| attempt.room == evidence.room)
}

/// All messages of the room that anybody keeps or was ever shown.
fn seen(evidence: &Evidence) -> impl Iterator<Item = &Msg> {
    let in_room = |message: &&Msg| message.room == evidence.room;
    let shown = evidence.traces.iter().flat_map(|trace| {
        let replayed = trace.joins.iter().flat_map(|join| &join.joined.messages);
        replayed.chain(trace.messages.iter().map(|(_, message)| message))
    });
    evidence.history.iter().chain(shown).filter(in_room)
}

/// One `(origin, seq)`, one content, whoever saw it.
fn contents(evidence: &Evidence, verdict: &mut Verdict) {
    let mut first: HashMap<&str, &Msg> = HashMap::new();
    for message in seen(evidence) {
        let known = first.entry(&message.id).or_insert(message);
        if *known != message {
            verdict.fault(Kind::Altered, format!("{known:?} was also {message:?}"));
        }
    }
}

pub(super) fn order_and_once_of_history(history: &[Msg], verdict: &mut Verdict) {
    for pair in history.windows(2) {
        if pair[0].place() >= pair[1].place() {
            verdict.fault(Kind::Misordered, format!("the history: {pair:?}"));
        }
    }
    once(history.iter(), "the history", verdict);
}

/// No id and no mid twice.
fn once<'a>(messages: impl Iterator<Item = &'a Msg>, whose: &str, verdict: &mut Verdict) {
    let mut ids = HashSet::new();
    let mut mids = HashSet::new();
    for message in messages {
        let again = !ids.insert(&message.id);
        if again || message.mid.as_ref().is_some_and(|mid| !mids.insert(mid)) {
            verdict.fault(Kind::Doubled, format!("{whose}: twice {message:?}"));
        }
    }
}

/// Acknowledged is kept, under the id of a reply; refused is not.
fn kept(evidence: &Evidence, known: &Known<'_>, verdict: &mut Verdict) {
    for (mid, tries) in &known.attempts {
        verdict.retries += tries.len() - 1;
        let kept = known.by_mid.get(mid);
        let accepted: Vec<_> = tries.iter().filter_map(|attempt| attempt.sent()).collect();
        if accepted.is_empty() {
            if tries.iter().any(|attempt| attempt.fate == Fate::Unknown) {
                verdict.unknown += 1;
                verdict.unknown_kept += usize::from(kept.is_some());
            } else {
                verdict.refused += 1;
                if let Some(kept) = kept {
                    verdict.fault(Kind::Phantom, format!("{kept:?} was refused: {tries:?}"));
                }
            }
            continue;
        }
        verdict.acknowledged += 1;
        verdict.copied += usize::from(accepted.iter().any(|sent| sent.copies > 0));
        let Some(kept) = kept else {
            let may_be_lost = |sent: &&&Sent| sent.copies == 0 && evidence.may_lose(sent.origin());
            if accepted.iter().filter(may_be_lost).count() == accepted.len() {
                verdict.excused += 1;
            } else {
                verdict.fault(Kind::Lost, format!("acknowledged and not kept: {tries:?}"));
            }
            continue;
        };
        let same = accepted.iter().find(|sent| sent.id == kept.id);
        if same.is_some_and(|sent| sent.ts != kept.ts)
            || (same.is_none() && !known.may_be_unanswered(kept))
        {
            let text = format!("{kept:?} was acknowledged as {accepted:?}");
            verdict.fault(Kind::Altered, text);
        }
    }
}

/// What is kept was sent, with this text and by this name.
fn origin_of_history(evidence: &Evidence, known: &Known<'_>, verdict: &mut Verdict) {
    for message in &evidence.history {
        let tries = message
            .mid
            .as_deref()
            .and_then(|mid| known.attempts.get(mid));
        let Some(tries) = tries else {
            verdict.fault(Kind::Phantom, format!("nobody sent {message:?}"));
            continue;
        };
        let same =
            |attempt: &&&Attempt| attempt.text == message.text && attempt.from == message.from;
        if !tries.iter().any(|attempt| same(&attempt)) {
            verdict.fault(Kind::Altered, format!("{message:?} was sent as {tries:?}"));
        }
    }
}

/// What one sender said on one connection has numbers in that order, as far as its node numbered
/// it. A retry was said earlier, elsewhere.
fn senders_order(evidence: &Evidence, known: &Known<'_>, verdict: &mut Verdict) {
    let mut said: HashSet<(&str, &str)> = HashSet::new();
    for trace in &evidence.traces {
        let mut last = 0;
        let in_room = |attempt: &&Attempt| attempt.room == evidence.room;
        for attempt in trace.attempts.iter().filter(in_room) {
            if !said.insert((&trace.person, &attempt.mid)) {
                continue;
            }
            let kept = known.by_mid.get(attempt.mid.as_str());
            let id = attempt.id().or(kept.map(|kept| kept.id.as_str()));
            let Some((origin, seq)) = id.and_then(|id| id.split_once('.')) else {
                continue;
            };
            let seq = seq.parse().unwrap_or(0);
            if origin != trace.origin {
                continue;
            }
            if seq <= last {
                let text = format!("{} said {attempt:?} after {origin}.{last}", trace.person);
                verdict.fault(Kind::Misordered, text);
            }
            last = seq.max(last);
        }
    }
}
