//! Whether this node was itself stopped: its process suspended, or its machine asleep. There is this one
//! rule, whoever asks.
//!
//! While a node was stopped it could not have heard anybody, so nobody is to blame who was not heard
//! meanwhile, and what arrived is still to be read before anybody is judged. A stop shows in two ways. The
//! clock tells of one that it noticed, and stands still meanwhile ([`Core::time`](super::Core::time)). Or
//! time goes on, and nothing comes, not even the tick that was due. After a long stop the node also has much to learn
//! before it takes what clients say.

use std::time::Duration;

/// Nothing came for so long: the node was stopped.
pub(crate) const STALL_MIN: Duration = Duration::from_secs(1);
/// A node catches up after so long a stop. One that hardly gets the processor stands still for a second
/// again and again; to ask all for their positions each time would take what it has.
pub(super) const CATCH_UP_AFTER: Duration = Duration::from_secs(2);

/// The stops that show in what comes late.
#[derive(Debug, Default)]
pub(super) struct Stops {
    /// When something came last.
    looked: Duration,
    /// Whether what arrived meanwhile is still to be read.
    is_unread: bool,
    /// What was noticed since the last tick.
    noticed: Duration,
}

impl Stops {
    /// Something comes, when a tick was due then. For how long the node was stopped, if it was.
    pub(super) fn notice(&mut self, now: Duration, tick_due: Duration) -> Option<Duration> {
        let late = now.saturating_sub(tick_due.max(self.looked));
        self.looked = now;
        let stopped = late > STALL_MIN;
        self.is_unread |= stopped;
        if !stopped {
            return None;
        }
        self.noticed += late;
        Some(late)
    }

    /// A tick comes that was due then. A node that hardly gets the processor may take something now and
    /// then, and no tick for long: that is a stop too. How much of one was not noticed yet, and whether what
    /// arrived before this tick is still to be read.
    pub(super) fn tick(&mut self, now: Duration, tick_due: Duration) -> (Duration, bool) {
        let late = now.saturating_sub(tick_due);
        let rest = late.saturating_sub(std::mem::take(&mut self.noticed));
        let stopped = late > STALL_MIN;
        let unread = std::mem::take(&mut self.is_unread) || stopped;
        (if stopped { rest } else { Duration::ZERO }, unread)
    }
}
