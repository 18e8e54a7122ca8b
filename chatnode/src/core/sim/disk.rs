//! Disks: what a machine keeps when its node dies.
//!
//! A batch is on the disk the moment that its node learns of it; one that was under way when the
//! node died is there or not, as it happens. A disk may be slow, and it may be full.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::nodes::Input;
use super::world::{Event, NodeId, World};
use crate::core::archive::{Archive, Beyond, Need};
use crate::core::journal::{Batch, Loaded, LoadedLog};
use crate::core::log::Span;
use crate::core::memory::Retention;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName};
use crate::model::page::Page;

/// How long a batch takes usually, at the most,
const USUAL_MAX: Duration = Duration::from_millis(3);
/// and on a disk that is slow.
pub(super) const SLOW_MAX: Duration = Duration::from_millis(2500);

/// One disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    entries: BTreeMap<EntryId, (Arc<Entry>, bool)>,
    pub(super) slow_until: Duration,
    pub(super) full_until: Duration,
}

impl Disk {
    pub(super) fn has(&self, id: EntryId) -> bool {
        self.entries.contains_key(&id)
    }

    fn write(&mut self, batch: &Batch) {
        for (entry, shown) in &batch.entries {
            let kept = (Arc::clone(entry), *shown);
            self.entries.entry(entry.id()).or_insert(kept);
        }
        for (id, shown) in &batch.shows {
            if let Some(kept) = self.entries.get_mut(id) {
                kept.1 = *shown;
            }
        }
    }

    /// Each origin's numbers that are here.
    pub(super) fn origins(&self) -> BTreeMap<Origin, Vec<u64>> {
        let mut origins: BTreeMap<Origin, Vec<u64>> = BTreeMap::new();
        for id in self.entries.keys() {
            origins.entry(id.origin).or_default().push(id.seq);
        }
        origins
    }

    /// What a node that starts finds.
    fn load(&self, window: Retention) -> Loaded {
        let mut entries: Vec<_> = self.entries.values().cloned().collect();
        entries.sort_by_key(|(entry, _)| entry.place());
        let surplus = entries.len().saturating_sub(window.messages);
        let older = entries.drain(..surplus).filter(|(_, shown)| *shown);
        let mids = older.filter_map(|(entry, _)| {
            let mid = entry.mid.clone()?;
            Some((entry.room.clone(), mid, entry.place(), entry.id()))
        });
        let mids = mids.collect();
        let logs = self.origins().into_iter().map(|(origin, seqs)| {
            let mut holes = Vec::new();
            let mut after = 0;
            for seq in &seqs {
                let through = seq - 1;
                if through > after {
                    holes.push(Span { after, through });
                }
                after = *seq;
            }
            LoadedLog {
                origin,
                held: after,
                floor: 0,
                holes,
                last_ts: self.entries[&EntryId { origin, seq: after }].0.ts,
            }
        });
        Loaded {
            logs: logs.collect(),
            entries,
            mids,
            trimmed_at: Some(0),
            ..Loaded::default()
        }
    }

    /// All of an origin in a span.
    pub(super) fn range(&self, origin: Origin, span: Span) -> Vec<Arc<Entry>> {
        let inside = |id: &EntryId| id.origin == origin && span.after < id.seq;
        let inside = self
            .entries
            .iter()
            .filter(|(id, _)| inside(id) && id.seq <= span.through);
        inside.map(|(_, (entry, _))| Arc::clone(entry)).collect()
    }

    fn shown(&self, room: &RoomName) -> impl Iterator<Item = &Arc<Entry>> {
        let of_room = |(entry, shown): &&(Arc<Entry>, bool)| *shown && entry.room == *room;
        let kept = self.entries.values().filter(of_room);
        kept.map(|(entry, _)| entry)
    }

    /// Reads what a request needs.
    pub(super) fn read(&self, room: &RoomName, need: Need, archive: &mut Archive) {
        match need {
            Need::Others => unreachable!("others are asked, not the disk"),
            Need::Place(id) => {
                let kept = self.entries.get(&id);
                archive.place = Some(kept.map(|(entry, _)| entry.place()));
            }
            Need::Page {
                before,
                limit,
                trims,
            } => {
                let stands_before =
                    |entry: &&Arc<Entry>| before.is_none_or(|before| entry.place() < before);
                let older = self.shown(room).filter(stands_before);
                let mut entries: Vec<_> = older.cloned().collect();
                entries.sort_by_key(|entry| entry.place());
                let surplus = entries.len().saturating_sub(limit);
                entries.drain(..surplus);
                let more = surplus > 0;
                archive.page = Some((Page { entries, more }, trims));
            }
            Need::Beyond(spans) => {
                let inside = |entry: &&Arc<Entry>| {
                    let within = |(origin, span): &(Origin, Span)| {
                        let after = span.after < entry.seq && entry.seq <= span.through;
                        *origin == entry.origin && after
                    };
                    spans.iter().any(within)
                };
                let entries = Some(self.shown(room).filter(inside).cloned().collect());
                archive.read_beyond(Beyond { spans, entries });
            }
        }
    }
}

impl World {
    pub(super) fn disk_of(&self, id: NodeId) -> Option<&Disk> {
        self.machines[self.nodes[id].slot].disk.as_ref()
    }

    /// A node that has just started gets what its machine kept.
    pub(super) fn restore(&mut self, id: NodeId) {
        let now = self.now_of(id);
        let Some(disk) = self.disk_of(id) else { return };
        let loaded = disk.load(self.plan.retention);
        let origins = disk.origins();
        if !origins.is_empty() {
            self.note("restarted with its history");
        }
        if loaded.logs.iter().any(|log| !log.holes.is_empty()) {
            self.note("restarted with holes");
        }
        for (origin, seqs) in origins {
            let of = self.ledger.node(origin).expect("it said something");
            let node = &mut self.nodes[id];
            node.restored.insert(origin, seqs.len() as u64);
            for seq in seqs {
                node.arrivals.note(of, seq, self.now);
            }
        }
        self.nodes[id].core.restore(now, loaded);
    }

    /// Gives the disk what waits for it, if it is free.
    pub(super) fn feed_disk(&mut self, id: NodeId) {
        let now = self.now_of(id);
        let Some(batch) = self.nodes[id].core.next_batch(now) else {
            return;
        };
        let slow = self
            .disk_of(id)
            .is_some_and(|disk| self.now < disk.slow_until);
        let takes = self.up_to(if slow { SLOW_MAX } else { USUAL_MAX });
        self.nodes[id].writing = Some(batch);
        self.at(takes, Event::Input(id, Input::Disk));
    }

    /// The disk has done, or not done, what it was given.
    pub(super) fn disk_answers(&mut self, id: NodeId) {
        let now = self.now_of(id);
        let world_now = self.now;
        let node = &mut self.nodes[id];
        let Some(batch) = node.writing.take() else {
            return;
        };
        let Some(disk) = self.machines[node.slot].disk.as_mut() else {
            return;
        };
        if world_now < disk.full_until {
            node.core.disk_full(now);
            return self.note("disk full");
        }
        disk.write(&batch);
        node.core.stored(now);
        if batch.entries.len() > 1 {
            self.note("group commit");
        }
    }

    /// A node dies: what was being written is there or not.
    pub(super) fn die_writing(&mut self, id: NodeId) {
        let Some(batch) = self.nodes[id].writing.take() else {
            return;
        };
        let written = self.chance(0.5);
        let (slot, origin) = (self.nodes[id].slot, self.nodes[id].origin);
        let full = self
            .disk_of(id)
            .is_none_or(|disk| self.now < disk.full_until);
        if !written || full {
            return;
        }
        self.note("died with a batch written");
        let own = batch.entries.iter().map(|(entry, _)| entry);
        for entry in own.filter(|entry| entry.origin == origin) {
            // Nobody has seen it, and somebody will.
            if let Err(why) = self.ledger.say(entry, self.now) {
                self.broken(why);
            }
        }
        if let Some(disk) = self.machines[slot].disk.as_mut() {
            disk.write(&batch);
        }
    }

    pub(super) fn disk_trouble(&mut self) {
        let slots = self.plan.slots;
        let slot = self.rng.random_range(0..slots);
        let lasts = Duration::from_millis(self.rng.random_range(200..6_000));
        let until = (self.now + lasts).min(self.plan.faults_end);
        let full = self.chance(0.5);
        let Some(disk) = self.machines[slot].disk.as_mut() else {
            return;
        };
        if full {
            disk.full_until = until;
        } else {
            disk.slow_until = until;
        }
        self.note(if full {
            "fault: full disk"
        } else {
            "fault: slow disk"
        });
        self.tell(|_| format!("the disk of slot {slot} is full ({full}) or slow until {until:?}"));
    }
}
