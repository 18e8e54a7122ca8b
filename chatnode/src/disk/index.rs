//! The index of words, written after the entries, many at a time.
//!
//! In the transaction of a batch it would more than halve what the writer can take: FTS5 makes a
//! segment of each transaction and merges them later. So rows wait until there are enough, and a
//! search looks through those that wait one by one. What is indexed is the words of a text as `words`
//! has them, for a tokenizer that only parts them: so an index finds what a look at the text does.

use rusqlite::Connection;

use super::schema;
use super::state::{Changes, State};
use crate::model::entry::EntryJson;
use crate::model::words::words;

/// Rows that are indexed at once: as many must wait before any is.
pub(super) const INDEX_ROWS: u64 = 1000;
/// When so many wait, they are indexed though batches wait too.
pub(super) const UNINDEXED_MAX: u64 = 4000;

/// The word that stands for a room in the index.
pub(super) fn room_word(room: i64) -> String {
    format!("r{room}")
}

/// Puts the rows that come next into the index, within a transaction.
pub(super) fn step(db: &Connection, state: &State, rows_max: u64) -> rusqlite::Result<Changes> {
    let mut find =
        db.prepare_cached("SELECT id, room, json FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut add =
        db.prepare_cached("INSERT INTO search (rowid, room, text) VALUES (?1, ?2, ?3)")?;
    let mut rows = find.query((state.indexed, rows_max.cast_signed()))?;
    let mut count = 0;
    let mut indexed = state.indexed;
    while let Some(row) = rows.next()? {
        indexed = row.get(0)?;
        count += 1;
        let json = row.get_ref(2)?.as_blob_or_null()?.unwrap_or_default();
        // JSON of another shape, which another node sent, has no text to be found by.
        let json = serde_json::from_slice::<EntryJson<'_>>(json);
        let words = json.map_or_else(|_| String::new(), |json| words(&json.text));
        add.execute((indexed, room_word(row.get(1)?), words))?;
    }
    if count < rows_max {
        indexed = state.id_next - 1;
    }
    schema::set_meta(db, "indexed", indexed)?;
    let mut changes = Changes::default();
    changes.indexed = Some(indexed);
    Ok(changes)
}

/// Takes a row out of the index, within a transaction.
pub(super) fn remove(db: &Connection, state: &State, id: i64) -> rusqlite::Result<()> {
    if id <= state.indexed {
        db.prepare_cached("DELETE FROM search WHERE rowid = ?1")?
            .execute([id])?;
    }
    Ok(())
}
