//! Verifying a file before it is used: its structure, its indexes, each row.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::folder::Folder;
use super::row::{self, COLUMNS};
use super::schema::{
    self, APPLICATION_ID, Log, SCHEMA, SCHEMA_FIRST, SEARCH_TABLE_FIRST, TABLES, Trouble,
};
use super::state::{Blocks, KeptLog};
use super::terms::OpenError;
use super::time::Stopwatch;
use crate::core::journal::LoadedLog;
use crate::core::log::{HOLES_MAX, Span};
use crate::model::names::{Origin, RoomName};

/// How often it is said how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(2);
/// Steps of SQLite's machine between looks at the clock.
const STEPS_PER_LOOK: i32 = 100_000;
/// Complaints of SQLite that are read.
const COMPLAINTS_MAX: u32 = 20;
/// Numbers of rows beyond this are nonsense.
pub(super) const ID_MAX: i64 = i64::MAX / 2;

/// What a file is that was found sound.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) db: Connection,
    /// Of the schema.
    pub(super) version: i64,
    pub(super) logs: Vec<(LoadedLog, KeptLog)>,
    pub(super) blocks: Blocks,
    pub(super) entries: u64,
    pub(super) id_last: i64,
    pub(super) indexed: i64,
    /// Whether the index of words can be used; it can be made anew.
    pub(super) has_index: bool,
}

/// Why a file cannot be used as it is, in a few words.
#[derive(Debug)]
pub(super) struct Damage(pub(super) String);

/// How a check ends early.
enum Flaw {
    Damage(String),
    Newer(i64),
    Sql(rusqlite::Error),
    System(io::Error),
}

impl From<rusqlite::Error> for Flaw {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

fn damage<T>(what: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw::Damage(what.into()))
}

/// Reads the whole file in use.
pub(super) fn check(folder: &Folder) -> Result<Result<Sound, Damage>, OpenError> {
    let error = match examine(folder) {
        Ok(sound) => return Ok(Ok(sound)),
        Err(Flaw::Damage(what)) => return Ok(Err(Damage(what))),
        Err(Flaw::Newer(found)) => {
            return Err(OpenError::Newer {
                path: folder.dir().to_owned(),
                found,
                known: SCHEMA,
            });
        }
        Err(Flaw::System(error)) => return Err(folder.fault(error)),
        Err(Flaw::Sql(error)) => error,
    };
    match schema::trouble(&error, folder.dir()) {
        Trouble::Damaged => Ok(Err(Damage(error.to_string()))),
        _ => Err(sql_fault(folder, &error)),
    }
}

/// An error of SQLite that is no damage, for people.
pub(super) fn sql_fault(folder: &Folder, error: &rusqlite::Error) -> OpenError {
    let path = folder.dir().to_owned();
    match schema::trouble(error, folder.dir()) {
        Trouble::Forbidden => OpenError::Unwritable {
            path,
            source: io::Error::other(error.to_string()),
        },
        Trouble::Busy => OpenError::Io {
            path,
            message: "another program holds a lock on history.db".into(),
        },
        Trouble::Full | Trouble::Interrupted | Trouble::Damaged | Trouble::Disk => OpenError::Io {
            path,
            message: error.to_string(),
        },
    }
}

fn examine(folder: &Folder) -> Result<Sound, Flaw> {
    check_header(folder)?;
    let mut db = schema::writer(&folder.file(), false)?;
    // A file that turns out to be damaged is left as it was.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version = check_version(&db)?;
    check_tables(&db, version)?;
    let mut has_index = check_structure(&mut db)?;
    let rows = check_rows(&db)?;
    let logs = check_logs(&db)?;
    let indexed = schema::meta(&db, "indexed")?;
    has_index = has_index && check_index(&db, indexed)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(Sound {
        db,
        logs,
        version,
        blocks: rows.blocks,
        entries: rows.count,
        id_last: rows.id_last,
        indexed,
        has_index,
    })
}

/// Versions in the header of a file in WAL mode. With others SQLite would not read the log.
fn check_header(folder: &Folder) -> Result<(), Flaw> {
    let mut header = [0; 100];
    match File::open(folder.file())?.read_exact(&mut header) {
        Ok(()) if header[18..20] == [2, 2] => Ok(()),
        Ok(()) => damage("its header is not that of a history"),
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => damage("it is too short"),
        Err(why) => Err(why.into()),
    }
}

/// The version is there twice: one flipped bit must not make a file look newer.
fn check_version(db: &Connection) -> Result<i64, Flaw> {
    let application = schema::pragma(db, "application_id")?;
    let version = schema::pragma(db, "user_version")?;
    let again = schema::meta(db, "schema")?;
    if application != APPLICATION_ID {
        return damage("it is no history");
    }
    match version {
        _ if version != again => damage("its versions differ"),
        SCHEMA_FIRST..=SCHEMA => Ok(version),
        version if version > SCHEMA => Err(Flaw::Newer(version)),
        _ => damage("its version is none that ever was"),
    }
}

/// The tables are those that were made, to the letter.
fn check_tables(db: &Connection, version: i64) -> Result<(), Flaw> {
    let mut all = db.prepare(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'search\\__%' \
         ESCAPE '\\' ORDER BY rowid",
    )?;
    let all: Vec<String> = all
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut wanted = TABLES;
    if version == SCHEMA_FIRST {
        wanted[TABLES.len() - 1] = SEARCH_TABLE_FIRST;
    }
    // The index of words may have been made anew: it is the last one then, too.
    if all == wanted {
        Ok(())
    } else {
        damage("its tables are not those of a history")
    }
}

/// Whether the index of words is sound; all else must be.
fn check_structure(db: &mut Connection) -> Result<bool, Flaw> {
    let begun = Stopwatch::start();
    let mut told = Stopwatch::start();
    db.progress_handler(
        STEPS_PER_LOOK,
        Some(move || {
            if told.elapsed() > TOLD_EVERY {
                told = Stopwatch::start();
                let elapsed_ms = begun.elapsed().as_millis();
                tracing::info!(elapsed_ms, "checking the structure of history on disk");
            }
            false
        }),
    )?;
    // Not quick_check, which does not compare indexes with tables: what an index does not list is
    // not found, and would be missed in silence.
    let sql = format!("PRAGMA integrity_check({COMPLAINTS_MAX})");
    let complaints: Vec<String> = {
        let mut checked = db.prepare(&sql)?;
        let complaints = checked.query_map([], |row| row.get(0))?;
        complaints.collect::<Result<_, _>>()?
    };
    db.progress_handler(0, None::<fn() -> bool>)?;
    let mut is_sound = true;
    for complaint in complaints {
        // What is wrong with the index of words alone says so, in one of several ways.
        if complaint.to_lowercase().contains("fts5") {
            is_sound = false;
        } else if complaint != "ok" {
            return damage(complaint.lines().next().unwrap_or_default());
        }
    }
    Ok(is_sound)
}

/// What the rows are together.
struct Rows {
    blocks: Blocks,
    count: u64,
    id_last: i64,
}

struct RoomCount {
    name: RoomName,
    /// As the table of rooms has it, less those that were seen.
    shown: i64,
    kept: i64,
}

/// Each row is what was written, and rooms count them right.
fn check_rows(db: &Connection) -> Result<Rows, Flaw> {
    let all: i64 = db.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
    let mut rooms = room_counts(db)?;
    let mut found = Rows {
        blocks: Blocks::default(),
        count: 0,
        id_last: 0,
    };
    let mut told = Stopwatch::start();
    let mut rows = db.prepare(&format!("SELECT {COLUMNS} FROM entries e ORDER BY e.id"))?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (id, room) = row::numbers(row)?;
        let Some(room) = rooms.get_mut(&room) else {
            return damage(format!("entry {id} is in no room"));
        };
        let Ok(kept) = row::read(row, &room.name)? else {
            return damage(format!("entry {id} is not what was written"));
        };
        room.kept -= 1;
        room.shown -= i64::from(kept.shown);
        found.blocks.note(id, kept.entry.ts);
        found.count += 1;
        found.id_last = id;
        if told.elapsed() > TOLD_EVERY {
            told = Stopwatch::start();
            tracing::info!(count = found.count, all, "checking history on disk");
        }
    }
    if found.id_last > ID_MAX {
        return damage("its numbers of rows are nonsense");
    }
    if rooms.values().any(|room| room.kept != 0 || room.shown != 0) {
        return damage("its rooms are not counted right");
    }
    Ok(found)
}

fn room_counts(db: &Connection) -> Result<HashMap<i64, RoomCount>, Flaw> {
    let mut rooms = HashMap::new();
    let mut all = db.prepare("SELECT id, name, shown, kept FROM rooms")?;
    let mut all = all.query([])?;
    while let Some(row) = all.next()? {
        let Ok(name) = RoomName::of_peer(row.get_ref(1)?.as_str().unwrap_or_default()) else {
            return damage("the name of a room is none");
        };
        let count = RoomCount {
            name,
            shown: row.get(2)?,
            kept: row.get(3)?,
        };
        rooms.insert(row.get(0)?, count);
    }
    Ok(rooms)
}

/// A log while its entries are read.
struct LogCount {
    loaded: LoadedLog,
    kept: KeptLog,
    /// The last number that was seen.
    last: u64,
}

/// The logs: their rows are what was written, and their entries lie between floor and held.
fn check_logs(db: &Connection) -> Result<Vec<(LoadedLog, KeptLog)>, Flaw> {
    let mut logs = log_counts(db)?;
    let mut rows =
        db.prepare("SELECT origin, seq FROM entries INDEXED BY logs ORDER BY origin, seq")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let origin = row.get_ref(0)?.as_str().unwrap_or_default();
        let origin = origin.parse::<Origin>().ok();
        let Some(count) = origin.and_then(|origin| logs.get_mut(&origin)) else {
            return damage("the log of an entry is not listed");
        };
        let seq = row.get::<_, i64>(1)?.cast_unsigned();
        if seq <= count.last || seq > count.loaded.held {
            return damage("an entry is beyond the ends of its log");
        }
        count.kept.kept += 1;
        note_hole(&mut count.loaded.holes, count.last, seq - 1);
        count.last = seq;
    }
    let logs = logs.into_values().map(|mut count| {
        note_hole(&mut count.loaded.holes, count.last, count.loaded.held);
        (count.loaded, count.kept)
    });
    let mut logs: Vec<_> = logs.collect();
    logs.sort_by_key(|(loaded, _)| loaded.origin);
    Ok(logs)
}

fn log_counts(db: &Connection) -> Result<HashMap<Origin, LogCount>, Flaw> {
    let mut logs = HashMap::new();
    let mut all = db.prepare("SELECT origin, held, held_ts, floor, sum FROM origins")?;
    let mut all = all.query([])?;
    while let Some(row) = all.next()? {
        let Some((origin, log)) = log(log_values(row)?) else {
            return damage("a log's row is not what was written");
        };
        let loaded = LoadedLog {
            origin,
            held: log.held,
            floor: log.floor,
            holes: Vec::new(),
            last_ts: log.held_ts,
        };
        let count = LogCount {
            loaded,
            kept: KeptLog { log, kept: 0 },
            last: log.floor,
        };
        logs.insert(origin, count);
    }
    Ok(logs)
}

/// The columns of a log's row, as [`log`] takes them.
pub(super) fn log_values<'a>(row: &'a Row<'_>) -> rusqlite::Result<[ValueRef<'a>; 5]> {
    let mut values = [ValueRef::Null; 5];
    for (column, value) in values.iter_mut().enumerate() {
        *value = row.get_ref(column)?;
    }
    Ok(values)
}

/// The last holes are the ones that are remembered, as the core does.
fn note_hole(holes: &mut Vec<Span>, after: u64, through: u64) {
    if after < through {
        if holes.len() >= HOLES_MAX {
            holes.remove(0);
        }
        holes.push(Span { after, through });
    }
}

/// A log from the columns of its row, if they are what was written.
pub(super) fn log(values: [ValueRef<'_>; 5]) -> Option<(Origin, Log)> {
    let [
        ValueRef::Text(origin),
        ValueRef::Integer(held),
        ValueRef::Integer(held_ts),
        ValueRef::Integer(floor),
        ValueRef::Integer(sum),
    ] = values
    else {
        return None;
    };
    let origin = Origin::from_bytes(origin.try_into().ok()?)?;
    let log = Log {
        held: held.cast_unsigned(),
        held_ts: held_ts.cast_unsigned(),
        floor: floor.cast_unsigned(),
    };
    (log.sum(origin) == sum && log.floor <= log.held).then_some((origin, log))
}

/// Whether the index of words has exactly the rows that it should.
fn check_index(db: &Connection, indexed: i64) -> Result<bool, Flaw> {
    type Extent = (i64, Option<i64>, Option<i64>);
    let extent = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let there: Extent = db.query_row(
        "SELECT count(*), min(id), max(id) FROM search_docsize",
        [],
        extent,
    )?;
    let wanted: Extent = db.query_row(
        "SELECT count(*), min(id), max(id) FROM entries WHERE id <= ?1",
        [indexed],
        extent,
    )?;
    Ok(there == wanted && (0..=ID_MAX).contains(&indexed))
}
