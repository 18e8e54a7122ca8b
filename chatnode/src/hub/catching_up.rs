//! A node that was stopped, or lags: it takes no send and no join before it holds what its peers hold.

use std::time::Duration;

use super::Node;
use crate::replica::Now;

/// A node whose links lag by so much takes no send and no join before it has caught up.
const LAG_MAX: Duration = Duration::from_secs(1);

impl Node {
    /// The time. A node that finds that it was stopped has first to learn what was said meanwhile.
    pub(super) fn now(&mut self) -> Now {
        let now = self.clock.now();
        if self.clock.woke() {
            // By its own clock, which stood still, it is not time yet; the others' did not.
            self.replica.ask_beat(now);
            self.catch_up(now);
        }
        now
    }

    /// Takes no send and no join before it holds what its peers hold now.
    fn catch_up(&mut self, now: Now) {
        self.ready.send_replace(false);
        self.read_nobody(true);
        self.replica.catch_up(now);
        self.carry_out(now);
    }

    /// Whether what clients say is taken now.
    pub(crate) fn takes_clients(&self) -> bool {
        self.replica.is_ready() && !self.replica.is_catching_up()
    }

    /// A node that reads its links so late does not know what was said elsewhere long ago: first it
    /// learns that. Once for each time that it comes to lag.
    pub(super) fn notice_lag(&mut self, now: Now) {
        let lags = self.links.behind() >= LAG_MAX;
        let lagged = std::mem::replace(&mut self.lags, lags);
        if lags && !lagged {
            tracing::warn!("this node lags behind its peers: clients wait until it has caught up");
            self.catch_up(now);
        }
    }

    /// What was said while this node was stopped, or lagged, is here.
    pub(super) fn caught_up(&mut self) {
        tracing::info!("caught up with the others: takes what clients say again");
        self.ready.send_replace(self.takes_clients());
        self.read_nobody(false);
    }
}
