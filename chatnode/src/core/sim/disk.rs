//! Disks: what a machine keeps when its node dies.
//!
//! A batch is on the disk the moment that its node learns of it; one that was under way when the
//! node died is there or not, as it happens. What is read takes its time too. A disk may be slow, and
//! full; it keeps only so much; and it may fail, which ends its node, and takes some of it along.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::nodes::Comes;
use super::phases::Phase;
use super::world::{Event, NodeId, World};
use crate::core::Input;
use crate::core::journal::{Batch, DISK_WAIT_MAX, Loaded, LoadedLog, LoadedMid};
use crate::core::log::Span;
use crate::core::memory::Retention;
use crate::core::mids::MIDS_TRIMMED_MAX;
use crate::core::question::{Got, LogPage, Read};
use crate::disk::DiskRetention;
use crate::model::entry::{Entry, TS_MAX};
use crate::model::names::{EntryId, Origin, RoomName};
use crate::model::page::Page;

/// How long a batch or a read takes usually, at the most.
const USUAL_MAX: Duration = Duration::from_millis(3);
/// The same on a disk that is slow: some sends wait for so long that the next are refused.
pub(super) const SLOW_MAX: Duration = DISK_WAIT_MAX;

/// One disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    entries: BTreeMap<EntryId, (Arc<Entry>, bool)>,
    /// Of each log the last number that was ever here, and its time.
    last: BTreeMap<Origin, (u64, u64)>,
    /// Through which number each log was trimmed.
    floors: BTreeMap<Origin, u64>,
    /// And since when.
    pub(super) trims: Vec<(Duration, BTreeMap<Origin, u64>)>,
    /// When something was trimmed last, if that can be read.
    trimmed_at: Option<u64>,
    retention: DiskRetention,
    pub(super) slow_until: Duration,
    pub(super) full_until: Duration,
    /// The next batch fails.
    breaks: bool,
    /// What was lost when it failed.
    pub(super) lost: BTreeSet<EntryId>,
}

impl Disk {
    pub(super) fn new(retention: DiskRetention) -> Self {
        Self {
            retention,
            trimmed_at: Some(0),
            ..Self::default()
        }
    }

    /// Its faults are over, also one that did not show yet.
    pub(super) fn heal(&mut self, now: Duration) {
        (self.slow_until, self.full_until) = (now, now);
        self.breaks = false;
    }

    pub(super) fn has(&self, id: EntryId) -> bool {
        self.entries.contains_key(&id)
    }

    /// The number through which a log was trimmed here.
    pub(super) fn floor(&self, origin: Origin) -> u64 {
        self.floors.get(&origin).copied().unwrap_or_default()
    }

    fn write(&mut self, batch: &Batch) {
        for (entry, shown) in &batch.entries {
            let kept = (Arc::clone(entry), *shown);
            let last = self.last.entry(entry.origin).or_default();
            *last = (*last).max((entry.seq, entry.ts));
            if entry.seq > self.floors.get(&entry.origin).copied().unwrap_or_default() {
                self.entries.entry(entry.id()).or_insert(kept);
            }
        }
        for (id, shown) in &batch.shows {
            if let Some(kept) = self.entries.get_mut(id) {
                kept.1 = *shown;
            }
        }
    }

    /// How many of the oldest entries are too many.
    fn excess(&self, wall_us: u64) -> usize {
        let DiskRetention {
            messages,
            bytes,
            age,
        } = self.retention;
        let count = self.entries.len() as u64;
        let surplus = |of: u64, most: u64| if most > 0 { of.saturating_sub(most) } else { 0 };
        let used: usize = self.entries.values().map(|(e, _)| e.json.len()).sum();
        let row = (used as u64 / count.max(1)).max(1);
        let mut excess = surplus(count, messages).max(surplus(used as u64, bytes).div_ceil(row));
        if let Some(age) = age {
            let oldest = wall_us.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
            let old = self.entries.values().filter(|(e, _)| e.ts < oldest).count();
            excess = excess.max(old as u64);
        }
        usize::try_from(excess.min(count)).expect("a run is short")
    }

    /// Removes what is too much: the oldest first, but always from the front of a log. What was trimmed
    /// through which number.
    pub(super) fn trim(&mut self, wall_us: u64) -> BTreeMap<Origin, u64> {
        let mut floors = BTreeMap::new();
        if self.retention == DiskRetention::default() {
            return floors;
        }
        let excess = self.excess(wall_us);
        if excess == 0 {
            return floors;
        }
        let mut oldest: Vec<_> = self.entries.values().map(|(e, _)| e.place()).collect();
        oldest.sort_unstable();
        for place in &oldest[..excess] {
            let first = EntryId {
                origin: place.origin,
                seq: 0,
            };
            let front = self.entries.range(first..).next();
            let (id, _) = front.expect("its log has at least this one");
            let id = *id;
            self.entries.remove(&id);
            floors.insert(id.origin, id.seq);
        }
        self.trimmed_at = Some(wall_us);
        self.floors.extend(&floors);
        floors
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
        let (mut fit, mut bytes) = (0, 0);
        for (entry, _) in entries.iter().rev() {
            bytes += crate::core::memory::cost(entry);
            if fit >= window.messages || bytes > window.bytes {
                break;
            }
            fit += 1;
        }
        let surplus = entries.len() - fit;
        let older = entries.drain(..surplus);
        let mids = older.filter_map(|(entry, shown)| LoadedMid::of(&entry, shown));
        let mut mids: Vec<_> = mids.collect();
        mids.drain(..mids.len().saturating_sub(MIDS_TRIMMED_MAX));
        let numbers = self.origins();
        let logs = self.last.iter().map(|(&origin, &(held, last_ts))| {
            let mut holes = Vec::new();
            let floor = self.floor(origin);
            let mut after = floor;
            let seqs = numbers.get(&origin).into_iter().flatten().copied();
            for seq in seqs.chain([held + 1]) {
                let through = seq - 1;
                if through > after {
                    holes.push(Span { after, through });
                }
                after = seq;
            }
            LoadedLog {
                origin,
                held,
                floor,
                holes,
                last_ts,
            }
        });
        Loaded {
            logs: logs.collect(),
            entries,
            mids,
            trimmed_at: self.trimmed_at,
            ..Loaded::default()
        }
    }

    /// All of an origin in a span.
    pub(super) fn range(&self, origin: Origin, span: Span) -> Vec<Arc<Entry>> {
        let id = |seq| EntryId { origin, seq };
        let inside = self.entries.range(id(span.after)..=id(span.through));
        let inside = inside.filter(|(id, _)| id.seq > span.after);
        inside.map(|(_, (entry, _))| Arc::clone(entry)).collect()
    }

    fn shown(&self, of: impl Fn(&RoomName) -> bool) -> impl Iterator<Item = &Arc<Entry>> {
        let of_room = move |(entry, shown): &&(Arc<Entry>, bool)| *shown && of(&entry.room);
        let kept = self.entries.values().filter(of_room);
        kept.map(|(entry, _)| entry)
    }

    /// Reads what a question needs.
    pub(super) fn read(&self, read: Read) -> Got {
        match read {
            Read::Place(id) => Got::Place(self.entries.get(&id).map(|(entry, _)| entry.place())),
            Read::Page(room, before, limit) => {
                let stands_before =
                    |entry: &&Arc<Entry>| before.is_none_or(|before| entry.place() < before);
                let older = self.shown(|of| *of == room).filter(stands_before);
                let mut entries: Vec<_> = older.cloned().collect();
                entries.sort_by_key(|entry| entry.place());
                let surplus = entries.len().saturating_sub(limit);
                entries.drain(..surplus);
                let more = surplus > 0;
                Got::Page(Page { entries, more })
            }
            Read::Beyond(scope, spans) => {
                let inside = |entry: &&Arc<Entry>| {
                    let within = |(origin, span): &(Origin, Span)| {
                        let after = span.after < entry.seq && entry.seq <= span.through;
                        *origin == entry.origin && after
                    };
                    spans.iter().any(within)
                };
                // Of what was trimmed, or of a log that is not known, nobody can say that it is all.
                let knows = |(origin, span): &(Origin, Span)| {
                    self.last.contains_key(origin) && span.after >= self.floor(*origin)
                };
                let all_known = spans.iter().all(knows);
                Got::Beyond(all_known.then(|| {
                    self.shown(|room| scope.has(room))
                        .filter(inside)
                        .cloned()
                        .collect()
                }))
            }
            Read::Log(origin, span, most) => {
                let mut entries = self.range(origin, span);
                let mut bytes = 0;
                let fit = entries.iter().take_while(|entry| {
                    let first = bytes == 0;
                    bytes += entry.json.len();
                    first || bytes <= most
                });
                entries.truncate(fit.count());
                let floor = self.floor(origin);
                Got::Log(LogPage {
                    floor,
                    floor_ts: TS_MAX,
                    entries,
                })
            }
            Read::Search(..) | Read::Scan(..) | Read::Rooms => {
                unreachable!("nobody searches in this world")
            }
        }
    }

    /// What is lost when it fails: nothing, parts of logs, or all that can tell when it was trimmed.
    fn lose(&mut self, parts: &[(EntryId, u64)], forgets_times: bool) {
        for (from, count) in parts {
            for seq in from.seq..from.seq + count {
                let origin = from.origin;
                let id = EntryId { origin, seq };
                self.lost.extend(self.entries.remove(&id).map(|_| id));
            }
        }
        if forgets_times && self.floors.values().any(|floor| *floor > 0) {
            self.trimmed_at = None;
        }
        self.breaks = false;
    }
}

impl World {
    pub(super) fn disk_of(&self, id: NodeId) -> Option<&Disk> {
        self.machines[self.nodes[id].slot].disk.as_ref()
    }

    pub(super) fn disk_of_mut(&mut self, id: NodeId) -> Option<&mut Disk> {
        self.machines[self.nodes[id].slot].disk.as_mut()
    }

    /// How long a node's disk takes for what it is to do now.
    pub(super) fn disk_takes(&mut self, id: NodeId) -> Duration {
        let slow = |disk: &Disk| self.now < disk.slow_until;
        let slow = self.disk_of(id).is_some_and(slow);
        self.up_to(if slow { SLOW_MAX } else { USUAL_MAX })
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
        if loaded.logs.iter().any(|log| log.floor > 0) {
            self.note("restarted with trimmed logs");
        }
        for log in &loaded.logs {
            if log.floor > 0 {
                let node = &mut self.nodes[id];
                node.began_behind.insert(log.origin, log.floor);
            }
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

    /// The disk is given a batch.
    pub(super) fn writes(&mut self, id: NodeId, batch: Batch) {
        let takes = self.disk_takes(id);
        let before = self.nodes[id].writing.replace(batch);
        if let Some(before) = before {
            self.broken(format!("n{id} writes beside {before:?}"));
        }
        self.at(takes, Event::Input(id, Comes::Disk));
    }

    /// The disk has done, or not done, what it was given.
    pub(super) fn disk_answers(&mut self, id: NodeId) {
        let world_now = self.now;
        if self.phase == Phase::Converge {
            // What was slow before the last fault ended may end now.
            self.calm_since = world_now.min(self.phase_since + SLOW_MAX);
        }
        let node = &mut self.nodes[id];
        let Some(disk) = self.machines[node.slot].disk.as_mut() else {
            return;
        };
        if disk.breaks {
            // Whether the batch was written shows when the machine starts again.
            if node.writing.is_some() {
                self.note("fault: disk broken");
                self.give(id, Input::DiskBroken);
                let soon = self.up_to(Duration::from_millis(20));
                self.at(soon, Event::Crash(id));
            }
            return;
        }
        let Some(batch) = node.writing.take() else {
            return;
        };
        if world_now < disk.full_until {
            self.note("disk full");
            return self.give(id, Input::DiskFull("no room".to_owned()));
        }
        disk.write(&batch);
        self.give(id, Input::Stored);
        if batch.entries.len() > 1 {
            self.note("group commit");
        }
        self.trim_disk(id);
    }

    /// A node dies: what was being written is there or not. A disk that failed may have lost more.
    pub(super) fn die_writing(&mut self, id: NodeId) {
        let written = self.chance(0.5);
        if let Some(batch) = self.nodes[id].writing.take()
            && written
        {
            self.writes_what_nobody_saw(id, &batch);
        }
        let failed = self.disk_of(id).filter(|disk| disk.breaks);
        let Some(disk) = failed else { return };
        let kept: Vec<EntryId> = disk.entries.keys().copied().collect();
        let mut lost = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let count = self.rng.random_range(1..20);
            lost.extend(self.pick(&kept).map(|from| (from, count)));
        }
        if !lost.is_empty() {
            self.note("lost with the disk");
        }
        let forgets_times = self.chance(0.5);
        if let Some(disk) = self.disk_of_mut(id) {
            disk.lose(&lost, forgets_times);
        }
    }

    fn writes_what_nobody_saw(&mut self, id: NodeId, batch: &Batch) {
        let (slot, origin) = (self.nodes[id].slot, self.nodes[id].origin);
        let full = self
            .disk_of(id)
            .is_none_or(|disk| self.now < disk.full_until);
        if full {
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
            disk.write(batch);
        }
    }

    pub(super) fn disk_trouble(&mut self) {
        let slots = self.plan.slots;
        let slot = self.rng.random_range(0..slots);
        let lasts = Duration::from_millis(self.rng.random_range(200..6_000));
        let until = (self.now + lasts).min(self.plan.faults_end);
        let what = self.rng.random_range(0..5);
        let Some(disk) = self.machines[slot].disk.as_mut() else {
            return;
        };
        let what = match what {
            0 | 1 => {
                disk.full_until = until;
                "fault: full disk"
            }
            2 | 3 => {
                disk.slow_until = until;
                "fault: slow disk"
            }
            _ => {
                disk.breaks = true;
                "fault: disk fails"
            }
        };
        self.note(what);
        self.tell(|_| format!("slot {slot}: {what}, until {until:?}"));
    }
}
