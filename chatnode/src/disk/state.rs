//! What the writer knows of the file without asking it, and how a transaction changes that.
//!
//! A transaction works on a [`Changes`], which is taken over once it is committed and dropped if it
//! is not: what is known is what is on the disk.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension as _};

use super::schema::Log;
use crate::core::ORIGINS_MAX;
use crate::model::names::{Origin, RoomName};

/// Numbers of rooms that are remembered; beyond, all are forgotten and looked up again.
const ROOMS_CACHED_MAX: usize = 4096;
/// Rows of a block: of so many rows the range of their timestamps is known.
const BLOCK_ROWS: i64 = 4096;

/// A log, and how many of its entries are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptLog {
    pub(super) log: Log,
    pub(super) kept: u64,
}

/// What the writer knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) logs: HashMap<Origin, KeptLog>,
    /// The number that the next row gets. Numbers are not used twice while the process lives.
    pub(super) id_next: i64,
    /// Rows through this one are in the index of words.
    pub(super) indexed: i64,
    /// Entries kept.
    pub(super) entries: u64,
    rooms: HashMap<RoomName, i64>,
}

/// How many entries of a room come and go.
#[derive(Debug, Clone, Copy, Default)]
struct RoomChange {
    shown: i64,
    kept: i64,
}

/// What a transaction changes of a [`State`].
#[derive(Debug, Default)]
pub(super) struct Changes {
    logs: HashMap<Origin, KeptLog>,
    forgotten: Vec<Origin>,
    rooms: BTreeMap<i64, RoomChange>,
    rooms_met: HashMap<RoomName, i64>,
    rooms_gone: Vec<i64>,
    pub(super) entries_added: u64,
    pub(super) entries_trimmed: u64,
    pub(super) ids_used: i64,
    pub(super) indexed: Option<i64>,
}

impl State {
    /// Of a file whose last row is this one. No number is given twice, also if the last ones were
    /// trimmed: the index of words may know them.
    pub(super) fn new(id_last: i64, indexed: i64) -> Self {
        Self {
            id_next: id_last.max(indexed) + 1,
            indexed,
            ..Self::default()
        }
    }

    /// The row that comes next within a transaction.
    pub(super) fn id_next(&self, changes: &Changes) -> i64 {
        self.id_next + changes.ids_used
    }

    /// Rows that are not in the index of words yet.
    pub(super) fn unindexed(&self) -> u64 {
        u64::try_from(self.id_next - 1 - self.indexed).unwrap_or(0)
    }

    /// The transaction is on the disk.
    pub(super) fn take(&mut self, changes: Changes) {
        self.logs.extend(changes.logs);
        for origin in &changes.forgotten {
            self.logs.remove(origin);
        }
        self.entries =
            (self.entries + changes.entries_added).saturating_sub(changes.entries_trimmed);
        self.id_next += changes.ids_used;
        self.indexed = changes.indexed.unwrap_or(self.indexed);
        if self.rooms.len() + changes.rooms_met.len() > ROOMS_CACHED_MAX {
            self.rooms.clear();
        }
        self.rooms.extend(changes.rooms_met);
        if !changes.rooms_gone.is_empty() {
            self.rooms.retain(|_, id| !changes.rooms_gone.contains(id));
        }
    }
}

impl Changes {
    /// A log as the transaction sees it.
    pub(super) fn log(&self, state: &State, origin: Origin) -> Option<KeptLog> {
        let changed = self.logs.get(&origin);
        changed.or_else(|| state.logs.get(&origin)).copied()
    }

    /// Changes a log.
    pub(super) fn set_log(&mut self, origin: Origin, log: KeptLog) {
        self.logs.insert(origin, log);
    }

    /// A room's number, which it gets if it has none.
    pub(super) fn room(
        &mut self,
        db: &Connection,
        state: &State,
        room: &RoomName,
    ) -> rusqlite::Result<i64> {
        let known = self.rooms_met.get(room).or_else(|| state.rooms.get(room));
        if let Some(id) = known {
            return Ok(*id);
        }
        let found = db
            .prepare_cached("SELECT id FROM rooms WHERE name = ?1")?
            .query_row([room.as_str()], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => db
                .prepare_cached("INSERT INTO rooms (name, shown, kept) VALUES (?1, 0, 0)")?
                .insert([room.as_str()])?,
        };
        self.rooms_met.insert(room.clone(), id);
        Ok(id)
    }

    /// Counts what comes and goes in a room.
    pub(super) fn count(&mut self, room: i64, shown: i64, kept: i64) {
        let change = self.rooms.entry(room).or_default();
        change.shown += shown;
        change.kept += kept;
    }

    /// Writes the counts of rooms and the logs; the end of each transaction.
    pub(super) fn write(&mut self, db: &Connection, state: &State) -> rusqlite::Result<()> {
        let mut count = db.prepare_cached(
            "UPDATE rooms SET shown = shown + ?2, kept = kept + ?3 WHERE id = ?1",
        )?;
        let mut clear = db.prepare_cached("DELETE FROM rooms WHERE id = ?1 AND kept = 0")?;
        for (id, change) in &self.rooms {
            count.execute((id, change.shown, change.kept))?;
            if change.kept <= 0 && clear.execute([id])? > 0 {
                self.rooms_gone.push(*id);
            }
        }
        self.forget_surplus(state);
        for (origin, kept) in &self.logs {
            write_log(db, *origin, &kept.log)?;
        }
        for origin in &self.forgotten {
            db.prepare_cached("DELETE FROM origins WHERE origin = ?1")?
                .execute([origin.as_str()])?;
        }
        Ok(())
    }

    /// Forgets logs of which nothing is kept, those that ended first before others, while there are
    /// too many.
    fn forget_surplus(&mut self, state: &State) {
        let new = self.logs.keys().filter(|o| !state.logs.contains_key(o));
        let surplus = (state.logs.len() + new.count()).saturating_sub(ORIGINS_MAX);
        if surplus == 0 {
            return;
        }
        let all = state.logs.keys().chain(self.logs.keys());
        let empty = all.filter_map(|origin| {
            let kept = self.log(state, *origin)?;
            (kept.kept == 0).then_some((kept.log.held_ts, *origin))
        });
        let mut empty: Vec<_> = empty.collect();
        empty.sort_unstable();
        empty.dedup();
        for (_, origin) in empty.into_iter().take(surplus) {
            self.logs.remove(&origin);
            self.forgotten.push(origin);
        }
    }
}

/// Writes a log's row.
fn write_log(db: &Connection, origin: Origin, log: &Log) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO origins (origin, held, held_ts, floor, sum) \
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute((
        origin.as_str(),
        log.held.cast_signed(),
        log.held_ts.cast_signed(),
        log.floor.cast_signed(),
        log.sum(origin),
    ))?;
    Ok(())
}

/// The range of timestamps of each block of rows, so that a search for the newest knows when it
/// has seen enough: rows are mostly written in the order of their timestamps, but not always.
///
/// A range may be wider than its rows (some are trimmed, or were rolled back), never narrower.
#[derive(Debug, Default)]
pub(super) struct Blocks(BTreeMap<i64, (u64, u64)>);

impl Blocks {
    /// Notes a row, before it can be read.
    pub(super) fn note(&mut self, id: i64, ts: u64) {
        let range = self.0.entry(id / BLOCK_ROWS).or_insert((ts, ts));
        *range = (range.0.min(ts), range.1.max(ts));
    }

    /// Rows below this one are trimmed.
    pub(super) fn trimmed(&mut self, id: i64) {
        self.0 = self.0.split_off(&(id / BLOCK_ROWS));
    }

    /// The last row that may be as old as this timestamp.
    pub(super) fn last_row(&self, ts: u64) -> i64 {
        let old = |(_, range): &(&i64, &(u64, u64))| range.0 <= ts;
        let last = self.0.iter().rev().find(old);
        last.map_or(0, |(block, _)| (block + 1) * BLOCK_ROWS - 1)
    }

    /// For each block, its first row and the newest timestamp of all rows before it, last first.
    pub(super) fn before(&self) -> Vec<(i64, u64)> {
        let mut newest = 0;
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(block, range)| {
                let before = newest;
                newest = newest.max(range.1);
                (block * BLOCK_ROWS, before)
            })
            .collect();
        all.reverse();
        all
    }
}
