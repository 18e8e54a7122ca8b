//! A damaged file: what can be read of it is copied into a new one, which takes its place.
//!
//! First through SQLite, which knows what is in the write-ahead log; rows that it cannot reach are
//! passed over. If it cannot read all, the pages of the file are looked through one by one. Best
//! effort: nothing in here makes the start of a node fail but a folder that takes no new file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, OptionalExtension as _};

use super::folder::Folder;
use super::row::{self, COLUMNS, Kept};
use super::schema::{self, Log};
use super::shared::Shared;
use super::state::{Blocks, Changes, KeptLog, State};
use super::terms::OpenError;
use super::time::Stopwatch;
use super::{check, leaves, write};
use crate::core::journal::Batch;
use crate::model::names::{Origin, RoomName};

/// Rows that are copied in one transaction.
const SALVAGE_ROWS: usize = 1000;
/// How often it is said how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(2);
/// Numbers of rooms that are remembered at the most.
const ROOMS_MAX: usize = 1 << 20;

/// Makes a new file of what can be read of the one in use, and puts it in its place. Returns the
/// name that the damaged one has from now on.
pub(super) fn replace(folder: &Folder, why: &str, seconds: u64) -> Result<PathBuf, OpenError> {
    let file = folder.file();
    tracing::error!(
        file = %file.display(), error = why,
        "history on disk is damaged; it is set aside, and what can be read of it is saved"
    );
    folder.clear_draft().map_err(|why| folder.fault(why))?;
    let sql_fault = |error: rusqlite::Error| check::sql_fault(folder, &error);
    let db = schema::writer(&folder.draft(), true).map_err(sql_fault)?;
    schema::create(&db).map_err(sql_fault)?;
    // It is synced as a whole before it is used.
    db.pragma_update(None, "synchronous", "OFF")
        .map_err(sql_fault)?;
    let mut copy = Copy {
        shared: Shared::new(folder.clone(), Blocks::default()),
        state: State::new(0, 0),
        batch: Batch::default(),
        is_full: false,
        count: 0,
        told: Stopwatch::start(),
        db,
    };
    copy.all(&file);
    let count = copy.count;
    close(copy.db, folder)?;
    let aside = folder.adopt_draft(seconds);
    let aside = aside.map_err(|why| folder.fault(why))?.unwrap_or(file);
    tracing::error!(
        file = %aside.display(), count,
        "the damaged history was set aside under this name; so many entries of it were saved, and \
         other nodes may have the rest"
    );
    Ok(aside)
}

/// Makes a new, empty file in a folder that has none.
pub(super) fn create(folder: &Folder, seconds: u64) -> Result<(), OpenError> {
    let sql_fault = |error: rusqlite::Error| check::sql_fault(folder, &error);
    folder.clear_draft().map_err(|why| folder.fault(why))?;
    let db = schema::writer(&folder.draft(), true).map_err(sql_fault)?;
    schema::create(&db).map_err(sql_fault)?;
    close(db, folder)?;
    let adopted = folder.adopt_draft(seconds);
    adopted.map_err(|why| folder.fault(why))?;
    Ok(())
}

/// Closes a draft so that its file is all of it.
fn close(db: Connection, folder: &Folder) -> Result<(), OpenError> {
    let sql_fault = |error: rusqlite::Error| check::sql_fault(folder, &error);
    db.wal_checkpoint_v2(Some(c"main"), CheckpointMode::TRUNCATE)
        .map_err(sql_fault)?;
    db.close().map_err(|(_, error)| sql_fault(error))
}

/// A copy under way.
struct Copy {
    db: Connection,
    shared: Shared,
    state: State,
    batch: Batch,
    /// No room, or no use: nothing more is written.
    is_full: bool,
    count: u64,
    told: Stopwatch,
}

impl Copy {
    fn all(&mut self, file: &Path) {
        let damaged = open(file);
        if let Err(error) = &damaged {
            tracing::warn!(%error, "SQLite cannot open the damaged file");
        }
        // Logs first, since nothing below a floor is kept.
        if !damaged.as_ref().is_ok_and(|damaged| self.logs(damaged)) {
            self.pages(file, |copy, found| {
                if let leaves::Found::Log(origin, log) = found {
                    copy.log(origin, log);
                }
            });
        }
        if !damaged.as_ref().is_ok_and(|damaged| self.rows(damaged)) {
            self.flush();
            self.pages(file, |copy, found| {
                if let leaves::Found::Entry(kept) = found {
                    copy.take(kept);
                }
            });
        }
        self.flush();
    }

    /// Copies what is known of logs. Whether all could be read.
    fn logs(&mut self, damaged: &Connection) -> bool {
        let mut read = || -> rusqlite::Result<bool> {
            let mut is_all = true;
            let mut logs =
                damaged.prepare("SELECT origin, held, held_ts, floor, sum FROM origins")?;
            let mut logs = logs.query([])?;
            while let Some(row) = logs.next()? {
                match check::log(check::log_values(row)?) {
                    Some((origin, log)) => self.log(origin, log),
                    None => is_all = false,
                }
            }
            Ok(is_all)
        };
        read().unwrap_or(false)
    }

    /// Takes a log over; of several rows of one, what is highest.
    fn log(&mut self, origin: Origin, log: Log) {
        let known = self.state.logs.get(&origin).map(|known| known.log);
        let merged = known.map_or(log, |known| Log {
            held: known.held.max(log.held),
            held_ts: known.held_ts.max(log.held_ts),
            floor: known.floor.max(log.floor),
        });
        if self.is_full || known == Some(merged) {
            return;
        }
        let mut changes = Changes::default();
        let kept = KeptLog {
            log: merged,
            kept: 0,
        };
        changes.set_log(origin, kept);
        let written = schema::transact(&self.db, |db| changes.write(db, &self.state));
        self.took(written.map(|()| changes));
    }

    /// Copies the rows that SQLite can reach. Whether all could be read.
    fn rows(&mut self, damaged: &Connection) -> bool {
        let rooms = rooms(damaged);
        let mut is_all = true;
        let mut from = 1;
        while !self.is_full {
            let read = self.rows_from(damaged, &rooms, &mut from, &mut is_all);
            match read {
                Ok(true) => {}
                Ok(false) => return is_all,
                Err(_) => {
                    is_all = false;
                    match next_readable(damaged, from) {
                        Some(next) => from = next,
                        None => return false,
                    }
                }
            }
        }
        is_all
    }

    /// Copies some rows; `from` goes along. Whether there may be more.
    fn rows_from(
        &mut self,
        damaged: &Connection,
        rooms: &HashMap<i64, RoomName>,
        from: &mut i64,
        is_all: &mut bool,
    ) -> rusqlite::Result<bool> {
        let sql =
            format!("SELECT {COLUMNS} FROM entries e WHERE e.id >= ?1 ORDER BY e.id LIMIT ?2");
        let mut rows = damaged.prepare_cached(&sql)?;
        let limit = i64::try_from(SALVAGE_ROWS).unwrap_or(i64::MAX);
        let mut rows = rows.query((*from, limit))?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            let (id, room) = row::numbers(row)?;
            *from = id.saturating_add(1).max(*from);
            let json = row.get_ref(6)?.as_blob().unwrap_or_default();
            let room = rooms.get(&room).cloned();
            match room.or_else(|| leaves::room_of(json)) {
                Some(room) => match row::read(row, &room)? {
                    Ok(kept) => self.take(kept),
                    Err(row::Rotten) => *is_all = false,
                },
                None => *is_all = false,
            }
        }
        Ok(count == SALVAGE_ROWS)
    }

    /// Looks through the pages of the file.
    fn pages(&mut self, file: &Path, mut take: impl FnMut(&mut Self, leaves::Found)) {
        let scanned = leaves::scan(file, |found| {
            take(self, found);
            !self.is_full
        });
        if let Err(error) = scanned {
            tracing::warn!(%error, "the pages of the damaged file cannot be read");
        }
    }

    fn take(&mut self, kept: Kept) {
        self.batch.entries.push((kept.entry, kept.shown));
        if self.batch.entries.len() >= SALVAGE_ROWS {
            self.flush();
        }
    }

    /// Writes what was read.
    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if self.is_full || batch.entries.is_empty() {
            return;
        }
        let written = schema::transact(&self.db, |db| {
            write::apply(db, &self.state, &self.shared, &batch)
        });
        self.took(written);
        if self.told.elapsed() > TOLD_EVERY {
            self.told = Stopwatch::start();
            tracing::info!(count = self.count, "saving entries of a damaged file");
        }
    }

    fn took(&mut self, written: rusqlite::Result<Changes>) {
        match written {
            Ok(changes) => {
                self.count += changes.entries_added;
                self.state.take(changes);
            }
            Err(error) => {
                tracing::error!(%error, "the rest of the damaged file cannot be saved");
                self.is_full = true;
            }
        }
    }
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let db = schema::reader(file)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(db)
}

/// The names of rooms that can be read. Without its name here, an entry's room is taken from the
/// entry itself.
fn rooms(damaged: &Connection) -> HashMap<i64, RoomName> {
    let mut names = HashMap::new();
    if let Err(error) = read_rooms(damaged, &mut names) {
        tracing::warn!(%error, "not all names of rooms could be read");
    }
    names
}

fn read_rooms(damaged: &Connection, names: &mut HashMap<i64, RoomName>) -> rusqlite::Result<()> {
    let mut rooms = damaged.prepare("SELECT id, name FROM rooms")?;
    let mut rooms = rooms.query([])?;
    while let Some(row) = rooms.next()?
        && names.len() < ROOMS_MAX
    {
        let name = row.get_ref(1)?.as_str().unwrap_or_default();
        if let Ok(name) = RoomName::of_peer(name) {
            names.insert(row.get(0)?, name);
        }
    }
    Ok(())
}

/// The number from which on rows read again, behind one that does not. `None` if there is none.
fn next_readable(damaged: &Connection, bad: i64) -> Option<i64> {
    // The sum is the last column: whoever reads it has read the row.
    let sql = "SELECT e.sum FROM entries e WHERE e.id >= ?1 ORDER BY e.id LIMIT 1";
    let reads = |from: i64| {
        let mut next = damaged.prepare_cached(sql)?;
        next.query_row([from], |row| row.get_ref(0).map(drop))
            .optional()
    };
    let reads = |from: i64| reads(from).is_ok();
    // Strides double until a row reads, then the way back is halved.
    let mut stride = 1;
    let mut low = bad;
    let mut high = loop {
        let from = bad.checked_add(stride).filter(|n| *n < check::ID_MAX)?;
        if reads(from) {
            break from;
        }
        low = from;
        stride = stride.checked_mul(2)?;
    };
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if reads(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}
