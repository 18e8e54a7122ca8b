//! Pages of a room's transcript, from memory and from what was read of the disk.

use std::sync::Arc;

use super::archive::{Archive, Need};
use super::log::{Log, Span};
use super::memory::scoped::View;
use super::state::Core;
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, RoomName};
use crate::model::page::{PAGE_BYTES_MAX, Page};

fn place_of(id: EntryId, ts: u64) -> Place {
    Place {
        ts,
        origin: id.origin,
    }
}

impl Core {
    /// The newest `limit` messages of a room that stand before an entry; `Ok(None)` if the entry is
    /// not known.
    ///
    /// # Errors
    /// What has to be read first.
    pub(super) fn page_with(
        &self,
        room: &RoomName,
        before: Option<EntryId>,
        limit: usize,
        archive: &Archive,
    ) -> Result<Option<Page>, Need> {
        let before = match before {
            None => None,
            Some(id) => match self.place_of(id, archive)? {
                Some(place) => Some(place),
                None => return Ok(None),
            },
        };
        self.page_before(room, before, limit, archive).map(Some)
    }

    /// Where an entry stands, if it is kept.
    ///
    /// # Errors
    /// What has to be read first.
    pub(super) fn place_of(&self, id: EntryId, archive: &Archive) -> Result<Option<Place>, Need> {
        match (self.store.get(id), archive.place) {
            (Some(entry), _) => Ok(Some(entry.place())),
            (None, Some(place)) => Ok(place),
            (None, None) if self.is_durable() && !archive.is_last => Err(Need::Place(id)),
            (None, None) => Ok(None),
        }
    }

    /// All of a room in memory that stands before a place, the newest first.
    pub(super) fn transcript(&self, room: &RoomName, before: Option<Place>) -> Vec<Arc<Entry>> {
        self.store.transcript(room, before)
    }

    /// The newest `limit` messages of a room that stand before a place.
    pub(super) fn page_before(
        &self,
        room: &RoomName,
        before: Option<Place>,
        limit: usize,
        archive: &Archive,
    ) -> Result<Page, Need> {
        let page = self.store.page(room, before, limit);
        if !self.is_durable() || self.store.is_whole(room, &page, limit) {
            return Ok(page);
        }
        let trims = self.store.trims_of(room);
        match &archive.page {
            Some((read, at)) if *at == trims || archive.is_last => {
                Ok(self.merged(page, read, limit))
            }
            None if archive.is_last => Ok(page),
            Some(_) | None => Err(Need::Page {
                before,
                limit,
                trims,
            }),
        }
    }

    /// Whether an entry that was read from the disk as one that is shown is so still: the disk may be
    /// about to learn that another with its mid stands earlier.
    pub(super) fn is_shown_on_disk(&self, entry: &Entry) -> bool {
        let mid = entry.mid.as_ref();
        let known = mid.and_then(|mid| self.mids.get(&entry.room, mid));
        // One that stands later is another message: the mid of this one was forgotten meanwhile.
        known.is_none_or(|(id, ts)| id == entry.id() || entry.place() < place_of(id, ts))
    }

    /// A page of memory and one of the disk as one.
    fn merged(&self, page: Page, read: &Page, limit: usize) -> Page {
        let mut entries = page.entries;
        // What memory holds it knows better: the disk may be about to learn it.
        let older = read
            .entries
            .iter()
            .filter(|entry| self.store.get(entry.id()).is_none() && self.is_shown_on_disk(entry));
        entries.extend(older.cloned());
        entries.sort_unstable_by_key(|entry| entry.place());
        entries.dedup_by_key(|entry| entry.place());
        let mut bytes = 0;
        let fit = entries.iter().rev().take(limit).take_while(|entry| {
            let fits = bytes < PAGE_BYTES_MAX;
            bytes += entry.json.len();
            fits
        });
        let surplus = entries.len() - fit.count();
        entries.drain(..surplus);
        Page {
            entries,
            more: page.more || read.more || surplus > 0,
        }
    }

    /// What of some rooms' part beyond a number of a log is on the disk only, or may be.
    pub(super) fn archived_of(&self, rooms: &View<'_>, after: EntryId, log: &Log) -> Option<Span> {
        let gone = self.is_durable() && after.seq < log.window() && rooms.has_trimmed(after);
        gone.then(|| Span {
            after: after.seq,
            through: log.window(),
        })
    }
}
