//! What is asked of peers by HTTP, and how much at once: less of one that was too slow for a whole page.

use std::collections::BTreeMap;
use std::time::Duration;

use super::repair::{Fetch, FetchId};
use crate::model::names::Origin;

/// Bytes of entries in one answer to a repair request.
pub(crate) const LOG_PAGE_BYTES: usize = 512 << 10;
/// A repair request takes so long at the most.
pub(crate) const FETCH_MAX: Duration = Duration::from_secs(5);
/// A page that came within this time may be twice as large the next time.
const FETCH_QUICK: Duration = Duration::from_secs(1);
/// However slow a peer is, a page that is asked of it is no smaller.
pub(super) const SLOW_PAGE_BYTES_MIN: usize = 8 << 10;

/// Something that a peer is to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request {
    /// Entries.
    Entries(Fetch),
    /// Its members.
    Members(Origin),
    /// Its position.
    Position(Origin),
}

/// How long pages are.
#[derive(Debug, Default)]
pub(super) struct Paces {
    /// How long a page is asked of a peer that was too slow for a whole one. As many as there are
    /// peers, at the most.
    slow: BTreeMap<Origin, usize>,
    /// How long the pages are that are under way.
    asked: BTreeMap<FetchId, (Origin, usize)>,
}

impl Paces {
    /// A page is asked of a peer: how long it may be.
    pub(super) fn ask(&mut self, id: FetchId, peer: Origin) -> usize {
        let bytes = self.slow.get(&peer).copied().unwrap_or(LOG_PAGE_BYTES);
        self.asked.insert(id, (peer, bytes));
        bytes
    }

    /// A page that was asked for came or did not. One that did not come in time would not the next time
    /// either: then a thin wire would carry the same page for ever, and never whole.
    pub(super) fn answered(
        &mut self,
        id: FetchId,
        came: bool,
        took: Duration,
        is_known: impl Fn(Origin) -> bool,
    ) {
        let Some((peer, bytes)) = self.asked.remove(&id) else {
            return;
        };
        let next = if came && took <= FETCH_QUICK {
            bytes * 2
        } else if !came && took >= FETCH_MAX {
            (bytes / 2).max(SLOW_PAGE_BYTES_MIN)
        } else {
            return;
        };
        if next >= LOG_PAGE_BYTES {
            self.slow.remove(&peer);
        } else {
            self.slow.retain(|known, _| is_known(*known));
            self.slow.insert(peer, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a thin wire carries pages that it can carry, and a good one whole pages. Method: requests that
    /// are not answered in time, then quick answers.
    #[test]
    fn a_slow_peer_is_asked_for_less_and_a_quick_one_for_more() {
        let peer = "bbbbbbbbbb".parse().unwrap();
        let mut paces = Paces::default();
        let mut ask = |number, came, took| {
            let bytes = paces.ask(FetchId(number), peer);
            paces.answered(FetchId(number), came, took, |_| true);
            bytes
        };
        let asked: Vec<usize> = (0..9).map(|number| ask(number, false, FETCH_MAX)).collect();
        assert_eq!(asked[..3], [512 << 10, 256 << 10, 128 << 10]);
        assert_eq!(asked[8], SLOW_PAGE_BYTES_MIN);
        assert_eq!(ask(9, false, FETCH_QUICK), SLOW_PAGE_BYTES_MIN);
        assert_eq!(ask(10, true, FETCH_QUICK), SLOW_PAGE_BYTES_MIN);
        assert_eq!(ask(11, true, FETCH_QUICK), 2 * SLOW_PAGE_BYTES_MIN);
        for number in 12..20 {
            ask(number, true, Duration::ZERO);
        }
        assert_eq!(ask(20, true, FETCH_QUICK), LOG_PAGE_BYTES);
    }
}
