//! What a node that starts takes into memory.

use rusqlite::Connection;

use super::check::Sound;
use super::row::COLUMNS;
use super::shared::Shared;
use super::state::State;
use super::{reader, schema, upgrade};
use crate::core::journal::{Loaded, LoadedMid};
use crate::core::memory::{Retention, cost};
use crate::core::mids::MIDS_TRIMMED_MAX;

/// Reads what is to be in memory, and takes the connection over for writing.
pub(super) fn load(
    sound: Sound,
    shared: &Shared,
    window: Retention,
) -> rusqlite::Result<(Connection, State, Loaded)> {
    let db = sound.db;
    let mut indexed = sound.indexed;
    if sound.version < schema::SCHEMA {
        upgrade::upgrade(&db, sound.entries)?;
        indexed = 0;
    } else if !sound.has_index {
        tracing::warn!("the index of words on disk is damaged; it is made anew");
        schema::drop_index(&db)?;
        indexed = 0;
    }
    if schema::meta(&db, "open").is_ok_and(|open| open == 1) {
        tracing::info!("history on disk was not closed; it was checked, and is sound");
    }
    let mut state = State::new(sound.id_last, indexed);
    state.entries = sound.entries;
    let mut loaded = Loaded::default();
    for (log, kept) in sound.logs {
        state.logs.insert(log.origin, kept);
        loaded.logs.push(log);
    }
    let trimmed_at = schema::meta(&db, "trimmed").ok().map(i64::cast_unsigned);
    let never = loaded.logs.iter().all(|log| log.floor == 0);
    loaded.trimmed_at = trimmed_at.or(never.then_some(0));
    newest(&db, shared, window, &mut loaded)?;
    Ok((db, state, loaded))
}

/// The newest entries, and the mids of those before them.
fn newest(
    db: &Connection,
    shared: &Shared,
    window: Retention,
    loaded: &mut Loaded,
) -> rusqlite::Result<()> {
    let Retention { messages, bytes } = window;
    let sql =
        format!("SELECT {COLUMNS} FROM entries e INDEXED BY ages ORDER BY ts DESC, origin DESC");
    let mut room = 0;
    let mut is_full = false;
    reader::each(db, shared, &sql, [], |kept| {
        let cost = cost(&kept.entry);
        is_full = is_full || loaded.entries.len() >= messages || room + cost > bytes;
        if !is_full {
            room += cost;
            loaded.entries.push((kept.entry, kept.shown));
            return true;
        }
        let mid = LoadedMid::of(&kept.entry, kept.shown);
        loaded.mids.extend(mid);
        loaded.mids.len() < MIDS_TRIMMED_MAX
    })?;
    loaded.entries.reverse();
    loaded.mids.reverse();
    Ok(())
}
