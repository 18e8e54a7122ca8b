//! What who runs a node was told already, so that it is told once.

use std::collections::BTreeSet;
use std::time::Duration;

use super::clock::AHEAD_MAX_US;
use super::output::Notice;
use crate::model::names::Origin;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Whether there are as many logs as can be, of which something is kept.
    full_of_logs: bool,
    /// Whether this node's clock is so wrong that it goes by the time of the others.
    goes_by_others: bool,
    /// Peers that are heard and whose wall clock is far from this node's.
    skewed: BTreeSet<Origin>,
}

impl Notices {
    /// Whether there are as many logs as can be.
    pub(super) fn full_of_logs(&mut self, is_full: bool) -> Option<Notice> {
        let told = std::mem::replace(&mut self.full_of_logs, is_full);
        (is_full && !told).then_some(Notice::FullOfLogs)
    }

    /// By how much this node's wall clock is corrected.
    pub(super) fn correction(&mut self, correction_us: i64) -> Option<Notice> {
        let wrong_s = correction_us / -1_000_000;
        let told = std::mem::replace(&mut self.goes_by_others, wrong_s != 0);
        (wrong_s != 0 && !told).then_some(Notice::ClockWrong { wrong_s })
    }

    /// What time it is at a peer, and here.
    pub(super) fn peer_time(&mut self, peer: Origin, ts: u64, wall_us: u64) -> Option<Notice> {
        let apart = Duration::from_micros(ts.abs_diff(wall_us));
        if apart <= Duration::from_micros(AHEAD_MAX_US) {
            self.skewed.remove(&peer);
            return None;
        }
        let is_ahead = ts > wall_us;
        self.skewed.insert(peer).then_some(Notice::PeerSkewed {
            peer,
            apart,
            is_ahead,
        })
    }

    /// A peer is not heard any more.
    pub(super) fn forget(&mut self, peer: Origin) {
        self.skewed.remove(&peer);
    }
}
