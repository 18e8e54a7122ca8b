//! The disk's part in a [`Core`]: what it had at the start, what it is given, what it tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Now;
use super::copies::{COPIES_WAIT_MAX, Ticket, Wait};
use super::input::Say;
use super::journal::{Asked, Health, Journal, Loaded, NotTaken, PENDING_REPAIR_MAX, Staged};
use super::log::{Log, Span};
use super::mids::{MIDS_TRIMMED_MAX, Verdict};
use super::output::{Notice, Output};
use super::position::Times;
use super::rules;
use super::state::Core;
use crate::model::entry::{Entry, TS_MAX};
use crate::model::names::{EntryId, Origin};

/// Bytes of skipped entries that are handed to the disk at once.
const REFILL_BYTES: usize = 1 << 20;

impl Core {
    /// Takes what the node's disk has. From now on nothing is acknowledged that is not there. Only
    /// for a core that has had no other input.
    pub(crate) fn restore(&mut self, now: Now, loaded: Loaded) {
        let mut journal = Journal::new();
        self.mids.archived = true;
        // What repeated a message that the disk has no more is shown in its place.
        let all_known = loaded.mids.len() < MIDS_TRIMMED_MAX;
        for mid in &loaded.mids {
            if self.mids.recall(now, mid) && all_known {
                journal.show(mid.id, true);
            }
        }
        let mut first: BTreeMap<Origin, u64> = BTreeMap::new();
        for (entry, shown) in &loaded.entries {
            let seq = first.entry(entry.origin).or_insert(entry.seq);
            *seq = (*seq).min(entry.seq);
            self.clock.observe(entry.ts, now.wall_us);
            self.store.keep(entry);
            // Two with one mid are both shown if the node died before the disk was told of it.
            let verdict = self.mids.note(entry, |_| true);
            let is_alone = all_known && verdict == Verdict::First;
            let shows = rules::is_shown_again(*shown || is_alone, verdict == Verdict::Repeats);
            if shows {
                self.store.show(entry);
            }
            if shows != *shown {
                journal.show(entry.id(), shows);
            }
        }
        let mut unknown = BTreeMap::new();
        let mut has_older = false;
        // What the disk does not tell may have been just now.
        let trimmed_at = loaded.trimmed_at.unwrap_or(now.wall_us);
        for log in loaded.logs {
            let mut window = first.get(&log.origin).map_or(log.held, |seq| seq - 1);
            // Where there is a hole, there is nothing on the disk either.
            for hole in log.holes.iter().rev() {
                if hole.through == window {
                    window = hole.after;
                }
            }
            has_older |= window > log.floor;
            // In which rooms that was which the disk has trimmed, nobody knows any more.
            unknown.insert(log.origin, window.max(log.floor));
            let mut log_of = Log::restored(log.floor, window, log.held, log.holes);
            log_of.times = Times::restored(log.last_ts, trimmed_at);
            self.logs.insert(log.origin, log_of);
        }
        let first = loaded.entries.first().map(|(entry, _)| entry.place());
        self.store.begins_behind(unknown, first, has_older);
        self.journal = Some(journal);
        self.trim(now);
    }

    /// Whether this node keeps its log on a disk.
    pub(crate) fn is_durable(&self) -> bool {
        self.journal.is_some()
    }

    /// How the disk is; `None` without one.
    pub(crate) fn disk_health(&self) -> Option<Health> {
        self.journal.as_ref().map(Journal::health)
    }

    /// How many entries wait for the disk, own and others'.
    pub(crate) fn disk_waiting(&self) -> (usize, usize) {
        self.journal.as_ref().map_or((0, 0), Journal::waiting)
    }

    /// Entries of others that left memory before the disk had room for them.
    pub(crate) fn disk_skipped(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.unkept)
    }

    /// Whether something waits for the disk, and the disk for something.
    pub(crate) fn wants_disk(&self, mono: Duration) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.wants_disk(mono))
    }

    /// Gives the disk what waits for it, if it is free. The outcome is an input: `Stored`, `DiskFull` or
    /// `DiskBroken`.
    pub(super) fn feed_disk(&mut self, now: Now) {
        let journal = self.journal.as_mut();
        let batch = journal.and_then(|journal| journal.next_batch(now.mono));
        self.outputs.extend(batch.map(Output::Write));
    }

    /// Says something on a node with a disk: it is said once it is there.
    pub(super) fn stage(&mut self, now: Now, say: Say<'_>) {
        let me = self.me.origin;
        let held = self.logs[&me].held();
        let Some(journal) = &mut self.journal else {
            return;
        };
        let asked = Asked {
            ticket: say.ticket,
            need: say.copies,
        };
        if let Some(mid) = rules::mid_of_staged(say.mid)
            && let Some(waits) = journal.retry(now.mono, (say.room, mid), asked)
        {
            return self.refused(say.ticket, waits);
        }
        let takes = journal.takes(now.mono);
        if takes.is_err() {
            return self.refused(say.ticket, takes);
        }
        let id = EntryId {
            origin: me,
            seq: journal.last().unwrap_or(held) + 1,
        };
        let ts = self.clock.stamp(now.wall_us);
        let (room, mid) = (say.room.clone(), say.mid.cloned());
        journal.stage(Staged {
            entry: Arc::new(Entry::new(id, ts, room, mid, say.from, say.text)),
            ack_wanted: say.copies > 0,
            source: say.source,
            since: now.mono,
            asked: vec![asked],
        });
    }

    /// Tells a client that its message was not taken, if it was not.
    fn refused(&mut self, ticket: Ticket, taken: Result<(), NotTaken>) {
        let why = taken.err();
        let told = why.map(|why| Output::NotSaid { ticket, why });
        self.outputs.extend(told);
    }

    /// The batch is on the disk: its own entries are said now. If the disk was full, there is room again.
    pub(super) fn stored(&mut self, now: Now) {
        let was_full = matches!(self.disk_health(), Some(Health::Full(_)));
        let has_room = was_full.then_some(Notice::DiskHasRoom);
        self.outputs.extend(has_room.map(Output::Notice));
        let Some(journal) = &mut self.journal else {
            return;
        };
        let stored = journal.stored();
        let entries = stored.iter().map(|staged| Arc::clone(&staged.entry));
        let entries: Vec<Arc<Entry>> = entries.collect();
        for staged in &stored {
            self.publish(&staged.entry, staged.ack_wanted, staged.source);
        }
        self.arrive(self.me.origin, entries, now);
        for staged in stored {
            // Of a send and its retries the first keeps the order of the waits for own entries.
            for (nth, asked) in staged.asked.into_iter().enumerate() {
                let wait = Wait {
                    ticket: asked.ticket,
                    id: staged.entry.id(),
                    ts: staged.entry.ts,
                    need: asked.need,
                    until: now.mono + COPIES_WAIT_MAX,
                };
                self.answer_or_wait(wait, nth == 0);
            }
        }
        self.trim(now);
        self.refill(now);
    }

    /// The disk is full, and says why. What waited to be said is refused; what others said waits on.
    pub(super) fn disk_full(&mut self, why: String, now: Now) {
        let was_fine = self.disk_health() == Some(Health::Fine);
        let full = was_fine.then_some(Notice::DiskFull(why));
        self.outputs.extend(full.map(Output::Notice));
        let given_up = match &mut self.journal {
            Some(journal) => journal.full(now.mono),
            None => return,
        };
        let asked = given_up.into_iter().flat_map(|staged| staged.asked);
        let why = NotTaken::Full;
        self.outputs.extend(asked.map(|asked| Output::NotSaid {
            ticket: asked.ticket,
            why,
        }));
    }

    /// The disk failed, and the outcome of its batch is not known: nothing is acknowledged any more.
    pub(super) fn disk_broken(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.broken();
        }
    }

    /// The disk's retention has trimmed these logs through these numbers.
    pub(super) fn disk_trimmed(&mut self, now: Now, floors: Vec<(Origin, u64)>) {
        let at = self.trim_time(now);
        for (origin, through) in floors {
            if let Some(log) = self.logs.get_mut(&origin) {
                log.trimmed(through, TS_MAX);
                log.times.trim(at);
            }
        }
    }

    /// What of a span of a log is on this node's disk only.
    pub(super) fn archived(&self, origin: Origin, span: Span) -> Option<Span> {
        let log = self.logs.get(&origin).filter(|_| self.is_durable())?;
        let archived = Span {
            after: span.after.max(log.floor()),
            through: span.through.min(log.window()),
        };
        (archived.after < archived.through).then_some(archived)
    }

    /// Hands an accepted entry to the disk.
    pub(super) fn hand_to_disk(&mut self, entry: &Arc<Entry>, verdict: &Verdict) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let shown = *verdict != Verdict::Repeats;
        if entry.origin != self.me.origin {
            journal.keep(entry, shown);
        } else if !shown {
            // It was written as shown, and another with its mid came meanwhile.
            journal.show(entry.id(), false);
        }
        if let Verdict::Replaces(_, replaced) = verdict {
            journal.show(*replaced, false);
        }
    }

    /// Whether repair waits for the disk.
    pub(super) fn pauses_repair(&mut self) -> bool {
        let Some(journal) = &mut self.journal else {
            return false;
        };
        let pauses = journal.waiting().1 > PENDING_REPAIR_MAX;
        journal.repair_paused |= pauses;
        pauses
    }

    /// Goes on with what waited for the disk.
    pub(super) fn refill(&mut self, now: Now) {
        while let Some((origin, span)) = self.journal.as_mut().and_then(Journal::take_skipped) {
            let entries = self
                .store
                .range(origin, span.after, span.through, REFILL_BYTES);
            let in_memory = self.logs.get(&origin).map_or(0, Log::window);
            let Some(journal) = &mut self.journal else {
                return;
            };
            let gone = in_memory.min(span.through).saturating_sub(span.after);
            journal.unkept += gone;
            let last = entries.last().map_or(span.through, |entry| entry.seq);
            for entry in &entries {
                journal.keep(entry, self.store.is_shown(entry));
            }
            if last < span.through {
                let after = last;
                journal.skip_again(origin, Span { after, ..span });
            }
        }
        let pauses = self.pauses_repair();
        if !pauses
            && let Some(journal) = &mut self.journal
            && std::mem::take(&mut journal.repair_paused)
        {
            let lack = |(_, log): &(&Origin, &Log)| log.missing().is_some();
            let lacking: Vec<Origin> = self.logs.iter().filter(lack).map(|(o, _)| *o).collect();
            for origin in lacking {
                self.repair(origin, now);
            }
        }
    }
}
