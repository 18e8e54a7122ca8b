//! Taking entries: each is accepted once, in the order of its log, shown, delivered, and let go when
//! there are too many.

use std::sync::Arc;

use super::bounds::ACCEPTED_KEPT_MAX;
use super::clock::Now;
use super::log::{AHEAD_ALL_BYTES_MAX, Arrival, Log};
use super::mids::{self, Verdict};
use super::output::Output;
use super::rules;
use super::state::Core;
use crate::model::entry::Entry;
use crate::model::names::Origin;

impl Core {
    /// Takes entries from a link or a repair.
    pub(super) fn arrive(
        &mut self,
        origin: Origin,
        entries: impl IntoIterator<Item = Arc<Entry>>,
        now: Now,
    ) -> usize {
        let mut entries = entries.into_iter().peekable();
        let held = self.logs.get(&origin).map_or(0, Log::held);
        if let Some(first) = entries.peek()
            && first.seq > held + 1
            && self.logs.values().map(Log::held_back_bytes).sum::<usize>() >= AHEAD_ALL_BYTES_MAX
        {
            let seq = first.seq;
            self.log_mut(origin).claim(seq);
            return 0;
        }
        let mut accepted = std::mem::take(&mut self.accepted);
        let log = self.logs.entry(origin).or_default();
        for entry in entries {
            if log.arrive(entry, &mut accepted) == Arrival::Refused {
                break;
            }
        }
        let count = accepted.len();
        self.accept(origin, accepted, now);
        count
    }

    /// Keeps, shows and delivers entries that this origin's log has accepted. The list is
    /// kept, empty, for the next.
    pub(super) fn accept(&mut self, origin: Origin, mut accepted: Vec<Arc<Entry>>, now: Now) {
        self.note_times(origin, accepted.iter().map(|entry| entry.ts));
        let log = self.log_mut(origin);
        log.counts.received += accepted.len() as u64;
        let whole = log.whole();
        for entry in &accepted {
            self.clock.observe(entry.ts, now.wall_us);
            self.store.keep(entry);
        }
        if accepted.len() == 1
            && let Some(entry) = accepted.pop()
        {
            let verdict = self.mids.note(&entry, |id| self.store.get(id).is_some());
            self.accept_one(entry, &verdict, whole);
        }
        while !accepted.is_empty() {
            let together = accepted.len().min(mids::NOTED_TOGETHER);
            let kept = |id| self.store.get(id).is_some();
            let verdicts = self.mids.note_together(&accepted[..together], kept);
            for (entry, verdict) in accepted.drain(..together).zip(verdicts) {
                self.accept_one(entry, &verdict, whole);
            }
        }
        if accepted.capacity() <= ACCEPTED_KEPT_MAX {
            self.accepted = accepted;
        }
        self.trim(now);
    }

    fn accept_one(&mut self, entry: Arc<Entry>, verdict: &Verdict, whole: u64) {
        if *verdict != Verdict::Repeats {
            self.store.show(&entry);
        }
        self.hand_to_disk(&entry, verdict);
        match verdict {
            Verdict::First if self.ready => self.outputs.push(Output::Deliver(entry, whole)),
            Verdict::Replaces(place, _) => self.store.hide(&entry.room, *place),
            Verdict::First | Verdict::Repeats | Verdict::Outlives => {}
        }
    }

    pub(super) fn trim(&mut self, now: Now) {
        let mut at = None;
        loop {
            // What the disk has not got yet is only here.
            let journal = self.journal.as_ref();
            let may = |entry: &Entry| journal.is_none_or(|it| it.has_written(entry.id()));
            let Some(entry) = self.store.trim(may) else {
                break;
            };
            if self.is_durable() {
                self.log_mut(entry.origin).evicted(entry.seq);
            } else {
                let at = *at.get_or_insert_with(|| self.trim_time(now));
                let log = self.log_mut(entry.origin);
                log.trimmed(entry.seq, entry.ts);
                log.times.trim(at);
            }
            let kept = |id| self.store.get(id).is_some();
            let instead = rules::shown_instead(self.mids.trimmed(&entry, now, kept));
            if let Some(entry) = instead.and_then(|id| self.store.get(id)) {
                self.store.show(&entry);
            }
        }
    }
}
