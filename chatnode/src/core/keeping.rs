//! The keeper's part in a [`Core`]: what it is given, and who is told that it has something.

use std::sync::Arc;

use super::clock::Now;
use super::copies::{Kept, OTHERS_WAITING_MAX};
use super::keeper::{Flight, KeeperBatch, KeeperStatus, Keeping, OTHERS_KEPT_MAX};
use super::log::Log;
use super::output::Output;
use super::state::Core;
use crate::model::entry::Entry;
use crate::model::names::EntryId;

/// Entries in a batch at the most,
const BATCH_ENTRIES_MAX: usize = 4096;
/// and bytes of their JSON, about.
const BATCH_BYTES_MAX: usize = 1 << 20;

impl Core {
    /// The keeper is there, and whether what it confirms counts.
    pub(super) fn keeper_up(&mut self, counts: bool) {
        if let Some(keeping) = &mut self.keeping {
            keeping.is_up = true;
            keeping.counts = counts;
            keeping.flight = None;
        }
    }

    /// The keeper is away: what becomes of the batch under way is not known, so it is given again.
    pub(super) fn keeper_down(&mut self) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        keeping.is_up = false;
        if let Some(flight) = keeping.flight.take() {
            for id in flight.others.into_iter().rev() {
                keeping.asked.push_front(id);
            }
            keeping.asked.truncate(OTHERS_WAITING_MAX);
        }
    }

    /// The keeper has this batch.
    pub(super) fn keeper_kept(&mut self, number: u64, now: Now) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        // One of before the keeper was away may be meant, which was given again since.
        let Some(flight) = keeping.flight.take_if(|flight| flight.number == number) else {
            return;
        };
        keeping.own.through = keeping.own.through.max(flight.through);
        keeping.others.extend(flight.others);
        let beyond = keeping.others.len().saturating_sub(OTHERS_KEPT_MAX);
        keeping.others.drain(..beyond);
        self.settle_waits(now);
    }

    /// Whether the keeper could be given something now.
    pub(crate) fn wants_keeper(&self) -> bool {
        let head = self.logs.get(&self.me.origin).map_or(0, Log::held);
        let wants = |it: &Keeping| it.is_free() && (it.own.through < head || !it.asked.is_empty());
        self.keeping.as_ref().is_some_and(wants)
    }

    /// Whether the keeper is there and lacks something that was said here.
    pub(crate) fn keeper_lacks(&self) -> bool {
        self.keeper()
            .is_some_and(|keeper| keeper.is_up && keeper.behind > 0)
    }

    /// How the keeper is; `None` without one.
    pub(crate) fn keeper(&self) -> Option<KeeperStatus> {
        let head = self.logs.get(&self.me.origin).map_or(0, Log::held);
        self.keeping.as_ref().map(|keeping| KeeperStatus {
            is_up: keeping.is_up,
            counts: keeping.counts,
            behind: head.saturating_sub(keeping.own.through),
            skipped: keeping.skipped,
        })
    }

    /// Whether the keeper is known to have an entry, where that counts; `None` without a keeper.
    pub(super) fn is_kept(&self, id: EntryId) -> Option<bool> {
        let keeping = self.keeping.as_ref()?;
        Some(keeping.has(id, self.me.origin))
    }

    /// What the keeper has of this node's own log, if there is one whose word counts.
    pub(super) fn counted_by_keeper(&self) -> Option<Kept> {
        self.keeping.as_ref().and_then(Keeping::counted)
    }

    /// A client waits for the keeper to have this.
    pub(super) fn ask_keeper(&mut self, id: EntryId) {
        if let Some(keeping) = &mut self.keeping
            && id.origin != self.me.origin
        {
            keeping.ask(id);
        }
    }

    /// Gives the keeper what waits for it, if it is free. The outcome is an input: `Kept`, or `KeeperDown`.
    pub(super) fn feed_keeper(&mut self) {
        if !self.wants_keeper() {
            return;
        }
        let me = self.me.origin;
        let (head, window) = self
            .logs
            .get(&me)
            .map_or((0, 0), |log| (log.held(), log.window()));
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        if keeping.own.through < window {
            keeping.skipped += window - keeping.own.through;
            keeping.own = Kept {
                after: window,
                through: window,
            };
        }
        let store = &self.store;
        let asked = keeping.asked.drain(..).filter_map(|id| store.get(id));
        let mut batch: Vec<Arc<Entry>> = asked.collect();
        let others = batch.iter().map(|entry| entry.id()).collect();
        let after = keeping.own.through;
        let mut through = after;
        if after < head {
            let own = store.range(me, after, head, BATCH_BYTES_MAX);
            let own = own.into_iter().take(BATCH_ENTRIES_MAX);
            batch.extend(own.inspect(|entry| through = entry.seq));
        }
        if batch.is_empty() {
            return;
        }
        keeping.batches += 1;
        let number = keeping.batches;
        keeping.flight = Some(Flight {
            number,
            through,
            others,
        });
        self.outputs.push(Output::Keep(KeeperBatch {
            number,
            entries: batch,
        }));
    }
}
