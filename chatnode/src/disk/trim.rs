//! Retention: what is too much, and a step that removes some of it.
//!
//! The oldest by timestamp goes first, but always from the front of a log. Timestamps increase along
//! a log, so that is the same; should some node break that rule, its log is still trimmed from the
//! front, by as many.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

use super::state::{Changes, State};
use super::terms::DiskRetention;
use super::time::Stopwatch;
use super::{index, schema};
use crate::model::names::Origin;

/// Entries that are removed in one transaction at the most.
const TRIM_ROWS: u64 = 1000;
/// A step ends after this, whatever it has removed: a batch may wait.
const TRIM_STEP: Duration = Duration::from_millis(20);
/// Pages of the index of words that are merged with each step, so that what was removed from it
/// becomes free.
const MERGE_PAGES: i64 = 64;

/// Logs and the numbers through which they were trimmed.
pub(super) type Floors = BTreeMap<Origin, u64>;

/// How many of the oldest entries are too many; at most [`TRIM_ROWS`].
pub(super) fn excess(
    db: &Connection,
    state: &State,
    retention: &DiskRetention,
    wall_us: u64,
) -> rusqlite::Result<u64> {
    if state.entries == 0 {
        return Ok(0);
    }
    let mut excess = 0;
    if retention.messages > 0 {
        excess = state.entries.saturating_sub(retention.messages);
    }
    if retention.bytes > 0 {
        let used = bytes_used(db)?;
        let row = (used / state.entries).max(1);
        excess = excess.max(used.saturating_sub(retention.bytes).div_ceil(row));
    }
    if let Some(age) = retention.age {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        let mut old = db.prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM entries INDEXED BY ages WHERE ts < ?1 LIMIT ?2)",
        )?;
        let oldest = wall_us.saturating_sub(age).cast_signed();
        let old: i64 = old.query_row((oldest, TRIM_ROWS.cast_signed()), |row| row.get(0))?;
        excess = excess.max(old.cast_unsigned());
    }
    Ok(excess.min(TRIM_ROWS).min(state.entries))
}

/// Bytes of the pages that hold something. Free ones do not count: what is trimmed is free at once,
/// though the file stays as long as it was.
fn bytes_used(db: &Connection) -> rusqlite::Result<u64> {
    let pages = schema::pragma(db, "page_count")? - schema::pragma(db, "freelist_count")?;
    Ok(pages.cast_unsigned() * schema::PAGE_BYTES as u64)
}

/// Removes so many of the oldest entries, or what can be removed in [`TRIM_STEP`], within a
/// transaction.
pub(super) fn step(
    db: &Connection,
    state: &State,
    rows: u64,
) -> rusqlite::Result<(Changes, Floors)> {
    let begun = Stopwatch::start();
    let mut changes = Changes::default();
    let mut floors = Floors::new();
    let oldest = oldest(db, rows)?;
    let mut fronts = fronts(db, &oldest)?;
    let mut remove = db.prepare_cached("DELETE FROM entries WHERE id = ?1")?;
    for origin in oldest {
        if begun.elapsed() > TRIM_STEP && !floors.is_empty() {
            break;
        }
        let Some(mut kept) = changes.log(state, origin) else {
            continue;
        };
        let Some(front) = fronts.get_mut(&origin).and_then(VecDeque::pop_front) else {
            continue;
        };
        remove.execute([front.id])?;
        index::remove(db, state, front.id)?;
        changes.count(front.room, -i64::from(front.shown), -1);
        changes.entries_trimmed += 1;
        kept.kept = kept.kept.saturating_sub(1);
        kept.log.floor = front.seq;
        floors.insert(origin, front.seq);
        changes.set_log(origin, kept);
    }
    changes.write(db, state)?;
    db.prepare_cached("INSERT INTO search (search, rank) VALUES ('merge', ?1)")?
        .execute([MERGE_PAGES])?;
    Ok((changes, floors))
}

/// Whose the oldest entries are, oldest first.
fn oldest(db: &Connection, rows: u64) -> rusqlite::Result<Vec<Origin>> {
    let mut oldest = db.prepare_cached(
        "SELECT origin FROM entries INDEXED BY ages ORDER BY ts, origin LIMIT ?1",
    )?;
    let mut origins = Vec::new();
    let mut rows = oldest.query([rows.cast_signed()])?;
    while let Some(row) = rows.next()? {
        // Origins were checked when the file was opened; one that rotted since is passed over.
        origins.extend(row.get_ref(0)?.as_str()?.parse::<Origin>());
    }
    Ok(origins)
}

/// An entry at the front of its log.
struct Front {
    id: i64,
    seq: u64,
    room: i64,
    shown: bool,
}

/// The first entries of each of these logs, as many as it is listed.
fn fronts(
    db: &Connection,
    oldest: &[Origin],
) -> rusqlite::Result<HashMap<Origin, VecDeque<Front>>> {
    let mut counts = HashMap::new();
    for origin in oldest {
        *counts.entry(*origin).or_insert(0) += 1;
    }
    let mut front = db.prepare_cached(
        "SELECT id, seq, room, shown FROM entries INDEXED BY logs WHERE origin = ?1 \
         ORDER BY seq LIMIT ?2",
    )?;
    let mut fronts = HashMap::new();
    for (origin, count) in counts {
        let entries = front.query_map((origin.as_str(), count), |row| {
            Ok(Front {
                id: row.get(0)?,
                seq: row.get::<_, i64>(1)?.cast_unsigned(),
                room: row.get(2)?,
                shown: row.get(3)?,
            })
        })?;
        fronts.insert(origin, entries.collect::<Result<_, _>>()?);
    }
    Ok(fronts)
}

/// The number of the first row that is left.
pub(super) fn first_row(db: &Connection) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM entries ORDER BY id LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()
}
