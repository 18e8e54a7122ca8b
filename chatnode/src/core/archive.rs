//! Reading what is older than memory: a request says what it needs of the disk, and is made again
//! with that.
//!
//! Memory holds the newest entries of all, the disk holds everything. A page of a quiet room, or
//! what a client has missed in a day, may lie on the disk only, and the core does not wait. So a
//! request that memory alone cannot answer has a [`Need`]: the core keeps the question
//! ([`super::answering`]), has that read, and tries again with an [`Archive`]. The answer is made in the last
//! try, from both and in one cut, so nothing that came meanwhile is missing or there twice.

use std::sync::Arc;

use super::log::Span;
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, Origin};
use crate::model::page::Page;

/// What has to be read from the disk before a request can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
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
    /// call ([`super::rolls`]) brings it, if anybody has it.
    Others,
}

/// What of a room lies in parts of logs.
#[derive(Debug)]
pub(super) struct Beyond {
    /// The parts.
    pub(super) spans: Vec<(Origin, Span)>,
    /// The entries, in no order. `None`: too many, or trimmed.
    pub(super) entries: Option<Vec<Arc<Entry>>>,
}

/// What was read for one request.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// Where the entry stands, if it is kept.
    pub(super) place: Option<Option<Place>>,
    /// A page, and the `trims` for which it was read.
    pub(super) page: Option<(Page, u64)>,
    /// What lies in parts of logs.
    pub(super) beyond: Option<Beyond>,
    /// The other nodes were asked for what they hold, and it was waited for.
    pub(super) others_asked: bool,
    /// Answer with what there is: it was read often enough, or cannot be.
    pub(super) is_last: bool,
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
    pub(super) fn read_beyond(&mut self, read: Beyond) {
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
