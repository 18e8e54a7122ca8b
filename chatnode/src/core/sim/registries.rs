//! The registries: whom they list, and what they tell the nodes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::nodes::{LEASE, Node};
use super::world::{NodeId, World};
use crate::core::Input;
use crate::core::input::Listed;
use crate::core::presence::AWAITED_MAX;
use crate::discovery::talk::RENEW_DEFAULT;
use crate::model::names::Origin;

/// A living node is listed again within this by registries that came back empty.
const RELISTED_MAX: Duration = RENEW_DEFAULT.saturating_add(Duration::from_millis(500));

impl World {
    /// No registry answers for a while; when they do, they may have forgotten all.
    pub(super) fn registries_away(&mut self) {
        self.note("fault: registries away");
        self.registries_away = self.for_ms(500..8_000);
        if self.chance(0.5) {
            self.note("fault: registries came back empty");
            for id in 0..self.nodes.len() {
                let again = self.registries_away + self.up_to(RELISTED_MAX);
                self.nodes[id].listed_again = again;
            }
        }
        self.tell(|w| format!("no registry answers until {:?}", w.registries_away));
    }

    fn is_listed(&self, node: &Node) -> bool {
        let renewed = match node.crashed {
            Some(crashed) => self.now < crashed + LEASE,
            None => !node.frozen || self.now < node.frozen_at + LEASE,
        };
        let back = node.alive || node.listed_again <= node.started;
        let listed = node.listed && renewed && back && self.now >= node.listed_again;
        listed && (node.alive || !self.is_replaced(node))
    }

    /// Whether another has registered where a node was: a registry lists one at an address.
    fn is_replaced(&self, node: &Node) -> bool {
        let place = &node.core.identity().http;
        let after = |other: &&Node| other.listed && other.started > node.started;
        let mut others = self.nodes.iter().filter(after);
        others.any(|other| other.core.identity().http == *place)
    }

    /// Whom the registries list, if they answer.
    pub(super) fn list_of_all(&self) -> BTreeSet<Origin> {
        let listed = self.nodes.iter().filter(|node| self.is_listed(node));
        listed.map(|node| node.origin).collect()
    }

    /// The registries tell the nodes whom they list.
    pub(super) fn list(&mut self) {
        let listed = self.list_of_all();
        let now = self.now;
        for id in 0..self.nodes.len() {
            let node = &mut self.nodes[id];
            if listed.contains(&node.origin) {
                node.unlisted = None;
            } else if node.unlisted.is_none() {
                node.unlisted = Some(now);
                if node.alive && node.listed {
                    self.note("unlisted though alive");
                }
            }
        }
        for id in self.live() {
            let node = &self.nodes[id];
            if node.listed && !node.frozen && self.tell_list(id, &listed) {
                self.settle(id);
            }
        }
    }

    /// Tells a node whom the registries list, if that is news. While none answers it goes by what they
    /// listed last.
    pub(super) fn tell_list(&mut self, id: NodeId, listed: &BTreeSet<Origin>) -> bool {
        let answer = self.now >= self.registries_away;
        let node = &self.nodes[id];
        let before = node.list_seen.as_ref();
        let mut listed = match before {
            Some((_, false)) if !answer => return false,
            Some((before, _)) if !answer => before.clone(),
            Some((before, true)) if listed.iter().filter(|it| **it != node.origin).eq(before) => {
                return false;
            }
            _ => listed.clone(),
        };
        listed.remove(&node.origin);
        let seen = (listed, answer);
        if before == Some(&seen) {
            return false;
        }
        let others = seen.0.iter().filter(|_| self.plan.direct);
        let others = others.filter_map(|it| self.ledger.node(*it));
        let told = Listed {
            members: others.map(|other| self.target(other)).collect(),
            answering: answer.then(|| seen.0.clone()),
            is_settled: true,
        };
        self.nodes[id].list_seen = Some(seen);
        self.give(id, Input::Listed(told));
        true
    }

    /// Whether a node may not hold another for gone: it lives, it was heard not long ago, and no
    /// registry has let it go.
    pub(super) fn is_awaited(&self, id: NodeId, other: NodeId) -> bool {
        let node = &self.nodes[other];
        let heard = self.nodes[id].beats.get(&other);
        let lately = heard.is_some_and(|at| self.now < *at + AWAITED_MAX);
        node.alive && lately && node.unlisted.is_none()
    }
}
