//! What is on its way to the disk of a node that has one.
//!
//! What this node's own clients say is **staged**: it has its number, but nobody sees it before it
//! is on the disk, so that an acknowledged message survives this node, and no other node ever holds
//! one that this node lost. What other nodes said is accepted and delivered at once, and waits here
//! to be written too. One batch is under way at a time; whatever came meanwhile is the next, so the
//! batches grow with the load (group commit).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::copies::Ticket;
use super::input::Source;
use super::log::Span;
use super::rules;
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, Mid, Origin, RoomName};

/// Own entries that wait for the disk at the most; beyond, sends are refused as busy.
const STAGED_MAX: usize = 65_536;
/// Bytes of their JSON at the most.
const STAGED_BYTES_MAX: usize = 32 << 20;
/// Others' entries that wait for the disk at the most. Beyond they are skipped: noted, and written
/// later from memory.
const PENDING_MAX: usize = 65_536;
/// When so many wait, repair pauses: what it would bring could not be written.
pub(super) const PENDING_REPAIR_MAX: usize = 16_384;
/// Entries in a batch at the most,
pub(super) const BATCH_ENTRIES_MAX: usize = 4096;
/// and bytes of their JSON, about.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// A full disk is tried again after this.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// When the oldest send has waited so long for the disk, new ones are refused: it hangs.
pub(super) const DISK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Retries of sends that wait for the disk, that wait too at the most; beyond, they are refused as busy.
pub(super) const RETRIES_MAX: usize = 1024;
/// Spans of skipped entries that are remembered at the most, over all origins.
const SKIPPED_MAX: usize = 1024;

/// What is written in one transaction: the entries first, then what is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    /// Entries to keep; the flag says whether each is shown in its room's transcript.
    pub(crate) entries: Vec<(Arc<Entry>, bool)>,
    /// Entries kept before, and whether they are shown from now on.
    pub(crate) shows: Vec<(EntryId, bool)>,
}

/// An origin's log as a disk has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedLog {
    /// Whose.
    pub(crate) origin: Origin,
    /// The last number that is or was kept.
    pub(crate) held: u64,
    /// The number through which retention has trimmed.
    pub(crate) floor: u64,
    /// Numbers between the two that are not there, ascending.
    pub(crate) holes: Vec<Span>,
    /// The timestamp of the last one.
    pub(crate) last_ts: u64,
}

/// The mid of an entry that a disk keeps and memory does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedMid {
    /// Of this room.
    pub(crate) room: RoomName,
    /// It.
    pub(crate) mid: Mid,
    /// Where the entry stands.
    pub(crate) place: Place,
    /// Which entry.
    pub(crate) id: EntryId,
    /// Whether that is shown, and not another with the same mid.
    pub(crate) shown: bool,
}

impl LoadedMid {
    /// Of an entry, if it has one.
    pub(crate) fn of(entry: &Entry, shown: bool) -> Option<Self> {
        let mid = entry.mid.clone()?;
        Some(Self {
            room: entry.room.clone(),
            mid,
            place: entry.place(),
            id: entry.id(),
            shown,
        })
    }
}

/// What a node that starts finds on its disk.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Each origin of which anything is or was kept.
    pub(crate) logs: Vec<LoadedLog>,
    /// The newest entries, as many as fit into memory, by place, and whether each is shown.
    pub(crate) entries: Vec<(Arc<Entry>, bool)>,
    /// Mids of entries that are older than these, of the newest of them, oldest first.
    pub(crate) mids: Vec<LoadedMid>,
    /// When retention has trimmed something last; 0 if it never did, `None` if that is not known.
    /// Microseconds since 1970.
    pub(crate) trimmed_at: Option<u64>,
    /// A damaged file that was set aside, to be named to people.
    pub(crate) set_aside: Option<std::path::PathBuf>,
}

/// Why a message was not taken. It was not said, and will not appear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The disk is full.
    Full,
    /// Too much waits for the disk, or it does not answer.
    Busy,
    /// The disk is broken; this node stops.
    Broken,
}

/// A send that waits for the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) ticket: Ticket,
    pub(super) need: usize,
}

/// An own entry that is not on the disk yet.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) entry: Arc<Entry>,
    pub(super) ack_wanted: bool,
    pub(super) source: Source,
    pub(super) since: Duration,
    /// The send, and its retries.
    pub(super) asked: Vec<Asked>,
}

impl Staged {
    /// One more waits for it.
    fn ask(&mut self, asked: Asked) {
        self.ack_wanted |= asked.need > 0;
        self.asked.push(asked);
    }
}

#[derive(Debug)]
enum Waiting {
    Keep(Arc<Entry>, bool),
    Show(EntryId, bool),
}

/// The batch under way: first what was staged, then what others said.
#[derive(Debug, Default)]
struct Flight {
    own: usize,
    batch: Batch,
}

impl Flight {
    /// Entries that others said.
    fn others(&self) -> &[(Arc<Entry>, bool)] {
        &self.batch.entries[self.own..]
    }
}

/// How the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It takes what it is given.
    Fine,
    /// It has no room. Tried again at this time.
    Full(Duration),
    /// It failed.
    Broken,
}

/// What is on its way to the disk.
#[derive(Debug)]
pub(super) struct Journal {
    staged: VecDeque<Staged>,
    staged_bytes: usize,
    retries: usize,
    by_mid: HashMap<(RoomName, Mid), u64>,
    pending: VecDeque<Waiting>,
    /// Others' entries that wait or are under way: memory keeps them until they are written.
    unwritten: HashSet<EntryId>,
    flight: Option<Flight>,
    health: Health,
    skipped: BTreeMap<Origin, Vec<Span>>,
    /// Whether repair was told to wait.
    pub(super) repair_paused: bool,
    /// Entries that were in memory no more when the disk had room for them.
    pub(super) unkept: u64,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            staged: VecDeque::new(),
            staged_bytes: 0,
            retries: 0,
            by_mid: HashMap::new(),
            pending: VecDeque::new(),
            unwritten: HashSet::new(),
            flight: None,
            health: Health::Fine,
            skipped: BTreeMap::new(),
            repair_paused: false,
            unkept: 0,
        }
    }

    pub(super) fn health(&self) -> Health {
        self.health
    }

    /// How many entries wait, own and others', those of the batch under way included.
    pub(super) fn waiting(&self) -> (usize, usize) {
        // Own entries stay staged until they are written.
        let of = |flight: &Flight| flight.others().len() + flight.batch.shows.len();
        let under_way = self.flight.as_ref().map_or(0, of);
        (self.staged.len(), self.pending.len() + under_way)
    }

    /// Whether more own entries are taken now.
    pub(super) fn takes(&self, now: Duration) -> Result<(), NotTaken> {
        match self.health {
            Health::Full(_) => return Err(NotTaken::Full),
            Health::Broken => return Err(NotTaken::Broken),
            Health::Fine => {}
        }
        let full = self.staged.len() >= STAGED_MAX || self.staged_bytes >= STAGED_BYTES_MAX;
        if full || self.hangs(now) {
            return Err(NotTaken::Busy);
        }
        Ok(())
    }

    /// Whether the oldest send has waited too long.
    fn hangs(&self, now: Duration) -> bool {
        let oldest = self.staged.front();
        oldest.is_some_and(|oldest| now >= oldest.since + DISK_WAIT_MAX)
    }

    /// A retry of what waits under this mid: it is answered with it, or refused. `None` if nothing
    /// waits under it.
    pub(super) fn retry(
        &mut self,
        now: Duration,
        (room, mid): (&RoomName, &Mid),
        asked: Asked,
    ) -> Option<Result<(), NotTaken>> {
        let hangs = self.hangs(now) || self.retries >= RETRIES_MAX;
        let staged = self.staged_as(room, mid)?;
        if hangs {
            return Some(Err(NotTaken::Busy));
        }
        staged.ask(asked);
        self.retries += 1;
        Some(Ok(()))
    }

    /// The number of the newest own entry that waits.
    pub(super) fn last(&self) -> Option<u64> {
        self.staged.back().map(|staged| staged.entry.seq)
    }

    /// Adds an own entry, the next after all others.
    pub(super) fn stage(&mut self, staged: Staged) {
        if let Some(mid) = &staged.entry.mid {
            let key = (staged.entry.room.clone(), mid.clone());
            self.by_mid.insert(key, staged.entry.seq);
        }
        self.staged_bytes += staged.entry.json.len();
        self.staged.push_back(staged);
    }

    /// The own entry that waits under this mid.
    fn staged_as(&mut self, room: &RoomName, mid: &Mid) -> Option<&mut Staged> {
        if self.by_mid.is_empty() {
            return None;
        }
        let seq = *self.by_mid.get(&(room.clone(), mid.clone()))?;
        let first = self.staged.front()?.entry.seq;
        self.staged.get_mut(usize::try_from(seq - first).ok()?)
    }

    fn unstage(&mut self) -> Option<Staged> {
        let staged = self.staged.pop_front()?;
        self.staged_bytes -= staged.entry.json.len();
        self.retries -= staged.asked.len().saturating_sub(1);
        if let Some(mid) = &staged.entry.mid {
            self.by_mid
                .remove(&(staged.entry.room.clone(), mid.clone()));
        }
        Some(staged)
    }

    /// Another node's entry was accepted, and is to be written.
    pub(super) fn keep(&mut self, entry: &Arc<Entry>, shown: bool) {
        if self.pending.len() < PENDING_MAX {
            self.unwritten.insert(entry.id());
            self.pending
                .push_back(Waiting::Keep(Arc::clone(entry), shown));
        } else {
            self.skip(entry);
        }
    }

    /// Whether an entry is shown has changed since it was handed over.
    pub(super) fn show(&mut self, id: EntryId, shown: bool) {
        // One for each entry at the most, so the bound is that of what is kept.
        self.pending.push_back(Waiting::Show(id, shown));
    }

    /// Whether an accepted entry is on the disk, as far as it ever will be.
    pub(super) fn has_written(&self, id: EntryId) -> bool {
        rules::may_let_go(self.unwritten.contains(&id))
    }

    /// Whether accepted entries are on the disk: none waits, or was skipped.
    pub(super) fn has_on_disk(&self, origin: Origin, span: Span) -> bool {
        let mut skipped = self.skipped.get(&origin).into_iter().flatten();
        let is_skipped = skipped.any(|it| it.after < span.through && span.after < it.through);
        let mut ids = (span.after + 1..=span.through).map(|seq| EntryId { origin, seq });
        !is_skipped && ids.all(|id| self.has_written(id))
    }

    /// Whether more waits for the disk than should, so that what can wait elsewhere does.
    pub(super) fn is_ahead_of_disk(&self) -> bool {
        self.health != Health::Fine || self.waiting().1 > PENDING_REPAIR_MAX
    }

    fn skip(&mut self, entry: &Entry) {
        let spans = self.skipped.values().map(Vec::len).sum::<usize>();
        let of_origin = self.skipped.entry(entry.origin).or_default();
        match of_origin.last_mut() {
            Some(span) if span.through + 1 == entry.seq => span.through = entry.seq,
            _ if spans >= SKIPPED_MAX => self.unkept += 1,
            _ => of_origin.push(Span {
                after: entry.seq - 1,
                through: entry.seq,
            }),
        }
    }

    /// A span that was skipped, once there is room for it again.
    pub(super) fn take_skipped(&mut self) -> Option<(Origin, Span)> {
        if self.health != Health::Fine || self.pending.len() > PENDING_MAX / 4 {
            return None;
        }
        let (origin, mut spans) = self.skipped.pop_first()?;
        let span = spans.pop()?;
        if !spans.is_empty() {
            self.skipped.insert(origin, spans);
        }
        Some((origin, span))
    }

    /// Gives back what of a skipped span did not fit.
    pub(super) fn skip_again(&mut self, origin: Origin, span: Span) {
        self.skipped.entry(origin).or_default().push(span);
    }

    /// Whether a batch could begin now.
    pub(super) fn wants_disk(&self, now: Duration) -> bool {
        let may = match self.health {
            Health::Fine => !(self.staged.is_empty() && self.pending.is_empty()),
            Health::Full(retry) => now >= retry,
            Health::Broken => false,
        };
        may && self.flight.is_none()
    }

    /// Begins the next batch. On a full disk it may be empty: that asks whether there is room.
    pub(super) fn next_batch(&mut self, now: Duration) -> Option<Batch> {
        if !self.wants_disk(now) {
            return None;
        }
        let mut batch = Batch::default();
        let mut own = 0;
        let mut bytes = 0;
        for staged in &self.staged {
            if batch.entries.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                break;
            }
            bytes += staged.entry.json.len();
            batch.entries.push((Arc::clone(&staged.entry), true));
            own += 1;
        }
        while batch.entries.len() < BATCH_ENTRIES_MAX && bytes < BATCH_BYTES_MAX {
            // The disk takes the entries of a batch before what it shows of them.
            if batch.shows.len() >= BATCH_ENTRIES_MAX
                || (!batch.shows.is_empty()
                    && matches!(self.pending.front(), Some(Waiting::Keep(..))))
            {
                break;
            }
            let Some(waiting) = self.pending.pop_front() else {
                break;
            };
            match waiting {
                Waiting::Keep(entry, shown) => {
                    bytes += entry.json.len();
                    batch.entries.push((entry, shown));
                }
                Waiting::Show(id, shown) => batch.shows.push((id, shown)),
            }
        }
        self.flight = Some(Flight {
            own,
            batch: batch.clone(),
        });
        Some(batch)
    }

    /// The batch is on the disk: the own entries that were in it.
    pub(super) fn stored(&mut self) -> Vec<Staged> {
        self.health = Health::Fine;
        let flight = self.flight.take().unwrap_or_default();
        for (entry, _) in flight.others() {
            self.unwritten.remove(&entry.id());
        }
        (0..flight.own).filter_map(|_| self.unstage()).collect()
    }

    /// Nothing of the batch was written: the disk is full. All own entries that wait are given up;
    /// their numbers were never seen, and are given again.
    pub(super) fn full(&mut self, now: Duration) -> Vec<Staged> {
        self.health = Health::Full(now + FULL_RETRY);
        if let Some(flight) = rules::goes_on_waiting(self.flight.take()) {
            let Flight { own, mut batch } = flight;
            let entries = batch.entries.drain(own..);
            let entries = entries.map(|(entry, shown)| Waiting::Keep(entry, shown));
            let shows = batch.shows.into_iter();
            let shows = shows.map(|(id, shown)| Waiting::Show(id, shown));
            for waiting in entries.chain(shows).rev() {
                self.pending.push_front(waiting);
            }
        }
        std::iter::from_fn(|| self.unstage()).collect()
    }

    /// Whether the batch was written is not known, and nothing will be.
    pub(super) fn broken(&mut self) {
        self.health = Health::Broken;
    }
}
