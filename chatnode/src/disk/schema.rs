//! The tables, the connections to them, and what an error of SQLite means.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::ffi;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::sums::Sum;
use crate::model::names::Origin;

/// `CMHD`: a file of this store, for `file` and for people.
pub(super) const APPLICATION_ID: i64 = 0x434D_4844;
/// The version of [`TABLES`], and of what is in them. A later one keeps the table `meta` with its key
/// `schema`.
pub(super) const SCHEMA: i64 = 2;
/// The first version, which `upgrade` takes; in that, another tokenizer made the index of words.
pub(super) const SCHEMA_FIRST: i64 = 1;
/// Of the file; SQLite's default, said because [`super::leaves`] reads pages itself.
pub(super) const PAGE_BYTES: usize = 4096;

/// Rows of pages are found by `transcripts`, logs by `logs`, the oldest and the newest by `ages`.
/// `rooms` counts what is shown and what is kept, in the transaction that changes it. `origins`
/// knows what was trimmed, also of logs that are trimmed whole.
///
/// `search` keeps no text, only where words are; its rows have the numbers of the entries. The room
/// is a word there too, so that a search in a quiet room does not visit a busy one.
pub(super) const TABLES: [&str; 8] = [
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE rooms (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, \
     shown INTEGER NOT NULL, kept INTEGER NOT NULL)",
    "CREATE TABLE origins (origin TEXT PRIMARY KEY, held INTEGER NOT NULL, \
     held_ts INTEGER NOT NULL, floor INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, origin TEXT NOT NULL, seq INTEGER NOT NULL, \
     ts INTEGER NOT NULL, room INTEGER NOT NULL, mid TEXT, shown INTEGER NOT NULL, \
     json BLOB NOT NULL, sum INTEGER NOT NULL)",
    "CREATE UNIQUE INDEX logs ON entries (origin, seq)",
    "CREATE INDEX transcripts ON entries (room, ts DESC, origin DESC) WHERE shown",
    "CREATE INDEX ages ON entries (ts, origin)",
    SEARCH_TABLE,
];
/// The last of [`TABLES`]: it can be made anew from the entries.
pub(super) const SEARCH_TABLE: &str = "CREATE VIRTUAL TABLE search USING fts5(room, text, \
     content='', contentless_delete=1, tokenize='ascii')";
/// The same of [`SCHEMA_FIRST`].
pub(super) const SEARCH_TABLE_FIRST: &str = "CREATE VIRTUAL TABLE search USING fts5(room, text, \
     content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2')";

/// How long a connection waits for a lock that another program holds on the file.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// Memory for pages of the file, of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 16 << 10;
/// Memory for pages of the file, of each reader, in KiB.
const READER_CACHE_KIB: i64 = 4 << 10;
/// Statements that a connection keeps compiled.
const STATEMENTS_MAX: usize = 48;
/// What SQLite writes in one piece at the most.
const NEAR_LIMIT_BYTES: u64 = 64 << 10;
/// The write-ahead log is cut to this after it was larger.
const WAL_BYTES_KEPT: i64 = 16 << 20;

/// A connection that writes. The file must be there, unless `create`.
pub(super) fn writer(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let db = connection(path, flags, WRITER_CACHE_KIB)?;
    // FULL: a commit is on the disk when it returns. Checkpoints are made by the writer's thread
    // between batches, since those that SQLite makes by itself hide their errors. On macOS only
    // F_FULLFSYNC reaches the disk; elsewhere it is nothing.
    db.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA fullfsync = ON; \
         PRAGMA checkpoint_fullfsync = ON",
    )?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    Ok(db)
}

/// A connection that reads.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    connection(path, flags, READER_CACHE_KIB)
}

fn connection(path: &Path, flags: OpenFlags, cache_kib: i64) -> rusqlite::Result<Connection> {
    // Without SQLITE_OPEN_URI: a folder may be called `file:…`.
    let db = Connection::open_with_flags(path, flags)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.busy_timeout(BUSY_MAX)?;
    // The file is not trusted: it may be damaged. No mmap: a disk that fails would kill the process.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.execute_batch(
        "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; \
         PRAGMA temp_store = MEMORY",
    )?;
    db.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(db)
}

/// Makes the tables in an empty file.
pub(super) fn create(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "page_size", PAGE_BYTES.cast_signed())?;
    // No auto_vacuum: pages that trimming frees are used again by what comes next, which is as
    // much; moving pages to shorten the file would cost a pointer per page and writes on writes.
    db.pragma_update(None, "auto_vacuum", "NONE")?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    transact(db, |db| {
        for statement in TABLES {
            db.execute_batch(statement)?;
        }
        set_meta(db, "indexed", 0)?;
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
        set_version(db)
    })
}

/// A number of the table `meta`.
pub(super) fn meta(db: &Connection, key: &str) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
}

/// Changes a number of the table `meta`.
pub(super) fn set_meta(db: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute((key, value))?;
    Ok(())
}

/// Forgets the index of words; it is built again from the entries.
pub(super) fn drop_index(db: &Connection) -> rusqlite::Result<()> {
    transact(db, renew_index)
}

/// Says that the file is of this version.
pub(super) fn set_version(db: &Connection) -> rusqlite::Result<()> {
    set_meta(db, "schema", SCHEMA)?;
    db.pragma_update(None, "user_version", SCHEMA)
}

/// As [`drop_index`], within a transaction.
pub(super) fn renew_index(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("DROP TABLE search")?;
    db.execute_batch(SEARCH_TABLE)?;
    set_meta(db, "indexed", 0)
}

/// A number that a pragma answers.
pub(super) fn pragma(db: &Connection, name: &str) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, name, |row| row.get(0))
}

/// Does something in one transaction; nothing of it is left if it fails.
pub(super) fn transact<T>(
    db: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// What is kept of an origin, besides its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    /// The last number kept, or trimmed.
    pub(super) held: u64,
    /// The timestamp of that one.
    pub(super) held_ts: u64,
    /// The number through which retention has trimmed.
    pub(super) floor: u64,
}

impl Log {
    /// The sum of its row.
    pub(super) fn sum(&self, origin: Origin) -> i64 {
        let sum = Sum::new().bytes(origin.as_bytes()).number(self.held);
        sum.number(self.held_ts).number(self.floor).end()
    }
}

/// What an error of SQLite means for what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No room. What was begun can be rolled back, and tried again later.
    Full,
    /// Another program holds a lock on the file. Nothing was done.
    Busy,
    /// It was given up, because it took too long.
    Interrupted,
    /// The file may not be written, or not be opened.
    Forbidden,
    /// The file is not what was written: damaged, or no database.
    Damaged,
    /// The disk does not do what it is asked; what was done is not known.
    Disk,
}

/// Whether the folder has no room is tried out where SQLite says only that a write failed.
pub(super) fn trouble(error: &rusqlite::Error, folder: &Path) -> Trouble {
    let rusqlite::Error::SqliteFailure(error, _) = error else {
        // A column of another type, text that is no UTF-8, a row that is not there.
        return Trouble::Damaged;
    };
    // Not the sync of a file: after one that failed, nobody knows what is on the disk.
    let may_be_full = matches!(
        error.extended_code,
        ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP
    );
    match error.extended_code & 0xFF {
        ffi::SQLITE_FULL => Trouble::Full,
        ffi::SQLITE_IOERR if may_be_full && (has_no_room(folder) || is_at_limit(folder)) => {
            Trouble::Full
        }
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => Trouble::Busy,
        ffi::SQLITE_INTERRUPT => Trouble::Interrupted,
        ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM | ffi::SQLITE_AUTH => {
            Trouble::Forbidden
        }
        ffi::SQLITE_CORRUPT
        | ffi::SQLITE_NOTADB
        | ffi::SQLITE_FORMAT
        | ffi::SQLITE_SCHEMA
        | ffi::SQLITE_MISMATCH
        | ffi::SQLITE_TOOBIG
        | ffi::SQLITE_CONSTRAINT
        | ffi::SQLITE_ERROR => Trouble::Damaged,
        _ => Trouble::Disk,
    }
}

/// Whether a small file cannot be written for want of room. SQLite does not tell the system's error.
fn has_no_room(folder: &Path) -> bool {
    let probe = folder.join("history.probe");
    let written = std::fs::write(&probe, vec![1; 64 << 10]);
    // It may not be there; nothing else can be done about it.
    drop(std::fs::remove_file(&probe));
    written.is_err_and(|why| {
        matches!(
            why.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        )
    })
}

/// Whether a file in the folder is as large as this process may make one (`ulimit -f`), or nearly.
fn is_at_limit(folder: &Path) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let (Some(limit), Ok(files)) = (limit, std::fs::read_dir(folder)) else {
        return false;
    };
    let mut lengths = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    lengths.any(|length| length.saturating_add(NEAR_LIMIT_BYTES) > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None)
    }

    /// Goal: only want of room lets the writer live on; a sync that failed never does.
    /// Method: the codes of SQLite one by one, in a folder that has room.
    #[test]
    fn a_sync_that_failed_is_never_taken_for_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let trouble = |code| trouble(&failure(code), folder.path());
        assert_eq!(trouble(ffi::SQLITE_FULL), Trouble::Full);
        for broken in [
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_DIR_FSYNC,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_NOMEM,
        ] {
            assert_eq!(trouble(broken), Trouble::Disk, "{broken}");
        }
        assert_eq!(trouble(ffi::SQLITE_CORRUPT_VTAB), Trouble::Damaged);
        assert_eq!(trouble(ffi::SQLITE_BUSY), Trouble::Busy);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
