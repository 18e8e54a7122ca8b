//! The registries: whom they list, and what they tell the nodes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::nodes::{LEASE, Node};
use super::world::{NodeId, World};
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
        node.listed && renewed && back && self.now >= node.listed_again
    }

    /// The registries tell the nodes whom they list.
    pub(super) fn list(&mut self) {
        let listed: BTreeSet<Origin> = self
            .nodes
            .iter()
            .filter(|node| self.is_listed(node))
            .map(|node| node.origin)
            .collect();
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
        let told = (now >= self.registries_away).then_some(listed);
        for id in self.live() {
            let node = &self.nodes[id];
            if node.listed && !node.frozen && node.list_seen != told {
                let at = self.now_of(id);
                let node = &mut self.nodes[id];
                let others = told.clone().map(|mut listed| {
                    listed.remove(&node.origin);
                    listed
                });
                node.core.listed(at, others.as_ref());
                node.list_seen.clone_from(&told);
                self.settle(id);
            }
        }
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
