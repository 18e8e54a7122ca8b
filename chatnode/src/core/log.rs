//! One origin's log as this node holds it: what is here, what is missing, what is gone for good.
//!
//! The entries themselves are in the store. A log is a few numbers and the entries that came too
//! early. From the front: trimmed through `floor`, then, on a node with a disk, only there through
//! `window`, held through `held` (except the passed holes), then nothing, then what was held back
//! until the numbers between arrive.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::position::Times;
use super::rules;
use crate::model::entry::{Entry, TS_MAX};

/// Entries of one origin that are held back at the most; those beyond are dropped and repaired.
pub(super) const AHEAD_ENTRIES_MAX: usize = 8192;
/// Bytes of JSON of one origin that are held back at the most.
pub(super) const AHEAD_BYTES_MAX: usize = 4 << 20;
/// Bytes of JSON that are held back at the most, over all origins; an entry more is dropped and repaired.
pub(super) const AHEAD_ALL_BYTES_MAX: usize = 64 << 20;
/// Holes of one origin that are remembered at the most; the oldest is forgotten first.
pub(crate) const HOLES_MAX: usize = 256;

/// The last number that a log may have. Higher ones are nonsense from the wire, and ignored.
pub(crate) const SEQ_MAX: u64 = i64::MAX as u64;

/// The numbers `after < seq <= through` of one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The last number before it.
    pub(crate) after: u64,
    /// Its last number.
    pub(crate) through: u64,
}

/// What became of an entry that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was the next, or the next of a later one was found: some entries were accepted.
    Accepted,
    /// It was here already, or trimmed.
    Duplicate,
    /// Numbers before it are missing.
    HeldBack,
    /// Numbers before it are missing and too much is held back already; it must come again.
    Refused,
}

/// What is counted of a log, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Entries accepted, repaired ones included.
    pub(crate) received: u64,
    /// Times that numbers were found missing.
    pub(crate) gaps: u64,
    /// Entries that came by repair.
    pub(crate) repaired: u64,
    /// Numbers that nobody had and that were passed.
    pub(crate) lost: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            gaps: self.gaps + other.gaps,
            repaired: self.repaired + other.repaired,
            lost: self.lost + other.lost,
        }
    }
}

/// The numbers of one origin's log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    held: u64,
    floor: u64,
    /// The stamp of the last that was trimmed; [`TS_MAX`] if it is not known.
    floor_ts: u64,
    window: u64,
    claimed: u64,
    /// The floor that the origin itself told.
    settled: u64,
    /// The highest floor that a peer told.
    elsewhere: u64,
    /// The number behind which it was begun.
    behind: u64,
    /// The last number of holes that are remembered no more.
    forgotten: u64,
    /// What is held back.
    ahead: BTreeMap<u64, Arc<Entry>>,
    ahead_bytes: usize,
    holes: Vec<Span>,
    /// Whether what is missing now was counted as a gap.
    counted: bool,
    /// For people.
    pub(crate) counts: Counts,
    /// What positions must know of it.
    pub(super) times: Times,
}

impl Log {
    /// A log as a disk has it: trimmed through `floor`, and but for `holes` held through `held`,
    /// of which what lies beyond `window` is in memory.
    pub(super) fn restored(floor: u64, window: u64, held: u64, holes: Vec<Span>) -> Self {
        let mut log = Self {
            held,
            floor,
            floor_ts: if floor > 0 { TS_MAX } else { 0 },
            window: window.max(floor),
            claimed: held,
            counts: Counts {
                lost: holes.iter().map(|hole| hole.through - hole.after).sum(),
                ..Counts::default()
            },
            holes,
            ..Self::default()
        };
        log.forget_holes();
        log
    }

    /// The last number held, but for holes that were passed; what this node's position says.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// The last number before the first hole, of any kind: for clients. What is in a hole that was passed
    /// may come yet, and a client may have seen it elsewhere.
    pub(super) fn whole(&self) -> u64 {
        let hole = self.holes.first();
        hole.map_or(self.held, |hole| hole.after)
    }

    /// The last number before the first hole that its origin may still fill: what this node may
    /// acknowledge.
    pub(super) fn solid(&self) -> u64 {
        let open = self.holes.iter().find(|hole| hole.through > self.settled);
        rules::first_open(open).map_or(self.held, |hole| hole.after)
    }

    /// The origin says that it has trimmed through this number.
    pub(super) fn settle(&mut self, floor: u64) {
        self.settled = self.settled.max(floor);
    }

    /// The last number that is known to exist.
    pub(super) fn reaches(&self) -> u64 {
        self.claimed
    }

    /// The number behind which this log was started: what was before, this node never had.
    pub(super) fn started_behind(&self) -> u64 {
        self.behind
    }

    /// The number through which something may never have been here, of whatever room, and is in no hole that
    /// is remembered.
    pub(super) fn unknown(&self) -> u64 {
        self.behind.max(self.forgotten)
    }

    /// The number through which retention has trimmed: nothing of that is kept.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The stamp of the last that was trimmed; [`TS_MAX`] if it is not known.
    pub(super) fn floor_ts(&self) -> u64 {
        self.floor_ts
    }

    /// The number through which nothing is in memory: what lies between the floor and it is on this
    /// node's disk only.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// A peer says that it has trimmed through this number.
    pub(super) fn trimmed_elsewhere(&mut self, floor: u64) {
        if floor <= SEQ_MAX {
            self.elsewhere = self.elsewhere.max(floor);
        }
    }

    /// Whether a peer has had, and let go of, all that is missing through this number.
    pub(super) fn is_trimmed_elsewhere(&self, through: u64) -> bool {
        through <= self.elsewhere
    }

    /// Holes that were passed and not filled since, oldest first.
    pub(super) fn holes(&self) -> &[Span] {
        &self.holes
    }

    /// Entries that wait for those before them, within a span.
    pub(super) fn held_back(&self, span: Span) -> impl Iterator<Item = &Arc<Entry>> {
        let through = span.through.min(SEQ_MAX);
        let after = span.after.min(through);
        let span = (after + 1)..(through + 1);
        self.ahead.range(span).map(|(_, entry)| entry)
    }

    /// Bytes of them.
    pub(super) fn held_back_bytes(&self) -> usize {
        self.ahead_bytes
    }

    /// Somebody says that the origin's log reaches this number.
    pub(super) fn claim(&mut self, seq: u64) {
        if seq <= SEQ_MAX {
            self.claimed = self.claimed.max(seq);
        }
    }

    /// Takes an entry. What can be shown now, in order, is appended to `accepted`.
    pub(super) fn arrive(&mut self, entry: Arc<Entry>, accepted: &mut Vec<Arc<Entry>>) -> Arrival {
        let seq = entry.seq;
        if seq > SEQ_MAX {
            return Arrival::Refused;
        }
        self.claim(seq);
        if rules::is_next(seq, self.held) {
            self.held = seq;
            accepted.push(entry);
            self.release(accepted);
            self.counted &= self.missing().is_some();
            return Arrival::Accepted;
        }
        if seq <= self.held {
            return self.fill(entry, accepted);
        }
        if self.ahead.contains_key(&seq) {
            return Arrival::Duplicate;
        }
        let bytes = self.ahead_bytes + entry.json.len();
        if self.ahead.len() >= AHEAD_ENTRIES_MAX || bytes > AHEAD_BYTES_MAX {
            return Arrival::Refused;
        }
        if !std::mem::replace(&mut self.counted, true) {
            self.counts.gaps += 1;
        }
        self.ahead_bytes = bytes;
        self.ahead.insert(seq, entry);
        Arrival::HeldBack
    }

    /// The first numbers that are missing, if any are known to exist.
    pub(super) fn missing(&self) -> Option<Span> {
        let through = match self.ahead.first_key_value() {
            Some((first, _)) => first - 1,
            None => self.claimed,
        };
        (through > self.held).then_some(Span {
            after: self.held,
            through,
        })
    }

    /// What is missing is asked for, though nothing came that shows it: a tail was lost. Not if this
    /// node is only joining: what was said before it came is no gap.
    pub(super) fn asked_for(&mut self, joining: bool) {
        if !std::mem::replace(&mut self.counted, true) && !joining {
            self.counts.gaps += 1;
        }
    }

    /// Gives up on numbers that nobody has: goes on behind them.
    pub(super) fn pass(&mut self, through: u64, accepted: &mut Vec<Arc<Entry>>) -> Span {
        let span = Span {
            after: self.held,
            through,
        };
        self.counts.lost += through - self.held;
        self.holes.push(span);
        self.forget_holes();
        self.held = through;
        self.claim(through);
        self.release(accepted);
        self.counted &= self.missing().is_some();
        span
    }

    /// Notes that retention trimmed through this number, of which the last had this stamp.
    pub(super) fn trimmed(&mut self, through: u64, ts: u64) {
        if through > self.floor {
            self.floor_ts = ts;
        }
        self.floor = self.floor.max(through);
        self.window = self.window.max(through);
        let gone = self.holes.partition_point(|hole| hole.through <= through);
        self.drop_holes(gone);
    }

    /// Notes that what is in memory begins behind this number; before it there is the disk.
    pub(super) fn evicted(&mut self, through: u64) {
        self.window = self.window.max(through);
    }

    /// Starts behind what others have trimmed, of which the last had this stamp, if this log has not
    /// started: not a hole.
    pub(super) fn start_behind(&mut self, floor: u64, ts: u64, accepted: &mut Vec<Arc<Entry>>) {
        if !rules::has_begun(self.held) && (1..=SEQ_MAX).contains(&floor) {
            self.skip(floor, accepted);
            self.floor_ts = ts;
        }
    }

    /// Goes on behind what all others trimmed while this node joined: as if it had come later.
    pub(super) fn skip(&mut self, through: u64, accepted: &mut Vec<Arc<Entry>>) {
        self.held = through;
        self.floor = through;
        self.floor_ts = TS_MAX;
        self.window = through;
        self.behind = through;
        self.claim(through);
        self.release(accepted);
        self.counted &= self.missing().is_some();
    }

    fn forget_holes(&mut self) {
        self.drop_holes(self.holes.len().saturating_sub(HOLES_MAX));
    }

    fn drop_holes(&mut self, count: usize) {
        let last = self.holes.drain(..count).next_back();
        self.forgotten = self.forgotten.max(last.map_or(0, |hole| hole.through));
    }

    /// Moves entries that need not wait any longer.
    fn release(&mut self, accepted: &mut Vec<Arc<Entry>>) {
        while let Some(first) = self.ahead.first_entry() {
            if rules::waits_on(*first.key(), self.held) {
                break;
            }
            let (seq, entry) = first.remove_entry();
            self.ahead_bytes -= entry.json.len();
            if seq == self.held + 1 {
                self.held = seq;
                accepted.push(entry);
            }
        }
    }

    /// An entry below `held`: new only if it lies in a hole that was passed.
    fn fill(&mut self, entry: Arc<Entry>, accepted: &mut Vec<Arc<Entry>>) -> Arrival {
        let seq = entry.seq;
        let inside = |hole: &Span| hole.after < seq && seq <= hole.through;
        let Some(index) = self.holes.iter().position(inside) else {
            return Arrival::Duplicate;
        };
        let hole = self.holes.remove(index);
        let rest = [
            Span {
                after: hole.after,
                through: seq - 1,
            },
            Span {
                after: seq,
                through: hole.through,
            },
        ];
        for (offset, span) in rest.into_iter().filter(|s| s.through > s.after).enumerate() {
            self.holes.insert(index + offset, span);
        }
        self.forget_holes();
        self.counts.lost -= 1;
        accepted.push(entry);
        Arrival::Accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::EntryId;

    fn entry(seq: u64) -> Arc<Entry> {
        let id = EntryId {
            origin: "aaaaaaaaaa".parse().unwrap(),
            seq,
        };
        let name = "ada".parse().unwrap();
        Arc::new(Entry::new(
            id,
            seq,
            "lobby".parse().unwrap(),
            None,
            &name,
            "hello",
        ))
    }

    fn span(after: u64, through: u64) -> Span {
        Span { after, through }
    }

    /// Feeds numbers, returns those accepted, in order.
    fn feed(log: &mut Log, seqs: &[u64]) -> Vec<u64> {
        let mut accepted = Vec::new();
        for &seq in seqs {
            log.arrive(entry(seq), &mut accepted);
        }
        accepted.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn entries_are_accepted_once_and_in_order() {
        let mut log = Log::default();
        assert_eq!(feed(&mut log, &[1, 1, 3, 5, 3]), [1]);
        assert_eq!(log.missing(), Some(span(1, 2)));
        assert_eq!(feed(&mut log, &[2, 2]), [2, 3]);
        assert_eq!(log.missing(), Some(span(3, 4)));
        assert_eq!(feed(&mut log, &[4]), [4, 5]);
        assert_eq!((log.missing(), log.held()), (None, 5));
    }

    #[test]
    fn a_claim_reveals_a_missing_tail() {
        let mut log = Log::default();
        feed(&mut log, &[1]);
        log.claim(3);
        assert_eq!(log.missing(), Some(span(1, 3)));
    }

    #[test]
    fn a_gap_is_counted_once_whether_an_entry_or_a_request_shows_it() {
        let mut log = Log::default();
        feed(&mut log, &[1, 4, 5]);
        log.asked_for(false);
        assert_eq!(log.counts.gaps, 1);
        feed(&mut log, &[2, 3]);
        log.claim(7);
        log.asked_for(false);
        log.asked_for(false);
        feed(&mut log, &[6]);
        log.asked_for(false);
        assert_eq!(log.counts.gaps, 2);
        feed(&mut log, &[7, 9]);
        assert_eq!(log.counts.gaps, 3);
        let mut joined = Log::default();
        joined.claim(3);
        joined.asked_for(true);
        feed(&mut joined, &[1]);
        joined.asked_for(false);
        assert_eq!(joined.counts.gaps, 0);
    }

    #[test]
    fn a_hole_is_passed_and_may_be_filled_later() {
        let mut log = Log::default();
        feed(&mut log, &[1, 5]);
        let mut accepted = Vec::new();
        assert_eq!(log.pass(4, &mut accepted), span(1, 4));
        assert_eq!(accepted.len(), 1);
        assert_eq!((log.held(), log.counts.lost), (5, 3));
        assert_eq!(feed(&mut log, &[3]), [3]);
        let holes = [span(1, 2), span(3, 4)];
        assert_eq!(log.holes(), holes);
        assert_eq!(feed(&mut log, &[3, 2, 4]), [2, 4]);
        assert_eq!((log.holes().len(), log.counts.lost), (0, 0));
    }

    #[test]
    fn a_log_that_others_have_trimmed_starts_behind_their_floor() {
        let mut log = Log::default();
        feed(&mut log, &[502]);
        let mut accepted = Vec::new();
        log.start_behind(500, TS_MAX, &mut accepted);
        assert_eq!(feed(&mut log, &[501]), [501, 502]);
        assert_eq!((log.floor(), log.held()), (500, 502));
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut log = Log::default();
        let seqs: Vec<u64> = (2..).take(AHEAD_ENTRIES_MAX + 1).collect();
        feed(&mut log, &seqs);
        assert_eq!(
            log.held_back(Span {
                after: 0,
                through: u64::MAX
            })
            .count(),
            AHEAD_ENTRIES_MAX
        );
        assert_eq!(feed(&mut log, &[1]).len(), AHEAD_ENTRIES_MAX + 1);
        assert!(
            log.missing().is_some(),
            "the refused one is still known to exist"
        );
    }
}
