//! An archive's part in a [`Core`]: it takes in what a keeper holds.
//!
//! What comes is as what any node sends: a number that is held already is a duplicate, one that is missing is
//! repaired, and what nobody has is passed. So redelivery, two archives and replays need nothing of their own.
//! What was taken is acknowledged to the keeper when it is on the disk ([`Core::taken`]).

use std::sync::Arc;

use super::bounds::ORIGINS_MAX;
use super::clock::Now;
use super::journal::Journal;
use super::log::Span;
use super::rules;
use super::state::Core;
use crate::model::entry::Entry;
use crate::model::names::Origin;

/// Whether an archive can take what a keeper held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// It can.
    Now,
    /// When the disk has room again, or has done more of what waits.
    Later,
    /// Not while it has as many logs as there can be.
    Never,
}

/// How something that a keeper held is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Not, or not whole.
    No,
    /// It waits for the disk, or for what comes before it.
    InMemory,
    /// It is on the disk, or retention has trimmed it there.
    Stored,
}

impl Core {
    /// What a keeper held of some origin's log came.
    pub(super) fn take_from_keeper(&mut self, origin: Origin, entries: Vec<Arc<Entry>>, now: Now) {
        if self.takes_from_keeper(origin) != Takes::Now || origin.is_mark() {
            return;
        }
        // Of its own log this node has all.
        if origin != self.me.origin {
            self.arrive(origin, entries, now);
            if self.logs[&origin].missing().is_some() {
                self.repair(origin, now);
            }
            self.check_roll(now);
        }
    }

    /// All that the keeper held when this archive started is here.
    pub(super) fn keeper_empty(&mut self, now: Now) {
        self.awaited.keeper = false;
        self.check_ready(now);
    }

    /// Whether what a keeper held of this origin's log can be taken in.
    pub(crate) fn takes_from_keeper(&self, origin: Origin) -> Takes {
        let is_known = self.logs.contains_key(&origin);
        match &self.journal {
            _ if !is_known && self.logs.len() >= ORIGINS_MAX => Takes::Never,
            Some(journal) if journal.is_ahead_of_disk() => Takes::Later,
            _ => Takes::Now,
        }
    }

    /// How these consecutive numbers of a log are here, which a keeper held.
    pub(crate) fn taken(&self, origin: Origin, span: Span) -> Taken {
        let Some(log) = self.logs.get(&origin) else {
            return Taken::No;
        };
        let is_open = |hole: &Span| hole.after < span.through && span.after < hole.through;
        if log.held() < span.through || log.holes().iter().any(is_open) {
            let last = Span {
                after: span.through - 1,
                ..span
            };
            return match log.held_back(last).next() {
                Some(_) => Taken::InMemory,
                None => Taken::No,
            };
        }
        let is_written = |journal: &Journal| journal.has_on_disk(origin, span);
        let is_stored = self.journal.as_ref().is_some_and(is_written);
        match rules::may_acknowledge_to_keeper(is_stored) {
            true => Taken::Stored,
            false => Taken::InMemory,
        }
    }
}
