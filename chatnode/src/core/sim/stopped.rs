//! A node that is stopped while much is said elsewhere, and said again to it: nothing is shown twice,
//! however much it was, and whether or not clients name what they saw.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::conns::Call;
use super::exempt::Exempt;
use super::nodes::Comes;
use super::plan::Plan;
use super::world::{Event, NodeId, World};
use crate::core::stops::CATCH_UP_AFTER;
use crate::model::entry::Entry;

/// When the node is stopped: all are ready then.
pub(super) const STOPPED_AT: Duration = Duration::from_secs(8);

/// Whether an entry is of a burst in which a node was stopped: all that were shown one of it have
/// peers that can bring it, so no client has to name it.
pub(super) fn is_of_a_burst(entry: &Entry) -> bool {
    let mid = entry.mid.as_ref();
    mid.is_some_and(|mid| mid.as_str().starts_with("burst-"))
}

impl World {
    /// A world in which one node is stopped.
    pub(super) fn stopped(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::stopped(&mut rng);
        Self::new(seed, plan, rng, story)
    }

    /// Stops a node. Meanwhile a burst is said at another, which then dies, and the same waits in the
    /// sockets of the one that is stopped, as do the joins of those who lost the other.
    pub(super) fn stop_one(&mut self) {
        let live = self.live();
        let (Some(stopped), Some(other)) = (self.pick(&live), self.pick(&live)) else {
            return;
        };
        if stopped == other {
            return self.at(Duration::from_millis(1), Event::Fault);
        }
        self.note("fault: stopped in a burst");
        // Some stops are too short to be noticed.
        let lasts = Duration::from_millis(self.rng.random_range(300..5_000));
        self.freeze_node(stopped, lasts, false);
        let count = self.rng.random_range(600..900);
        for number in 0..count {
            let client = self.rng.random_range(0..self.clients.len());
            let mid = format!("burst-{number}");
            let text = format!("burst {number}");
            let first = lasts.mul_f64(self.rng.random_range(0.1..0.5));
            for node in [other, stopped] {
                let mid = Some(mid.parse().expect("a mid"));
                let say = Call::Post(mid, text.clone(), 0);
                let input = Comes::Client(client, 0, say);
                self.at(first, Event::Input(node, input));
            }
        }
        self.at(lasts.mul_f64(0.6), Event::Crash(other));
    }

    /// What was said elsewhere while a node was stopped it does not say again, unless it had taken that
    /// before, and its disk had not.
    pub(super) fn not_said_while_stopped(&self, id: NodeId, entry: &Entry, taken: Duration) {
        let node = &self.nodes[id];
        if !self.plan.stopped || node.thawed < node.frozen_at + CATCH_UP_AFTER {
            return;
        }
        let meanwhile = node.frozen_at..node.thawed;
        let elsewhere = self.ledger.alike(entry).iter().find(|other| {
            let said = self.ledger.get(**other).map(|said| said.at);
            other.origin != entry.origin && said.is_some_and(|at| meanwhile.contains(&at))
        });
        let before = taken < node.frozen_at;
        if let Some(other) = elsewhere.filter(|_| !before || !self.passes(Exempt::TakenBefore)) {
            self.broken(format!(
                "n{id} makes {:?} of {other:?}, which was said while it was stopped",
                entry.id()
            ));
        }
    }
}
