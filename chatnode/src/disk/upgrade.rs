//! A file of the first version becomes one of this: its rooms, which were kept as clients spelled
//! them, get the names as they are spelled here, and two that are one room now become one; and its
//! index of words is forgotten, to be made anew by the writer, since it knows other words.

use rusqlite::{Connection, OptionalExtension as _};

use super::row::{self, COLUMNS};
use super::schema;
use crate::model::names::RoomName;

/// A room that is spelled otherwise.
struct Old {
    id: i64,
    name: RoomName,
}

/// All of it or nothing; what it takes is seconds for millions of entries.
pub(super) fn upgrade(db: &Connection, entries: u64) -> rusqlite::Result<()> {
    tracing::info!(
        count = entries,
        "history on disk is of an older version; its index of words is made anew while the node \
         works, and until then a search may be slow"
    );
    schema::transact(db, |db| {
        for room in spelled_otherwise(db)? {
            respell(db, &room)?;
        }
        schema::renew_index(db)?;
        schema::set_version(db)
    })
}

fn spelled_otherwise(db: &Connection) -> rusqlite::Result<Vec<Old>> {
    let mut all = db.prepare("SELECT id, name FROM rooms")?;
    let mut all = all.query([])?;
    let mut old = Vec::new();
    while let Some(row) = all.next()? {
        let kept = row.get_ref(1)?.as_str()?;
        if let Ok(name) = RoomName::of_peer(kept)
            && name.as_str() != kept
        {
            let id = row.get(0)?;
            old.push(Old { id, name });
        }
    }
    Ok(old)
}

fn respell(db: &Connection, old: &Old) -> rusqlite::Result<()> {
    let name = old.name.as_str();
    tracing::info!(
        room = name,
        "a room on disk gets its name as it is spelled now"
    );
    let other: Option<i64> = db
        .prepare_cached("SELECT id FROM rooms WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if let Some(other) = other {
        db.execute(
            "UPDATE rooms SET shown = rooms.shown + old.shown, kept = rooms.kept + old.kept \
             FROM rooms AS old WHERE rooms.id = ?1 AND old.id = ?2",
            (other, old.id),
        )?;
        db.execute("DELETE FROM rooms WHERE id = ?1", [old.id])?;
    } else {
        db.execute("UPDATE rooms SET name = ?2 WHERE id = ?1", (old.id, name))?;
    }
    let mut ids = db.prepare_cached("SELECT id FROM entries WHERE room = ?1")?;
    let ids: Vec<i64> = ids
        .query_map([old.id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut find = db.prepare_cached(&format!("SELECT {COLUMNS} FROM entries e WHERE id = ?1"))?;
    let mut write =
        db.prepare_cached("UPDATE entries SET room = ?2, json = ?3, sum = ?4 WHERE id = ?1")?;
    for id in ids {
        // One that is not what was written was seen when the file was checked.
        if let Ok(kept) = find.query_row([id], |row| row::read(row, &old.name))? {
            let sum = row::sum(id, &kept.entry, kept.shown);
            write.execute((id, other.unwrap_or(old.id), &*kept.entry.json, sum))?;
        }
    }
    Ok(())
}
