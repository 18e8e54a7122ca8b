//! Reading what is older than memory: a request says what it needs of the disk, and is made again
//! with that.
//!
//! Memory holds the newest entries of all, the disk holds everything. A page of a quiet room, or
//! what a client has missed in a day, may lie on the disk only, and the core does not wait. So a
//! request that memory alone cannot answer comes back as a [`Need`]; the rim reads it, and asks
//! again with an [`Archive`]. The answer is made in that second call, from both and in one cut, so
//! nothing that came meanwhile is missing or there twice.

use std::sync::Arc;

use super::log::Span;
use super::{Core, Log};
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, Origin, RoomName};
use crate::model::page::{PAGE_BYTES_MAX, Page};

/// What has to be read from the disk before a request can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// Where an entry stands.
    Place(EntryId),
    /// The newest `limit` entries before a place.
    Page {
        /// None is the end.
        before: Option<Place>,
        /// How many.
        limit: usize,
        /// Of the room, when this was asked.
        trims: u64,
    },
    /// All of the room in these parts of logs.
    Beyond(Vec<(Origin, Span)>),
    /// Not of the disk, but of the other nodes: what the client has seen and this node has not. A roll
    /// call ([`Core::call_roll`]) brings it, if anybody has it.
    Others,
}

/// What of a room lies in parts of logs.
#[derive(Debug)]
pub(crate) struct Beyond {
    /// The parts.
    pub(crate) spans: Vec<(Origin, Span)>,
    /// The entries, in no order. `None`: too many, or trimmed.
    pub(crate) entries: Option<Vec<Arc<Entry>>>,
}

/// What was read for one request.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    /// Where the entry stands, if it is kept.
    pub(crate) place: Option<Option<Place>>,
    /// A page, and the `trims` for which it was read.
    pub(crate) page: Option<(Page, u64)>,
    /// What lies in parts of logs.
    pub(super) beyond: Option<Beyond>,
    /// The other nodes were asked for what they hold, and it was waited for.
    pub(crate) others_asked: bool,
    /// Answer with what there is: it was read often enough, or cannot be.
    pub(crate) is_last: bool,
}

impl Core {
    /// The newest `limit` messages of a room that stand before an entry; `Ok(None)` if the entry is
    /// not known.
    ///
    /// # Errors
    /// What has to be read first.
    pub(crate) fn page_with(
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
    pub(crate) fn place_of(&self, id: EntryId, archive: &Archive) -> Result<Option<Place>, Need> {
        match (self.store.get(id), archive.place) {
            (Some(entry), _) => Ok(Some(entry.place())),
            (None, Some(place)) => Ok(place),
            (None, None) if self.is_durable() && !archive.is_last => Err(Need::Place(id)),
            (None, None) => Ok(None),
        }
    }

    /// All of a room in memory that stands before a place, the newest first.
    pub(crate) fn transcript(&self, room: &RoomName, before: Option<Place>) -> Vec<Arc<Entry>> {
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

    /// Whether an entry that was read from the disk as one that is shown is so still: the disk may be
    /// about to learn that another with its mid stands earlier.
    pub(super) fn is_shown_on_disk(&self, entry: &Entry) -> bool {
        let mid = entry.mid.as_ref();
        let shown = mid.and_then(|mid| self.mids.get(&entry.room, mid));
        shown.is_none_or(|(id, _)| id == entry.id())
    }

    /// What of a room's part beyond a number of a log is on the disk only, or may be.
    pub(super) fn archived_of(&self, room: &RoomName, after: EntryId, log: &Log) -> Option<Span> {
        let gone =
            self.is_durable() && after.seq < log.window() && self.store.has_trimmed(room, after);
        gone.then(|| Span {
            after: after.seq,
            through: log.window(),
        })
    }
}

impl Beyond {
    /// Takes in what was read later: parts that go on where these end, or others.
    fn extend(&mut self, later: Self) {
        for (origin, span) in later.spans {
            let goes_on =
                |(of, had): &&mut (Origin, Span)| *of == origin && had.through == span.after;
            match self.spans.iter_mut().find(goes_on) {
                Some((_, had)) => had.through = span.through,
                None => self.spans.push((origin, span)),
            }
        }
        match (&mut self.entries, later.entries) {
            (Some(entries), Some(later)) => entries.extend(later),
            (entries, _) => *entries = None,
        }
    }
}

impl Archive {
    /// Takes in what was read of parts of logs. A busy node lets entries go while the disk is read,
    /// so what is asked for next are those, and not all of it again.
    pub(crate) fn read_beyond(&mut self, read: Beyond) {
        match &mut self.beyond {
            Some(beyond) => beyond.extend(read),
            None => self.beyond = Some(read),
        }
    }

    /// The number through which a log was read from behind this one on; this one if it was not.
    pub(super) fn read_through(&self, origin: Origin, after: u64) -> u64 {
        let spans = self.beyond.iter().flat_map(|beyond| &beyond.spans);
        let covering = spans.filter(|(of, span)| *of == origin && span.after <= after);
        covering.map(|(_, span)| span.through).fold(after, u64::max)
    }

    /// What was read of parts of logs.
    pub(super) fn read(&self) -> &[Arc<Entry>] {
        let entries = self
            .beyond
            .as_ref()
            .and_then(|beyond| beyond.entries.as_deref());
        entries.unwrap_or_default()
    }

    /// Whether what lies in parts of logs was asked for, and is too much, or gone.
    pub(super) fn is_beyond_reach(&self) -> bool {
        self.beyond
            .as_ref()
            .is_some_and(|beyond| beyond.entries.is_none())
    }
}
