//! Reads that may have to look at much, and are given up when they take too long: a search, and
//! what lies beyond a position.

use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use super::reader::Reader;
use super::row::COLUMNS;
use super::time::Stopwatch;
use super::{index, schema};
use crate::core::log::{SEQ_MAX, Span};
use crate::core::question::ReadError;
use crate::model::entry::{Entry, EntryJson, Place};
use crate::model::names::{Origin, RoomName};
use crate::model::page::{PAGE_BYTES_MAX, Page};
use crate::model::pattern::Scope;
use crate::model::query::Query;

/// Steps of SQLite's machine between looks at the clock: some tens of microseconds.
const STEPS_PER_LOOK: i32 = 1000;

/// The newest of those found, by place, and the number of each one's row.
struct Newest {
    found: BTreeMap<Place, i64>,
    before: Option<Place>,
    count_max: usize,
}

impl Newest {
    fn offer(&mut self, place: Place, row: i64) {
        if self.before.is_some_and(|before| place >= before) {
            return;
        }
        self.found.insert(place, row);
        if self.found.len() > self.count_max {
            self.found.pop_first();
        }
    }

    /// Whether nothing that is at most so new can be among them.
    fn is_settled(&self, ts: u64) -> bool {
        let oldest = self.found.first_key_value();
        self.found.len() >= self.count_max && oldest.is_some_and(|(place, _)| place.ts > ts)
    }
}

/// A walk from the last row down: what is yet to come is at most so new.
struct Walk {
    /// For each block, its first row and the newest timestamp of all rows before it, last first.
    blocks: Peekable<IntoIter<(i64, u64)>>,
    rest: u64,
}

impl Walk {
    /// The newest timestamp that this row, or one before it, may have.
    fn rest_after(&mut self, id: i64) -> u64 {
        // What is before a block is known where the walk leaves it.
        while let Some((first, before)) = self.blocks.peek()
            && *first > id
        {
            self.rest = *before;
            self.blocks.next();
        }
        self.rest
    }
}

impl Reader {
    /// As `read`, but given up after this time.
    pub(super) fn read_in_time<T>(
        &mut self,
        time_max: Duration,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let begun = Stopwatch::start();
        let is_late = move || begun.elapsed() > time_max;
        let broken = |error: rusqlite::Error| ReadError::Broken(error.to_string());
        self.db
            .progress_handler(STEPS_PER_LOOK, Some(is_late))
            .map_err(broken)?;
        let done = self.read(work);
        self.db
            .progress_handler(0, None::<fn() -> bool>)
            .map_err(broken)?;
        done
    }

    /// See [`crate::disk::Disk::search`].
    pub(super) fn search(
        &mut self,
        room: &RoomName,
        query: &Query,
        before: Option<Place>,
        limit: usize,
    ) -> rusqlite::Result<Page> {
        let Some((room, _)) = self.room(room)? else {
            return Ok(Page::default());
        };
        let mut newest = Newest {
            found: BTreeMap::new(),
            before,
            // One more says whether there are more.
            count_max: limit.saturating_add(1),
        };
        let (last, blocks) = {
            let blocks = self.shared.blocks();
            let last = before.map_or(i64::MAX, |at| blocks.last_row(at.ts));
            (last, blocks.before())
        };
        let mut walk = Walk {
            blocks: blocks.into_iter().peekable(),
            rest: u64::MAX,
        };
        let indexed = schema::meta(&self.db, "indexed")?;
        if !self.search_tail(room, query, (indexed, last), &mut walk, &mut newest)? {
            let last = last.min(indexed);
            self.search_index(room, query, last, &mut walk, &mut newest)?;
        }
        self.found(&newest, limit)
    }

    /// Looks through the rows that are not in the index yet, from the last one. Whether that was
    /// enough.
    fn search_tail(
        &self,
        room: i64,
        query: &Query,
        (indexed, last): (i64, i64),
        walk: &mut Walk,
        newest: &mut Newest,
    ) -> rusqlite::Result<bool> {
        let mut tail = self.db.prepare_cached(
            "SELECT id, ts, origin, json FROM entries WHERE id > ?1 AND id <= ?2 AND +room = ?3 \
             AND +shown ORDER BY id DESC",
        )?;
        let mut rows = tail.query((indexed, last, room))?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            if newest.is_settled(walk.rest_after(id)) {
                return Ok(true);
            }
            let json = row.get_ref(3)?.as_blob_or_null()?.unwrap_or_default();
            if let Ok(json) = serde_json::from_slice::<EntryJson<'_>>(json)
                && query.matches(&json.text)
                && let Ok(origin) = row.get_ref(2)?.as_str()?.parse()
            {
                let ts = row.get::<_, i64>(1)?.cast_unsigned();
                newest.offer(Place { ts, origin }, id);
            }
        }
        Ok(false)
    }

    /// Looks through the index, from the row that was written last.
    fn search_index(
        &self,
        room: i64,
        query: &Query,
        last: i64,
        walk: &mut Walk,
        newest: &mut Newest,
    ) -> rusqlite::Result<()> {
        let terms = format!(
            "room : \"{}\" AND text : ({})",
            index::room_word(room),
            query.to_fts()
        );
        let mut matches = self.db.prepare_cached(
            "SELECT rowid FROM search WHERE search MATCH ?1 AND rowid <= ?2 ORDER BY rowid DESC",
        )?;
        let mut place = self.db.prepare_cached(
            "SELECT ts, origin FROM entries WHERE id = ?1 AND room = ?2 AND shown",
        )?;
        let mut rows = matches.query((terms, last))?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            if newest.is_settled(walk.rest_after(id)) {
                break;
            }
            let mut found = place.query((id, room))?;
            if let Some(found) = found.next()?
                && let Ok(origin) = found.get_ref(1)?.as_str()?.parse()
            {
                let ts = found.get::<_, i64>(0)?.cast_unsigned();
                newest.offer(Place { ts, origin }, id);
            }
        }
        Ok(())
    }

    /// The page of what was found.
    fn found(&mut self, newest: &Newest, limit: usize) -> rusqlite::Result<Page> {
        let sql = format!("SELECT {COLUMNS} FROM entries e WHERE id = ?1");
        let mut page = Page::default();
        let mut bytes = 0;
        for id in newest.found.values().rev() {
            if page.entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                page.more = true;
                break;
            }
            self.entries(&sql, [id], |kept| {
                bytes += kept.entry.json.len();
                page.entries.push(kept.entry);
                false
            })?;
        }
        page.entries.reverse();
        Ok(page)
    }

    /// See [`crate::disk::Disk::beyond`].
    pub(super) fn beyond(
        &mut self,
        scope: &Scope,
        spans: &[(Origin, Span)],
        entries_max: usize,
        bytes_max: usize,
    ) -> rusqlite::Result<Option<Vec<Arc<Entry>>>> {
        let spans: HashMap<Origin, Span> = spans
            .iter()
            .filter(|(_, span)| span.after < span.through)
            .copied()
            .collect();
        let mut length = 0_u64;
        for (origin, span) in &spans {
            // Of a log that is not known nothing can be said, least of all that nothing is missing.
            if self.floor(*origin)?.is_none_or(|floor| span.after < floor) {
                return Ok(None);
            }
            length = length.saturating_add(span.through.min(SEQ_MAX) - span.after.min(SEQ_MAX));
        }
        let (rooms, shown) = self.rooms_of(scope)?;
        let mut within = Within {
            entries: Vec::new(),
            bytes: 0,
            entries_max,
            bytes_max,
        };
        // Whichever looks at less: the numbers of the logs, or the rooms.
        if length <= shown {
            let fits = self.beyond_by_logs(scope, &spans, &mut within)?;
            return Ok(fits.then_some(within.entries));
        }
        for room in rooms {
            if !self.beyond_by_room(room, &spans, &mut within)? {
                return Ok(None);
            }
        }
        Ok(Some(within.entries))
    }

    /// The numbers of rooms that show something, and how much they show together.
    fn rooms_of(&self, scope: &Scope) -> rusqlite::Result<(Vec<i64>, u64)> {
        if let Some(name) = scope.room() {
            let room = self.room(name)?.filter(|_| scope.has(name));
            return Ok(room.map_or((Vec::new(), 0), |(room, shown)| (vec![room], shown)));
        }
        // No name has that character, and all others come before it.
        let beginning = scope.rooms.beginning();
        let end = format!("{beginning}{}", char::MAX);
        let mut all = self.db.prepare_cached(
            "SELECT id, name, shown FROM rooms WHERE name >= ?1 AND name < ?2 AND shown > 0",
        )?;
        let mut rows = all.query([beginning, &end])?;
        let (mut rooms, mut together) = (Vec::new(), 0_u64);
        while let Some(row) = rows.next()? {
            let name = RoomName::of_peer(row.get_ref(1)?.as_str()?);
            if name.is_ok_and(|name| scope.has(&name)) {
                rooms.push(row.get(0)?);
                together = together.saturating_add(row.get::<_, i64>(2)?.cast_unsigned());
            }
        }
        Ok((rooms, together))
    }

    fn beyond_by_logs(
        &mut self,
        scope: &Scope,
        spans: &HashMap<Origin, Span>,
        within: &mut Within,
    ) -> rusqlite::Result<bool> {
        let sql = format!(
            "SELECT {COLUMNS} FROM entries e INDEXED BY logs WHERE origin = ?1 AND seq > ?2 \
             AND seq <= ?3"
        );
        let mut fits = true;
        for (origin, span) in spans {
            let bounds = [span.after, span.through].map(|seq| seq.min(SEQ_MAX).cast_signed());
            self.entries(&sql, (origin.as_str(), bounds[0], bounds[1]), |kept| {
                if kept.shown && scope.has(&kept.entry.room) {
                    fits = within.take(kept.entry);
                }
                fits
            })?;
            if !fits {
                break;
            }
        }
        Ok(fits)
    }

    fn beyond_by_room(
        &mut self,
        room: i64,
        spans: &HashMap<Origin, Span>,
        within: &mut Within,
    ) -> rusqlite::Result<bool> {
        // Only the index is read of what others said.
        let mut rows = Vec::new();
        {
            let mut all = self.db.prepare_cached(
                "SELECT id, origin FROM entries INDEXED BY transcripts WHERE room = ?1 AND shown \
                 ORDER BY ts DESC, origin DESC",
            )?;
            let mut number = self
                .db
                .prepare_cached("SELECT seq FROM entries WHERE id = ?1")?;
            let mut all = all.query([room])?;
            while let Some(row) = all.next()? {
                let origin = row.get_ref(1)?.as_str()?.parse::<Origin>();
                let Some(span) = origin.ok().and_then(|origin| spans.get(&origin)) else {
                    continue;
                };
                let id: i64 = row.get(0)?;
                let seq: i64 = number.query_row([id], |row| row.get(0))?;
                let seq = seq.cast_unsigned();
                if span.after < seq && seq <= span.through {
                    rows.push(id);
                }
                if within.entries.len() + rows.len() > within.entries_max {
                    return Ok(false);
                }
            }
        }
        let sql = format!("SELECT {COLUMNS} FROM entries e WHERE id = ?1");
        let mut fits = true;
        for id in rows {
            self.entries(&sql, [id], |kept| {
                fits = within.take(kept.entry);
                fits
            })?;
            if !fits {
                break;
            }
        }
        Ok(fits)
    }
}

/// Entries, up to a number and a size.
struct Within {
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

impl Within {
    /// Whether it fits.
    fn take(&mut self, entry: Arc<Entry>) -> bool {
        self.bytes += entry.json.len();
        self.entries.push(entry);
        self.entries.len() <= self.entries_max && self.bytes <= self.bytes_max
    }
}
