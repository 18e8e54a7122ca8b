//! Worlds that last longer than a mid is remembered: what is said again before that time is over is
//! the same message, though its entry was trimmed; what is said again later is another one, unless
//! the first is kept still.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::conns::Call;
use super::exempt::Exempt;
use super::nodes::Comes;
use super::plan::Plan;
use super::world::{Event, NodeId, World};
use crate::core::mids::MID_KEPT;
use crate::model::names::{EntryId, Mid};

/// Clients talk for so long at first; then nobody says anything but what was said already.
pub(super) const TALKED: Duration = Duration::from_secs(6);
/// How often such a quiet world is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Retries of each kind.
const RETRIES: usize = 12;
/// Retries come so long before or after the limit at the most,
const NEAR: Duration = Duration::from_secs(20);
/// and so long at the least: clocks are not the same, and what is over is looked for now and then.
const SURE: Duration = Duration::from_secs(1);

impl World {
    /// A world that lasts longer than a mid is remembered.
    pub(super) fn aged(seed: u64, story: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::aged(&mut rng);
        Self::new(seed, plan, rng, story)
    }

    /// How long such a world goes on before it converges.
    pub(super) fn aged_for() -> Duration {
        TALKED + MID_KEPT + NEAR
    }

    /// Plans that some of what was said is said again, through whatever node.
    pub(super) fn plan_old_retries(&mut self) {
        let said = self.ledger.iter().filter_map(|said| {
            let text = said.entry.text()?.into_owned();
            Some((said.at, said.entry.mid.clone()?, text))
        });
        let said: Vec<(Duration, Mid, String)> = said.collect();
        for nth in 0..2 * RETRIES {
            let (at, mid, text) = &said[self.rng.random_range(0..said.len())];
            let by = self.up_to(NEAR - SURE) + SURE;
            let due = if nth % 2 == 0 {
                *at + MID_KEPT - by
            } else {
                *at + MID_KEPT + by
            };
            let live = self.live();
            let node = self.pick(&live).expect("nobody dies in this world");
            let mut clients = self.clients.iter();
            let client = clients.position(|client| text.starts_with(client.says().as_str()));
            let client = client.expect("a client said it");
            let call = Call::Post(Some(mid.clone()), text.clone(), 0);
            let retry = Event::Input(node, Comes::Client(client, 0, call));
            self.at(due.saturating_sub(self.now), retry);
        }
    }

    /// Whether a node need not know any longer that this was said: it keeps it no more, and the time for
    /// which it has to be known is over, or nearly.
    pub(super) fn is_said_long_ago(&self, id: NodeId, entry: EntryId) -> bool {
        let said = self.ledger.get(entry);
        let old = said.is_some_and(|said| self.now + SURE > said.at + MID_KEPT);
        // By the time of a node whose clock was far from the others' it may look so old much earlier.
        let kept_us = u64::try_from(MID_KEPT.as_micros()).expect("minutes");
        let latest = self.wall_us(self.now + SURE, self.nodes[id].time_wrong_us.1);
        let looks_old = said.is_some_and(|said| latest > said.entry.ts + kept_us);
        let old = old || (looks_old && self.passes(Exempt::ClocksApart));
        old && !self.holds(id, entry) && self.disk_of(id).is_none()
    }

    /// A retry of what was said so long ago that it is kept nowhere is another message, and no reply to
    /// the first one.
    pub(super) fn is_not_of_old(&mut self, id: NodeId, entry: EntryId, asked: Duration) {
        let Some(said) = self.ledger.get(entry) else {
            return;
        };
        let at = said.at;
        if asked < at + MID_KEPT - NEAR {
            return;
        }
        if asked < at + MID_KEPT {
            self.note("mid repeated shortly before it is forgotten");
        } else if asked > at + MID_KEPT + SURE && self.is_said_long_ago(id, entry) {
            self.broken(format!(
                "n{id} replies {entry:?} of {at:?}, which it does not keep, to a retry of {asked:?}"
            ));
        } else {
            self.note("mid repeated that is kept for longer");
        }
    }
}
