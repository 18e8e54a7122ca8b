//! Positions that stay short, however many nodes have come and gone.
//!
//! A position names origins, each with the last number of it that was seen. Every start of a node is
//! an origin, so a position that named all that ever spoke would grow for ever. Two marks stand for
//! those that it does not name; they look like ids, so that clients need not know them:
//!
//! - `alltherest.T`: of origins that are not named here, all that was said through the time T is seen.
//!   The node knew all of them, and names those that live, and the newest of the dead.
//! - `madeattime.T`: the position is as old as that. Of an origin that a client does not name it has
//!   seen nothing. If all that this origin said is trimmed, the client may have missed it, or it was
//!   gone before the client came: the time tells.
//!
//! What comes late, with a time that has been stood for already, makes its log a new one: it is
//! named, and a position from before that, which says nothing of it, is not believed to have it.
//!
//! Times are those of the hybrid clock, so that a position made after a node was heard is later than
//! what that node did before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clock::AHEAD_MAX_US;
use crate::model::names::{EntryId, Origin};

/// Dead origins of which something is kept, that a position names at the most: those that spoke last.
pub(crate) const NAMED_DEAD_MAX: usize = 128;
/// Dead origins of which nothing is kept, that a position names at the most.
pub(crate) const NAMED_SPENT_MAX: usize = 64;
/// When so many logs have begun, it is decided at once, and not with the next beat, which of them
/// positions need not name.
pub(crate) const FRESH_MAX: usize = 64;

/// What positions must know of a log.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Times {
    /// No mark below this stands for it: when it spoke last, or, if that came late, when it came.
    pub(super) mark: u64,
    /// The same of what came late; 0 if nothing did.
    pub(super) late: u64,
    /// When something of it was trimmed last.
    pub(super) trimmed: u64,
}

impl Times {
    /// Something of it was trimmed then.
    pub(super) fn trim(&mut self, at: u64) {
        self.trimmed = at;
    }

    /// What was of it before now will never be had here.
    pub(super) fn skip(&mut self, at: u64) {
        self.trimmed = at;
        self.mark = self.mark.max(at);
    }

    /// Of a log that a disk has.
    pub(super) fn restored(last_ts: u64, trimmed: u64) -> Self {
        Self {
            mark: last_ts,
            late: 0,
            trimmed,
        }
    }
}

/// What stands in a position for origins that it does not name.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// When it was made.
    pub(super) made: u64,
    /// Through when all others are seen.
    pub(super) rest: u64,
}

/// What a client has seen of an origin that its position does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unnamed {
    /// All of it.
    Seen,
    /// Something that cannot be brought any more, or nobody can tell.
    Missed,
    /// Nothing beyond this number and later than the position's mark.
    Beyond(u64),
}

/// What a node's positions are made of, besides its logs.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// Later than all positions that were made.
    pub(super) time: u64,
    /// The node's time when it was looked at last.
    pub(super) now: u64,
    /// How far the clock of another node was ahead of this one's, at the most,
    pub(super) skew: u64,
    /// and how far behind, with the way of its beat.
    pub(super) behind: u64,
    /// The mark that stands for those not named.
    pub(super) rest: u64,
    /// When something was trimmed of a log that was forgotten.
    pub(super) forgotten: u64,
    /// What was said before this no client here has to get any more: when this node began to take them, or
    /// the oldest of the positions with which they came.
    pub(super) owed_since: u64,
    /// When this node began to take clients, by the clock that nobody sets.
    pub(super) taken_since: Option<Duration>,
    /// Origins that lived when this was last looked at.
    pub(super) alive: BTreeSet<Origin>,
    /// Logs that have begun since.
    pub(super) fresh: usize,
}

impl Positions {
    /// Of a node that starts now.
    pub(super) fn new(wall_us: u64) -> Self {
        Self {
            time: wall_us,
            now: wall_us,
            owed_since: u64::MAX,
            ..Self::default()
        }
    }
}

impl Marks {
    /// Takes the marks out of a client's position. A time that is not come yet means nothing.
    pub(super) fn take(seen: &mut BTreeMap<Origin, u64>, now: u64) -> Self {
        let mut mark = |name: Origin| seen.remove(&name).unwrap_or_default();
        let (made, rest) = (mark(Origin::MADE), mark(Origin::REST));
        let believed = made <= now.saturating_add(AHEAD_MAX_US);
        Self {
            made: if believed { made } else { 0 },
            rest,
        }
    }

    /// Of two positions in one: what either stands for.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            made: self.made.max(other.made),
            rest: self.rest.max(other.rest),
        }
    }

    /// Whether one of a position stands for this log, all of it.
    pub(super) fn stands_for(self, times: Times) -> bool {
        self.rest > 0 && times.mark <= self.rest
    }

    /// As they stand in a position.
    pub(super) fn ids(self) -> impl Iterator<Item = EntryId> {
        let rest = (self.rest > 0).then_some((Origin::REST, self.rest));
        let made = Some((Origin::MADE, self.made));
        let ids = rest.into_iter().chain(made);
        ids.map(|(origin, seq)| EntryId { origin, seq })
    }
}
