//! A batch, within a transaction.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};

use super::row::{self, COLUMNS};
use super::schema::Log;
use super::shared::Shared;
use super::state::{Changes, KeptLog, State};
use crate::core::journal::Batch;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, RoomName};

/// Writes a batch; what it changes is true once the transaction is committed.
pub(super) fn apply(
    db: &Connection,
    state: &State,
    shared: &Shared,
    batch: &Batch,
) -> rusqlite::Result<Changes> {
    let mut changes = Changes::default();
    let mut written = Vec::with_capacity(batch.entries.len());
    for (entry, shown) in &batch.entries {
        if let Some(id) = keep(db, state, &mut changes, entry, *shown)? {
            written.push((id, entry.ts));
        }
    }
    for (id, shown) in &batch.shows {
        show(db, shared, &mut changes, *id, *shown)?;
    }
    changes.write(db, state)?;
    // Before anybody can read them. Wider than need be if the commit fails, which is allowed.
    shared.note_rows(&written);
    Ok(changes)
}

/// Keeps an entry, once. Returns the number of its row if it is new.
fn keep(
    db: &Connection,
    state: &State,
    changes: &mut Changes,
    entry: &Arc<Entry>,
    shown: bool,
) -> rusqlite::Result<Option<i64>> {
    let before = changes.log(state, entry.origin);
    // Nothing is kept below a floor, though it may come late.
    if before.is_some_and(|before| entry.seq <= before.log.floor) {
        return Ok(None);
    }
    let id = state.id_next(changes);
    let room = changes.room(db, state, &entry.room)?;
    let inserted = db
        .prepare_cached(
            "INSERT INTO entries (id, origin, seq, ts, room, mid, shown, json, sum) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (origin, seq) DO NOTHING",
        )?
        .execute((
            id,
            entry.origin.as_str(),
            entry.seq.cast_signed(),
            entry.ts.cast_signed(),
            room,
            entry.mid.as_ref().map(Mid::as_str),
            shown,
            &*entry.json,
            row::sum(id, entry, shown),
        ))?;
    if inserted == 0 {
        // A room that was met just now is not left behind empty.
        changes.count(room, 0, 0);
        return Ok(None);
    }
    changes.count(room, i64::from(shown), 1);
    changes.ids_used += 1;
    changes.entries_added += 1;
    let mut kept = before.unwrap_or(KeptLog {
        log: Log {
            held: 0,
            held_ts: 0,
            floor: 0,
        },
        kept: 0,
    });
    kept.kept += 1;
    if entry.seq > kept.log.held {
        (kept.log.held, kept.log.held_ts) = (entry.seq, entry.ts);
    }
    changes.set_log(entry.origin, kept);
    Ok(Some(id))
}

/// Changes whether an entry is shown. One that is not kept, or is rotten, is left alone.
fn show(
    db: &Connection,
    shared: &Shared,
    changes: &mut Changes,
    id: EntryId,
    shown: bool,
) -> rusqlite::Result<()> {
    let sql = format!(
        "SELECT {COLUMNS}, r.name FROM entries e LEFT JOIN rooms r ON r.id = e.room \
         WHERE e.origin = ?1 AND e.seq = ?2"
    );
    let found = db
        .prepare_cached(&sql)?
        .query_row((id.origin.as_str(), id.seq.cast_signed()), |row| {
            let (number, room) = row::numbers(row)?;
            let name: Option<String> = row.get(9)?;
            let name: Option<RoomName> = name.and_then(|name| RoomName::of_peer(&name).ok());
            Ok(match name {
                Some(name) => row::read(row, &name)?.map(|kept| (kept, room)),
                None => Err(row::Rotten),
            }
            .map_err(|_| number))
        })
        .optional()?;
    let (kept, room) = match found {
        Some(Ok(found)) => found,
        Some(Err(number)) => {
            shared.rotten(number);
            return Ok(());
        }
        None => return Ok(()),
    };
    if kept.shown == shown {
        return Ok(());
    }
    db.prepare_cached("UPDATE entries SET shown = ?2, sum = ?3 WHERE id = ?1")?
        .execute((kept.id, shown, row::sum(kept.id, &kept.entry, shown)))?;
    changes.count(room, if shown { 1 } else { -1 }, 0);
    Ok(())
}
