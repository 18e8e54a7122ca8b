//! Reading: threads apart from the writer, each with a connection of its own.
//!
//! A read sees the file as it was when it began (WAL), whatever the writer does meanwhile, also if
//! that hangs.

use std::collections::HashMap;
use std::fmt;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Params};

use super::row::{self, COLUMNS, Kept};
use super::schema::{self, Trouble};
use super::shared::Shared;
use crate::core::log::SEQ_MAX;
use crate::core::question::ReadError;
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, Origin, RoomName};
use crate::model::page::{PAGE_BYTES_MAX, Page, RoomSummary};

/// Names of rooms that one read remembers; beyond, all are forgotten and looked up again.
const ROOMS_CACHED_MAX: usize = 4096;

/// A read that waits for a thread.
pub(super) struct Job(Box<dyn FnOnce(&mut Reader) + Send>);

impl Job {
    /// What the reader is to do; that tells its outcome to who asked.
    pub(super) fn new(work: impl FnOnce(&mut Reader) + Send + 'static) -> Self {
        Self(Box::new(work))
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

/// The thread's own.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) db: Connection,
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    /// A reader of a file that was checked.
    pub(super) fn new(shared: Arc<Shared>) -> rusqlite::Result<Self> {
        let db = schema::reader(&shared.folder.file())?;
        Ok(Self { db, shared })
    }

    /// The thread's work, until nothing more can come.
    pub(super) fn run(mut self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            // Locked while it waits for the next, not while it works.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            match job {
                Ok(Job(work)) => work(&mut self),
                Err(_) => return,
            }
        }
    }

    /// Reads in one transaction, so that all is read of one moment.
    pub(super) fn read<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let done = self
            .db
            .execute_batch("BEGIN")
            .and_then(|()| work(self))
            .map_err(|error| self.error(&error));
        if !self.db.is_autocommit() {
            // If even that fails, so will the next BEGIN, and be told.
            drop(self.db.execute_batch("ROLLBACK"));
        }
        done
    }

    fn error(&self, error: &rusqlite::Error) -> ReadError {
        match schema::trouble(error, self.shared.folder.dir()) {
            Trouble::Interrupted => ReadError::Slow,
            Trouble::Busy => ReadError::Busy,
            Trouble::Full | Trouble::Forbidden | Trouble::Damaged | Trouble::Disk => {
                ReadError::Broken(error.to_string())
            }
        }
    }

    /// The entries of a query of [`COLUMNS`], as long as `more` says so.
    pub(super) fn entries(
        &self,
        sql: &str,
        params: impl Params,
        more: impl FnMut(Kept) -> bool,
    ) -> rusqlite::Result<()> {
        each(&self.db, &self.shared, sql, params, more)
    }

    /// A room's number, and how many entries it shows.
    pub(super) fn room(&self, room: &RoomName) -> rusqlite::Result<Option<(i64, u64)>> {
        self.db
            .prepare_cached("SELECT id, shown FROM rooms WHERE name = ?1")?
            .query_row([room.as_str()], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .optional()
    }

    /// See [`crate::disk::Disk::page`].
    pub(super) fn page(
        &mut self,
        room: &RoomName,
        before: Option<Place>,
        limit: usize,
    ) -> rusqlite::Result<Page> {
        let Some((room, _)) = self.room(room)? else {
            return Ok(Page::default());
        };
        let (ts, origin) = before.map_or((i64::MAX, "~".to_owned()), row::place_params);
        let sql = format!(
            "SELECT {COLUMNS} FROM entries e INDEXED BY transcripts WHERE room = ?1 AND shown \
             AND (ts, origin) < (?2, ?3) ORDER BY ts DESC, origin DESC"
        );
        let mut page = Page::default();
        let mut bytes = 0;
        self.entries(&sql, (room, ts, origin), |kept| {
            if page.entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                page.more = true;
                return false;
            }
            bytes += kept.entry.json.len();
            page.entries.push(kept.entry);
            true
        })?;
        page.entries.reverse();
        Ok(page)
    }

    /// See [`crate::disk::Disk::place`].
    pub(super) fn place(&mut self, id: EntryId) -> rusqlite::Result<Option<Place>> {
        let sql = format!("SELECT {COLUMNS} FROM entries e WHERE origin = ?1 AND seq = ?2");
        let mut place = None;
        let params = (id.origin.as_str(), id.seq.min(SEQ_MAX).cast_signed());
        self.entries(&sql, params, |kept| {
            place = Some(kept.entry.place());
            false
        })?;
        Ok(place)
    }

    /// The floor of a log that is known.
    pub(super) fn floor(&self, origin: Origin) -> rusqlite::Result<Option<u64>> {
        self.db
            .prepare_cached("SELECT floor FROM origins WHERE origin = ?1")?
            .query_row([origin.as_str()], |row| {
                Ok(row.get::<_, i64>(0)?.cast_unsigned())
            })
            .optional()
    }

    /// See [`crate::disk::Disk::range`].
    pub(super) fn range(
        &mut self,
        origin: Origin,
        after: u64,
        through: u64,
        bytes_max: usize,
    ) -> rusqlite::Result<(u64, Vec<Arc<Entry>>)> {
        let floor = self.floor(origin)?.unwrap_or(0);
        let sql = format!(
            "SELECT {COLUMNS} FROM entries e INDEXED BY logs WHERE origin = ?1 AND seq > ?2 \
             AND seq <= ?3 ORDER BY seq"
        );
        let bounds = [after, through].map(|seq| seq.min(SEQ_MAX).cast_signed());
        let mut entries = Vec::new();
        let mut bytes = 0;
        self.entries(&sql, (origin.as_str(), bounds[0], bounds[1]), |kept| {
            bytes += kept.entry.json.len();
            if !entries.is_empty() && bytes > bytes_max {
                return false;
            }
            entries.push(kept.entry);
            true
        })?;
        Ok((floor, entries))
    }

    /// See [`crate::disk::Disk::rooms`].
    pub(super) fn rooms(&self) -> rusqlite::Result<Vec<RoomSummary>> {
        let mut all = self
            .db
            .prepare_cached("SELECT id, name, shown FROM rooms WHERE shown > 0 ORDER BY name")?;
        let mut newest = self.db.prepare_cached(
            "SELECT ts, origin FROM entries INDEXED BY transcripts WHERE room = ?1 AND shown \
             ORDER BY ts DESC, origin DESC LIMIT 1",
        )?;
        let mut rows = all.query([])?;
        let mut rooms = Vec::new();
        while let Some(row) = rows.next()? {
            let newest = newest
                .query_row([row.get::<_, i64>(0)?], |row| {
                    let origin = row.get_ref(1)?.as_str()?.parse();
                    let ts = row.get::<_, i64>(0)?.cast_unsigned();
                    Ok(origin.ok().map(|origin| Place { ts, origin }))
                })
                .optional()?;
            if let Ok(room) = RoomName::of_peer(row.get_ref(1)?.as_str()?) {
                rooms.push(RoomSummary {
                    room,
                    messages: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                    newest: newest.flatten(),
                });
            }
        }
        Ok(rooms)
    }
}

/// Gives out the entries of a query of [`COLUMNS`], as long as `more` says so. Rows that are rotten
/// are told, and left out.
pub(super) fn each(
    db: &Connection,
    shared: &Shared,
    sql: &str,
    params: impl Params,
    mut more: impl FnMut(Kept) -> bool,
) -> rusqlite::Result<()> {
    // Entries of one room share its name.
    let mut names = HashMap::new();
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        let (id, room) = row::numbers(row)?;
        if !names.contains_key(&room)
            && let Some(name) = room_name(db, room)?
        {
            if names.len() >= ROOMS_CACHED_MAX {
                names.clear();
            }
            names.insert(room, name);
        }
        let kept = match names.get(&room) {
            Some(name) => row::read(row, name)?,
            None => Err(row::Rotten),
        };
        match kept {
            Ok(kept) => {
                if !more(kept) {
                    break;
                }
            }
            Err(row::Rotten) => shared.rotten(id),
        }
    }
    Ok(())
}

/// The name of a room, if it has one.
fn room_name(db: &Connection, room: i64) -> rusqlite::Result<Option<RoomName>> {
    let name: Option<String> = db
        .prepare_cached("SELECT name FROM rooms WHERE id = ?1")?
        .query_row([room], |row| row.get(0))
        .optional()?;
    Ok(name.and_then(|name| RoomName::of_peer(&name).ok()))
}
