//! Roll calls: asking all who are heard how far they are, so that this node learns what it lacks.
//!
//! A node that was stopped does not know what was said meanwhile, and one that a client comes to does
//! not know what the client was shown elsewhere a moment ago. Its peers know. It asks each for its
//! position, by a request of its own (what waits on a link may be as old as the stop), and then waits
//! until it holds what they named: the same as when it joined. Whoever neither answers nor is
//! linked any more has nothing to tell; a link that was up is waited for until it brings or ends, since
//! what a dead peer said last may still be in it.
//!
//! While a node *catches up* it takes no send and no join: what it does not know yet may have been said,
//! and shown, elsewhere already, and would be said and shown again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::names::Origin;

/// The roll calls of a node.
#[derive(Debug, Default)]
pub(super) struct Rolls {
    /// The number of the one that was begun last.
    pub(super) last: u64,
    pub(super) running: Option<Roll>,
    /// When the last was begun.
    pub(super) begun: Option<Duration>,
    /// Another is wanted when this one is over: what is running was asked too early for somebody.
    pub(super) again: bool,
    /// The node takes no clients' requests before this roll call is complete, or this time has come.
    pub(super) catching_up: Option<(u64, Duration)>,
}

#[derive(Debug)]
pub(super) struct Roll {
    pub(super) until: Duration,
    pub(super) asked: BTreeMap<Origin, Asked>,
    /// What those who answered hold and this node lacks.
    pub(super) lacking: BTreeMap<Origin, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    UnderWay,
    /// It did not answer; it is asked again then, if it is linked.
    Failed(Duration),
    Answered,
}
