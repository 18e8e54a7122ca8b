//! What retention lets go of: no more than is too much, the oldest first, and nothing in silence.

use std::time::Duration;

use super::disk::Disk;
use super::exempt::Exempt;
use super::nodes::Comes;
use super::world::{Event, NodeId, World};
use crate::core::Input;
use crate::core::log::Span;
use crate::core::memory::cost;
use crate::model::names::{EntryId, Origin};

impl Disk {
    /// The number through which a log was trimmed here at a time.
    pub(super) fn floor_at(&self, origin: Origin, at: Duration) -> u64 {
        let until = self.trims.iter().rev().filter(|(then, _)| *then <= at);
        let mut floors = until.filter_map(|(_, floors)| floors.get(&origin));
        floors.next().copied().unwrap_or_default()
    }
}

impl World {
    /// Retention removes what is too much, and the node hears of it a little later.
    pub(super) fn trim_disk(&mut self, id: NodeId) {
        let wall_us = self.clocks_of(id).wall_us;
        let now = self.now;
        let Some(disk) = self.disk_of_mut(id) else {
            return;
        };
        let floors = disk.trim(wall_us);
        if floors.is_empty() {
            return;
        }
        disk.trims.push((now, floors.clone()));
        self.note("disk trimmed");
        let after = self.disk_takes(id);
        let floors = floors.into_iter().collect();
        let trimmed = Comes::Input(Input::DiskTrimmed(floors));
        self.at(after, Event::Input(id, trimmed));
    }

    /// Whether a node had an entry, or would have had it, and keeps it no more: it lies where the node
    /// has trimmed, or began behind what others had.
    pub(super) fn has_let_go(&self, id: NodeId, entry: EntryId) -> bool {
        let log = self.nodes[id].core.log(entry.origin);
        // The disk may have trimmed it, and the node will hear of that.
        let disk = self.disk_of(id).map_or(0, |disk| disk.floor(entry.origin));
        let gone = log.map_or(0, |log| log.floor()).max(disk) >= entry.seq;
        gone && self.passes(Exempt::LetGo)
    }

    /// Whether a node keeps an entry: in memory, or on its disk. What its disk has trimmed may be in memory
    /// for a while, and is given to nobody who joins.
    pub(super) fn keeps(&self, id: NodeId, entry: EntryId) -> bool {
        let log = self.nodes[id].core.log(entry.origin);
        if log.is_some_and(|log| log.floor() >= entry.seq) {
            return false;
        }
        self.has(id, entry)
    }

    /// Whether a node has an entry, in memory or on its disk.
    pub(super) fn has(&self, id: NodeId, entry: EntryId) -> bool {
        self.holds(id, entry) || self.disk_of(id).is_some_and(|disk| disk.has(entry))
    }

    /// Whether nobody who lives keeps an entry.
    pub(super) fn is_kept_nowhere(&self, entry: EntryId) -> bool {
        !self.live().iter().any(|id| self.keeps(*id, entry))
    }

    /// Whether somebody, dead or alive, had an entry and let it go.
    pub(super) fn has_been_let_go(&self, entry: EntryId) -> bool {
        (0..self.nodes.len()).any(|id| self.has_let_go(id, entry))
    }

    /// What a node has let go of was too much: its memory is full, and has nothing older; or its disk
    /// removed it; or it was trimmed before the node came.
    pub(super) fn only_too_much_is_let_go(&self, id: NodeId) {
        let node = &self.nodes[id];
        let mut let_go = None;
        for other in &self.nodes {
            let Some(log) = node.core.log(other.origin) else {
                continue;
            };
            let origin = other.origin;
            let began = node.began_behind.get(&origin).copied();
            let floor = log.floor();
            if floor <= began.unwrap_or_default().max(log.started_behind()) {
                continue;
            }
            if let Some(disk) = self.disk_of(id) {
                if floor > disk.floor(origin) {
                    self.broken(format!("n{id} has trimmed {origin} through {floor}"));
                }
                continue;
            }
            let last = EntryId { origin, seq: floor };
            let place = self.ledger.get(last).map(|said| said.entry.place());
            let_go = let_go.max(place);
        }
        let Some(let_go) = let_go else { return };
        let retention = self.plan.retention;
        let (count, bytes) = node.core.kept();
        let most = self.ledger.iter().map(|said| cost(&said.entry)).max();
        let full = count >= retention.messages || bytes + most.unwrap_or(0) > retention.bytes;
        if !full {
            self.broken(format!("n{id} has trimmed, though it keeps only {count}"));
        }
        let origins = self.nodes.iter().map(|other| other.origin);
        let kept = origins.filter_map(|origin| self.first_kept(id, origin));
        let kept = kept.min();
        if kept.is_some_and(|kept| kept < let_go) {
            self.broken(format!(
                "n{id} keeps {kept:?}, and has let go of {let_go:?}"
            ));
        }
    }

    /// Where the first entry of a log stands that a node has in memory.
    fn first_kept(&self, id: NodeId, origin: Origin) -> Option<crate::model::entry::Place> {
        let log = self.nodes[id].core.log(origin)?;
        let span = Span {
            after: log.window(),
            through: log.held(),
        };
        let page = self.nodes[id].core.log_page(origin, span, 1);
        page.entries.first().map(|entry| entry.place())
    }
}
